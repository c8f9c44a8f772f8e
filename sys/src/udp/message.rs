//! The kernel's message structures: names, control messages, and the receive batch.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::{mem, ptr};

/// The longest run of segments the kernel coalesces.
const RUN_BYTES: usize = 65_535;
/// Space for a segment size and a packet-info of either family, with room to spare.
const CONTROL_BYTES: usize = 128;

#[repr(align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL_BYTES]);

/// A socket address in the kernel's form.
pub(super) struct SocketName {
    storage: libc::sockaddr_storage,
    length: libc::socklen_t,
}

impl SocketName {
    pub(super) fn as_ptr(&self) -> *const libc::sockaddr {
        (&raw const self.storage).cast()
    }

    pub(super) fn len(&self) -> libc::socklen_t {
        self.length
    }
}

impl From<SocketAddr> for SocketName {
    fn from(address: SocketAddr) -> Self {
        // SAFETY: sockaddr_storage is plain data for which all zeroes is a value.
        let mut storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
        let length = match address {
            SocketAddr::V4(v4) => {
                // SAFETY: the storage is as large and as aligned as any socket address.
                let name = unsafe { &mut *(&raw mut storage).cast::<libc::sockaddr_in>() };
                name.sin_family = libc::AF_INET as libc::sa_family_t;
                name.sin_port = v4.port().to_be();
                name.sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
                size_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(v6) => {
                // SAFETY: the storage is as large and as aligned as any socket address.
                let name = unsafe { &mut *(&raw mut storage).cast::<libc::sockaddr_in6>() };
                name.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                name.sin6_port = v6.port().to_be();
                name.sin6_addr.s6_addr = v6.ip().octets();
                name.sin6_scope_id = v6.scope_id();
                size_of::<libc::sockaddr_in6>()
            }
        };
        Self { storage, length: length as libc::socklen_t }
    }
}

/// The address in `storage`, IPv4-mapped ones as IPv4; `None` for another family.
fn address_of(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that this is a sockaddr_in, and the storage is large enough for any.
            let name = unsafe { &*ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes());
            Some((ip, u16::from_be(name.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that this is a sockaddr_in6, and the storage is large enough for any.
            let name = unsafe { &*ptr::from_ref(storage).cast::<libc::sockaddr_in6>() };
            let (ip, port) = (Ipv6Addr::from(name.sin6_addr.s6_addr), u16::from_be(name.sin6_port));
            Some(match ip.to_ipv4_mapped() {
                Some(v4) => (v4, port).into(),
                None => SocketAddrV6::new(ip, port, 0, name.sin6_scope_id).into(),
            })
        }
        _ => None,
    }
}

/// One send, with its control messages.
pub(super) struct Outgoing {
    name: SocketName,
    control: Control,
    control_length: usize,
}

impl Outgoing {
    pub(super) fn new(destination: SocketAddr, source: Option<IpAddr>, segment_size: Option<u16>) -> Self {
        let mut outgoing = Self { name: destination.into(), control: Control([0; CONTROL_BYTES]), control_length: 0 };
        if let Some(size) = segment_size {
            outgoing.push(libc::SOL_UDP, libc::UDP_SEGMENT, size);
        }
        match (source, destination) {
            (Some(IpAddr::V4(v4)), SocketAddr::V4(_)) => outgoing.push_source4(v4),
            (Some(IpAddr::V4(v4)), SocketAddr::V6(_)) => outgoing.push_source6(v4.to_ipv6_mapped()),
            (Some(IpAddr::V6(v6)), SocketAddr::V6(_)) => outgoing.push_source6(v6),
            _ => {}
        }
        outgoing
    }

    fn push_source4(&mut self, source: Ipv4Addr) {
        let address = libc::in_addr { s_addr: u32::from_ne_bytes(source.octets()) };
        let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: address, ipi_addr: libc::in_addr { s_addr: 0 } };
        self.push(libc::IPPROTO_IP, libc::IP_PKTINFO, info);
    }

    fn push_source6(&mut self, source: Ipv6Addr) {
        let info = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: source.octets() }, ipi6_ifindex: 0 };
        self.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
    }

    /// Appends one control message. At most a segment size and one packet-info are, which always fit.
    fn push<T: Copy>(&mut self, level: libc::c_int, kind: libc::c_int, value: T) {
        // SAFETY: both macros only compute sizes.
        let (length, space) =
            unsafe { (libc::CMSG_LEN(size_of::<T>() as u32), libc::CMSG_SPACE(size_of::<T>() as u32)) };
        let Some(place) = self.control.0.get_mut(self.control_length..self.control_length + space as usize) else {
            return;
        };
        let header = place.as_mut_ptr().cast::<libc::cmsghdr>();
        // SAFETY: the buffer is 8-aligned, every space a multiple of 8, and `place` holds the header and the value.
        unsafe {
            (*header).cmsg_len = length as _;
            (*header).cmsg_level = level;
            (*header).cmsg_type = kind;
            libc::CMSG_DATA(header).cast::<T>().write_unaligned(value);
        }
        self.control_length += space as usize;
    }

    /// Sends with `MSG_` flags of the caller's.
    pub(super) fn send(&self, fd: BorrowedFd<'_>, slices: &[IoSlice<'_>], flags: libc::c_int) -> io::Result<()> {
        // SAFETY: msghdr is plain data for which all zeroes is a value.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_name = self.name.as_ptr().cast_mut().cast();
        message.msg_namelen = self.name.len();
        message.msg_iov = slices.as_ptr().cast_mut().cast();
        message.msg_iovlen = slices.len() as _;
        if self.control_length > 0 {
            message.msg_control = self.control.0.as_ptr().cast_mut().cast();
            message.msg_controllen = self.control_length as _;
        }
        // SAFETY: name, slices (`IoSlice` has iovec's layout) and control outlive the call, which only reads them.
        let result = unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL | flags) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// One run of equal segments from one sender.
#[derive(Debug)]
pub struct Arrival<'a> {
    /// The segments, one behind the other; never empty.
    pub bytes: &'a mut [u8],
    /// Bytes of each but the last, which may be shorter; at least 1.
    pub segment_size: usize,
    /// The sender.
    pub from: SocketAddr,
    /// The address of ours it was sent to.
    pub to: Option<IpAddr>,
}

/// Buffers for what one call receives; made once and used again.
pub struct ReceiveBatch {
    buffers: Vec<Box<[u8]>>,
    names: Vec<libc::sockaddr_storage>,
    controls: Vec<Control>,
    messages: Vec<libc::mmsghdr>,
    vectors: Vec<libc::iovec>,
    count: usize,
}

// SAFETY: the raw pointers in `messages` and `vectors` point only into this batch's own buffers, are rewritten before
// every call, and are used by nobody else.
unsafe impl Send for ReceiveBatch {}

impl ReceiveBatch {
    /// A batch that takes up to `runs` runs at once, 64 KB each.
    #[must_use]
    pub fn new(runs: usize) -> Self {
        // SAFETY: these are plain data for which all zeroes is a value.
        let (name, message, vector) = unsafe { (mem::zeroed(), mem::zeroed(), mem::zeroed()) };
        Self {
            buffers: (0..runs).map(|_| vec![0; RUN_BYTES].into_boxed_slice()).collect(),
            names: vec![name; runs],
            controls: vec![Control([0; CONTROL_BYTES]); runs],
            messages: vec![message; runs],
            vectors: vec![vector; runs],
            count: 0,
        }
    }

    /// What the last call received.
    pub fn arrivals(&mut self) -> impl Iterator<Item = Arrival<'_>> {
        let parts = self.buffers.iter_mut().zip(&self.names).zip(&self.messages).take(self.count);
        parts.filter_map(|((buffer, name), message)| {
            let bytes = buffer.get_mut(..message.msg_len as usize).filter(|bytes| !bytes.is_empty())?;
            let (segment_size, to) = read_control(&message.msg_hdr);
            let segment_size = segment_size.filter(|size| *size > 0).unwrap_or(bytes.len());
            Some(Arrival { bytes, segment_size, from: address_of(name)?, to })
        })
    }

    pub(super) fn receive(&mut self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        self.count = 0;
        self.arm();
        let flags = libc::MSG_DONTWAIT;
        let limit = self.messages.len() as libc::c_uint;
        // SAFETY: `arm` has pointed every message at buffers of this batch that outlive the call.
        let result =
            unsafe { libc::recvmmsg(fd.as_raw_fd(), self.messages.as_mut_ptr(), limit, flags as _, ptr::null_mut()) };
        self.count = usize::try_from(result).map_err(|_| io::Error::last_os_error())?;
        Ok(self.count)
    }

    fn arm(&mut self) {
        let parts = self.messages.iter_mut().zip(&mut self.vectors).zip(&mut self.buffers);
        for (((message, vector), buffer), (name, control)) in parts.zip(self.names.iter_mut().zip(&mut self.controls)) {
            vector.iov_base = buffer.as_mut_ptr().cast();
            vector.iov_len = buffer.len();
            message.msg_len = 0;
            let header = &mut message.msg_hdr;
            header.msg_name = ptr::from_mut(name).cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_iov = vector;
            header.msg_iovlen = 1;
            header.msg_control = control.0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL_BYTES as _;
            header.msg_flags = 0;
        }
    }
}

/// Segment size and local address among the control messages of a received `message`.
fn read_control(message: &libc::msghdr) -> (Option<usize>, Option<IpAddr>) {
    let (mut size, mut local) = (None, None);
    // SAFETY: the kernel has filled the control buffer that the header points to and set its length; the macros stay
    // inside it.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !next.is_null() {
        // SAFETY: the macros return headers inside the control buffer only.
        let header = unsafe { &*next };
        // SAFETY: data follows the header; each read below is of the type that the level and kind promise.
        unsafe {
            let data = libc::CMSG_DATA(next);
            match (header.cmsg_level, header.cmsg_type) {
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    size = usize::try_from(data.cast::<libc::c_int>().read_unaligned()).ok();
                }
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = data.cast::<libc::in_pktinfo>().read_unaligned();
                    local = Some(IpAddr::from(info.ipi_addr.s_addr.to_ne_bytes()));
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = data.cast::<libc::in6_pktinfo>().read_unaligned();
                    local = Some(IpAddr::from(info.ipi6_addr.s6_addr).to_canonical());
                }
                _ => {}
            }
            next = libc::CMSG_NXTHDR(message, next);
        }
    }
    (size, local)
}
