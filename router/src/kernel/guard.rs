//! The nftables table `inet meshwork`: the fail-closed guard, the source check of pods, and address translation where
//! traffic enters or leaves the overlay. Pure: it writes the script that the driver hands to `nft`.
//!
//! The guard stands in `postrouting` behind everything else: an overlay destination leaves by the TUN, by a pod's link
//! or not at all. Its mirror in `prerouting` takes overlay sources from nowhere else. Sets and counters live on when
//! the script is applied again; only rules and elements are replaced, in one transaction.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;

use super::desired::Overlay;
use super::{POD_LINK_PREFIX, TUN_NAME};

/// Family and name of the table.
pub const TABLE: &str = "inet meshwork";

/// Counter of overlay packets that were about to leave, or that came, in clear.
pub const CLEAR_BLOCKED: &str = "clear_blocked";

/// Counter of packets with which a pod pretended to be somebody else.
pub const WRONG_SOURCE: &str = "pod_wrong_source";

/// Declarations that survive a re-application: adding what exists changes nothing.
fn declarations() -> String {
    format!(
        "add table {TABLE}
add counter {TABLE} {CLEAR_BLOCKED}
add counter {TABLE} {WRONG_SOURCE}
add set {TABLE} overlay4 {{ type ipv4_addr; flags interval; }}
add set {TABLE} overlay6 {{ type ipv6_addr; flags interval; }}
add set {TABLE} pods4 {{ type ifname . ipv4_addr; }}
add set {TABLE} pods6 {{ type ifname . ipv6_addr; }}
add chain {TABLE} sources {{ type filter hook prerouting priority -310; }}
add chain {TABLE} translate {{ type nat hook postrouting priority 100; }}
add chain {TABLE} guard {{ type filter hook postrouting priority 300; }}
flush chain {TABLE} sources
flush chain {TABLE} translate
flush chain {TABLE} guard
flush set {TABLE} overlay4
flush set {TABLE} overlay6
flush set {TABLE} pods4
flush set {TABLE} pods6
"
    )
}

/// The whole script.
#[must_use]
pub fn script(overlay: &Overlay) -> String {
    let mut script = declarations();
    element(&mut script, "overlay4", &[overlay.range4.to_string()]);
    element(&mut script, "overlay6", &[overlay.range6.to_string()]);
    element(&mut script, "pods4", &pod_elements(&overlay.pods, IpAddr::is_ipv4));
    element(&mut script, "pods6", &pod_elements(&overlay.pods, IpAddr::is_ipv6));
    sources(&mut script);
    translate(&mut script, overlay);
    guard(&mut script);
    script
}

fn pod_elements(pods: &BTreeMap<String, Vec<IpAddr>>, family: fn(&IpAddr) -> bool) -> Vec<String> {
    let of_pod = |(link, addresses): (&String, &Vec<IpAddr>)| {
        let of_family = addresses.iter().filter(|address| family(address));
        of_family.map(|address| format!("{link:?} . {address}")).collect::<Vec<_>>()
    };
    pods.iter().flat_map(of_pod).collect()
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

/// A pod sends from its own addresses alone and is no router; an overlay source comes from a pod or out of the TUN.
fn sources(script: &mut String) {
    let pods = format!("iifname \"{POD_LINK_PREFIX}*\"");
    let drop = format!("counter name {WRONG_SOURCE} drop");
    rule(script, "sources", &format!("{pods} meta nfproto ipv4 iifname . ip saddr != @pods4 {drop}"));
    rule(script, "sources", &format!("{pods} ip6 saddr != {{ ::, fe80::/10 }} iifname . ip6 saddr != @pods6 {drop}"));
    rule(script, "sources", &format!("{pods} icmpv6 type {{ nd-router-advert, nd-redirect }} {drop}"));
    for (selector, set) in [("ip saddr", "@overlay4"), ("ip6 saddr", "@overlay6")] {
        let elsewhere = outside("iifname");
        rule(script, "sources", &format!("{elsewhere} {selector} {set} counter name {CLEAR_BLOCKED} drop"));
    }
}

/// What leaves the overlay takes the host's address; what enters it from the host takes the node's overlay address.
fn translate(script: &mut String, overlay: &Overlay) {
    let leaving = outside("oifname");
    rule(
        script,
        "translate",
        &format!("{leaving} ip saddr @overlay4 ip daddr != @overlay4 ip daddr != 224.0.0.0/4 masquerade fully-random"),
    );
    rule(
        script,
        "translate",
        &format!(
            "{leaving} ip6 saddr @overlay6 ip6 daddr != @overlay6 ip6 daddr != {{ fe80::/10, ff00::/8 }} masquerade fully-random"
        ),
    );
    let entering = format!("oifname {{ {TUN_NAME:?}, \"{POD_LINK_PREFIX}*\" }}");
    if let Some(own) = overlay.own4 {
        rule(script, "translate", &format!("{entering} ip daddr @overlay4 ip saddr != @overlay4 snat ip to {own}"));
    }
    if let Some(own) = overlay.own6 {
        let selector = "ip6 daddr @overlay6 ip6 saddr != @overlay6 ip6 saddr != fe80::/10";
        rule(script, "translate", &format!("{entering} {selector} snat ip6 to {own}"));
    }
}

fn guard(script: &mut String) {
    for (selector, set) in [("ip daddr", "@overlay4"), ("ip6 daddr", "@overlay6")] {
        let leaving = outside("oifname");
        rule(script, "guard", &format!("{leaving} {selector} {set} counter name {CLEAR_BLOCKED} drop"));
    }
}

/// Any device that is not the overlay's.
fn outside(direction: &str) -> String {
    format!("{direction} != {{ \"lo\", {TUN_NAME:?} }} {direction} != \"{POD_LINK_PREFIX}*\"")
}
