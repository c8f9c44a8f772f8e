//! Network interfaces.

use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage,
};

use super::Netlink;
use super::vxlan::{self, Vxlan};
use crate::netns::NetNs;
use crate::{Error, Result};

/// The kernel's limit on interface names (`IFNAMSIZ`), with the terminating zero.
const NAME_LIMIT: usize = 16;

/// An interface as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number in this namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What made it: `veth`, `tun`, `vxlan`, …; `None` for hardware and the loopback.
    pub kind: Option<String>,
    /// Set up by the administrator.
    pub up: bool,
    /// Up and with carrier.
    pub running: bool,
    /// Largest packet, in bytes.
    pub mtu: u32,
    /// Its Ethernet address; `None` for links without one, such as a TUN.
    pub mac: Option<[u8; 6]>,
    /// The interface it hangs on: the peer of a veth (a number in the peer's namespace), the underlay of a tunnel.
    pub parent: Option<u32>,
    /// Packets that fit its transmit queue.
    pub queue_length: u32,
    /// Settings of a VXLAN device.
    pub vxlan: Option<Vxlan>,
    /// Bytes that went out and came in by it.
    pub traffic: Traffic,
}

/// Bytes that passed an interface since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Sent.
    pub sent_bytes: u64,
    /// Received.
    pub received_bytes: u64,
}

/// A pair of virtual Ethernet interfaces to be made. Both ends start down.
#[derive(Debug)]
pub struct Veth<'a> {
    /// The end in the namespace of the socket.
    pub name: &'a str,
    /// Its MTU, or the kernel's choice.
    pub mtu: Option<u32>,
    /// Its Ethernet address, or a random one.
    pub mac: Option<[u8; 6]>,
    /// The other end.
    pub peer_name: &'a str,
    /// Where the other end comes to be; `None` for the same namespace.
    pub peer_netns: Option<&'a NetNs>,
    /// The other end's MTU, or the kernel's choice.
    pub peer_mtu: Option<u32>,
    /// The other end's Ethernet address, or a random one.
    pub peer_mac: Option<[u8; 6]>,
}

impl<'a> Veth<'a> {
    /// A pair in this namespace with the kernel's defaults.
    pub fn new(name: &'a str, peer_name: &'a str) -> Self {
        Self { name, mtu: None, mac: None, peer_name, peer_netns: None, peer_mtu: None, peer_mac: None }
    }
}

impl Netlink {
    /// All interfaces of the namespace.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let answers = self.list(RouteNetlinkMessage::GetLink(LinkMessage::default()), "list interfaces")?;
        Ok(answers.iter().filter_map(read).collect())
    }

    /// The interface with this name.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>> {
        let request = RouteNetlinkMessage::GetLink(with(0, vec![LinkAttribute::IfName(checked(name)?)]));
        match self.query(request, 0, &format!("look up interface {name}")) {
            Ok(answers) => Ok(answers.iter().find_map(read)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a pair of interfaces. [`Error::is_exists`] if there is one of the names already, in either namespace.
    pub fn create_veth(&mut self, veth: &Veth<'_>) -> Result<()> {
        let mut peer = end(veth.peer_name, veth.peer_mtu, veth.peer_mac)?;
        peer.extend(veth.peer_netns.map(|netns| LinkAttribute::NetNsFd(netns.as_fd().as_raw_fd())));
        let mut attributes = end(veth.name, veth.mtu, veth.mac)?;
        attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(with(0, peer)))),
        ]));
        let request = RouteNetlinkMessage::NewLink(with(0, attributes));
        let operation = format!("create veth pair {} and {}", veth.name, veth.peer_name);
        self.request(request, NLM_F_CREATE | NLM_F_EXCL, &operation)
    }

    /// Deletes an interface, and the peer of a veth with it; one that is absent is fine.
    pub fn delete_link(&mut self, name: &str) -> Result<()> {
        let request = RouteNetlinkMessage::DelLink(with(0, vec![LinkAttribute::IfName(checked(name)?)]));
        match self.request(request, 0, &format!("delete interface {name}")) {
            Err(error) if error.is_not_found() => Ok(()),
            outcome => outcome,
        }
    }

    /// Sets an interface up.
    pub fn set_up(&mut self, index: u32) -> Result<()> {
        self.set_flags(index, LinkFlags::Up, "up")
    }

    /// Sets an interface down. The kernel drops its routes and IPv6 addresses.
    pub fn set_down(&mut self, index: u32) -> Result<()> {
        self.set_flags(index, LinkFlags::empty(), "down")
    }

    /// Sets the largest packet, in bytes.
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<()> {
        self.set(index, vec![LinkAttribute::Mtu(mtu)], &format!("set the MTU of interface {index} to {mtu}"))
    }

    /// Gives an interface another Ethernet address.
    pub fn set_mac(&mut self, index: u32, mac: [u8; 6]) -> Result<()> {
        let attributes = vec![LinkAttribute::Address(mac.to_vec())];
        self.set(index, attributes, &format!("set the Ethernet address of interface {index}"))
    }

    /// Gives an interface another name. Kernels before 6.2 want it down.
    pub fn rename(&mut self, index: u32, name: &str) -> Result<()> {
        let attributes = vec![LinkAttribute::IfName(checked(name)?)];
        self.set(index, attributes, &format!("rename interface {index} to {name}"))
    }

    /// Moves an interface to another namespace, where it may get another index. It loses its addresses and routes.
    pub fn move_to(&mut self, index: u32, netns: &NetNs) -> Result<()> {
        let attributes = vec![LinkAttribute::NetNsFd(netns.as_fd().as_raw_fd())];
        self.set(index, attributes, &format!("move interface {index} to another namespace"))
    }

    /// Limits the packets that segmentation offload hands to the interface: their size in bytes and the number of
    /// segments each comes to. Up to 65,536 bytes the size holds for IPv4 too.
    pub fn set_offload_limits(&mut self, index: u32, gso_max_size: u32, gso_max_segs: u32) -> Result<()> {
        let attributes = vec![LinkAttribute::GsoMaxSize(gso_max_size), LinkAttribute::GsoMaxSegs(gso_max_segs)];
        self.set(index, attributes, &format!("limit the offloads of interface {index}"))
    }

    /// Sets how many packets fit the transmit queue.
    pub fn set_queue_length(&mut self, index: u32, packets: u32) -> Result<()> {
        let operation = format!("set the queue length of interface {index} to {packets}");
        self.set(index, vec![LinkAttribute::TxQueueLen(packets)], &operation)
    }

    /// Keeps the kernel from giving an interface an IPv6 link-local address of its own making when it goes up.
    pub fn set_address_generation_none(&mut self, index: u32) -> Result<()> {
        let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        let attributes = vec![LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])])];
        self.set(index, attributes, &format!("switch off address generation on interface {index}"))
    }

    fn set_flags(&mut self, index: u32, flags: LinkFlags, state: &str) -> Result<()> {
        let mut message = with(index, Vec::new());
        message.header.flags = flags;
        message.header.change_mask = LinkFlags::Up;
        self.request(RouteNetlinkMessage::SetLink(message), 0, &format!("set interface {index} {state}"))
    }

    fn set(&mut self, index: u32, attributes: Vec<LinkAttribute>, operation: &str) -> Result<()> {
        self.request(RouteNetlinkMessage::SetLink(with(index, attributes)), 0, operation)
    }
}

pub(super) fn with(index: u32, attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = attributes;
    message
}

pub(super) fn end(name: &str, mtu: Option<u32>, mac: Option<[u8; 6]>) -> Result<Vec<LinkAttribute>> {
    let mut attributes = vec![LinkAttribute::IfName(checked(name)?)];
    attributes.extend(mtu.map(LinkAttribute::Mtu));
    attributes.extend(mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
    Ok(attributes)
}

/// The kernel's own rules (`dev_valid_name`), and no zero byte: what follows one would be lost in silence.
fn checked(name: &str) -> Result<String> {
    let plain = |byte: u8| !byte.is_ascii_whitespace() && !matches!(byte, 0 | b'/' | b':');
    let usable = !matches!(name, "" | "." | "..") && name.len() < NAME_LIMIT && name.bytes().all(plain);
    match usable {
        true => Ok(name.to_owned()),
        false => {
            Err(Error::invalid("interface name", name, "it takes 1 to 15 bytes without spaces, slashes and colons"))
        }
    }
}

pub(super) fn read(message: &RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let header = &message.header;
    let mut link = Link {
        index: header.index,
        name: String::new(),
        kind: None,
        up: header.flags.contains(LinkFlags::Up),
        running: header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        mtu: 0,
        mac: None,
        parent: None,
        queue_length: 0,
        vxlan: None,
        traffic: Traffic::default(),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(bytes) => link.mac = bytes.as_slice().try_into().ok(),
            LinkAttribute::Link(parent) => link.parent = Some(*parent).filter(|&index| index != 0),
            LinkAttribute::TxQueueLen(packets) => link.queue_length = *packets,
            LinkAttribute::LinkInfo(information) => {
                link.kind = information.iter().find_map(kind);
                link.vxlan = vxlan::read(information);
            }
            LinkAttribute::Stats64(stats) => {
                link.traffic = Traffic { sent_bytes: stats.tx_bytes, received_bytes: stats.rx_bytes };
            }
            _ => {}
        }
    }
    Some(link)
}

fn kind(information: &LinkInfo) -> Option<String> {
    match information {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_kernel_would_cut_or_refuse_are_refused() {
        for name in ["", ".", "..", "a b", "a/b", "a:b", "a\0b", "sixteen-bytes-ab"] {
            assert!(matches!(checked(name), Err(Error::Invalid { .. })), "{name:?}");
        }
        assert!(checked("fifteen-bytes-a").is_ok());
    }
}
