//! Ethernet frames of one type of their own, sent and received on any interface (packet(7)).
//!
//! Frames pass neither routing nor the firewall: what is sent leaves by the interface that is named, and what comes is
//! told with the interface it came by.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Ethernet header: destination, source, type.
pub const ETHERNET_HEADER: usize = 14;

/// A socket for frames of one type.
#[derive(Debug)]
pub struct PacketSocket {
    descriptor: OwnedFd,
    ethertype: u16,
}

impl PacketSocket {
    /// Opens a socket in the network namespace of the calling thread that never blocks. Needs `CAP_NET_RAW`.
    pub fn open(ethertype: u16) -> io::Result<Self> {
        let flags = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: takes no pointers; the result is checked before use.
        let descriptor = unsafe { libc::socket(libc::AF_PACKET, flags, i32::from(ethertype.to_be())) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and nobody else owns it.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        Ok(Self { descriptor, ethertype })
    }

    /// Sends a payload from one Ethernet address to another by the interface with this index.
    pub fn send(&self, interface: u32, source: [u8; 6], destination: [u8; 6], payload: &[u8]) -> io::Result<()> {
        let frame = [&destination[..], &source, &self.ethertype.to_be_bytes(), payload].concat();
        let mut address = empty_address();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = self.ethertype.to_be();
        address.sll_ifindex = i32::try_from(interface).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: the frame is readable for its length, and the address is one of the given size.
        let sent = unsafe {
            libc::sendto(
                self.descriptor.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The next frame that is addressed to this host: the index of its interface and its length in `buffer`, where
    /// what does not fit is cut off. [`io::ErrorKind::WouldBlock`] when there is none.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<(u32, usize)> {
        loop {
            let mut address = empty_address();
            let mut length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            // SAFETY: the buffer is writable for its length, and so is the address for its own.
            let received = unsafe {
                libc::recvfrom(
                    self.descriptor.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    0,
                    (&raw mut address).cast(),
                    &raw mut length,
                )
            };
            let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
            // The socket also sees what it sends itself, and what was flooded to others.
            if address.sll_pkttype == libc::PACKET_HOST {
                return Ok((u32::try_from(address.sll_ifindex).unwrap_or_default(), received));
            }
        }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.descriptor.as_raw_fd()
    }
}

fn empty_address() -> libc::sockaddr_ll {
    // SAFETY: all fields are numbers, for which zero is a value.
    unsafe { std::mem::zeroed() }
}
