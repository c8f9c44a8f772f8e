//! Index and fingerprint of all members: a 16-ary trie over peer ids with a hash in every inner node (R. Merkle, 1987).
//!
//! An id is a hash already, so its hexadecimal digits are the way down. A subtree of one leaf has that leaf's hash, one
//! of several the hash over its 16 children, none all zeroes: two nodes that hold the same under a prefix have the same
//! hash there, whatever else they know and in whatever order they learned it. Leaves whose hash is [`NOTHING`] are in
//! the index and not in the fingerprint. A change marks the way up, and hashes are computed when one is asked for.

use meshwork_wire::PeerId;

use crate::hash::{Half, half, sha256};
use crate::membership::grow_slowly;

/// Fingerprint of nothing.
pub(crate) const NOTHING: Half = [0; 16];

/// Opens what is hashed for an inner node, as something else does for a leaf (RFC 9162, section 2.1).
const INNER: &[u8] = b"meshwork node v1";

/// Digits of an id.
pub(crate) const DEPTH: usize = 32;

/// Marks a child as a leaf. Zero is no child, since the top is nobody's.
const LEAF: u32 = 1 << 31;

/// What the leaves stand for.
pub(crate) trait Leaves {
    fn id(&self, leaf: u32) -> PeerId;
    fn hash(&self, leaf: u32) -> Half;
}

/// Fingerprint of a subtree, and how many leaves it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Print {
    pub(crate) hash: Half,
    pub(crate) count: u32,
}

impl Print {
    const NONE: Self = Self { hash: NOTHING, count: 0 };
}

#[derive(Debug)]
struct Node {
    children: [u32; 16],
    print: Print,
    stale: bool,
}

impl Node {
    const fn new() -> Self {
        Self { children: [0; 16], print: Print::NONE, stale: false }
    }
}

/// The trie; its leaves lie elsewhere.
#[derive(Debug)]
pub(crate) struct Trie {
    nodes: Vec<Node>,
}

/// The digit of an id at a level.
pub(crate) fn digit(id: PeerId, level: usize) -> u8 {
    let byte = id.0.get(level / 2).copied().unwrap_or_default();
    if level.is_multiple_of(2) { byte >> 4 } else { byte & 0xf }
}

fn starts_with(id: PeerId, path: &[u8]) -> bool {
    path.iter().enumerate().all(|(level, wanted)| digit(id, level) == *wanted)
}

/// Where a walk down ends.
enum End {
    Nothing,
    Leaf(u32),
    Inner(usize),
}

impl Trie {
    pub(crate) fn new() -> Self {
        Self { nodes: vec![Node::new()] }
    }

    fn child(&self, node: usize, digit: u8) -> End {
        match self.nodes.get(node).and_then(|node| node.children.get(usize::from(digit))) {
            None | Some(0) => End::Nothing,
            Some(child) if child & LEAF != 0 => End::Leaf(child & !LEAF),
            Some(child) => End::Inner(*child as usize),
        }
    }

    fn set_child(&mut self, node: usize, digit: u8, child: u32) {
        if let Some(place) = self.nodes.get_mut(node).and_then(|node| node.children.get_mut(usize::from(digit))) {
            *place = child;
        }
    }

    pub(crate) fn find(&self, id: PeerId, leaves: &impl Leaves) -> Option<u32> {
        let mut node = 0;
        for level in 0..DEPTH {
            match self.child(node, digit(id, level)) {
                End::Nothing => return None,
                End::Leaf(leaf) => return (leaves.id(leaf) == id).then_some(leaf),
                End::Inner(next) => node = next,
            }
        }
        None
    }

    /// Adds a leaf whose id is not there yet.
    pub(crate) fn insert(&mut self, leaf: u32, leaves: &impl Leaves) {
        let id = leaves.id(leaf);
        let mut node = 0;
        for level in 0..DEPTH {
            self.make_stale(node);
            match self.child(node, digit(id, level)) {
                End::Inner(next) => node = next,
                End::Nothing => return self.set_child(node, digit(id, level), LEAF | leaf),
                End::Leaf(other) => {
                    // Two ids differ somewhere: the next level tells them apart, or the one after it.
                    let below = self.nodes.len();
                    grow_slowly(&mut self.nodes);
                    self.nodes.push(Node::new());
                    self.set_child(below, digit(leaves.id(other), level + 1), LEAF | other);
                    self.set_child(node, digit(id, level), u32::try_from(below).unwrap_or(0));
                    node = below;
                }
            }
        }
    }

    fn make_stale(&mut self, node: usize) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.stale = true;
        }
    }

    /// Notes that the hash of a leaf changed.
    pub(crate) fn touch(&mut self, id: PeerId) {
        let mut node = 0;
        for level in 0..DEPTH {
            self.make_stale(node);
            match self.child(node, digit(id, level)) {
                End::Inner(next) => node = next,
                _ => return,
            }
        }
    }

    /// Fingerprint of everything.
    pub(crate) fn root(&mut self, leaves: &impl Leaves) -> Half {
        self.print(0, leaves).hash
    }

    fn print(&mut self, node: usize, leaves: &impl Leaves) -> Print {
        if let Some(fresh) = self.nodes.get(node).filter(|node| !node.stale) {
            return fresh.print;
        }
        let prints = self.children(node, leaves);
        let count = prints.iter().map(|print| print.count).sum();
        let hash = match prints.iter().find(|print| print.count > 0) {
            None => NOTHING,
            Some(only) if count == 1 => only.hash,
            Some(_) => half(&sha256(&[INNER, prints.map(|print| print.hash).as_flattened()])),
        };
        let print = Print { hash, count };
        if let Some(node) = self.nodes.get_mut(node) {
            (node.print, node.stale) = (print, false);
        }
        print
    }

    fn children(&mut self, node: usize, leaves: &impl Leaves) -> [Print; 16] {
        let mut digit = 0;
        [(); 16].map(|()| {
            let child = self.child(node, digit);
            digit += 1;
            match child {
                End::Nothing => Print::NONE,
                End::Leaf(leaf) => leaf_print(leaves.hash(leaf)),
                End::Inner(child) => self.print(child, leaves),
            }
        })
    }

    fn descend(&self, path: &[u8]) -> End {
        let mut node = 0;
        for digit in path {
            match self.child(node, *digit) {
                End::Inner(next) => node = next,
                end => return end,
            }
        }
        End::Inner(node)
    }

    /// Fingerprints of what lies below `path`, by the next digit.
    pub(crate) fn prints_below(&mut self, path: &[u8], leaves: &impl Leaves) -> [Print; 16] {
        match self.descend(path) {
            End::Nothing => [Print::NONE; 16],
            End::Inner(node) => self.children(node, leaves),
            End::Leaf(leaf) => {
                let mut prints = [Print::NONE; 16];
                let id = leaves.id(leaf);
                if let Some(print) =
                    prints.get_mut(usize::from(digit(id, path.len()))).filter(|_| starts_with(id, path))
                {
                    *print = leaf_print(leaves.hash(leaf));
                }
                prints
            }
        }
    }

    /// Leaves below `path`, in order of their ids.
    pub(crate) fn below(&self, path: &[u8], leaves: &impl Leaves) -> Vec<u32> {
        let mut found = Vec::new();
        match self.descend(path) {
            End::Nothing => {}
            End::Inner(node) => self.collect(node, &mut found),
            End::Leaf(leaf) => found.extend(starts_with(leaves.id(leaf), path).then_some(leaf)),
        }
        found
    }

    fn collect(&self, node: usize, found: &mut Vec<u32>) {
        for digit in 0..16 {
            match self.child(node, digit) {
                End::Nothing => {}
                End::Leaf(leaf) => found.push(leaf),
                End::Inner(child) => self.collect(child, found),
            }
        }
    }
}

fn leaf_print(hash: Half) -> Print {
    if hash == NOTHING { Print::NONE } else { Print { hash, count: 1 } }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Model(Vec<(PeerId, Half)>);

    impl Leaves for Model {
        fn id(&self, leaf: u32) -> PeerId {
            self.0[leaf as usize].0
        }

        fn hash(&self, leaf: u32) -> Half {
            self.0[leaf as usize].1
        }
    }

    /// Ids that share long beginnings.
    fn id(number: u16) -> PeerId {
        let mut id = [0; 16];
        [id[0], id[9], id[15]] = [(number % 3) as u8, (number / 3 % 5) as u8, (number / 15) as u8];
        PeerId(id)
    }

    fn grown(numbers: &[u16]) -> (Trie, Model) {
        let (mut trie, mut model) = (Trie::new(), Model(Vec::new()));
        for number in numbers {
            if trie.find(id(*number), &model).is_none() {
                model.0.push((id(*number), [1; 16]));
                trie.insert(model.0.len() as u32 - 1, &model);
            }
        }
        (trie, model)
    }

    proptest! {
        #[test]
        fn what_is_held_decides_and_not_how_it_came(mut numbers in proptest::collection::vec(0u16..200, 1..60)) {
            let (mut trie, model) = grown(&numbers);
            for number in 0..200 {
                prop_assert_eq!(trie.find(id(number), &model).is_some(), numbers.contains(&number));
            }
            numbers.reverse();
            let (mut other, mut changed) = grown(&numbers);
            prop_assert_eq!(other.root(&changed), trie.root(&model));
            changed.0[0].1 = [2; 16];
            other.touch(changed.0[0].0);
            prop_assert_ne!(other.root(&changed), trie.root(&model));
        }

        #[test]
        fn a_leaf_of_nothing_leaves_no_trace(numbers in proptest::collection::vec(0u16..200, 2..60)) {
            let (mut all, mut model) = grown(&numbers);
            model.0.last_mut().expect("one at least").1 = NOTHING;
            all.touch(model.0.last().expect("one at least").0);
            let kept: Vec<u16> = numbers.iter().copied().filter(|number| id(*number) != model.0.last().expect("one").0).collect();
            let (mut fewer, rest) = grown(&kept);
            prop_assert_eq!(all.root(&model), fewer.root(&rest));
        }

        #[test]
        fn every_prefix_tells_the_same_as_its_leaves(numbers in proptest::collection::vec(0u16..200, 1..60), level in 0usize..32) {
            let (mut trie, model) = grown(&numbers);
            let path: Vec<u8> = (0..level).map(|level| digit(id(numbers[0]), level)).collect();
            let below = trie.below(&path, &model);
            prop_assert!(below.iter().all(|leaf| starts_with(model.id(*leaf), &path)));
            prop_assert!(below.iter().any(|leaf| model.id(*leaf) == id(numbers[0])));
            let counted: u32 = trie.prints_below(&path, &model).iter().map(|print| print.count).sum();
            prop_assert_eq!(counted as usize, below.len());
        }
    }
}
