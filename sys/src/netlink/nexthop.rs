//! Nexthop objects: ways out with a number of their own, so that replacing one moves all routes that name it at once.
//!
//! The kernel deletes an object, and in silence all routes that name it, when its interface goes down or away.

use std::net::IpAddr;

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NLM_F_CREATE, NLM_F_REPLACE, NetlinkDeserializable, NetlinkHeader,
    NetlinkSerializable, Nla, NlasIterator, Parseable,
};

use super::{Family, Netlink};
use crate::Result;

const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;
const RTM_GETNEXTHOP: u16 = 106;

const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_BLACKHOLE: u16 = 4;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
const NHA_FDB: u16 = 11;

/// `RTNH_F_ONLINK`.
const FLAG_ONLINK: u32 = 4;

/// `struct nhmsg`: family, scope, protocol, a reserved byte, flags.
const HEADER_LENGTH: usize = 8;

/// A way out that routes refer to by number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nexthop {
    /// Its number, not zero.
    pub id: u32,
    /// The family of the routes that may use it. A replacement must keep it.
    pub family: Family,
    /// The interface, which must be up and have carrier; `None` drops the packets.
    pub output: Option<u32>,
    /// The neighbour that takes the packets; `None` if the destinations are on the link, or the interface has no
    /// neighbours, such as a TUN.
    pub gateway: Option<IpAddr>,
    /// Take the gateway to be on the link, whatever the routes say.
    pub onlink: bool,
    /// Who made it, as in routes.
    pub protocol: u8,
}

impl Netlink {
    /// All nexthop objects that are single ways out; groups and those of bridges are left out.
    pub fn nexthops(&mut self) -> Result<Vec<Nexthop>> {
        let answers = self.list(NexthopMessage::new(RTM_GETNEXTHOP), "list nexthop objects")?;
        Ok(answers.iter().filter_map(read).collect())
    }

    /// Makes a nexthop object, or changes the one with this number together with all its routes.
    pub fn replace_nexthop(&mut self, nexthop: &Nexthop) -> Result<()> {
        let operation = format!("set nexthop object {}", nexthop.id);
        self.request(write(nexthop), NLM_F_CREATE | NLM_F_REPLACE, &operation)
    }

    /// Deletes a nexthop object and all routes that name it; one that is absent is fine.
    pub fn delete_nexthop(&mut self, id: u32) -> Result<()> {
        let mut request = NexthopMessage::new(RTM_DELNEXTHOP);
        request.push(NHA_ID, &id.to_ne_bytes());
        match self.request(request, 0, &format!("delete nexthop object {id}")) {
            Err(error) if error.is_not_found() => Ok(()),
            outcome => outcome,
        }
    }

    /// Whether there is an object, of whatever sort, with this number.
    pub(super) fn has_nexthop(&mut self, id: u32) -> Result<bool> {
        let mut request = NexthopMessage::new(RTM_GETNEXTHOP);
        request.push(NHA_ID, &id.to_ne_bytes());
        match self.query(request, 0, &format!("look up nexthop object {id}")) {
            Err(error) if error.is_not_found() => Ok(false),
            answer => answer.map(|_| true),
        }
    }
}

fn write(nexthop: &Nexthop) -> NexthopMessage {
    let mut message = NexthopMessage::new(RTM_NEWNEXTHOP);
    message.family = nexthop.family.number();
    message.protocol = nexthop.protocol;
    message.flags = if nexthop.onlink { FLAG_ONLINK } else { 0 };
    message.push(NHA_ID, &nexthop.id.to_ne_bytes());
    match nexthop.output {
        Some(index) => message.push(NHA_OIF, &index.to_ne_bytes()),
        None => message.push(NHA_BLACKHOLE, &[]),
    }
    match nexthop.gateway {
        Some(IpAddr::V4(gateway)) => message.push(NHA_GATEWAY, &gateway.octets()),
        Some(IpAddr::V6(gateway)) => message.push(NHA_GATEWAY, &gateway.octets()),
        None => {}
    }
    message
}

pub(super) fn read(message: &NexthopMessage) -> Option<Nexthop> {
    let single = message.value(NHA_GROUP).is_none() && message.value(NHA_FDB).is_none();
    let family = [Family::V4, Family::V6].into_iter().find(|family| family.number() == message.family)?;
    let number = |kind| Some(u32::from_ne_bytes(message.value(kind)?.as_slice().try_into().ok()?));
    single.then_some(Nexthop {
        id: number(NHA_ID)?,
        family,
        output: number(NHA_OIF),
        gateway: message.value(NHA_GATEWAY).and_then(|bytes| address(&bytes)),
        onlink: message.flags & FLAG_ONLINK != 0,
        protocol: message.protocol,
    })
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// A message about nexthop objects, which the packet crate does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NexthopMessage {
    message_type: u16,
    family: u8,
    protocol: u8,
    flags: u32,
    attributes: Vec<DefaultNla>,
}

impl NexthopMessage {
    fn new(message_type: u16) -> Self {
        Self { message_type, family: 0, protocol: 0, flags: 0, attributes: Vec::new() }
    }

    fn push(&mut self, kind: u16, value: &[u8]) {
        self.attributes.push(DefaultNla::new(kind, value.to_vec()));
    }

    fn value(&self, kind: u16) -> Option<Vec<u8>> {
        let attribute = self.attributes.iter().find(|attribute| attribute.kind() == kind)?;
        let mut value = vec![0; attribute.value_len()];
        attribute.emit_value(&mut value);
        Some(value)
    }
}

impl NetlinkSerializable for NexthopMessage {
    fn message_type(&self) -> u16 {
        self.message_type
    }

    fn buffer_len(&self) -> usize {
        HEADER_LENGTH + self.attributes.as_slice().buffer_len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let (header, attributes) = buffer.split_at_mut(HEADER_LENGTH);
        // The scope is the kernel's to tell, and the byte after the protocol is reserved.
        let [first, second, third, fourth] = self.flags.to_ne_bytes();
        header.copy_from_slice(&[self.family, 0, self.protocol, 0, first, second, third, fourth]);
        self.attributes.as_slice().emit(attributes);
    }
}

impl NetlinkDeserializable for NexthopMessage {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        if header.message_type != RTM_NEWNEXTHOP {
            return Err(format!("message type {} is no nexthop object", header.message_type).into());
        }
        let Some((&[family, _, protocol, _, first, second, third, fourth], rest)) = payload.split_first_chunk() else {
            return Err(DecodeError::buffer_too_small(payload.len(), HEADER_LENGTH));
        };
        let attributes: Result<Vec<_>, _> = NlasIterator::new(rest).map(|nla| DefaultNla::parse(&nla?)).collect();
        Ok(Self {
            message_type: header.message_type,
            family,
            protocol,
            flags: u32::from_ne_bytes([first, second, third, fourth]),
            attributes: attributes?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn gateway() -> impl Strategy<Value = (Family, Option<IpAddr>)> {
        prop_oneof![
            any::<Option<std::net::Ipv4Addr>>().prop_map(|address| (Family::V4, address.map(IpAddr::V4))),
            any::<Option<std::net::Ipv6Addr>>().prop_map(|address| (Family::V6, address.map(IpAddr::V6))),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            id: u32, output: Option<u32>, (family, gateway) in gateway(), onlink: bool, protocol: u8,
        ) {
            let nexthop = Nexthop { id, family, output, gateway, onlink, protocol };
            let message = write(&nexthop);
            let mut bytes = vec![0; message.buffer_len()];
            message.serialize(&mut bytes);
            let mut header = NetlinkHeader::default();
            header.message_type = message.message_type();
            prop_assert_eq!(read(&NexthopMessage::deserialize(&header, &bytes).unwrap()), Some(nexthop));
        }
    }
}
