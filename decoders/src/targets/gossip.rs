//! Frames of neighbours, taken by a state machine that holds a small mesh already.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use meshwork_gossip::decoders::{again, asked, block, signed};
use meshwork_gossip::limits::{MAX_FRAME, MAX_INBOX, MAX_ORIGIN, MAX_QUEUE, SIGN_PAUSE};
use meshwork_gossip::{Event, Gossip};
use meshwork_identity::Identity;
use meshwork_simulator::content;
use meshwork_wire::record::{FreeSpace, Links, Peers, Pods, Ring, Store};
use meshwork_wire::{Incarnation, PeerId};

use crate::input::{Input, of_kind, part, parts};

/// The node itself, two neighbours, and two that they tell of.
static IDENTITIES: LazyLock<Vec<Identity>> = LazyLock::new(|| (1..6).map(identity).collect());

/// Steps of one input.
const MOST_STEPS: usize = 64;

fn identity(number: u8) -> Identity {
    Identity::from_seed([number; 32])
}

fn id(number: usize) -> PeerId {
    IDENTITIES[number].peer_id()
}

/// A node that publishes what a real one does.
pub(super) fn publisher() -> Gossip {
    let now = Instant::now();
    let mut node = Gossip::new(Arc::new(identity(2)), Incarnation(1), now);
    content::publish(&mut node, now, 7).expect("it fits");
    node
}

struct Node {
    gossip: Gossip,
    now: Instant,
    inbox: usize,
}

impl Node {
    /// Has links to two neighbours, who sent nothing yet.
    fn new() -> Self {
        let now = Instant::now();
        let mut gossip = Gossip::new(Arc::new(identity(1)), Incarnation(2), now);
        content::publish(&mut gossip, now, 3).expect("it fits");
        let mut node = Self { gossip, now, inbox: 0 };
        [1, 2].into_iter().for_each(|neighbour| node.link(neighbour));
        node.pass(SIGN_PAUSE);
        node
    }

    fn link(&mut self, neighbour: usize) {
        self.gossip.link_up(self.now, id(neighbour), IDENTITIES[neighbour].public_key());
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 8 {
            kind @ (0 | 1) => self.receive(1 + usize::from(kind), input.part()),
            kind @ (2 | 3) => {
                if let Some(frame) = signed(input.part(), &IDENTITIES) {
                    self.receive(usize::from(kind) - 1, &frame);
                }
            }
            4 => self.pass(Duration::from_millis(u64::from(input.byte()) * 50)),
            5 => self.link(1 + usize::from(input.byte() % 2)),
            6 => self.gossip.link_down(self.now, id(1 + usize::from(input.byte() % 2))),
            _ => self.gossip.send(self.now, id(usize::from(input.byte() % 5)), 1, input.part().to_vec()),
        }
        self.drain();
    }

    /// Refused or not: nothing that arrives may do harm.
    fn receive(&mut self, from: usize, frame: &[u8]) {
        let _ = self.gossip.receive(self.now, id(from), frame);
    }

    fn pass(&mut self, duration: Duration) {
        self.now += duration;
        self.gossip.handle_timeout(self.now);
        self.drain();
    }

    /// Takes what the driver would, and judges it.
    fn drain(&mut self) {
        let mut waiting: BTreeMap<PeerId, usize> = BTreeMap::new();
        while let Some(transmit) = self.gossip.poll_transmit() {
            assert!(again(&transmit.frame).as_ref() == Some(&transmit.frame), "its own frames are canonical");
            *waiting.entry(transmit.to).or_default() += transmit.frame.len();
        }
        assert!(waiting.values().all(|bytes| *bytes <= MAX_QUEUE + MAX_FRAME), "queues are bounded");
        while let Some(event) = self.gossip.poll_event() {
            self.inbox += usize::from(matches!(event, Event::Message { .. }));
        }
    }

    /// Reads everything as a daemon does.
    fn read(&mut self) {
        assert_eq!(self.gossip.digest(), self.gossip.digest());
        let members = self.gossip.members().count();
        assert!(members < IDENTITIES.len() && self.gossip.origins() <= members + 1, "nobody else can be invented");
        assert!(self.gossip.own_bytes() <= MAX_ORIGIN && self.inbox <= MAX_INBOX);
        self.entries::<Peers>();
        self.entries::<Links>();
        self.entries::<Ring>();
        self.entries::<Pods>();
        self.entries::<FreeSpace>();
    }

    fn entries<S: Store>(&self) {
        let all = self.gossip.entries::<S>().chain(self.gossip.former::<S>().map(|(key, value)| (id(0), key, value)));
        for (origin, key, value) in all {
            assert!(origin == id(0) || self.gossip.get::<S>(origin, &key).is_some_and(|found| found == value));
        }
    }
}

pub(super) fn receive(bytes: &[u8]) {
    played(bytes).read();
}

/// The node after all steps of an input.
fn played(bytes: &[u8]) -> Node {
    let mut node = Node::new();
    let mut input = Input(bytes);
    for _ in 0..MOST_STEPS {
        if input.is_empty() {
            break;
        }
        node.step(&mut input);
    }
    node
}

/// A node of this number in a run.
fn member(number: usize, run: u64, now: Instant) -> Gossip {
    let identity = identity(u8::try_from(number + 1).unwrap_or_default());
    let mut node = Gossip::new(Arc::new(identity), Incarnation(run), now);
    content::publish(&mut node, now, if number == 0 { 3 } else { 40 }).expect("it fits");
    node
}

fn link_pair(nodes: &mut [Gossip], one: usize, other: usize, now: Instant) {
    nodes[one].link_up(now, id(other), IDENTITIES[other].public_key());
    nodes[other].link_up(now, id(one), IDENTITIES[one].public_key());
}

/// Lets nodes talk for two seconds: who said what.
fn talk(nodes: &mut [Gossip], now: &mut Instant) -> Vec<(usize, Vec<u8>)> {
    let mut said = Vec::new();
    for _ in 0..20 {
        *now += Duration::from_millis(100);
        for speaker in 0..nodes.len() {
            nodes[speaker].handle_timeout(*now);
            while let Some(transmit) = nodes[speaker].poll_transmit() {
                let listener = (0..nodes.len()).find(|number| id(*number) == transmit.to).expect("one of them");
                nodes[listener].receive(*now, id(speaker), &transmit.frame).expect("honest nodes behave");
                said.push((speaker, transmit.frame));
            }
        }
    }
    said
}

/// What four nodes in a row say to each other from the first frame on.
fn conversation() -> Vec<(usize, Vec<u8>)> {
    let mut now = Instant::now();
    let mut nodes: Vec<Gossip> = (0..4).map(|number| member(number, 1, now)).collect();
    link_pair(&mut nodes, 0, 1, now);
    link_pair(&mut nodes, 1, 2, now);
    link_pair(&mut nodes, 2, 3, now);
    let mut said = talk(&mut nodes, &mut now);
    for (number, node) in nodes.iter_mut().enumerate() {
        node.send(now, id((number + 2) % 4), 1, b"a message".to_vec());
        content::publish(node, now, 41).expect("it fits");
    }
    said.extend(talk(&mut nodes, &mut now));
    said
}

/// A neighbour that knows a later run of this node, and changes something at last, as it talks to it.
fn recovery() -> Vec<u8> {
    let mut now = Instant::now();
    let mut nodes: Vec<Gossip> = [(0, 9), (1, 1)].map(|(number, run)| member(number, run, now)).into();
    link_pair(&mut nodes, 0, 1, now);
    talk(&mut nodes, &mut now);
    // The link comes up anew, so that the neighbour hears this node's greeting.
    let (mut neighbour, mut node, mut steps) = (nodes.remove(1), Node::new(), vec![5, 0]);
    node.link(1);
    neighbour.link_up(now, id(0), IDENTITIES[0].public_key());
    for round in 0..12 {
        if round == 8 {
            content::publish(&mut neighbour, now, 41).expect("it fits");
        }
        let answers: Vec<_> = std::iter::from_fn(|| node.gossip.poll_transmit()).collect();
        for answer in answers.into_iter().filter(|answer| answer.to == id(1)) {
            neighbour.receive(now, id(0), &answer.frame).expect("honest nodes behave");
        }
        while let Some(transmit) = neighbour.poll_transmit() {
            steps.extend(of_kind(0, &part(&transmit.frame)));
            node.receive(1, &transmit.frame);
        }
        steps.extend([4, 8]);
        node.now += Duration::from_millis(400);
        now += Duration::from_millis(400);
        node.gossip.handle_timeout(node.now);
        neighbour.handle_timeout(now);
    }
    steps
}

/// The first of each kind, as the second byte of a frame tells it. Neighbours that are not busy push changes and ask for
/// none.
fn kinds() -> BTreeMap<u8, Vec<u8>> {
    let mut kinds = BTreeMap::new();
    for (_, frame) in conversation() {
        let questions = asked(&frame).into_iter().flatten();
        for frame in questions.chain([frame]) {
            kinds.entry(frame[1]).or_insert(frame);
        }
    }
    kinds
}

/// Changes that are announced, asked for and answered, as a busy neighbour does it.
fn inquiry() -> Vec<u8> {
    let said = conversation();
    let heard = said.iter().filter(|(speaker, _)| *speaker == 1).map(|(_, frame)| frame);
    let steps = heard.flat_map(|frame| asked(frame).map_or_else(|| vec![frame.clone()], Vec::from));
    // As many as an input has room for.
    steps.take(30).flat_map(|frame| of_kind(0, &part(&frame))).collect()
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let said = conversation();
    let step = |kind: u8, frame: &[u8]| of_kind(kind, &part(frame));
    let heard = said.iter().filter(|(speaker, _)| *speaker == 1);
    let whole: Vec<Vec<u8>> = heard.map(|(_, frame)| step(0, frame)).collect();
    let kinds = kinds();
    let alone = kinds.values().flat_map(|frame| [step(0, frame), step(2, frame)]);
    let timed = kinds.values().flat_map(|frame| [step(3, frame), vec![4, 30]].concat()).collect();
    let begun = whole.iter().take(20).flatten().copied().collect();
    let slowly = whole.iter().skip(8).take(8).flat_map(|step| [step.as_slice(), &[4, 20]].concat()).collect();
    alone
        .chain([timed, begun, slowly, recovery(), inquiry(), vec![5, 0, 6, 1, 4, 200, 7, 3, 0, 1, 9]])
        .filter(|seed| seed.len() < 8000)
        .collect()
}

/// One frame by itself, as a block of entries and as what it is.
pub(super) fn frame(bytes: &[u8]) {
    if let Some((held, size)) = block(bytes) {
        assert_eq!(held, bytes);
        assert!(size <= MAX_ORIGIN && held.len() <= size);
    }
    if let Some(written) = again(bytes) {
        assert!(written.len() <= bytes.len());
        assert_eq!(again(&written), Some(written));
    }
}

pub(super) fn frame_seeds() -> Vec<Vec<u8>> {
    let entry = |store: u16, key: &[u8], value: &[u8]| {
        [&store.to_be_bytes()[..], &(key.len() as u16).to_be_bytes(), &(value.len() as u16).to_be_bytes(), key, value]
            .concat()
    };
    let blocks = [entry(1, b"", b"v"), [entry(1, b"a", b"v"), entry(1, b"b", b""), entry(900, b"k", b"vv")].concat()];
    kinds().into_values().chain(blocks).chain([parts([b"x"])]).filter(|seed| seed.len() < 8000).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_lead_into_the_state_machine() {
        let answered = played(&inquiry()).gossip.counters();
        let played: Vec<Node> = seeds().iter().map(|seed| played(seed)).collect();
        let some = |what: &dyn Fn(&Gossip) -> bool| played.iter().any(|node| what(&node.gossip));
        assert!(some(&|gossip| gossip.counters().deltas > 0), "a change is taken");
        assert!(some(&|gossip| gossip.counters().snapshots > 0), "a state is taken");
        assert!(answered.deltas > 0 && inquiry().len() < 8000, "a change that was asked for is taken: {answered:?}");
        assert!(some(&|gossip| gossip.former::<Ring>().count() > 0), "the later state of this node is taken up");
        assert!(some(&|gossip| gossip.members().count() > 2), "a member is learned of");
    }
}
