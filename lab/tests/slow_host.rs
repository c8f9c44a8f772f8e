//! A host that is slow to tell of itself holds up neither heartbeats nor answers. A library before the C library lets the
//! daemon wait where it reads the host.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails at that line")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use meshwork_api::event::{Events, Happening};
use meshwork_api::model::{PeerState, Peers, Status};
use meshwork_lab::{Host, Lab, Look, eventually, took};

const DEADLINE: Duration = Duration::from_secs(20);
/// Longer than a node may be silent.
const SLOW: Duration = Duration::from_secs(6);
/// What an answer takes on a busy machine.
const ANSWER: Duration = Duration::from_secs(1);

#[test]
fn a_daemon_whose_host_is_slow_to_read_goes_on_and_follows_later() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let slow_while = directory.join("lkslow.reading");
    let _ = fs::remove_file(&slow_while);
    let lab = Lab::build("lkslow")
        .unwrap()
        .hosts(2)
        .environment(1, "LD_PRELOAD", library(directory).to_str().unwrap())
        .environment(1, "SLOW_WHILE", slow_while.to_str().unwrap())
        .up()
        .unwrap();
    let (host, other) = (lab.host(1), lab.host(2));
    fs::write(&slow_while, "").unwrap();
    host.exec(["ip", "address", "add", "198.19.7.8/32", "dev", "eth0"]).unwrap();
    let slow = Instant::now();
    while slow.elapsed() < SLOW {
        let asked = Instant::now();
        let answered = host.get::<Status>("/v1/status").is_ok_and(|status| status.ready);
        assert!(answered && asked.elapsed() < ANSWER, "it answers, and took {:?}", asked.elapsed());
        let peers: Peers = other.get("/v1/peers").unwrap();
        assert!(peers.peers.iter().all(|peer| peer.state == PeerState::Alive), "{peers:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(!tells_of(host, "198.19.7.8"), "the read is still under way");

    fs::remove_file(&slow_while).unwrap();
    let quick = Instant::now();
    eventually(DEADLINE, "the address that was added", || {
        Ok(if tells_of(host, "198.19.7.8") { Look::Done(()) } else { Look::Missing("it".into()) })
    })
    .unwrap();
    took("new address told once the host could be read", quick.elapsed());
}

fn tells_of(host: &Host, address: &str) -> bool {
    let events: Events = host.get("/v1/events").unwrap();
    events.events.iter().any(|event| match &event.happening {
        Happening::UnderlayChanged { addresses, .. } => addresses.iter().any(|known| known.to_string() == address),
        _ => false,
    })
}

/// Builds the library that is slow.
fn library(directory: &Path) -> PathBuf {
    let library = directory.join("slow.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slow.c");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    library
}
