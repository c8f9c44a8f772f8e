//! What a host and its pods hold, as `ip` and `nft` tell it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Deserialize;

use crate::cni::POD_LINK;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::namespace::Namespace;

/// Begins the names of the host ends of pods' links.
const POD_LINKS: &str = "mw";
/// Routing protocol number of everything of ours.
const PROTOCOL: &str = "83";
/// Sets of the firewall that hold pods' sources.
const SOURCES: [&str; 2] = ["set pods4 {", "set pods6 {"];

/// Name of a link's host end, and an address of its pod.
pub(super) type Ends = BTreeSet<(String, IpAddr)>;

/// Everything of ours on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    /// Host ends of pods' links by index.
    pub(super) links: BTreeMap<u32, String>,
    /// Routes to pods.
    pub(super) routes: Ends,
    /// Sources that pods may send from.
    pub(super) sources: Ends,
    /// Other routes, nexthops, rules of routing and of the firewall, line by line.
    pub(super) rest: BTreeSet<String>,
}

impl Held {
    /// Asks for all of it.
    pub(super) fn by(host: &Host) -> Result<Self> {
        let links = pod_links(&host.exec(["ip", "-o", "link", "show"])?);
        let mut routing = String::new();
        for family in ["-4", "-6"] {
            routing += &host.exec(["ip", family, "route", "show", "table", "all", "proto", PROTOCOL])?;
        }
        let (to_pods, others): (Vec<_>, Vec<_>) =
            routing.lines().partition(|line| line.contains(&format!(" dev {POD_LINKS}")));
        let table = host.exec(["nft", "list", "table", "inet", "meshwork"])?;
        let (sources, rules) = firewall(&table);
        let mut rest: BTreeSet<String> = others.into_iter().map(tidy).chain(rules).collect();
        for line in [["nexthop", "show"], ["-4", "rule"], ["-6", "rule"]] {
            rest.extend(host.exec([&["ip"], &line[..]].concat())?.lines().map(tidy));
        }
        Ok(Self { links, routes: to_pods.into_iter().filter_map(route).collect(), sources, rest })
    }
}

/// The pod's end of its link.
#[derive(Debug, Deserialize)]
pub(super) struct PodEnd {
    /// Index of the host end.
    pub(super) link_index: u32,
    addr_info: Vec<AddressInfo>,
}

#[derive(Debug, Deserialize)]
struct AddressInfo {
    local: IpAddr,
    scope: String,
}

impl PodEnd {
    /// Asks inside a pod's namespace.
    pub(super) fn within(namespace: &Namespace) -> Result<Self> {
        let printed = namespace.exec(["ip", "-j", "address", "show", "dev", POD_LINK])?;
        let unreadable = |why: String| Error::Unreadable { program: "ip", why, output: printed.clone() };
        let ends: Vec<Self> = serde_json::from_str(&printed).map_err(|error| unreadable(error.to_string()))?;
        ends.into_iter().next().ok_or_else(|| unreadable("no link".into()))
    }

    /// Its addresses beyond the link.
    pub(super) fn addresses(&self) -> BTreeSet<IpAddr> {
        self.addr_info.iter().filter(|address| address.scope == "global").map(|address| address.local).collect()
    }
}

fn tidy(line: &str) -> String {
    line.trim().to_owned()
}

/// `7: mw0123456789a@if2: <BROADCAST,…`
fn pod_links(listed: &str) -> BTreeMap<u32, String> {
    let links = listed.lines().filter_map(|line| {
        let mut fields = line.split(": ");
        let (index, name) = (fields.next()?.parse().ok()?, fields.next()?.split('@').next()?);
        name.starts_with(POD_LINKS).then(|| (index, name.to_owned()))
    });
    links.collect()
}

/// `10.32.4.1 dev mw0123456789a proto 83 scope link`
fn route(line: &str) -> Option<(String, IpAddr)> {
    let mut words = line.split_whitespace();
    let address = words.next()?.parse().ok()?;
    Some((words.find(|word| word.starts_with(POD_LINKS))?.to_owned(), address))
}

/// Sources of pods, and everything of the table but what is counted. A line is told with the block it stands in.
fn firewall(table: &str) -> (Ends, BTreeSet<String>) {
    let (mut sources, mut rules, mut block) = (Ends::new(), BTreeSet::new(), "");
    for line in table.lines().map(str::trim) {
        if line.ends_with('{') {
            block = line;
        }
        if SOURCES.contains(&block) {
            sources.extend(line.trim_start_matches("elements = {").split(',').filter_map(source));
        } else if !line.starts_with("packets ") {
            rules.insert(format!("{block} {line}"));
        }
    }
    (sources, rules)
}

/// `"mw0123456789a" . 10.32.4.1`
fn source(element: &str) -> Option<(String, IpAddr)> {
    let (link, address) = element.trim_end_matches('}').split_once(" . ")?;
    Some((link.trim().trim_matches('"').to_owned(), address.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "table inet meshwork {
	counter clear_blocked {
		packets 3 bytes 252
	}

	set pods4 {
		type ifname . ipv4_addr
		elements = { \"mw0123456789a\" . 10.32.0.2,
			     \"mw0123456789b\" . 10.32.0.3 }
	}

	set pods6 {
		type ifname . ipv6_addr
	}

	chain guard {
		oifname \"mw*\" accept
	}
}
";

    fn end(link: &str, address: [u8; 4]) -> (String, IpAddr) {
        (link.to_owned(), address.into())
    }

    #[test]
    fn sources_of_pods_are_told_from_rules_and_counts() {
        let (sources, rules) = firewall(TABLE);
        assert_eq!(sources, [end("mw0123456789a", [10, 32, 0, 2]), end("mw0123456789b", [10, 32, 0, 3])].into());
        assert!(rules.contains("chain guard { oifname \"mw*\" accept"), "{rules:?}");
        assert!(!rules.iter().any(|rule| rule.contains("bytes") || rule.contains("10.32.")), "{rules:?}");
    }

    #[test]
    fn links_and_routes_of_pods_are_told_with_their_names() {
        let links = "1: lo: <LOOPBACK> mtu 65536\n5: meshwork0: <UP> mtu 1400\n7: mw0123456789a@if2: <BROADCAST>";
        assert_eq!(pod_links(links), [(7, "mw0123456789a".to_owned())].into());
        let line = "10.32.4.1 dev mw0123456789a proto 83 scope link src 10.32.0.1";
        assert_eq!(route(line), Some(end("mw0123456789a", [10, 32, 4, 1])));
    }
}
