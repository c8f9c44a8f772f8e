//! What is known and under way with one peer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use meshwork_identity::KeyId;
use meshwork_wire::Incarnation;

use super::probes::Probes;
use super::watch::{WATCH_INTERVAL, Watch};
use crate::config::{PathState, PathStatus, TunnelPeer};
use crate::noise::{Initiating, Sequence};
use crate::peer::{Endpoint, Peer};
use crate::session::{REKEY_PACKETS, Session};

/// How long the first call waits for its answer: above the round trip of any sane path.
const FIRST_PATIENCE: Duration = Duration::from_millis(500);
/// Doublings of [`FIRST_PATIENCE`] at most: one call in 8 s to a peer that is away.
const MOST_DOUBLINGS: u32 = 4;
/// After this long without an answer, packets for a peer are not kept any longer.
const GIVE_UP: Duration = Duration::from_secs(15);
/// A call that is younger may still be answered before the other side's is.
const FRESH: Duration = Duration::from_secs(1);
/// New keys are made after this long in use; the responder waits longer, so that not both call.
const REKEY_AGE: Duration = Duration::from_secs(120);
const RESPONDER_REKEY_AGE: Duration = Duration::from_secs(135);
/// A session that nobody renewed ends: what was recorded cannot be opened later.
const END_AGE: Duration = Duration::from_secs(180);
/// How long a session that a first message made waits for the initiator to use it.
const PENDING_AGE: Duration = Duration::from_secs(10);
/// Questions in a row without an answer after which the peer is called anew although it is heard: at a loss of 10 % this
/// happens once in a thousand seconds without need, and costs a handshake.
const MOST_UNANSWERED: u32 = 3;
/// A path without traffic for this long is no longer in use.
const IN_USE: Duration = Duration::from_secs(10);
/// How often an eager peer is asked while nothing is sent: keeps a NAT's mapping, which some forget after 20 s.
const IDLE_INTERVAL: Duration = Duration::from_secs(15);

/// A call under way.
pub(super) struct Attempt {
    pub(super) noise: Initiating,
    pub(super) index: u32,
    pub(super) endpoint: Endpoint,
    pub(super) began: Instant,
    pub(super) retry_at: Instant,
}

impl Attempt {
    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.began) < FRESH
    }
}

/// A session that the other side has yet to use.
pub(super) struct Pending {
    pub(super) session: Arc<Session>,
    /// Where the answer went.
    pub(super) answered: Endpoint,
    pub(super) since: Instant,
}

/// What a look at a watched peer asks for.
pub(super) struct Step {
    pub(super) probe: bool,
    pub(super) attempt: bool,
}

/// One peer.
pub(super) struct Contact {
    pub(super) peer: TunnelPeer,
    pub(super) shared: Arc<Peer>,
    pub(super) attempt: Option<Attempt>,
    pub(super) current: Option<Arc<Session>>,
    pub(super) pending: Option<Pending>,
    /// Still opened, as the other side may not have moved on yet.
    pub(super) previous: Option<Arc<Session>>,
    pub(super) last_seen: Sequence,
    pub(super) endpoint: Option<Endpoint>,
    pub(super) failures: u32,
    pub(super) wanted_since: Option<Instant>,
    pub(super) watch: Watch,
    pub(super) probes: Probes,
    pub(super) reason: String,
    /// The deadline that the machine knows.
    noted_deadline: Option<Instant>,
}

impl Contact {
    pub(super) fn new(peer: TunnelPeer) -> Self {
        Self {
            shared: Arc::new(Peer::new(peer.id)),
            peer,
            attempt: None,
            current: None,
            pending: None,
            previous: None,
            last_seen: (Incarnation(0), 0),
            endpoint: None,
            failures: 0,
            wanted_since: None,
            watch: Watch::default(),
            probes: Probes::default(),
            reason: "no traffic yet".to_owned(),
            noted_deadline: None,
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let ages = [&self.current, &self.previous].into_iter().flatten().map(|session| session.born + END_AGE);
        let pending = self.pending.iter().map(|pending| pending.since + PENDING_AGE);
        let attempt = self.attempt.iter().map(|attempt| attempt.retry_at);
        ages.chain(pending).chain(attempt).chain(self.watch.at()).min()
    }

    /// The deadline that the machine knew, and the one that it knows from now on.
    pub(super) fn note_deadline(&mut self) -> (Option<Instant>, Option<Instant>) {
        let deadline = self.deadline();
        (std::mem::replace(&mut self.noted_deadline, deadline), deadline)
    }

    pub(super) const fn noted_deadline(&self) -> Option<Instant> {
        self.noted_deadline
    }

    /// Starts to look after the peer's liveness, if nobody does.
    pub(super) fn watch(&mut self, now: Instant) {
        self.shared.watched.store(true, Relaxed);
        self.watch.begin(now);
    }

    /// A look at a watched peer. `milliseconds` is `now` in the form that threads note.
    pub(super) fn step(&mut self, milliseconds: u64, now: Instant) -> Step {
        if self.probes.expire(now) {
            self.shared.moving.store(false, Relaxed);
        }
        let Some(session) = &self.current else {
            self.shared.watched.store(false, Relaxed);
            self.watch.end();
            return Step { probe: false, attempt: false };
        };
        let ago = |then: u64| Duration::from_millis(milliseconds.saturating_sub(then));
        let sent = self.shared.sent.load(Relaxed);
        let in_use = sent > 0 && ago(sent) < IN_USE;
        let rekey_age = if session.initiator { REKEY_AGE } else { RESPONDER_REKEY_AGE };
        let stale = now.saturating_duration_since(session.born) >= rekey_age || session.sealed() >= REKEY_PACKETS;
        let silent = ago(self.shared.heard.load(Relaxed));
        self.watch.look(silent, now);
        let dead = self.watch.is_dead();
        if dead {
            self.reason = format!("nothing heard for {} s", silent.as_secs());
        }
        let unanswered = self.probes.unanswered();
        let deaf = unanswered >= MOST_UNANSWERED;
        if deaf && !dead {
            self.reason = format!("the peer is heard, but answered none of the last {unanswered} questions");
        }
        // What was not answered is asked again soon, with or without traffic.
        let probe = self.asks(in_use || (unanswered > 0 && self.peer.eager), now);
        Step { probe, attempt: dead || deaf || (stale && (in_use || self.peer.eager)) }
    }

    /// Whether to ask now.
    fn asks(&mut self, in_use: bool, now: Instant) -> bool {
        let pace = if in_use { WATCH_INTERVAL } else { IDLE_INTERVAL };
        self.shared.watched.store(in_use, Relaxed);
        if in_use || self.peer.eager {
            return self.watch.asks(pace, now);
        }
        self.watch.end();
        false
    }

    /// Takes out the sessions whose secret `closes`.
    pub(super) fn close_where(&mut self, closes: impl Fn(KeyId) -> bool) -> Vec<Arc<Session>> {
        let pending = self.pending.take_if(|pending| closes(pending.session.key_id)).map(|pending| pending.session);
        let current = self.current.take_if(|session| closes(session.key_id));
        let previous = self.previous.take_if(|session| closes(session.key_id));
        [pending, current, previous].into_iter().flatten().collect()
    }

    /// Takes out the sessions that are too old.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<Arc<Session>> {
        let old = |session: &mut Arc<Session>| now.saturating_duration_since(session.born) >= END_AGE;
        let waited = |pending: &mut Pending| now.saturating_duration_since(pending.since) >= PENDING_AGE;
        let pending = self.pending.take_if(waited).map(|pending| pending.session);
        [pending, self.current.take_if(old), self.previous.take_if(old)].into_iter().flatten().collect()
    }

    /// Where the next call goes: where the peer was last, then the configured endpoints in turn.
    pub(super) fn next_endpoint(&self) -> Option<Endpoint> {
        let configured = self.peer.endpoints.iter().map(|address| Endpoint { address: *address, source: None });
        let here = |endpoint: &Endpoint| self.endpoint.is_none_or(|current| current.address != endpoint.address);
        let candidates: Vec<Endpoint> = self.endpoint.into_iter().chain(configured.filter(here)).collect();
        candidates.get(self.failures as usize % candidates.len().max(1)).copied()
    }

    /// How long the next call waits: longer after each round over all endpoints.
    pub(super) fn patience(&self) -> Duration {
        let rounds = self.failures / (self.peer.endpoints.len().max(1) as u32);
        FIRST_PATIENCE * 2_u32.pow(rounds.min(MOST_DOUBLINGS))
    }

    /// Whether calling on is in vain: nobody keeps the session open and the packets have waited long enough.
    pub(super) fn gives_up(&self, now: Instant) -> bool {
        let waited = self.wanted_since.map_or(GIVE_UP, |since| now.saturating_duration_since(since));
        !self.peer.eager && self.watch.at().is_none() && waited >= GIVE_UP
    }

    pub(super) fn status(&self, beginning: Instant, now: Instant) -> PathStatus {
        let traffic = &self.shared.traffic;
        let heard = Some(self.shared.heard.load(Relaxed)).filter(|milliseconds| *milliseconds > 0);
        let state = match (&self.current, &self.attempt) {
            (Some(_), _) if !self.watch.is_dead() => PathState::Established,
            (None, None) => PathState::Idle,
            _ => PathState::Handshaking,
        };
        PathStatus {
            peer: self.peer.id,
            state,
            endpoint: self.shown_endpoint(),
            cipher: self.current.as_ref().map(|session| session.cipher.name()),
            rtt: self.probes.rtt(),
            loss: self.probes.loss(),
            heard: heard.map(|milliseconds| beginning + Duration::from_millis(milliseconds)),
            handshake_age: self.current.as_ref().map(|session| now.saturating_duration_since(session.born)),
            sent_bytes: traffic.sent_bytes.load(Relaxed),
            sent_packets: traffic.sent_packets.load(Relaxed),
            received_bytes: traffic.received_bytes.load(Relaxed),
            received_packets: traffic.received_packets.load(Relaxed),
            reason: self.reason.clone(),
        }
    }

    fn shown_endpoint(&self) -> Option<SocketAddr> {
        self.endpoint.or_else(|| self.next_endpoint()).map(|endpoint| endpoint.address)
    }
}
