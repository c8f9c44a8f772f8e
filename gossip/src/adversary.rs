//! What only hostile members send, and what they can make a node hold: for simulations of them.

use std::sync::Arc;

use meshwork_identity::{Identity, PublicKey, Signature};
use meshwork_wire::record::{LinkRecord, Links, Store, StoreId};
use meshwork_wire::{Incarnation, PeerId, frame};
use serde_bytes::ByteBuf;

use crate::block::{Block, Changes};
use crate::frames::{
    Answer, Base, Delta, Entry, Frame, Heartbeat, Hello, Item, Manifest, Mark, Message, Name, Part, Stamp, Summary,
    Walk,
};
use crate::gossip::Gossip;
use crate::limits::{HOP_LIMIT, MAX_FRAME};
use crate::neighbours::Random;

/// The last run and number there can be.
const LAST: Mark = Mark { incarnation: Incarnation(u64::MAX), sequence: u64::MAX, root: [0xff; 16] };

/// What a node holds because others said something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Burden {
    /// Members, known by a link or by a state.
    pub members: usize,
    /// Members of which a state is held.
    pub held: usize,
    /// Members of which a neighbour claims to have more.
    pub wants: usize,
    /// The same at the link that claims most.
    pub claims: usize,
    /// States that were asked for.
    pub pulls: usize,
    /// Messages that wait for the driver.
    pub inbox: usize,
}

impl Gossip {
    /// What this node holds because others said something.
    #[must_use]
    pub fn burden(&self) -> Burden {
        let claims = self.links.values().map(|link| link.asks.len() + link.unvouched.len()).max();
        Burden {
            members: self.members.list.len(),
            held: self.members.held(),
            wants: self.wants.len(),
            claims: claims.unwrap_or_default(),
            pulls: self.pulls.len(),
            inbox: self.inbox,
        }
    }
}

/// Makes frames that no honest node sends.
#[derive(Debug, Clone)]
pub struct Forger(Arc<Identity>);

impl Forger {
    /// One with the identity of a member.
    #[must_use]
    pub const fn new(identity: Arc<Identity>) -> Self {
        Self(identity)
    }

    /// A frame as honest nodes send it, at a time when none would: it asks for as much as a frame can.
    #[must_use]
    pub fn demand(&self, random: Random<'_>, members: &[PeerId]) -> Vec<u8> {
        let mut digest = [0; 16];
        digest[..8].copy_from_slice(&random().to_be_bytes());
        let path = vec![(random() % 16) as u8];
        let base = |origin: &PeerId| Base { origin: *origin, mark: LAST };
        frame::encode(&match random() % 6 {
            0 => Frame::Heartbeat(Heartbeat { digest, probe: true }),
            1 => Frame::Request(members.to_vec()),
            5 => Frame::Since(members.iter().map(base).collect()),
            2 => walk(Item::Prints { path: Vec::new(), present: u16::MAX, prints: vec![digest; 16] }),
            3 => walk(Item::Listing { path, summaries: Vec::new() }),
            _ => walk(Item::Prints { path, present: 0, prints: Vec::new() }),
        })
    }

    /// What was relayed, with something else in it.
    #[must_use]
    pub fn altered(&self, random: Random<'_>, sent: &[u8]) -> Option<Vec<u8>> {
        let altered = match frame::decode(sent, MAX_FRAME).ok()? {
            Frame::Changes(changes) => {
                Frame::Changes(changes.iter().filter_map(|delta| self.altered_delta(random, delta)).collect())
            }
            Frame::Asked(answers) => {
                let mut altered = |answer: &Answer| {
                    let change = self.altered_delta(random, &answer.change)?;
                    Some(Answer { patient: !answer.patient, change })
                };
                Frame::Asked(answers.iter().filter_map(&mut altered).collect())
            }
            Frame::States(mut parts) => {
                parts.iter_mut().for_each(|part| alter_state(random, part));
                Frame::States(parts)
            }
            Frame::Announce(mut summaries) => {
                summaries
                    .iter_mut()
                    .for_each(|summary| summary.mark.sequence = summary.mark.sequence.wrapping_add(random() % 9));
                Frame::Announce(summaries)
            }
            _ => return None,
        };
        Some(frame::encode(&altered))
    }

    fn altered_delta(&self, random: Random<'_>, delta: &[u8]) -> Option<ByteBuf> {
        let mut delta: Delta = frame::decode(delta, MAX_FRAME).ok()?;
        if delta.manifest.origin == self.0.public_key() {
            return None;
        }
        match random() % 4 {
            0 => delta.upserts = vec![entry(7, b"false")],
            1 => delta.from = random() % 4,
            2 => delta.manifest.stamp.sequence = delta.manifest.stamp.sequence.wrapping_add(1 + random() % 3),
            _ => delta.manifest.signature = self.0.sign(b"whatever"),
        }
        Some(ByteBuf::from(frame::encode(&delta)))
    }

    /// A state of another member that it never published, under a signature that is not its own.
    #[must_use]
    pub fn forged(&self, random: Random<'_>, origin: PublicKey) -> Vec<u8> {
        let entries = [entry(1, b"never said")];
        let root = block(&entries).root();
        let sequence = if random().is_multiple_of(2) { u64::MAX } else { random() % 100 };
        let incarnation = Incarnation(if random().is_multiple_of(2) { u64::MAX } else { 1 });
        let stamp = Stamp { incarnation, sequence, root };
        let manifest = Manifest { origin, ..Manifest::sign(&self.0, stamp) };
        let from = sequence.saturating_sub(random() % 2);
        frame::encode(&match random() % 3 {
            0 => changes(&Delta { manifest, from, upserts: entries.to_vec(), removals: Vec::new() }),
            1 => Frame::Hello(Hello { incarnation: Incarnation(u64::MAX), echo: Some(manifest) }),
            _ => Frame::States(vec![Part { manifest, part: 0, parts: 1, bytes: block(&entries).bytes().to_vec() }]),
        })
    }

    /// Claims to have states from the far future, which never come.
    #[must_use]
    pub fn promised(&self, random: Random<'_>, members: &[PeerId]) -> Vec<u8> {
        let one = |origin: &PeerId| Summary { origin: *origin, mark: LAST, size: (random() % 70_000) as u32 };
        frame::encode(&Frame::Announce(members.iter().map(one).collect()))
    }

    /// The same of members that do not exist.
    #[must_use]
    pub fn promised_strangers(&self, random: Random<'_>, count: usize) -> Vec<u8> {
        let mut stranger = || {
            let mut id = [0; 16];
            id.chunks_mut(8).for_each(|half| half.copy_from_slice(&random().to_be_bytes()));
            PeerId(id)
        };
        let strangers: Vec<PeerId> = (0..count).map(|_| stranger()).collect();
        self.promised(random, &strangers)
    }

    /// The first state of a member that was made up, with a link to everyone in `links`.
    #[must_use]
    pub fn invented(&self, random: Random<'_>, links: &[PeerId]) -> Vec<u8> {
        let mut seed = [0; 32];
        seed.chunks_mut(8).for_each(|part| part.copy_from_slice(&random().to_be_bytes()));
        let link = |peer: &PeerId| Entry {
            name: Name { store: Links::ID, key: frame::encode(peer) },
            value: frame::encode(&LinkRecord { rtt_us: Some(1) }),
        };
        let entries: Vec<Entry> = links.iter().map(link).collect();
        frame::encode(&changes(&first(&Identity::from_seed(seed), Incarnation(1), entries)))
    }

    /// Own states from the far future, two of them under one number.
    #[must_use]
    pub fn split(&self, random: Random<'_>) -> Vec<u8> {
        let value = random().to_be_bytes();
        frame::encode(&changes(&first(&self.0, Incarnation(u64::MAX), vec![entry(1, &value)])))
    }

    /// A message in another's name.
    #[must_use]
    pub fn message(&self, random: Random<'_>, source: PeerId, target: PeerId) -> Vec<u8> {
        let payload = random().to_be_bytes().to_vec();
        let signature: Signature = self.0.sign(&Message::signed_bytes(source, target, 9, &payload));
        frame::encode(&Frame::Message(Message { source, target, hops: HOP_LIMIT, topic: 9, payload, signature }))
    }

    /// Bytes that are no frame, or one cut short.
    #[must_use]
    pub fn noise(&self, random: Random<'_>, sent: &[u8]) -> Vec<u8> {
        let mut bytes: Vec<u8> = sent.to_vec();
        bytes.truncate((random() % 200) as usize);
        let place = (random() % bytes.len().max(1) as u64) as usize;
        if let Some(byte) = bytes.get_mut(place) {
            *byte ^= (1 + random() % 255) as u8;
        }
        bytes
    }
}

fn walk(item: Item) -> Frame {
    Frame::Walk(Walk { begun: true, more: false, items: vec![item] })
}

fn changes(delta: &Delta) -> Frame {
    Frame::Changes(vec![ByteBuf::from(frame::encode(delta))])
}

fn first(identity: &Identity, incarnation: Incarnation, upserts: Vec<Entry>) -> Delta {
    let stamp = Stamp { incarnation, sequence: 1, root: block(&upserts).root() };
    Delta { manifest: Manifest::sign(identity, stamp), from: 0, upserts, removals: Vec::new() }
}

fn alter_state(random: Random<'_>, part: &mut Part) {
    let place = (random() % part.bytes.len().max(1) as u64) as usize;
    match part.bytes.get_mut(place) {
        Some(byte) => *byte ^= 1,
        None => part.parts = u16::MAX,
    }
}

fn entry(key: u8, value: &[u8]) -> Entry {
    Entry { name: Name { store: StoreId(900), key: frame::encode(&u32::from(key)) }, value: frame::encode(&value) }
}

fn block(entries: &[Entry]) -> Block {
    let changes: Changes = entries.iter().map(|entry| (entry.name.clone(), Some(entry.value.clone()))).collect();
    Block::default().with(&changes).unwrap_or_default()
}
