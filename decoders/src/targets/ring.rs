//! What other nodes say of the ring and ask of it, taken by a state machine that owns one or waits for one.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use ipnet::{Ipv4Net, Ipv6Net};
use meshwork_identity::Identity;
use meshwork_ipam::{
    Config, Decision, Effect, Init, Input as Happening, Ipam, LeaseRequest, MAX_MESSAGE, Message, Snapshot,
    node_prefix6,
};
use meshwork_wire::record::{Gift, Ranges, RingPart};
use meshwork_wire::{Incarnation, PeerId, Version, frame};

use super::records;
use crate::input::{Input, of_kind, part};

/// The node itself, and others.
static IDENTITIES: LazyLock<Vec<Arc<Identity>>> =
    LazyLock::new(|| (1..5).map(|seed| Arc::new(Identity::from_seed([seed; 32]))).collect());

/// Steps of one input, and what each may lead to at once.
const MOST_STEPS: usize = 48;
const MOST_TICKS: usize = 2_000;

/// Most bytes of what one writer says of the ring.
const MOST_SAID: usize = 64 * 1024;

pub(super) fn range4() -> Ipv4Net {
    Ipv4Net::new_assert([10, 32, 0, 0].into(), 20)
}

pub(super) fn range6() -> Ipv6Net {
    Ipv6Net::new_assert([0xfd4d, 0x6573, 0x6877, 0, 0, 0, 0, 0].into(), 48)
}

pub(super) fn id(number: usize) -> PeerId {
    IDENTITIES[number % IDENTITIES.len()].peer_id()
}

fn config(init: Init) -> Config {
    let identity = Arc::clone(&IDENTITIES[0]);
    Config { identity, incarnation: Incarnation(3), range4: range4(), range6: range6(), init }
}

pub(super) struct Node {
    config: Config,
    ipam: Ipam,
    disk: Snapshot,
    now: Instant,
    token: u64,
}

impl Node {
    pub(super) fn restore(init: Init, disk: Snapshot) -> Option<Self> {
        let (config, now) = (config(init), Instant::now());
        let ipam = Ipam::restore(config.clone(), disk.clone(), now).ok()?;
        Some(Self { config, ipam, disk, now, token: 0 })
    }

    /// Hands something in and does all that is due at once after it.
    pub(super) fn happens(&mut self, happening: Happening, fails: bool) {
        let mut next = Some(happening);
        for _ in 0..MOST_TICKS {
            let Some(happening) = next.take() else { return };
            let decision = self.ipam.decide(self.now, &mut |bytes| bytes.fill(7), happening);
            self.carry_out(&decision, fails);
            next = self.ipam.poll_timeout().filter(|due| *due <= self.now).map(|_| Happening::Tick);
        }
        panic!("it never comes to rest");
    }

    fn carry_out(&mut self, decision: &Decision, fails: bool) {
        if fails && !decision.changes.is_empty() {
            self.ipam.abandon(decision, "the disk is full").iter().for_each(judge);
            return;
        }
        self.disk.apply(&decision.changes);
        self.ipam.apply(&decision.changes);
        decision.effects.iter().for_each(judge);
    }

    pub(super) fn step(&mut self, input: &mut Input<'_>) {
        let kind = input.byte();
        let (fails, who) = (kind & 0x80 != 0, usize::from(input.byte()));
        let Some(happening) = self.happening(kind % 8, who, input) else { return };
        self.happens(happening, fails);
    }

    fn happening(&mut self, kind: u8, who: usize, input: &mut Input<'_>) -> Option<Happening> {
        self.token += 1;
        let (token, from) = (self.token, id(1 + who % 3));
        Some(match kind {
            0 => {
                let bytes = input.part();
                records::again::<Message>(bytes, MAX_MESSAGE);
                Happening::Message { from, message: signed_message(frame::decode(bytes, MAX_MESSAGE).ok()?) }
            }
            1 => {
                let parts: Vec<(Ipv4Net, RingPart)> = frame::decode(input.part(), MOST_SAID).ok()?;
                let parts = parts.into_iter().map(|(prefix, part)| (prefix, signed(prefix, part))).collect();
                Happening::RingEntries { origin: from, parts }
            }
            2 => {
                let (hint, ranges) = (input.byte(), input.part());
                peers(who, hint, frame::decode(ranges, MOST_SAID).ok())
            }
            3 => {
                self.now += Duration::from_millis(who as u64 * 50);
                Happening::Tick
            }
            4 => {
                let wished = [10, 32, input.byte() % 16, input.byte()].into();
                let wished = (who > 127).then_some(wished);
                let sandbox = format!("s{}", who % 8);
                let request = LeaseRequest { sandbox, interface: "eth0".to_owned(), wished, ..LeaseRequest::default() };
                Happening::Lease { token, request, deadline: self.now + Duration::from_secs(3) }
            }
            5 => Happening::Release { token, sandbox: format!("s{}", who % 8), interface: None },
            6 => Happening::PeerSynced(from),
            _ => match who % 3 {
                0 => Happening::Outranked,
                1 => Happening::Former { parts: frame::decode(input.part(), MOST_SAID).ok()?, pods: Vec::new() },
                _ => Happening::Above(Incarnation(self.config.incarnation.0 + 1)),
            },
        })
    }
}

/// Some of the others are alive, with the same ranges as this node or others, and say how much they have to spare.
pub(super) fn peers(which: usize, hint: u8, ranges: Option<Ranges>) -> Happening {
    let alive: BTreeSet<PeerId> = (1..4).filter(|number| which & (1 << number) != 0).map(id).collect();
    let ranges = ranges.unwrap_or(Ranges { v4: range4(), v6: range6() });
    let keys = IDENTITIES.iter().skip(1).map(|identity| (identity.peer_id(), identity.public_key()));
    Happening::Peers {
        free_hints: alive.iter().map(|peer| (*peer, (hint < 0xff).then_some(hint))).collect(),
        ranges: alive.iter().map(|peer| (*peer, ranges)).collect(),
        keys: keys.collect(),
        alive,
    }
}

fn signed_message(message: Message) -> Message {
    match message {
        Message::Gift { request, prefix, part } => Message::Gift { request, prefix, part: signed(prefix, part) },
        other => other,
    }
}

/// The part as one of the others would have given it, where its giver's first byte names one.
fn signed(prefix: Ipv4Net, mut part: RingPart) -> RingPart {
    let number = part.gift.as_ref().map(|gift| usize::from(gift.giver.0[0]));
    if let Some(identity) = number.and_then(|number| IDENTITIES.get(number)) {
        let giver = identity.peer_id();
        let signature = identity.sign(&part.signed_bytes(prefix, giver)).0.to_vec();
        part.gift = Some(Gift { giver, signature, witnesses: Vec::new() });
    }
    part
}

fn judge(effect: &Effect) {
    match effect {
        Effect::Send { message, .. } => assert!(frame::encode(message).len() <= MAX_MESSAGE),
        Effect::Granted { lease, .. } => {
            assert!(lease.ipv4().is_some_and(|address| range4().contains(&address)));
            assert!(lease.ipv6().is_some_and(|address| node_prefix6(range6(), id(0)).contains(&address)));
        }
        _ => {}
    }
}

pub(super) fn run(bytes: &[u8]) {
    judge_disk(&played(bytes));
}

/// The node after all steps of an input.
fn played(bytes: &[u8]) -> Node {
    let mut input = Input(bytes);
    let init = if input.byte().is_multiple_of(2) { Init::Seed } else { Init::Join };
    let mut node = Node::restore(init, Snapshot::default()).expect("an empty disk fits");
    node.happens(Happening::Started, false);
    node.happens(peers(0xe, 9, None), false);
    for _ in 0..MOST_STEPS {
        if input.is_empty() {
            break;
        }
        node.step(&mut input);
    }
    node
}

/// What is durable can be started from, and no address is leased twice.
pub(super) fn judge_disk(node: &Node) {
    let leases: Vec<_> = node.disk.leases.values().flat_map(|lease| &lease.pod.addresses).collect();
    assert_eq!(leases.iter().collect::<BTreeSet<_>>().len(), leases.len());
    let restored = Ipam::restore(node.config.clone(), node.disk.clone(), node.now);
    assert!(restored.is_ok(), "{:?}", restored.err());
    assert!(node.ipam.status().owned <= 1 << 12);
    let owned: Vec<Ipv4Net> = node.ipam.ownership().into_values().flatten().collect();
    assert!(owned.iter().all(|prefix| range4().contains(prefix)));
}

pub(super) fn some_part(giver: Option<u8>, owner: usize) -> RingPart {
    let gift = giver.map(|giver| Gift { giver: PeerId([giver; 16]), signature: vec![9; 64], witnesses: Vec::new() });
    let version = Version { incarnation: Incarnation(1), counter: 2 };
    RingPart { ring: [7; 16], epoch: 0, version, owner: id(owner), gift }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let prefix = Ipv4Net::new_assert([10, 32, 8, 0].into(), 22);
    let request = Version { incarnation: Incarnation(3), counter: 1 };
    let message = |message: &Message| [&[0, 0][..], &part(&frame::encode(message))].concat();
    let ask = message(&Message::AskSpace { request, ring: Some([7; 16]), want_log2: 8 });
    let spare = message(&Message::AskSpare { request, ring: None, want_log2: 40 });
    let denied = message(&Message::Denied { request, denial: meshwork_ipam::Denial::NoSpace });
    let gift = message(&Message::Gift { request, prefix, part: some_part(Some(1), 0) });
    let entries = |all: &[(Ipv4Net, RingPart)]| [&[1, 0][..], &part(&frame::encode(all))].concat();
    let own = entries(&[(prefix, some_part(None, 1))]);
    let given = entries(&[(prefix, some_part(Some(2), 1)), (range4(), some_part(Some(1), 2))]);
    let lease = [4, 1, 0, 0, 3, 20, 4, 200, 1, 9, 5, 1];
    let of = |init: u8, steps: &[&[u8]]| of_kind(init, &steps.concat());
    let others = Ranges { v4: Ipv4Net::new_assert([10, 0, 0, 0].into(), 8), v6: range6() };
    let elsewhere = [&[2, 0xe, 200][..], &part(&frame::encode(&others))].concat();
    let former = [&[7, 1][..], &part(&frame::encode(&vec![(prefix, some_part(None, 0))]))].concat();
    vec![
        of(0, &[&lease, &ask, &spare, &denied]),
        of(0, &[&ask, &[3, 30], &lease, &own, &given, &[2, 0xe, 31, 0, 0, 3, 200]]),
        of(1, &[&elsewhere, &own, &ask, &[3, 200, 2, 2, 255, 0, 0], &lease, &gift, &[3, 200]]),
        of(1, &[&lease, &own, &[6, 0, 3, 120], &gift, &lease]),
        of(1, &[&given, &gift, &[3, 200], &lease]),
        of(0, &[&lease, &[7, 0], &former, &[7, 2, 3, 200], &lease]),
        of(0, &[&[0x84, 1, 0, 0, 3, 30], &lease, &[0x80, 0], &part(&ask[4..])]),
    ]
}

#[cfg(test)]
mod tests {
    use meshwork_ipam::{HeldPart, Holding};

    use super::*;

    #[test]
    fn seeds_lead_into_the_state_machine() {
        let played: Vec<Node> = seeds().iter().map(|seed| played(seed)).collect();
        let some = |what: &dyn Fn(&Node) -> bool| played.iter().any(what);
        assert!(some(&|node| !node.disk.leases.is_empty()), "addresses are leased");
        let given = |held: &HeldPart| matches!(held.holding, Holding::Given { .. });
        assert!(some(&|node| node.disk.parts.values().any(given)), "space is given");
        let received = |held: &HeldPart| held.holding == Holding::Owned && held.part.gift.is_some();
        assert!(some(&|node| node.disk.parts.values().any(received)), "a gift is taken");
    }
}
