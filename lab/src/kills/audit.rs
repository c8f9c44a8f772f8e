//! Compares the ledger with what the kernel and the API tell.
//!
//! What a living pod was promised has to be there at every look, whether a daemon runs or not: nothing is waited for. That
//! nothing else is there, and that others reach it, is asked while all rests and the mesh has formed again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use meshwork_api::client::ClientError;
use meshwork_api::model::{Ipam, Lease, Leases, Status};

use crate::error::{Error, Result};
use crate::faults::WHOLE_DEADLINE;
use crate::host::Host;
use crate::kills::held::{Ends, Held, PodEnd};
use crate::kills::ledger::{Ledger, Living, Pods};
use crate::kills::{KILLED, Turns, WITNESS};
use crate::lab::Lab;
use crate::namespace::Namespace;
use crate::pod::Pod;
use crate::wait::{Look, eventually};

/// Between two looks: each starts a program per pod, and two cores have more to do.
const EVERY: Duration = Duration::from_millis(200);

/// Knows what both hosts held before there were pods.
#[derive(Debug)]
pub(super) struct Auditor<'a> {
    lab: &'a Lab,
    ledger: &'a Ledger,
    witness: Pod,
    overlay: Vec<IpAddr>,
    rest: BTreeSet<String>,
    with_witness: Held,
}

impl<'a> Auditor<'a> {
    /// Begins with a mesh that is whole and has no pods.
    pub(super) fn new(lab: &'a Lab, ledger: &'a Ledger) -> Result<Self> {
        let witness = lab.host(WITNESS).pod("witness")?;
        let overlay = lab.host(KILLED).get::<Status>("/v1/status")?.overlay;
        let (rest, with_witness) = (Held::by(lab.host(KILLED))?.rest, Held::by(lab.host(WITNESS))?);
        Ok(Self { lab, ledger, witness, overlay, rest, with_witness })
    }

    /// Looks after the living until it is over.
    pub(super) fn watch(&self, turns: &Turns) -> Result<()> {
        while !turns.are_over() {
            self.look_after_the_living()?;
            self.ledger.audited();
            thread::sleep(EVERY);
        }
        Ok(())
    }

    /// Proves that who lives all through this look has what it was promised.
    pub(super) fn look_after_the_living(&self) -> Result<()> {
        let before = self.ledger.living();
        let host = self.lab.host(KILLED);
        // A pod that leaves meanwhile takes its namespace along.
        let ends = before.iter().map(|(id, pod)| (id.clone(), end_of(pod)));
        let ends: BTreeMap<String, Result<PodEnd>> = ends.collect();
        let held = Held::by(host)?;
        let leases = leases_if_told(host)?;
        let after = self.ledger.living();
        for (id, end) in ends {
            let Some(pod) = after.get(&id) else { continue };
            let broken = broken(pod, &end?, &held).or_else(|| leases.as_deref().and_then(|all| unleased(pod, all)));
            if let Some(broken) = broken {
                return Err(Error::Unproven(format!("{id} lives with {:?}, but {broken}", pod.addresses)));
            }
        }
        Ok(())
    }

    /// Waits until the mesh has formed, and proves that all that was answered is true and nothing else is there.
    pub(super) fn compare_whole(&self) -> Result<()> {
        self.look_after_the_living()?;
        self.lab.wait_until_ready(WHOLE_DEADLINE)?;
        eventually(WHOLE_DEADLINE, "every answer true and nothing else there", || {
            self.lab.hosts().iter().try_for_each(Host::check_daemon)?;
            Ok(self.wrong(&self.ledger.living())?.map_or(Look::Done(()), Look::Missing))
        })
    }

    /// The first thing that is missing or too much.
    fn wrong(&self, pods: &Pods) -> Result<Option<String>> {
        let host = self.lab.host(KILLED);
        let held = Held::by(host)?;
        let mut expected = Ends::new();
        for pod in pods.values() {
            let link = held.links.get(&end_of(pod)?.link_index).cloned().unwrap_or_default();
            expected.extend(pod.addresses.iter().map(|address| (link.clone(), *address)));
        }
        let links = held.links.len();
        Ok((links != pods.len())
            .then(|| format!("{links} links of {} pods", pods.len()))
            .or_else(|| differ("routes", &held.routes, &expected))
            .or_else(|| differ("sources", &held.sources, &expected))
            .or_else(|| differ("other routes, nexthops and rules", &held.rest, &self.rest))
            .or(self.wrong_in_api(host, pods)?)
            .or(self.wrong_at_witness()?)
            .or(self.silent(pods)?))
    }

    fn wrong_in_api(&self, host: &Host, pods: &Pods) -> Result<Option<String>> {
        let status: Status = host.get("/v1/status")?;
        let ipam: Ipam = host.get("/v1/ipam")?;
        let leases = host.get::<Leases>("/v1/pods")?.leases;
        let leased: BTreeSet<String> = leases.iter().map(|lease| lease.sandbox.clone()).collect();
        let unrouted = leases.iter().find(|lease| !lease.routed);
        let allocated = ipam.summary.allocated;
        Ok(differ("leases", &leased, &pods.keys().cloned().collect())
            .or_else(|| pods.values().find_map(|pod| unleased(pod, &leases)))
            .or_else(|| unrouted.map(|lease| format!("the lease of {} is not routed", lease.sandbox)))
            .or_else(|| {
                // The node has one itself.
                (allocated != pods.len() as u64 + 1).then(|| format!("{allocated} addresses of {} pods", pods.len()))
            })
            .or_else(|| (status.overlay != self.overlay).then(|| format!("the node has {:?}", status.overlay))))
    }

    /// Nothing of the other host is touched, and nobody has its addresses.
    fn wrong_at_witness(&self) -> Result<Option<String>> {
        let host = self.lab.host(WITNESS);
        let (held, expected) = (Held::by(host)?, &self.with_witness);
        let routes = differ("routes of the other host", &held.routes, &expected.routes);
        let rest = differ("rules of the other host", &held.rest, &expected.rest);
        let mut taken = host.get::<Status>("/v1/status")?.overlay;
        taken.extend(self.overlay.iter().chain(self.witness.addresses()));
        let living = self.ledger.living();
        let twice = living.values().find(|pod| pod.addresses.iter().any(|address| taken.contains(address)));
        Ok(routes.or(rest).or_else(|| twice.map(|pod| format!("{} has an address of another", pod.sandbox.id))))
    }

    fn silent(&self, pods: &Pods) -> Result<Option<String>> {
        for pod in pods.values() {
            for &address in &pod.addresses {
                if self.witness.ping(address)?.received == 0 {
                    return Ok(Some(format!("an answer of {} ({address})", pod.sandbox.id)));
                }
            }
        }
        Ok(None)
    }
}

fn end_of(pod: &Living) -> Result<PodEnd> {
    let name = pod.sandbox.netns.file_name().unwrap_or_default().to_string_lossy().into_owned();
    PodEnd::within(&Namespace::existing(name))
}

/// What the kernel lacks of a pod.
fn broken(pod: &Living, end: &PodEnd, held: &Held) -> Option<String> {
    let own = end.addresses();
    if own != pod.addresses.iter().copied().collect() {
        return Some(format!("its link has {own:?}"));
    }
    let Some(link) = held.links.get(&end.link_index) else { return Some("its link has no host end".into()) };
    let ends: Vec<_> = pod.addresses.iter().map(|address| (link.clone(), *address)).collect();
    let lacks = |of: &Ends| ends.iter().any(|end| !of.contains(end));
    let routes = lacks(&held.routes).then(|| format!("routes are {:?}", held.routes));
    routes.or_else(|| lacks(&held.sources).then(|| format!("the firewall knows {:?}", held.sources)))
}

fn unleased(pod: &Living, leases: &[Lease]) -> Option<String> {
    let lease = leases.iter().find(|lease| lease.sandbox == pod.sandbox.id);
    match lease {
        Some(lease) if lease.addresses == pod.addresses => None,
        Some(lease) => Some(format!("its lease has {:?}", lease.addresses)),
        None => Some(format!("{} has no lease", pod.sandbox.id)),
    }
}

/// Leases, unless there is no daemon that tells them.
fn leases_if_told(host: &Host) -> Result<Option<Vec<Lease>>> {
    match host.get::<Leases>("/v1/pods") {
        Ok(leases) => Ok(Some(leases.leases)),
        Err(Error::Api { source: ClientError::Unreachable { .. } | ClientError::Protocol { .. }, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn differ<T: Ord + std::fmt::Debug>(what: &str, present: &BTreeSet<T>, expected: &BTreeSet<T>) -> Option<String> {
    let (more, less): (Vec<_>, Vec<_>) =
        (present.difference(expected).collect(), expected.difference(present).collect());
    (present != expected).then(|| format!("{what}: {more:?} too much, {less:?} missing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_both_sides() {
        let [one, other] = [[1, 2], [2, 3]].map(BTreeSet::from);
        assert_eq!(differ("numbers", &one, &other).unwrap(), "numbers: [1] too much, [3] missing");
        assert_eq!(differ("numbers", &one, &one), None);
    }
}
