//! Lets any thread tell the machine something, and one thread carry out what it decides.
//!
//! Invariants:
//! - The machine is held for decisions only, never while something is sent: whoever asks it waits for no network.
//! - Only the handshake thread carries out, in the order of the decisions, so that what concerns one peer keeps its
//!   order. Once that thread has ended, whoever ended it may.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::{ArcSwap, Guard};

use crate::machine::{Machine, Output};
use crate::table::Table;

/// The machine, and the table that the packet threads work from.
pub(crate) struct Decider {
    machine: Mutex<Machine>,
    table: ArcSwap<Table>,
}

impl Decider {
    pub(crate) fn new(machine: Machine) -> Self {
        Self { table: ArcSwap::from_pointee(machine.table()), machine: Mutex::new(machine) }
    }

    /// What the packet threads work from now.
    pub(crate) fn table(&self) -> Guard<Arc<Table>> {
        self.table.load()
    }

    /// Lets the machine decide. The new table is in force when this returns, and what is to be done waits.
    pub(crate) fn decide<T>(&self, decide: impl FnOnce(&mut Machine, Instant) -> T) -> T {
        let mut machine = self.machine();
        let result = decide(&mut machine, Instant::now());
        if let Some(table) = machine.take_table() {
            self.table.store(Arc::new(table));
        }
        result
    }

    /// Does what was decided.
    pub(crate) fn carry_out(&self, perform: &mut impl FnMut(Output)) {
        while let Some(output) = self.next_output() {
            perform(output);
        }
    }

    /// Does what is due, then waits for the next notice: nothing when something becomes due before one comes. Timers
    /// run first, so that no flood of notices holds them up.
    pub(crate) fn next_notice<N>(
        &self,
        notices: &Receiver<N>,
        perform: &mut impl FnMut(Output),
    ) -> Result<Option<N>, RecvTimeoutError> {
        self.decide(Machine::handle_deadline);
        self.carry_out(perform);
        let deadline = self.machine().deadline();
        let Some(deadline) = deadline else {
            return notices.recv().map(Some).map_err(|_| RecvTimeoutError::Disconnected);
        };
        match notices.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Err(RecvTimeoutError::Timeout) => Ok(None),
            received => received.map(Some),
        }
    }

    /// A function of its own, so that the machine is let go before the output is carried out.
    fn next_output(&self) -> Option<Output> {
        self.machine().poll_output()
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;
    use std::time::Duration;

    use meshwork_identity::{Identity, Secret, Secrets};
    use meshwork_wire::Incarnation;

    use super::*;
    use crate::config::{Desired, TunnelConfig, TunnelPeer};

    /// A decider that is to call an eager peer which never answers.
    fn calling() -> Decider {
        let identity = |seed| Arc::new(Identity::from_seed([seed; 32]));
        let config = TunnelConfig {
            identity: identity(1),
            secrets: Secrets::new(vec![Secret::generate([7; 32])]).unwrap(),
            incarnation: Incarnation(1),
            prefers_aes: true,
            inner_mtu: 1400,
        };
        let other = identity(2);
        let peer = TunnelPeer {
            id: other.peer_id(),
            noise_key: other.noise_public(),
            prefers_aes: true,
            incarnation: Incarnation(1),
            endpoints: vec!["192.0.2.2:6783".parse().unwrap()],
            prefixes: vec![],
            eager: true,
        };
        let mut draws = 0;
        let randomness = Box::new(move |bytes: &mut [u8]| {
            draws += 1;
            bytes.fill(draws);
        });
        let decider = Decider::new(Machine::new(config, randomness, Instant::now()));
        decider.decide(|machine, now| machine.configure(Desired { local: vec![], peers: vec![peer] }, now));
        decider
    }

    #[test]
    fn the_machine_can_be_asked_while_something_is_sent() {
        let (decider, mut sent) = (calling(), 0);
        decider.carry_out(&mut |_| {
            sent += 1;
            assert!(decider.machine.try_lock().is_ok());
        });
        assert_eq!(sent, 1);
    }

    #[test]
    fn timers_run_while_notices_never_end() {
        let (decider, mut sent) = (calling(), 0);
        let (sender, notices) = sync_channel(1);
        let deadline = Instant::now() + Duration::from_secs(20);
        // The first call goes out at once, the second when a timer says so.
        while sent < 2 {
            assert!(Instant::now() < deadline, "no second call");
            let _ = sender.try_send(());
            assert_eq!(decider.next_notice(&notices, &mut |_| sent += 1), Ok(Some(())));
        }
    }
}
