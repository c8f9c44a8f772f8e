#![no_main]

// The library that reads the database panics on damage, and `meshwork-state` takes that for what it is: only panics that
// nobody catches are found here, and `cargo run -p meshwork-decoders run` shows what they say.
libfuzzer_sys::fuzz_target!(
    init: std::panic::set_hook(Box::new(|_| {})),
    |bytes: &[u8]| meshwork_decoders::run("database", bytes)
);
