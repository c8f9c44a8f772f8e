//! Ethernet addresses of pod links, the same for everyone who knows the lease.

use std::fmt;

use crate::model::Lease;

/// Locally administered, unicast (IEEE 802c): the host end.
const HOST_KIND: u64 = 0x2;

/// Locally administered, unicast, and unlike [`HOST_KIND`]: the pod's end.
const POD_KIND: u64 = 0x6;

/// Hex digits behind `mw` in the name of a host end.
const DIGITS: usize = 11;

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl Mac {
    /// Reads six hex bytes with colons between them.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = text.split(':').map(|byte| (byte.len() == 2).then(|| u8::from_str_radix(byte, 16).ok())?);
        let mut mac = [0; 6];
        for place in &mut mac {
            *place = bytes.next()??;
        }
        bytes.next().is_none().then_some(Self(mac))
    }
}

/// Ethernet addresses of the two ends of a pod's link. Fixed ones make both ends known before there is a link, so that
/// neither side ever asks for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkMacs {
    /// The end on the node.
    pub host: Mac,
    /// The end in the pod.
    pub pod: Mac,
}

impl LinkMacs {
    /// Derives them from the name of the host end: its 44 bits fill both addresses but for the four that tell the ends
    /// apart. Nothing where the name is not `mw` and 11 hex digits.
    #[must_use]
    pub fn of_host_interface(name: &str) -> Option<Self> {
        let digits = name.strip_prefix("mw").filter(|digits| digits.len() == DIGITS)?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        let bits = u64::from_str_radix(digits, 16).ok()?;
        // The first digit shares its byte with the kind, the other ten fill the rest.
        let (first, rest) = (bits >> 40, bits & 0xff_ffff_ffff);
        let mac = |kind: u64| {
            let [_, _, mac @ ..] = (((first << 4 | kind) << 40) | rest).to_be_bytes();
            Mac(mac)
        };
        Some(Self { host: mac(HOST_KIND), pod: mac(POD_KIND) })
    }

    /// Those of a lease.
    #[must_use]
    pub fn of(lease: &Lease) -> Option<Self> {
        Self::of_host_interface(&lease.host_interface)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_of_the_name_is_in_both_addresses() {
        let macs = LinkMacs::of_host_interface("mwa123456789b").unwrap();
        assert_eq!(
            (macs.host.to_string().as_str(), macs.pod.to_string().as_str()),
            ("a2:12:34:56:78:9b", "a6:12:34:56:78:9b")
        );
        let macs = LinkMacs::of_host_interface("mwfffffffffff").unwrap();
        assert_eq!(
            (macs.host.to_string().as_str(), macs.pod.to_string().as_str()),
            ("f2:ff:ff:ff:ff:ff", "f6:ff:ff:ff:ff:ff")
        );
    }

    #[test]
    fn an_address_is_read_as_it_is_written() {
        let mac = Mac([2, 0, 0xab, 0, 0, 1]);
        assert_eq!(Mac::parse(&mac.to_string()), Some(mac));
        for text in
            ["", "02:00:ab:00:00", "02:00:ab:00:00:01:02", "2:0:ab:0:0:1", "02-00-ab-00-00-01", "zz:00:ab:00:00:01"]
        {
            assert_eq!(Mac::parse(text), None, "{text}");
        }
    }

    #[test]
    fn both_are_unicast_and_locally_administered() {
        let macs = LinkMacs::of_host_interface("mwfffffffffff").unwrap();
        for mac in [macs.host, macs.pod] {
            assert_eq!(mac.0[0] & 3, 2);
        }
    }

    #[test]
    fn other_names_have_none() {
        for name in ["", "mw", "mw0123456789", "mw0123456789ab", "mw+123456789a", "mx0123456789a", "mw0123456789g"] {
            assert_eq!(LinkMacs::of_host_interface(name), None, "{name}");
        }
    }
}
