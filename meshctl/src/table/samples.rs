//! Answers of an imagined daemon.

use std::collections::BTreeMap;

use meshwork_api::event::{Event, Happening};
use meshwork_api::model::{
    API_VERSION, ClearTraffic, Connection, ConnectionState, Connections, Direction, DnsStatus, Ipam, IpamPeer,
    IpamState, IpamSummary, Lease, Path, PathKind, Paths, Peer, PeerName, PeerState, Peers, PodIdentity, Status,
};
use meshwork_wire::PeerId;

const ONE: PeerId = PeerId([0xa1; 16]);
const TWO: PeerId = PeerId([0xb2; 16]);
const THREE: PeerId = PeerId([0xc3; 16]);

pub(crate) fn status() -> Status {
    Status {
        api: API_VERSION,
        healthy: true,
        ready: true,
        reasons: vec![],
        version: "0.1.0".to_owned(),
        uptime_s: 192.4,
        peer: PeerName { id: ONE, nickname: "node-1".to_owned() },
        cluster: "default".to_owned(),
        encryption: "required".to_owned(),
        discovery: true,
        listen: "[::]:6783".parse().unwrap(),
        targets: vec!["192.0.2.2".to_owned(), "192.0.2.9:7000".to_owned()],
        peers: BTreeMap::from([(PeerState::Alive, 2), (PeerState::Suspect, 1), (PeerState::Dead, 0)]),
        connections: BTreeMap::from([(ConnectionState::Established, 2), (ConnectionState::Retrying, 1)]),
        dns: DnsStatus::default(),
        ipam: summary(),
        overlay: vec!["10.32.0.1".parse().unwrap(), "fd4d:6573:6877:1::1".parse().unwrap()],
        exposed: false,
        mtu: 1400,
        drops: BTreeMap::new(),
        clear_blocked_packets: 0,
    }
}

fn summary() -> IpamSummary {
    IpamSummary {
        state: IpamState::Ready,
        reason: String::new(),
        range: vec!["10.32.0.0/12".parse().unwrap(), "fd4d:6573:6877::/48".parse().unwrap()],
        owned: 524_288,
        allocated: 3,
    }
}

pub(crate) fn peers() -> Peers {
    let peer = |id, nickname: &str, state, age_s| Peer {
        id,
        nickname: nickname.to_owned(),
        cluster: "default".to_owned(),
        is_self: id == ONE,
        state,
        endpoints: vec!["192.0.2.1:6783".parse().unwrap()],
        overlay: vec!["10.32.0.1".parse().unwrap()],
        age_s,
        incarnation: 4,
        version: "0.1.0".to_owned(),
    };
    let mut second = peer(TWO, "node\u{1b}[2J-2", PeerState::Suspect, 2.5);
    second.overlay.clear();
    second.endpoints.push("[2001:db8::2]:6783".parse().unwrap());
    Peers { api: API_VERSION, peers: vec![peer(ONE, "node-1", PeerState::Alive, 3660.0), second] }
}

pub(crate) fn connections() -> Connections {
    let established = Connection {
        peer: Some(TWO),
        nickname: "node-2".to_owned(),
        address: "192.0.2.2:6783".to_owned(),
        direction: Direction::Outbound,
        state: ConnectionState::Established,
        reason: "configured".to_owned(),
        age_s: 192.0,
        rtt_us: Some(210),
        retry_in_s: None,
        targets: vec!["192.0.2.2:6783".to_owned()],
    };
    let inbound = Connection {
        peer: Some(THREE),
        nickname: "node-3".to_owned(),
        address: "[2001:db8::3]:6783".to_owned(),
        direction: Direction::Inbound,
        rtt_us: Some(14_200),
        targets: vec![],
        ..established.clone()
    };
    let retrying = Connection {
        peer: None,
        nickname: String::new(),
        address: "192.0.2.9:7000".to_owned(),
        state: ConnectionState::Retrying,
        reason: "no answer within 3 s".to_owned(),
        age_s: 12.0,
        rtt_us: None,
        retry_in_s: Some(4.2),
        targets: vec![],
        ..established.clone()
    };
    Connections { api: API_VERSION, connections: vec![established, inbound, retrying] }
}

pub(crate) fn paths() -> Paths {
    let direct = Path {
        peer: TWO,
        nickname: "node-2".to_owned(),
        kind: PathKind::Direct,
        encrypted: true,
        up: true,
        endpoint: Some("192.0.2.2:6783".parse().unwrap()),
        via: vec![],
        mtu: 1400,
        rtt_us: Some(210),
        loss: Some(0.0),
        cipher: Some("AES-256-GCM".to_owned()),
        reason: "encryption is required".to_owned(),
        handshake_age_s: Some(61.0),
        sent_bytes: 1_468_006,
        received_bytes: 512,
    };
    let relay = Path {
        peer: THREE,
        nickname: "node-3".to_owned(),
        kind: PathKind::Relay,
        up: false,
        endpoint: None,
        via: vec![TWO],
        rtt_us: None,
        loss: Some(1.0),
        cipher: None,
        reason: "no direct path answers".to_owned(),
        handshake_age_s: None,
        ..direct.clone()
    };
    Paths { api: API_VERSION, paths: vec![direct, relay], clear: ClearTraffic::default() }
}

pub(crate) fn lease() -> Lease {
    Lease {
        sandbox: "0123456789abcdef".repeat(4),
        interface: "eth0".to_owned(),
        netns: "/run/netns/web".to_owned(),
        pod: PodIdentity { namespace: "shop".to_owned(), name: "web-0".to_owned(), labels: BTreeMap::new() },
        host_interface: "mw0123456789a".to_owned(),
        addresses: vec!["10.32.0.5".parse().unwrap(), "fd4d:6573:6877:1::5".parse().unwrap()],
        mtu: 1400,
        gateway4: "169.254.1.1".parse().unwrap(),
        gateway6: "fe80::1".parse().unwrap(),
        routed: true,
        network: Some("meshwork".to_owned()),
        address_only: false,
        masquerade: true,
    }
}

pub(crate) fn events() -> Vec<Event> {
    let event = |sequence, uptime_s, happening, subject: &str, reason: &str| Event {
        sequence,
        uptime_s,
        unix_s: 1_700_000_000.0 + uptime_s,
        happening,
        subject: subject.to_owned(),
        reason: reason.to_owned(),
    };
    let path = PathKind::Direct;
    let endpoint = Some("192.0.2.2:6783".parse().unwrap());
    vec![
        event(
            0,
            0.0,
            Happening::Started { incarnation: 4, version: "0.1.0".to_owned() },
            "node-1",
            "run 4 of this node",
        ),
        event(1, 0.61, Happening::MemberAlive { peer: TWO }, "node\u{1b}[2J-2", "linked"),
        event(
            2,
            192.0,
            Happening::PathUp { peer: TWO, path, endpoint },
            "node-2",
            "direct by 192.0.2.2:6783: encryption is required",
        ),
    ]
}

pub(crate) fn ipam() -> Ipam {
    let peer = |id, nickname: &str, state| IpamPeer {
        id,
        nickname: nickname.to_owned(),
        owned: 524_288,
        share: 0.5,
        state,
        parts: vec!["10.32.0.0/13".parse().unwrap()],
    };
    let peers = vec![peer(ONE, "node-1", PeerState::Alive), peer(TWO, "node-2", PeerState::Dead)];
    Ipam { api: API_VERSION, summary: summary(), peers, leases: vec![lease()] }
}
