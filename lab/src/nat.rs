//! Hosts behind an address translator of their own.
//!
//! ```text
//! fabric, hN ── eth0, translator, inside ── eth0, host
//!         198.18.0.x                    192.168.1.x
//! ```
//!
//! The translator has the addresses that the host would have, and gives the host a private one: the same behind every
//! translator, as at people's homes. It lets in what belongs to something that went out, nothing else, and no IPv6.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use meshwork_sys::netlink::{InterfaceAddress, Netlink, Route, Scope, Veth};
use meshwork_sys::nft;

use crate::error::{Error, Result};
use crate::namespace::Namespace;
use crate::topology::{HOST_LINK, HostNumber, LabName};

/// The translator's end of the link to its host.
const INSIDE_LINK: &str = "inside";
/// Addresses of the translator and of the host behind it.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
const PRIVATE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);
const PREFIX: u8 = 24;

/// What kind of translator stands in front of a host (RFC 4787).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nat {
    /// One outer port for each inner one, open to addresses and ports that were written to: what most homes have.
    /// Two such hosts can reach each other if both begin.
    PortRestricted,
    /// An outer port of its own, taken at random, for each address and port that is written to: nobody else can foresee
    /// it.
    Symmetric,
}

impl Nat {
    fn table(self) -> String {
        let ports = match self {
            Self::PortRestricted => "",
            Self::Symmetric => "fully-random",
        };
        format!(
            "table inet meshlab {{
    chain postrouting {{
        type nat hook postrouting priority 100
        oifname \"{HOST_LINK}\" meta nfproto ipv4 masquerade {ports}
    }}
    chain forward {{
        type filter hook forward priority 0; policy drop
        iifname \"{INSIDE_LINK}\" accept
        ct state established,related accept
    }}
}}
"
        )
    }
}

/// Makes the translator of a host, still without links.
pub(crate) fn create(lab: &LabName, host: HostNumber, kind: Nat) -> Result<Namespace> {
    let namespace = Namespace::create(lab.nat(host))?;
    namespace.sysctl("net.ipv4.ip_forward", "1")?;
    namespace.run(|| nft::apply(&kind.table()))??;
    Ok(namespace)
}

/// Links a host to its translator.
pub(crate) fn attach(translator: &Namespace, host: &Namespace) -> Result<()> {
    let mut outer = translator.netlink()?;
    outer.create_veth(&Veth { peer_netns: Some(&host.open()?), ..Veth::new(INSIDE_LINK, HOST_LINK) })?;
    configure(&mut outer, INSIDE_LINK, GATEWAY)?;
    let mut inner = host.netlink()?;
    configure(&mut inner, HOST_LINK, PRIVATE)?;
    Ok(inner.replace_route(&Route { gateway: Some(GATEWAY.into()), ..Route::new(Ipv4Net::default().into()) })?)
}

/// Takes the link to the host away.
pub(crate) fn detach(translator: &Namespace) -> Result<()> {
    Ok(translator.netlink()?.delete_link(INSIDE_LINK)?)
}

fn configure(netlink: &mut Netlink, link: &str, address: Ipv4Addr) -> Result<()> {
    let index = netlink.link(link)?.map(|found| found.index);
    let index = index.ok_or_else(|| Error::Unproven(format!("link {link} vanished while a NAT was being made")))?;
    let net = IpNet::new_assert(address.into(), PREFIX);
    netlink.add_address(index, &InterfaceAddress { net, scope: Scope::Global, nodad: true })?;
    Ok(netlink.set_up(index)?)
}
