//! The node as the API shows it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use ipnet::IpNet;
use meshwork_api::model::{
    API_VERSION, ClearTraffic, Connection, ConnectionState, Connections, Direction as DirectionModel, DnsStatus, Ipam,
    IpamPeer, IpamState, IpamSummary, Lease as LeaseModel, Path, PathKind, Paths, Peer, PeerName, PeerState, Peers,
    PodIdentity, Status,
};
use meshwork_gossip::MemberState;
use meshwork_ipam::{Lease, StatusState};
use meshwork_tunnel::{PathState, PathStatus};
use meshwork_wire::PeerId;
use meshwork_wire::record::{Encryption, PeerRecord};

use super::Node;
use crate::clear::mac_of;
use crate::control::dialer::{TargetKey, TargetState, TargetStatus};
use crate::control::{Direction, RefusedCaller};
use crate::kernel::driver::KernelHealth;
use crate::kernel::{GATEWAY4, GATEWAY6, POD_LINK_PREFIX};

/// Of a path that the kernel still takes in clear although it no longer may, or not yet knows whether it may.
const STILL_CLEAR: &str = "the kernel has not been told otherwise yet";

/// Name of the host end of a pod's link: `mw` and 11 hex digits of a hash of sandbox and interface.
#[must_use]
pub fn host_interface(lease: &Lease) -> String {
    let name = format!("{}\0{}", lease.name.sandbox, lease.name.interface);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, name.as_bytes());
    let mut digits = String::with_capacity(13);
    digits.push_str(POD_LINK_PREFIX);
    for byte in digest.as_ref().iter().take(6) {
        write!(digits, "{byte:02x}").expect("writing to a string cannot fail");
    }
    digits.truncate(POD_LINK_PREFIX.len() + 11);
    digits
}

fn state_model(state: MemberState) -> PeerState {
    match state {
        MemberState::Alive => PeerState::Alive,
        MemberState::Suspect => PeerState::Suspect,
        MemberState::Dead => PeerState::Dead,
    }
}

pub(super) fn direction_model(direction: Direction) -> DirectionModel {
    match direction {
        Direction::Inbound => DirectionModel::Inbound,
        Direction::Outbound => DirectionModel::Outbound,
    }
}

fn age(now: Instant, since: Instant) -> f64 {
    now.saturating_duration_since(since).as_secs_f64()
}

impl Node {
    fn me(&self) -> PeerId {
        self.parts.identity.peer_id()
    }

    fn nickname(&self, records: &BTreeMap<PeerId, PeerRecord>, peer: PeerId) -> String {
        if peer == self.me() {
            return self.parts.config.nickname.clone();
        }
        records.get(&peer).map(|record| record.nickname.clone()).unwrap_or_default()
    }

    /// `GET /v1/status`
    pub fn status(&self) -> Status {
        let config = &self.parts.config;
        let kernel = self.parts.kernel.health();
        let ipam = self.ipam_summary();
        let ready = self.is_ready(&kernel, &ipam);
        let reasons = self.reasons(&kernel, &ipam);
        Status {
            api: API_VERSION,
            healthy: ready && reasons.is_empty(),
            ready,
            reasons,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: self.started.elapsed().as_secs_f64(),
            peer: PeerName { id: self.me(), nickname: config.nickname.clone() },
            cluster: config.cluster.clone(),
            encryption: match config.encryption {
                Encryption::Required => "required",
                Encryption::Trusted => "trusted",
                Encryption::Off => "off",
            }
            .to_owned(),
            discovery: config.discovery,
            listen: self.parts.listen,
            targets: self.dialer.status().filter_map(named).collect(),
            peers: count(self.peers().peers.iter().map(|peer| peer.state)),
            connections: count(self.connections().connections.iter().map(|connection| connection.state)),
            dns: DnsStatus::default(),
            ipam,
            overlay: self.own.clone(),
            exposed: self.exposed,
            mtu: self.parts.mtu,
            drops: self.drops(),
            clear_blocked_packets: kernel.clear_blocked,
        }
    }

    /// Kernel objects are in place and addresses are handed out. A conflict is somebody's to settle, and meanwhile what
    /// this node owns without doubt is still given.
    pub fn is_ready(&self, kernel: &KernelHealth, ipam: &IpamSummary) -> bool {
        let hands_out = matches!(ipam.state, IpamState::Ready | IpamState::Conflict);
        kernel.usable && hands_out && !self.own.is_empty()
    }

    pub(super) fn reasons(&self, kernel: &KernelHealth, ipam: &IpamSummary) -> Vec<String> {
        let mut reasons = Vec::new();
        if ipam.state != IpamState::Ready {
            reasons.push(format!("addresses: {}", ipam.reason));
        }
        if self.own.is_empty() {
            reasons.push("this node has no overlay address yet".to_owned());
        }
        reasons.extend(self.why_alone());
        let misfits = self.parts.allocator.view().status.malformed;
        if misfits > 0 {
            reasons.push(format!(
                "{misfits} parts of other nodes lie outside {}: start every node of the mesh with the same --ipam-range",
                self.parts.config.range4
            ));
        }
        if let Some(error) = &kernel.error {
            reasons.push(format!("kernel: {error}"));
        } else if !kernel.in_place {
            reasons.push("kernel objects are not in place yet".to_owned());
        }
        let overlaps = self.parts.underlay.overlaps.iter();
        reasons.extend(overlaps.map(|overlap| format!("{overlap}: what lies there cannot be reached from here")));
        reasons.extend(self.why_isolated());
        for name in &self.parts.underlay.misnamed {
            reasons.push(format!(
                "interface {name} is named like the pod links of this node, so that nothing passes it: give it a name that does not begin with {POD_LINK_PREFIX}"
            ));
        }
        let fits = self.parts.underlay.pod_mtu();
        if self.parts.mtu > fits {
            reasons.push(format!(
                "pods send packets of {} bytes, of which the underlay carries {fits} once sealed: start meshd with --mtu {fits} or less",
                self.parts.mtu
            ));
        }
        if let Some(incarnation) = self.outranked {
            reasons.push(format!(
                "run {incarnation} of this node is known elsewhere: its state was rolled back or copied to a second node"
            ));
        }
        if !self.untold.is_empty() {
            reasons.push(format!(
                "{} pods are unknown to other nodes: this node publishes all that a member may; run fewer here or give them fewer labels",
                self.untold.len()
            ));
        }
        let records = self.records();
        for path in self.parts.tunnel.paths().iter().filter(|path| path.state == PathState::Handshaking) {
            if self.gossip.member(path.peer).is_some_and(|member| member.state == MemberState::Alive) {
                reasons.push(format!("no path to {}: {}", self.nickname(&records, path.peer), path.reason));
            }
        }
        reasons
    }

    /// Members that were reached before, when none can be reached any more.
    fn why_isolated(&self) -> Option<String> {
        let in_state = |state| self.gossip.members().filter(move |member| member.state == state);
        let unreachable: Vec<_> = in_state(MemberState::Suspect).collect();
        let first = unreachable.first().filter(|_| in_state(MemberState::Alive).next().is_none())?;
        let (records, seconds) = (self.records(), age(Instant::now(), first.since));
        let name = self.nickname(&records, first.id);
        Some(format!("no other node can be reached, {name} for {seconds:.0} s and {} more", unreachable.len() - 1))
    }

    /// Why a node that was given somewhere to begin has no link at all.
    fn why_alone(&self) -> Option<String> {
        if !self.links.is_empty() {
            return None;
        }
        let failed = self.dialer.status().filter(|target| !target.reason.is_empty());
        let first = failed.min_by_key(|target| !matches!(target.key, TargetKey::Named(_)))?;
        Some(format!("no link to any other node; {}: {}", first.key, first.reason))
    }

    /// Packets and frames dropped, by reason.
    pub fn drops(&self) -> BTreeMap<String, u64> {
        let mut drops: BTreeMap<String, u64> =
            self.parts.tunnel.drops().into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect();
        let (bad_secret, refused) = self.parts.control.refused();
        let gossip = self.gossip.counters();
        let more = [
            ("bad_secret", bad_secret),
            ("refused_link", refused),
            ("forged", gossip.forged),
            ("malformed", gossip.malformed),
            ("queue_full", gossip.queue_full + self.dropped_frames + self.parts.control_queue.dropped()),
            ("wrong_source", self.parts.kernel.health().pod_wrong_source),
            ("clear_refused", self.parts.kernel.health().clear_refused),
            ("sent_elsewhere", self.sent_elsewhere),
            ("hidden", self.parts.kernel.health().hidden),
        ];
        for (reason, count) in more {
            *drops.entry(reason.to_owned()).or_default() += count;
        }
        drops
    }

    /// `GET /v1/peers`
    pub fn peers(&self) -> Peers {
        let (now, records) = (Instant::now(), self.records());
        let own = Peer {
            id: self.me(),
            nickname: self.parts.config.nickname.clone(),
            cluster: self.parts.config.cluster.clone(),
            is_self: true,
            state: PeerState::Alive,
            endpoints: self.own_endpoints(),
            overlay: self.own.clone(),
            age_s: age(now, self.started),
            incarnation: self.parts.run.incarnation.0,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let others = self.gossip.members().map(|member| {
            let record = records.get(&member.id);
            Peer {
                id: member.id,
                nickname: record.map(|record| record.nickname.clone()).unwrap_or_default(),
                cluster: record.map(|record| record.cluster.clone()).unwrap_or_default(),
                is_self: false,
                state: state_model(member.state),
                endpoints: record.map(|record| record.endpoints.clone()).unwrap_or_default(),
                overlay: record.map(|record| record.overlay.clone()).unwrap_or_default(),
                age_s: age(now, member.since),
                incarnation: member.incarnation.0,
                version: record.map(|record| record.software.clone()).unwrap_or_default(),
            }
        });
        Peers { api: API_VERSION, peers: std::iter::once(own).chain(others).collect() }
    }

    /// `GET /v1/connections`
    pub fn connections(&self) -> Connections {
        let (now, records) = (Instant::now(), self.records());
        let established = self.links.values().map(|link| Connection {
            peer: Some(link.sender.peer),
            nickname: self.nickname(&records, link.sender.peer),
            address: link.sender.address.to_string(),
            direction: direction_model(link.sender.direction),
            state: ConnectionState::Established,
            reason: match (&link.sender.direction, &link.sender.target) {
                (Direction::Inbound, _) if link.sender.caller.named => {
                    "dialled by the peer, which was told to".to_owned()
                }
                (Direction::Inbound, _) => "dialled by the peer".to_owned(),
                (Direction::Outbound, Some(TargetKey::Named(target))) => format!("configured as {target}"),
                (Direction::Outbound, _) => "discovered by gossip".to_owned(),
            },
            age_s: age(now, link.since),
            rtt_us: u64::try_from(link.sender.rtt().as_micros()).ok(),
            retry_in_s: None,
            targets: self.targets_of(link.sender.peer),
        });
        let established: Vec<_> = established.collect();
        let waiting = self.dialer.status().filter_map(|target| self.waiting(now, &records, target));
        let refused = self.parts.control.refused_callers().into_iter().map(|caller| refused(now, caller));
        let connections = established.into_iter().chain(waiting).chain(refused).collect();
        Connections { api: API_VERSION, connections }
    }

    /// What the operator gave and led to this peer.
    fn targets_of(&self, peer: PeerId) -> Vec<String> {
        let led = self.dialer.status().filter(|target| target.state == TargetState::Linked(peer));
        led.filter_map(named).collect()
    }

    /// A target without a link, as a connection to be.
    fn waiting(
        &self,
        now: Instant,
        records: &BTreeMap<PeerId, PeerRecord>,
        target: TargetStatus,
    ) -> Option<Connection> {
        let (state, retry) = match target.state {
            TargetState::Linked(_) => return None,
            TargetState::Dialling => (ConnectionState::Connecting, None),
            TargetState::Waiting(at) => (ConnectionState::Retrying, Some(age(at, now))),
            TargetState::Elsewhere(at) => (ConnectionState::Redirected, Some(age(at, now))),
            TargetState::Ourselves => (ConnectionState::Failed, None),
        };
        let reason = match state {
            ConnectionState::Failed => "this is the node itself".to_owned(),
            _ => target.reason,
        };
        Some(Connection {
            peer: target.key.member(),
            nickname: target.key.member().map(|peer| self.nickname(records, peer)).unwrap_or_default(),
            address: target.key.to_string(),
            direction: DirectionModel::Outbound,
            state,
            reason,
            age_s: age(now, target.since),
            rtt_us: None,
            retry_in_s: retry,
            targets: Vec::new(),
        })
    }

    /// `GET /v1/paths`
    pub fn paths(&self) -> Paths {
        let records = self.records();
        let KernelHealth { in_clear, left_in_clear: left, clear_traffic: carried, .. } = self.parts.kernel.health();
        let clear = |peer: PeerId| in_clear.get(&peer).or_else(|| left.get(&mac_of(peer))).copied();
        let path = |status: PathStatus| self.path(&records, clear(status.peer), status);
        let paths = self.parts.tunnel.paths().into_iter().map(path);
        let clear = ClearTraffic { sent_bytes: carried.sent_bytes, received_bytes: carried.received_bytes };
        Paths { api: API_VERSION, paths: paths.collect(), clear }
    }

    /// The clear path where the kernel takes it, else the encrypted one, which says why it is not clear where it could be.
    fn path(&self, records: &BTreeMap<PeerId, PeerRecord>, in_clear: Option<IpAddr>, status: PathStatus) -> Path {
        let dead = self.gossip.member(status.peer).filter(|member| member.state == MemberState::Dead);
        let reason = match dead {
            Some(_) => format!("the peer is dead: no reachable member has a link to it; before, {}", status.reason),
            None => status.reason,
        };
        let encrypted = Path {
            peer: status.peer,
            nickname: self.nickname(records, status.peer),
            kind: PathKind::Direct,
            encrypted: true,
            up: status.state == PathState::Established && dead.is_none(),
            endpoint: status.endpoint,
            via: Vec::new(),
            mtu: self.parts.mtu,
            rtt_us: status.rtt.and_then(|rtt| u64::try_from(rtt.as_micros()).ok()),
            loss: status.loss,
            cipher: status.cipher.map(str::to_owned),
            reason,
            handshake_age_s: status.handshake_age.map(|age| age.as_secs_f64()),
            sent_bytes: status.sent_bytes,
            received_bytes: status.received_bytes,
        };
        let standing = self.clear_standing(status.peer);
        match (in_clear, standing) {
            (None, None) => encrypted,
            (None, Some(clear)) => Path { reason: format!("{}; {}", encrypted.reason, clear.reason), ..encrypted },
            (Some(remote), standing) => Path {
                kind: PathKind::Vxlan,
                encrypted: false,
                up: true,
                endpoint: Some(SocketAddr::new(remote, self.parts.config.vxlan_port)),
                rtt_us: standing.as_ref().and_then(|clear| u64::try_from(clear.rtt?.as_micros()).ok()),
                loss: standing.as_ref().map(|clear| clear.loss),
                cipher: None,
                reason: standing.map_or_else(|| STILL_CLEAR.to_owned(), |clear| clear.reason),
                handshake_age_s: None,
                ..encrypted
            },
        }
    }

    pub(super) fn ipam_summary(&self) -> IpamSummary {
        let view = self.parts.allocator.view();
        IpamSummary {
            state: match view.status.state {
                StatusState::Ready => IpamState::Ready,
                StatusState::Waiting => IpamState::Waiting,
                StatusState::Seeding => IpamState::Seeding,
                StatusState::Conflict => IpamState::Conflict,
            },
            reason: view.status.reason.clone(),
            range: vec![IpNet::V4(self.parts.config.range4), IpNet::V6(self.parts.config.range6)],
            owned: view.status.owned,
            allocated: view.status.allocated,
        }
    }

    /// `GET /v1/ipam`
    pub fn ipam(&self) -> Ipam {
        let view = self.parts.allocator.view();
        let records = self.records();
        let states: BTreeMap<PeerId, PeerState> =
            self.gossip.members().map(|member| (member.id, state_model(member.state))).collect();
        let whole = 2f64.powi(i32::from(32 - self.parts.config.range4.prefix_len()));
        let peer = |(id, parts): (&PeerId, &Vec<ipnet::Ipv4Net>)| {
            let owned = parts.iter().map(|part| 1u64 << (32 - part.prefix_len())).sum::<u64>();
            IpamPeer {
                id: *id,
                nickname: self.nickname(&records, *id),
                owned,
                share: owned as f64 / whole,
                state: if *id == self.me() {
                    PeerState::Alive
                } else {
                    states.get(id).copied().unwrap_or(PeerState::Dead)
                },
                parts: parts.iter().map(|part| IpNet::V4(*part)).collect(),
            }
        };
        let mut peers: Vec<_> = view.ownership.iter().map(peer).collect();
        peers.sort_by_key(|peer| (peer.id != self.me(), peer.id));
        Ipam { api: API_VERSION, summary: self.ipam_summary(), peers, leases: self.leases() }
    }

    /// `GET /v1/pods`
    pub fn leases(&self) -> Vec<LeaseModel> {
        let view = self.parts.allocator.view();
        view.leases.iter().filter(|lease| !lease.is_node()).map(|lease| self.lease_model(lease)).collect()
    }

    /// One lease for whoever makes the link.
    pub fn lease_model(&self, lease: &Lease) -> LeaseModel {
        let host_interface = host_interface(lease);
        LeaseModel {
            sandbox: lease.name.sandbox.clone(),
            interface: lease.name.interface.clone(),
            netns: lease.netns.clone(),
            pod: PodIdentity {
                namespace: lease.pod.namespace.clone(),
                name: lease.pod.name.clone(),
                labels: lease.pod.labels.clone(),
            },
            routed: self.confirmed.contains(&host_interface),
            host_interface,
            addresses: lease.pod.addresses.clone(),
            mtu: self.parts.mtu,
            gateway4: GATEWAY4.into(),
            gateway6: GATEWAY6.into(),
            network: lease.origin.network.clone(),
            address_only: lease.origin.address_only,
            masquerade: !lease.origin.unmasqueraded,
        }
    }

    /// The lease of one sandbox and interface.
    pub fn find_lease(&self, sandbox: &str, interface: &str) -> Option<LeaseModel> {
        let view = self.parts.allocator.view();
        let named = |lease: &&Lease| lease.name.sandbox == sandbox && lease.name.interface == interface;
        view.leases.iter().find(named).map(|lease| self.lease_model(lease))
    }
}

/// Somebody who called and was refused, as a connection that failed.
fn refused(now: Instant, caller: RefusedCaller) -> Connection {
    Connection {
        peer: None,
        nickname: String::new(),
        address: caller.address.to_string(),
        direction: DirectionModel::Inbound,
        state: ConnectionState::Failed,
        reason: caller.reason,
        age_s: age(now, caller.since),
        rtt_us: None,
        retry_in_s: None,
        targets: Vec::new(),
    }
}

fn named(target: TargetStatus) -> Option<String> {
    match target.key {
        TargetKey::Named(target) => Some(target.to_string()),
        TargetKey::Endpoint(..) => None,
    }
}

fn count<T: Ord>(states: impl Iterator<Item = T>) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    for state in states {
        *counts.entry(state).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use meshwork_ipam::Origin;
    use meshwork_wire::record::{PodKey, PodRecord};

    use super::*;
    use crate::kernel::is_pod_link;

    #[test]
    fn host_ends_are_named_by_sandbox_and_interface() {
        let lease = |sandbox: &str, interface: &str| Lease {
            name: PodKey { sandbox: sandbox.to_owned(), interface: interface.to_owned() },
            netns: String::new(),
            pod: PodRecord {
                namespace: String::new(),
                name: String::new(),
                labels: BTreeMap::new(),
                addresses: Vec::new(),
            },
            origin: Origin::default(),
        };
        let names = [lease("a", "eth0"), lease("a", "eth1"), lease("ae", "th0")].map(|lease| host_interface(&lease));
        assert!(names.iter().all(|name| is_pod_link(name)), "{names:?}");
        assert!(names[0] != names[1] && names[0] != names[2]);
    }
}
