//! A disk that fills up or fails under the running daemon, and a database that is not what was written: no lease without
//! a durable record, clear words, and pods that keep talking.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails at that line")]

use std::fs;
use std::time::{Duration, Instant};

use meshwork_api::model::{Leases, Status};
use meshwork_lab::{Host, Lab, Look, Pod, eventually, figure, took};

const DEADLINE: Duration = Duration::from_secs(20);
/// An empty database takes about two, and file system structures one.
const DISK: u64 = 8;
/// The database reuses its own free pages before it needs more disk; each pod takes some.
const MANY: usize = 40;

#[test]
fn a_full_disk_refuses_pods_until_there_is_room_and_forgets_none() {
    let (lab, pods) = on_a_small_disk("blfull");
    let node = lab.host(2);
    node.fill_disk().unwrap();
    let refused = add_until_refused(node);
    figure(format_args!("leases held when the full disk refused another: {}", leases(node)));
    assert!(refused.contains("is full") && refused.contains("free some space"), "{refused}");
    only_what_is_recorded_is_held(&lab, &pods);

    node.free_disk().unwrap();
    node.pod("later").unwrap();
}

#[test]
fn a_disk_that_became_read_only_refuses_pods_until_it_is_writable() {
    let (lab, pods) = on_a_small_disk("blreadonly");
    let node = lab.host(2);
    node.fail_disk().unwrap();
    let refused = node.pod("refused").unwrap_err().to_string();
    assert!(refused.contains("is read-only") && refused.contains("writable"), "{refused}");
    assert_eq!(leases(node), 1, "the refused pod has no lease");
    assert!(answers(&pods), "pods keep talking");

    node.kill().unwrap();
    node.start().unwrap();
    assert_eq!(node.wait_for_exit(DEADLINE).unwrap().code(), Some(1));
    assert!(node.log_tail().contains("is read-only"), "{}", node.log_tail());
    node.mend_disk().unwrap();
    node.start().unwrap();
    lab.wait_until_ready(DEADLINE).unwrap();
    node.pod("later").unwrap();
    only_what_is_recorded_is_held(&lab, &pods);
}

#[test]
fn a_database_that_was_cut_short_is_moved_aside_and_the_next_start_is_a_new_node() {
    let lab = Lab::build("blshort").unwrap().hosts(2).up().unwrap();
    met_at_start(&lab, |bytes| bytes.truncate(bytes.len() / 2));
}

#[test]
fn a_database_with_flipped_bits_is_moved_aside_and_the_next_start_is_a_new_node() {
    let lab = Lab::build("blflipped").unwrap().hosts(2).up().unwrap();
    // One bit of each page behind the header, which it has twice.
    met_at_start(&lab, |bytes| bytes.chunks_mut(4096).skip(1).for_each(|page| page[page.len() / 64] ^= 0x10));
}

/// The daemon meets the damage, says where the files are now and ends; the next one begins anew.
fn met_at_start(lab: &Lab, damage: impl FnOnce(&mut Vec<u8>)) {
    let node = lab.host(2);
    let peer = node.get::<Status>("/v1/status").unwrap().peer.id;
    node.pod("pod").unwrap();
    assert!(node.stop().unwrap().success());
    let database = node.state().join("meshwork.redb");
    let whole = fs::read(&database).unwrap();
    let mut bytes = whole.clone();
    damage(&mut bytes);
    fs::write(&database, &bytes).unwrap();
    let changed = whole.iter().zip(&bytes).filter(|(one, other)| one != other).count();
    figure(format_args!("{} of {} bytes damaged or gone", changed + whole.len() - bytes.len(), whole.len()));

    let started = Instant::now();
    node.start().unwrap();
    assert_eq!(node.wait_for_exit(DEADLINE).unwrap().code(), Some(1), "{}", node.log_tail());
    took("damage noticed, daemon ended", started.elapsed());
    let said = node.log_tail();
    for words in ["is damaged", "kept as", "start again"] {
        assert!(said.contains(words), "{words:?} in: {said}");
    }
    assert!(!database.exists() && !node.state().join("identity").exists(), "neither is used by halves");
    // The first page says how far opening it came.
    let kept = fs::read(node.state().join("meshwork.redb.damaged-1")).unwrap();
    assert!(kept.get(4096..) == bytes.get(4096..), "what it held is kept: {} bytes of {}", kept.len(), bytes.len());

    node.start().unwrap();
    lab.wait_until_ready(DEADLINE).unwrap();
    assert_ne!(node.get::<Status>("/v1/status").unwrap().peer.id, peer);
    node.pod("new").unwrap();
}

fn on_a_small_disk(name: &str) -> (Lab, [Pod; 2]) {
    let mut lab = Lab::build(name).unwrap().hosts(2).without_daemons().unwrap();
    lab.host(2).give_disk(DISK).unwrap();
    lab.start().unwrap();
    let pods = [lab.host(1).pod("one").unwrap(), lab.host(2).pod("two").unwrap()];
    (lab, pods)
}

fn add_until_refused(host: &Host) -> String {
    let refused = (0..MANY).find_map(|number| host.pod(&format!("more{number}")).err());
    refused.expect("a full disk").to_string()
}

/// A daemon that dies now comes back with the leases that it held, and their pods.
fn only_what_is_recorded_is_held(lab: &Lab, pods: &[Pod; 2]) {
    let node = lab.host(2);
    let held = leases(node);
    assert!(answers(pods), "pods keep talking");
    node.kill().unwrap();
    node.start().unwrap();
    lab.wait_until_ready(DEADLINE).unwrap();
    assert_eq!(leases(node), held);
    figure(format_args!("{held} of {held} leases still held by the next daemon"));
    eventually(DEADLINE, "pods that talk", || {
        Ok(if answers(pods) { Look::Done(()) } else { Look::Missing("an answer".into()) })
    })
    .unwrap();
}

fn answers(pods: &[Pod; 2]) -> bool {
    pods[1].addresses().iter().all(|&address| pods[0].ping(address).unwrap().received == 1)
}

fn leases(host: &Host) -> usize {
    host.get::<Leases>("/v1/pods").unwrap().leases.len()
}
