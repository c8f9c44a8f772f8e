//! One origin's state: entries under the manifest that it signed over them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use meshwork_wire::record::{LinkRecord, Links, Store};
use meshwork_wire::{Incarnation, PeerId, frame};

use crate::block::{Block, Changes, Unfit};
use crate::frames::{Delta, Manifest, Mark, Stamp, Summary};
use crate::hash::{EMPTY, Half, half, sha256};
use crate::limits::MAX_VALUE;

/// Opens what is hashed for a leaf of the trie over all members.
const LEAF: &[u8] = b"meshwork leaf v1";

/// Least number of states that a pool looks through for those that nobody holds any more.
const POOL_REVIEW: usize = 1024;

/// One origin as last heard. The entries have the root that the manifest names.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) manifest: Manifest,
    pub(crate) block: Block,
    /// Fingerprint of origin and stamp.
    pub(crate) leaf: Half,
    /// Links that the origin says are up.
    pub(crate) degree: u32,
}

impl Replica {
    /// `block` has the root that `manifest` names.
    pub(crate) fn new(manifest: Manifest, block: Block) -> Self {
        let leaf = half(&sha256(&[LEAF, &frame::encode(&(manifest.origin, manifest.stamp))]));
        let degree = u32::try_from(peers_in(&block).count()).unwrap_or(u32::MAX);
        Self { manifest, block, leaf, degree }
    }

    pub(crate) const fn stamp(&self) -> Stamp {
        self.manifest.stamp
    }

    pub(crate) fn mark(&self) -> Mark {
        self.manifest.stamp.mark()
    }

    pub(crate) fn summary(&self, origin: PeerId) -> Summary {
        Summary { origin, mark: self.mark(), size: u32::try_from(self.block.bytes().len()).unwrap_or(u32::MAX) }
    }

    pub(crate) const fn incarnation(&self) -> Incarnation {
        self.manifest.stamp.incarnation
    }
}

/// Links that an origin says are up, in order.
pub(crate) fn links_in(block: &Block) -> impl Iterator<Item = (PeerId, LinkRecord)> {
    let decode = |(key, value): (&[u8], &[u8])| Some((peer_in(key)?, frame::decode(value, MAX_VALUE).ok()?));
    block.of_store(Links::ID).filter_map(decode)
}

/// Far ends of these links, in order.
pub(crate) fn peers_in(block: &Block) -> impl Iterator<Item = PeerId> {
    block.of_store(Links::ID).filter_map(|(key, _)| peer_in(key))
}

/// Whether the origin says that a link to this peer is up.
pub(crate) fn claims_link(block: &Block, peer: PeerId) -> bool {
    peers_in(block).any(|far| far == peer)
}

/// A frame that holds an id, as keys of links are. They are read more often than anything else.
pub(crate) fn peer_in(key: &[u8]) -> Option<PeerId> {
    let (format, id) = key.split_first()?;
    id.try_into().ok().filter(|_| *format == frame::FORMAT).map(PeerId)
}

/// The state that every run starts from.
pub(crate) const fn empty_stamp(incarnation: Incarnation) -> Stamp {
    Stamp { incarnation, sequence: 0, root: EMPTY }
}

/// States that were proven, for nodes of one process to share: a simulation holds each once and checks each signature
/// once. A daemon has nobody to share with, and its pool stays empty.
#[derive(Debug, Default)]
pub struct Pool(Option<Mutex<Shared>>);

#[derive(Debug, Default)]
struct Shared {
    /// By what its manifest is signed with.
    states: HashMap<[u8; 64], Weak<Replica>>,
    review_at: usize,
}

impl Pool {
    /// One that shares.
    #[must_use]
    pub fn shared() -> Self {
        Self(Some(Mutex::default()))
    }

    pub(crate) fn find(&self, manifest: &Manifest) -> Option<Arc<Replica>> {
        let shared = self.0.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        let state = shared.states.get(&manifest.signature.0)?.upgrade();
        state.filter(|state| state.manifest == *manifest)
    }

    pub(crate) fn keep(&self, state: Replica) -> Arc<Replica> {
        let state = Arc::new(state);
        if let Some(shared) = &self.0 {
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            if shared.states.len() >= shared.review_at.max(POOL_REVIEW) {
                shared.states.retain(|_, state| state.strong_count() > 0);
                shared.review_at = shared.states.len() * 2;
            }
            shared.states.insert(state.manifest.signature.0, Arc::downgrade(&state));
        }
        state
    }

    /// Whether the origin signed this.
    pub(crate) fn is_signed(&self, manifest: &Manifest) -> bool {
        self.find(manifest).is_some() || manifest.is_valid()
    }

    /// The state of these bytes under a manifest that [is signed](Self::is_signed).
    pub(crate) fn parse(&self, manifest: Manifest, bytes: &[u8]) -> Result<Arc<Replica>, Unfit> {
        match self.find(&manifest) {
            Some(known) if known.block.bytes() == bytes => Ok(known),
            _ => self.state(manifest, Block::parse(bytes)?),
        }
    }

    fn state(&self, manifest: Manifest, block: Block) -> Result<Arc<Replica>, Unfit> {
        match self.find(&manifest) {
            Some(known) if known.block == block => Ok(known),
            Some(_) => Err(Unfit::Root),
            None if block.root() == manifest.stamp.root => Ok(self.keep(Replica::new(manifest, block))),
            None => Err(Unfit::Root),
        }
    }

    /// The state that a signed delta leads to from `base`.
    pub(crate) fn after(&self, base: &Block, delta: Delta) -> Result<Arc<Replica>, Unfit> {
        let mut changes: Changes = delta.removals.into_iter().map(|name| (name, None)).collect();
        changes.extend(delta.upserts.into_iter().map(|entry| (entry.name, Some(entry.value))));
        self.state(delta.manifest, base.with(&changes)?)
    }
}
