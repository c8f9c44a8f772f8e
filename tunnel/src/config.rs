//! What goes into a tunnel and what it tells about itself.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use meshwork_identity::{Identity, Secrets};
use meshwork_wire::{Incarnation, PeerId};

/// What a tunnel is started with.
#[derive(Clone)]
pub struct TunnelConfig {
    /// Who we are.
    pub identity: Arc<Identity>,
    /// The mesh's secrets: the first is used, all are accepted.
    pub secrets: Secrets,
    /// Which run of this node this is; greater than that of any run before.
    pub incarnation: Incarnation,
    /// Whether AES-GCM is the faster cipher here. Used with a peer that says the same.
    pub prefers_aes: bool,
    /// Largest inner packet, in bytes: the MTU of the TUN device.
    pub inner_mtu: u32,
}

impl fmt::Debug for TunnelConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelConfig")
            .field("peer_id", &self.identity.peer_id())
            .field("incarnation", &self.incarnation)
            .field("prefers_aes", &self.prefers_aes)
            .field("inner_mtu", &self.inner_mtu)
            .finish_non_exhaustive()
    }
}

/// Takes the datagrams on the shared socket that are not ours: QUIC.
pub trait ControlSink: Send + 'static {
    /// One datagram, which came from `from` to our address `to`. Called on the receiving thread: must not block.
    fn datagram(&mut self, bytes: &[u8], from: SocketAddr, to: Option<IpAddr>);
}

/// Everything that a node wants of its tunnel. Given whole; the tunnel finds the differences.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// What this node owns: inner packets to anything else are not accepted.
    pub local: Vec<IpNet>,
    /// The peers.
    pub peers: Vec<TunnelPeer>,
}

/// One peer, as its signed record describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelPeer {
    /// Who.
    pub id: PeerId,
    /// Its static X25519 key.
    pub noise_key: [u8; 32],
    /// Whether AES-GCM is the faster cipher there.
    pub prefers_aes: bool,
    /// The run that is alive. A change starts a handshake at once, as the former run's sessions are gone.
    pub incarnation: Incarnation,
    /// Where it may be reached, best first. Without any, it must call us.
    pub endpoints: Vec<SocketAddr>,
    /// What it owns: packets to these go to it, and only from these are accepted.
    pub prefixes: Vec<IpNet>,
    /// Open a session before traffic asks for it, and keep it.
    pub eager: bool,
}

/// How far the session with a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathState {
    /// No session, and none is asked for.
    Idle,
    /// A session is being made, or the one there is does not answer.
    Handshaking,
    /// Packets flow.
    Established,
}

/// The encrypted path to one peer.
#[derive(Debug, Clone, PartialEq)]
pub struct PathStatus {
    /// To whom.
    pub peer: PeerId,
    /// How far it is.
    pub state: PathState,
    /// Where packets go, or where the next handshake goes.
    pub endpoint: Option<SocketAddr>,
    /// Name of the session's cipher.
    pub cipher: Option<&'static str>,
    /// Smoothed round trip through the session.
    pub rtt: Option<Duration>,
    /// Share of the latest probes that were not answered, 0 to 1.
    pub loss: Option<f64>,
    /// When something authentic last came.
    pub heard: Option<Instant>,
    /// Age of the session.
    pub handshake_age: Option<Duration>,
    /// Bytes of inner packets sent.
    pub sent_bytes: u64,
    /// Inner packets sent, after segmentation.
    pub sent_packets: u64,
    /// Bytes of inner packets received.
    pub received_bytes: u64,
    /// Inner packets received, before coalescing.
    pub received_packets: u64,
    /// Why it is as it is, for people.
    pub reason: String,
}

/// The tunnel cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The kernel gives no thread or descriptor.
    #[error("cannot start the tunnel's threads: {0}; check the limits on processes and open files")]
    Resources(#[from] io::Error),
}
