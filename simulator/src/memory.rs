//! What a known peer costs a daemon, measured in the memory of this process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use meshwork_gossip::Gossip;
use meshwork_gossip::limits::SIGN_PAUSE;
use meshwork_identity::Identity;
use meshwork_wire::record::{LinkRecord, Links};
use meshwork_wire::{Incarnation, PeerId};

use crate::bars::degree;
use crate::content;
use crate::random::Random;

/// Peers that come before the measurement, so that what is needed once is there.
const WARM: usize = 200;

/// Between two moments at which the node asks for more.
const STEP: Duration = Duration::from_millis(200);

/// Between two peers, so that the node has rested from telling of the one before.
const BETWEEN: Duration = Duration::from_secs(2);

/// Bytes in a page of memory, where this is measured.
const PAGE: usize = 4096;

/// Mean bytes by which one node's memory grows for each peer that it comes to know, everything included. Nothing is
/// shared, and each peer publishes what [`content`] says and the links of a large mesh. A neighbour that knew all of them
/// before tells of them, so that nobody else takes or gives back memory meanwhile.
///
/// # Errors
/// The system does not tell.
pub fn per_peer(count: usize) -> std::io::Result<f64> {
    let mut now = Instant::now();
    let mut neighbour = gossip(usize::MAX, now);
    let peers: Vec<PeerId> = (0..WARM + count).map(|number| identity(number).peer_id()).collect();
    for number in 0..WARM + count {
        now += BETWEEN;
        meet(&mut neighbour, now, number, &peers);
    }
    let mut node = gossip(usize::MAX - 1, now);
    link(now, &mut node, &mut neighbour);
    learn(&mut now, &mut node, &mut neighbour, WARM);
    let (known, before) = (node.origins(), resident()?);
    learn(&mut now, &mut node, &mut neighbour, WARM + count);
    let (learned, grown) = (node.origins() - known, resident()?.saturating_sub(before));
    // The next measurement must not find this memory free.
    std::mem::forget((node, neighbour));
    Ok((grown * PAGE) as f64 / learned as f64)
}

/// Lets a node learn of so many peers at least, as fast as it takes newcomers from one neighbour.
fn learn(now: &mut Instant, node: &mut Gossip, neighbour: &mut Gossip, count: usize) {
    while node.origins() <= count {
        *now += STEP;
        for gossip in [&mut *node, &mut *neighbour] {
            gossip.handle_timeout(*now);
        }
        for _ in 0..4 {
            carry(*now, node, neighbour);
            carry(*now, neighbour, node);
        }
        while node.poll_event().is_some() {}
    }
}

fn link(now: Instant, one: &mut Gossip, other: &mut Gossip) {
    one.link_up(now, other.peer_id(), other.public_key());
    other.link_up(now, one.peer_id(), one.public_key());
}

fn resident() -> std::io::Result<usize> {
    let pages = std::fs::read_to_string("/proc/self/statm")?;
    let resident = pages.split_whitespace().nth(1).and_then(|pages| pages.parse().ok());
    resident.ok_or_else(|| std::io::Error::other("/proc/self/statm has another form"))
}

fn gossip(number: usize, now: Instant) -> Gossip {
    Gossip::new(Arc::new(identity(number)), Incarnation(1), now)
}

fn identity(number: usize) -> Identity {
    Identity::from_seed(Random::new(number as u64).bytes())
}

/// Lets a node learn all of another one over a link that goes again: it is greeted and told, asks, and is answered. What it
/// would tell in turn is left unsaid: the other one would hold as much, and blur what is measured.
fn meet(node: &mut Gossip, now: Instant, number: usize, peers: &[PeerId]) {
    let mut peer = gossip(number, now);
    let other = peer.peer_id();
    link(now, node, &mut peer);
    content::publish(&mut peer, now, u32::try_from(number).unwrap_or_default()).expect("it fits");
    let mut random = Random::new(number as u64);
    for _ in 1..degree(peers.len()) {
        let far = random.pick(peers);
        peer.put::<Links>(now, &far, &LinkRecord { rtt_us: Some(100_000) }).expect("it fits");
    }
    let later = now + SIGN_PAUSE;
    peer.handle_timeout(later);
    for _ in 0..2 {
        carry(later, node, &mut peer);
        carry(later, &mut peer, node);
    }
    node.link_down(later, other);
    while node.poll_event().is_some() {}
    while node.poll_transmit().is_some() {}
    assert_eq!(node.latest(other), peer.latest(other), "a peer stayed unknown");
    // What it gave back would be taken again by the node that is measured, and not show.
    std::mem::forget(peer);
}

fn carry(now: Instant, from: &mut Gossip, to: &mut Gossip) {
    let sender = from.peer_id();
    while let Some(transmit) = from.poll_transmit() {
        to.receive(now, sender, &transmit.frame).expect("honest nodes behave");
    }
}
