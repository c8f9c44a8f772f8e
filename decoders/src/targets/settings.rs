//! What operators and their hosts say: flags, the configuration file, targets, log filters, resolvers.

use std::collections::BTreeMap;

use clap::Parser as _;
use ipnet::IpNet;
use meshwork_router::config::{Flags, Target};
use meshwork_router::{kernel, log};
use meshwork_sys::netlink::Route;

use crate::input::{Input, of_kind};

pub(super) fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let kind = input.byte();
    let Ok(text) = std::str::from_utf8(input.0) else { return };
    match kind % 5 {
        0 => target(text),
        1 => filter(text),
        2 => {
            if let Ok(flags) = Flags::parse_file(text) {
                resolve(flags);
            }
        }
        3 => {
            let arguments = std::iter::once("meshd").chain(text.split('\n'));
            if let Ok(flags) = Flags::try_parse_from(arguments) {
                // The file is a target of its own.
                resolve(Flags { config: None, ..flags });
            }
        }
        _ => resolvers(text),
    }
}

/// What is a target is one again as it is shown.
pub(super) fn target(text: &str) {
    let Ok(target) = Target::parse(text) else { return };
    assert_eq!(Target::parse(&target.to_string()).as_ref(), Ok(&target));
}

pub(super) fn filter(text: &str) {
    let _ = log::parse(text);
}

fn resolve(flags: Flags) {
    match flags.resolve("host") {
        Ok(config) => {
            assert!(!config.nickname.is_empty() && config.nickname.len() <= 253 && config.vxlan_port > 0);
            assert!(config.range6.prefix_len() == 48 && config.range4.prefix_len() >= 8);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn resolvers(text: &str) {
    let ranges = ["10.32.0.0/12", "fd4d:6573:6877::/48"].map(|range| range.parse::<IpNet>().expect("a range"));
    let routes: Vec<Route> = text.lines().filter_map(|line| line.parse().ok()).map(Route::new).collect();
    let found = kernel::overlaps(ranges, &routes, &BTreeMap::new(), &[], text);
    assert!(found.len() <= text.lines().count());
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let file = "nickname = \"n\"\ncluster = \"c\"\npeer = [\"a\", \"b:1\"]\nmtu = 1400\nlisten = \"[::]:6783\"\n\
                ipam-range = [\"10.0.0.0/8\"]\nencryption = \"trusted\"\ntrusted-subnet = [\"10.0.0.0/8\"]\nno-discovery = true\n";
    let flags = "--nickname\nn\n--peer\na,b:1\n--ipam-range\n10.0.0.0/8,fd00::/48\n--mtu=1400\n--no-discovery";
    vec![
        of_kind(0, b"node-1"),
        of_kind(0, b"[2001:db8::1%eth0]:7000"),
        of_kind(1, b"warn,meshwork_tunnel=trace"),
        of_kind(1, b"info,meshwork[span{field=value}]=debug"),
        of_kind(2, file.as_bytes()),
        of_kind(3, flags.as_bytes()),
        of_kind(4, b"nameserver 10.33.0.53\n# x\nnameserver fe80::1%eth0\n10.40.0.0/24\nsearch a b"),
    ]
}
