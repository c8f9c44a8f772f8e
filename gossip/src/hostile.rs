//! What broken and hostile neighbours send, and what the frames look like byte for byte.

use std::sync::Arc;
use std::time::{Duration, Instant};

use meshwork_identity::{Identity, PublicKey, Signature};
use meshwork_wire::record::{Store, StoreId};
use meshwork_wire::{Incarnation, PeerId, frame};
use proptest::prelude::*;

use crate::frames::{
    Delta, Digests, Entry, Frame, Heartbeat, Hello, Manifest, Message, Name, Request, Snapshot, Stamp, Summary,
};
use crate::limits::{MAX_MEMBERS, MAX_VALUE, NEW_MEMBERS_BURST};
use crate::replica::Contents;
use crate::{Event, Gossip, Misbehaved};

const RUN: Incarnation = Incarnation(1);

fn identity(number: u8) -> Identity {
    Identity::from_seed([number; 32])
}

/// A node with a link to node 2.
fn node(now: Instant) -> (Gossip, PeerId) {
    let mut gossip = Gossip::new(Arc::new(identity(1)), RUN, now);
    let neighbour = identity(2).public_key();
    gossip.link_up(now, neighbour.peer_id(), neighbour);
    drain(&mut gossip);
    (gossip, neighbour.peer_id())
}

fn drain(gossip: &mut Gossip) -> (Vec<Frame>, Vec<Event>) {
    let frames = std::iter::from_fn(|| gossip.poll_transmit())
        .map(|transmit| frame::decode(&transmit.frame, crate::limits::MAX_FRAME).expect("our own frame"))
        .collect();
    (frames, std::iter::from_fn(|| gossip.poll_event()).collect())
}

fn entry(key: u8, value: &[u8]) -> Entry {
    Entry { name: Name { store: StoreId(900), key: vec![key] }, value: value.to_vec() }
}

fn stamp(sequence: u64, entries: &[Entry]) -> Stamp {
    let mut contents = Contents::default();
    entries.iter().for_each(|entry| contents.upsert(entry.clone()).expect("it fits"));
    Stamp { incarnation: RUN, sequence, root: contents.root() }
}

fn delta(origin: u8, from: u64, entries: &[Entry]) -> Delta {
    let manifest = Manifest::sign(&identity(origin), stamp(from + 1, entries));
    Delta { manifest, from, upserts: entries.to_vec(), removals: vec![] }
}

fn receive(gossip: &mut Gossip, now: Instant, from: PeerId, frame: &Frame) -> Result<(), Misbehaved> {
    gossip.receive(now, from, &frame::encode(frame))
}

#[test]
fn a_signed_change_of_a_third_node_is_taken() {
    let now = Instant::now();
    let (mut gossip, from) = node(now);
    assert_eq!(receive(&mut gossip, now, from, &Frame::Delta(delta(3, 0, &[entry(1, b"v")]))), Ok(()));
    assert_eq!(gossip.counters().deltas, 1);
}

#[test]
fn forged_and_altered_changes_are_refused_and_change_nothing() {
    let now = Instant::now();
    let (mut gossip, from) = node(now);
    let origin = identity(3).peer_id();
    let mut forged = delta(3, 0, &[entry(1, b"v")]);
    forged.manifest.stamp.sequence = 9;
    assert_eq!(receive(&mut gossip, now, from, &Frame::Delta(forged)), Err(Misbehaved::Forged(origin)));
    let mut in_anothers_name = delta(4, 0, &[entry(1, b"v")]);
    in_anothers_name.manifest.origin = identity(3).public_key();
    assert_eq!(receive(&mut gossip, now, from, &Frame::Delta(in_anothers_name)), Err(Misbehaved::Forged(origin)));
    let mut altered = delta(3, 0, &[entry(1, b"v")]);
    altered.upserts = vec![entry(1, b"w")];
    assert_eq!(receive(&mut gossip, now, from, &Frame::Delta(altered)), Err(Misbehaved::Altered(origin)));
    assert_eq!(gossip.members().count(), 1);
    assert_eq!(gossip.counters().forged, 3);
    println!("figure: {} of 3 forged or altered changes refused and counted", gossip.counters().forged);
}

#[test]
fn an_older_state_never_replaces_a_newer_one() {
    let now = Instant::now();
    let (mut gossip, from) = node(now);
    let first = delta(3, 0, &[entry(1, b"old")]);
    let second = delta(3, 1, &[entry(1, b"new")]);
    for delta in [&first, &second, &first] {
        assert_eq!(receive(&mut gossip, now, from, &Frame::Delta(delta.clone())), Ok(()));
    }
    assert_eq!(gossip.replicas.of(identity(3).peer_id()).map(|replica| replica.stamp().sequence), Some(2));
}

#[test]
fn a_gap_asks_for_a_snapshot_which_is_taken_when_whole_and_true() {
    let now = Instant::now();
    let (mut gossip, from) = node(now);
    let entries = [entry(1, b"one"), entry(2, b"two")];
    let manifest = Manifest::sign(&identity(3), stamp(8, &entries));
    let part = |part: u16| {
        Frame::Snapshot(Snapshot { manifest, part, parts: 2, entries: vec![entries[usize::from(part)].clone()] })
    };
    assert_eq!(receive(&mut gossip, now, from, &part(0)), Ok(()), "nobody asked");
    assert_eq!(gossip.counters().unexpected, 1);
    receive(&mut gossip, now, from, &Frame::Delta(delta(3, 7, &entries))).expect("a gap is no fault");
    let request = Frame::Request(Request { origins: vec![identity(3).peer_id()] });
    assert!(drain(&mut gossip).0.contains(&request));
    receive(&mut gossip, now, from, &part(1)).expect("it was asked for");
    assert!(gossip.replicas.of(identity(3).peer_id()).is_none());
    receive(&mut gossip, now, from, &part(0)).expect("it was asked for");
    assert_eq!(gossip.counters().snapshots, 1);
}

#[test]
fn a_snapshot_without_end_is_given_up() {
    let now = Instant::now();
    let (mut gossip, from) = node(now);
    let origin = identity(3).peer_id();
    let entries: Vec<Entry> = (0..2).map(|key| entry(key, &[7; MAX_VALUE])).collect();
    let manifest = Manifest::sign(&identity(3), stamp(8, &entries));
    receive(&mut gossip, now, from, &Frame::Delta(delta(3, 7, &[]))).expect("a gap is no fault");
    let part = |part| Frame::Snapshot(Snapshot { manifest, part, parts: 8, entries: entries.clone() });
    assert_eq!(receive(&mut gossip, now, from, &part(0)), Ok(()));
    assert_eq!(receive(&mut gossip, now, from, &part(0)), Err(Misbehaved::TooLarge(origin)));
    assert!(gossip.pulls.is_empty());
}

#[test]
fn invented_members_are_admitted_slowly() {
    let now = Instant::now();
    let (mut gossip, from) = node(now);
    for number in 0..=250u8 {
        let invented = Identity::from_seed([number; 32].map(|byte: u8| byte.wrapping_add(100)));
        let manifest = Manifest::sign(&invented, stamp(1, &[]));
        let delta = Delta { manifest, from: 0, upserts: vec![], removals: vec![] };
        receive(&mut gossip, now, from, &Frame::Delta(delta)).expect("each of them is valid");
    }
    assert!(gossip.replicas.len() <= NEW_MEMBERS_BURST as usize + 2);
    println!("figure: {} of 251 invented members taken in at once", gossip.replicas.len());
    let summaries =
        (0..MAX_MEMBERS as u128 * 2).map(|id| Summary { origin: PeerId(id.to_be_bytes()), stamp: stamp(1, &[]) });
    for batch in summaries.collect::<Vec<_>>().chunks(900) {
        let digests = Digests { covers: None, summaries: batch.to_vec() };
        receive(&mut gossip, now, from, &Frame::Digests(digests)).expect("summaries are mere claims");
    }
    assert!(gossip.links.values().all(|link| link.wants.len() <= MAX_MEMBERS));
    assert!(gossip.pulls.len() <= crate::limits::PULLS_PER_LINK);
}

#[test]
fn a_relayed_message_needs_its_sources_signature() {
    let now = Instant::now();
    let (mut gossip, from) = node(now);
    receive(&mut gossip, now, from, &Frame::Delta(delta(3, 0, &[]))).expect("a third member");
    drain(&mut gossip);
    let (source, target) = (identity(3).peer_id(), identity(1).peer_id());
    let bytes = Message::signed_bytes(source, target, 7, b"hi");
    let message =
        |signature| Frame::Message(Message { source, target, hops: 3, topic: 7, payload: b"hi".to_vec(), signature });
    assert_eq!(receive(&mut gossip, now, from, &message(identity(2).sign(&bytes))), Err(Misbehaved::Forged(source)));
    assert_eq!(receive(&mut gossip, now, from, &message(identity(3).sign(&bytes))), Ok(()));
    assert_eq!(drain(&mut gossip).1, [Event::Message { from: source, topic: 7, payload: b"hi".to_vec() }]);
}

#[test]
fn only_our_own_signature_tells_us_that_we_are_outranked() {
    let now = Instant::now();
    let (mut gossip, from) = node(now);
    let later = Stamp { incarnation: Incarnation(5), sequence: 1, root: [0; 32] };
    let mut echo = Manifest::sign(&identity(2), later);
    let hello = |echo| Frame::Hello(Hello { incarnation: RUN, echo: Some(echo) });
    assert!(receive(&mut gossip, now, from, &hello(echo)).is_err());
    echo.origin = identity(1).public_key();
    assert!(receive(&mut gossip, now, from, &hello(echo)).is_err());
    assert!(receive(&mut gossip, now, from, &hello(Manifest::sign(&identity(1), later))).is_ok());
    let outranked = Event::Outranked { incarnation: Incarnation(5) };
    assert_eq!(drain(&mut gossip).1, [outranked]);
}

#[test]
fn a_peer_without_a_link_is_not_heard() {
    let now = Instant::now();
    let (mut gossip, _) = node(now);
    let stranger = identity(9).peer_id();
    assert_eq!(receive(&mut gossip, now, stranger, &Frame::Delta(delta(3, 0, &[]))), Ok(()));
    assert_eq!((gossip.counters().unexpected, gossip.replicas.len()), (1, 1));
}

#[test]
fn frames_keep_their_bytes() {
    let hex = |frame: Frame| frame::encode(&frame).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let stamp = Stamp { incarnation: Incarnation(300), sequence: 5, root: [0xcc; 32] };
    let manifest = Manifest { origin: PublicKey([0xaa; 32]), stamp, signature: Signature([0xbb; 64]) };
    let (id, name) = (PeerId([0xdd; 16]), Name { store: StoreId(900), key: vec![1, 2] });
    let entry = Entry { name: name.clone(), value: vec![7, 8, 9] };
    let (a, b, c, d) = ("aa".repeat(32), "bb".repeat(64), "cc".repeat(32), "dd".repeat(16));
    let signed = format!("{a}ac0205{c}40{b}");
    let hello = Hello { incarnation: Incarnation(300), echo: Some(manifest) };
    assert_eq!(hex(Frame::Hello(hello)), format!("0100ac0201{signed}"));
    assert_eq!(hex(Frame::Heartbeat(Heartbeat { digest: [0xdd; 16], probe: true })), format!("0101{d}01"));
    let digests = Digests { covers: Some((id, id)), summaries: vec![Summary { origin: id, stamp }] };
    assert_eq!(hex(Frame::Digests(digests)), format!("010201{d}{d}01{d}ac0205{c}"));
    assert_eq!(hex(Frame::Request(Request { origins: vec![id] })), format!("010301{d}"));
    let delta = Delta { manifest, from: 4, upserts: vec![entry.clone()], removals: vec![name] };
    assert_eq!(hex(Frame::Delta(delta)), format!("0104{signed}0401840702010203070809018407020102"));
    let snapshot = Snapshot { manifest, part: 1, parts: 2, entries: vec![entry] };
    assert_eq!(hex(Frame::Snapshot(snapshot)), format!("0105{signed}010201840702010203070809"));
    let signature = Signature([0xbb; 64]);
    let message = Message { source: id, target: id, hops: 8, topic: 900, payload: vec![1], signature };
    assert_eq!(hex(Frame::Message(message)), format!("0106{d}{d}088407010140{b}"));
}

struct Notes;

impl Store for Notes {
    const ID: StoreId = StoreId(900);
    const NAME: &'static str = "notes";
    type Key = u32;
    type Value = String;
}

proptest! {
    #[test]
    fn random_bytes_never_panic_nor_change_anything(
        bodies in proptest::collection::vec((0u8..8, proptest::collection::vec(any::<u8>(), 0..300)), 1..20),
    ) {
        let now = Instant::now();
        let (mut gossip, from) = node(now);
        for (kind, body) in bodies {
            let bytes = [&[frame::FORMAT, kind], &body[..]].concat();
            let _ = gossip.receive(now, from, &bytes);
            gossip.handle_timeout(now + Duration::from_secs(1));
        }
        drain(&mut gossip);
        prop_assert_eq!(gossip.replicas.len(), 1);
        prop_assert_eq!(gossip.entries::<Notes>().count(), 0);
    }

    #[test]
    fn a_change_with_any_byte_flipped_is_not_taken(position in 0usize..200, flip in 1u8..) {
        let now = Instant::now();
        let (mut gossip, from) = node(now);
        let mut bytes = frame::encode(&Frame::Delta(delta(3, 0, &[entry(1, b"value")])));
        let position = position % bytes.len();
        bytes[position] ^= flip;
        let _ = gossip.receive(now, from, &bytes);
        prop_assert_eq!(gossip.counters().deltas, 0, "byte {}", position);
    }
}
