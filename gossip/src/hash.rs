//! SHA-256 and its first half.

use aws_lc_rs::digest::{Context, SHA256, digest};

/// A SHA-256 hash.
pub(crate) type Hash = [u8; 32];

/// The first half of one: what neighbours compare. It takes 2^64 tries to find two things that have it in common, and
/// whoever does has only made two states of its own look alike.
pub(crate) type Half = [u8; 16];

/// Root of an empty set.
pub(crate) const EMPTY: Hash = [0; 32];

pub(crate) fn sha256(parts: &[&[u8]]) -> Hash {
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

pub(crate) fn half(hash: &Hash) -> Half {
    let mut half = [0; 16];
    half.iter_mut().zip(hash).for_each(|(to, from)| *to = *from);
    half
}
