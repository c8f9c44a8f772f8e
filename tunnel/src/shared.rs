//! What the tunnel's threads share, and the bridge from the packet threads to the state machine.

use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use meshwork_sys::tun::Tun;
use meshwork_sys::udp::UdpSocket;
use meshwork_sys::wake::Wake;
use meshwork_wire::PeerId;

use crate::decider::Decider;
use crate::drops::{Drop, Drops};
use crate::machine::Output;
use crate::outbound::Sealer;
use crate::peer::Endpoint;

/// Handshake messages that may wait. Anyone can send them, so they leave room in the queue for what sessions have to say.
const MOST_HANDSHAKES: usize = 256;

/// What the packet threads tell the handshake thread. The queue is bounded: a flood of handshakes is dropped at its
/// end and costs the packet threads nothing.
pub(crate) enum Notice {
    Handshake {
        datagram: Box<[u8]>,
        from: Endpoint,
    },
    Confirmed {
        index: u32,
        from: Endpoint,
    },
    Answer {
        index: u32,
        token: u64,
        from: Endpoint,
        at: Instant,
    },
    Moved {
        index: u32,
        from: Endpoint,
    },
    Wanted(PeerId),
    Used(PeerId),
    /// There is something to carry out, the deadline may have changed, or it is time to stop.
    Look,
}

/// Everything that more than one thread touches.
pub(crate) struct Shared {
    pub(crate) tun: Tun,
    pub(crate) socket: Arc<UdpSocket>,
    pub(crate) drops: Drops,
    pub(crate) wake: Wake,
    pub(crate) decider: Decider,
    pub(crate) beginning: Instant,
    pub(crate) stopping: AtomicBool,
    pub(crate) notices: SyncSender<Notice>,
    /// What ended a packet thread.
    pub(crate) failure: OnceLock<String>,
    /// Handshake messages that wait.
    pub(crate) handshakes: AtomicUsize,
}

impl Shared {
    /// Now, as threads note it.
    pub(crate) fn milliseconds(&self) -> u64 {
        self.beginning.elapsed().as_millis() as u64
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Relaxed)
    }

    /// Tells the handshake thread, unless it has too much to do: false then, and the notice is lost.
    pub(crate) fn notify(&self, notice: Notice) -> bool {
        let handshake = matches!(notice, Notice::Handshake { .. });
        if handshake && self.handshakes.fetch_add(1, Relaxed) >= MOST_HANDSHAKES {
            self.handshakes.fetch_sub(1, Relaxed);
            self.drops.add(Drop::QueueFull, 1);
            return false;
        }
        let taken = self.notices.try_send(notice).is_ok();
        if !taken {
            if handshake {
                self.handshakes.fetch_sub(1, Relaxed);
            }
            self.drops.add(Drop::QueueFull, 1);
        }
        taken
    }

    /// Sends one datagram.
    pub(crate) fn send(&self, to: Endpoint, datagram: &[u8]) -> io::Result<()> {
        self.socket.send_segments(to.address, to.source, &[IoSlice::new(datagram)], datagram.len())
    }

    fn perform(&self, output: Output) {
        match output {
            Output::Send { to, datagram } => {
                if let Err(error) = self.send(to, &datagram) {
                    self.drops.add(Drop::SendFailed, 1);
                    tracing::debug!(%error, to = %to.address, "a control datagram was not sent");
                }
            }
            Output::Open { path } => {
                let peer = path.session.peer.clone();
                peer.open_path(path, |path, packets| {
                    let mut sealer = Sealer::new(self);
                    for mut packet in packets {
                        sealer.push(path, &mut packet);
                    }
                    sealer.flush();
                });
            }
            Output::Close { peer } => self.drops.add(Drop::QueueFull, peer.close_path()),
        }
    }

    /// The handshake thread: timers, everything that costs a Diffie-Hellman, and everything that is to be sent.
    pub(crate) fn run_handshakes(&self, notices: &Receiver<Notice>) {
        while !self.is_stopping() {
            match self.decider.next_notice(notices, &mut |output| self.perform(output)) {
                Ok(Some(notice)) => self.handle(notice),
                Ok(None) => {}
                Err(_) => return,
            }
        }
    }

    /// Does what was decided when the handshake thread has ended.
    pub(crate) fn carry_out_last(&self) {
        self.decider.carry_out(&mut |output| self.perform(output));
    }

    fn handle(&self, notice: Notice) {
        self.decider.decide(|machine, now| match notice {
            Notice::Handshake { datagram, from } => {
                self.handshakes.fetch_sub(1, Relaxed);
                if let Err(reason) = machine.handle_handshake(&datagram, from, now) {
                    self.drops.add(reason, 1);
                }
            }
            Notice::Confirmed { index, from } => machine.handle_confirmed(index, from, now),
            Notice::Answer { index, token, from, at } => machine.handle_answer(index, token, from, at),
            Notice::Moved { index, from } => machine.handle_move(index, from, now),
            Notice::Wanted(id) => machine.want(id, now),
            Notice::Used(id) => machine.handle_use(id, now),
            Notice::Look => {}
        });
    }
}
