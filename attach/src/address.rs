//! Leasing an address for a link that somebody else makes.

use std::net::IpAddr;

use ipnet::IpNet;
use meshwork_api::client::Client;
use meshwork_api::model::{Ipam, Lease, Status};

use crate::attachment::{AttachRequest, lease_request};
use crate::check::{check_addresses, find_lease};
use crate::error::AttachError;

/// A leased address as the maker of a link needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeasedAddress {
    /// The address within the overlay's range of its family.
    pub net: IpNet,
    /// The node's own address of that family: inside the range, as plugins want their gateway.
    pub gateway: IpAddr,
}

/// Leases addresses and makes no link. What they are linked with has to route single addresses to the pod.
///
/// # Errors
/// Why there is no lease; then nothing is left behind.
pub fn lease_address(client: &Client, request: &AttachRequest) -> Result<Vec<LeasedAddress>, AttachError> {
    let own = client.get::<Status>("/v1/status")?.overlay;
    let ranges = client.get::<Ipam>("/v1/ipam")?.summary.range;
    if own.is_empty() {
        return Err(AttachError::NotReady(
            "this node has no overlay address yet, which is its pods' gateway; try again",
        ));
    }
    let lease: Lease = client.post("/v1/pods", &lease_request(request, true))?;
    Ok(lease.addresses.iter().filter_map(|address| leased(*address, &own, &ranges)).collect())
}

fn leased(address: IpAddr, own: &[IpAddr], ranges: &[IpNet]) -> Option<LeasedAddress> {
    let gateway = *own.iter().find(|own| own.is_ipv4() == address.is_ipv4())?;
    let range = ranges.iter().find(|range| range.contains(&address))?;
    Some(LeasedAddress { net: IpNet::new(address, range.prefix_len()).ok()?, gateway })
}

/// Checks that the addresses told are leased under this name. False where the daemon holds no such lease.
///
/// # Errors
/// [`AttachError::Wrong`] names an address that is not leased; otherwise why it could not be checked.
pub fn check_address(
    client: &Client,
    sandbox: &str,
    interface: &str,
    addresses: &[IpAddr],
) -> Result<bool, AttachError> {
    let Some(lease) = find_lease(client, sandbox, interface)? else { return Ok(false) };
    check_addresses(&lease, addresses)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_comes_with_its_range_and_the_nodes_address_of_its_family() {
        let own = ["10.32.0.1".parse().unwrap(), "fd4d:6573:6877:1::1".parse().unwrap()];
        let ranges = ["10.32.0.0/12".parse().unwrap(), "fd4d:6573:6877::/48".parse().unwrap()];
        let of = |address: &str| leased(address.parse().unwrap(), &own, &ranges);
        let expected = LeasedAddress { net: "10.32.0.5/12".parse().unwrap(), gateway: own[0] };
        assert_eq!(of("10.32.0.5"), Some(expected));
        assert_eq!(of("fd4d:6573:6877:1::5").map(|leased| leased.gateway), Some(own[1]));
        assert_eq!(of("192.0.2.1"), None);
    }
}
