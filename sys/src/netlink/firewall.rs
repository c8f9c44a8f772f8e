//! What the kernel itself tells of nftables (`linux/netfilter/nf_tables.h`): the number of the ruleset in force, and what
//! named counters have counted. Rules are written by [`crate::nft`]; reading them so costs no program.

use std::collections::BTreeMap;
use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NlasIterator};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

use crate::{Error, Result};

/// `NFNL_SUBSYS_NFTABLES`, the upper byte of a message's type.
const FIREWALL_SUBSYSTEM: u16 = 10;
/// `NFPROTO_INET`.
const FAMILY_INET: u8 = 1;
/// Of every message about nftables, the first attribute names the table; but for those about generations.
const TABLE_NAME: u16 = 1;
/// `NFT_MSG_GETTABLE`.
const GET_TABLE: u16 = 1;
/// `NFT_MSG_NEWGEN`, which ends each transaction.
pub(super) const NEW_GENERATION: u16 = 15;
/// `NFT_MSG_GETGEN`.
const GET_GENERATION: u16 = 16;
/// `NFTA_GEN_ID`.
const GENERATION_ID: u16 = 1;
/// `NFT_MSG_NEWOBJ` and `NFT_MSG_GETOBJ`.
const NEW_OBJECT: u16 = 18;
const GET_OBJECT: u16 = 19;
/// `NFTA_OBJ_NAME`, `NFTA_OBJ_TYPE` and `NFTA_OBJ_DATA`; of the type, `NFT_OBJECT_COUNTER`; of the data,
/// `NFTA_COUNTER_PACKETS`.
const OBJECT_NAME: u16 = 2;
const OBJECT_TYPE: u16 = 3;
const OBJECT_DATA: u16 = 4;
const OBJECT_COUNTER: u32 = 1;
const COUNTER_PACKETS: u16 = 2;
/// The bits of an attribute's kind that tell how it is written.
const KIND: u16 = 0x3fff;
/// `NLMSG_ERROR`, which an acknowledgement is as well, and `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `struct nlmsghdr`, and `struct nfgenmsg` or `struct netconfmsg` behind it.
const MESSAGE_HEADER: usize = 16;
const FAMILY_HEADER: usize = 4;
/// Larger than what the kernel puts into one answer.
const DATAGRAM_LIMIT: usize = 64 * 1024;
/// A listing is taken anew this often while others change the rules.
const LISTING_ATTEMPTS: usize = 20;

/// The number of the firewall's current generation: counted up by the kernel with every transaction, whoever made it.
pub fn firewall_generation() -> Result<u32> {
    const OPERATION: &str = "ask for the generation of the firewall";
    let answer = Exchange::begin(OPERATION, GET_GENERATION, 0, &[])?.next()?;
    let number = Message::all(&answer).find_map(|message| message.generation());
    number.ok_or_else(|| Error::Malformed { operation: OPERATION.into(), reason: "it holds none".into() })
}

/// The packets that each counter of a table of family `inet` has counted, by name. [`Error::is_not_found`] if there is no
/// such table.
pub fn firewall_counters(table: &str) -> Result<BTreeMap<String, u64>> {
    const OPERATION: &str = "list the counters of the firewall";
    let name = attribute(TABLE_NAME, &[table.as_bytes(), b"\0"].concat());
    let kind = attribute(OBJECT_TYPE, &OBJECT_COUNTER.to_be_bytes());
    for _ in 0..LISTING_ATTEMPTS {
        let mut exchange = Exchange::begin(OPERATION, GET_OBJECT, NLM_F_DUMP, &[name.as_slice(), &kind].concat())?;
        let mut listing = Listing::default();
        while !listing.ended {
            listing.read(&exchange.next()?);
        }
        match (listing.changed, listing.counters) {
            (true, _) => {}
            // No table has no counters either.
            (false, counters) if counters.is_empty() => return find_table(&name).map(|()| counters),
            (false, counters) => return Ok(counters),
        }
    }
    Err(Error::refused(OPERATION, io::Error::from_raw_os_error(libc::EINTR)))
}

fn find_table(name: &[u8]) -> Result<()> {
    Exchange::begin("find a table of the firewall", GET_TABLE, NLM_F_ACK, name)?.next().map(drop)
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    // A header and a name or a number.
    let length = (4 + value.len()) as u16;
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A question to the kernel and its answers, which come from within the calls.
struct Exchange {
    socket: Socket,
    operation: &'static str,
}

impl Exchange {
    fn begin(operation: &'static str, message: u16, flags: u16, attributes: &[u8]) -> Result<Self> {
        let refused = |source| Error::refused(operation, source);
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(refused)?;
        socket.bind_auto().map_err(refused)?;
        let length = (MESSAGE_HEADER + FAMILY_HEADER + attributes.len()) as u32;
        let kind = FIREWALL_SUBSYSTEM << 8 | message;
        let header = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &(NLM_F_REQUEST | flags).to_ne_bytes(), &[0; 8]];
        let request = [&header.concat(), &[FAMILY_INET, 0, 0, 0][..], attributes].concat();
        socket.send_to(&request, &SocketAddr::new(0, 0), 0).map_err(refused)?;
        Ok(Self { socket, operation })
    }

    fn next(&mut self) -> Result<Vec<u8>> {
        let refused = |source| Error::refused(self.operation, source);
        let mut buffer = vec![0; DATAGRAM_LIMIT];
        let length = self.socket.recv(&mut buffer.as_mut_slice(), libc::MSG_DONTWAIT).map_err(refused)?;
        buffer.truncate(length);
        let error = Message::all(&buffer).find_map(|message| message.error());
        error.map_or(Ok(buffer), |error| Err(refused(io::Error::from_raw_os_error(error))))
    }
}

/// What a listing told so far.
#[derive(Default)]
struct Listing {
    counters: BTreeMap<String, u64>,
    /// The rules changed meanwhile.
    changed: bool,
    ended: bool,
}

impl Listing {
    fn read(&mut self, datagram: &[u8]) {
        for message in Message::all(datagram) {
            self.changed |= message.flags & NLM_F_DUMP_INTR != 0;
            self.ended |= message.kind == DONE;
            self.counters.extend(message.counter());
        }
    }
}

/// How many counters a datagram lists.
pub(super) fn counters(datagram: &[u8]) -> usize {
    let mut listing = Listing::default();
    listing.read(datagram);
    listing.counters.len()
}

/// One message of a datagram.
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    flags: u16,
    /// Of the socket over which was asked for what it tells.
    pub(super) port: u32,
    bytes: &'a [u8],
}

impl<'a> Message<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        let flags = u16::from_ne_bytes(bytes.get(6..8)?.try_into().ok()?);
        let port = u32::from_ne_bytes(bytes.get(12..16)?.try_into().ok()?);
        let bytes = bytes.get(..length).filter(|bytes| bytes.len() >= MESSAGE_HEADER)?;
        Some(Self { kind, flags, port, bytes })
    }

    /// All messages of a datagram, up to the first that is cut short.
    pub(super) fn all(datagram: &'a [u8]) -> impl Iterator<Item = Self> {
        let mut rest = datagram;
        std::iter::from_fn(move || {
            let message = Self::read(rest)?;
            rest = rest.get(message.bytes.len().next_multiple_of(4)..).unwrap_or_default();
            Some(message)
        })
    }

    pub(super) fn attribute(&self, kind: u16) -> Option<Vec<u8>> {
        find(self.bytes.get(MESSAGE_HEADER + FAMILY_HEADER..)?, kind)
    }

    /// Of a message about neighbours, the interface (`struct ndmsg`).
    pub(super) fn neighbours_interface(&self) -> Option<i32> {
        let index = self.bytes.get(MESSAGE_HEADER + FAMILY_HEADER..)?.get(..4)?;
        Some(i32::from_ne_bytes(index.try_into().ok()?))
    }

    fn is_firewall(&self, message: u16) -> bool {
        self.kind == FIREWALL_SUBSYSTEM << 8 | message
    }

    /// The number of the generation that this message tells of.
    pub(super) fn generation(&self) -> Option<u32> {
        let number = self.is_firewall(NEW_GENERATION).then(|| self.attribute(GENERATION_ID))??;
        Some(u32::from_be_bytes(number.as_slice().try_into().ok()?))
    }

    pub(super) fn names(&self, table: &[u8]) -> bool {
        let name = self.attribute(TABLE_NAME).filter(|_| self.kind >> 8 == FIREWALL_SUBSYSTEM);
        name.is_some_and(|name| text(&name) == table)
    }

    /// The counter that this message tells of, with its packets.
    fn counter(&self) -> Option<(String, u64)> {
        let name = self.is_firewall(NEW_OBJECT).then(|| self.attribute(OBJECT_NAME))??;
        let packets = find(&self.attribute(OBJECT_DATA)?, COUNTER_PACKETS)?;
        let packets = u64::from_be_bytes(packets.as_slice().try_into().ok()?);
        Some((String::from_utf8_lossy(text(&name)).into_owned(), packets))
    }

    /// The errno of a refusal.
    fn error(&self) -> Option<i32> {
        let number = self.bytes.get(MESSAGE_HEADER..MESSAGE_HEADER + 4).filter(|_| self.kind == ERROR)?;
        let number = i32::from_ne_bytes(number.try_into().ok()?);
        (number != 0).then(|| number.saturating_neg())
    }
}

fn find(attributes: &[u8], kind: u16) -> Option<Vec<u8>> {
    let mut attributes = NlasIterator::new(attributes).map_while(|attribute| attribute.ok());
    let found = attributes.find(|attribute| attribute.kind() & KIND == kind)?;
    Some(found.value().to_vec())
}

/// Up to the byte that ends it.
fn text(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A message about nftables with these attributes.
    pub(in crate::netlink) fn message(kind: u16, attributes: &[u8]) -> Vec<u8> {
        let length = (MESSAGE_HEADER + FAMILY_HEADER + attributes.len()) as u32;
        let kind = FIREWALL_SUBSYSTEM << 8 | kind;
        [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 14], attributes].concat()
    }

    pub(in crate::netlink) fn first(value: &[u8]) -> Vec<u8> {
        attribute(TABLE_NAME, value)
    }

    fn counter(name: &[u8], packets: u64) -> Vec<u8> {
        let data = attribute(OBJECT_DATA | 0x8000, &attribute(COUNTER_PACKETS, &packets.to_be_bytes()));
        message(NEW_OBJECT, &[first(b"meshwork\0"), attribute(OBJECT_NAME, name), data].concat())
    }

    #[test]
    fn counters_are_read_until_the_listing_ends() {
        let mut listing = Listing::default();
        listing.read(&[counter(b"one\0", 1), counter(b"two\0", u64::MAX)].concat());
        assert!(!listing.ended);
        let mut end = message(0, &[]);
        end[4..6].copy_from_slice(&DONE.to_ne_bytes());
        listing.read(&end);
        assert_eq!(listing.counters, BTreeMap::from([("one".to_owned(), 1), ("two".to_owned(), u64::MAX)]));
        assert!(listing.ended && !listing.changed);
    }

    #[test]
    fn a_refusal_is_told_and_an_acknowledgement_is_none() {
        let mut refusal = message(0, &[]);
        refusal[4..6].copy_from_slice(&ERROR.to_ne_bytes());
        let told = |bytes: &[u8]| Message::all(bytes).find_map(|message| message.error());
        assert_eq!(told(&refusal), None);
        refusal[16..20].copy_from_slice(&(-libc::ENOENT).to_ne_bytes());
        assert_eq!(told(&refusal), Some(libc::ENOENT));
    }

    proptest! {
        #[test]
        fn any_listing_is_read_or_left(bytes: Vec<u8>) {
            counters(&bytes);
        }
    }
}
