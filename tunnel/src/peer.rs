//! What the threads share about one peer.

use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use meshwork_wire::PeerId;

use crate::session::Session;

/// Bytes of packets that wait for a session: one TCP burst.
const WAITING_BYTES: usize = 128 * 1024;
/// Packets that wait for a session.
const WAITING_PACKETS: usize = 64;

/// Where packets to a peer go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    /// The address of ours the peer knows, so that answers come from where it expects them.
    pub(crate) source: Option<IpAddr>,
}

/// A confirmed session and where its packets go.
#[derive(Debug, Clone)]
pub(crate) struct Path {
    pub(crate) session: Arc<Session>,
    pub(crate) endpoint: Endpoint,
}

/// One peer, as the threads see it.
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) path: ArcSwapOption<Path>,
    /// Milliseconds since the machine's beginning when something authentic came.
    pub(crate) heard: AtomicU64,
    /// The same of when something was sent.
    pub(crate) sent: AtomicU64,
    /// The machine looks after this peer's liveness. When it does not, the first packet must tell it to.
    pub(crate) watched: AtomicBool,
    /// The machine has been told that the peer sends from somewhere else.
    pub(crate) moving: AtomicBool,
    pub(crate) traffic: Traffic,
    waiting: Mutex<Waiting>,
}

/// Inner packets and bytes carried.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) sent_bytes: AtomicU64,
    pub(crate) sent_packets: AtomicU64,
    pub(crate) received_bytes: AtomicU64,
    pub(crate) received_packets: AtomicU64,
}

/// Reads from the TUN that wait for a session.
#[derive(Debug, Default)]
struct Waiting {
    packets: VecDeque<Box<[u8]>>,
    bytes: usize,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Peer {
    pub(crate) fn new(id: PeerId) -> Self {
        Self {
            id,
            path: ArcSwapOption::empty(),
            heard: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            watched: AtomicBool::new(false),
            moving: AtomicBool::new(false),
            traffic: Traffic::default(),
            waiting: Mutex::default(),
        }
    }

    /// Lets `packet` wait for a session: if there is one by now, or too much waits already, it does not.
    pub(crate) fn wait(&self, packet: &[u8]) -> Result<(), NotWaiting> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = self.path.load_full() {
            return Err(NotWaiting::Ready(path));
        }
        if waiting.packets.len() >= WAITING_PACKETS || waiting.bytes + packet.len() > WAITING_BYTES {
            return Err(NotWaiting::Full);
        }
        waiting.bytes += packet.len();
        waiting.packets.push_back(packet.into());
        Ok(())
    }

    /// Opens `path` to the sending thread after `send` has sent what waited, so that nothing overtakes.
    pub(crate) fn open_path(&self, path: Arc<Path>, send: impl FnOnce(&Arc<Path>, VecDeque<Box<[u8]>>)) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.packets.is_empty() {
            send(&path, std::mem::take(&mut *waiting).packets);
        }
        self.path.store(Some(path));
    }

    /// Takes the path away and forgets what waits: how many packets.
    pub(crate) fn close_path(&self) -> u64 {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        self.path.store(None);
        waiting.bytes = 0;
        waiting.packets.drain(..).count() as u64
    }

    pub(crate) fn hear(&self, milliseconds: u64) {
        self.heard.fetch_max(milliseconds, Relaxed);
    }
}

/// Why a packet does not wait.
pub(crate) enum NotWaiting {
    /// There is a path by now.
    Ready(Arc<Path>),
    /// Too much waits.
    Full,
}
