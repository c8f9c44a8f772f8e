#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| meshwork_decoders::run("answers", bytes));
