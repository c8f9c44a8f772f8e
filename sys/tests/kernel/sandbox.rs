//! A network namespace for one test, and the witnesses' view of it.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use meshwork_sys::netlink::{InterfaceAddress, Netlink, Scope, Veth};
use meshwork_sys::netns::{self, NetNs};
use meshwork_sys::process;
use serde_json::Value;

static NUMBER: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Sandbox {
    pub(crate) name: String,
    pub(crate) netns: NetNs,
    pub(crate) netlink: Netlink,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        let name = unused_name();
        let netns = netns::create(&name).unwrap();
        let netlink = Netlink::connect_in(&netns).unwrap();
        Self { name, netns, netlink }
    }

    /// A sandbox with a veth pair `left` and `right` that is up, 10.1.0.1/24 and fd01::1/64 on `left`.
    pub(crate) fn with_veth() -> (Self, u32) {
        let mut sandbox = Self::new();
        sandbox.netlink.create_veth(&Veth::new("left", "right")).unwrap();
        let left = sandbox.up("left");
        sandbox.up("right");
        for net in ["10.1.0.1/24", "fd01::1/64"] {
            let address = InterfaceAddress { net: net.parse().unwrap(), scope: Scope::Global, nodad: true };
            sandbox.netlink.add_address(left, &address).unwrap();
        }
        (sandbox, left)
    }

    pub(crate) fn index(&mut self, name: &str) -> u32 {
        self.netlink.link(name).unwrap().unwrap().index
    }

    pub(crate) fn up(&mut self, name: &str) -> u32 {
        let index = self.index(name);
        self.netlink.set_up(index).unwrap();
        index
    }

    /// What a program prints inside.
    pub(crate) fn run(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let mut command = Command::new(words.next().unwrap());
        process::in_netns(command.args(words), &self.netns).unwrap();
        let output = command.output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What `ip -j` tells, as a list; it prints nothing at all for some empty lists.
    pub(crate) fn ip(&self, arguments: &str) -> Vec<Value> {
        match self.run(&format!("ip -d -j {arguments}")).trim() {
            "" => Vec::new(),
            text => serde_json::from_str(text).unwrap(),
        }
    }

    /// The one entry that `ip -j` tells.
    pub(crate) fn ip_one(&self, arguments: &str) -> Value {
        let mut entries = self.ip(arguments);
        assert_eq!(entries.len(), 1, "{arguments}: {entries:?}");
        entries.remove(0)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        netns::remove(&self.name).unwrap();
    }
}

pub(crate) fn unused_name() -> String {
    format!("mwt-sys-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}
