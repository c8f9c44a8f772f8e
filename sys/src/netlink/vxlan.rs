//! VXLAN devices in their static form (RFC 7348 without flooding and learning): the forwarding table says, for each
//! Ethernet address, behind which underlay address it lives. What is not in the table is dropped.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkInfo};

use super::link::{end, with};
use super::{Family, Netlink};
use crate::Result;

/// Settings of a VXLAN device that cannot be changed once it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vxlan {
    /// Network identifier, 24 bits.
    pub vni: u32,
    /// UDP port on both sides.
    pub port: u16,
    /// Family of the underlay: one device speaks one.
    pub underlay: Family,
    /// Remember where Ethernet addresses are seen: off in the static form.
    pub learning: bool,
}

impl Netlink {
    /// Makes a VXLAN device, down. [`crate::Error::is_exists`] if the name, or the pair of identifier and port, is taken.
    pub fn create_vxlan(&mut self, name: &str, vxlan: &Vxlan, mac: [u8; 6], mtu: u32) -> Result<()> {
        let mut data = vec![InfoVxlan::Id(vxlan.vni), InfoVxlan::Port(vxlan.port), InfoVxlan::Learning(vxlan.learning)];
        if vxlan.underlay == Family::V6 {
            // The kernel tells the family by an address: the unspecified one binds to nothing.
            data.push(InfoVxlan::Local6(std::net::Ipv6Addr::UNSPECIFIED));
            // Inner packets carry checksums of their own; without this bulk transfer over IPv6 loses its offload.
            data.push(InfoVxlan::UDPZeroCsumTX(true));
            data.push(InfoVxlan::UDPZeroCsumRX(true));
        }
        let mut attributes = end(name, Some(mtu), Some(mac))?;
        attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Vxlan),
            LinkInfo::Data(InfoData::Vxlan(data)),
        ]));
        let request = RouteNetlinkMessage::NewLink(with(0, attributes));
        self.request(request, NLM_F_CREATE | NLM_F_EXCL, &format!("create VXLAN device {name}"))
    }
}

/// The settings as the kernel tells them of a link.
pub(super) fn read(information: &[LinkInfo]) -> Option<Vxlan> {
    let data = information.iter().find_map(|information| match information {
        LinkInfo::Data(InfoData::Vxlan(data)) => Some(data),
        _ => None,
    })?;
    let mut vxlan = Vxlan { vni: 0, port: 0, underlay: Family::V4, learning: false };
    for attribute in data {
        match attribute {
            InfoVxlan::Id(vni) => vxlan.vni = *vni,
            InfoVxlan::Port(port) => vxlan.port = *port,
            InfoVxlan::Learning(learning) => vxlan.learning = *learning,
            // The transmission of zero checksums is told of IPv6 alone to be on; IPv4 has no such setting.
            InfoVxlan::UDPZeroCsumTX(true) => vxlan.underlay = Family::V6,
            _ => {}
        }
    }
    Some(vxlan)
}
