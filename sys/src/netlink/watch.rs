//! Tells that something changed: in links, addresses, routes, nexthop objects and neighbours, or in the firewall.
//!
//! What changed is not told: whoever watches compares the whole with what it wants, so a lost notice only means that
//! everything may have changed. Notices of our own changes come too; those of the firewall carry the number of their
//! transaction, by which they are told apart.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use netlink_packet_core::{NLM_F_REQUEST, NlasIterator};
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};

use super::socket::set_receive_buffer;
use crate::wake::{Ready, Wake};
use crate::{Error, Result};

/// `RTNLGRP_*` of `linux/rtnetlink.h`: links, neighbours, addresses and routes of both families, nexthop objects, and
/// what `net.ipv4.conf` and `net.ipv6.conf` say of forwarding and filtering.
const ROUTE_GROUPS: [u32; 9] = [1, 3, 5, 7, 9, 11, 24, 25, 32];
/// `RTM_NEWNETCONF`, and its attribute that names the interface.
const NEW_SETTING: u16 = 80;
const SETTING_INTERFACE: u16 = 1;
/// `NFNLGRP_NFTABLES` of `linux/netfilter/nfnetlink.h`.
const FIREWALL_GROUP: u32 = 7;
/// `NFNL_SUBSYS_NFTABLES`, the upper byte of a message's type.
const FIREWALL_SUBSYSTEM: u16 = 10;
/// Of every message about nftables, the first attribute names the table; but for those about generations.
const TABLE_NAME: u16 = 1;
/// `NFT_MSG_NEWGEN`, which ends each transaction.
const NEW_GENERATION: u16 = 15;
/// `NFT_MSG_GETGEN`.
const GET_GENERATION: u16 = 16;
/// `NFTA_GEN_ID`.
const GENERATION_ID: u16 = 1;
/// `struct nlmsghdr`, and `struct nfgenmsg` or `struct netconfmsg` behind it.
const MESSAGE_HEADER: usize = 16;
const FAMILY_HEADER: usize = 4;
/// Bytes of notices that the kernel holds for us: those of one transaction that writes a table of thousands of elements.
const HELD_NOTICES: libc::c_int = 8 * 1024 * 1024;
/// Larger than what the kernel puts into one notice.
const DATAGRAM_LIMIT: usize = 64 * 1024;

/// Stands for every interface (`NETCONFA_IFINDEX_ALL`).
pub const EVERY_INTERFACE: i32 = -1;

/// What has changed since the last look.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// Something about links, addresses, routes, nexthop objects or neighbours.
    pub routing: bool,
    /// Interfaces with other settings below `/proc/sys/net`, [`EVERY_INTERFACE`] for those of all.
    pub settings: BTreeSet<i32>,
    /// Generations of the firewall that touched the watched table.
    pub firewall: Vec<u32>,
    /// Notices of the firewall were lost: any generation may have touched it.
    pub firewall_lost: bool,
}

/// Watches the network namespace in which it was made.
#[derive(Debug)]
pub struct Watch {
    routing: Socket,
    firewall: Socket,
    table: String,
    /// The transaction under way touches the table; its generation comes at its end.
    touched: bool,
    buffer: Vec<u8>,
}

impl Watch {
    /// Watches the namespace of the calling thread, and of the firewall the tables called `table`.
    pub fn start(table: &str) -> Result<Self> {
        let refused = |source| Error::refused("watch for changes", source);
        let routing = join(NETLINK_ROUTE, &ROUTE_GROUPS).map_err(refused)?;
        let firewall = join(NETLINK_NETFILTER, &[FIREWALL_GROUP]).map_err(refused)?;
        Ok(Self { routing, firewall, table: table.to_owned(), touched: false, buffer: vec![0; DATAGRAM_LIMIT] })
    }

    /// Reads all notices that wait, without waiting for more.
    pub fn changes(&mut self) -> Result<Changes> {
        let mut changes = Changes::default();
        drain(&self.routing, &mut self.buffer, |datagram| {
            changes.routing = true;
            changes.settings.extend(datagram.map_or(Some(EVERY_INTERFACE), changed_setting));
        })?;
        let (table, touched) = (self.table.as_bytes(), &mut self.touched);
        drain(&self.firewall, &mut self.buffer, |datagram| match datagram {
            Some(datagram) => changes.firewall.extend(generations(datagram, table, touched)),
            None => changes.firewall_lost = true,
        })?;
        Ok(changes)
    }

    /// Waits until there is something to read, `wake` is rung or `limit` is over.
    pub fn wait(&self, wake: &Wake, limit: Duration) -> Result<Ready> {
        let wait = wake.wait_any_readable(&[self.routing.as_fd(), self.firewall.as_fd()], Some(limit));
        wait.map_err(|source| Error::refused("wait for changes", source))
    }
}

fn join(protocol: isize, groups: &[u32]) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.set_non_blocking(true)?;
    set_receive_buffer(&socket, HELD_NOTICES)?;
    for group in groups {
        socket.add_membership(*group)?;
    }
    Ok(socket)
}

/// Empties a socket. `note` gets each datagram, and nothing where some were lost.
fn drain(socket: &Socket, buffer: &mut [u8], mut note: impl FnMut(Option<&[u8]>)) -> Result<()> {
    loop {
        let mut window = &mut *buffer;
        match socket.recv_from(&mut window, libc::MSG_TRUNC) {
            // Other programs can send to this socket too.
            Ok((_, sender)) if sender.port_number() != 0 => {}
            Ok((length, _)) => note(buffer.get(..length)),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => note(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(source) => return Err(Error::refused("read what changed", source)),
        }
    }
}

/// The interface whose settings changed, if a datagram tells of any: each such message comes alone.
fn changed_setting(datagram: &[u8]) -> Option<i32> {
    let message = Message::read(datagram).filter(|message| message.kind == NEW_SETTING)?;
    Some(i32::from_ne_bytes(message.attribute(SETTING_INTERFACE)?.as_slice().try_into().ok()?))
}

/// Generations, among the messages of a datagram, that touched the table `name`.
fn generations(datagram: &[u8], name: &[u8], touched: &mut bool) -> Vec<u32> {
    let (mut rest, mut found) = (datagram, Vec::new());
    while let Some(message) = Message::read(rest) {
        match message.generation() {
            Some(generation) if std::mem::take(touched) => found.push(generation),
            Some(_) => {}
            None => *touched |= message.names(name),
        }
        rest = rest.get(message.bytes.len().next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// How many notices of either sort a datagram holds.
pub(super) fn notices(datagram: &[u8]) -> usize {
    usize::from(changed_setting(datagram).is_some()) + generations(datagram, b"meshwork", &mut true).len()
}

struct Message<'a> {
    kind: u16,
    bytes: &'a [u8],
}

impl<'a> Message<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        let bytes = bytes.get(..length).filter(|bytes| bytes.len() >= MESSAGE_HEADER)?;
        Some(Self { kind, bytes })
    }

    fn attribute(&self, kind: u16) -> Option<Vec<u8>> {
        let attributes = self.bytes.get(MESSAGE_HEADER + FAMILY_HEADER..)?;
        let mut attributes = NlasIterator::new(attributes).map_while(|attribute| attribute.ok());
        attributes.find(|attribute| attribute.kind() == kind).map(|attribute| attribute.value().to_vec())
    }

    fn is_firewall(&self, message: u16) -> bool {
        self.kind == FIREWALL_SUBSYSTEM << 8 | message
    }

    /// The number of the generation that this message tells of.
    fn generation(&self) -> Option<u32> {
        let number = self.is_firewall(NEW_GENERATION).then(|| self.attribute(GENERATION_ID))??;
        Some(u32::from_be_bytes(number.as_slice().try_into().ok()?))
    }

    fn names(&self, table: &[u8]) -> bool {
        let name = self.attribute(TABLE_NAME).filter(|_| self.kind >> 8 == FIREWALL_SUBSYSTEM);
        name.is_some_and(|name| name.split(|byte| *byte == 0).next() == Some(table))
    }
}

/// The number of the firewall's current generation: counted up by the kernel with every transaction, whoever made it.
pub fn firewall_generation() -> Result<u32> {
    const OPERATION: &str = "ask for the generation of the firewall";
    let refused = |source| Error::refused(OPERATION, source);
    let mut socket = Socket::new(NETLINK_NETFILTER).map_err(refused)?;
    socket.bind_auto().map_err(refused)?;
    socket.send_to(&generation_request(), &SocketAddr::new(0, 0), 0).map_err(refused)?;
    let mut buffer = vec![0; DATAGRAM_LIMIT];
    // The kernel answers within the call that asks.
    let length = socket.recv(&mut buffer.as_mut_slice(), libc::MSG_DONTWAIT).map_err(refused)?;
    let answer = buffer.get(..length).and_then(Message::read);
    let number = answer.and_then(|answer| answer.generation());
    number.ok_or_else(|| Error::Malformed { operation: OPERATION.into(), reason: "it holds none".into() })
}

fn generation_request() -> Vec<u8> {
    let length = (MESSAGE_HEADER + FAMILY_HEADER) as u32;
    let kind = FIREWALL_SUBSYSTEM << 8 | GET_GENERATION;
    let mut request = [length.to_ne_bytes().as_slice(), &kind.to_ne_bytes(), &NLM_F_REQUEST.to_ne_bytes()].concat();
    request.resize(length as usize, 0);
    request
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(kind: u16, attribute: &[u8]) -> Vec<u8> {
        let value: Vec<u8> = [&(4 + attribute.len() as u16).to_ne_bytes()[..], &[1, 0], attribute].concat();
        let length = (MESSAGE_HEADER + FAMILY_HEADER + value.len()) as u32;
        let kind = FIREWALL_SUBSYSTEM << 8 | kind;
        let mut bytes: Vec<u8> = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 14], &value].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn only_generations_that_touched_the_table_are_told() {
        let (ours, theirs) = (message(0, b"meshwork\0"), message(0, b"kube-proxy\0"));
        let end = |number: u32| message(NEW_GENERATION, &number.to_be_bytes());
        let datagram = [theirs.clone(), end(1), ours.clone(), theirs, end(2), end(3)].concat();
        let mut touched = false;
        assert_eq!(generations(&datagram, b"meshwork", &mut touched), [2]);
        assert!(generations(&ours, b"meshwork", &mut touched).is_empty());
        assert_eq!(generations(&end(4), b"meshwork", &mut touched), [4], "a transaction may span datagrams");
        assert!(generations(&message(0, b"meshwork-npc\0"), b"meshwork", &mut touched).is_empty());
        assert!(!touched);
    }

    proptest! {
        #[test]
        fn any_notice_is_read_or_left(bytes: Vec<u8>) {
            generations(&bytes, b"meshwork", &mut false);
        }
    }
}
