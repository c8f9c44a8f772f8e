//! Settings below `/proc/sys/net` that the overlay needs. Each function says whether any had another value.

use std::fs;

use meshwork_sys::{Result, sysctl};

use super::is_ours;
use super::underlay::has_ipv6;

/// Lets the host forward for its pods.
///
/// # Errors
/// What the kernel refuses.
pub(super) fn of_host() -> Result<bool> {
    let mut changed = sysctl::write("net.ipv4.ip_forward", "1")?;
    changed |= loosen_reverse_path_filter()?;
    if has_ipv6() {
        changed |= keep_router_advertisements()?;
        changed |= sysctl::write("net.ipv6.conf.all.forwarding", "1")?;
    }
    Ok(changed)
}

/// Strict filtering drops packets that arrive on another path than the answer takes; loose keeps what protects hosts.
fn loosen_reverse_path_filter() -> Result<bool> {
    let strict = sysctl::read("net.ipv4.conf.all.rp_filter")?.trim() == "1";
    if strict { sysctl::write("net.ipv4.conf.all.rp_filter", "2") } else { Ok(false) }
}

/// A forwarding host ignores router advertisements unless told otherwise, and would lose its own default route. Only
/// for interfaces of the underlay: those that are made later begin with what `default` says, pod links among them.
fn keep_router_advertisements() -> Result<bool> {
    let Ok(interfaces) = fs::read_dir("/proc/sys/net/ipv6/conf") else { return Ok(false) };
    let mut changed = false;
    for name in interfaces.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let underlay = !["all", "default", "lo"].contains(&name.as_str()) && !is_ours(&name);
        let key = format!("net/ipv6/conf/{name}/accept_ra");
        if underlay && sysctl::read(&key).is_ok_and(|value| value.trim() == "1") {
            changed |= sysctl::write(&key, "2")?;
        }
    }
    Ok(changed)
}

/// Of an interface of the overlay that leads to nobody but other nodes and this host.
///
/// # Errors
/// What the kernel refuses.
pub(super) fn of_device(name: &str) -> Result<bool> {
    let distrusted = distrust(name)?;
    Ok(has_ipv6() && speak_ipv6(name)? || distrusted)
}

/// Hosts that switch IPv6 off do so for their own networks; the overlay is one of its own and has both families.
///
/// # Errors
/// What the kernel refuses.
pub(super) fn speak_ipv6(name: &str) -> Result<bool> {
    sysctl::write(&format!("net/ipv6/conf/{name}/disable_ipv6"), "0")
}

/// Lets nobody behind an interface of the overlay move this host's routes or addresses: neither by router
/// advertisements (RFC 4861, section 6.3.4) nor by redirects.
///
/// # Errors
/// What the kernel refuses.
pub(super) fn distrust(name: &str) -> Result<bool> {
    let mut changed = false;
    for setting in ["rp_filter", "accept_redirects"] {
        changed |= sysctl::write(&format!("net/ipv4/conf/{name}/{setting}"), "0")?;
    }
    for setting in ["accept_ra", "autoconf", "accept_redirects"].into_iter().filter(|_| has_ipv6()) {
        changed |= sysctl::write(&format!("net/ipv6/conf/{name}/{setting}"), "0")?;
    }
    Ok(changed)
}
