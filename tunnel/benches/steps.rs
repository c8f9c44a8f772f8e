//! What a packet costs in our own code, step by step: the benches that show slow decay before throughput does.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use meshwork_tunnel::bench_internals::{Directory, OVERHEAD, Pair, Stretch};

/// An inner packet of a full-sized datagram, and a small one.
const SIZES: [usize; 2] = [1400, 64];
/// As many segments as one send carries, of the size that TCP has inside.
const SEGMENTS: usize = 44;
const SEGMENT_SIZE: usize = 1360;
const PEERS: u16 = 1000;

fn ciphers(criterion: &mut Criterion) {
    for (name, aes) in [("AES-256-GCM", true), ("ChaCha20-Poly1305", false)] {
        let pair = Pair::new(aes).expect("keys of the right length");
        for size in SIZES {
            let plaintext = vec![7; size];
            let mut seal = criterion.benchmark_group("seal");
            seal.throughput(Throughput::Bytes(size as u64));
            let mut out = vec![0; size + OVERHEAD];
            seal.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter(|| assert!(pair.seal_into(black_box(&plaintext), &mut out)));
            });
            seal.finish();
            let mut open = criterion.benchmark_group("open");
            open.throughput(Throughput::Bytes(size as u64));
            open.bench_function(BenchmarkId::new(name, size), |bencher| {
                let fresh = || pair.sealed(&plaintext);
                bencher.iter_batched_ref(fresh, |datagram| assert!(pair.open(datagram)), BatchSize::SmallInput);
            });
            open.finish();
        }
    }
}

fn stretches(criterion: &mut Criterion) {
    for (name, v6) in [("IPv4", false), ("IPv6", true)] {
        let mut stretch = Stretch::new(SEGMENTS, SEGMENT_SIZE, v6);
        let mut segment = criterion.benchmark_group("segment");
        segment.throughput(Throughput::Elements(SEGMENTS as u64));
        segment.bench_function(BenchmarkId::new(name, SEGMENTS), |bencher| {
            bencher.iter(|| assert_eq!(black_box(&mut stretch).cut(), SEGMENTS));
        });
        segment.finish();
        let mut run = Stretch::new(SEGMENTS, SEGMENT_SIZE, v6).opened();
        let mut coalesce = criterion.benchmark_group("coalesce");
        coalesce.throughput(Throughput::Elements(SEGMENTS as u64));
        coalesce.bench_function(BenchmarkId::new(name, SEGMENTS), |bencher| {
            bencher.iter(|| assert_eq!(black_box(&mut run).join(), SEGMENTS));
        });
        coalesce.finish();
    }
}

fn look_ups(criterion: &mut Criterion) {
    let directory = Directory::new(PEERS);
    let mut group = criterion.benchmark_group("look-up");
    for (family, name) in ["IPv4", "IPv6"].into_iter().enumerate() {
        // Another peer each time, in no order.
        let mut number = 0;
        group.bench_function(BenchmarkId::new(name, PEERS), |bencher| {
            bencher.iter(|| {
                number = (number + 619) % PEERS;
                assert!(directory.knows(black_box(Directory::addresses(number)[family])));
            });
        });
    }
    group.finish();
}

criterion_group!(steps, ciphers, stretches, look_ups);
criterion_main!(steps);
