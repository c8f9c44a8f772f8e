//! One origin's entries as one block of bytes, shared by whoever holds it.
//!
//! Entries stand in order of store and key, each as store, length of key and length of value (two bytes each, big
//! endian), key and value. Equal entries therefore give equal bytes: the block is what snapshots carry and what the
//! origin's root is the hash of. Values stay as they came, so that unknown ones can be passed on.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use meshwork_wire::record::StoreId;

use crate::frames::Name;
use crate::hash::{EMPTY, Hash, sha256};
use crate::limits::{ENTRY_OVERHEAD, MAX_KEY, MAX_ORIGIN, MAX_VALUE};

/// Opens what is hashed, so that no other hash of this protocol is ever equal.
const LABEL: &[u8] = b"meshwork entries v1";

/// Store and both lengths.
const HEADER: usize = 6;

/// Entries do not fit within the bounds of an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Excess {
    Entry,
    Origin,
}

/// A state that cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfit {
    Excess,
    /// The entries do not have the root that was signed, or are no block at all.
    Root,
}

impl From<Excess> for Unfit {
    fn from(_: Excess) -> Self {
        Self::Excess
    }
}

/// New values by name; nothing removes an entry.
pub(crate) type Changes = BTreeMap<Name, Option<Vec<u8>>>;

/// Entries in order, within bounds.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Block {
    bytes: Arc<[u8]>,
    size: usize,
}

/// An entry where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held<'a> {
    pub(crate) store: StoreId,
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
}

impl Held<'_> {
    fn is(&self, name: &Name) -> bool {
        self.store == name.store && self.key == name.key
    }

    fn precedes(&self, name: &Name) -> bool {
        (self.store, self.key) < (name.store, name.key.as_slice())
    }

    fn cost(&self) -> usize {
        cost(self.key, self.value)
    }

    fn write(&self, to: &mut Vec<u8>) {
        to.extend(self.store.0.to_be_bytes());
        // Both are within their bounds, which are far below 2^16.
        for part in [self.key, self.value] {
            to.extend(u16::try_from(part.len()).unwrap_or(u16::MAX).to_be_bytes());
        }
        to.extend(self.key);
        to.extend(self.value);
    }
}

/// What an entry counts against the bounds, in bytes.
pub(crate) fn cost(key: &[u8], value: &[u8]) -> usize {
    key.len() + value.len() + ENTRY_OVERHEAD
}

/// Entries of a block, up to the first that is cut short.
struct Entries<'a>(&'a [u8]);

impl<'a> Iterator for Entries<'a> {
    type Item = Held<'a>;

    fn next(&mut self) -> Option<Held<'a>> {
        let (&[s, t, k, l, v, w], rest) = self.0.split_first_chunk::<HEADER>()?;
        let (key, rest) = rest.split_at_checked(u16::from_be_bytes([k, l]).into())?;
        let (value, rest) = rest.split_at_checked(u16::from_be_bytes([v, w]).into())?;
        self.0 = rest;
        Some(Held { store: StoreId(u16::from_be_bytes([s, t])), key, value })
    }
}

impl Block {
    /// Takes bytes that came from elsewhere.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Unfit> {
        let (mut entries, mut size, mut last) = (Entries(bytes), 0, None);
        for held in entries.by_ref() {
            let place = (held.store, held.key);
            if held.key.len() > MAX_KEY || held.value.len() > MAX_VALUE {
                return Err(Unfit::Excess);
            }
            if last.replace(place).is_some_and(|last| last >= place) {
                return Err(Unfit::Root);
            }
            size += held.cost();
        }
        match size {
            _ if !entries.0.is_empty() => Err(Unfit::Root),
            MAX_ORIGIN.. if size > MAX_ORIGIN => Err(Unfit::Excess),
            _ => Ok(Self { bytes: bytes.into(), size }),
        }
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = Held<'_>> {
        Entries(&self.bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes of all entries, with what each costs besides.
    pub(crate) const fn size(&self) -> usize {
        self.size
    }

    pub(crate) fn value(&self, name: &Name) -> Option<&[u8]> {
        let mut entries = Entries(&self.bytes);
        entries.find(|held| !held.precedes(name)).filter(|held| held.is(name)).map(|held| held.value)
    }

    /// Keys and values of one store, as encoded.
    pub(crate) fn of_store(&self, store: StoreId) -> impl Iterator<Item = (&[u8], &[u8])> {
        Entries(&self.bytes)
            .skip_while(move |held| held.store < store)
            .take_while(move |held| held.store == store)
            .map(|held| (held.key, held.value))
    }

    /// Hash of all entries.
    pub(crate) fn root(&self) -> Hash {
        if self.bytes.is_empty() { EMPTY } else { sha256(&[LABEL, &self.bytes]) }
    }

    /// The same with some entries changed.
    pub(crate) fn with(&self, changes: &Changes) -> Result<Self, Excess> {
        let too_long = |(name, value): (&Name, &Option<Vec<u8>>)| {
            value.as_ref().is_some_and(|value| name.key.len() > MAX_KEY || value.len() > MAX_VALUE)
        };
        if changes.iter().any(too_long) {
            return Err(Excess::Entry);
        }
        let mut merged = Merged { bytes: Vec::with_capacity(self.bytes.len() + 256), size: 0 };
        let mut changes = changes.iter().peekable();
        for held in self.entries() {
            while let Some(change) = changes.next_if(|(name, _)| !held.precedes(name) && !held.is(name)) {
                merged.change(change);
            }
            match changes.next_if(|(name, _)| held.is(name)) {
                Some(change) => merged.change(change),
                None => merged.push(&held),
            }
        }
        changes.for_each(|change| merged.change(change));
        if merged.size > MAX_ORIGIN {
            return Err(Excess::Origin);
        }
        Ok(Self { bytes: merged.bytes.into(), size: merged.size })
    }

    /// Stores in which two blocks differ, in order.
    pub(crate) fn difference(&self, other: &Self) -> Vec<StoreId> {
        let mut stores = Vec::new();
        let (mut ours, mut theirs) = (self.entries().peekable(), other.entries().peekable());
        while let Some(store) = ours.peek().into_iter().chain(theirs.peek()).map(|held| held.store).min() {
            let mut differs = false;
            loop {
                let (one, two) = (ours.next_if(|held| held.store == store), theirs.next_if(|held| held.store == store));
                differs |= one != two;
                if one.is_none() && two.is_none() {
                    break;
                }
            }
            stores.extend(differs.then_some(store));
        }
        stores
    }
}

/// A block that is being put together.
struct Merged {
    bytes: Vec<u8>,
    size: usize,
}

impl Merged {
    fn push(&mut self, held: &Held<'_>) {
        held.write(&mut self.bytes);
        self.size += held.cost();
    }

    fn change(&mut self, (name, value): (&Name, &Option<Vec<u8>>)) {
        if let Some(value) = value {
            self.push(&Held { store: name.store, key: &name.key, value });
        }
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} entries of {} bytes", self.entries().count(), self.size)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(store: u16, key: &[u8]) -> Name {
        Name { store: StoreId(store), key: key.to_vec() }
    }

    fn put(block: &Block, store: u16, key: &[u8], size: usize) -> Result<Block, Excess> {
        block.with(&Changes::from([(name(store, key), Some(vec![7; size]))]))
    }

    fn taken(block: &Block, store: u16, key: &[u8]) -> Block {
        block.with(&Changes::from([(name(store, key), None)])).expect("less always fits")
    }

    #[test]
    fn bounds_hold_and_freed_room_can_be_used_again() {
        let mut block = Block::default();
        assert_eq!(put(&block, 1, &[0; MAX_KEY + 1], 0), Err(Excess::Entry));
        assert_eq!(put(&block, 1, b"a", MAX_VALUE + 1), Err(Excess::Entry));
        for key in [b"a", b"b", b"c"] {
            block = put(&block, 1, key, MAX_VALUE).expect("it fits");
        }
        assert_eq!(put(&block, 1, b"d", MAX_VALUE), Err(Excess::Origin));
        assert!(put(&block, 1, b"a", MAX_VALUE - 1).is_ok());
        assert!(put(&taken(&block, 1, b"b"), 1, b"d", MAX_VALUE).is_ok());
    }

    #[test]
    fn size_counts_what_is_held_and_nothing_else() {
        let block = put(&Block::default(), 1, b"a", 10).expect("it fits");
        let block = put(&block, 1, b"a", 20).expect("it fits");
        assert_eq!(block.size(), 1 + 20 + ENTRY_OVERHEAD);
        let empty = taken(&block, 1, b"a");
        assert_eq!((empty.size(), empty.root()), (0, EMPTY));
    }

    #[test]
    fn a_store_is_read_apart_from_its_neighbours() {
        let all = (1..4).map(|store| (name(store, b"k"), Some(vec![1]))).collect();
        let block = Block::default().with(&all).expect("it fits");
        assert_eq!(block.of_store(StoreId(2)).count(), 1);
        assert_eq!(block.of_store(StoreId(9)).count(), 0);
    }

    #[test]
    fn a_difference_names_the_stores_that_differ_and_no_other() {
        let all = (1..4).map(|store| (name(store, b"k"), Some(vec![1]))).collect();
        let block = Block::default().with(&all).expect("it fits");
        assert_eq!(block.difference(&block), []);
        assert_eq!(block.difference(&taken(&block, 2, b"k")), [StoreId(2)]);
        assert_eq!(put(&block, 9, b"k", 1).expect("it fits").difference(&block), [StoreId(9)]);
    }

    #[test]
    fn what_is_out_of_order_doubled_or_cut_short_is_no_block() {
        let block = put(&put(&Block::default(), 1, b"a", 1).expect("it fits"), 1, b"b", 1).expect("it fits");
        assert_eq!(Block::parse(block.bytes()), Ok(block.clone()));
        let (one, two) = block.bytes().split_at(block.bytes().len() / 2);
        for wrong in [[two, one].concat(), [one, one].concat(), block.bytes()[1..].to_vec(), [one, &two[1..]].concat()]
        {
            assert!(Block::parse(&wrong).is_err());
        }
    }

    proptest! {
        #[test]
        fn a_block_is_the_map_that_was_written_into_it(
            steps in proptest::collection::vec((0u16..3, 0u8..6, proptest::option::of(0usize..9)), 0..40),
        ) {
            let (mut block, mut model) = (Block::default(), BTreeMap::new());
            for (store, key, size) in steps {
                let (name, value) = (name(store, &[key]), size.map(|size| vec![key; size]));
                block = block.with(&Changes::from([(name.clone(), value.clone())])).expect("it fits");
                match value {
                    Some(value) => drop(model.insert(name, value)),
                    None => drop(model.remove(&name)),
                }
            }
            let held: Vec<_> = block.entries().map(|held| (held.store, held.key.to_vec(), held.value.to_vec())).collect();
            let wanted: Vec<_> = model.into_iter().map(|(name, value)| (name.store, name.key, value)).collect();
            prop_assert_eq!(held, wanted);
            prop_assert_eq!(Block::parse(block.bytes()), Ok(block));
        }
    }
}
