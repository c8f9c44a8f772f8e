//! The UDP socket of the data path: one system call carries up to 64 KB of equal segments either way.
//!
//! A [`UdpSocket`] is shared by all threads (`&self`). Sending asks the kernel to segment (`UDP_SEGMENT`), and falls
//! back to one call per segment where a device cannot; receiving takes runs of segments that the kernel has coalesced
//! (`UDP_GRO`).
//!
//! **Don't-fragment policy:** every datagram leaves with DF set and without regard to the kernel's path MTU cache
//! (`IP_PMTUDISC_PROBE`). The outer packet is thus never fragmented silently, forged ICMP cannot shrink the path, and
//! QUIC's own MTU discovery (RFC 8899), which shares the socket, works. A datagram larger than the device's MTU is
//! refused with `EMSGSIZE`.

mod message;
mod socket;

pub use message::{Arrival, ReceiveBatch};
pub use socket::{BindError, UdpSocket};

/// Most segments one send may carry: the limit of kernels before 6.9.
pub const MAX_SEGMENTS: usize = 64;
/// Most bytes one send may carry: the largest UDP payload over IPv4.
pub const MAX_SEND_BYTES: usize = 65_507;
