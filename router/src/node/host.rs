//! The host under the overlay: its addresses and MTU, read again when it changes.
//!
//! The kernel may be slow to answer and the disk to give a file, while the actor has heartbeats to send: one read at a
//! time runs beside it, and what it found comes back as a message.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use meshwork_api::event::Happening;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::Node;
use crate::kernel::underlay::Underlay;

/// How often the host is read again when nothing tells that it changed: only its name servers do without a notice.
const UNDERLAY_INTERVAL: Duration = Duration::from_secs(30);

/// How soon after the last time it is read again when something does: pods come and go in bursts.
const UNDERLAY_PAUSE: Duration = Duration::from_millis(500);

type Outcome = meshwork_sys::Result<Underlay>;

type Look = Box<dyn FnMut() -> Outcome + Send>;

/// A read that is over.
pub(super) struct Reading {
    look: Look,
    outcome: Outcome,
}

/// When to read, and whether a read is under way.
pub(super) struct HostReader {
    /// Away while it is at work.
    look: Option<Look>,
    begun: Instant,
    next: Instant,
    done: mpsc::Sender<Reading>,
}

impl HostReader {
    pub(super) fn new(now: Instant, look: impl FnMut() -> Outcome + Send + 'static) -> (Self, mpsc::Receiver<Reading>) {
        let (done, readings) = mpsc::channel(1);
        (Self { look: Some(Box::new(look)), begun: now, next: now + UNDERLAY_INTERVAL, done }, readings)
    }

    /// The end of a read that is under way is no matter of time.
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.look.is_some().then_some(self.next)
    }

    /// Something of the host changed: it is read soon, and again if it is being read.
    pub(super) fn due(&mut self, now: Instant) {
        let soon = (self.begun + UNDERLAY_PAUSE).max(now);
        self.next = self.next.min(soon);
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let Some(mut look) = self.look.take_if(|_| now >= self.next) else { return };
        self.begun = now;
        self.next = now + UNDERLAY_INTERVAL;
        let done = self.done.clone();
        spawn_blocking(move || {
            let outcome = look();
            // The actor is gone only when the process ends.
            let _ = done.blocking_send(Reading { look, outcome });
        });
    }

    fn end(&mut self, reading: Reading) -> Outcome {
        self.look = Some(reading.look);
        reading.outcome
    }
}

impl Node {
    /// Looks whether the host's addresses changed.
    pub(super) fn host_read(&mut self, reading: Reading) {
        match self.host.end(reading) {
            Ok(underlay) if underlay != self.parts.underlay => {
                let before = std::mem::replace(&mut self.parts.underlay, underlay);
                self.record_underlay(&before);
                self.follow_mtu();
                self.stale.addresses();
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "cannot read the host's addresses"),
        }
    }

    /// Lets devices and later pods have the MTU that the underlay has now, unless the operator chose one. A pod that has a
    /// greater one is told so by the kernel (RFC 1191, RFC 8201). A host without addresses tells nothing.
    fn follow_mtu(&mut self) {
        let underlay = &self.parts.underlay;
        let chosen = self.parts.config.mtu.is_some() || underlay.addresses.is_empty();
        if !chosen && self.parts.mtu != underlay.pod_mtu() {
            self.parts.mtu = underlay.pod_mtu();
            tracing::info!(mtu = self.parts.mtu, "the underlay's MTU changed");
        }
    }

    fn record_underlay(&self, before: &Underlay) {
        let Underlay { addresses, mtu, .. } = &self.parts.underlay;
        let (addresses, mtu) = (addresses.clone(), *mtu);
        let missing = |of: &[IpAddr], among: &[IpAddr]| -> Vec<String> {
            of.iter().filter(|address| !among.contains(address)).map(|address| format!(" {address}")).collect()
        };
        let (new, gone) = (missing(&addresses, &before.addresses), missing(&before.addresses, &addresses));
        let mut reasons = Vec::new();
        if !new.is_empty() {
            reasons.push(format!("new:{}", new.concat()));
        }
        if !gone.is_empty() {
            reasons.push(format!("gone:{}", gone.concat()));
        }
        if mtu != before.mtu {
            reasons.push(format!("MTU {} instead of {}", mtu, before.mtu));
        }
        if !reasons.is_empty() {
            self.chronicle.record(Happening::UnderlayChanged { addresses, mtu }, "host", &reasons.join("; "));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    fn found(mtu: u32) -> Underlay {
        Underlay { addresses: Vec::new(), mtu, misnamed: Vec::new(), overlaps: Vec::new() }
    }

    /// A kernel that answers when it is told to, with what it is told.
    fn slow(answers: Receiver<u32>) -> impl FnMut() -> Outcome + Send {
        move || Ok(found(answers.recv().expect("the test tells an answer")))
    }

    #[tokio::test]
    async fn a_slow_kernel_holds_nobody_up_and_is_asked_one_thing_at_a_time() {
        let (answer, answers) = channel();
        let start = Instant::now();
        let (mut reader, mut readings) = HostReader::new(start, slow(answers));
        let later = start + UNDERLAY_INTERVAL;
        reader.handle_timeout(later);
        assert_eq!(reader.timeout(), None, "it is under way");

        reader.due(later);
        reader.handle_timeout(later + UNDERLAY_PAUSE);
        assert!(readings.try_recv().is_err(), "nobody was held up, and the second read waits");
        answer.send(1400).expect("it is asked");
        let reading = readings.recv().await.expect("it answers");
        assert_eq!(reader.end(reading).expect("it could"), found(1400));
        assert_eq!(reader.timeout(), Some(later + UNDERLAY_PAUSE), "what changed meanwhile is read now");

        reader.handle_timeout(later + UNDERLAY_PAUSE);
        answer.send(1300).expect("it is asked");
        let reading = readings.recv().await.expect("it answers");
        assert_eq!(reader.end(reading).expect("it could"), found(1300));
        assert_eq!(reader.timeout(), Some(later + UNDERLAY_PAUSE + UNDERLAY_INTERVAL));
    }

    #[tokio::test]
    async fn changes_in_a_burst_are_one_read() {
        let start = Instant::now();
        let (mut reader, _readings) = HostReader::new(start, || Ok(found(1500)));
        let burst = start + UNDERLAY_PAUSE / 2;
        reader.due(burst);
        reader.due(burst);
        assert_eq!(reader.timeout(), Some(start + UNDERLAY_PAUSE));
        reader.handle_timeout(burst);
        assert_eq!(reader.timeout(), Some(start + UNDERLAY_PAUSE), "not before it is due");
    }
}
