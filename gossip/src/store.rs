//! Typed stores over the replicas: own entries are written here, everyone's are read.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use meshwork_wire::record::{Links, Store};
use meshwork_wire::{PeerId, frame};

use crate::block::{Block, Changes, Excess, cost};
use crate::event::Full;
use crate::frames::{Delta, Entry, Mark, Name, Stamp};
use crate::gossip::Gossip;
use crate::limits::{MAX_BATCH, MAX_KEY, MAX_VALUE, PROMPT_SIGN_PAUSE, SIGN_PAUSE};
use crate::membership::SELF;
use crate::replica::{claims_link, peer_in};

impl Gossip {
    /// Publishes an own entry, in place of the one under the same key. An equal one is left alone.
    ///
    /// # Errors
    /// [`Full`] when it does not fit; the entry before stays.
    pub fn put<S: Store>(&mut self, now: Instant, key: &S::Key, value: &S::Value) -> Result<(), Full> {
        self.put_within::<S>(now, key, value, Duration::ZERO)
    }

    /// The same for what may wait for others to go with it.
    pub(crate) fn put_within<S: Store>(
        &mut self,
        now: Instant,
        key: &S::Key,
        value: &S::Value,
        pause: Duration,
    ) -> Result<(), Full> {
        self.observe(now);
        let (name, value) = (name::<S>(key), frame::encode(value));
        if self.members.draft.value(&name) == Some(&value) {
            return Ok(());
        }
        let size = cost(&name.key, &value);
        self.change(now, name, Some(value), size, pause)?;
        Ok(())
    }

    /// Withdraws an own entry. Answers whether there was one.
    pub fn remove<S: Store>(&mut self, now: Instant, key: &S::Key) -> bool {
        self.remove_within::<S>(now, key, Duration::ZERO)
    }

    /// The same for what may wait for others to go with it.
    pub(crate) fn remove_within<S: Store>(&mut self, now: Instant, key: &S::Key, pause: Duration) -> bool {
        self.observe(now);
        let name = name::<S>(key);
        let there = self.members.draft.value(&name).is_some();
        let size = cost(&name.key, &[]);
        there && self.change(now, name, None, size, pause).is_ok()
    }

    /// What `origin` says under `key`.
    #[must_use]
    pub fn get<S: Store>(&self, origin: PeerId, key: &S::Key) -> Option<S::Value> {
        let value = self.members.block(self.members.find(origin)?)?.value(&name::<S>(key))?;
        self.decoded(frame::decode(value, MAX_VALUE).ok())
    }

    /// Entries of a store with their origins, this node's included, by origin. What this build cannot decode is
    /// skipped and counted.
    pub fn entries<S: Store>(&self) -> impl Iterator<Item = (PeerId, S::Key, S::Value)> {
        self.members
            .blocks()
            .flat_map(|(origin, block)| self.read::<S>(block).map(move |(key, value)| (origin, key, value)))
    }

    /// Bytes of everything that this node published, as [`limits::MAX_ORIGIN`](crate::limits::MAX_ORIGIN) counts them.
    #[must_use]
    pub fn own_bytes(&self) -> usize {
        self.members.draft.size()
    }

    /// Entries of a store that this node published.
    pub fn own<S: Store>(&self) -> impl Iterator<Item = (S::Key, S::Value)> {
        self.read::<S>(&self.members.draft)
    }

    /// Entries of a store that this node published in a later state than the one that it has.
    pub fn former<S: Store>(&self) -> impl Iterator<Item = (S::Key, S::Value)> {
        self.former.iter().flat_map(|replica| self.read::<S>(&replica.block))
    }

    /// Entries of a store that `origin` published.
    pub fn entries_of<S: Store>(&self, origin: PeerId) -> impl Iterator<Item = (S::Key, S::Value)> {
        let block = self.members.find(origin).and_then(|number| self.members.block(number));
        block.into_iter().flat_map(|block| self.read::<S>(block))
    }

    fn read<S: Store>(&self, block: &Block) -> impl Iterator<Item = (S::Key, S::Value)> {
        block.of_store(S::ID).filter_map(|(key, value)| {
            let entry = frame::decode(key, MAX_KEY).ok().zip(frame::decode(value, MAX_VALUE).ok());
            self.decoded(entry)
        })
    }

    fn decoded<T>(&self, value: Option<T>) -> Option<T> {
        if value.is_none() {
            self.undecodable.fetch_add(1, Ordering::Relaxed);
        }
        value
    }

    /// Changes the draft. A delta stays within a frame, so what would not fit any more is signed before.
    fn change(
        &mut self,
        now: Instant,
        name: Name,
        value: Option<Vec<u8>>,
        size: usize,
        pause: Duration,
    ) -> Result<(), Excess> {
        if self.unsigned_size + size > MAX_BATCH {
            self.sign_changes(now);
        }
        let draft = self.members.draft.with(&Changes::from([(name.clone(), value)]))?;
        let before = std::mem::replace(&mut self.members.draft, draft);
        let links_changed = name.store == Links::ID;
        self.unsigned.insert(name);
        self.unsigned_size += size;
        self.urgent |= pause.is_zero();
        let between = if links_changed { SIGN_PAUSE } else { PROMPT_SIGN_PAUSE };
        let due = self.signed.map_or(now, |signed| now.max(signed + between)).max(now + pause);
        self.sign_at = Some(self.sign_at.map_or(due, |at| at.min(due)));
        self.arm(due);
        if links_changed {
            self.routes = None;
            self.members.links_changed(SELF, &before);
            self.settle(now);
        }
        Ok(())
    }

    /// Somebody lost links. Where one of them leads to whom an untold change of a link of ours does, that change is told at
    /// once: it may be the last way to that member that there is, or the last claim of one that is gone.
    pub(crate) fn hurry(&mut self, now: Instant, before: &Block, after: &Block) {
        let Some(at) = self.sign_at.filter(|at| *at > now) else { return };
        let untold: Vec<PeerId> = self.unsigned.iter().filter_map(linked_peer).collect();
        let taken_back = |peer: &PeerId| claims_link(before, *peer) && !claims_link(after, *peer);
        if untold.iter().any(taken_back) {
            let due = self.signed.map_or(now, |signed| now.max(signed + SIGN_PAUSE));
            self.sign_at = Some(due.min(at));
            self.urgent = true;
            self.arm(due);
        }
    }

    /// Signs what changed, once it is time.
    pub(crate) fn sign_due(&mut self, now: Instant) {
        if self.sign_at.is_some_and(|at| at <= now) {
            self.sign_changes(now);
            self.tell_links(now);
        }
    }

    /// Signs what changed since the last manifest and has all links told. Changes are gathered for a while after the
    /// last signature, and until the driver asks for frames, so that many cost one signature and one delta.
    pub(crate) fn sign_changes(&mut self, now: Instant) {
        self.sign_at = None;
        if self.unsigned.is_empty() {
            return;
        }
        self.signed = Some(now);
        self.unsigned_size = 0;
        let names = std::mem::take(&mut self.unsigned);
        let before = self.own_replica().mark();
        let Mark { incarnation, sequence: from, .. } = before;
        self.publish(Stamp { incarnation, sequence: from + 1, root: self.members.draft.root() });
        let (mut upserts, mut removals) = (Vec::new(), Vec::new());
        for name in names {
            match self.members.draft.value(&name).map(<[u8]>::to_vec) {
                Some(value) => upserts.push(Entry { name, value }),
                None => removals.push(name),
            }
        }
        let manifest = self.own_replica().manifest;
        let patient = !std::mem::take(&mut self.urgent);
        let delta = Delta { manifest, from, upserts, removals };
        self.note_change(SELF, Some(before), patient, frame::encode(&delta).into());
    }
}

impl From<Excess> for Full {
    fn from(excess: Excess) -> Self {
        match excess {
            Excess::Entry => Self::Entry,
            Excess::Origin => Self::Origin,
        }
    }
}

/// Whom a link leads to whose name this is.
fn linked_peer(name: &Name) -> Option<PeerId> {
    (name.store == Links::ID).then(|| peer_in(&name.key))?
}

fn name<S: Store>(key: &S::Key) -> Name {
    Name { store: S::ID, key: frame::encode(key) }
}
