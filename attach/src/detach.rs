//! Taking links away.

use std::path::PathBuf;

use meshwork_api::client::Client;
use meshwork_api::model::{Done, LeaseName, Leases};
use meshwork_sys::netlink::Netlink;
use meshwork_sys::netns::NetNs;

use crate::error::AttachError;
use crate::link::{is_ours, is_pair};

/// What is to be taken away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachRequest {
    /// Sandbox id, as it was attached.
    pub sandbox: String,
    /// Name of the link inside the pod; nothing means every link of the sandbox.
    pub interface: Option<String>,
    /// File of the pod's network namespace, where it is still known. Only needed where the daemon fails.
    pub netns: Option<PathBuf>,
}

/// Releases leases and removes their links. Succeeds where there is nothing to remove, in a namespace that is gone too.
///
/// # Errors
/// The daemon could not be asked or refused: the link is removed, as far as the namespace is known, and the release has
/// to be asked for again.
pub fn detach(client: &Client, request: &DetachRequest) -> Result<(), AttachError> {
    let name = LeaseName { sandbox: request.sandbox.clone(), interface: request.interface.clone() };
    let Err(error) = client.post::<_, Done>("/v1/pods/release", &name) else { return Ok(()) };
    let cause = AttachError::Client(error);
    match remove_link(request) {
        Ok(()) => Err(cause),
        Err(error) => {
            Err(AttachError::Undone { cause: Box::new(cause), left: vec![format!("the pod's link ({error})")] })
        }
    }
}

/// Releases what a CNI network holds for sandboxes and interfaces that `keeps` does not name, links and all. Leases of
/// other networks, and those that nobody is known to have asked for, stay.
///
/// # Errors
/// [`AttachError::Garbage`] names what could not be released; everything else is released by then.
pub fn collect_garbage(client: &Client, network: &str, keeps: impl Fn(&str, &str) -> bool) -> Result<(), AttachError> {
    let leases = client.get::<Leases>("/v1/pods")?.leases;
    let mut left = Vec::new();
    for lease in leases {
        if lease.network.as_deref() != Some(network) || keeps(&lease.sandbox, &lease.interface) {
            continue;
        }
        let name = LeaseName { sandbox: lease.sandbox, interface: Some(lease.interface.clone()) };
        let released = client.post::<_, Done>("/v1/pods/release", &name);
        left.extend(released.err().map(|error| format!("{} of {} ({error})", lease.interface, name.sandbox)));
    }
    if left.is_empty() { Ok(()) } else { Err(AttachError::Garbage(left)) }
}

/// Removes the link that the pod sees under the given name, if it was made here.
fn remove_link(request: &DetachRequest) -> meshwork_sys::Result<()> {
    let (Some(path), Some(interface)) = (&request.netns, &request.interface) else { return Ok(()) };
    // A namespace that is gone took its links along.
    let Ok(netns) = NetNs::open(path) else { return Ok(()) };
    let mut host = Netlink::connect()?;
    let Some(pod_end) = Netlink::connect_in(&netns)?.link(interface)? else { return Ok(()) };
    let links = host.links()?;
    let host_end = links.iter().find(|link| is_ours(link) && is_pair(link, &pod_end));
    host_end.map_or(Ok(()), |link| host.delete_link(&link.name))
}
