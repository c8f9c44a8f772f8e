//! Members whose ranges overlap this node's without being the same: both would hand out the same addresses from what each
//! takes for its own.
//!
//! A node that owns nothing yet stays out: it neither seeds nor asks while such a member that owns space can be reached.
//! One that owns space keeps it and says so, and one that is wrong and owns nothing keeps nobody out; what others own outside its range is left out entry by entry (see [`crate::heard`]).

use ipnet::IpNet;
use meshwork_wire::PeerId;
use meshwork_wire::record::Ranges;

use crate::decide::Ipam;

/// A member's range and this node's, of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Misfit {
    peer: PeerId,
    theirs: IpNet,
    ours: IpNet,
}

/// The first of the members whose ranges do not fit.
fn misfit<'a>(ours: Ranges, members: impl IntoIterator<Item = (&'a PeerId, &'a Ranges)>) -> Option<Misfit> {
    let overlaps = |one: IpNet, other: IpNet| one != other && (one.contains(&other) || other.contains(&one));
    members.into_iter().find_map(|(peer, theirs)| {
        let pairs = ours.of_each_family().into_iter().zip(theirs.of_each_family());
        let found = pairs.into_iter().find(|(ours, theirs)| overlaps(*ours, *theirs));
        found.map(|(ours, theirs)| Misfit { peer: *peer, theirs, ours })
    })
}

impl Ipam {
    /// Whether this node has to stay out of the ring.
    pub(crate) fn stays_out(&self) -> bool {
        let owners = self.ranges.iter().filter(|(peer, _)| self.heard.claims_space(**peer));
        self.owned() == 0 && misfit(self.own_ranges(), owners).is_some()
    }

    /// Whether a member is known to share out the same range.
    pub(crate) fn shares_range(&self, peer: PeerId) -> bool {
        self.ranges.get(&peer).is_some_and(|ranges| ranges.v4 == self.config.range4)
    }

    fn misfit(&self) -> Option<Misfit> {
        misfit(self.own_ranges(), &self.ranges)
    }

    fn own_ranges(&self) -> Ranges {
        Ranges { v4: self.config.range4, v6: self.config.range6 }
    }

    pub(crate) fn misfit_reason(&self) -> Option<String> {
        let Misfit { peer, theirs, ours } = self.misfit()?;
        let peer = peer.short();
        Some(format!(
            "the range {ours} of this node overlaps {theirs} of {peer} and is not the same: start one of them with the \
             --ipam-range of the other, or with one apart from it"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(v4: &str, v6: &str) -> Ranges {
        Ranges { v4: v4.parse().expect("a range"), v6: v6.parse().expect("a range") }
    }

    #[test]
    fn same_and_separate_ranges_fit_and_others_do_not() {
        let ours = ranges("10.32.0.0/12", "fd4d:6573:6877::/48");
        let judge =
            |theirs: Ranges| misfit(ours, [(&PeerId([1; 16]), &theirs)]).map(|misfit| misfit.theirs.to_string());
        assert_eq!(judge(ours), None);
        assert_eq!(judge(ranges("10.48.0.0/12", "fd4d:6573:6878::/48")), None);
        assert_eq!(judge(ranges("10.32.0.0/16", "fd4d:6573:6877::/48")).as_deref(), Some("10.32.0.0/16"));
        assert_eq!(judge(ranges("10.0.0.0/8", "fd4d:6573:6878::/48")).as_deref(), Some("10.0.0.0/8"));
        assert_eq!(judge(ranges("10.48.0.0/12", "fd4d:6573::/32")).as_deref(), Some("fd4d:6573::/32"));
    }
}
