//! Two processes of one identity: the one that started later is refused.
//!
//! A link from another process of a peer than the one that has a link may be the peer's restart or a copy of its state.
//! The one that has the link is asked over it to sign for the newcomer's: if it does, it lives, and the newcomer gets
//! the signature as the reason why it has to end. If its link ends, or is silent for as long as gossip takes to give a
//! link up, it is gone: a process that only stands still for less keeps its identity. Until then the newcomer's frames
//! wait at its side. A restarted daemon resets its former links, so that the question itself finds out.
//!
//! A node of which a later run is known elsewhere was rolled back or copied. A copy that lives calls where this node has
//! a link, so that this node is asked to sign, or calls this node. Whoever was copied takes up what the copy published
//! and goes on above it: the next run would be the later process of the two.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use meshwork_api::event::Happening;
use meshwork_gossip::{Member, MemberState};
use meshwork_identity::Signature;
use meshwork_wire::{Incarnation, PeerId, frame};
use serde::{Deserialize, Serialize};

use super::{Lost, Node};
use crate::control::{Evidence, LinkId, LinkSender, Tag};

/// Topic of the questions and answers.
pub(super) const TWIN_TOPIC: u16 = 2;

/// How long a process may take to answer although its link is down already: a round trip and a signature, on a busy host.
const PATIENCE: Duration = Duration::from_millis(500);

/// The same in round trips, where the way is long.
const PATIENCE_TRIPS: u32 = 3;

/// How long a node that was outranked looks for the process that did it: a copy that lost a link dials again within half
/// a second, and the handshake may lose a packet.
const LOOK_FOR_COPY: Duration = Duration::from_secs(2);

/// Longest message: a tag, a run and a signature.
const MAX_MESSAGE: usize = 256;

#[derive(Debug, Serialize, Deserialize)]
enum TwinMessage {
    /// Do you live? Then sign for this link.
    Question(Tag),
    /// The run of whoever signed.
    Answer { tag: Tag, run: u64, signature: Signature },
}

/// The message that `payload` is, encoded again: for tests that feed nodes with foreign bytes.
#[doc(hidden)]
#[must_use]
pub fn twin_message_again(payload: &[u8]) -> Option<Vec<u8>> {
    let message: TwinMessage = frame::decode(payload, MAX_MESSAGE).ok()?;
    Some(frame::encode(&message))
}

/// Newcomers that wait for the one before them, by peer.
#[derive(Default)]
pub(super) struct Newcomers(BTreeMap<PeerId, Newcomer>);

struct Newcomer {
    link: LinkSender,
    until: Instant,
}

/// What is known of a later run of this node.
#[derive(Default)]
pub(super) struct LaterRun {
    /// A process that began later than this one called.
    called: bool,
    /// What it published is on disk since then.
    caught_up: Option<(Incarnation, Instant)>,
}

impl LaterRun {
    /// When it is known whether the run is a copy's, which lives or lived beside this process.
    pub(super) fn timeout(&self) -> Option<Instant> {
        let (_, since) = self.caught_up?;
        Some(if self.called { since } else { since + LOOK_FOR_COPY })
    }
}

impl Newcomers {
    /// Beyond that gossip's own timers tell when a link is silent.
    pub(super) fn timeout(&self, now: Instant) -> Option<Instant> {
        self.0.values().map(|newcomer| newcomer.until).filter(|until| *until > now).min()
    }

    /// The one before it is gone.
    pub(super) fn take(&mut self, peer: PeerId) -> Option<LinkSender> {
        self.0.remove(&peer).map(|newcomer| newcomer.link)
    }

    pub(super) fn links(&self) -> impl Iterator<Item = &LinkSender> {
        self.0.values().map(|newcomer| &newcomer.link)
    }

    pub(super) fn ended(&mut self, id: LinkId) {
        self.0.retain(|_, newcomer| newcomer.link.id != id);
    }

    fn overdue(&mut self, now: Instant, live: &BTreeSet<PeerId>) -> Vec<LinkSender> {
        let overdue = |peer: &PeerId, newcomer: &mut Newcomer| newcomer.until <= now && !live.contains(peer);
        self.0.extract_if(.., overdue).map(|(_, newcomer)| newcomer.link).collect()
    }

    /// Of two that wait, the other side keeps the one that this side keeps.
    fn wait(&mut self, link: LinkSender, until: Instant, me: PeerId) -> bool {
        let peer = link.peer;
        match self.0.get(&peer) {
            Some(known) if known.link.run.number != link.run.number || !link.outranks(&known.link, me) => {
                link.close(0);
                return false;
            }
            Some(known) => known.link.close(0),
            None => {}
        }
        self.0.insert(peer, Newcomer { link, until });
        true
    }
}

impl Node {
    /// Whether a peer without a link here is known to live as another run than the one that calls. Its neighbours carry
    /// the question on.
    pub(super) fn lives_elsewhere(&self, newcomer: &LinkSender) -> bool {
        let known = self.gossip.member(newcomer.peer);
        let other = |member: &Member| member.incarnation.0 > 0 && member.incarnation != newcomer.run.incarnation;
        known.is_some_and(|member| member.state == MemberState::Alive && other(&member))
    }

    /// Asks the process that has the link, or other links, whether it lives.
    pub(super) fn ask_elder(&mut self, now: Instant, newcomer: LinkSender, elder_trip: Duration) {
        let (peer, tag) = (newcomer.peer, newcomer.tag);
        let until = now + PATIENCE.max(elder_trip * PATIENCE_TRIPS);
        if self.newcomers.wait(newcomer, until, self.parts.identity.peer_id()) {
            self.gossip.send(now, peer, TWIN_TOPIC, frame::encode(&TwinMessage::Question(tag)));
        }
    }

    /// Whoever neither answered nor was heard for long is gone.
    pub(super) fn end_waiting(&mut self, now: Instant) {
        if self.newcomers.0.is_empty() {
            return;
        }
        for link in self.newcomers.overdue(now, &self.gossip.live_links()) {
            self.drop_link(now, link.peer, "another process of the same identity takes its place");
            self.establish(now, link);
        }
    }

    pub(super) fn twin_message(&mut self, now: Instant, from: PeerId, payload: &[u8]) {
        match frame::decode(payload, MAX_MESSAGE) {
            Ok(TwinMessage::Question(tag)) => {
                self.later_run.called = true;
                let run = self.parts.run;
                let signature = run.sign_life(&self.parts.identity, &tag);
                let answer = TwinMessage::Answer { tag, run: run.number, signature };
                self.gossip.send(now, from, TWIN_TOPIC, frame::encode(&answer));
            }
            Ok(TwinMessage::Answer { tag, run, signature }) => self.elder_answered(now, from, tag, run, signature),
            Err(error) => {
                self.misbehaved_frames += 1;
                tracing::warn!(%from, %error, "ignored a message about identities");
            }
        }
    }

    fn elder_answered(&mut self, now: Instant, peer: PeerId, tag: Tag, run: u64, signature: Signature) {
        let Some(newcomer) = self.newcomers.0.get(&peer).filter(|newcomer| newcomer.link.tag == tag) else { return };
        let key = newcomer.link.key;
        let address = match self.links.get(&peer) {
            Some(elder) if elder.sender.run.number != run => return,
            Some(elder) => elder.sender.address,
            None => self.told_address(peer).unwrap_or(newcomer.link.address),
        };
        let evidence = Evidence { run, address, signature };
        if !evidence.holds(key, &tag) {
            return;
        }
        let Some(newcomer) = self.newcomers.take(peer) else { return };
        // The question went round to the newcomer itself: no other process answers for it.
        if newcomer.run.number == run {
            self.establish(now, newcomer);
            return;
        }
        let (address, elder) = (newcomer.address, evidence.address);
        tracing::warn!(%peer, %address, %elder, "refused a second process of one identity; the first one lives");
        let reason = format!("{address}: the process of this identity at {elder} began earlier and lives");
        self.record_of(peer, Happening::CopyRefused { peer, address }, &reason);
        newcomer.refuse(&evidence);
    }

    fn told_address(&self, peer: PeerId) -> Option<SocketAddr> {
        self.records.get(&peer).and_then(|record| record.endpoints.first().copied())
    }

    /// A process that began later than this one holds its identity, and was told to end.
    pub(super) fn copied(&mut self, address: SocketAddr) {
        tracing::warn!(%address, "a copy of this node's state called, and was told to end");
        self.later_run.called = true;
        let peer = self.parts.identity.peer_id();
        let reason = format!("{address}: a copy of this node's state runs there, and this process began earlier");
        self.chronicle.record(Happening::CopyRefused { peer, address }, &self.parts.config.nickname, &reason);
    }

    /// The disk has what a later run published. Whether that run lives is not known yet.
    pub(super) fn caught_up(&mut self, now: Instant, incarnation: Incarnation) {
        self.later_run.caught_up = Some((incarnation, now));
    }

    /// Goes on above a copy, or ends where this node's own disk was rolled back: the next run begins with what it took up.
    pub(super) fn judge_later_run(&mut self, now: Instant) {
        if self.later_run.timeout().is_none_or(|at| at > now) {
            return;
        }
        let Some((incarnation, _)) = self.later_run.caught_up.take() else { return };
        if !self.later_run.called {
            self.lost.get_or_insert(Lost::RolledBack(incarnation));
        } else if !self.parts.allocator.go_on_above(incarnation.max(self.parts.run.incarnation)) {
            self.later_run.caught_up = Some((incarnation, now + LOOK_FOR_COPY));
        }
    }

    /// What the copy did is taken up, and others shall hear this process again.
    pub(super) fn above_copy(&mut self, now: Instant, incarnation: Incarnation) {
        tracing::warn!(%incarnation, "goes on above a copy of this node's state");
        self.parts.run.incarnation = incarnation;
        self.parts.tunnel.set_incarnation(incarnation);
        self.gossip.advance(now, incarnation);
        self.outranked = None;
        self.stale.addresses();
    }

    /// An earlier process has this node's identity.
    pub(super) fn identity_in_use(&mut self, address: SocketAddr) {
        self.lost.get_or_insert(Lost::IdentityInUse(address));
    }
}
