//! What links carry. Every frame is a format byte and one [`Frame`] (`meshwork_wire::frame`); variants and fields are
//! only ever appended.

use std::fmt;

use meshwork_identity::{Identity, PublicKey, Signature};
use meshwork_wire::frame;
use meshwork_wire::record::StoreId;
use meshwork_wire::{Incarnation, PeerId};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::hash::{Half, Hash, half};

/// Opens what is signed for a manifest.
const MANIFEST_LABEL: &[u8] = b"meshwork manifest v1";

/// Opens what is signed for a message.
const MESSAGE_LABEL: &[u8] = b"meshwork message v1";

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Frame {
    Hello(Hello),
    Heartbeat(Heartbeat),
    Walk(Walk),
    /// States that the sender holds.
    Announce(Vec<Summary>),
    /// Asks for the states of these origins.
    Request(Vec<PeerId>),
    /// Changes of several origins, each a [`Delta`] in a frame of its own, so that it is passed on as it came.
    Changes(Vec<ByteBuf>),
    /// States of several origins.
    States(Vec<Part>),
    Message(Message),
    /// Asks for what came after these states.
    Since(Vec<Base>),
    /// Changes that were asked for.
    Asked(Vec<Answer>),
}

/// First on a link, both ways.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// The sender's run.
    pub(crate) incarnation: Incarnation,
    /// The latest that the sender holds of the receiver, with the receiver's own signature as evidence.
    pub(crate) echo: Option<Manifest>,
}

/// Once a second, unreliable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Heartbeat {
    /// Fingerprint of all manifests that the sender holds.
    pub(crate) digest: Half,
    /// The sender missed ours and wants one at once.
    pub(crate) probe: bool,
}

/// Which state of an origin: the greater one wins, at every node alike. One origin that signs two roots under one
/// sequence is broken or hostile; the order still makes everyone choose the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Stamp {
    pub(crate) incarnation: Incarnation,
    /// Counts the manifests of this run.
    pub(crate) sequence: u64,
    pub(crate) root: Hash,
}

/// A stamp as neighbours compare it: in the same order, but for roots with a first half in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub(crate) incarnation: Incarnation,
    pub(crate) sequence: u64,
    pub(crate) root: Half,
}

impl Stamp {
    pub(crate) fn mark(&self) -> Mark {
        Mark { incarnation: self.incarnation, sequence: self.sequence, root: half(&self.root) }
    }
}

/// What the sender holds of one origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) origin: PeerId,
    pub(crate) mark: Mark,
    /// Bytes of the state: by it the receiver judges how much it asks for at once.
    pub(crate) size: u32,
}

/// A part of a comparison of all that two neighbours hold. Rounds alternate until one has nothing in it; a round may
/// take several frames.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Walk {
    /// Whether the sender began this comparison: both ends may begin one at a time.
    pub(crate) begun: bool,
    /// Whether more frames of this round follow.
    pub(crate) more: bool,
    pub(crate) items: Vec<Item>,
}

/// About all origins whose ids begin with the hexadecimal digits of `path`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Item {
    /// Fingerprints one digit further down, those of digits whose bit is set in `present`.
    Prints {
        #[serde(with = "serde_bytes")]
        path: Vec<u8>,
        present: u16,
        prints: Vec<Half>,
    },
    /// All that the sender holds there.
    Listing {
        #[serde(with = "serde_bytes")]
        path: Vec<u8>,
        summaries: Vec<Summary>,
    },
}

/// An origin's word on all of its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) origin: PublicKey,
    pub(crate) stamp: Stamp,
    pub(crate) signature: Signature,
}

impl Manifest {
    pub(crate) fn sign(identity: &Identity, stamp: Stamp) -> Self {
        let origin = identity.public_key();
        Self { origin, stamp, signature: identity.sign(&Self::signed_bytes(origin, stamp)) }
    }

    pub(crate) fn is_valid(&self) -> bool {
        self.origin.verify(&Self::signed_bytes(self.origin, self.stamp), &self.signature)
    }

    fn signed_bytes(origin: PublicKey, stamp: Stamp) -> Vec<u8> {
        frame::encode(&(MANIFEST_LABEL, origin, stamp))
    }
}

/// Names an entry within its origin.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Name {
    pub(crate) store: StoreId,
    #[serde(with = "serde_bytes")]
    pub(crate) key: Vec<u8>,
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} bytes", self.store.0, self.key.len())
    }
}

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) name: Name,
    #[serde(with = "serde_bytes")]
    pub(crate) value: Vec<u8>,
}

/// What changed between two manifests of one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Delta {
    /// The state after the change.
    pub(crate) manifest: Manifest,
    /// Sequence of the state before; 0 is the empty state that every run starts from.
    pub(crate) from: u64,
    pub(crate) upserts: Vec<Entry>,
    pub(crate) removals: Vec<Name>,
}

/// A change that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// Whoever passes it on may take its time, because it changes nobody's view of who lives. The neighbour's word, since
    /// it might as well be slow itself.
    pub(crate) patient: bool,
    /// As in [`Frame::Changes`].
    pub(crate) change: ByteBuf,
}

/// A state that the sender holds, of which it asks what came after. With its root: after a disk was rolled back there may
/// be two under one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Base {
    pub(crate) origin: PeerId,
    pub(crate) mark: Mark,
}

/// A part of all entries of an origin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) manifest: Manifest,
    /// Counted from 0.
    pub(crate) part: u16,
    pub(crate) parts: u16,
    /// Of the origin's [block](crate::block).
    #[serde(with = "serde_bytes")]
    pub(crate) bytes: Vec<u8>,
}

/// An application message on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Message {
    pub(crate) source: PeerId,
    pub(crate) target: PeerId,
    /// Links that it may still cross.
    pub(crate) hops: u8,
    pub(crate) topic: u16,
    #[serde(with = "serde_bytes")]
    pub(crate) payload: Vec<u8>,
    pub(crate) signature: Signature,
}

impl Message {
    /// What the source signs: all but the hop count, which changes on the way.
    pub(crate) fn signed_bytes(source: PeerId, target: PeerId, topic: u16, payload: &[u8]) -> Vec<u8> {
        frame::encode(&(MESSAGE_LABEL, source, target, topic, payload))
    }

    pub(crate) fn is_valid(&self, key: PublicKey) -> bool {
        key.verify(&Self::signed_bytes(self.source, self.target, self.topic, &self.payload), &self.signature)
    }
}
