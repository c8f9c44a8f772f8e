//! Requests and answers. Fields are only added, never renamed: scripts read them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use meshwork_wire::PeerId;
use serde::{Deserialize, Serialize};

/// Where the daemon listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/meshwork/meshd.sock";

/// Version of the JSON shapes, present in every top-level answer.
pub const API_VERSION: u32 = 1;

/// A peer, as other answers name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerName {
    /// Name derived from its key.
    pub id: PeerId,
    /// Name for people.
    pub nickname: String,
}

/// `GET /v1/status`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`API_VERSION`].
    pub api: u32,
    /// Ready, and nothing is known to be wrong.
    pub healthy: bool,
    /// Kernel objects are in place and addresses can be handed out.
    pub ready: bool,
    /// What keeps it from being healthy, for people.
    pub reasons: Vec<String>,
    /// Version of the daemon.
    pub version: String,
    /// Seconds since the daemon started.
    pub uptime_s: f64,
    /// This node.
    pub peer: PeerName,
    /// Cluster it belongs to.
    pub cluster: String,
    /// `required`, `trusted` or `off`.
    pub encryption: String,
    /// Whether peers learned by gossip are dialled.
    pub discovery: bool,
    /// UDP address of control and encrypted data.
    pub listen: SocketAddr,
    /// Addresses to begin from, as given.
    pub targets: Vec<String>,
    /// Members by state.
    pub peers: BTreeMap<PeerState, usize>,
    /// Control links by state.
    pub connections: BTreeMap<ConnectionState, usize>,
    /// Cluster DNS.
    pub dns: DnsStatus,
    /// Summary of the address ring.
    pub ipam: IpamSummary,
    /// Overlay addresses of the node itself.
    pub overlay: Vec<IpAddr>,
    /// Whether others may reach the host there.
    #[serde(default)]
    pub exposed: bool,
    /// MTU of pods.
    pub mtu: u32,
    /// Packets dropped, by reason, since the daemon started.
    pub drops: BTreeMap<String, u64>,
    /// Clear overlay packets that the guard stopped.
    pub clear_blocked_packets: u64,
}

/// Cluster DNS of this node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsStatus {
    /// Where it answers; empty while it is off.
    pub listen: Vec<SocketAddr>,
}

/// The ring in one glance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IpamSummary {
    /// Whether addresses can be handed out.
    pub state: IpamState,
    /// Why it is so.
    pub reason: String,
    /// One range per family.
    pub range: Vec<IpNet>,
    /// IPv4 addresses that this node owns.
    pub owned: u64,
    /// IPv4 addresses that this node handed out.
    pub allocated: u64,
}

/// State of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerState {
    /// Some link to it is up.
    Alive,
    /// No link to it is up.
    Suspect,
    /// Silent for long.
    Dead,
    /// Taken out of the mesh.
    Removed,
}

/// `GET /v1/peers`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peers {
    /// [`API_VERSION`].
    pub api: u32,
    /// Every member, this node first.
    pub peers: Vec<Peer>,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Name derived from its key.
    pub id: PeerId,
    /// Name for people.
    pub nickname: String,
    /// Cluster it belongs to.
    pub cluster: String,
    /// This node itself.
    #[serde(rename = "self")]
    pub is_self: bool,
    /// State as seen from here.
    pub state: PeerState,
    /// Underlay addresses it tells others.
    pub endpoints: Vec<SocketAddr>,
    /// Its own overlay addresses.
    pub overlay: Vec<IpAddr>,
    /// Seconds in this state.
    pub age_s: f64,
    /// Which run of the peer this is.
    pub incarnation: u64,
    /// Version of its software.
    pub version: String,
}

/// Who dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// They did.
    Inbound,
    /// We did.
    Outbound,
}

/// State of a control link or of a target without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConnectionState {
    /// Both sides proved the secret.
    Established,
    /// Being dialled or proved.
    Connecting,
    /// Waiting for the next attempt.
    Retrying,
    /// The other side has as many links as it carries, and named others: no fault.
    Redirected,
    /// Given up.
    Failed,
}

/// `GET /v1/connections`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Connections {
    /// [`API_VERSION`].
    pub api: u32,
    /// Control links, and targets that have none.
    pub connections: Vec<Connection>,
}

/// One control link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Connection {
    /// The other side, once it is known.
    pub peer: Option<PeerId>,
    /// Its name for people, empty while unknown.
    pub nickname: String,
    /// Underlay address.
    pub address: String,
    /// Who dialled.
    pub direction: Direction,
    /// Where it stands.
    pub state: ConnectionState,
    /// Why it is so: the last error of a target, or how the link came to be.
    pub reason: String,
    /// Seconds in this state.
    pub age_s: f64,
    /// Smoothed round trip of an established link.
    pub rtt_us: Option<u64>,
    /// Seconds to the next attempt of a target.
    pub retry_in_s: Option<f64>,
    /// Targets of the operator that led to this peer, whoever dialled the link that stands.
    #[serde(default)]
    pub targets: Vec<String>,
}

/// Kind of a data path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathKind {
    /// Kernel VXLAN in clear.
    Vxlan,
    /// Encrypted UDP straight to the peer.
    Direct,
    /// Encrypted, through another member.
    Relay,
}

/// Bytes that the clear path carried, Ethernet headers included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClearTraffic {
    /// Sent.
    pub sent_bytes: u64,
    /// Received.
    pub received_bytes: u64,
}

/// `GET /v1/paths`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Paths {
    /// [`API_VERSION`].
    pub api: u32,
    /// One path per other member.
    pub paths: Vec<Path>,
    /// What the devices of the clear path carried, to all members together.
    #[serde(default)]
    pub clear: ClearTraffic,
}

/// The data path to one peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Path {
    /// The other side.
    pub peer: PeerId,
    /// Its name for people.
    pub nickname: String,
    /// What carries the packets.
    pub kind: PathKind,
    /// Whether they are sealed.
    pub encrypted: bool,
    /// Whether packets can flow now.
    pub up: bool,
    /// Underlay address in use.
    pub endpoint: Option<SocketAddr>,
    /// Relays in between, next first.
    pub via: Vec<PeerId>,
    /// Largest inner packet.
    pub mtu: u32,
    /// Round trip of the last probe.
    pub rtt_us: Option<u64>,
    /// Share of probes lost lately, 0 to 1.
    pub loss: Option<f64>,
    /// Cipher of the session.
    pub cipher: Option<String>,
    /// Why this path and this state.
    pub reason: String,
    /// Seconds since the session was last agreed.
    pub handshake_age_s: Option<f64>,
    /// Inner bytes sent.
    pub sent_bytes: u64,
    /// Inner bytes received.
    pub received_bytes: u64,
}

/// State of address management.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpamState {
    /// Addresses can be handed out.
    Ready,
    /// Waiting for a ring or for space.
    Waiting,
    /// About to make the ring.
    Seeding,
    /// Two rings, or two owners of one part.
    Conflict,
}

/// `GET /v1/ipam`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ipam {
    /// [`API_VERSION`].
    pub api: u32,
    /// The ring in one glance.
    #[serde(flatten)]
    pub summary: IpamSummary,
    /// Parts and shares by owner, this node first.
    pub peers: Vec<IpamPeer>,
    /// What this node handed out.
    pub leases: Vec<Lease>,
}

/// Share of one owner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IpamPeer {
    /// The owner.
    pub id: PeerId,
    /// Its name for people.
    pub nickname: String,
    /// IPv4 addresses owned.
    pub owned: u64,
    /// Share of the range, 0 to 1.
    pub share: f64,
    /// State of the owner.
    pub state: PeerState,
    /// Prefixes owned.
    pub parts: Vec<IpNet>,
}

/// `GET /v1/pods`: leases of this node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Leases {
    /// [`API_VERSION`].
    pub api: u32,
    /// One per sandbox and interface.
    pub leases: Vec<Lease>,
}

/// An address held by a sandbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lease {
    /// Sandbox id given by the container runtime.
    pub sandbox: String,
    /// Interface inside the sandbox.
    pub interface: String,
    /// Path of its network namespace.
    pub netns: String,
    /// Namespace, name and labels of the pod.
    #[serde(default)]
    pub pod: PodIdentity,
    /// Name of the link's host end: `mw` and 11 hex digits.
    pub host_interface: String,
    /// One address per family.
    pub addresses: Vec<IpAddr>,
    /// MTU that the pod's link gets.
    pub mtu: u32,
    /// IPv4 gateway, reachable on the link.
    pub gateway4: IpAddr,
    /// IPv6 gateway, link-local on the host end.
    pub gateway6: IpAddr,
    /// Whether the host end is routed: the pod can be reached.
    pub routed: bool,
    /// Name of the CNI network that it was asked for; nothing where people asked, or an older daemon recorded it.
    #[serde(default)]
    pub network: Option<String>,
    /// Somebody else makes the link: `host_interface` names none.
    #[serde(default)]
    pub address_only: bool,
    /// Whether what the pod sends out of the overlay takes the node's address.
    #[serde(default = "yes")]
    pub masquerade: bool,
}

/// Who a pod is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodIdentity {
    /// Kubernetes namespace, or empty.
    #[serde(default)]
    pub namespace: String,
    /// Pod name, or empty.
    #[serde(default)]
    pub name: String,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// `POST /v1/pods`: asks for a lease, answers a [`Lease`]. The same sandbox and interface get the same lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRequest {
    /// Sandbox id.
    pub sandbox: String,
    /// Interface inside the sandbox.
    pub interface: String,
    /// Path of its network namespace.
    pub netns: String,
    /// Who the pod is.
    #[serde(default)]
    pub pod: PodIdentity,
    /// Wished IPv4 address.
    #[serde(default)]
    pub address: Option<IpAddr>,
    /// Wished MTU, at most what the node offers.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// Name of the CNI network that asks; nothing where people ask.
    #[serde(default)]
    pub network: Option<String>,
    /// Somebody else makes the link and routes it: there is nothing to confirm.
    #[serde(default)]
    pub address_only: bool,
    /// Whether what the pod sends out of the overlay takes the node's address.
    #[serde(default = "yes")]
    pub masquerade: bool,
}

fn yes() -> bool {
    true
}

/// Names one lease: `POST /v1/pods/confirm` routes its host end and answers once the pod can be reached;
/// `POST /v1/pods/release` frees it and removes the link, and succeeds where there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseName {
    /// Sandbox id.
    pub sandbox: String,
    /// Interface inside the sandbox; nothing means every interface of the sandbox (release only).
    pub interface: Option<String>,
}

/// `POST /v1/connect`, which answers it in the form in which other answers name it; `POST /v1/forget`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// `HOST[:PORT]`
    pub address: String,
}

/// `POST /v1/seal`: whether packets to a member travel sealed also where both sides allow clear; until the daemon ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// Name or id of the member.
    pub peer: String,
    /// True to seal, false to let the rule decide again.
    pub sealed: bool,
}

/// `POST /v1/log`: what is logged from now on, until the daemon ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFilter {
    /// `error`, `warn`, `info`, `debug`, `trace`, or `module=level,…`.
    pub filter: String,
}

/// `POST /v1/expose`, `POST /v1/hide`: lets pods and other hosts reach this host at the node's overlay addresses, or no
/// longer. It stays so over restarts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exposure {
    /// Whether they may.
    pub exposed: bool,
    /// The node's overlay addresses, one per family; none before it has leased them.
    pub addresses: Vec<IpAddr>,
}

/// `GET /v1/version`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionInfo {
    /// [`API_VERSION`].
    pub api: u32,
    /// Version of the daemon.
    pub version: String,
    /// Control protocol spoken.
    pub protocol: u32,
}

/// Answer of a request that carries nothing back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

/// Every error answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// What went wrong and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// Stable word for programs, such as `no_space`.
    pub code: String,
    /// What happened.
    pub message: String,
    /// What to do next.
    pub hint: String,
}
