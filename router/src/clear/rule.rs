//! Between which addresses two nodes may exchange overlay packets in clear.
//!
//! Each node publishes what it allows; both compute the same pairs from both records. The stricter side wins: `required`
//! allows nothing, `trusted` allows pairs where each address lies in the other's trusted subnets, `off` allows every
//! pair with whoever says `off` too.

use std::net::IpAddr;

use ipnet::IpNet;
use meshwork_wire::record::{ClearTerms, Encryption};

/// What one node says.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    /// Whether its packets may travel in clear.
    pub encryption: Encryption,
    /// Where, and between whom.
    pub terms: &'a ClearTerms,
}

/// Pairs of our and their underlay addresses between which clear is allowed, in the order in which to try them.
#[must_use]
pub fn allowed(ours: Side<'_>, theirs: Side<'_>) -> Vec<(IpAddr, IpAddr)> {
    if ours.terms.port != theirs.terms.port {
        return Vec::new();
    }
    let pairs =
        ours.terms.addresses.iter().flat_map(|our| theirs.terms.addresses.iter().map(move |their| (*our, *their)));
    let usable = |(our, their): &(IpAddr, IpAddr)| {
        our != their && our.is_ipv4() == their.is_ipv4() && is_unicast(*our) && is_unicast(*their)
    };
    let agreed = |(our, their): &(IpAddr, IpAddr)| match (ours.encryption, theirs.encryption) {
        (Encryption::Off, Encryption::Off) => true,
        (Encryption::Trusted, Encryption::Trusted) => {
            lies_in(*their, &ours.terms.trusted) && lies_in(*our, &theirs.terms.trusted)
        }
        _ => false,
    };
    pairs.filter(usable).filter(agreed).collect()
}

fn lies_in(address: IpAddr, subnets: &[IpNet]) -> bool {
    subnets.iter().any(|subnet| subnet.contains(&address))
}

/// Addresses that name one host on a network: a record may hold anything.
fn is_unicast(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(link_local || address.is_loopback() || address.is_multicast() || address.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(addresses: &[&str], trusted: &[&str]) -> ClearTerms {
        ClearTerms {
            port: 6784,
            addresses: addresses.iter().map(|text| text.parse().expect("an address")).collect(),
            trusted: trusted.iter().map(|text| text.parse().expect("a subnet")).collect(),
        }
    }

    fn count(ours: (Encryption, &ClearTerms), theirs: (Encryption, &ClearTerms)) -> usize {
        let side = |(encryption, terms)| Side { encryption, terms };
        let pairs = allowed(side(ours), side(theirs));
        let mut seen_there: Vec<_> = allowed(side(theirs), side(ours)).into_iter().map(|(a, b)| (b, a)).collect();
        seen_there.sort_unstable();
        let mut seen_here = pairs.clone();
        seen_here.sort_unstable();
        assert_eq!(seen_here, seen_there, "both sides compute the same");
        pairs.len()
    }

    #[test]
    fn the_stricter_side_wins() {
        use Encryption::{Off, Required, Trusted};
        let a = terms(&["10.0.0.1", "2001:db8::1"], &["10.0.0.0/8", "2001:db8::/32"]);
        let b = terms(&["10.0.0.2", "2001:db8::2"], &["10.0.0.0/8", "2001:db8::/32"]);
        assert_eq!(count((Off, &a), (Off, &b)), 2);
        assert_eq!(count((Trusted, &a), (Trusted, &b)), 2);
        for (one, other) in [(Required, Off), (Required, Trusted), (Off, Trusted), (Required, Required)] {
            assert_eq!(count((one, &a), (other, &b)), 0, "{one:?} {other:?}");
        }
    }

    #[test]
    fn trust_is_needed_from_both_sides_and_for_that_very_address() {
        use Encryption::Trusted;
        let a = terms(&["10.0.0.1", "192.0.2.1"], &["10.0.0.0/8"]);
        let b = terms(&["10.0.0.2", "192.0.2.2"], &["10.0.0.0/8"]);
        assert_eq!(count((Trusted, &a), (Trusted, &b)), 1);
        let stranger = terms(&["10.0.0.3"], &["172.16.0.0/12"]);
        assert_eq!(count((Trusted, &a), (Trusted, &stranger)), 0);
    }

    #[test]
    fn ports_and_addresses_have_to_fit() {
        use Encryption::Off;
        let a = terms(&["10.0.0.1"], &[]);
        for odd in
            ["127.0.0.1", "169.254.0.9", "224.0.0.1", "255.255.255.255", "0.0.0.0", "fe80::1", "ff02::1", "10.0.0.1"]
        {
            assert_eq!(count((Off, &a), (Off, &terms(&[odd], &[]))), 0, "{odd}");
        }
        let other_port = ClearTerms { port: 4789, ..terms(&["10.0.0.2"], &[]) };
        assert_eq!(count((Off, &a), (Off, &other_port)), 0);
    }
}
