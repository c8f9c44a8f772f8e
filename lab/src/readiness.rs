//! When hosts are one mesh: asked of their own control API, with an answer to "what is missing".
//!
//! Part of it is that all agree on who owns which addresses: until then a packet from a part that was just given away
//! has a foreign source for whoever does not know it yet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipnet::IpNet;
use meshwork_api::model::{Ipam, Paths, PeerState, Peers, Status};

use crate::error::{Error, Result};
use crate::host::Host;
use crate::wait::{Look, eventually};

/// Up to this many members daemons open their sessions before traffic asks for them.
const EAGER_MEMBERS: usize = 32;

/// Waits until every host's daemon is ready, sees all others as alive and has a path up to each of them, as far as
/// daemons open paths unasked.
pub(crate) fn wait(hosts: &[Host], deadline: Duration) -> Result<()> {
    let what = format!("a mesh of {} hosts", hosts.len());
    let waited = eventually(deadline, &what, || {
        for host in hosts {
            host.check_daemon()?;
            if let Some(missing) = missing_on(host, hosts.len() - 1) {
                return Ok(Look::Missing(format!("{}: {missing}", host.number())));
            }
        }
        disagreement(hosts)
    });
    waited.map_err(|error| with_logs(error, hosts))
}

/// Whether all hosts see the same owners of the same parts.
fn disagreement(hosts: &[Host]) -> Result<Look<()>> {
    let mut first: Option<(&Host, Owners)> = None;
    for host in hosts {
        let seen = owners(host)?;
        match &first {
            Some((other, expected)) if *expected != seen => {
                return Ok(Look::Missing(format!(
                    "{}: it sees other owners of addresses than {}",
                    host.number(),
                    other.number()
                )));
            }
            Some(_) => {}
            None => first = Some((host, seen)),
        }
    }
    Ok(Look::Done(()))
}

type Owners = BTreeMap<String, BTreeSet<IpNet>>;

fn owners(host: &Host) -> Result<Owners> {
    let ipam: Ipam = host.get("/v1/ipam")?;
    Ok(ipam.peers.into_iter().map(|peer| (peer.id.to_string(), peer.parts.into_iter().collect())).collect())
}

/// What one host still lacks to be part of a mesh with `others` other hosts.
fn missing_on(host: &Host, others: usize) -> Option<String> {
    look(host, others).unwrap_or_else(|error| Some(error.to_string()))
}

fn look(host: &Host, others: usize) -> Result<Option<String>> {
    let status: Status = host.get("/v1/status")?;
    if !status.ready {
        return Ok(Some(format!("not ready: {}", status.reasons.join(", "))));
    }
    let peers: Peers = host.get("/v1/peers")?;
    let alive = peers.peers.iter().filter(|peer| !peer.is_self && peer.state == PeerState::Alive).count();
    if alive < others {
        return Ok(Some(format!("{alive} of {others} peers are alive")));
    }
    if others >= EAGER_MEMBERS {
        return Ok(None);
    }
    let paths: Paths = host.get("/v1/paths")?;
    let up = paths.paths.iter().filter(|path| path.up).count();
    if up < others {
        let down =
            paths.paths.iter().filter(|path| !path.up).map(|path| format!("{} ({})", path.nickname, path.reason));
        return Ok(Some(format!("{up} of {others} paths are up; down: {}", down.collect::<Vec<_>>().join(", "))));
    }
    Ok(None)
}

/// A deadline that passed says little without the log of the host that was missing something.
fn with_logs(error: Error, hosts: &[Host]) -> Error {
    let Error::TimedOut { what, deadline, missing } = error else { return error };
    let host = hosts.iter().find(|host| missing.starts_with(&format!("{}:", host.number())));
    let log = host.map(|host| format!("; its log ends with:\n{}", host.log_tail())).unwrap_or_default();
    Error::TimedOut { what, deadline, missing: missing + &log }
}
