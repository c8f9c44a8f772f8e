//! Typed stores over the replicas: own entries are written here, everyone's are read.

use std::sync::atomic::Ordering;
use std::time::Instant;

use meshwork_wire::record::{Links, Store};
use meshwork_wire::{PeerId, frame};

use crate::event::Full;
use crate::frames::{Delta, Entry, Frame, Manifest, Name, Stamp};
use crate::gossip::Gossip;
use crate::limits::{MAX_BATCH, MAX_KEY, MAX_VALUE};
use crate::replica::{Excess, Replica, cost};

impl Gossip {
    /// Publishes an own entry, in place of the one under the same key. An equal one is left alone.
    ///
    /// # Errors
    /// [`Full`] when it does not fit; the entry before stays.
    pub fn put<S: Store>(&mut self, now: Instant, key: &S::Key, value: &S::Value) -> Result<(), Full> {
        self.observe(now);
        let (name, value) = (name::<S>(key), frame::encode(value));
        if self.own_replica().contents.value(&name) == Some(&value) {
            return Ok(());
        }
        let size = cost(&name, &value);
        if self.unsigned_size + size > MAX_BATCH {
            self.sign_changes();
        }
        self.own_replica_mut().contents.upsert(Entry { name: name.clone(), value })?;
        self.note_change(now, name, size);
        Ok(())
    }

    /// Withdraws an own entry. Answers whether there was one.
    pub fn remove<S: Store>(&mut self, now: Instant, key: &S::Key) -> bool {
        self.observe(now);
        let name = name::<S>(key);
        let size = cost(&name, &[]);
        if self.unsigned_size + size > MAX_BATCH {
            self.sign_changes();
        }
        let removed = self.own_replica_mut().contents.remove(&name);
        if removed {
            self.note_change(now, name, size);
        }
        removed
    }

    /// What `origin` says under `key`.
    #[must_use]
    pub fn get<S: Store>(&self, origin: PeerId, key: &S::Key) -> Option<S::Value> {
        let value = self.replicas.of(origin)?.contents.value(&name::<S>(key))?;
        self.decoded(frame::decode(value, MAX_VALUE).ok())
    }

    /// Entries of a store with their origins, this node's included, by origin. What this build cannot decode is
    /// skipped and counted.
    pub fn entries<S: Store>(&self) -> impl Iterator<Item = (PeerId, S::Key, S::Value)> {
        self.replicas
            .iter()
            .flat_map(|(origin, replica)| self.read::<S>(replica).map(move |(key, value)| (origin, key, value)))
    }

    /// Bytes of everything that this node published, as [`limits::MAX_ORIGIN`](crate::limits::MAX_ORIGIN) counts them.
    #[must_use]
    pub fn own_bytes(&self) -> usize {
        self.own_replica().contents.size()
    }

    /// Entries of a store that this node published.
    pub fn own<S: Store>(&self) -> impl Iterator<Item = (S::Key, S::Value)> {
        self.read::<S>(self.own_replica())
    }

    /// Entries of a store that this node published in a later state than the one that it has.
    pub fn former<S: Store>(&self) -> impl Iterator<Item = (S::Key, S::Value)> {
        self.former.iter().flat_map(|replica| self.read::<S>(replica))
    }

    /// Entries of a store that `origin` published.
    pub fn entries_of<S: Store>(&self, origin: PeerId) -> impl Iterator<Item = (S::Key, S::Value)> {
        self.replicas.of(origin).into_iter().flat_map(|replica| self.read::<S>(replica))
    }

    fn read<S: Store>(&self, replica: &Replica) -> impl Iterator<Item = (S::Key, S::Value)> {
        replica.contents.of_store(S::ID).filter_map(|(key, value)| {
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

    fn own_replica_mut(&mut self) -> &mut Replica {
        self.replicas.of_mut(self.id).expect("the own replica is made with the state machine and never removed")
    }

    fn note_change(&mut self, now: Instant, name: Name, size: usize) {
        let links_changed = name.store == Links::ID;
        self.unsigned.insert(name);
        self.unsigned_size += size;
        if links_changed {
            self.own_replica_mut().refresh_neighbours();
            self.topology_changed = true;
            self.settle(now);
        }
    }

    /// Signs what changed since the last manifest and pushes it to all links. Changes are gathered until the driver
    /// asks for frames, so that many at once cost one signature.
    pub(crate) fn sign_changes(&mut self) {
        if self.unsigned.is_empty() {
            return;
        }
        self.unsigned_size = 0;
        let names = std::mem::take(&mut self.unsigned);
        let Stamp { incarnation, sequence: from, .. } = self.own_replica().stamp();
        let stamp = Stamp { incarnation, sequence: from + 1, root: self.own_replica().contents.root() };
        let manifest = Manifest::sign(&self.identity, stamp);
        self.own_replica_mut().manifest = manifest;
        let (mut upserts, mut removals) = (Vec::new(), Vec::new());
        for name in names {
            match self.own_replica().contents.value(&name).map(<[u8]>::to_vec) {
                Some(value) => upserts.push(Entry { name, value }),
                None => removals.push(name),
            }
        }
        let frame = frame::encode(&Frame::Delta(Delta { manifest, from, upserts, removals }));
        let links: Vec<PeerId> = self.links.keys().copied().collect();
        for to in links {
            self.transmit(to, frame.clone(), true);
        }
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

fn name<S: Store>(key: &S::Key) -> Name {
    Name { store: S::ID, key: frame::encode(key) }
}
