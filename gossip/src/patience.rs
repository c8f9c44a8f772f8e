//! Tests of what a large mesh is told late, and of what must not wait behind it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use meshwork_identity::Identity;
use meshwork_wire::record::{FreeSpace, FreeSpaceRecord, LinkRecord, Links, Store};
use meshwork_wire::{Incarnation, PeerId, frame};
use serde_bytes::ByteBuf;

use crate::Gossip;
use crate::block::{Block, Changes};
use crate::frames::{Delta, Entry, Frame, Heartbeat, Hello, Manifest, Name, Stamp};
use crate::limits::{HASTY_MEMBERS, MAX_FRAME};

/// As many as make a mesh large.
const OTHERS: u8 = 150;

/// The neighbours: one through which everybody is reached, and a spare one.
const HUB: u8 = 2;
const SPARE: u8 = 3;

fn identity(number: u8) -> Identity {
    Identity::from_seed([number; 32])
}

fn id(number: u8) -> PeerId {
    identity(number).peer_id()
}

/// What a member says that has links to these.
fn linked(number: u8, peers: &[u8]) -> Frame {
    let name = |peer: &u8| Name { store: Links::ID, key: frame::encode(&id(*peer)) };
    let value = frame::encode(&LinkRecord { rtt_us: None });
    let mut upserts: Vec<Entry> = peers.iter().map(|peer| Entry { name: name(peer), value: value.clone() }).collect();
    upserts.sort_by(|one, two| one.name.cmp(&two.name));
    let changes: Changes = upserts.iter().map(|entry| (entry.name.clone(), Some(entry.value.clone()))).collect();
    let root = Block::default().with(&changes).expect("it fits").root();
    let manifest = Manifest::sign(&identity(number), Stamp { incarnation: Incarnation(1), sequence: 1, root });
    Frame::Changes(vec![ByteBuf::from(frame::encode(&Delta { manifest, from: 0, upserts, removals: vec![] }))])
}

struct Scene {
    gossip: Gossip,
    now: Instant,
}

impl Scene {
    fn new() -> Self {
        let now = Instant::now();
        let mut scene = Self { gossip: Gossip::new(Arc::new(identity(1)), Incarnation(1), now), now };
        for neighbour in [HUB, SPARE] {
            scene.gossip.link_up(now, id(neighbour), identity(neighbour).public_key());
            scene.receive(neighbour, &Frame::Hello(Hello { incarnation: Incarnation(1), echo: None }));
        }
        let others: Vec<u8> = (SPARE..SPARE + OTHERS).collect();
        scene.receive(HUB, &linked(HUB, &others));
        others.iter().for_each(|other| scene.receive(HUB, &linked(*other, &[HUB])));
        // Nobody is new any more.
        (0..200).for_each(|_| drop(scene.pass(Duration::from_millis(50))));
        assert!(
            scene.gossip.members().filter(|member| member.state == crate::MemberState::Alive).count() > HASTY_MEMBERS
        );
        scene
    }

    fn receive(&mut self, from: u8, frame: &Frame) {
        self.gossip.receive(self.now, id(from), &frame::encode(frame)).expect("honest neighbours behave");
    }

    /// Lets time pass on links that live: what is said of this node itself meanwhile.
    fn pass(&mut self, time: Duration) -> Vec<Frame> {
        self.now += time;
        let digest = self.gossip.digest();
        for neighbour in [HUB, SPARE] {
            self.receive(neighbour, &Frame::Heartbeat(Heartbeat { digest, probe: false }));
        }
        self.gossip.handle_timeout(self.now);
        while self.gossip.poll_event().is_some() {}
        let me = self.gossip.peer_id();
        let of_me = |frame: &Frame| match frame {
            Frame::Announce(summaries) => summaries.iter().any(|summary| summary.origin == me),
            Frame::Changes(changes) => changes.iter().any(|change| {
                frame::decode_first::<Manifest>(change).is_ok_and(|manifest| manifest.origin.peer_id() == me)
            }),
            _ => false,
        };
        let sent = std::iter::from_fn(|| self.gossip.poll_transmit());
        sent.map(|sent| frame::decode(&sent.frame, MAX_FRAME).expect("our own frame")).filter(of_me).collect()
    }

    fn sequence(&self) -> u64 {
        self.gossip.latest(self.gossip.peer_id()).expect("the own state").1
    }

    /// Gives the spare link up, and waits until that is signed.
    fn give_up(&mut self) {
        let before = self.sequence();
        self.gossip.link_given_up(self.now, id(SPARE));
        let begun = self.now;
        while self.sequence() == before {
            assert_eq!(self.pass(Duration::from_millis(10)), [], "nobody waits for it");
            assert!(self.now < begun + Duration::from_secs(10), "it is told at last");
        }
        assert!(self.now > begun + Duration::from_secs(1), "it takes its time");
    }
}

#[test]
fn a_link_that_is_given_up_is_told_late_and_told() {
    let mut scene = Scene::new();
    scene.give_up();
    let told = (0..100).find(|_| !scene.pass(Duration::from_millis(10)).is_empty());
    assert!(told.is_some_and(|told| told > 5), "{told:?}");
}

#[test]
fn what_is_urgent_does_not_wait_behind_what_is_not() {
    let mut scene = Scene::new();
    scene.give_up();
    scene.gossip.put::<FreeSpace>(scene.now, &(), &FreeSpaceRecord { log2: Some(1) }).expect("it fits");
    let told = (0..3).find(|_| !scene.pass(Duration::from_millis(10)).is_empty());
    assert!(told.is_some(), "within some milliseconds");
}
