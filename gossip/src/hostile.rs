//! What broken and hostile neighbours send, and what the frames look like byte for byte.

use std::sync::Arc;
use std::time::{Duration, Instant};

use meshwork_identity::{Identity, PublicKey, Signature};
use meshwork_wire::record::{Store, StoreId};
use meshwork_wire::{Incarnation, PeerId, frame};
use proptest::prelude::*;
use serde_bytes::ByteBuf;

use crate::block::{Block, Changes};
use crate::frames::{
    Answer, Base, Delta, Entry, Frame, Heartbeat, Hello, Item, Manifest, Mark, Message, Name, Part, Stamp, Summary,
    Walk,
};
use crate::limits::{MAX_BATCH, MAX_MEMBERS, MAX_PARTS, NEW_MEMBERS_BURST, PULL_WINDOW};
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

fn block(entries: &[Entry]) -> Block {
    let changes: Changes = entries.iter().map(|entry| (entry.name.clone(), Some(entry.value.clone()))).collect();
    Block::default().with(&changes).expect("it fits")
}

fn stamp(sequence: u64, entries: &[Entry]) -> Stamp {
    Stamp { incarnation: RUN, sequence, root: block(entries).root() }
}

fn delta(origin: u8, from: u64, entries: &[Entry]) -> Delta {
    let manifest = Manifest::sign(&identity(origin), stamp(from + 1, entries));
    Delta { manifest, from, upserts: entries.to_vec(), removals: vec![] }
}

fn changes(delta: &Delta) -> Frame {
    Frame::Changes(vec![ByteBuf::from(frame::encode(delta))])
}

fn receive(gossip: &mut Gossip, now: Instant, from: PeerId, frame: &Frame) -> Result<(), Misbehaved> {
    gossip.receive(now, from, &frame::encode(frame))
}

/// A member that nobody knows.
fn invented(number: u16) -> Identity {
    let mut seed = [99; 32];
    [seed[0], seed[1]] = number.to_be_bytes();
    Identity::from_seed(seed)
}

#[test]
fn a_signed_change_of_a_third_node_is_taken() {
    let now = Instant::now();
    let (mut gossip, from) = node(now);
    assert_eq!(receive(&mut gossip, now, from, &changes(&delta(3, 0, &[entry(1, b"v")]))), Ok(()));
    assert_eq!(gossip.counters().deltas, 1);
}

#[test]
fn forged_and_altered_changes_are_refused_and_change_nothing() {
    let now = Instant::now();
    let (mut gossip, from) = node(now);
    let origin = identity(3).peer_id();
    let mut forged = delta(3, 0, &[entry(1, b"v")]);
    forged.manifest.stamp.sequence = 9;
    assert_eq!(receive(&mut gossip, now, from, &changes(&forged)), Err(Misbehaved::Forged(origin)));
    let mut in_anothers_name = delta(4, 0, &[entry(1, b"v")]);
    in_anothers_name.manifest.origin = identity(3).public_key();
    assert_eq!(receive(&mut gossip, now, from, &changes(&in_anothers_name)), Err(Misbehaved::Forged(origin)));
    let mut altered = delta(3, 0, &[entry(1, b"v")]);
    altered.upserts = vec![entry(1, b"w")];
    assert_eq!(receive(&mut gossip, now, from, &changes(&altered)), Err(Misbehaved::Altered(origin)));
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
        assert_eq!(receive(&mut gossip, now, from, &changes(delta)), Ok(()));
    }
    assert_eq!(gossip.members.of(identity(3).peer_id()).map(|replica| replica.stamp().sequence), Some(2));
}

#[test]
fn a_refused_change_does_not_take_others_in_its_frame_with_it() {
    let now = Instant::now();
    let (mut gossip, from) = node(now);
    let mut forged = delta(3, 0, &[entry(1, b"v")]);
    forged.manifest.stamp.sequence = 9;
    let (forged, unreadable, good) =
        (frame::encode(&forged), vec![9, 9], frame::encode(&delta(4, 0, &[entry(1, b"v")])));
    let frame = Frame::Changes([forged, unreadable, good].map(ByteBuf::from).to_vec());
    assert_eq!(receive(&mut gossip, now, from, &frame), Err(Misbehaved::Forged(identity(3).peer_id())));
    assert!(gossip.members.of(identity(4).peer_id()).is_some());
}

/// Node 3's state in two parts, and its announcement.
fn large(gossip: &mut Gossip, now: Instant, from: PeerId) -> impl Fn(u16) -> Frame + use<> {
    let entries: Vec<Entry> = (0..4).map(|key| entry(key, &[7; 12_000])).collect();
    let manifest = Manifest::sign(&identity(3), stamp(8, &entries));
    let block = block(&entries);
    let size = block.bytes().len() as u32;
    let summary = Summary { origin: identity(3).peer_id(), mark: manifest.stamp.mark(), size };
    receive(gossip, now, from, &Frame::Announce(vec![summary])).expect("an announcement");
    drain(gossip);
    move |part| {
        let bytes = block.bytes().chunks(MAX_BATCH).nth(part.into()).expect("two parts").to_vec();
        Frame::States(vec![Part { manifest, part, parts: 2, bytes }])
    }
}

#[test]
fn a_gap_asks_for_the_state_which_is_taken_when_whole_and_true() {
    let now = Instant::now();
    let (mut gossip, from) = node(now);
    let origin = identity(3).peer_id();
    receive(&mut gossip, now, from, &changes(&delta(3, 7, &[entry(1, b"one")]))).expect("a gap is no fault");
    assert!(drain(&mut gossip).0.contains(&Frame::Request(vec![origin])));
    let part = large(&mut gossip, now, from);
    receive(&mut gossip, now, from, &part(0)).expect("it was asked for");
    assert!(gossip.members.of(origin).is_none());
    receive(&mut gossip, now, from, &part(1)).expect("it was asked for");
    assert_eq!((gossip.counters().snapshots, gossip.counters().unexpected), (1, 0));
    receive(&mut gossip, now, from, &part(0)).expect("nobody asked");
    assert_eq!(gossip.counters().unexpected, 1);
}

#[test]
fn states_out_of_order_without_end_or_altered_are_given_up() {
    let now = Instant::now();
    let origin = identity(3).peer_id();
    let wrongs: [fn(&mut Part); 4] = [
        |part| part.part = 1,
        |part| part.parts = MAX_PARTS + 1,
        |part| part.bytes.extend([0; 9]),
        |part| (part.parts, part.bytes[9]) = (1, 0),
    ];
    for wrong in wrongs {
        let (mut gossip, from) = node(now);
        let Frame::States(mut parts) = large(&mut gossip, now, from)(0) else { unreachable!("it makes states") };
        wrong(&mut parts[0]);
        let refused = receive(&mut gossip, now, from, &Frame::States(parts));
        assert!(
            matches!(refused, Err(Misbehaved::TooLarge(of) | Misbehaved::Altered(of)) if of == origin),
            "{refused:?}"
        );
        assert!(gossip.pulls.is_empty() && gossip.wants.is_empty() && gossip.members.of(origin).is_none());
    }
}

#[test]
fn a_neighbour_that_claims_what_it_does_not_send_keeps_nobody_from_it() {
    let now = Instant::now();
    let (mut gossip, liar) = node(now);
    let honest = identity(5).public_key();
    gossip.link_up(now, honest.peer_id(), honest);
    let (origin, state) = (identity(3).peer_id(), stamp(8, &[]));
    let mark = state.mark();
    let lie = Summary { origin, mark: Mark { sequence: u64::MAX, ..mark }, size: 9 };
    receive(&mut gossip, now, liar, &Frame::Announce(vec![lie])).expect("a mere claim");
    let asked = |gossip: &mut Gossip| {
        let requests = std::iter::from_fn(|| gossip.poll_transmit())
            .filter(|transmit| frame::decode(&transmit.frame, 9000) == Ok(Frame::Request(vec![origin])));
        requests.map(|transmit| transmit.to).collect::<Vec<_>>()
    };
    assert_eq!(asked(&mut gossip), [liar]);
    receive(&mut gossip, now, honest.peer_id(), &Frame::Announce(vec![Summary { origin, mark, size: 0 }]))
        .expect("true");
    assert_eq!(asked(&mut gossip), [], "the other one was asked");
    for step in 1..=50 {
        gossip.handle_timeout(now + step * Duration::from_millis(100));
    }
    assert_eq!(asked(&mut gossip), [honest.peer_id()]);
    let part = Part { manifest: Manifest::sign(&identity(3), state), part: 0, parts: 1, bytes: vec![] };
    receive(&mut gossip, now, honest.peer_id(), &Frame::States(vec![part])).expect("it was asked for");
    assert!(gossip.members.of(origin).is_some());
}

#[test]
fn invented_members_are_admitted_slowly() {
    let now = Instant::now();
    let (mut gossip, from) = node(now);
    for number in 0..=250 {
        let manifest = Manifest::sign(&invented(number), stamp(1, &[]));
        let delta = Delta { manifest, from: 0, upserts: vec![], removals: vec![] };
        receive(&mut gossip, now, from, &changes(&delta)).expect("each of them is valid");
    }
    assert!(gossip.members.held() <= NEW_MEMBERS_BURST as usize + 2);
    println!("figure: {} of 251 invented members taken in at once", gossip.members.held());
    let mark = stamp(1, &[]).mark();
    let summaries =
        (0..MAX_MEMBERS as u128 * 2).map(|id| Summary { origin: PeerId(id.to_be_bytes()), mark, size: 5000 });
    for batch in summaries.collect::<Vec<_>>().chunks(900) {
        receive(&mut gossip, now, from, &Frame::Announce(batch.to_vec())).expect("summaries are mere claims");
    }
    assert!(gossip.links.values().all(|link| link.wants <= MAX_MEMBERS && link.asked <= PULL_WINDOW + 5000));
    assert!(gossip.wants.len() <= MAX_MEMBERS);
}

#[test]
fn a_member_that_two_neighbours_vouch_for_is_admitted_at_once() {
    let now = Instant::now();
    let (mut gossip, one) = node(now);
    let other = identity(5).public_key();
    gossip.link_up(now, other.peer_id(), other);
    drain(&mut gossip);
    let mark = stamp(1, &[]).mark();
    let origins: Vec<PeerId> = (0..600).map(|number| invented(number).peer_id()).collect();
    let summaries: Vec<Summary> = origins.iter().map(|origin| Summary { origin: *origin, mark, size: 9 }).collect();
    let mut requested = |from| {
        receive(&mut gossip, now, from, &Frame::Announce(summaries.clone())).expect("summaries are mere claims");
        gossip.handle_timeout(now + Duration::from_millis(1));
        let frames = drain(&mut gossip).0.into_iter();
        frames.map(|frame| if let Frame::Request(origins) = frame { origins.len() } else { 0 }).sum::<usize>()
    };
    assert_eq!(requested(one), NEW_MEMBERS_BURST as usize);
    assert!(requested(other.peer_id()) > NEW_MEMBERS_BURST as usize);
}

#[test]
fn a_small_frame_that_asks_for_everything_often_is_answered_within_bounds() {
    let now = Instant::now();
    let (mut gossip, from) = node(now);
    for number in 0..150 {
        let delta = Delta {
            manifest: Manifest::sign(&invented(number), stamp(1, &[])),
            from: 0,
            upserts: vec![],
            removals: vec![],
        };
        receive(&mut gossip, now, from, &changes(&delta)).expect("each of them is valid");
    }
    drain(&mut gossip);
    let all = Item::Prints { path: vec![], present: 0, prints: vec![] };
    let none = Item::Listing { path: vec![], summaries: vec![] };
    let walk = |item: Item| Frame::Walk(Walk { begun: true, more: true, items: vec![item; 10_000] });
    for frame in [walk(all), walk(none)] {
        receive(&mut gossip, now, from, &frame).expect("it can be read");
    }
    let answered: usize = std::iter::from_fn(|| gossip.poll_transmit()).map(|transmit| transmit.frame.len()).sum();
    assert!(answered < 2_000_000, "{answered}");
}

#[test]
fn a_relayed_message_needs_its_sources_signature() {
    let now = Instant::now();
    let (mut gossip, from) = node(now);
    receive(&mut gossip, now, from, &changes(&delta(3, 0, &[]))).expect("a third member");
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
    assert_eq!(receive(&mut gossip, now, stranger, &changes(&delta(3, 0, &[]))), Ok(()));
    assert_eq!((gossip.counters().unexpected, gossip.members.held()), (1, 1));
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
    let mark = stamp.mark();
    let summary = Summary { origin: id, mark, size: 300 };
    let half = "cc".repeat(16);
    let summed = format!("{d}ac0205{half}ac02");
    let items = vec![
        Item::Prints { path: vec![1, 15], present: 0b100, prints: vec![[0xcc; 16]] },
        Item::Listing { path: vec![], summaries: vec![summary] },
    ];
    let walk = Walk { begun: true, more: false, items };
    assert_eq!(hex(Frame::Walk(walk)), format!("01020100020002010f0401{half}010001{summed}"));
    assert_eq!(hex(Frame::Announce(vec![summary])), format!("010301{summed}"));
    assert_eq!(hex(Frame::Request(vec![id])), format!("010401{d}"));
    let block = block(std::slice::from_ref(&entry));
    let delta = Delta { manifest, from: 4, upserts: vec![entry], removals: vec![name] };
    let changed = format!("01{signed}0401840702010203070809018407020102");
    assert_eq!(hex(changes(&delta)), format!("0105019601{changed}"));
    let answer = Answer { patient: true, change: ByteBuf::from(frame::encode(&delta)) };
    assert_eq!(hex(Frame::Asked(vec![answer])), format!("010901019601{changed}"));
    assert_eq!(hex(Frame::Since(vec![Base { origin: id, mark }])), format!("010801{d}ac0205{half}"));
    let part = Part { manifest, part: 1, parts: 2, bytes: block.bytes().to_vec() };
    assert_eq!(hex(Frame::States(vec![part])), format!("010601{signed}01020b0384000200030102070809"));
    let signature = Signature([0xbb; 64]);
    let message = Message { source: id, target: id, hops: 8, topic: 900, payload: vec![1], signature };
    assert_eq!(hex(Frame::Message(message)), format!("0107{d}{d}088407010140{b}"));
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
        prop_assert_eq!(gossip.members.held(), 1);
        prop_assert_eq!(gossip.entries::<Notes>().count(), 0);
    }

    #[test]
    fn a_change_with_any_byte_flipped_is_not_taken(position in 0usize..200, flip in 1u8..) {
        let now = Instant::now();
        let (mut gossip, from) = node(now);
        let mut bytes = frame::encode(&changes(&delta(3, 0, &[entry(1, b"value")])));
        let position = position % bytes.len();
        bytes[position] ^= flip;
        let _ = gossip.receive(now, from, &bytes);
        prop_assert_eq!(gossip.counters().deltas, 0, "byte {}", position);
    }
}

/// Node 2 claims to have states of nodes 3 to 5, and node 6 has them.
#[test]
fn what_a_neighbour_skips_is_asked_of_another_while_the_first_goes_on_sending() {
    let now = Instant::now();
    let (mut gossip, liar) = node(now);
    let honest = identity(6).public_key();
    gossip.link_up(now, honest.peer_id(), honest);
    let entries = [entry(1, b"v")];
    let manifest = |origin: u8| Manifest::sign(&identity(origin), stamp(8, &entries));
    let summary =
        |origin: u8| Summary { origin: identity(origin).peer_id(), mark: manifest(origin).stamp.mark(), size: 9 };
    let all: Vec<Summary> = [3, 4, 5].map(summary).to_vec();
    receive(&mut gossip, now, liar, &Frame::Announce(all.clone())).expect("an announcement");
    receive(&mut gossip, now, honest.peer_id(), &Frame::Announce(all)).expect("an announcement");
    drain(&mut gossip);
    let bytes = block(&entries).bytes().to_vec();
    let last = Part { manifest: manifest(5), part: 0, parts: 1, bytes };
    receive(&mut gossip, now, liar, &Frame::States(vec![last])).expect("a state");
    let asked = |frame: &Frame| matches!(frame, Frame::Request(origins) if origins.len() == 2);
    assert!(drain(&mut gossip).0.iter().any(asked));
}

#[test]
fn what_was_claimed_while_another_was_asked_is_asked_for_when_that_one_fails() {
    let now = Instant::now();
    let (mut gossip, liar) = node(now);
    let honest = identity(6).public_key();
    gossip.link_up(now, honest.peer_id(), honest);
    let (origin, all) = (identity(3), [entry(1, b"v"), entry(2, b"v")]);
    receive(&mut gossip, now, honest.peer_id(), &changes(&delta(3, 0, &all[..1]))).expect("a change");
    let manifest = Manifest::sign(&origin, stamp(2, &all));
    let second = Delta { manifest, from: 1, upserts: all[1..].to_vec(), removals: vec![] };
    let summary = |mark| Frame::Announce(vec![Summary { origin: origin.peer_id(), mark, size: 9 }]);
    // The liar is asked, and the honest one makes good for it before it says that there is more.
    receive(&mut gossip, now, liar, &summary(manifest.stamp.mark())).expect("a claim");
    drain(&mut gossip);
    receive(&mut gossip, now, honest.peer_id(), &changes(&second)).expect("a change");
    assert_eq!((gossip.counters().deltas, gossip.wants.len(), gossip.pulls.len()), (2, 0, 1));
    receive(&mut gossip, now, honest.peer_id(), &summary(stamp(9, &all).mark())).expect("a claim");
    drain(&mut gossip);
    let mut asked = Vec::new();
    for step in 1..=50 {
        gossip.handle_timeout(now + step * Duration::from_millis(100));
        asked.extend(std::iter::from_fn(|| gossip.poll_transmit()).filter(
            |transmit| matches!(frame::decode(&transmit.frame, 9000), Ok(Frame::Since(bases)) if bases.len() == 1),
        ));
    }
    assert_eq!(asked.iter().map(|transmit| transmit.to).collect::<Vec<_>>(), [honest.peer_id()]);
}
