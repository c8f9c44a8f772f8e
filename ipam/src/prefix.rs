//! Arithmetic of prefixes and address spans.

use std::net::{Ipv4Addr, Ipv6Addr};

use aws_lc_rs::digest;
use ipnet::{Ipv4Net, Ipv6Net};
use meshwork_wire::PeerId;

/// The /112 of a peer: 64 bits of SHA-256 of its id after bit 48 of `range`. Two peers share one with a probability
/// of 2^-64; 16 bits remain for the peer's own count.
#[must_use]
pub fn node_prefix6(range: Ipv6Net, peer: PeerId) -> Ipv6Net {
    let digest = digest::digest(&digest::SHA256, &peer.0);
    let hash = digest.as_ref().iter().take(8).fold(0u64, |hash, byte| hash << 8 | u64::from(*byte));
    let address = u128::from(range.network()) | u128::from(hash) << 16;
    Ipv6Net::new(Ipv6Addr::from(address), 112).expect("112 is a prefix length")
}

/// First and last address of a prefix.
pub(crate) fn span(prefix: Ipv4Net) -> (u32, u32) {
    (prefix.network().into(), prefix.broadcast().into())
}

/// Number of addresses of a prefix.
pub(crate) fn size(prefix: Ipv4Net) -> u64 {
    1 << (32 - prefix.prefix_len())
}

/// The prefix of `length` that starts at `first`, which is aligned to it.
pub(crate) fn at(first: u32, length: u8) -> Ipv4Net {
    Ipv4Net::new(Ipv4Addr::from(first), length).expect("prefix lengths are at most 32")
}

/// The prefix of the same length beside this one, and the one that both make up. The whole address space has none.
pub(crate) fn buddy(prefix: Ipv4Net) -> Option<(Ipv4Net, Ipv4Net)> {
    let parent = prefix.supernet()?;
    let (first, last) = span(parent);
    let other = if span(prefix).0 == first { last - (size(prefix) - 1) as u32 } else { first };
    Some((at(other, prefix.prefix_len()), parent))
}

/// Cuts the span of addresses into the fewest prefixes, ascending.
pub(crate) fn cut(first: u32, last: u32) -> Vec<Ipv4Net> {
    let mut prefixes = Vec::new();
    let mut next = u64::from(first);
    while next <= u64::from(last) {
        let aligned = if next == 0 { 32 } else { next.trailing_zeros().min(32) };
        let fitting = (u64::from(last) - next + 1).ilog2();
        let log2 = aligned.min(fitting);
        prefixes.push(at(next as u32, (32 - log2) as u8));
        next += 1 << log2;
    }
    prefixes
}

/// What is left of `whole` without `part`, which lies inside it, as the fewest prefixes.
pub(crate) fn without(whole: Ipv4Net, part: Ipv4Net) -> Vec<Ipv4Net> {
    let mut rest = Vec::new();
    let mut piece = part;
    while piece.prefix_len() > whole.prefix_len() {
        let Some((other, parent)) = buddy(piece) else { break };
        rest.push(other);
        piece = parent;
    }
    rest.sort();
    rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[test]
    fn the_prefix_of_a_peer_stays() {
        let range = "fd4d:6573:6877::/48".parse().unwrap();
        let prefix = node_prefix6(range, PeerId([1; 16]));
        assert!(range.contains(&prefix));
        insta::assert_snapshot!(prefix, @"fd4d:6573:6877:cc8c:d41c:ef90:7c4d:0/112");
    }

    #[test]
    fn buddies_make_up_their_parent() {
        assert_eq!(buddy(net("10.32.0.0/13")), Some((net("10.40.0.0/13"), net("10.32.0.0/12"))));
        assert_eq!(buddy(net("10.40.0.0/13")), Some((net("10.32.0.0/13"), net("10.32.0.0/12"))));
        assert_eq!(buddy(net("0.0.0.0/0")), None);
    }

    #[test]
    fn the_rest_of_a_split_is_one_prefix_per_bit() {
        let rest = without(net("10.0.0.0/22"), net("10.0.1.0/24"));
        assert_eq!(rest, [net("10.0.0.0/24"), net("10.0.2.0/23")]);
        assert_eq!(without(net("10.0.0.0/22"), net("10.0.0.0/22")), []);
    }

    proptest! {
        #[test]
        fn a_cut_covers_its_span_once(first: u32, length in 0u32..100_000) {
            let last = first.saturating_add(length);
            let mut next = u64::from(first);
            for prefix in cut(first, last) {
                prop_assert_eq!(u64::from(span(prefix).0), next);
                next += size(prefix);
            }
            prop_assert_eq!(next, u64::from(last) + 1);
        }
    }
}
