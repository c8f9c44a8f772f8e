//! The nftables table `inet meshwork`: the fail-closed guard, the source check of pods, and address translation where
//! traffic enters or leaves the overlay. Pure: it writes the script that the driver hands to `nft`.
//!
//! The guard stands in `postrouting` behind everything else: an overlay destination leaves by the TUN, by a pod's link
//! or not at all. Its mirror in `prerouting` takes overlay sources from nowhere else. `hide` in `input` keeps others from
//! the host at the node's own addresses unless it is exposed. Where clear is allowed at all, its
//! devices belong to the overlay, and their tunnel packets pass between the allowed pairs of addresses alone. Sets and
//! counters live on when the script is applied again; only rules and elements are replaced, in one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::IpAddr;

use super::clear::{Clear, VXLAN_NAME, VXLAN6_NAME};
use super::desired::Overlay;
use super::{POD_LINK_PREFIX, TUN_NAME};

/// Name of the table.
pub const TABLE_NAME: &str = "meshwork";

/// Family and name of the table.
const TABLE: &str = "inet meshwork";

/// Counter of overlay packets that were about to leave, or that came, in clear.
pub const CLEAR_BLOCKED: &str = "clear_blocked";

/// Counter of packets of the clear path between addresses for which clear is not allowed, and of packets out of it that
/// do not belong there.
pub const CLEAR_REFUSED: &str = "clear_refused";

/// Counter of packets with which a pod pretended to be somebody else.
pub const WRONG_SOURCE: &str = "pod_wrong_source";

/// Counter of packets with which others sought the host at the node's own addresses while it was hidden.
pub const HIDDEN: &str = "hidden";

/// Chains with their hooks, or without one: every packet of every flow passes `sources` and `guard`, so that what is known
/// of a packet's way decides early which few rules look at it. `clear` takes out of connection tracking what is only the
/// outside of a tunnel.
const CHAINS: [(&str, &str); 8] = [
    (POD_SOURCES, ""),
    (CLEAR_INSIDE, ""),
    (CLEAR_OUTSIDE, ""),
    ("sources", "type filter hook prerouting priority -310"),
    ("clear", "type filter hook output priority -310"),
    ("hide", "type filter hook input priority 0"),
    ("translate", "type nat hook postrouting priority 100"),
    ("guard", "type filter hook postrouting priority 300"),
];

/// What pods send.
const POD_SOURCES: &str = "pod_sources";
/// What comes out of the clear path.
const CLEAR_INSIDE: &str = "clear_inside";
/// Tunnel packets of the clear path, either way.
const CLEAR_OUTSIDE: &str = "clear_outside";

/// Sets with their types.
const SETS: [(&str, &str); 12] = [
    ("overlay4", "type ipv4_addr; flags interval;"),
    ("overlay6", "type ipv6_addr; flags interval;"),
    ("local4", "type ipv4_addr; flags interval; auto-merge;"),
    ("local6", "type ipv6_addr; flags interval; auto-merge;"),
    ("pods4", "type ifname . ipv4_addr;"),
    ("pods6", "type ifname . ipv6_addr;"),
    ("unlinked4", "type ipv4_addr;"),
    ("unlinked6", "type ipv6_addr;"),
    ("unmasqueraded4", "type ipv4_addr;"),
    ("unmasqueraded6", "type ipv6_addr;"),
    (CLEAR4, "type ipv4_addr . ipv4_addr;"),
    (CLEAR6, "type ipv6_addr . ipv6_addr;"),
];

/// Pairs of source and destination between which clear is allowed.
const CLEAR4: &str = "clear4";
const CLEAR6: &str = "clear6";

/// Declarations that survive a re-application: adding what exists changes nothing.
fn declare(script: &mut String) {
    line(script, &format!("add table {TABLE}"));
    for counter in [CLEAR_BLOCKED, CLEAR_REFUSED, WRONG_SOURCE, HIDDEN] {
        line(script, &format!("add counter {TABLE} {counter}"));
    }
    for (set, kind) in SETS {
        line(script, &format!("add set {TABLE} {set} {{ {kind} }}"));
        line(script, &format!("flush set {TABLE} {set}"));
    }
    for (chain, hook) in CHAINS {
        let hook = if hook.is_empty() { String::new() } else { format!(" {{ {hook}; }}") };
        line(script, &format!("add chain {TABLE} {chain}{hook}"));
        line(script, &format!("flush chain {TABLE} {chain}"));
    }
}

/// The whole script.
#[must_use]
pub fn script(overlay: &Overlay) -> String {
    let mut script = String::new();
    let clear = overlay.clear.as_ref();
    declare(&mut script);
    element(&mut script, "overlay4", &[overlay.range4.to_string()]);
    element(&mut script, "overlay6", &[overlay.range6.to_string()]);
    let local = |is_v4: bool| {
        let of_family = overlay.local.iter().filter(move |prefix| prefix.addr().is_ipv4() == is_v4);
        of_family.map(ToString::to_string).collect::<Vec<_>>()
    };
    element(&mut script, "local4", &local(true));
    element(&mut script, "local6", &local(false));
    element(&mut script, "pods4", &pod_elements(&overlay.pods, IpAddr::is_ipv4));
    element(&mut script, "pods6", &pod_elements(&overlay.pods, IpAddr::is_ipv6));
    for (set, addresses) in [("unlinked", &overlay.unlinked), ("unmasqueraded", &overlay.unmasqueraded)] {
        element(&mut script, &format!("{set}4"), &addresses_of(addresses, IpAddr::is_ipv4));
        element(&mut script, &format!("{set}6"), &addresses_of(addresses, IpAddr::is_ipv6));
    }
    let inside = Inside::new(clear.is_some());
    pod_sources(&mut script, clear);
    if let Some(clear) = clear {
        clear_path(&mut script, clear);
    }
    sources(&mut script, overlay, &inside);
    hide(&mut script, overlay);
    translate(&mut script, overlay, &inside);
    guard(&mut script, &inside);
    script
}

/// The devices of the overlay, as the rules name them.
struct Inside {
    /// Those that lead to other nodes.
    outward: String,
}

impl Inside {
    fn new(clear: bool) -> Self {
        let names = if clear { vec![TUN_NAME, VXLAN_NAME, VXLAN6_NAME] } else { vec![TUN_NAME] };
        Self { outward: names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ") }
    }

    /// Lets pass what the overlay's own devices bring or take, so that only the rest is looked at.
    fn pass(&self, script: &mut String, chain: &str, direction: &str) {
        rule(script, chain, &format!("{direction} \"{POD_LINK_PREFIX}*\" accept"));
        rule(script, chain, &format!("{direction} {{ \"lo\", {} }} accept", self.outward));
    }

    /// Any device that is not the overlay's.
    fn except(&self, direction: &str) -> String {
        format!("{direction} != {{ \"lo\", {} }} {direction} != \"{POD_LINK_PREFIX}*\"", self.outward)
    }
}

/// Tunnel packets pass only between addresses for which clear is allowed, and out of the tunnel comes only what another
/// node may send to this one. The kernel's end of the tunnel takes whatever comes to its port, broadcast and multicast
/// too, and out of another tunnel. What a host's own processes send is the host's word: the kernel keeps the sender's
/// socket on what it encapsulates, so that the two cannot be told apart.
fn clear_path(script: &mut String, clear: &Clear) {
    let drop = format!("counter name {CLEAR_REFUSED} drop");
    let tunnel = format!("udp dport {}", clear.port);
    rule(script, "sources", &format!("iifname {{ {VXLAN_NAME:?}, {VXLAN6_NAME:?} }} goto {CLEAR_INSIDE}"));
    rule(script, "sources", &format!("{tunnel} fib daddr type != unicast goto {CLEAR_OUTSIDE}"));
    rule(script, "clear", &format!("{tunnel} goto {CLEAR_OUTSIDE}"));
    rule(script, CLEAR_INSIDE, &format!("{tunnel} fib daddr type != unicast {drop}"));
    for (family, is_v4, set) in [("ip", true, CLEAR4), ("ip6", false, CLEAR6)] {
        let pairs = clear.pairs.iter().filter(|(our, _)| our.is_ipv4() == is_v4);
        let both_ways = pairs.flat_map(|(our, their)| [format!("{our} . {their}"), format!("{their} . {our}")]);
        element(script, set, &both_ways.collect::<Vec<_>>());
        rule(script, CLEAR_OUTSIDE, &format!("{family} saddr . {family} daddr @{set} notrack accept"));
        let (overlay, local) = if is_v4 { ("overlay4", "local4") } else { ("overlay6", "local6") };
        rule(script, CLEAR_INSIDE, &format!("{family} saddr != @{overlay} {drop}"));
        rule(script, CLEAR_INSIDE, &format!("{family} saddr @{local} {drop}"));
        rule(script, CLEAR_INSIDE, &format!("{family} daddr != @{local} {drop}"));
    }
    rule(script, CLEAR_OUTSIDE, &drop);
}

/// A pod sends from its own addresses alone, is no router, and speaks to nobody's tunnel.
fn pod_sources(script: &mut String, clear: Option<&Clear>) {
    rule(script, "sources", &format!("iifname \"{POD_LINK_PREFIX}*\" goto {POD_SOURCES}"));
    let drop = format!("counter name {WRONG_SOURCE} drop");
    rule(script, POD_SOURCES, &format!("meta nfproto ipv4 iifname . ip saddr != @pods4 {drop}"));
    rule(script, POD_SOURCES, &format!("ip6 saddr != {{ ::, fe80::/10 }} iifname . ip6 saddr != @pods6 {drop}"));
    rule(script, POD_SOURCES, &format!("icmpv6 type {{ nd-router-advert, nd-redirect }} {drop}"));
    if let Some(clear) = clear {
        let refused = format!("counter name {CLEAR_REFUSED} drop");
        let tunnel = format!("udp dport {}", clear.port);
        rule(script, POD_SOURCES, &format!("{tunnel} fib daddr type local {refused}"));
        // It would leave under the host's address, which others take for the host's own word.
        for (selector, family, _) in families("daddr") {
            rule(script, POD_SOURCES, &format!("{tunnel} {selector} != @overlay{family} {refused}"));
        }
    }
}

fn pod_elements(pods: &BTreeMap<String, Vec<IpAddr>>, family: fn(&IpAddr) -> bool) -> Vec<String> {
    let of_pod = |(link, addresses): (&String, &Vec<IpAddr>)| {
        let of_family = addresses.iter().filter(|address| family(address));
        of_family.map(|address| format!("{link:?} . {address}")).collect::<Vec<_>>()
    };
    pods.iter().flat_map(of_pod).collect()
}

fn addresses_of(addresses: &BTreeSet<IpAddr>, family: fn(&IpAddr) -> bool) -> Vec<String> {
    addresses.iter().filter(|address| family(address)).map(ToString::to_string).collect()
}

fn element(script: &mut String, set: &str, elements: &[String]) {
    if !elements.is_empty() {
        line(script, &format!("add element {TABLE} {set} {{ {} }}", elements.join(", ")));
    }
}

fn rule(script: &mut String, chain: &str, rule: &str) {
    line(script, &format!("add rule {TABLE} {chain} {rule}"));
}

fn line(script: &mut String, text: &str) {
    writeln!(script, "{text}").expect("writing to a string cannot fail");
}

/// An overlay source comes from a pod or out of the TUN. An address that another plugin linked comes from where this node
/// routes it.
fn sources(script: &mut String, overlay: &Overlay, inside: &Inside) {
    inside.pass(script, "sources", "iifname");
    let drop = format!("counter name {CLEAR_BLOCKED} drop");
    for (selector, family, of_family) in families("saddr") {
        rule(script, "sources", &format!("{selector} @overlay{family} {selector} != @unlinked{family} {drop}"));
        // Only where it is needed: not every kernel has the module that looks up routes.
        if overlay.unlinked.iter().any(of_family) {
            rule(script, "sources", &format!("{selector} @unlinked{family} fib saddr . iif oif missing {drop}"));
        }
        if let Some(clear) = &overlay.clear {
            let refused = format!("counter name {CLEAR_REFUSED} drop");
            rule(script, "sources", &format!("{selector} @unlinked{family} udp dport {} {refused}", clear.port));
        }
    }
}

/// Unless it is exposed, the host listens to nobody at the node's own addresses: they are there so that the host can
/// speak, and a service that binds to every address must not become everybody's in the overlay unasked.
///
/// What belongs to something the host began passes, whoever answers. So do echoes and errors: whoever looks for a fault
/// can tell a host that is hidden from one that is gone, and path MTU discovery works. The rest is refused rather than
/// dropped, and by name (`admin-prohibited`, as firewalls say), so that nobody waits or looks for a dead service.
fn hide(script: &mut String, overlay: &Overlay) {
    if overlay.exposed {
        return;
    }
    const ERRORS: &str = "destination-unreachable, time-exceeded, parameter-problem";
    let own4 = overlay.own4.map(|own| (format!("ip daddr {own}"), format!("icmp type {{ echo-request, {ERRORS} }}")));
    let own6 = overlay
        .own6
        .map(|own| (format!("ip6 daddr {own}"), format!("icmpv6 type {{ echo-request, packet-too-big, {ERRORS} }}")));
    for (own, tells) in own4.into_iter().chain(own6) {
        let others = format!("iifname != \"lo\" {own}");
        rule(script, "hide", &format!("{others} ct state established,related accept"));
        rule(script, "hide", &format!("{others} {tells} accept"));
        rule(script, "hide", &format!("{others} counter name {HIDDEN} reject with icmpx type admin-prohibited"));
    }
}

/// What leaves the overlay takes the host's address; what enters it from the host takes the node's overlay address.
fn translate(script: &mut String, overlay: &Overlay, inside: &Inside) {
    let leaving = inside.except("oifname");
    rule(
        script,
        "translate",
        &format!(
            "{leaving} ip saddr @overlay4 ip saddr != @unmasqueraded4 ip daddr != @overlay4 ip daddr != 224.0.0.0/4 masquerade fully-random"
        ),
    );
    rule(
        script,
        "translate",
        &format!(
            "{leaving} ip6 saddr @overlay6 ip6 saddr != @unmasqueraded6 ip6 daddr != @overlay6 ip6 daddr != {{ fe80::/10, ff00::/8 }} masquerade fully-random"
        ),
    );
    let entering = format!("oifname {{ {}, \"{POD_LINK_PREFIX}*\" }}", inside.outward);
    if let Some(own) = overlay.own4 {
        rule(script, "translate", &format!("{entering} ip daddr @overlay4 ip saddr != @overlay4 snat ip to {own}"));
    }
    if let Some(own) = overlay.own6 {
        let selector = "ip6 daddr @overlay6 ip6 saddr != @overlay6 ip6 saddr != fe80::/10";
        rule(script, "translate", &format!("{entering} {selector} snat ip6 to {own}"));
    }
}

/// What another plugin linked leaves by the route that this plugin made; without one it ends unreachable.
fn guard(script: &mut String, inside: &Inside) {
    inside.pass(script, "guard", "oifname");
    let drop = format!("counter name {CLEAR_BLOCKED} drop");
    for (selector, family, _) in families("daddr") {
        rule(script, "guard", &format!("{selector} @overlay{family} {selector} != @unlinked{family} {drop}"));
    }
}

/// Whether an address is of a family.
type OfFamily = fn(&IpAddr) -> bool;

/// How nft names an address field of each family, the number in its sets' names, and which addresses are of it.
fn families(field: &str) -> [(String, u8, OfFamily); 2] {
    [(format!("ip {field}"), 4, IpAddr::is_ipv4), (format!("ip6 {field}"), 6, IpAddr::is_ipv6)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay(exposed: bool) -> Overlay {
        Overlay {
            range4: "10.32.0.0/12".parse().expect("a prefix"),
            range6: "fd4d:6573:6877::/48".parse().expect("a prefix"),
            own4: "10.32.0.1".parse().ok(),
            own6: "fd4d:6573:6877:1::1".parse().ok(),
            local: BTreeSet::new(),
            peers: BTreeMap::new(),
            pods: BTreeMap::new(),
            unlinked: BTreeSet::new(),
            unmasqueraded: BTreeSet::new(),
            exposed,
            mtu: 1400,
            clear: None,
        }
    }

    fn hides(overlay: &Overlay) -> Vec<String> {
        let rules = script(overlay);
        rules.lines().filter(|line| line.starts_with("add rule inet meshwork hide ")).map(str::to_owned).collect()
    }

    #[test]
    fn a_hidden_host_refuses_others_at_its_own_addresses_alone() {
        let rules = hides(&overlay(false));
        assert!(
            rules.iter().all(|rule| rule.contains("daddr 10.32.0.1 ") || rule.contains("daddr fd4d:6573:6877:1::1 "))
        );
        assert_eq!(rules.iter().filter(|rule| rule.contains(" reject ")).count(), 2, "{rules:?}");
        assert!(rules.iter().all(|rule| rule.contains("iifname != \"lo\"")), "the host reaches itself");
    }

    #[test]
    fn an_exposed_host_and_one_without_addresses_refuse_nothing_and_the_chain_is_emptied() {
        for open in [overlay(true), Overlay { own4: None, own6: None, ..overlay(false) }] {
            assert!(hides(&open).is_empty());
            assert!(script(&open).contains("flush chain inet meshwork hide"));
        }
    }
}
