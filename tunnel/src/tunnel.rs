//! The running tunnel: three threads and the state they share.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use aws_lc_rs::rand;
use meshwork_identity::Secrets;
use meshwork_sys::tun::Tun;
use meshwork_sys::udp::UdpSocket;
use meshwork_sys::wake::Wake;
use meshwork_wire::{Incarnation, PeerId};

use crate::config::{ControlSink, Desired, PathStatus, TunnelConfig, TunnelError};
use crate::decider::Decider;
use crate::machine::Machine;
use crate::shared::{Notice, Shared};
use crate::{inbound, outbound};

/// Notices that may wait: a thousand peers that all call at once.
const MOST_NOTICES: usize = 1024;

/// A TUN device and a UDP socket with the encrypted path between them. Dropping it stops it.
pub struct Tunnel {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("device", &self.shared.tun.name()).finish_non_exhaustive()
    }
}

impl Tunnel {
    /// Starts the threads. Without any peer configured nothing is sent.
    pub fn start(
        config: TunnelConfig,
        tun: Tun,
        socket: Arc<UdpSocket>,
        control: Box<dyn ControlSink>,
    ) -> Result<Self, TunnelError> {
        let (notices, received) = sync_channel(MOST_NOTICES);
        let beginning = Instant::now();
        // An operating system that gives no random bytes gives no keys either: there is nothing to go on with.
        let randomness = Box::new(|bytes: &mut [u8]| rand::fill(bytes).expect("the system's random source works"));
        let shared = Arc::new(Shared {
            tun,
            socket,
            drops: Default::default(),
            wake: Wake::new()?,
            decider: Decider::new(Machine::new(config, randomness, beginning)),
            beginning,
            stopping: AtomicBool::new(false),
            notices,
            failure: OnceLock::new(),
            handshakes: Default::default(),
        });
        let mut tunnel = Self { shared: shared.clone(), threads: Vec::new() };
        let outbound = shared.clone();
        tunnel.spawn("mesh-out", move || report(&outbound, "sending", outbound::run(&outbound)))?;
        let inbound = shared.clone();
        tunnel.spawn("mesh-in", move || report(&inbound, "receiving", inbound::run(&inbound, control)))?;
        tunnel.spawn("mesh-handshake", move || shared.run_handshakes(&received))?;
        Ok(tunnel)
    }

    /// Makes the tunnel what `desired` says: peers that stay keep their sessions.
    pub fn configure(&self, desired: Desired) {
        self.shared.decider.decide(|machine, now| machine.configure(desired, now));
        self.look();
    }

    /// Replaces the accepted secrets. Sessions made under one that is no longer accepted close.
    pub fn set_secrets(&self, secrets: Secrets) {
        self.shared.decider.decide(|machine, now| machine.set_secrets(&secrets, now));
        self.look();
    }

    /// Goes on as a later run of this node: first messages carry it from now on, and others have to name it.
    pub fn set_incarnation(&self, incarnation: Incarnation) {
        self.shared.decider.decide(|machine, _| machine.set_incarnation(incarnation));
    }

    /// The encrypted path to each peer.
    #[must_use]
    pub fn paths(&self) -> Vec<PathStatus> {
        self.shared.decider.decide(|machine, now| machine.paths(now))
    }

    /// The encrypted path to one peer.
    #[must_use]
    pub fn path(&self, peer: PeerId) -> Option<PathStatus> {
        self.shared.decider.decide(|machine, now| machine.path(peer, now))
    }

    /// Asks a peer now whether it is there; [`PathStatus::heard`] tells. Without a session to it, nothing happens.
    pub fn ask(&self, peer: PeerId) {
        self.shared.decider.decide(|machine, now| machine.handle_use(peer, now));
        self.look();
    }

    /// Makes a session with a peer, unless there is one, as a packet for it would.
    pub fn open(&self, peer: PeerId) {
        self.shared.decider.decide(|machine, now| machine.want(peer, now));
        self.look();
    }

    /// How much was dropped, by reason.
    #[must_use]
    pub fn drops(&self) -> BTreeMap<&'static str, u64> {
        self.shared.drops.by_name()
    }

    /// Why the tunnel no longer carries packets, if so: the device was deleted, or the socket is of no use. It does not
    /// recover; a new one must be started.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.shared.failure.get().map(String::as_str)
    }

    /// Stops the threads and closes the device.
    pub fn stop(self) {}

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.push(thread::Builder::new().name(name.to_owned()).spawn(run)?);
        Ok(())
    }

    /// Lets the handshake thread carry out what was decided and find its new deadline. If its queue is full it does so
    /// anyway.
    fn look(&self) {
        let _ = self.shared.notices.try_send(Notice::Look);
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Relaxed);
        self.shared.wake.ring();
        self.look();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a tunnel thread had panicked");
            }
        }
        // Peers and their sessions hold each other: taking the paths away lets them go, and their keys.
        self.shared.decider.decide(|machine, now| machine.configure(Desired::default(), now));
        self.shared.carry_out_last();
    }
}

fn report(shared: &Shared, what: &str, result: io::Result<()>) {
    if let Err(error) = result {
        tracing::error!(%error, "the tunnel has stopped {what}");
        // The first failure is the one to tell.
        let _ = shared.failure.set(format!("the tunnel has stopped {what}: {error}"));
    }
}
