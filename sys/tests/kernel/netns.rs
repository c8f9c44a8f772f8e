use std::process::Command;

use meshwork_sys::netlink::Netlink;
use meshwork_sys::netns::{self, NetNs};
use meshwork_sys::{Error, sysctl};

use crate::sandbox::{Sandbox, unused_name};

#[test]
fn a_named_namespace_is_known_to_ip_and_has_its_loopback_up() {
    let sandbox = Sandbox::new();
    let listed = String::from_utf8(Command::new("ip").args(["netns", "list"]).output().unwrap().stdout).unwrap();
    assert!(listed.lines().any(|line| line.split(' ').next() == Some(&sandbox.name)), "{listed}");
    assert!(netns::names().unwrap().contains(&sandbox.name));
    let outside = Command::new("ip").args(["-n", &sandbox.name, "-o", "link", "show", "lo"]).output().unwrap();
    assert!(String::from_utf8(outside.stdout).unwrap().contains("LOOPBACK,UP"));
}

#[test]
fn a_namespace_made_by_ip_is_opened_and_removed_by_us() {
    let name = unused_name();
    assert!(Command::new("ip").args(["netns", "add", &name]).status().unwrap().success());
    assert!(NetNs::open(netns::path(&name)).is_ok());
    netns::remove(&name).unwrap();
    netns::remove(&name).unwrap();
    assert!(!netns::path(&name).exists());
    assert!(NetNs::open(netns::path(&name)).unwrap_err().is_not_found());
}

#[test]
fn a_second_namespace_with_the_same_name_is_refused_and_the_first_one_stays() {
    let sandbox = Sandbox::new();
    assert!(netns::create(&sandbox.name).unwrap_err().is_exists());
    let again = NetNs::open(netns::path(&sandbox.name)).unwrap();
    assert_eq!(again.identity().unwrap(), sandbox.netns.identity().unwrap());
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for name in ["", ".", "..", "../mwt-sys-x", "a/b", "a\0b"] {
        assert!(matches!(netns::create(name), Err(Error::Invalid { .. })), "{name:?}");
        assert!(matches!(netns::remove(name), Err(Error::Invalid { .. })), "{name:?}");
    }
}

#[test]
fn a_file_that_is_no_network_namespace_is_refused() {
    for path in ["/proc/self/ns/mnt", "/dev/null", "/etc/hostname", "/tmp"] {
        assert!(matches!(NetNs::open(path), Err(Error::Invalid { .. })), "{path}");
    }
}

#[test]
fn work_runs_inside_and_the_caller_stays_outside() {
    let sandbox = Sandbox::new();
    let before = NetNs::current().unwrap().identity().unwrap();
    let inside = sandbox.netns.run(|| NetNs::current().and_then(|netns| netns.identity())).unwrap().unwrap();
    assert_eq!(inside, sandbox.netns.identity().unwrap());
    assert_ne!(inside, before);
    assert_eq!(NetNs::current().unwrap().identity().unwrap(), before);
}

#[test]
fn a_program_is_started_inside() {
    let sandbox = Sandbox::new();
    let link = sandbox.run("readlink /proc/self/ns/net");
    assert_eq!(link.trim(), format!("net:[{}]", sandbox.netns.identity().unwrap().inode));
}

#[test]
fn a_socket_opened_inside_keeps_working_there() {
    let mut sandbox = Sandbox::new();
    let names: Vec<_> = sandbox.netlink.links().unwrap().into_iter().map(|link| link.name).collect();
    assert_eq!(names, ["lo"]);
    assert!(sandbox.netns.run(Netlink::connect).unwrap().is_ok());
}

#[test]
fn a_setting_is_that_of_the_namespace_and_interface() {
    let (mut sandbox, _) = Sandbox::with_veth();
    let right = sandbox.index("right");
    sandbox.netlink.rename(right, "right.1").unwrap();
    let key = "net.ipv4.conf.right/1.rp_filter";
    sandbox.netns.run(|| sysctl::write(key, "2")).unwrap().unwrap();
    assert_eq!(sandbox.netns.run(|| sysctl::read(key)).unwrap().unwrap(), "2");
    assert_eq!(sandbox.run("cat /proc/sys/net/ipv4/conf/right.1/rp_filter"), "2\n");
    assert!(sysctl::read(key).unwrap_err().is_not_found());
}

#[test]
fn a_value_that_the_kernel_does_not_take_is_its_refusal() {
    let sandbox = Sandbox::new();
    let refusal = sandbox.netns.run(|| sysctl::write("net.ipv4.ip_forward", "perhaps")).unwrap().unwrap_err();
    assert_eq!(refusal.errno(), Some(libc::EINVAL));
    assert!(refusal.to_string().contains("set sysctl net.ipv4.ip_forward to perhaps"), "{refusal}");
}
