//! The clear path of this node: what its records allow becomes candidates, answers to probes become nexthops.
//!
//! Probes pass through the VXLAN devices as Ethernet frames of a type of their own. A thread reads them; they are sent
//! from here, since sending never blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use meshwork_gossip::MemberState;
use meshwork_identity::Secrets;
use meshwork_sys::packet::{ETHERNET_HEADER, PacketSocket};
use meshwork_sys::wake::{Ready, Wake};
use meshwork_tunnel::PathState;
use meshwork_wire::PeerId;
use meshwork_wire::record::{ClearTerms, Encryption, PeerRecord};
use tokio::sync::mpsc;

use super::Node;
use super::named::NameError;
use crate::clear::mac_of;
use crate::clear::paths::{ClearPaths, Question, Standing, Witness};
use crate::clear::probe::{ETHERTYPE, Probe, ProbeKeys};
use crate::clear::rule::{Side, allowed};
use crate::clear::sealing::Sealing;
use crate::kernel::clear::{self as devices, ClearPeer, Inherited};

/// Frames that may wait for the actor: a question and an answer of each of some hundred peers.
const WAITING_FRAMES: usize = 256;

/// How long the paths of the run before are kept for peers that are not known yet. Reaching the mesh again takes a second
/// or two; where the others' daemons are down, the kernel's paths go on for as long as somebody may need to mend that.
const INHERITANCE: Duration = Duration::from_secs(300);

/// Probes are as long as packets; what is longer is none.
const LONGEST_FRAME: usize = 64 * 1024;

/// Underlay addresses of one member that are tried, and told to others.
const MOST_ADDRESSES: usize = 16;

/// A frame that came out of a tunnel: its interface and its payload.
pub(super) type Frame = (u32, Vec<u8>);

/// State of the clear path.
pub(super) struct ClearPath {
    paths: ClearPaths,
    keys: ProbeKeys,
    /// Pairs of our and others' addresses between which clear is allowed.
    pairs: BTreeSet<(IpAddr, IpAddr)>,
    /// Nothing where this node allows no clear.
    socket: Option<ProbeSocket>,
    /// Peers of the run before, until this one knows better.
    inherited: BTreeMap<[u8; 6], Inherited>,
    inherits_until: Instant,
    /// Members that packets are sealed for whatever both sides allow.
    sealing: Sealing,
}

impl ClearPath {
    /// Opens what is needed, if this node allows clear at all, and hands frames to `frames`. Of what the run before left,
    /// that is kept which this one may still allow.
    pub(super) fn start(
        (encryption, trusted): (Encryption, &[IpNet]),
        secrets: &Secrets,
        inherited: BTreeMap<[u8; 6], Inherited>,
        now: Instant,
    ) -> (Self, mpsc::Receiver<Frame>) {
        let (sender, frames) = mpsc::channel(WAITING_FRAMES);
        let inherited: BTreeMap<_, _> =
            inherited.into_iter().filter(|(_, left)| may_allow(encryption, trusted, left.remote)).collect();
        let wanted = (encryption != Encryption::Required).then_some(sender);
        let socket = wanted.and_then(|sender| {
            let opened = ProbeSocket::open(sender);
            opened.inspect_err(|error| tracing::error!(%error, "no probes, so nothing travels in clear")).ok()
        });
        let state = Self {
            paths: ClearPaths::default(),
            keys: ProbeKeys::new(secrets),
            pairs: BTreeSet::new(),
            socket,
            inherits_until: if inherited.is_empty() { now } else { now + INHERITANCE },
            inherited,
            sealing: Sealing::default(),
        };
        (state, frames)
    }

    /// Takes on other secrets.
    pub(super) fn set_secrets(&mut self, secrets: &Secrets) {
        self.keys = ProbeKeys::new(secrets);
    }

    /// When something is due.
    pub(super) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let inheritance = Some(self.inherits_until).filter(|until| *until > now);
        [self.paths.poll_timeout(), self.sealing.poll_timeout(), inheritance].into_iter().flatten().min()
    }

    /// How the path to a peer stands.
    pub(super) fn standing(&self, peer: PeerId) -> Option<Standing> {
        let standing = self.paths.standing(peer)?;
        if !self.sealing.is_sealed(peer) {
            return Some(standing);
        }
        Some(Standing {
            proven: false,
            reason: "clear is allowed, but the operator wants it sealed".to_owned(),
            ..standing
        })
    }
}

/// The socket, and the thread that reads it.
struct ProbeSocket {
    socket: Arc<PacketSocket>,
    ending: Arc<Wake>,
    reader: Option<JoinHandle<()>>,
}

impl ProbeSocket {
    fn open(frames: mpsc::Sender<Frame>) -> io::Result<Self> {
        let (socket, ending) = (Arc::new(PacketSocket::open(ETHERTYPE)?), Arc::new(Wake::new()?));
        let (reading, until) = (Arc::clone(&socket), Arc::clone(&ending));
        let read = move || {
            if let Err(error) = read_frames(&reading, &until, &frames) {
                tracing::error!(%error, "probes of the clear path are no longer read");
            }
        };
        let reader = thread::Builder::new().name("clear-probes".into()).spawn(read)?;
        Ok(Self { socket, ending, reader: Some(reader) })
    }
}

impl Drop for ProbeSocket {
    fn drop(&mut self) {
        self.ending.ring();
        if self.reader.take().is_some_and(|reader| reader.join().is_err()) {
            tracing::error!("the thread that reads probes had panicked");
        }
    }
}

fn read_frames(socket: &PacketSocket, ending: &Wake, frames: &mpsc::Sender<Frame>) -> io::Result<()> {
    let mut buffer = vec![0; LONGEST_FRAME];
    loop {
        match socket.receive(&mut buffer) {
            Ok((interface, length)) => {
                let payload = buffer.get(ETHERNET_HEADER..length).unwrap_or_default().to_vec();
                // A probe that finds no room is a probe lost, which its sender repeats.
                let _ = frames.try_send((interface, payload));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if ending.wait_readable(socket.as_fd(), None)? == Ready::Rung {
                    return Ok(());
                }
            }
            // The interface of an earlier frame went down.
            Err(error) if matches!(error.kind(), io::ErrorKind::NetworkDown | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
}

impl Node {
    /// What this node tells others of the clear path.
    pub(super) fn clear_terms(&self) -> ClearTerms {
        let config = &self.parts.config;
        if config.encryption == Encryption::Required {
            return ClearTerms::default();
        }
        let addresses = self.parts.underlay.addresses.iter().take(MOST_ADDRESSES).copied().collect();
        ClearTerms { port: config.vxlan_port, addresses, trusted: config.trusted.clone() }
    }

    /// Finds anew with whom clear is allowed.
    pub(super) fn refresh_clear(&mut self, now: Instant) {
        let (records, terms) = (self.records(), self.clear_terms());
        let ours = Side { encryption: self.parts.config.encryption, terms: &terms };
        let mut wanted = BTreeMap::new();
        self.clear.pairs.clear();
        // The dead as well: what the kernels of both sides carry goes on when the daemons do not.
        for member in self.gossip.members() {
            let Some(record) = records.get(&member.id) else { continue };
            let pairs = allowed(ours, Side { encryption: record.encryption, terms: &record.clear });
            let candidates = self.candidates(member.id, &pairs);
            if !candidates.is_empty() {
                wanted.insert(member.id, candidates);
            }
            self.clear.pairs.extend(pairs);
        }
        let inherited = self.clear.inherited.clone();
        let known: Vec<_> = records.iter().filter(|(peer, record)| self.is_known(**peer, record, &wanted)).collect();
        for (peer, _) in known {
            self.clear.inherited.remove(&mac_of(*peer));
        }
        self.clear.paths.configure(wanted, |peer| inherited.get(&mac_of(peer)).map(|peer| peer.remote), now);
        if self.clear.paths.take_changed() {
            self.stale.overlay();
        }
    }

    /// Whether what the run before left for a peer is of no more use: clear is no longer allowed with it, or all that
    /// leads to it is known again.
    fn is_known(&self, peer: PeerId, record: &PeerRecord, wanted: &BTreeMap<PeerId, Vec<IpAddr>>) -> bool {
        !wanted.contains_key(&peer) || self.gateway4(peer, record).is_some()
    }

    /// Addresses of a peer to try, the one of its control link first: it is known to work.
    fn candidates(&self, peer: PeerId, pairs: &[(IpAddr, IpAddr)]) -> Vec<IpAddr> {
        let linked = self.link_address(peer).map(|address| address.ip().to_canonical());
        let mut candidates: Vec<IpAddr> = Vec::new();
        for (_, their) in pairs {
            if !candidates.contains(their) {
                candidates.push(*their);
            }
        }
        candidates.sort_by_key(|address| Some(*address) != linked);
        candidates
    }

    /// Asks what is due, and lets go of what an earlier run left when its time is over.
    pub(super) fn clear_timers(&mut self, now: Instant) {
        let mut paths = std::mem::take(&mut self.clear.paths);
        paths.handle_timeout(now, crate::random::number, |peer| self.witness(peer));
        self.clear.paths = paths;
        while let Some(peer) = self.clear.paths.poll_doubt() {
            self.parts.tunnel.open(peer);
            self.parts.tunnel.ask(peer);
        }
        while let Some(Question { to, token }) = self.clear.paths.poll_question() {
            let length = usize::try_from(self.parts.mtu).unwrap_or_default();
            self.send_probe(Probe { answer: false, from: self.parts.identity.peer_id(), to, token }, length);
        }
        let over = !self.clear.inherited.is_empty() && now >= self.clear.inherits_until;
        if over {
            self.clear.inherited.clear();
        }
        let tunnel = &self.parts.tunnel;
        let has_session = |peer| tunnel.path(peer).is_some_and(|path| path.state == PathState::Established);
        let sealed = self.clear.sealing.handle_timeout(now, has_session);
        if sealed || over || self.clear.paths.take_changed() {
            self.stale.overlay();
        }
    }

    /// Seals packets to a member whatever both sides allow, or no longer does.
    ///
    /// # Errors
    /// [`NameError`] where the name does not tell whom it means.
    pub fn seal(&mut self, now: Instant, peer: &str, sealed: bool) -> Result<(), NameError> {
        let id = self.member_named(peer)?;
        self.record_seal(id, sealed);
        if sealed {
            self.parts.tunnel.open(id);
            self.clear.sealing.seal(id, now);
        } else {
            self.clear.sealing.release(id);
            self.stale.overlay();
        }
        Ok(())
    }

    /// What tells, apart from the clear path, that a peer's daemon runs.
    fn witness(&self, peer: PeerId) -> Witness {
        let sealed = self.parts.tunnel.path(peer).and_then(|path| path.heard);
        let linked = self.links.get(&peer).map(|link| link.heard());
        let alive = self.gossip.member(peer).is_some_and(|member| member.state == MemberState::Alive);
        Witness { heard: sealed.max(linked), alive }
    }

    /// A frame came out of a tunnel.
    pub(super) fn clear_frame(&mut self, now: Instant, (interface, payload): Frame) {
        if !self.parts.kernel.clear_links().contains(interface) {
            return;
        }
        let Some(probe) = self.clear.keys.open(&payload).filter(|probe| probe.to == self.parts.identity.peer_id())
        else {
            self.misbehaved_frames += 1;
            return;
        };
        if self.remote(probe.from).is_none() {
            return;
        }
        if probe.answer {
            self.clear.paths.handle_answer(probe.from, probe.token, now);
            if self.clear.paths.take_changed() {
                self.stale.overlay();
            }
        } else {
            self.send_probe(Probe { answer: true, from: probe.to, to: probe.from, token: probe.token }, 0);
        }
    }

    /// Where a peer's end of the clear path is, also that of a peer which the run before left.
    fn remote(&self, peer: PeerId) -> Option<IpAddr> {
        let standing = self.clear.standing(peer).map(|standing| standing.remote);
        standing.or_else(|| self.clear.inherited.get(&mac_of(peer)).map(|peer| peer.remote))
    }

    /// How the clear path to a peer stands; nothing where it is not allowed.
    pub(super) fn clear_standing(&self, peer: PeerId) -> Option<Standing> {
        self.clear.standing(peer)
    }

    /// What cannot be sent is a probe lost: the path is judged by answers alone.
    fn send_probe(&self, probe: Probe, length: usize) {
        let interface = self.remote(probe.to).and_then(|remote| self.parts.kernel.clear_links().towards(remote));
        let (Some(socket), Some(interface)) = (&self.clear.socket, interface) else { return };
        let payload = self.clear.keys.seal(&probe, length);
        let sent = socket.socket.send(interface, mac_of(probe.from), mac_of(probe.to), &payload);
        if let Err(error) = sent {
            tracing::trace!(%error, peer = %probe.to, "a probe was not sent");
        }
    }

    /// What the clear path needs of the kernel; nothing where this node allows none.
    pub(super) fn clear_overlay(&self) -> Option<devices::Clear> {
        let config = &self.parts.config;
        if config.encryption == Encryption::Required {
            return None;
        }
        let records = self.records();
        let peers = self.gossip.members().filter_map(|member| {
            let mac = mac_of(member.id);
            let peer = match (records.get(&member.id), self.clear.inherited.get(&mac)) {
                (Some(record), _) => {
                    let standing = self.clear.standing(member.id)?;
                    let gateway4 = self.gateway4(member.id, record);
                    ClearPeer { remote: standing.remote, mac, gateway4, proven: standing.proven }
                }
                // It is a member, but what it allows is not known yet.
                (None, Some(left)) => ClearPeer::inherited(mac, *left),
                (None, None) => return None,
            };
            Some((member.id, peer))
        });
        let ours = &self.parts.underlay.addresses;
        let left = self.clear.inherited.values().map(|left| left.remote);
        let left = left.flat_map(|their| {
            ours.iter().filter(move |our| our.is_ipv4() == their.is_ipv4()).map(move |our| (*our, their))
        });
        Some(devices::Clear {
            port: config.vxlan_port,
            mac: mac_of(self.parts.identity.peer_id()),
            pairs: self.clear.pairs.iter().copied().chain(left).collect(),
            peers: distinct(peers),
            inherited: self.clear.inherited.clone(),
        })
    }

    /// A peer's own address, if it lies in what the peer owns.
    fn gateway4(&self, peer: PeerId, record: &PeerRecord) -> Option<Ipv4Addr> {
        let own = record.overlay.iter().find_map(|own| if let IpAddr::V4(own) = own { Some(*own) } else { None })?;
        let owns = self.prefixes_of(peer).iter().any(|prefix| matches!(prefix, IpNet::V4(net) if net.contains(&own)));
        owns.then_some(own)
    }
}

/// Peers whose Ethernet addresses meet would get each other's packets: only the first keeps its clear path.
fn distinct(peers: impl Iterator<Item = (PeerId, ClearPeer)>) -> BTreeMap<PeerId, ClearPeer> {
    let mut taken = BTreeSet::new();
    peers.filter(|(_, peer)| taken.insert(peer.mac)).collect()
}

/// Whether this side's terms allow clear with an address, whatever the other side's.
fn may_allow(encryption: Encryption, trusted: &[IpNet], remote: IpAddr) -> bool {
    match encryption {
        Encryption::Required => false,
        Encryption::Trusted => trusted.iter().any(|subnet| subnet.contains(&remote)),
        Encryption::Off => true,
    }
}
