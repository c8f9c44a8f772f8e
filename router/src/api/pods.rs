//! Leases of pods: asked for, confirmed once the link is made, released.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use meshwork_api::model::{Done, Lease, LeaseName, LeaseRequest};
use meshwork_ipam as ipam;
use std::net::IpAddr;

use super::Services;
use super::errors::ApiError;
use super::routes::{Body, read};
use crate::sandboxes;

/// How long a lease may be waited for: well under the patience of kubelet and of our own clients, which shall hear why.
const LEASE_DEADLINE: Duration = Duration::from_secs(10);

/// Longest text of a request's fields: container ids, paths and Kubernetes names are far shorter.
const LONGEST_FIELD: usize = 512;

/// Sandbox and interface together: they are the key of the pod's entry, with two lengths and the frame's format.
const LONGEST_NAME: usize = meshwork_gossip::limits::MAX_KEY - 8;

/// All of a request's texts together, so that the pod's entry fits into gossip with room for addresses and lengths.
const LONGEST_POD: usize = meshwork_gossip::limits::MAX_VALUE - 1024;

pub(super) async fn lease(State(services): State<Services>, body: Body<LeaseRequest>) -> Result<Json<Lease>, ApiError> {
    let Json(request) = read(body)?;
    check(&request)?;
    let mtu = request.mtu;
    let lease = services.allocator.lease(into_ipam(request).await?, LEASE_DEADLINE).await?;
    let mut lease = services.node.ask(move |node| node.lease_model(&lease)).await?;
    lease.mtu = mtu.map_or(lease.mtu, |wished| wished.min(lease.mtu));
    Ok(Json(lease))
}

pub(super) async fn confirm(State(services): State<Services>, body: Body<LeaseName>) -> Result<Json<Lease>, ApiError> {
    let Json(LeaseName { sandbox, interface }) = read(body)?;
    let Some(interface) = interface else {
        return Err(ApiError::bad_request("a lease is confirmed for one interface", "name it in `interface`"));
    };
    let unknown = || ApiError::not_found("unknown_lease", "there is no such lease", "ask for it with POST /v1/pods");
    let lease = services.node.ask(move |node| node.find_lease(&sandbox, &interface)).await?.ok_or_else(unknown)?;
    if lease.address_only {
        let message = "the lease was asked for as an address alone, whose link somebody else makes";
        return Err(ApiError::bad_request(message, "ask for it again without `address_only`"));
    }
    let link = lease.host_interface.clone();
    let routed = services.node.ask(move |node| node.confirm(&link)).await?;
    if let Err(error) = routed.await {
        let link = lease.host_interface.clone();
        services.node.ask(move |node| node.unconfirm(&link)).await?;
        return Err(error.into());
    }
    services.node.ask(|node| node.routed()).await?;
    Ok(Json(Lease { routed: true, ..lease }))
}

pub(super) async fn release(State(services): State<Services>, body: Body<LeaseName>) -> Result<Json<Done>, ApiError> {
    let Json(LeaseName { sandbox, interface }) = read(body)?;
    // The link goes before the address is free, so that nobody gets an address that a pod still answers for.
    let (of_sandbox, of_interface) = (sandbox.clone(), interface.clone());
    let links = services.node.ask(move |node| node.retire(&of_sandbox, of_interface.as_deref())).await?;
    for link in &links {
        services.kernel.remove_link(link.clone()).await?;
    }
    services.allocator.release(sandbox, interface).await?;
    // A confirmation may have come in between; a later lease of the same name must not begin as routed.
    services.node.ask(move |node| links.iter().for_each(|link| node.unconfirm(link))).await?;
    Ok(Json(Done {}))
}

/// Whether a request may be carried out.
pub(super) fn check(request: &LeaseRequest) -> Result<(), ApiError> {
    let LeaseRequest { sandbox, interface, netns, pod, network, .. } = request;
    let labels = pod.labels.iter().flat_map(|(key, value)| [key, value]);
    let texts = [sandbox, interface, netns, &pod.namespace, &pod.name].into_iter().chain(network).chain(labels);
    let (mut longest, mut all) = (0, 0);
    // Each text travels with its length.
    texts.for_each(|text| (longest, all) = (longest.max(text.len()), all + text.len() + 2));
    if sandbox.is_empty() || interface.is_empty() || sandbox == ipam::NODE_SANDBOX {
        return Err(ApiError::bad_request(
            "`sandbox` and `interface` name the lease",
            "give both; \"node\" is the node's own",
        ));
    }
    if longest > LONGEST_FIELD || sandbox.len() + interface.len() > LONGEST_NAME || all > LONGEST_POD {
        let message = format!(
            "a field has at most {LONGEST_FIELD} bytes, sandbox and interface together {LONGEST_NAME}, and all of a pod's {LONGEST_POD}"
        );
        return Err(ApiError::bad_request(message, "shorten it"));
    }
    Ok(())
}

async fn into_ipam(request: LeaseRequest) -> Result<ipam::LeaseRequest, ApiError> {
    let LeaseRequest { sandbox, interface, netns, pod, address, network, address_only, masquerade, .. } = request;
    let wished = match address {
        None => None,
        Some(IpAddr::V4(address)) => Some(address),
        Some(IpAddr::V6(_)) => {
            return Err(ApiError::bad_request("only an IPv4 address can be wished", "IPv6 follows from the node"));
        }
    };
    let seen = sandboxes::see(netns.clone()).await;
    let origin = ipam::Origin { network, namespace: seen, address_only, unmasqueraded: !masquerade };
    let (namespace, pod, labels) = (pod.namespace, pod.name, pod.labels);
    Ok(ipam::LeaseRequest { sandbox, interface, netns, namespace, pod, labels, wished, origin })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use meshwork_api::model::PodIdentity;
    use meshwork_gossip::limits::{MAX_KEY, MAX_VALUE};
    use meshwork_wire::frame;
    use meshwork_wire::record::{PodKey, PodRecord};

    use super::*;

    fn request(sandbox: usize, labels: usize) -> LeaseRequest {
        let label = |number| (format!("{number:0>253}"), "v".repeat(63));
        LeaseRequest {
            sandbox: "s".repeat(sandbox),
            interface: "eth0".to_owned(),
            netns: String::new(),
            pod: PodIdentity {
                namespace: "n".repeat(63),
                name: "p".repeat(253),
                labels: (0..labels).map(label).collect::<BTreeMap<_, _>>(),
            },
            address: None,
            mtu: None,
            network: None,
            address_only: false,
            masquerade: true,
        }
    }

    #[test]
    fn whatever_is_taken_fits_into_gossip() {
        let most = (0..).take_while(|labels| check(&request(64, *labels)).is_ok()).last().expect("some labels");
        assert!(most >= 40, "{most}");
        let LeaseRequest { interface, pod, .. } = request(64, most);
        let addresses = vec![IpAddr::from([0xff; 16]), IpAddr::from([0xff; 4])];
        let (namespace, name, labels) = (pod.namespace, pod.name, pod.labels);
        let record = frame::encode(&PodRecord { namespace, name, labels, addresses });
        assert!(record.len() <= MAX_VALUE, "{}", record.len());
        let sandbox = "s".repeat(LONGEST_NAME - interface.len());
        assert!(check(&request(sandbox.len(), 0)).is_ok() && check(&request(sandbox.len() + 1, 0)).is_err());
        assert!(frame::encode(&PodKey { sandbox, interface }).len() <= MAX_KEY);
    }

    #[test]
    fn a_lease_without_a_name_and_the_nodes_own_are_refused() {
        assert!(check(&request(0, 0)).is_err());
        assert!(check(&LeaseRequest { sandbox: ipam::NODE_SANDBOX.to_owned(), ..request(1, 0) }).is_err());
    }
}
