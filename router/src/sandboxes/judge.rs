//! Which leases outlived their sandbox; no IO and no clock.
//!
//! A lease is freed only where everything agrees: the file of its namespace is not there, or is that of another
//! namespace by now, and the host end of its link is gone, which the kernel takes away with the namespace. A link that
//! stands keeps its lease whatever the file says, so that a daemon that cannot see the files of pods frees none of
//! theirs. A lease without a link of ours needs a namespace that this node has seen.

use std::collections::BTreeMap;
use std::fmt;

use meshwork_ipam::{BootId, Lease};
use meshwork_sys::netns::NetNsId;
use meshwork_wire::record::PodKey;

/// Looks in a row that have to find a sandbox gone: a runtime that replaces the file of a living one, or a link that is
/// being made, is through within the first interval between two.
const LOOKS: u32 = 3;

/// What the path of a lease's namespace leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing, or a file that is no namespace: what remains when a namespace is unmounted.
    Nothing,
    Namespace(NetNsId),
    /// The system would not say.
    Unclear,
}

/// One lease as a look found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) lease: Lease,
    pub(super) found: Found,
    /// Whether the host end of its link stands.
    pub(super) linked: bool,
}

/// Why a sandbox is held to be gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    Rebooted,
    NamespaceGone,
    NamespaceReplaced,
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Rebooted => "it was made before the machine's last boot",
            Self::NamespaceGone => "its network namespace and its link are gone",
            Self::NamespaceReplaced => "another network namespace has its path, and its link is gone",
        })
    }
}

/// Remembers what earlier looks found.
#[derive(Debug)]
pub(super) struct Judge {
    boot: Option<BootId>,
    missing: BTreeMap<PodKey, (Lease, u32)>,
}

impl Judge {
    /// A judge in this boot of the machine; without one no lease is held to be of an earlier boot.
    pub(super) fn new(boot: Option<BootId>) -> Self {
        Self { boot, missing: BTreeMap::new() }
    }

    /// Takes in one look at every lease, and answers those to free.
    pub(super) fn look(&mut self, all: Vec<Seen>) -> Vec<(Lease, Reason)> {
        let mut gone = Vec::new();
        let mut missing = BTreeMap::new();
        for seen in all {
            let Some(reason) = self.doubt(&seen) else { continue };
            let before = self.missing.get(&seen.lease.name).filter(|(lease, _)| *lease == seen.lease);
            let looks = before.map_or(0, |(_, looks)| *looks).saturating_add(1);
            if reason == Reason::Rebooted || looks >= LOOKS {
                gone.push((seen.lease.clone(), reason));
            }
            missing.insert(seen.lease.name.clone(), (seen.lease, looks));
        }
        self.missing = missing;
        gone
    }

    /// Why this sandbox may be gone.
    fn doubt(&self, Seen { lease, found, linked }: &Seen) -> Option<Reason> {
        if lease.is_node() || lease.netns.is_empty() {
            return None;
        }
        let seen_before = lease.origin.namespace;
        if seen_before.is_some_and(|seen| self.boot.is_some_and(|boot| seen.boot != boot)) {
            return Some(Reason::Rebooted);
        }
        if *linked || (lease.origin.address_only && seen_before.is_none()) {
            return None;
        }
        match (found, seen_before) {
            (Found::Nothing, _) => Some(Reason::NamespaceGone),
            (Found::Namespace(now), Some(then)) if (now.dev, now.inode) != (then.device, then.inode) => {
                Some(Reason::NamespaceReplaced)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use meshwork_ipam::{NODE_SANDBOX, Origin, SeenNamespace};
    use meshwork_wire::record::PodRecord;

    use super::*;

    const BOOT: BootId = [1; 16];
    const SAME: Found = Found::Namespace(NetNsId { dev: 4, inode: 17 });
    const OTHER: Found = Found::Namespace(NetNsId { dev: 4, inode: 18 });

    fn lease(sandbox: &str) -> Lease {
        let name = PodKey { sandbox: sandbox.to_owned(), interface: "eth0".to_owned() };
        let pod = PodRecord {
            namespace: String::new(),
            name: String::new(),
            labels: BTreeMap::new(),
            addresses: vec!["10.32.0.5".parse().unwrap()],
        };
        let namespace = Some(SeenNamespace { device: 4, inode: 17, boot: BOOT });
        let origin = Origin { namespace, ..Origin::default() };
        Lease { name, netns: "/run/netns/pod".to_owned(), pod, origin }
    }

    fn unseen(sandbox: &str, address_only: bool) -> Lease {
        Lease { origin: Origin { address_only, ..Origin::default() }, ..lease(sandbox) }
    }

    fn at(lease: &Lease, found: Found, linked: bool) -> Vec<Seen> {
        vec![Seen { lease: lease.clone(), found, linked }]
    }

    /// The reason after as many looks as it takes, all of them alike.
    fn verdict(lease: &Lease, found: Found, linked: bool) -> Option<Reason> {
        let mut judge = Judge::new(Some(BOOT));
        let verdicts: Vec<_> = (0..LOOKS).map(|_| judge.look(at(lease, found, linked))).collect();
        let (last, earlier) = verdicts.split_last().unwrap();
        assert!(earlier.iter().all(Vec::is_empty), "{earlier:?}");
        last.first().map(|(_, reason)| *reason)
    }

    #[test]
    fn a_sandbox_is_gone_when_its_namespace_and_its_link_are() {
        assert_eq!(verdict(&lease("a"), Found::Nothing, false), Some(Reason::NamespaceGone));
        assert_eq!(verdict(&lease("a"), OTHER, false), Some(Reason::NamespaceReplaced));
    }

    #[test]
    fn a_link_or_a_namespace_that_stands_keeps_the_lease() {
        for found in [Found::Nothing, Found::Unclear, SAME, OTHER] {
            assert_eq!(verdict(&lease("a"), found, true), None, "{found:?}");
        }
        assert_eq!(verdict(&lease("a"), SAME, false), None);
        assert_eq!(verdict(&lease("a"), Found::Unclear, false), None);
    }

    #[test]
    fn a_namespace_that_was_never_seen_is_judged_by_path_and_link_alone() {
        assert_eq!(verdict(&unseen("a", false), Found::Nothing, false), Some(Reason::NamespaceGone));
        assert_eq!(verdict(&unseen("a", false), OTHER, false), None);
        assert_eq!(verdict(&unseen("a", true), Found::Nothing, false), None, "nothing else speaks for it");
    }

    #[test]
    fn a_lease_without_a_link_of_ours_goes_with_its_namespace() {
        let mut lease = lease("a");
        lease.origin.address_only = true;
        assert_eq!(verdict(&lease, Found::Nothing, false), Some(Reason::NamespaceGone));
        assert_eq!(verdict(&lease, SAME, false), None);
    }

    #[test]
    fn a_file_that_is_briefly_absent_frees_nothing() {
        let (lease, mut judge) = (lease("a"), Judge::new(Some(BOOT)));
        for _ in 0..3 {
            for _ in 1..LOOKS {
                assert_eq!(judge.look(at(&lease, Found::Nothing, false)), []);
            }
            assert_eq!(judge.look(at(&lease, SAME, false)), []);
        }
        println!("figure: {} looks without the file of a living sandbox, 0 leases freed", 3 * (LOOKS - 1));
    }

    #[test]
    fn a_sandbox_that_was_attached_again_is_judged_anew() {
        let (old, mut judge) = (lease("a"), Judge::new(Some(BOOT)));
        let mut new = old.clone();
        new.origin.namespace = Some(SeenNamespace { device: 4, inode: 18, boot: BOOT });
        for _ in 1..LOOKS {
            judge.look(at(&old, Found::Nothing, false));
        }
        assert_eq!(judge.look(at(&new, Found::Nothing, false)), []);
    }

    #[test]
    fn after_a_boot_every_earlier_sandbox_is_gone_at_once() {
        let mut judge = Judge::new(Some([2; 16]));
        assert_eq!(judge.look(at(&lease("a"), SAME, true)), [(lease("a"), Reason::Rebooted)]);
        assert_eq!(Judge::new(None).look(at(&lease("a"), SAME, true)), [], "a boot without a name proves nothing");
        assert_eq!(judge.look(at(&unseen("a", false), SAME, true)), []);
    }

    #[test]
    fn the_nodes_own_lease_and_those_without_a_path_stay() {
        let pathless = Lease { netns: String::new(), ..lease("a") };
        for lease in [lease(NODE_SANDBOX), pathless] {
            assert_eq!(verdict(&lease, Found::Nothing, false), None);
        }
    }
}
