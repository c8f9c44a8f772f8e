//! The corpus of the fuzzer, every input as it is and mutated; `MESHWORK_SEED` replays a run, `MESHWORK_SCHEDULES=2000`
//! runs all mutations.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use meshwork_decoders::targets::TARGETS;
use meshwork_decoders::{Target, bound, corpus, mutation};
use meshwork_simulator::Random;
use meshwork_simulator::random::{schedules, seed};

/// Mutations of the cheapest targets in the full run.
const MUTATIONS: u64 = 200_000;

/// Bytes of the whole corpus, and of one input of it.
const LARGEST_CORPUS: usize = 2 << 20;
const LARGEST_INPUT: usize = 8 << 10;

fn replay(target: &Target) {
    let inputs = corpus::inputs(target).expect("the target has a corpus: `cargo run -p meshwork-decoders seeds`");
    assert!(!inputs.is_empty(), "{} has no corpus", target.name);
    bound::warm(target);
    for (name, input) in &inputs {
        check(target, name, input);
    }
    let salt = target.name.bytes().fold(0, |salt, byte| salt * 31 + u64::from(byte));
    let mut random = Random::new(seed() ^ salt);
    let mutations = schedules(MUTATIONS / target.bound.dearness);
    for _ in 0..mutations {
        let [one, other] = [0, 1].map(|_| &inputs[random.index(inputs.len())]);
        let input = mutation::mutated(&mut random, &one.1, &other.1, target.bound.longest);
        check(target, &format!("{}, mutated", one.0), &input);
    }
    println!("figure: {}: {} inputs and {mutations} mutations read or refused", target.name, inputs.len());
}

/// Says which input it was that something does not hold for.
fn check(target: &Target, name: &str, input: &[u8]) {
    let held = catch_unwind(AssertUnwindSafe(|| bound::check(target, input)));
    held.unwrap_or_else(|panic| {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        println!("{}: {name}: {hex}", target.name);
        resume_unwind(panic);
    });
}

macro_rules! targets {
    ($($name:ident),* $(,)?) => {
        const TESTED: &[&str] = &[$(stringify!($name)),*];

        $(#[test]
        fn $name() {
            replay(TARGETS.iter().find(|target| target.name == stringify!($name)).expect("a target of this name"));
        })*
    };
}

targets!(
    records,
    frames,
    gossip,
    keys,
    admission,
    control,
    datagrams,
    packets,
    probes,
    ring,
    rows,
    database,
    secret_file,
    cni,
    requests,
    answers,
    settings,
    netlink,
    counters,
);

#[test]
fn every_target_is_tested_and_fuzzed() {
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names, TESTED);
    let manifest = include_str!("../../fuzz/Cargo.toml");
    for name in names {
        assert!(manifest.contains(&format!("name = \"{name}\"\n")), "{name} is missing in fuzz/Cargo.toml");
    }
}

#[test]
fn the_corpus_stays_small() {
    let all = TARGETS.iter().flat_map(|target| corpus::inputs(target).expect("a corpus"));
    let sizes: Vec<usize> = all.map(|(_, input)| input.len()).collect();
    assert!(sizes.iter().sum::<usize>() <= LARGEST_CORPUS && sizes.iter().all(|size| *size <= LARGEST_INPUT));
}
