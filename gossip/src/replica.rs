//! One origin's entries under its latest manifest.

use std::collections::{BTreeMap, BTreeSet};

use meshwork_wire::frame;
use meshwork_wire::record::{LinkRecord, Links, Store, StoreId};
use meshwork_wire::{Incarnation, PeerId};

use crate::frames::{Delta, Entry, Manifest, Name, Stamp, Summary};
use crate::limits::{ENTRY_OVERHEAD, MAX_BATCH, MAX_KEY, MAX_ORIGIN, MAX_VALUE};
use crate::trie::{self, EMPTY, Hash, Leaf};

/// Entries do not fit within the bounds of an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Excess {
    Entry,
    Origin,
}

/// Entries by name, within bounds. Values stay as they came, so that unknown ones can be passed on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Contents {
    entries: BTreeMap<Name, Held>,
    size: usize,
}

#[derive(Debug, Clone)]
struct Held {
    value: Vec<u8>,
    leaf: Leaf,
}

impl Contents {
    pub(crate) fn value(&self, name: &Name) -> Option<&[u8]> {
        self.entries.get(name).map(|held| held.value.as_slice())
    }

    /// Bytes of all entries, with what each costs besides.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    pub(crate) fn upsert(&mut self, entry: Entry) -> Result<(), Excess> {
        let Entry { name, value } = entry;
        if name.key.len() > MAX_KEY || value.len() > MAX_VALUE {
            return Err(Excess::Entry);
        }
        let before = self.entries.get(&name).map_or(0, |held| cost(&name, &held.value));
        let size = self.size - before + cost(&name, &value);
        if size > MAX_ORIGIN {
            return Err(Excess::Origin);
        }
        self.size = size;
        let leaf = Leaf::new(&[&name.store.0.to_be_bytes(), &name.key], &value);
        self.entries.insert(name, Held { value, leaf });
        Ok(())
    }

    pub(crate) fn remove(&mut self, name: &Name) -> bool {
        let Some(held) = self.entries.remove(name) else { return false };
        self.size -= cost(name, &held.value);
        true
    }

    pub(crate) fn root(&self) -> Hash {
        trie::root(self.entries.values().map(|held| held.leaf))
    }

    /// Keys and values of one store, as encoded.
    pub(crate) fn of_store(&self, store: StoreId) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.entries
            .range(Name { store, key: Vec::new() }..)
            .take_while(move |(name, _)| name.store == store)
            .map(|(name, held)| (name.key.as_slice(), held.value.as_slice()))
    }

    /// All entries in batches of at most [`MAX_BATCH`] bytes, at least one batch.
    pub(crate) fn batches(&self) -> Vec<Vec<Entry>> {
        let (mut batches, mut batch, mut size) = (Vec::new(), Vec::new(), 0);
        for (name, held) in &self.entries {
            let cost = cost(name, &held.value);
            if size + cost > MAX_BATCH {
                batches.push(std::mem::take(&mut batch));
                size = 0;
            }
            size += cost;
            batch.push(Entry { name: name.clone(), value: held.value.clone() });
        }
        batches.push(batch);
        batches
    }

    /// Stores in which two sets of entries differ.
    fn difference(&self, other: &Self) -> BTreeSet<StoreId> {
        let missing_in = |one: &Self, other: &Self| {
            let differs = |(name, held): &(&Name, &Held)| other.value(name) != Some(&held.value);
            one.entries.iter().filter(differs).map(|(name, _)| name.store).collect::<BTreeSet<_>>()
        };
        let mut stores = missing_in(self, other);
        stores.extend(missing_in(other, self));
        stores
    }
}

/// What an entry counts against the bounds, in bytes.
pub(crate) fn cost(name: &Name, value: &[u8]) -> usize {
    name.key.len() + value.len() + ENTRY_OVERHEAD
}

/// A change that cannot be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfit {
    Excess,
    /// The entries do not have the root that was signed.
    Root,
}

impl From<Excess> for Unfit {
    fn from(_: Excess) -> Self {
        Self::Excess
    }
}

/// One origin as last heard.
#[derive(Debug, Clone)]
pub(crate) struct Replica {
    pub(crate) manifest: Manifest,
    pub(crate) contents: Contents,
    /// Links that the origin says are up.
    pub(crate) neighbours: BTreeMap<PeerId, LinkRecord>,
}

impl Replica {
    /// `contents` have the root that `manifest` names.
    pub(crate) fn new(manifest: Manifest, contents: Contents) -> Self {
        let neighbours = neighbours(&contents);
        Self { manifest, contents, neighbours }
    }

    pub(crate) const fn stamp(&self) -> Stamp {
        self.manifest.stamp
    }

    pub(crate) fn summary(&self, origin: PeerId) -> Summary {
        Summary { origin, stamp: self.stamp() }
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        self.stamp().incarnation
    }

    /// Stores in which `next` differs.
    pub(crate) fn difference(&self, next: &Self) -> BTreeSet<StoreId> {
        self.contents.difference(&next.contents)
    }

    pub(crate) fn refresh_neighbours(&mut self) {
        self.neighbours = neighbours(&self.contents);
    }
}

fn neighbours(contents: &Contents) -> BTreeMap<PeerId, LinkRecord> {
    let decode =
        |(key, value): (&[u8], &[u8])| Some((frame::decode(key, MAX_KEY).ok()?, frame::decode(value, MAX_VALUE).ok()?));
    contents.of_store(Links::ID).filter_map(decode).collect()
}

/// The state that `delta` leads to from `base`.
pub(crate) fn after_delta(base: &Contents, delta: Delta) -> Result<Replica, Unfit> {
    let mut contents = base.clone();
    for name in &delta.removals {
        contents.remove(name);
    }
    for entry in delta.upserts {
        contents.upsert(entry)?;
    }
    checked(delta.manifest, contents)
}

/// The state that all parts of a snapshot give.
pub(crate) fn from_snapshot(manifest: Manifest, entries: impl Iterator<Item = Entry>) -> Result<Replica, Unfit> {
    let mut contents = Contents::default();
    for entry in entries {
        contents.upsert(entry)?;
    }
    checked(manifest, contents)
}

fn checked(manifest: Manifest, contents: Contents) -> Result<Replica, Unfit> {
    if contents.root() == manifest.stamp.root { Ok(Replica::new(manifest, contents)) } else { Err(Unfit::Root) }
}

/// The state that every run starts from.
pub(crate) const fn empty_stamp(incarnation: Incarnation) -> Stamp {
    Stamp { incarnation, sequence: 0, root: EMPTY }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(store: u16, key: &[u8], size: usize) -> Entry {
        Entry { name: Name { store: StoreId(store), key: key.to_vec() }, value: vec![7; size] }
    }

    #[test]
    fn bounds_hold_and_freed_room_can_be_used_again() {
        let mut contents = Contents::default();
        assert_eq!(contents.upsert(entry(1, &[0; MAX_KEY + 1], 0)), Err(Excess::Entry));
        assert_eq!(contents.upsert(entry(1, b"a", MAX_VALUE + 1)), Err(Excess::Entry));
        for key in [b"a", b"b", b"c"] {
            assert_eq!(contents.upsert(entry(1, key, MAX_VALUE)), Ok(()));
        }
        assert_eq!(contents.upsert(entry(1, b"d", MAX_VALUE)), Err(Excess::Origin));
        assert_eq!(contents.upsert(entry(1, b"a", MAX_VALUE - 1)), Ok(()));
        assert!(contents.remove(&entry(1, b"b", 0).name));
        assert_eq!(contents.upsert(entry(1, b"d", MAX_VALUE)), Ok(()));
    }

    #[test]
    fn size_counts_what_is_held_and_nothing_else() {
        let mut contents = Contents::default();
        contents.upsert(entry(1, b"a", 10)).expect("it fits");
        contents.upsert(entry(1, b"a", 20)).expect("it fits");
        assert_eq!(contents.size, 1 + 20 + ENTRY_OVERHEAD);
        contents.remove(&entry(1, b"a", 0).name);
        assert_eq!((contents.size, contents.root()), (0, EMPTY));
    }

    #[test]
    fn batches_hold_everything_within_their_bound() {
        let mut contents = Contents::default();
        for key in 0..60u8 {
            contents.upsert(entry(1, &[key], 1000)).expect("it fits");
        }
        let batches = contents.batches();
        assert!(batches.len() > 1 && batches.iter().all(|batch| batch.len() <= MAX_BATCH / 1000));
        assert_eq!(batches.concat().len(), 60);
        assert_eq!(Contents::default().batches(), vec![vec![]]);
    }

    #[test]
    fn a_store_is_read_apart_from_its_neighbours() {
        let mut contents = Contents::default();
        for store in 1..4 {
            contents.upsert(entry(store, b"k", 1)).expect("it fits");
        }
        assert_eq!(contents.of_store(StoreId(2)).count(), 1);
        assert_eq!(contents.of_store(StoreId(9)).count(), 0);
    }
}
