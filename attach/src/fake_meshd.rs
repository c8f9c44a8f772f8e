//! Two namespaces and a daemon played by a thread, which does with leases and host ends what `meshd` promises.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use ipnet::IpNet;
use meshwork_api::model::{Lease, LeaseName, LeaseRequest, PodIdentity};
use meshwork_sys::netlink::{InterfaceAddress, Netlink, Route, Scope};
use meshwork_sys::netns::{self, NetNs};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const GATEWAYS: [&str; 2] = ["169.254.1.1", "fe80::1"];

/// Addresses of the played node, on its loopback.
pub(crate) const NODE: [&str; 2] = ["10.32.0.1", "fd4d:6573:6877::1"];

/// A node, a pod and a daemon; all gone when dropped.
pub(crate) struct Scene {
    pub(crate) host: NetNs,
    pub(crate) host_name: String,
    pub(crate) pod_name: String,
    pub(crate) daemon: Arc<Daemon>,
    folder: TempDir,
    server: Option<JoinHandle<()>>,
}

/// What the played daemon knows, and how it is to fail.
#[derive(Default)]
pub(crate) struct Daemon {
    pub(crate) leases: Mutex<BTreeMap<(String, String), Lease>>,
    /// Answers requests of this path with 500.
    pub(crate) refuse: Mutex<Option<&'static str>>,
    pub(crate) mtu: AtomicU32,
    /// Answered as `/v1/status`, over what a ready daemon says.
    pub(crate) status: Mutex<Value>,
    stop: AtomicBool,
}

impl Scene {
    pub(crate) fn new(name: &str) -> Self {
        let (host_name, pod_name) = (format!("mwt-cli-{name}-h"), format!("mwt-cli-{name}-p"));
        for name in [&host_name, &pod_name] {
            netns::remove(name).unwrap();
        }
        let host = netns::create(&host_name).unwrap();
        netns::create(&pod_name).unwrap();
        let mut netlink = Netlink::connect_in(&host).unwrap();
        let loopback = netlink.link("lo").unwrap().unwrap().index;
        for address in NODE {
            netlink.add_address(loopback, &whole(address.parse().unwrap())).unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("meshd.sock")).unwrap();
        let daemon = Arc::new(Daemon { mtu: 1400.into(), ..Daemon::default() });
        let (played, namespace) = (daemon.clone(), host.try_clone().unwrap());
        let server = Some(thread::spawn(move || played.serve(&listener, &namespace)));
        Self { host, host_name, pod_name, daemon, folder, server }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("meshd.sock")
    }

    pub(crate) fn netns(&self) -> PathBuf {
        netns::path(&self.pod_name)
    }

    /// Ends the daemon; its socket stays behind, as after a crash.
    pub(crate) fn stop(&mut self) {
        self.daemon.stop.store(true, Ordering::SeqCst);
        if let Some(server) = self.server.take() {
            drop(UnixStream::connect(self.socket()));
            let ended = server.join();
            assert!(ended.is_ok() || thread::panicking(), "the played daemon panicked");
        }
    }

    /// What `ip -j` says in a namespace.
    pub(crate) fn ip(netns: &str, arguments: &str) -> Value {
        let mut ip = Command::new("ip");
        let output = ip.args(["-j", "-n", netns]).args(arguments.split(' ')).output().unwrap();
        assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        if output.stdout.trim_ascii().is_empty() { json!([]) } else { serde_json::from_slice(&output.stdout).unwrap() }
    }

    /// The names of the links in a namespace, but for the loopback.
    pub(crate) fn links(netns: &str) -> Vec<String> {
        let links = Self::ip(netns, "link show");
        let names = links.as_array().unwrap().iter().map(|link| link["ifname"].as_str().unwrap().to_owned());
        names.filter(|name| name != "lo").collect()
    }

    /// Whether one packet to `address` and its answer pass at once.
    pub(crate) fn pings(&self, address: &str) -> bool {
        let mut ping = Command::new("ip");
        ping.args(["netns", "exec", &self.pod_name, "ping", "-q", "-c1", "-W1", address])
            .output()
            .unwrap()
            .status
            .success()
    }

    /// Asserts that neither side has a link and the daemon holds no lease.
    pub(crate) fn assert_nothing_left(&self, context: &str) {
        assert_eq!(Self::links(&self.host_name), Vec::<String>::new(), "{context}");
        assert_eq!(Self::links(&self.pod_name), Vec::<String>::new(), "{context}");
        assert!(self.daemon.leases.lock().unwrap().is_empty(), "{context}");
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.stop();
        for name in [&self.host_name, &self.pod_name] {
            // The next run removes what is left.
            let _ = netns::remove(name);
        }
    }
}

impl Daemon {
    fn serve(&self, listener: &UnixListener, host: &NetNs) {
        while !self.stop.load(Ordering::SeqCst) {
            let (stream, _) = listener.accept().unwrap();
            self.answer(stream, host);
        }
    }

    fn answer(&self, mut stream: UnixStream, host: &NetNs) {
        let Some((path, body)) = read_request(&stream) else { return };
        let refused = *self.refuse.lock().unwrap() == Some(path.as_str());
        let (status, answer) = match refused {
            true => (500, json!({ "error": { "code": "test", "message": "refused", "hint": "" } })),
            false => (200, self.carry_out(&path, &body, host)),
        };
        let answer = answer.to_string();
        let head = format!("HTTP/1.0 {status} X\r\ncontent-length: {}\r\n\r\n", answer.len());
        // A caller that gave up is its own matter.
        let _ = stream.write_all(format!("{head}{answer}").as_bytes());
    }

    fn carry_out(&self, path: &str, body: &[u8], host: &NetNs) -> Value {
        match path {
            "/v1/pods" if body.is_empty() => {
                let leases: Vec<Lease> = self.leases.lock().unwrap().values().cloned().collect();
                json!({ "api": 1, "leases": leases })
            }
            "/v1/pods" => json!(self.lease(serde_json::from_slice(body).unwrap())),
            "/v1/pods/confirm" => json!(self.confirm(&serde_json::from_slice(body).unwrap(), host)),
            "/v1/pods/release" => self.release(&serde_json::from_slice(body).unwrap(), host),
            "/v1/ipam" => json!({
                "api": 1, "state": "ready", "reason": "", "range": ["10.32.0.0/12", "fd4d:6573:6877::/48"],
                "owned": 1, "allocated": 0, "peers": [], "leases": [],
            }),
            "/v1/status" => status(&self.status.lock().unwrap()),
            other => panic!("unexpected request {other}"),
        }
    }

    fn lease(&self, request: LeaseRequest) -> Lease {
        let mut leases = self.leases.lock().unwrap();
        let number = leases.len() + 5;
        let key = (request.sandbox.clone(), request.interface.clone());
        let fresh = Lease {
            sandbox: request.sandbox,
            interface: request.interface,
            netns: request.netns,
            pod: PodIdentity::default(),
            host_interface: format!("mw{number:011x}"),
            addresses: vec![
                format!("10.32.0.{number}").parse().unwrap(),
                format!("fd4d:6573:6877::{number}").parse().unwrap(),
            ],
            mtu: self.mtu.load(Ordering::SeqCst).min(request.mtu.unwrap_or(u32::MAX)),
            gateway4: GATEWAYS[0].parse().unwrap(),
            gateway6: GATEWAYS[1].parse().unwrap(),
            routed: false,
            network: request.network,
            address_only: request.address_only,
            masquerade: request.masquerade,
        };
        leases.entry(key).or_insert(fresh).clone()
    }

    fn confirm(&self, name: &LeaseName, host: &NetNs) -> Lease {
        let mut leases = self.leases.lock().unwrap();
        let lease = leases.get_mut(&(name.sandbox.clone(), name.interface.clone().unwrap())).unwrap();
        let mut netlink = Netlink::connect_in(host).unwrap();
        let index = netlink.link(&lease.host_interface).unwrap().unwrap().index;
        netlink.set_up(index).unwrap();
        // The kernel has no IPv6 on a link below 1,280 bytes.
        let ipv6 = lease.mtu >= 1280;
        let net = "fe80::1/64".parse().unwrap();
        if ipv6 {
            netlink.add_address(index, &InterfaceAddress { net, scope: Scope::Link, nodad: true }).unwrap();
        }
        for address in lease.addresses.iter().filter(|address| ipv6 || address.is_ipv4()) {
            let scope = if address.is_ipv4() { Scope::Link } else { Scope::Global };
            let route = Route { output: Some(index), scope, ..Route::new(IpNet::from(*address)) };
            netlink.replace_route(&route).unwrap();
            let macs = meshwork_api::link::LinkMacs::of(lease).unwrap();
            netlink.replace_neighbour(index, *address, macs.pod.0).unwrap();
        }
        lease.routed = true;
        // Nobody records what MTU a link was asked for with.
        Lease { mtu: self.mtu.load(Ordering::SeqCst), ..lease.clone() }
    }

    fn release(&self, name: &LeaseName, host: &NetNs) -> Value {
        let mut netlink = Netlink::connect_in(host).unwrap();
        self.leases.lock().unwrap().retain(|(sandbox, interface), lease| {
            let named = *sandbox == name.sandbox && name.interface.as_ref().is_none_or(|wanted| wanted == interface);
            if named {
                netlink.delete_link(&lease.host_interface).unwrap();
            }
            !named
        });
        json!({})
    }
}

/// A ready daemon's, with some fields replaced.
fn status(changes: &Value) -> Value {
    let mut status = json!({
        "api": 1, "healthy": true, "ready": true, "reasons": [], "version": "0.1.0", "uptime_s": 1.0,
        "peer": { "id": "01010101010101010101010101010101", "nickname": "node" }, "cluster": "default",
        "encryption": "required", "discovery": true, "listen": "[::]:6783", "targets": [], "peers": { "alive": 2 },
        "connections": { "established": 1 }, "dns": { "listen": [] }, "overlay": NODE, "mtu": 1400, "drops": {},
        "ipam": { "state": "ready", "reason": "", "range": ["10.32.0.0/12", "fd4d:6573:6877::/48"], "owned": 1, "allocated": 1 },
        "clear_blocked_packets": 0,
    });
    for (key, value) in changes.as_object().into_iter().flatten() {
        status[key] = value.clone();
    }
    status
}

/// Path and body; nothing where the other side hung up at once.
fn read_request(stream: &UnixStream) -> Option<(String, Vec<u8>)> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.trim().parse().ok()?;
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((path, body))
}

fn whole(address: IpAddr) -> InterfaceAddress {
    InterfaceAddress { net: IpNet::from(address), scope: Scope::Global, nodad: address.is_ipv6() }
}
