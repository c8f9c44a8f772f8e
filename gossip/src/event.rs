//! What the state machine tells its driver.

use std::time::Instant;

use meshwork_identity::PublicKey;
use meshwork_wire::frame::FrameError;
use meshwork_wire::record::StoreId;
use meshwork_wire::{Incarnation, PeerId};

use crate::limits::{MAX_MEMBERS, MAX_ORIGIN, MAX_VALUE};

/// A frame to send over the link to `to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// The neighbour.
    pub to: PeerId,
    /// At most [`crate::limits::MAX_FRAME`] bytes.
    pub frame: Vec<u8>,
    /// Whether it has to arrive, in order; otherwise a datagram will do.
    pub reliable: bool,
}

/// State of a member, as seen from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemberState {
    /// There is a path of links to it.
    Alive,
    /// No link to it is up.
    Suspect,
    /// Unreachable for [`crate::limits::DEATH`].
    Dead,
}

/// Something happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Another peer's entries of a store changed.
    Changed {
        /// Which store.
        store: StoreId,
        /// Whose entries.
        origin: PeerId,
    },
    /// A member was learned of, or its state changed.
    Member {
        /// Who.
        peer: PeerId,
        /// The state that it has now.
        state: MemberState,
        /// Its latest known run.
        incarnation: Incarnation,
        /// Why, for people.
        reason: String,
    },
    /// A known member started again. Its entries stay as they are until those of the new run arrive.
    Restarted {
        /// Who.
        peer: PeerId,
        /// Its new run.
        incarnation: Incarnation,
    },
    /// An application message for this node. It may arrive twice; `from` is authenticated.
    Message {
        /// Who sent it.
        from: PeerId,
        /// What it is about.
        topic: u16,
        /// The message.
        payload: Vec<u8>,
    },
    /// All that the neighbour had when the link came up is here.
    Synced {
        /// The neighbour.
        peer: PeerId,
    },
    /// The link counts as down: a heartbeat is overdue. It may come back by itself.
    LinkDown {
        /// The neighbour.
        peer: PeerId,
    },
    /// Nothing came over the link for [`crate::limits::LINK_SILENT`]: close it.
    LinkSilent {
        /// The neighbour.
        peer: PeerId,
    },
    /// Someone holds what we signed in a later state than ours: our state was rolled back, or copied to a second node.
    /// Others ignore what we publish until [`crate::Gossip::advance`] outranks `incarnation`.
    Outranked {
        /// The latest run known elsewhere.
        incarnation: Incarnation,
    },
    /// What this node published in that later state is here: [`crate::Gossip::former`] reads it. Once
    /// [`crate::Gossip::advance`] or a new run outranks it, nobody else holds it any more.
    Recovered {
        /// The run that published it.
        incarnation: Incarnation,
    },
}

/// A member other than this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Name derived from its key.
    pub id: PeerId,
    /// Its identity.
    pub public_key: PublicKey,
    /// Its latest known run.
    pub incarnation: Incarnation,
    /// Its state.
    pub state: MemberState,
    /// When it took this state.
    pub since: Instant,
}

/// An own entry cannot be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// Key or value is too long.
    #[error("the entry is longer than the mesh carries ({MAX_VALUE} bytes): shorten names or labels")]
    Entry,
    /// This node publishes too much.
    #[error("this node's entries would exceed {MAX_ORIGIN} bytes: run fewer pods here or give them fewer labels")]
    Origin,
}

/// A frame, or a part of it, was refused. Nothing of it was applied; the link stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misbehaved {
    /// The neighbour sent it so, or is newer than this build.
    #[error("the neighbour sent an unusable frame: {0}")]
    Malformed(#[from] FrameError),
    /// The neighbour passed on what its origin never signed.
    #[error("the neighbour passed on a false signature of {0}")]
    Forged(PeerId),
    /// The neighbour changed what it passed on.
    #[error("the neighbour passed on entries of {0} that differ from what {0} signed")]
    Altered(PeerId),
    /// The origin exceeds its bounds.
    #[error("{0} publishes more than a member may")]
    TooLarge(PeerId),
    /// The mesh has too many members, or the neighbour invents them.
    #[error("more than {MAX_MEMBERS} members: {0} is left out; check who knows the secret")]
    TooManyMembers(PeerId),
}

/// Counted since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames taken from links.
    pub frames_received: u64,
    /// Bytes of them.
    pub bytes_received: u64,
    /// Frames given out for links.
    pub frames_sent: u64,
    /// Bytes of them.
    pub bytes_sent: u64,
    /// Frames that could not be decoded.
    pub malformed: u64,
    /// Frames with a false signature or with entries that were not signed.
    pub forged: u64,
    /// Frames beyond the caps.
    pub too_large: u64,
    /// Frames from peers without a link, and snapshots nobody asked for.
    pub unexpected: u64,
    /// Frames dropped because a link's queue was full.
    pub queue_full: u64,
    /// Messages dropped because no path led on, the hop limit was reached or they were too long.
    pub no_route: u64,
    /// Messages dropped because the driver took none for long.
    pub inbox_full: u64,
    /// Deltas applied.
    pub deltas: u64,
    /// Snapshots applied.
    pub snapshots: u64,
    /// Entries of a known store that a read skipped because this build cannot decode them.
    pub undecodable: u64,
}
