//! The TUN device with offloads: packets of up to 64 KB cross it whole, each behind a virtio-net header. As a TAP it
//! carries Ethernet frames in the same way.
//!
//! A [`Tun`] owns one queue's descriptor. Reading and writing take `&self`, so one thread may read while another
//! writes. A persistent device outlives its descriptor (and with it the routes that point at it); adding addresses and
//! bringing it up is the netlink side's part. Source: linux/if_tun.h, and VIRTIO 1.2 section 5.1.6 for the header.

mod header;

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

pub use header::{GsoKind, VNET_HEADER_LEN, VnetHeader};

// linux/if_tun.h, computed as _IOW('T', n, int) there.
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
const TUNSETPERSIST: libc::c_ulong = 0x4004_54cb;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
const TUNSETVNETHDRSZ: libc::c_ulong = 0x4004_54d8;
const TUNSETVNETLE: libc::c_ulong = 0x4004_54dc;

const TUN_F_CSUM: libc::c_ulong = 0x01;
const TUN_F_TSO4: libc::c_ulong = 0x02;
const TUN_F_TSO6: libc::c_ulong = 0x04;
const TUN_F_TSO_ECN: libc::c_ulong = 0x08;
const TUN_F_USO4: libc::c_ulong = 0x20;
const TUN_F_USO6: libc::c_ulong = 0x40;

/// Largest packet to hand to a TUN at once, in bytes: what one UDP send can carry once sealed. A larger one would cost
/// a second, tiny send. Everything that feeds the TUN needs the same limit: the kernel cuts what exceeds it into single
/// packets.
pub const GSO_MAX_SIZE: u32 = 61_000;

/// The same in segments: 44 datagrams of 1,472 bytes are the most that fit one send.
pub const GSO_MAX_SEGMENTS: u32 = 44;

/// What a device carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layer {
    /// IP packets: a TUN.
    #[default]
    Ip,
    /// Ethernet frames: a TAP.
    Ethernet,
}

/// How to open a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TunOptions {
    /// What it carries.
    pub layer: Layer,
    /// Leave the device in place when the descriptor closes.
    pub persistent: bool,
}

/// The device cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// The name does not fit the kernel's 15 bytes or holds a zero.
    #[error("`{0}` cannot be a device name: at most 15 bytes")]
    Name(String),
    /// There is no TUN driver to open.
    #[error("cannot open /dev/net/tun: {0}; load the `tun` module or give the container the device")]
    Driver(#[source] io::Error),
    /// Another process has the device open.
    #[error("device {0} is held by another process; stop that one first")]
    Busy(String),
    /// The kernel refuses a setting.
    #[error("the kernel refuses {what} on device {name}: {source}; this needs CAP_NET_ADMIN")]
    Refused {
        /// The device.
        name: String,
        /// What was asked for.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// An open TUN device.
#[derive(Debug)]
pub struct Tun {
    file: File,
    name: String,
    udp_segmentation: bool,
}

impl Tun {
    /// Opens the device `name`, making it if there is none, with checksum and TCP segmentation offload, and with UDP
    /// segmentation where the kernel has it (6.2).
    pub fn open(name: &str, options: TunOptions) -> Result<Self, TunError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")
            .map_err(TunError::Driver)?;
        attach(&file, name, options.layer)?;
        let refused = |what| move |source| TunError::Refused { name: name.to_owned(), what, source };
        control_int(&file, TUNSETVNETHDRSZ, VNET_HEADER_LEN as libc::c_int).map_err(refused("the header size"))?;
        control_int(&file, TUNSETVNETLE, 1).map_err(refused("little-endian headers"))?;
        let udp_segmentation = offload(&file).map_err(refused("offloads"))?;
        control(&file, TUNSETPERSIST, options.persistent.into()).map_err(refused("persistence"))?;
        Ok(Self { file, name: name.to_owned(), udp_segmentation })
    }

    /// The device's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether UDP datagrams may be written (and are read) coalesced.
    #[must_use]
    pub fn udp_segmentation(&self) -> bool {
        self.udp_segmentation
    }

    /// Reads one packet behind its header into `buffer`: the length of both, or `None` while there is nothing to read.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match io::Read::read(&mut &self.file, buffer) {
            Ok(length) => Ok(Some(length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            // A packet whose kind no header can tell; the kernel has dropped it, and the next one may be read.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits until there is something to read or `timeout` is over (`None`: no limit), to the microsecond where
    /// [`crate::wake::Wake`] waits to the millisecond; whether there is.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<bool> {
        let mut entry = libc::pollfd { fd: self.file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let timeout = timeout.map(|limit| libc::timespec {
            tv_sec: limit.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: limit.subsec_nanos().into(),
        });
        let limit = timeout.as_ref().map_or(std::ptr::null(), |limit| limit as *const libc::timespec);
        // SAFETY: one entry and the time, if any, live until the call returns; no signal mask is given.
        match unsafe { libc::ppoll(&raw mut entry, 1, limit, std::ptr::null()) } {
            count if count >= 0 => Ok(count > 0),
            _ => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => Ok(false),
                error => Err(error),
            },
        }
    }

    /// Writes one packet, given as its header and parts in `slices`. The kernel takes it whole or not at all.
    pub fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<()> {
        io::Write::write_vectored(&mut &self.file, slices).map(|_| ())
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn attach(file: &File, name: &str, layer: Layer) -> Result<(), TunError> {
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains('\0') {
        return Err(TunError::Name(name.to_owned()));
    }
    // SAFETY: ifreq is plain data for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = byte.cast_signed();
    }
    let kind = match layer {
        Layer::Ip => libc::IFF_TUN,
        Layer::Ethernet => libc::IFF_TAP,
    };
    request.ifr_ifru.ifru_flags = (kind | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which lives until the call returns.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) };
    if result == 0 {
        return Ok(());
    }
    let source = io::Error::last_os_error();
    Err(match source.raw_os_error() {
        Some(libc::EBUSY) => TunError::Busy(name.to_owned()),
        _ => TunError::Refused { name: name.to_owned(), what: "the device", source },
    })
}

/// Turns offloads on: with UDP segmentation (true) or, on an older kernel, without.
fn offload(file: &File) -> io::Result<bool> {
    let basic = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
    if control(file, TUNSETOFFLOAD, basic | TUN_F_USO4 | TUN_F_USO6).is_ok() {
        return Ok(true);
    }
    tracing::info!("this kernel has no UDP segmentation on TUN: small datagrams will be slower");
    control(file, TUNSETOFFLOAD, basic).map(|()| false)
}

fn control(file: &File, request: libc::c_ulong, argument: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the requests given here take their argument by value.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request as _, argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn control_int(file: &File, request: libc::c_ulong, argument: libc::c_int) -> io::Result<()> {
    // SAFETY: the requests given here read one int, which lives until the call returns.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request as _, &raw const argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_kernel_cannot_hold_are_refused() {
        for name in ["", "sixteen-bytes-xx", "zero\0byte"] {
            let error = Tun::open(name, TunOptions::default()).unwrap_err();
            assert!(matches!(error, TunError::Name(_)), "{error}");
        }
    }

    #[test]
    fn what_one_layer_made_the_other_does_not_open() {
        let name = format!("mwt-l{}", std::process::id() % 1_000_000);
        let tap = Tun::open(&name, TunOptions { layer: Layer::Ethernet, persistent: false }).unwrap();
        assert!(!tap.wait(Some(Duration::from_micros(50))).unwrap(), "a device that is down has nothing to read");
        assert!(matches!(Tun::open(&name, TunOptions::default()), Err(TunError::Refused { .. })));
    }

    #[test]
    fn a_second_holder_is_told_that_the_device_is_busy() {
        let name = format!("mwt-t{}", std::process::id() % 1_000_000);
        let first = Tun::open(&name, TunOptions::default()).unwrap();
        assert_eq!(first.name(), name);
        assert!(matches!(Tun::open(&name, TunOptions::default()), Err(TunError::Busy(_))));
        assert_eq!(first.read(&mut [0; 2048]).unwrap(), None, "a device that is down has nothing to read");
    }
}
