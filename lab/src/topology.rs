//! Names and addresses: everything about a lab follows from its name and a host's number, so that a lab can be found
//! again by anyone who knows its name, and labs side by side never meet.
//!
//! Host number n has one link to the fabric: `eth0` in the host's namespace, `hn` in the fabric's. Each link is a network of
//! its own, IPv4 out of the benchmark range of RFC 2544 and IPv6 out of a unique local prefix, both outside of the overlay.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Begins the name of every namespace of every lab.
pub const NAMESPACE_PREFIX: &str = "mwlab-";
/// Holds a directory per lab, and in it one per host.
pub const ROOT: &str = "/run/meshlab";
/// The host's end of its link.
pub const HOST_LINK: &str = "eth0";
/// IPv4 prefix length of a link: two addresses, the fabric's and the host's.
pub const PREFIX4: u8 = 30;
/// IPv6 prefix length of a link.
pub const PREFIX6: u8 = 64;
/// Most hosts of one lab: 198.18.0.0/15 holds 2^15 links, the kernel of a small machine some hundred namespaces.
pub const MAX_HOSTS: u16 = 1000;

/// Default ranges of the overlay, as the daemon has them.
pub const OVERLAY4: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 32, 0, 0), 12);
/// See [`OVERLAY4`].
pub const OVERLAY6: (Ipv6Addr, u8) = (Ipv6Addr::new(0xfd4d, 0x6573, 0x6877, 0, 0, 0, 0, 0), 48);

/// Name of a lab: letters and digits only, since a dash ends it within a namespace's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LabName(String);

impl LabName {
    /// Takes 1 to 16 of a-z and 0-9.
    ///
    /// # Errors
    /// [`Error::BadName`].
    pub fn new(name: &str) -> Result<Self> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if (1..=16).contains(&name.len()) && name.bytes().all(allowed) {
            return Ok(Self(name.to_owned()));
        }
        Err(Error::BadName { what: "lab", name: name.to_owned(), rule: "1 to 16 of a-z and 0-9" })
    }

    /// What every namespace of this lab, and of no other, begins with.
    #[must_use]
    pub fn namespace_prefix(&self) -> String {
        format!("{NAMESPACE_PREFIX}{self}-")
    }

    /// Namespace that routes between the hosts.
    #[must_use]
    pub fn fabric(&self) -> String {
        format!("{NAMESPACE_PREFIX}{self}-fabric")
    }

    /// Namespace of a host.
    #[must_use]
    pub fn host(&self, host: HostNumber) -> String {
        format!("{NAMESPACE_PREFIX}{self}-{host}")
    }

    /// Namespace of the address translator in front of a host.
    #[must_use]
    pub fn nat(&self, host: HostNumber) -> String {
        format!("{NAMESPACE_PREFIX}{self}-nat-{host}")
    }

    /// Namespace of a pod on a host.
    #[must_use]
    pub fn pod(&self, host: HostNumber, pod: &str) -> String {
        format!("{NAMESPACE_PREFIX}{self}-{host}-{pod}")
    }

    /// Everything that this lab keeps in files.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        Path::new(ROOT).join(&self.0)
    }

    /// The name itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LabName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Which host: 1 is `h1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostNumber(u16);

impl HostNumber {
    /// `h1`.
    pub const FIRST: Self = Self(1);

    /// The number `number`, from 1 to [`MAX_HOSTS`].
    #[must_use]
    pub fn new(number: u16) -> Option<Self> {
        (1..=MAX_HOSTS).contains(&number).then_some(Self(number))
    }

    /// Reads `h1`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let digits = name.strip_prefix('h')?;
        let number = digits.parse().ok()?;
        // "h01" and "h+1" would name a second host of the same number.
        (digits == format!("{number}")).then(|| Self::new(number)).flatten()
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u16 {
        self.0
    }

    /// Address of the host on its link.
    #[must_use]
    pub fn address4(self) -> Ipv4Addr {
        self.link4(2)
    }

    /// Address of the fabric on the host's link: its default gateway.
    #[must_use]
    pub fn gateway4(self) -> Ipv4Addr {
        self.link4(1)
    }

    /// Address of the host on its link.
    #[must_use]
    pub fn address6(self) -> Ipv6Addr {
        self.link6(2)
    }

    /// Address of the fabric on the host's link: its default gateway.
    #[must_use]
    pub fn gateway6(self) -> Ipv6Addr {
        self.link6(1)
    }

    fn link4(self, end: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() + u32::from(self.0) * 4 + end)
    }

    fn link6(self, end: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x6c61, 0x62, self.0, 0, 0, 0, end)
    }
}

impl fmt::Display for HostNumber {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "h{}", self.0)
    }
}

/// Pod names are part of namespace names and container ids.
pub(crate) fn check_pod_name(name: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=40).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(Error::BadName { what: "pod", name: name.to_owned(), rule: "1 to 40 of a-z, 0-9 and -" })
}

/// Whether an address belongs to pods (with the default ranges).
#[must_use]
pub fn is_overlay(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.to_bits() >> (32 - OVERLAY4.1) == OVERLAY4.0.to_bits() >> (32 - OVERLAY4.1),
        IpAddr::V6(address) => address.to_bits() >> (128 - OVERLAY6.1) == OVERLAY6.0.to_bits() >> (128 - OVERLAY6.1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dash_cannot_make_one_lab_part_of_another() {
        assert!(LabName::new("a-b").is_err());
        assert!(LabName::new("").is_err());
        assert!(LabName::new("../x").is_err());
        assert_eq!(LabName::new("demo3").unwrap().host(HostNumber::new(2).unwrap()), "mwlab-demo3-h2");
    }

    #[test]
    fn every_host_has_one_spelling() {
        assert_eq!(HostNumber::parse("h12").map(HostNumber::get), Some(12));
        for wrong in ["h0", "h01", "h+1", "1", "h", "h1001", "h99999"] {
            assert_eq!(HostNumber::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn links_are_networks_of_their_own() {
        let (first, last) = (HostNumber::new(1).unwrap(), HostNumber::new(MAX_HOSTS).unwrap());
        assert_eq!(first.address4(), Ipv4Addr::new(198, 18, 0, 6));
        assert_eq!(first.gateway4(), Ipv4Addr::new(198, 18, 0, 5));
        assert_eq!(last.address4(), Ipv4Addr::new(198, 18, 15, 162));
        assert_eq!(first.address6().to_string(), "fd00:6c61:62:1::2");
    }

    #[test]
    fn the_underlay_is_no_overlay() {
        let host = HostNumber::new(7).unwrap();
        assert!(!is_overlay(host.address4().into()));
        assert!(!is_overlay(host.address6().into()));
        assert!(is_overlay("10.47.255.255".parse().unwrap()));
        assert!(!is_overlay("10.48.0.0".parse().unwrap()));
        assert!(is_overlay("fd4d:6573:6877:ffff::1".parse().unwrap()));
        assert!(!is_overlay("fd4d:6573:6878::1".parse().unwrap()));
    }
}
