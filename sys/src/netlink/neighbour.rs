//! Permanent entries of the neighbour tables (ARP and neighbour discovery), and of the forwarding tables of VXLAN
//! devices, which the kernel keeps behind the same messages.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Family, Netlink};
use crate::Result;

/// A fixed answer to the question which Ethernet address an IP address has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Neighbour {
    /// Who is asked for.
    pub address: IpAddr,
    /// Its Ethernet address.
    pub mac: [u8; 6],
}

/// An entry of a VXLAN device's forwarding table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Forwarding {
    /// Ethernet address of the device at the other side.
    pub mac: [u8; 6],
    /// The underlay address that it lives behind.
    pub remote: IpAddr,
}

impl Netlink {
    /// Permanent neighbours of an interface, in both families.
    pub fn neighbours(&mut self, index: u32) -> Result<Vec<Neighbour>> {
        let all = self.all_neighbours()?.into_iter();
        Ok(all.filter(|(of, _)| *of == index).map(|(_, neighbour)| neighbour).collect())
    }

    /// Permanent neighbours of all interfaces, by their indices, in both families.
    pub fn all_neighbours(&mut self) -> Result<Vec<(u32, Neighbour)>> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = NeighbourMessage::default();
            request.header.family = family;
            let listed = self.entries(request, NeighbourFlags::empty(), "list neighbours")?;
            let permanent = listed.iter().filter(|entry| entry.header.state == NeighbourState::Permanent);
            found.extend(permanent.filter_map(|entry| Some((entry.header.ifindex, read(entry)?))));
        }
        Ok(found)
    }

    /// Fixes the Ethernet address of a neighbour, so that it is never asked for and never expires.
    pub fn replace_neighbour(&mut self, index: u32, address: IpAddr, mac: [u8; 6]) -> Result<()> {
        let mut message = message(index, address);
        message.header.state = NeighbourState::Permanent;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        let operation = format!("set neighbour {address} on interface {index}");
        self.request(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE, &operation)
    }

    /// Forgets a neighbour; one that is absent is fine.
    pub fn delete_neighbour(&mut self, index: u32, address: IpAddr) -> Result<()> {
        let request = RouteNetlinkMessage::DelNeighbour(message(index, address));
        match self.request(request, 0, &format!("delete neighbour {address} from interface {index}")) {
            Err(error) if error.is_not_found() => Ok(()),
            outcome => outcome,
        }
    }

    /// The forwarding table of a VXLAN device.
    pub fn forwardings(&mut self, index: u32) -> Result<Vec<Forwarding>> {
        let mut request = NeighbourMessage::default();
        (request.header.family, request.header.ifindex) = (AddressFamily::Bridge, index);
        let listed = self.entries(request, NeighbourFlags::Own, "list a forwarding table")?;
        Ok(listed
            .iter()
            .filter(|entry| entry.header.ifindex == index)
            .filter_map(|entry| Some(Forwarding { mac: mac(entry)?, remote: destination(entry)? }))
            .collect())
    }

    /// Adds an entry to the forwarding table of a VXLAN device, or changes where its Ethernet address lives.
    pub fn replace_forwarding(&mut self, index: u32, forwarding: &Forwarding) -> Result<()> {
        let operation = format!("forward to {} from interface {index}", forwarding.remote);
        let request = RouteNetlinkMessage::NewNeighbour(entry(index, forwarding));
        self.request(request, NLM_F_CREATE | NLM_F_REPLACE, &operation)
    }

    /// Takes an entry out of the forwarding table of a VXLAN device; one that is absent is fine.
    pub fn delete_forwarding(&mut self, index: u32, forwarding: &Forwarding) -> Result<()> {
        let operation = format!("stop forwarding to {} from interface {index}", forwarding.remote);
        match self.request(RouteNetlinkMessage::DelNeighbour(entry(index, forwarding)), 0, &operation) {
            Err(error) if error.is_not_found() => Ok(()),
            outcome => outcome,
        }
    }

    /// Filtered here as well: kernels differ in which filters of a listing they obey.
    fn entries(
        &mut self,
        request: NeighbourMessage,
        flags: NeighbourFlags,
        operation: &str,
    ) -> Result<Vec<NeighbourMessage>> {
        let answers = self.list(RouteNetlinkMessage::GetNeighbour(request), operation)?;
        let entry = |answer: RouteNetlinkMessage| match answer {
            RouteNetlinkMessage::NewNeighbour(entry) if entry.header.flags.contains(flags) => Some(entry),
            _ => None,
        };
        Ok(answers.into_iter().filter_map(entry).collect())
    }
}

fn message(index: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = Family::of(address).address_family();
    message.header.ifindex = index;
    message.attributes = vec![NeighbourAttribute::Destination(address.into())];
    message
}

fn entry(index: u32, forwarding: &Forwarding) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Own;
    message.attributes = vec![
        NeighbourAttribute::LinkLayerAddress(forwarding.mac.to_vec()),
        NeighbourAttribute::Destination(forwarding.remote.into()),
    ];
    message
}

pub(super) fn read(entry: &NeighbourMessage) -> Option<Neighbour> {
    Some(Neighbour { address: destination(entry)?, mac: mac(entry)? })
}

fn mac(entry: &NeighbourMessage) -> Option<[u8; 6]> {
    entry.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok(),
        _ => None,
    })
}

/// In forwarding tables the family of the destination is told by its length alone.
fn destination(entry: &NeighbourMessage) -> Option<IpAddr> {
    entry.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some((*address).into()),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some((*address).into()),
        NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
            let v4 = <[u8; 4]>::try_from(bytes.as_slice()).map(IpAddr::from);
            v4.or_else(|_| <[u8; 16]>::try_from(bytes.as_slice()).map(IpAddr::from)).ok()
        }
        _ => None,
    })
}
