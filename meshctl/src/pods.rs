//! `meshctl attach` and `detach`: network namespaces that no container runtime looks after.

use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};

use anyhow::Context as _;
use meshwork_api::client::Client;
use meshwork_api::model::{Lease, Leases, PodIdentity};
use meshwork_attach::{AttachRequest, DetachRequest, SANDBOX_PREFIX, attach, detach, sandbox_of};
use serde::Serialize;

use crate::cli::AttachArgs;
use crate::units::plain;

/// Where `ip netns` keeps names.
const NAMED: &str = "/run/netns";

/// Addresses that a namespace lost.
#[derive(Debug, Serialize)]
pub(crate) struct Detached {
    pub(crate) addresses: Vec<IpAddr>,
}

/// Links a namespace and answers its lease.
pub(crate) fn link(client: &Client, arguments: &AttachArgs) -> anyhow::Result<Lease> {
    let netns = path_of(&arguments.netns);
    let request = AttachRequest {
        sandbox: sandbox_of(&netns)?,
        interface: arguments.interface.clone(),
        pod: PodIdentity {
            namespace: arguments.namespace.clone(),
            name: arguments.pod.clone(),
            labels: arguments.labels.iter().cloned().collect(),
        },
        netns,
        mtu: None,
        address: arguments.ip,
        routes: Vec::new(),
        network: None,
        masquerade: true,
    };
    let attachment = attach(client, &request).context("the namespace was not attached")?;
    for remark in &attachment.remarks {
        eprintln!("meshctl: {remark}");
    }
    Ok(Lease { addresses: attachment.addresses, ..attachment.lease })
}

/// Takes away what [`link`] made, even where the namespace is gone already; links of container runtimes stay.
pub(crate) fn unlink(client: &Client, netns: &Path, interface: Option<&str>) -> anyhow::Result<Detached> {
    let netns = path_of(netns);
    let living = sandbox_of(&netns);
    let leases = client.get::<Leases>("/v1/pods")?.leases;
    let mut addresses = Vec::new();
    for lease in leases {
        let wanted = interface.is_none_or(|interface| interface == lease.interface);
        if !wanted || !is_here(&lease, &netns, living.as_deref().ok()) {
            continue;
        }
        let request =
            DetachRequest { sandbox: lease.sandbox, interface: Some(lease.interface), netns: Some(netns.clone()) };
        detach(client, &request).context("the namespace was not detached")?;
        addresses.extend(lease.addresses);
    }
    if let (Err(gone), true) = (living, addresses.is_empty()) {
        eprintln!("meshctl: {}; nothing is attached to it", plain(&gone.to_string()));
    }
    Ok(Detached { addresses })
}

/// Whether a lease was made by hand for this namespace. One that is gone is known by its path alone.
fn is_here(lease: &Lease, netns: &Path, living: Option<&str>) -> bool {
    let by_hand = lease.sandbox.starts_with(SANDBOX_PREFIX);
    by_hand && living.map_or(Path::new(&lease.netns) == netns, |sandbox| sandbox == lease.sandbox)
}

/// A bare word is a name of `ip netns`.
fn path_of(netns: &Path) -> PathBuf {
    let mut components = netns.components();
    match (components.next(), components.next()) {
        (Some(Component::Normal(name)), None) => Path::new(NAMED).join(name),
        _ => netns.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::samples;

    #[test]
    fn a_bare_word_names_a_namespace_and_anything_else_is_a_path() {
        assert_eq!(path_of(Path::new("web")), Path::new("/run/netns/web"));
        for path in ["/proc/1/ns/net", "./web", "a/web"] {
            assert_eq!(path_of(Path::new(path)), Path::new(path));
        }
    }

    #[test]
    fn only_leases_made_by_hand_for_this_namespace_are_taken_away() {
        let netns = Path::new("/run/netns/web");
        let of_runtime = samples::lease();
        let by_hand = Lease { sandbox: "netns-4-17".to_owned(), ..of_runtime.clone() };
        assert!(!is_here(&of_runtime, netns, None));
        assert!(is_here(&by_hand, netns, None) && is_here(&by_hand, Path::new("/proc/7/ns/net"), Some("netns-4-17")));
        assert!(!is_here(&by_hand, netns, Some("netns-4-18")), "the name belongs to another namespace by now");
    }
}
