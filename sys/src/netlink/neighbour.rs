//! Permanent entries of the neighbour tables (ARP and neighbour discovery).

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState};

use super::{Family, Netlink};
use crate::Result;

impl Netlink {
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
}

fn message(index: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = Family::of(address).address_family();
    message.header.ifindex = index;
    message.attributes = vec![NeighbourAttribute::Destination(address.into())];
    message
}
