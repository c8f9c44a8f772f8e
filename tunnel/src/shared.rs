//! What the tunnel's threads share, and the bridge from the packet threads to the state machine.

use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use meshwork_sys::tun::Tun;
use meshwork_sys::udp::UdpSocket;
use meshwork_sys::wake::Wake;
use meshwork_wire::PeerId;

use crate::drops::{Drop, Drops};
use crate::machine::{Machine, Output};
use crate::outbound::Sealer;
use crate::peer::Endpoint;
use crate::table::Table;

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
    /// The deadline may have changed, or it is time to stop.
    Look,
}

/// Everything that more than one thread touches.
pub(crate) struct Shared {
    pub(crate) tun: Tun,
    pub(crate) socket: Arc<UdpSocket>,
    pub(crate) drops: Drops,
    pub(crate) table: ArcSwap<Table>,
    pub(crate) wake: Wake,
    pub(crate) machine: Mutex<Machine>,
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

    /// Lets the machine decide, and does what it says.
    pub(crate) fn drive<T>(&self, decide: impl FnOnce(&mut Machine, Instant) -> T) -> T {
        let mut machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        let result = decide(&mut machine, Instant::now());
        // The table first: an answer may be used before the send returns.
        if let Some(table) = machine.take_table() {
            self.table.store(Arc::new(table));
        }
        while let Some(output) = machine.poll_output() {
            self.perform(output);
        }
        result
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

    /// The handshake thread: timers and everything that costs a Diffie-Hellman.
    pub(crate) fn run_handshakes(&self, notices: &Receiver<Notice>) {
        while !self.is_stopping() {
            let deadline = self.machine.lock().unwrap_or_else(PoisonError::into_inner).deadline();
            let notice = match deadline {
                None => notices.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(deadline) => notices.recv_timeout(deadline.saturating_duration_since(Instant::now())),
            };
            match notice {
                Ok(notice) => self.handle(notice),
                Err(RecvTimeoutError::Timeout) => self.drive(Machine::handle_deadline),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn handle(&self, notice: Notice) {
        self.drive(|machine, now| match notice {
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
