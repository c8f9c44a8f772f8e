//! Tells that something changed: in links, addresses, routes, nexthop objects and neighbours, or in the firewall.
//!
//! What changed is not told: whoever watches compares the whole with what it wants, so a lost notice only means that
//! everything may have changed. The kernel notices our own changes too. Those over one netlink socket carry its port and are
//! left out here; those of the firewall carry the number of their transaction, by which they are told apart.
//! Neighbours change by themselves all the time, so they are told by interface.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use netlink_sys::Socket;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};

use super::Netlink;
use super::firewall::Message;
use super::socket::set_receive_buffer;
use crate::wake::{Ready, Wake};
use crate::{Error, Result};

/// `RTNLGRP_*` of `linux/rtnetlink.h`: links, neighbours, addresses and routes of both families, nexthop objects, and
/// what `net.ipv4.conf` and `net.ipv6.conf` say of forwarding and filtering.
const ROUTE_GROUPS: [u32; 9] = [1, 3, 5, 7, 9, 11, 24, 25, 32];
/// `RTM_NEWNEIGH` and `RTM_DELNEIGH`.
const NEW_NEIGHBOUR: u16 = 28;
const OLD_NEIGHBOUR: u16 = 29;
/// `RTM_NEWNETCONF`, and its attribute that names the interface.
const NEW_SETTING: u16 = 80;
const SETTING_INTERFACE: u16 = 1;
/// `NFNLGRP_NFTABLES` of `linux/netfilter/nfnetlink.h`.
const FIREWALL_GROUP: u32 = 7;
/// Bytes of notices that the kernel holds for us: those of one transaction that writes a table of thousands of elements.
const HELD_NOTICES: libc::c_int = 8 * 1024 * 1024;
/// Larger than what the kernel puts into one notice.
const DATAGRAM_LIMIT: usize = 64 * 1024;

/// Stands for every interface (`NETCONFA_IFINDEX_ALL`).
pub const EVERY_INTERFACE: i32 = -1;

/// What has changed since the last look.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// Something about links, addresses, routes or nexthop objects.
    pub routing: bool,
    /// Interfaces with other neighbours, [`EVERY_INTERFACE`] where notices were lost.
    pub neighbours: BTreeSet<i32>,
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
    /// The socket whose changes are not told.
    own_port: u32,
    /// The transaction under way touches the table; its generation comes at its end.
    touched: bool,
    buffer: Vec<u8>,
}

impl Watch {
    /// Watches the namespace of the calling thread, but for what changes by way of `own`, and of the firewall the tables
    /// called `table`.
    pub fn start(table: &str, own: &Netlink) -> Result<Self> {
        let refused = |source| Error::refused("watch for changes", source);
        let routing = join(NETLINK_ROUTE, &ROUTE_GROUPS).map_err(refused)?;
        let firewall = join(NETLINK_NETFILTER, &[FIREWALL_GROUP]).map_err(refused)?;
        let (table, own_port, buffer) = (table.to_owned(), own.port()?, vec![0; DATAGRAM_LIMIT]);
        Ok(Self { routing, firewall, table, own_port, touched: false, buffer })
    }

    /// Reads all notices that wait, without waiting for more.
    pub fn changes(&mut self) -> Result<Changes> {
        let mut changes = Changes::default();
        drain(&self.routing, &mut self.buffer, |datagram| match datagram {
            Some(datagram) => changes.note(datagram, self.own_port),
            None => changes.note_lost(),
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

impl Changes {
    fn note(&mut self, datagram: &[u8], own_port: u32) {
        for message in Message::all(datagram).filter(|message| message.port != own_port) {
            match message.kind {
                NEW_SETTING => self.settings.extend(changed_setting(&message)),
                NEW_NEIGHBOUR | OLD_NEIGHBOUR => self.neighbours.extend(message.neighbours_interface()),
                _ => self.routing = true,
            }
        }
    }

    fn note_lost(&mut self) {
        self.routing = true;
        self.settings.insert(EVERY_INTERFACE);
        self.neighbours.insert(EVERY_INTERFACE);
    }
}

/// The interface whose settings changed.
fn changed_setting(message: &Message<'_>) -> Option<i32> {
    Some(i32::from_ne_bytes(message.attribute(SETTING_INTERFACE)?.as_slice().try_into().ok()?))
}

/// Generations, among the messages of a datagram, that touched the table `name`.
fn generations(datagram: &[u8], name: &[u8], touched: &mut bool) -> Vec<u32> {
    let mut found = Vec::new();
    for message in Message::all(datagram) {
        match message.generation() {
            Some(generation) if std::mem::take(touched) => found.push(generation),
            Some(_) => {}
            None => *touched |= message.names(name),
        }
    }
    found
}

/// How many notices of either sort a datagram holds.
pub(super) fn notices(datagram: &[u8]) -> usize {
    let mut changes = Changes::default();
    changes.note(datagram, 0);
    changes.settings.len() + changes.neighbours.len() + generations(datagram, b"meshwork", &mut true).len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::firewall::NEW_GENERATION;
    use super::super::firewall::tests::{first, message};
    use super::*;

    #[test]
    fn only_generations_that_touched_the_table_are_told() {
        let (ours, theirs) = (message(0, &first(b"meshwork\0")), message(0, &first(b"kube-proxy\0")));
        let end = |number: u32| message(NEW_GENERATION, &first(&number.to_be_bytes()));
        let datagram = [theirs.clone(), end(1), ours.clone(), theirs, end(2), end(3)].concat();
        let mut touched = false;
        assert_eq!(generations(&datagram, b"meshwork", &mut touched), [2]);
        assert!(generations(&ours, b"meshwork", &mut touched).is_empty());
        assert_eq!(generations(&end(4), b"meshwork", &mut touched), [4], "a transaction may span datagrams");
        assert!(generations(&message(0, &first(b"meshwork-npc\0")), b"meshwork", &mut touched).is_empty());
        assert!(!touched);
    }

    #[test]
    fn what_others_change_is_told_and_neighbours_by_their_interface() {
        let notice = |kind: u16, port: u32| {
            let mut bytes = message(0, &[7, 0, 0, 0, 2, 0, 0, 0]);
            bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
            bytes[12..16].copy_from_slice(&port.to_ne_bytes());
            bytes
        };
        let (ours, new_route) = (77, 24);
        let mut changes = Changes::default();
        changes.note(&[notice(new_route, ours), notice(NEW_NEIGHBOUR, ours)].concat(), ours);
        assert_eq!(changes, Changes::default());
        changes.note(&notice(NEW_NEIGHBOUR, 0), ours);
        assert_eq!(changes, Changes { neighbours: BTreeSet::from([7]), ..Changes::default() });
        changes.note(&notice(new_route, 78), ours);
        assert!(changes.routing);
    }

    proptest! {
        #[test]
        fn any_notice_is_read_or_left(bytes: Vec<u8>) {
            notices(&bytes);
        }
    }
}
