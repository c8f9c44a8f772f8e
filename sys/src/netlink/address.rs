//! Addresses of interfaces.

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};

use super::{Family, Netlink, Scope};
use crate::Result;

/// An address on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceAddress {
    /// The address itself, host bits included, with the length of the prefix that is on the link.
    pub net: IpNet,
    /// How far it is valid.
    pub scope: Scope,
    /// IPv6: usable at once, without asking whether somebody else on the link has it.
    pub nodad: bool,
}

impl Netlink {
    /// The addresses of an interface.
    pub fn addresses(&mut self, index: u32) -> Result<Vec<InterfaceAddress>> {
        let mut request = AddressMessage::default();
        request.header.index = index;
        let operation = format!("list the addresses of interface {index}");
        let answers = self.list(RouteNetlinkMessage::GetAddress(request), &operation)?;
        Ok(answers.iter().filter_map(read).filter(|(of, _)| *of == index).map(|(_, address)| address).collect())
    }

    /// The addresses of all interfaces, by their indices.
    pub fn all_addresses(&mut self) -> Result<Vec<(u32, InterfaceAddress)>> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        Ok(self.list(request, "list addresses")?.iter().filter_map(read).collect())
    }

    /// Gives an interface an address; one that it has already is fine.
    pub fn add_address(&mut self, index: u32, address: &InterfaceAddress) -> Result<()> {
        let mut message = message(index, address.net);
        message.header.scope = address.scope.number().into();
        if address.nodad {
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        let operation = format!("add address {} to interface {index}", address.net);
        self.request(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE, &operation)
    }

    /// Takes an address from an interface; one that is absent is fine, on an interface that is gone too.
    pub fn delete_address(&mut self, index: u32, net: IpNet) -> Result<()> {
        let request = RouteNetlinkMessage::DelAddress(message(index, net));
        match self.request(request, 0, &format!("delete address {net} from interface {index}")) {
            Err(error) if error.is_not_found() => Ok(()),
            outcome => outcome,
        }
    }
}

fn message(index: u32, net: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = Family::of(net.addr()).address_family();
    message.header.prefix_len = net.prefix_len();
    message.header.index = index;
    // Local is ours and the other the peer's, which on all but point-to-point links is the same.
    message.attributes = vec![AddressAttribute::Local(net.addr()), AddressAttribute::Address(net.addr())];
    message
}

/// An address with the index of its interface.
pub(super) fn read(answer: &RouteNetlinkMessage) -> Option<(u32, InterfaceAddress)> {
    let RouteNetlinkMessage::NewAddress(message) = answer else { return None };
    let (mut local, mut other) = (None, None);
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => other = Some(*address),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    let net = IpNet::new(local.or(other)?, message.header.prefix_len).ok()?;
    let scope = Scope::from_number(message.header.scope.into());
    Some((message.header.index, InterfaceAddress { net, scope, nodad: flags.contains(AddressFlags::Nodad) }))
}
