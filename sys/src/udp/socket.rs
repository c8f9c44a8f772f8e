//! Opening the socket, sending and receiving.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use std::time::Duration;

use super::MAX_SEGMENTS;
use super::message::{Outgoing, ReceiveBatch};

/// Socket buffers: at 10 Gbit/s a receiver that is not scheduled for 6 ms still loses nothing. Throughput fell by a
/// quarter with the kernel's default.
const BUFFER_BYTES: libc::c_int = 8 << 20;

/// How long a send waits for buffer space. A queue that a link empties at all has room again long before.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// The socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else listens there.
    #[error("UDP {0} is in use by another program; stop it or choose another port")]
    InUse(SocketAddr),
    /// Anything else, such as an address that is not this host's.
    #[error("cannot listen on UDP {address}: {source}")]
    Refused {
        /// What was to be bound.
        address: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// A bound UDP socket with both offloads. IPv4 peers of a dual-stack socket appear with their IPv4 addresses.
#[derive(Debug)]
pub struct UdpSocket {
    fd: OwnedFd,
    local: SocketAddr,
    segmentation: AtomicBool,
}

impl UdpSocket {
    /// Binds `address`. `[::]` takes both families; port 0 lets the kernel choose.
    pub fn bind(address: SocketAddr) -> Result<Self, BindError> {
        open(address).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse(address),
            _ => BindError::Refused { address, source },
        })
    }

    /// Where the socket is bound, with the port the kernel chose.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.local
    }

    /// Sends the concatenation of `slices` as datagrams of `segment_size` bytes (the last may be shorter) to
    /// `destination`, from the local address `source` if that is given and still ours. Waits for buffer space, but
    /// not longer than a second: a device that takes nothing any more must not hold its senders for ever.
    ///
    /// At most [`MAX_SEGMENTS`] and [`super::MAX_SEND_BYTES`] fit one call. Errors that only tell of earlier
    /// datagrams or of a full device queue are not reported: the network lost something, as networks do.
    pub fn send_segments(
        &self,
        destination: SocketAddr,
        source: Option<IpAddr>,
        slices: &[IoSlice<'_>],
        segment_size: usize,
    ) -> io::Result<()> {
        self.send_all(destination, source, slices, segment_size, 0)
    }

    /// The same, but without waiting: [`io::ErrorKind::WouldBlock`] if there is no buffer space. For threads that have
    /// more to do than to send.
    pub fn try_send_segments(
        &self,
        destination: SocketAddr,
        source: Option<IpAddr>,
        slices: &[IoSlice<'_>],
        segment_size: usize,
    ) -> io::Result<()> {
        self.send_all(destination, source, slices, segment_size, libc::MSG_DONTWAIT)
    }

    /// Receives what is there into `batch`, without waiting: how many runs of segments, 0 if nothing is there.
    pub fn receive(&self, batch: &mut ReceiveBatch) -> io::Result<usize> {
        loop {
            match batch.receive(self.fd.as_fd()) {
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
                // An error that an earlier datagram met, reported on the next call: fetching it has cleared it.
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn send_all(
        &self,
        destination: SocketAddr,
        source: Option<IpAddr>,
        slices: &[IoSlice<'_>],
        segment_size: usize,
        flags: libc::c_int,
    ) -> io::Result<()> {
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let one = total <= segment_size;
        if !one && (segment_size == 0 || !self.segmentation.load(Relaxed)) {
            return self.send_singly(destination, source, slices, segment_size, flags);
        }
        let size = if one { None } else { u16::try_from(segment_size).ok() };
        match self.send(destination, source, slices, size, flags) {
            Err(error) if !one && is_offload_refusal(&error) => {
                self.note_refusal(&error);
                self.send_singly(destination, source, slices, segment_size, flags)
            }
            result => result,
        }
    }

    fn send(
        &self,
        destination: SocketAddr,
        source: Option<IpAddr>,
        slices: &[IoSlice<'_>],
        segment_size: Option<u16>,
        flags: libc::c_int,
    ) -> io::Result<()> {
        let destination = self.in_family(destination);
        let mut source = source;
        loop {
            match Outgoing::new(destination, source, segment_size).send(self.fd.as_fd(), slices, flags) {
                Err(error) if is_passing(&error) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The pinned address has left this host: let routing choose.
                Err(error) if source.is_some() && is_source_refusal(&error) => source = None,
                result => return result,
            }
        }
    }

    fn send_singly(
        &self,
        destination: SocketAddr,
        source: Option<IpAddr>,
        slices: &[IoSlice<'_>],
        segment_size: usize,
        flags: libc::c_int,
    ) -> io::Result<()> {
        let whole: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        whole
            .chunks(segment_size.max(1))
            .take(MAX_SEGMENTS)
            .try_for_each(|segment| self.send(destination, source, &[IoSlice::new(segment)], None, flags))
    }

    /// `EIO`: the route's device cannot checksum, and so never segment. `EINVAL` may concern this send alone.
    fn note_refusal(&self, error: &io::Error) {
        if error.raw_os_error() == Some(libc::EIO) && self.segmentation.swap(false, Relaxed) {
            tracing::warn!(%error, "the network device cannot segment UDP: the encrypted path will be slow");
        }
    }

    fn in_family(&self, address: SocketAddr) -> SocketAddr {
        match (self.local, address) {
            (SocketAddr::V6(_), SocketAddr::V4(v4)) => {
                SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into()
            }
            _ => address,
        }
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Errors that concern an earlier datagram (ICMP said so) or a moment's lack of memory.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::EHOSTDOWN | libc::ENETDOWN | libc::ENOBUFS)
    )
}

fn is_offload_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL))
}

fn is_source_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EADDRNOTAVAIL | libc::ENETUNREACH | libc::ENODEV))
}

fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: socket takes no pointers; the result is checked before use.
    let fd = unsafe { libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and nobody else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    configure(fd.as_fd(), address)?;
    let name = super::message::SocketName::from(address);
    // SAFETY: the name's storage is valid for its length during the call.
    if unsafe { libc::bind(fd.as_raw_fd(), name.as_ptr(), name.len()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let standard = std::net::UdpSocket::from(fd);
    let local = standard.local_addr()?;
    Ok(UdpSocket { fd: standard.into(), local, segmentation: AtomicBool::new(true) })
}

fn configure(fd: BorrowedFd<'_>, address: SocketAddr) -> io::Result<()> {
    if let SocketAddr::V6(v6) = address {
        let only = libc::c_int::from(*v6.ip() != Ipv6Addr::UNSPECIFIED);
        set(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, only)?;
        set(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
        set(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)?;
    }
    // On a dual-stack socket these govern the IPv4 half; a socket for IPv6 alone takes them without effect.
    set(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)?;
    if address.is_ipv4() {
        set(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
    }
    if set(fd, libc::SOL_UDP, libc::UDP_GRO, 1).is_err() {
        tracing::warn!("the kernel does not coalesce UDP on receipt: the encrypted path will be slow");
    }
    for (forced, plain) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
        set(fd, libc::SOL_SOCKET, forced, BUFFER_BYTES).or_else(|_| set(fd, libc::SOL_SOCKET, plain, BUFFER_BYTES))?;
    }
    let timeout = libc::timeval { tv_sec: SEND_TIMEOUT.as_secs() as _, tv_usec: 0 };
    set_value(fd, libc::SOL_SOCKET, libc::SO_SNDTIMEO, timeout)
}

fn set(fd: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    set_value(fd, level, option, value)
}

/// Sets an option to a value of the type that the kernel reads for it.
fn set_value<T: Copy>(fd: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int, value: T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads at most `length` bytes of the value, which lives until the call returns.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const value).cast(), length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn bound(address: &str) -> UdpSocket {
        UdpSocket::bind(address.parse().unwrap()).unwrap()
    }

    /// Every segment that arrives within 5 s until `count` have, with where it came from and was sent to.
    fn segments(socket: &UdpSocket, count: usize) -> Vec<(Vec<u8>, SocketAddr, Option<IpAddr>)> {
        let (mut batch, mut found) = (ReceiveBatch::new(4), Vec::new());
        let deadline = Instant::now() + Duration::from_secs(5);
        let wake = crate::wake::Wake::new().unwrap();
        while found.len() < count && Instant::now() < deadline {
            wake.wait_readable(socket.as_fd(), Some(Duration::from_millis(50))).unwrap();
            socket.receive(&mut batch).unwrap();
            for arrival in batch.arrivals() {
                let segments = arrival.bytes.chunks(arrival.segment_size);
                found.extend(segments.map(|segment| (segment.to_vec(), arrival.from, arrival.to)));
            }
        }
        found
    }

    #[test]
    fn segments_arrive_as_they_were_cut_over_either_family_of_a_dual_stack_socket() {
        let receiver = bound("[::]:0");
        let port = receiver.local_address().port();
        let text: Vec<u8> = (0..2500_u32).map(|n| n as u8).collect();
        for (from, to) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1"), ("[::]:0", "127.0.0.1")] {
            let sender = bound(from);
            let to: IpAddr = to.parse().unwrap();
            let slices = [IoSlice::new(&text[..700]), IoSlice::new(&text[700..])];
            sender.send_segments((to, port).into(), Some(to), &slices, 1000).unwrap();
            let found = segments(&receiver, 3);
            assert_eq!(found.iter().map(|(bytes, ..)| bytes.len()).collect::<Vec<_>>(), [1000, 1000, 500]);
            assert_eq!(found.iter().flat_map(|(bytes, ..)| bytes.clone()).collect::<Vec<_>>(), text);
            let source = SocketAddr::new(to, sender.local_address().port());
            assert!(found.iter().all(|(_, from, local)| *from == source && *local == Some(to)), "{found:?}");
        }
    }

    #[test]
    fn a_device_without_segmentation_gets_single_datagrams() {
        let (sender, receiver) = (bound("127.0.0.1:0"), bound("127.0.0.1:0"));
        sender.note_refusal(&io::Error::from_raw_os_error(libc::EIO));
        sender.send_segments(receiver.local_address(), None, &[IoSlice::new(&[7; 2100])], 1000).unwrap();
        let lengths: Vec<_> = segments(&receiver, 3).iter().map(|(bytes, ..)| bytes.len()).collect();
        assert_eq!(lengths, [1000, 1000, 100]);
    }

    #[test]
    fn no_send_waits_for_ever() {
        let sender = bound("127.0.0.1:0");
        let standard = std::net::UdpSocket::from(sender.fd.try_clone().unwrap());
        assert_eq!(standard.write_timeout().unwrap(), Some(SEND_TIMEOUT));
    }

    #[test]
    fn a_port_in_use_is_its_own_error() {
        let first = bound("127.0.0.1:0");
        assert!(matches!(UdpSocket::bind(first.local_address()), Err(BindError::InUse(_))));
    }

    #[test]
    fn a_source_that_is_not_ours_and_a_closed_port_do_not_stop_the_sender() {
        let sender = bound("[::]:0");
        let closed = bound("127.0.0.1:0").local_address();
        let receiver = bound("127.0.0.1:0");
        for destination in [closed, closed, receiver.local_address()] {
            let foreign = Some("192.0.2.1".parse().unwrap());
            sender.send_segments(destination, foreign, &[IoSlice::new(b"hello")], 5).unwrap();
        }
        assert_eq!(segments(&receiver, 1).len(), 1);
    }
}
