//! A daemon that cannot start says why and what to do, ends with the code that its manual promises, and leaves nothing.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails at that line")]

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use meshwork_lab::{Host, Lab, figure, took};

const USAGE: i32 = 2;
const MISSING_CAPABILITY: i32 = 3;
const OTHER: i32 = 1;

#[test]
fn a_flag_that_does_not_exist_is_named() {
    let lab = host("badflag", &["--pear", "198.18.0.6"]);
    refused(lab.host(1), &[], USAGE, &["--pear"]);
}

#[test]
fn a_value_that_cannot_be_is_named() {
    let lab = host("badvalue", &["--encryption", "sometimes"]);
    refused(lab.host(1), &[], USAGE, &["sometimes", "required"]);
}

#[test]
fn a_key_that_does_not_exist_is_named_with_its_file() {
    let lab = host("badkey", &[]);
    let file = lab.host(1).directory().join("meshd.toml");
    fs::write(&file, "pear = \"198.18.0.6\"\n").unwrap();
    refused(lab.host(1), &["--config".into(), file.into()], USAGE, &["pear", "meshd.toml"]);
}

#[test]
fn a_secret_that_is_none_is_refused_without_being_shown() {
    let lab = host("badsecret", &[]);
    fs::write(lab.host(1).secret(), "hunter2\n").unwrap();
    let said = refused(lab.host(1), &[], USAGE, &["64 hex", "secret"]);
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn a_secret_that_is_missing_is_named() {
    let lab = host("nosecret", &["--peer", "198.18.0.10"]);
    fs::remove_file(lab.host(1).secret()).unwrap();
    refused(lab.host(1), &[], USAGE, &["secret"]);
}

#[test]
fn a_state_directory_that_is_none_is_named() {
    let lab = host("badstate", &[]);
    fs::write(lab.host(1).state(), "not a directory").unwrap();
    let said = run(lab.host(1), &[]);
    assert!(!said.status.success());
    assert!(text(&said).contains("/state"), "{}", text(&said));
    nothing_left(lab.host(1));
}

#[test]
fn damaged_state_is_reported_and_never_half_used() {
    let lab = Lab::build("damaged").unwrap().hosts(1).up().unwrap();
    lab.host(1).stop().unwrap();
    let database = largest_file(&lab.host(1).state());
    fs::write(&database, vec![0xa5; 4096]).unwrap();

    let said = run(lab.host(1), &[]);
    assert_eq!(said.status.code(), Some(OTHER), "{}", text(&said));
    let name = database.file_name().unwrap().to_str().unwrap();
    assert!(text(&said).contains(name), "{}", text(&said));
    // Whatever it does with the file, its bytes are still there for whoever wants to mend it.
    let kept = fs::read_dir(lab.host(1).state()).unwrap().flatten();
    assert!(kept.into_iter().any(|entry| fs::read(entry.path()).is_ok_and(|bytes| bytes == [0xa5; 4096])));
    figure("4096 bytes of damage kept, none of them used");
}

#[test]
fn a_network_of_the_host_within_the_range_is_named_and_left_alone() {
    let lab = host("badrange", &["--ipam-range", "10.99.0.0/24"]);
    let host = lab.host(1);
    host.exec(["ip", "address", "add", "10.99.0.9/24", "dev", "eth0"]).unwrap();
    let said = run(host, &[]);
    assert_eq!(said.status.code(), Some(USAGE), "{}", text(&said));
    for word in ["10.99.0.0/24", "eth0", "--ipam-range"] {
        assert!(text(&said).contains(word), "{word:?} in: {}", text(&said));
    }
    nothing_left(host);
    let route = host.exec(["ip", "route", "show", "10.99.0.0/24"]).unwrap();
    assert!(route.contains("dev eth0"), "{route}");
}

#[test]
fn a_name_server_of_the_host_within_the_range_is_named() {
    let lab = host("badresolver", &[]);
    let file = lab.host(1).directory().join("resolv.conf");
    fs::write(&file, "nameserver 10.32.7.53\n").unwrap();
    let shown = format!("mount --bind {} /etc/resolv.conf && exec \"$@\"", file.display());
    let line = ["unshare", "--mount", "sh", "-c", &shown, "sh"].map(OsString::from);
    let line = line.into_iter().chain(lab.host(1).daemon_line());
    let said = lab.host(1).namespace().output(limited(line)).unwrap();
    assert_eq!(said.status.code(), Some(USAGE), "{}", text(&said));
    for word in ["10.32.0.0/12", "name server 10.32.7.53", "--ipam-range"] {
        assert!(text(&said).contains(word), "{word:?} in: {}", text(&said));
    }
    nothing_left(lab.host(1));
}

#[test]
fn one_of_several_ways_into_the_range_is_enough() {
    let lab = host("badways", &[]);
    let ways = ["nexthop", "via", "198.18.0.5", "dev", "eth0"];
    let line = ["ip", "route", "add", "10.40.0.0/16"].into_iter().chain(ways).chain(ways);
    lab.host(1).exec(line).unwrap();
    let said = run(lab.host(1), &[]);
    assert_eq!(said.status.code(), Some(USAGE), "{}", text(&said));
    assert!(text(&said).contains("10.40.0.0/16") && text(&said).contains("--ipam-range"), "{}", text(&said));
    nothing_left(lab.host(1));
}

#[test]
fn a_port_in_use_is_named() {
    let lab = host("badport", &[]);
    let namespace = lab.host(1).namespace();
    let taken = namespace.run(|| std::net::UdpSocket::bind("[::]:6783")).unwrap().unwrap();
    refused(lab.host(1), &[], OTHER, &["6783", "in use"]);
    drop(taken);
}

#[test]
fn a_missing_capability_is_named() {
    let lab = host("badcaps", &[]);
    let without = ["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"].map(OsString::from);
    let line = without.into_iter().chain(lab.host(1).daemon_line());
    let started = Instant::now();
    let said = lab.host(1).namespace().output(limited(line)).unwrap();
    took("daemon without CAP_NET_ADMIN refused", started.elapsed());
    assert_eq!(said.status.code(), Some(MISSING_CAPABILITY), "{}", text(&said));
    assert!(text(&said).to_uppercase().contains("NET_ADMIN"), "{}", text(&said));
    nothing_left(lab.host(1));
}

fn host(name: &str, flags: &[&str]) -> Lab {
    Lab::build(name).unwrap().hosts(1).flags(1, flags).without_daemons().unwrap()
}

/// The daemon refuses with `code` and every one of `words`, and leaves nothing behind.
fn refused(host: &Host, more: &[OsString], code: i32, words: &[&str]) -> String {
    let output = run(host, more);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} in: {said}");
    }
    nothing_left(host);
    assert!(!host.state().exists(), "an identity was made for nothing");
    said
}

fn run(host: &Host, more: &[OsString]) -> Output {
    let line = host.daemon_line().into_iter().chain(more.iter().cloned());
    let started = Instant::now();
    let output = host.namespace().output(limited(line)).unwrap();
    took(&format!("daemon ended with code {:?}", output.status.code().unwrap()), started.elapsed());
    output
}

/// A daemon that starts after all must not hold up the test for ever.
fn limited(line: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let limit = Duration::from_secs(10).as_secs().to_string();
    ["timeout".into(), "-s".into(), "KILL".into(), limit.into()].into_iter().chain(line).collect()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// No socket, no device, no table.
fn nothing_left(host: &Host) {
    assert!(!host.socket().exists(), "a socket is left");
    let links = host.exec(["ip", "-o", "link"]).unwrap();
    assert!(!links.contains("meshwork"), "{links}");
    let tables = host.exec(["nft", "list", "tables"]).unwrap();
    assert!(!tables.contains("meshwork"), "{tables}");
    let routes = host.exec(["ip", "route", "show", "table", "all"]).unwrap();
    assert!(!routes.contains("10.32.0.0/12"), "{routes}");
}

fn largest_file(directory: &Path) -> std::path::PathBuf {
    let files = fs::read_dir(directory).unwrap().flatten().filter(|entry| entry.path().is_file());
    files.max_by_key(|file| file.metadata().unwrap().len()).unwrap().path()
}
