//! Decides about sessions: when to shake hands with whom and where, which session to use, whether the peer lives.
//!
//! Nothing here reads a clock, draws randomness or does IO: time and randomness come in, datagrams and path changes go
//! out through [`Machine::poll_output`]. Time is given to every call and [`Machine::deadline`] says when to call next;
//! a node without traffic and without eager peers has no deadline.
//!
//! Invariants:
//! - A session that its peer has confirmed is displaced only by another that is confirmed.
//! - Nothing is sent on, and nothing delivered from, a session that a first message made until the initiator has used
//!   it: a recorded first message achieves nothing.
//! - A first message is answered at most once, and only if it is newer than all before.
//! - Sending moves to another endpoint only after a handshake or a random challenge has come back from there.

mod contact;
#[cfg(test)]
mod pair;
mod probes;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use meshwork_identity::Secrets;
use meshwork_wire::{Incarnation, PeerId};

use crate::config::{Desired, PathStatus, TunnelConfig, TunnelPeer};
use crate::drops::Drop;
use crate::header::{Header, PacketType};
use crate::noise::{Callee, Initiating, Received, SecretKeys, vouched};
use crate::peer::{Endpoint, Path, Peer};
use crate::session::{Cipher, Keys, Session};
use crate::table::{Routes, Table};
use contact::{Attempt, Contact, Pending};
use probes::Verdict;

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Output {
    /// Send a datagram.
    Send { to: Endpoint, datagram: Vec<u8> },
    /// Use this path from now on, after what waits for it.
    Open { path: Arc<Path> },
    /// There is no path any more; what waits is lost.
    Close { peer: Arc<Peer> },
}

/// Source of random bytes.
pub(crate) type Randomness = Box<dyn FnMut(&mut [u8]) + Send>;

/// The state machine of all sessions of one node.
pub(crate) struct Machine {
    config: TunnelConfig,
    secrets: Arc<[SecretKeys]>,
    randomness: Randomness,
    beginning: Instant,
    local: Vec<IpNet>,
    contacts: BTreeMap<PeerId, Contact>,
    callers: BTreeMap<[u8; 32], PeerId>,
    sessions: BTreeMap<u32, Arc<Session>>,
    attempts: BTreeMap<u32, PeerId>,
    initiations: u64,
    outputs: VecDeque<Output>,
    routes: Arc<Routes>,
    changed: bool,
    /// The deadline of each contact that has one.
    deadlines: BTreeSet<(Instant, PeerId)>,
}

impl Machine {
    pub(crate) fn new(config: TunnelConfig, randomness: Randomness, now: Instant) -> Self {
        Self {
            secrets: config.secrets.iter().map(SecretKeys::new).collect(),
            config,
            randomness,
            beginning: now,
            local: Vec::new(),
            contacts: BTreeMap::new(),
            callers: BTreeMap::new(),
            sessions: BTreeMap::new(),
            attempts: BTreeMap::new(),
            initiations: 0,
            outputs: VecDeque::new(),
            routes: Arc::default(),
            changed: false,
            deadlines: BTreeSet::new(),
        }
    }

    /// Milliseconds since the beginning: the form in which threads note times.
    pub(crate) fn milliseconds(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.beginning).as_millis() as u64
    }

    /// The next thing to do.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The packet threads' new table, if it differs from the last one taken.
    pub(crate) fn take_table(&mut self) -> Option<Table> {
        std::mem::take(&mut self.changed).then(|| self.table())
    }

    /// What the packet threads are to work from.
    pub(crate) fn table(&self) -> Table {
        Table {
            routes: self.routes.clone(),
            sessions: self.sessions.clone(),
            local: self.config.identity.peer_id(),
            secrets: self.secrets.clone(),
        }
    }

    /// When [`Self::handle_deadline`] is to be called.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Does what has become due.
    pub(crate) fn handle_deadline(&mut self, now: Instant) {
        let due = self.deadlines.iter().take_while(|(at, _)| *at <= now);
        let peers: Vec<PeerId> = due.map(|(_, id)| *id).collect();
        for id in peers {
            self.act(id, now);
        }
    }

    /// Notes anew when a contact has to be looked after. To be called after every change of what that depends on.
    fn note_deadline(&mut self, id: PeerId) {
        let contact = self.contacts.get_mut(&id);
        let Some((noted, deadline)) = contact.map(|contact| contact.note_deadline()) else { return };
        if noted != deadline {
            self.deadlines.extend(deadline.map(|at| (at, id)));
            self.forget_deadline(id, noted);
        }
    }

    fn forget_deadline(&mut self, id: PeerId, noted: Option<Instant>) {
        if let Some(at) = noted {
            self.deadlines.remove(&(at, id));
        }
    }

    /// The encrypted path to each peer.
    pub(crate) fn paths(&self, now: Instant) -> Vec<PathStatus> {
        self.contacts.values().map(|contact| contact.status(self.beginning, now)).collect()
    }

    /// Takes on the desired state.
    pub(crate) fn configure(&mut self, desired: Desired, now: Instant) {
        let wanted: BTreeMap<PeerId, TunnelPeer> = desired
            .peers
            .into_iter()
            .filter(|peer| peer.id != self.config.identity.peer_id())
            .map(|peer| (peer.id, peer))
            .collect();
        let gone: Vec<PeerId> = self.contacts.keys().filter(|id| !wanted.contains_key(id)).copied().collect();
        for id in gone {
            self.remove(id);
        }
        self.local = desired.local;
        for (id, peer) in wanted {
            self.update(id, peer, now);
        }
        self.rebuild_routes();
    }

    /// Goes on as a later run. Peers that learn of it begin new sessions.
    pub(crate) fn set_incarnation(&mut self, incarnation: Incarnation) {
        self.config.incarnation = incarnation;
    }

    /// Takes on other secrets. What was made under one that is gone closes, and begins anew where it was in use.
    pub(crate) fn set_secrets(&mut self, secrets: &Secrets, now: Instant) {
        self.secrets = secrets.iter().map(SecretKeys::new).collect();
        self.changed = true;
        let accepted: Vec<_> = self.secrets.iter().map(|secret| secret.key_id).collect();
        let ids: Vec<PeerId> = self.contacts.keys().copied().collect();
        for id in ids {
            let Some(contact) = self.contacts.get_mut(&id) else { continue };
            let in_use = contact.current.is_some();
            let closed = contact.close_where(|key_id| !accepted.contains(&key_id));
            self.note_deadline(id);
            if closed.is_empty() {
                continue;
            }
            self.forget(&closed);
            if self.close_if_pathless(id, "its secret is no longer accepted") && in_use {
                self.want(id, now);
            }
        }
    }

    /// A packet, or whoever expects some, waits for a session with `id`.
    pub(crate) fn want(&mut self, id: PeerId, now: Instant) {
        let Some(contact) = self.contacts.get_mut(&id) else { return };
        if contact.current.is_none() {
            contact.wanted_since.get_or_insert(now);
            self.attempt(id, now);
        }
    }

    /// The encrypted path to one peer.
    pub(crate) fn path(&self, id: PeerId, now: Instant) -> Option<PathStatus> {
        self.contacts.get(&id).map(|contact| contact.status(self.beginning, now))
    }

    /// A packet was sent to `id`, which is not being watched, or it is to be asked: it is in use from now on.
    pub(crate) fn handle_use(&mut self, id: PeerId, now: Instant) {
        if let Some(contact) = self.contacts.get_mut(&id) {
            contact.watch(now);
            self.act(id, now);
        }
    }

    /// A handshake message.
    pub(crate) fn handle_handshake(&mut self, datagram: &[u8], from: Endpoint, now: Instant) -> Result<(), Drop> {
        let header = Header::read(datagram).ok_or(Drop::Malformed)?;
        match header.kind {
            PacketType::Initiation => self.handle_initiation(header, datagram, from, now),
            PacketType::Response => self.handle_response(header, datagram, from, now),
            _ => Err(Drop::Malformed),
        }
    }

    /// The first packet on a session that a first message made: it is proven.
    pub(crate) fn handle_confirmed(&mut self, index: u32, from: Endpoint, now: Instant) {
        let Some(session) = self.sessions.get(&index).cloned() else { return };
        let Some(contact) = self.contacts.get_mut(&session.peer.id) else { return };
        let Some(pending) = contact.pending.take_if(|pending| pending.session.local_index == index) else { return };
        self.promote(pending.session, proven(pending.answered, from), "the peer called", now);
    }

    /// An answer to the probe `token`, which came `from` at the time `now`.
    pub(crate) fn handle_answer(&mut self, index: u32, token: u64, from: Endpoint, now: Instant) {
        let Some(session) = self.sessions.get(&index) else { return };
        let Some(contact) = self.contacts.get_mut(&session.peer.id) else { return };
        let verdict = contact.probes.handle_answer(token, from.address, now);
        if verdict == Some(Verdict::Moved) {
            contact.endpoint = Some(from);
            contact.shared.moving.store(false, Relaxed);
            contact.reason = format!("the peer moved to {}", from.address);
            self.reopen(session.peer.id);
        }
    }

    /// The newest packet of a session came from elsewhere than where its answers go: asks there.
    pub(crate) fn handle_move(&mut self, index: u32, from: Endpoint, now: Instant) {
        let Some(session) = self.sessions.get(&index).cloned() else { return };
        let Some(contact) = self.contacts.get_mut(&session.peer.id) else { return };
        if contact.endpoint.is_some_and(|endpoint| endpoint.address == from.address) {
            contact.shared.moving.store(false, Relaxed);
            return;
        }
        contact.watch(now);
        self.note_deadline(session.peer.id);
        self.probe(session.peer.id, from, true, now);
    }

    fn handle_initiation(&mut self, header: Header, datagram: &[u8], from: Endpoint, now: Instant) -> Result<(), Drop> {
        let random = self.draw();
        let (identity, incarnation) = (self.config.identity.clone(), self.config.incarnation);
        let received = Received::read(header, datagram, &identity, incarnation, &self.secrets, random)?;
        let id = *self.callers.get(&received.noise_key).ok_or(Drop::UnknownPeer)?;
        let index = self.draw_index();
        let contact = self.contacts.get_mut(&id).ok_or(Drop::UnknownPeer)?;
        if received.sequence <= contact.last_seen || received.sequence.0 < contact.peer.incarnation {
            return Err(Drop::Stale);
        }
        contact.last_seen = received.sequence;
        // Both called at once: the lower id's call goes on, the other side answers it.
        if identity.peer_id() < id && contact.attempt.as_ref().is_some_and(|attempt| attempt.is_fresh(now)) {
            return Ok(());
        }
        let (keys, answer) = received.answer(id, &self.secrets, index).ok_or(Drop::Forged)?;
        self.abandon_attempt(id);
        self.install_pending(id, &keys, index, from, now);
        self.outputs.push_back(Output::Send { to: from, datagram: answer });
        Ok(())
    }

    fn install_pending(&mut self, id: PeerId, keys: &Keys, index: u32, answered: Endpoint, now: Instant) {
        let Some(contact) = self.contacts.get_mut(&id) else { return };
        let Some(session) = Session::new(keys, index, contact.shared.clone(), now) else { return };
        let session = Arc::new(session);
        let replaced = contact.pending.replace(Pending { session: session.clone(), answered, since: now });
        if let Some(replaced) = replaced {
            self.sessions.remove(&replaced.session.local_index);
        }
        self.sessions.insert(index, session);
        self.changed = true;
        self.note_deadline(id);
    }

    fn handle_response(&mut self, header: Header, datagram: &[u8], from: Endpoint, now: Instant) -> Result<(), Drop> {
        let id = *self.attempts.get(&header.index).ok_or(Drop::UnknownSession)?;
        let secret = vouched(header, datagram, self.config.identity.peer_id(), &self.secrets)?;
        let contact = self.contacts.get_mut(&id).ok_or(Drop::UnknownPeer)?;
        let attempt = contact.attempt.as_mut().ok_or(Drop::UnknownSession)?;
        if attempt.noise.key_id() != secret.key_id {
            return Err(Drop::BadSecret);
        }
        let keys = attempt.noise.read_response(header, datagram)?;
        let index = header.index;
        let endpoint = proven(attempt.endpoint, from);
        self.abandon_attempt(id);
        let Some(contact) = self.contacts.get_mut(&id) else { return Ok(()) };
        let session = Session::new(&keys, index, contact.shared.clone(), now).map(Arc::new).ok_or(Drop::Forged)?;
        self.sessions.insert(index, session.clone());
        // The peer may not use the session before it has seen something on it.
        if let Some(datagram) = session.seal_alone(PacketType::Data, &[]) {
            self.outputs.push_back(Output::Send { to: endpoint, datagram });
        }
        self.promote(session, endpoint, "the peer answered", now);
        Ok(())
    }

    /// Makes `session` the one to send on.
    fn promote(&mut self, session: Arc<Session>, endpoint: Endpoint, reason: &str, now: Instant) {
        let heard = self.milliseconds(now);
        let id = session.peer.id;
        let Some(contact) = self.contacts.get_mut(&id) else { return };
        if contact.current.as_ref().is_some_and(|current| current.local_index == session.local_index) {
            return;
        }
        contact.shared.hear(heard);
        contact.watch.revive();
        contact.probes.begin_anew();
        contact.failures = 0;
        contact.wanted_since = None;
        contact.endpoint = Some(endpoint);
        contact.reason = reason.to_owned();
        let displaced = contact.current.replace(session).and_then(|former| contact.previous.replace(former));
        contact.watch(now);
        if let Some(displaced) = displaced {
            self.sessions.remove(&displaced.local_index);
        }
        self.changed = true;
        self.note_deadline(id);
        self.reopen(id);
    }

    /// Tells the sending thread the current session and endpoint.
    fn reopen(&mut self, id: PeerId) {
        let Some(contact) = self.contacts.get(&id) else { return };
        if let (Some(session), Some(endpoint)) = (contact.current.clone(), contact.endpoint) {
            self.outputs.push_back(Output::Open { path: Arc::new(Path { session, endpoint }) });
        }
    }

    fn update(&mut self, id: PeerId, peer: TunnelPeer, now: Instant) {
        let contact = self.contacts.entry(id).or_insert_with(|| Contact::new(peer.clone()));
        let former = std::mem::replace(&mut contact.peer, peer);
        if former.noise_key != contact.peer.noise_key && self.callers.get(&former.noise_key) == Some(&id) {
            self.callers.remove(&former.noise_key);
        }
        // A record that names another's key must not take that one's calls away: who had it first keeps it.
        self.callers.entry(contact.peer.noise_key).or_insert(id);
        let run = contact.peer.incarnation;
        let outdated = contact.current.as_ref().is_some_and(|session| session.incarnation != run);
        let restarted = former.incarnation != run;
        if restarted {
            contact.failures = 0;
        }
        let eager = contact.peer.eager && contact.current.is_none();
        let newly_reachable = contact.wanted_since.is_some() && former.endpoints != contact.peer.endpoints;
        if restarted {
            self.abandon_attempt(id);
        }
        if outdated || eager || newly_reachable {
            self.attempt(id, now);
        } else if self.contacts.get(&id).is_some_and(|contact| contact.peer.eager && contact.watch.at().is_none()) {
            self.handle_use(id, now);
        }
    }

    fn remove(&mut self, id: PeerId) {
        self.abandon_attempt(id);
        let Some(mut contact) = self.contacts.remove(&id) else { return };
        self.forget_deadline(id, contact.noted_deadline());
        self.callers.retain(|_, caller| *caller != id);
        let closed = contact.close_where(|_| true);
        self.forget(&closed);
        self.outputs.push_back(Output::Close { peer: contact.shared });
    }

    fn rebuild_routes(&mut self) {
        let mut routes = Routes::new(self.local.clone());
        for contact in self.contacts.values() {
            for prefix in &contact.peer.prefixes {
                routes.insert(*prefix, &contact.shared);
            }
        }
        self.routes = Arc::new(routes);
        self.changed = true;
    }

    /// Everything that may be due for one peer.
    fn act(&mut self, id: PeerId, now: Instant) {
        self.look_after(id, now);
        self.note_deadline(id);
    }

    fn look_after(&mut self, id: PeerId, now: Instant) {
        self.expire(id, now);
        let milliseconds = self.milliseconds(now);
        let Some(contact) = self.contacts.get_mut(&id) else { return };
        if contact.attempt.as_ref().is_some_and(|attempt| attempt.retry_at <= now) {
            contact.failures = contact.failures.saturating_add(1);
            let endpoint = contact.attempt.as_ref().map(|attempt| attempt.endpoint.address);
            contact.reason = endpoint.map_or_else(String::new, |endpoint| format!("no answer from {endpoint}"));
            self.abandon_attempt(id);
            if self.contacts.get_mut(&id).is_some_and(|contact| contact.gives_up(now)) {
                self.close_if_pathless(id, "no answer from any endpoint");
            } else {
                self.attempt(id, now);
            }
        }
        let Some(contact) = self.contacts.get_mut(&id) else { return };
        if contact.watch.at().is_none_or(|at| at > now) {
            return;
        }
        let step = contact.step(milliseconds, now);
        if step.probe
            && let Some(endpoint) = contact.endpoint
        {
            self.probe(id, endpoint, false, now);
        }
        if step.attempt {
            self.attempt(id, now);
        }
    }

    fn expire(&mut self, id: PeerId, now: Instant) {
        let Some(contact) = self.contacts.get_mut(&id) else { return };
        let closed = contact.expired(now);
        if closed.is_empty() {
            return;
        }
        self.forget(&closed);
        if self.close_if_pathless(id, "unused") && self.contacts.get(&id).is_some_and(|contact| contact.peer.eager) {
            self.attempt(id, now);
        }
    }

    fn forget(&mut self, closed: &[Arc<Session>]) {
        for session in closed {
            self.sessions.remove(&session.local_index);
        }
        self.changed = true;
    }

    /// Closes the path of a contact that has no session left: whether that was so.
    fn close_if_pathless(&mut self, id: PeerId, reason: &str) -> bool {
        let Some(contact) = self.contacts.get_mut(&id).filter(|contact| contact.current.is_none()) else {
            return false;
        };
        contact.wanted_since = None;
        reason.clone_into(&mut contact.reason);
        self.outputs.push_back(Output::Close { peer: contact.shared.clone() });
        true
    }

    /// Calls the peer at the next endpoint in turn, unless a call is under way.
    fn attempt(&mut self, id: PeerId, now: Instant) {
        if self.contacts.get(&id).is_none_or(|contact| contact.attempt.is_some()) {
            return;
        }
        let (random, index, jitter) = (self.draw(), self.draw_index(), self.draw_jitter());
        let Some(contact) = self.contacts.get_mut(&id) else { return };
        let Some(secret) = self.secrets.first() else { return };
        let Some(endpoint) = contact.next_endpoint() else {
            "no endpoint is known: the peer must call".clone_into(&mut contact.reason);
            return;
        };
        let both_prefer_aes = self.config.prefers_aes && contact.peer.prefers_aes;
        let cipher = if both_prefer_aes { Cipher::Aes256Gcm } else { Cipher::ChaCha20Poly1305 };
        let callee = Callee { id, noise_key: contact.peer.noise_key, incarnation: contact.peer.incarnation };
        self.initiations += 1;
        let sequence = (self.config.incarnation, self.initiations);
        let started = Initiating::start(&self.config.identity, &callee, secret, cipher, sequence, index, random);
        let Some((noise, datagram)) = started else {
            "its Noise key is not a key".clone_into(&mut contact.reason);
            return;
        };
        let retry_at = now + contact.patience() + jitter;
        contact.attempt = Some(Attempt { noise, index, endpoint, began: now, retry_at });
        self.attempts.insert(index, id);
        self.note_deadline(id);
        self.outputs.push_back(Output::Send { to: endpoint, datagram });
    }

    fn abandon_attempt(&mut self, id: PeerId) {
        if let Some(attempt) = self.contacts.get_mut(&id).and_then(|contact| contact.attempt.take()) {
            self.attempts.remove(&attempt.index);
            self.note_deadline(id);
        }
    }

    /// Asks for a sign of life at `to`; a `challenge` decides whether to move there.
    fn probe(&mut self, id: PeerId, to: Endpoint, challenge: bool, now: Instant) {
        let token = u64::from_be_bytes(self.draw());
        let Some(contact) = self.contacts.get_mut(&id) else { return };
        let Some(session) = contact.current.clone() else { return };
        let Some(datagram) = session.seal_alone(PacketType::Probe, &probes::question(token)) else { return };
        contact.probes.note_sent(token, challenge.then_some(to.address), now);
        self.outputs.push_back(Output::Send { to, datagram });
    }

    fn draw<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        (self.randomness)(&mut bytes);
        bytes
    }

    /// An index that no session and no attempt has.
    fn draw_index(&mut self) -> u32 {
        loop {
            let index = u32::from_be_bytes(self.draw());
            if !self.sessions.contains_key(&index) && !self.attempts.contains_key(&index) {
                return index;
            }
        }
    }

    /// Up to a quarter of a second, so that two who called at once do not do so again.
    fn draw_jitter(&mut self) -> Duration {
        let [byte] = self.draw();
        Duration::from_millis(u64::from(byte))
    }
}

/// Where to send, after what went to `reached` was answered by a datagram that says it came `from`. The peer has received
/// at `reached`; another source may be anyone's, and is followed only after a challenge.
fn proven(reached: Endpoint, from: Endpoint) -> Endpoint {
    if reached.address == from.address { from } else { reached }
}

/// The endpoint that a datagram from `from` to our address `to` is answered at.
pub(crate) fn answer_endpoint(from: SocketAddr, to: Option<IpAddr>) -> Endpoint {
    Endpoint { address: from, source: to }
}

pub(crate) use probes::{answer, read_answer, read_question};
