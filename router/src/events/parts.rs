//! What a change of ownership gave and took: differences of sets of prefixes, however they are cut. No IO.

use std::collections::BTreeMap;

use ipnet::{Ipv4Net, Ipv4Subnets};
use meshwork_wire::PeerId;

/// Who owns what.
pub type Ownership = BTreeMap<PeerId, Vec<Ipv4Net>>;

/// What `me` owns in `now` and not in `before`, by who owned it then.
#[must_use]
pub fn gained(me: PeerId, now: &Ownership, before: &Ownership) -> BTreeMap<Option<PeerId>, Vec<Ipv4Net>> {
    let new = difference(of(now, me), of(before, me));
    let mut gained: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for part in new {
        gained.entry(owner(before, part)).or_default().push(part);
    }
    gained
}

fn of(ownership: &Ownership, peer: PeerId) -> &[Ipv4Net] {
    ownership.get(&peer).map(Vec::as_slice).unwrap_or_default()
}

/// Who owns the beginning of a prefix: a gift comes from one owner.
fn owner(ownership: &Ownership, part: Ipv4Net) -> Option<PeerId> {
    let owns = |parts: &Vec<Ipv4Net>| parts.iter().any(|owned| owned.contains(&part.network()));
    ownership.iter().find(|(_, parts)| owns(parts)).map(|(peer, _)| *peer)
}

/// The addresses of `these` that are not among `those`, as few prefixes as there can be.
fn difference(these: &[Ipv4Net], those: &[Ipv4Net]) -> Vec<Ipv4Net> {
    let those = Ipv4Net::aggregate(&those.to_vec());
    let mut rest = Vec::new();
    for prefix in Ipv4Net::aggregate(&these.to_vec()) {
        let (mut from, last) = (u64::from(u32::from(prefix.network())), u64::from(u32::from(prefix.broadcast())));
        // Aggregated prefixes are disjoint and ascending.
        for taken in those.iter().filter(|taken| prefix.contains(*taken) || taken.contains(&prefix)) {
            let (first, end) = (u64::from(u32::from(taken.network())), u64::from(u32::from(taken.broadcast())));
            add(&mut rest, from, first);
            from = from.max(end + 1);
        }
        add(&mut rest, from, last + 1);
    }
    rest
}

/// Adds the addresses from `from` to before `end`.
fn add(rest: &mut Vec<Ipv4Net>, from: u64, end: u64) {
    if from < end
        && let (Ok(first), Ok(last)) = (u32::try_from(from), u32::try_from(end - 1))
    {
        rest.extend(Ipv4Subnets::new(first.into(), last.into(), 0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: PeerId = PeerId([1; 16]);
    const OTHER: PeerId = PeerId([2; 16]);

    fn nets(texts: &[&str]) -> Vec<Ipv4Net> {
        texts.iter().map(|text| text.parse().expect("a prefix")).collect()
    }

    #[test]
    fn a_gift_is_told_by_its_giver_and_cutting_a_part_is_none() {
        let before = Ownership::from([(OTHER, nets(&["10.32.0.0/12"]))]);
        let now = Ownership::from([(OTHER, nets(&["10.32.0.0/13"])), (ME, nets(&["10.40.0.0/13"]))]);
        assert_eq!(gained(ME, &now, &before), BTreeMap::from([(Some(OTHER), nets(&["10.40.0.0/13"]))]));
        assert!(gained(OTHER, &now, &before).is_empty());
        let cut = Ownership::from([(OTHER, nets(&["10.32.0.0/13", "10.40.0.0/13"]))]);
        assert!(gained(OTHER, &cut, &before).is_empty() && gained(OTHER, &before, &cut).is_empty());
    }

    #[test]
    fn a_new_ring_comes_from_nobody() {
        let now = Ownership::from([(ME, nets(&["0.0.0.0/0"]))]);
        assert_eq!(gained(ME, &now, &Ownership::new()), BTreeMap::from([(None, nets(&["0.0.0.0/0"]))]));
    }

    #[test]
    fn differences_are_exact_at_every_edge() {
        let cases: [(&[&str], &[&str], &[&str]); 5] = [
            (&["10.0.0.0/30"], &["10.0.0.1/32"], &["10.0.0.0/32", "10.0.0.2/31"]),
            (&["10.0.0.0/31", "10.0.0.4/31"], &["10.0.0.0/29"], &[]),
            (
                &["255.255.255.0/24"],
                &["255.255.255.255/32", "255.255.255.0/25"],
                &[
                    "255.255.255.128/26",
                    "255.255.255.192/27",
                    "255.255.255.224/28",
                    "255.255.255.240/29",
                    "255.255.255.248/30",
                    "255.255.255.252/31",
                    "255.255.255.254/32",
                ],
            ),
            (&["10.0.0.0/24"], &["10.0.1.0/24"], &["10.0.0.0/24"]),
            (&[], &["10.0.0.0/8"], &[]),
        ];
        for (these, those, rest) in cases {
            assert_eq!(difference(&nets(these), &nets(those)), nets(rest), "{these:?} without {those:?}");
        }
    }
}
