//! Root of a 16-ary hash trie over named values.
//!
//! A leaf's place is the SHA-256 of its name, four bits per level; a subtree of one leaf is that leaf's hash, an inner
//! node hashes its 16 children, and leaves and inner nodes are hashed under different first bytes (RFC 9162, section
//! 2.1). Two holders of different sets can therefore find the difference by comparing nodes from the root down.

use aws_lc_rs::digest::{Context, SHA256, digest};

/// A SHA-256 hash.
pub(crate) type Hash = [u8; 32];

/// Root of an empty set, and hash of an absent child.
pub(crate) const EMPTY: Hash = [0; 32];

/// One named value. Leaves sort by their place in the trie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Leaf {
    place: Hash,
    hash: Hash,
}

impl Leaf {
    pub(crate) fn new(name: &[&[u8]], value: &[u8]) -> Self {
        let place = sha256(name);
        Self { place, hash: sha256(&[&[0], &place, &sha256(&[value])]) }
    }

    fn nibble(&self, level: usize) -> u8 {
        let byte = self.place.get(level / 2).copied().unwrap_or_default();
        if level.is_multiple_of(2) { byte >> 4 } else { byte & 0xf }
    }
}

/// Root over leaves of different names, in any order.
pub(crate) fn root(leaves: impl Iterator<Item = Leaf>) -> Hash {
    let mut leaves: Vec<Leaf> = leaves.collect();
    leaves.sort_unstable();
    subtree(&leaves, 0)
}

/// Two leaves would have to share all 64 nibbles of their place to go deeper than the last level, which takes a
/// collision of SHA-256.
fn subtree(leaves: &[Leaf], level: usize) -> Hash {
    match leaves {
        [] => EMPTY,
        [leaf] => leaf.hash,
        _ if level == 64 => EMPTY,
        _ => {
            let mut children = [EMPTY; 16];
            for group in leaves.chunk_by(|one, other| one.nibble(level) == other.nibble(level)) {
                let place = group.first().map_or(0, |leaf| leaf.nibble(level));
                if let Some(child) = children.get_mut(usize::from(place)) {
                    *child = subtree(group, level + 1);
                }
            }
            sha256(&[&[1], children.as_flattened()])
        }
    }
}

fn sha256(parts: &[&[u8]]) -> Hash {
    let finished = match parts {
        [one] => digest(&SHA256, one),
        _ => {
            let mut context = Context::new(&SHA256);
            parts.iter().for_each(|part| context.update(part));
            context.finish()
        }
    };
    finished.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(name: u8, value: u8) -> Leaf {
        Leaf::new(&[&[name]], &[value])
    }

    #[test]
    fn order_does_not_matter_and_everything_else_does() {
        let leaves: Vec<Leaf> = (0..100).map(|name| leaf(name, name)).collect();
        let all = root(leaves.iter().copied());
        assert_eq!(root(leaves.iter().rev().copied()), all);
        assert_ne!(root(leaves.iter().skip(1).copied()), all);
        assert_ne!(root(leaves.iter().skip(1).copied().chain([leaf(0, 1)])), all);
        assert_ne!(root(leaves.iter().skip(1).copied().chain([leaf(200, 0)])), all);
    }

    #[test]
    fn an_empty_set_and_a_lone_leaf_have_their_own_roots() {
        assert_eq!(root([].into_iter()), EMPTY);
        assert_eq!(root([leaf(1, 2)].into_iter()), leaf(1, 2).hash);
    }
}
