//! Control links come and go.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use meshwork_api::event::Happening;
use meshwork_gossip::Hearing;
use meshwork_identity::admission::Refused;
use meshwork_wire::PeerId;

use super::Node;
use super::chronicle::shortened;
use super::views::direction_model;
use crate::control::dialer::{Due, TargetKey};
use crate::control::{LinkError, LinkEvent, LinkId, LinkSender, Outgoing, Referral};

/// A link that was heard within this is alive; an older one gives way to a new link to the same peer.
const FRESH: Duration = Duration::from_secs(2);

/// An established link.
pub(super) struct Link {
    pub(super) sender: LinkSender,
    pub(super) since: Instant,
    /// It was let in beyond the bound because it had nobody else.
    pub(super) alone: bool,
    heard: Instant,
    hearing: Hearing,
}

/// What the other end of a link is told when this one ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Nothing.
    Close,
    /// Neither end needs it.
    GiveUp,
}

impl Link {
    /// When something last came on it.
    pub(super) fn heard(&self) -> Instant {
        self.heard
    }
}

impl Node {
    pub(super) fn link_event(&mut self, now: Instant, event: LinkEvent) {
        match event {
            LinkEvent::Knock(knock) => self.knock(now, knock),
            LinkEvent::Up(sender) => self.link_up(now, *sender),
            LinkEvent::Frame(id, frame) => self.frame(now, id, &frame),
            LinkEvent::Down(id, error) => self.link_down(now, id, &error),
            LinkEvent::DialFailed(target, error) => self.dial_failed(now, &target, &error),
            LinkEvent::IdentityInUse(address) => self.identity_in_use(address),
            LinkEvent::Copied(address) => self.copied(address),
        }
    }

    fn link_up(&mut self, now: Instant, sender: LinkSender) {
        let peer = sender.peer;
        if !self.parts.control.accepts(sender.key_id) {
            // Its proof was under way while the secrets were changed.
            sender.close(0);
            if let Some(target) = &sender.target {
                self.dialer.failed(now, target, "the secret of the link is no longer accepted", false, jitter());
            }
            return;
        }
        let me = self.parts.identity.peer_id();
        match self.links.get(&peer).map(|old| (judge(&sender, old, me, now), old.sender.rtt())) {
            None if self.lives_elsewhere(&sender) => self.ask_elder(now, sender, Duration::ZERO),
            None => self.establish(now, sender),
            Some((Verdict::Replaces, _)) => {
                self.drop_link(now, peer, "another link to the same peer takes its place");
                self.establish(now, sender);
            }
            Some((Verdict::Spare, _)) => {
                tracing::debug!(%peer, "a second link to the same peer is closed");
                self.dialer.linked(now, sender.target.as_ref(), peer);
                sender.close(0);
            }
            Some((Verdict::OtherRun, trip)) => self.ask_elder(now, sender, trip),
        }
    }

    /// Puts a link into use.
    pub(super) fn establish(&mut self, now: Instant, sender: LinkSender) {
        let peer = sender.peer;
        // It waited for the word of another process than the one that has the link now, and calls again.
        if let Some(waiting) = self.newcomers.take(peer) {
            waiting.close(0);
        }
        self.record_link_up(&sender);
        tracing::info!(%peer, address = %sender.address, direction = ?sender.direction, "control link established");
        self.dialer.linked(now, sender.target.as_ref(), peer);
        self.gossip.link_up(now, peer, sender.key);
        self.gossip.link_rtt(now, peer, sender.rtt());
        sender.begin();
        self.peer_of_link.insert(sender.id, peer);
        let alone = self.choice.came(peer);
        let hearing = Hearing::new(now, sender.heard());
        self.links.insert(peer, Link { sender, since: now, alone, heard: now, hearing });
        self.stale.peers();
        self.links_changed(now);
    }

    fn record_link_up(&self, sender: &LinkSender) {
        let LinkSender { peer, address, .. } = *sender;
        let reason = match &sender.target {
            None => format!("{address}: dialled by the peer"),
            Some(target) => format!("{address}: dialled as {target}"),
        };
        let direction = direction_model(sender.direction);
        self.record_of(peer, Happening::LinkUp { peer, address, direction }, &reason);
    }

    /// Takes a link out of use and closes it.
    pub(super) fn drop_link(&mut self, now: Instant, peer: PeerId, reason: &str) {
        self.drop_link_by(now, peer, reason, Ending::Close);
    }

    /// The same, and says how.
    pub(super) fn drop_link_by(&mut self, now: Instant, peer: PeerId, reason: &str, ending: Ending) {
        if let Some(link) = self.links.remove(&peer) {
            let (address, direction) = (link.sender.address, direction_model(link.sender.direction));
            self.record_of(peer, Happening::LinkDown { peer, address, direction }, &format!("{address}: {reason}"));
            self.peer_of_link.remove(&link.sender.id);
            match ending {
                Ending::Close => link.sender.close(0),
                Ending::GiveUp => link.sender.give_up(),
            }
            match ending {
                Ending::Close => self.gossip.link_down(now, peer),
                Ending::GiveUp => self.gossip.link_given_up(now, peer),
            }
            self.stale.peers();
            self.links_changed(now);
        }
    }

    fn frame(&mut self, now: Instant, id: LinkId, frame: &[u8]) {
        let Some(&peer) = self.peer_of_link.get(&id) else { return };
        if let Some(link) = self.links.get_mut(&peer) {
            link.heard = now;
        }
        if let Err(error) = self.gossip.receive(now, peer, frame) {
            self.misbehaved_frames += 1;
            tracing::warn!(%peer, %error, "ignored a frame of gossip");
        }
    }

    /// Notes on which links the transport had something of the other end.
    pub(super) fn hear_links(&mut self, now: Instant) {
        for (peer, link) in &mut self.links {
            if let Some(since) = link.hearing.look(now, link.sender.heard()) {
                link.heard = link.heard.max(since);
                self.gossip.link_heard(now, *peer, since);
            }
        }
    }

    /// A link that was replaced or closed by us is no longer known here, and its end means nothing.
    fn link_down(&mut self, now: Instant, id: LinkId, error: &LinkError) {
        if let LinkError::IdentityInUse(address) = error {
            self.identity_in_use(*address);
        }
        self.newcomers.ended(id);
        let Some(&peer) = self.peer_of_link.get(&id) else { return };
        self.lose_link(now, peer, error);
    }

    /// Closes a link on which nothing was heard for long.
    pub(super) fn link_silent(&mut self, now: Instant, peer: PeerId) {
        self.lose_link(now, peer, &LinkError::Silent);
    }

    fn lose_link(&mut self, now: Instant, peer: PeerId, error: &LinkError) {
        tracing::info!(%peer, reason = %error, "control link lost");
        let ending = if matches!(error, LinkError::GivenUp) { Ending::GiveUp } else { Ending::Close };
        self.drop_link_by(now, peer, &error.to_string(), ending);
        match self.newcomers.take(peer) {
            Some(newcomer) => self.establish(now, newcomer),
            None => self.dialer.unlinked(now, peer, &error.to_string(), jitter()),
        }
    }

    fn dial_failed(&mut self, now: Instant, target: &TargetKey, error: &LinkError) {
        if let LinkError::Refused(Refused::OwnIdentity) = error {
            self.dialer.ourselves(now, target);
            return;
        }
        match error {
            LinkError::IdentityInUse(address) => self.identity_in_use(*address),
            LinkError::Copied(address) => self.copied(*address),
            _ => {}
        }
        if let LinkError::Elsewhere { by, referral } = error {
            self.sent_elsewhere_by(now, target, *by, referral, &error.to_string());
            return;
        }
        let reason = error.to_string();
        // Each attempt fails alike: people are told once, and again when the reason is another one.
        if self.dialer.failed(now, target, &reason, self.links.is_empty(), jitter()) {
            tracing::warn!(%target, reason, "dialling failed, and goes on being tried");
            let target = shortened(&target.to_string());
            self.chronicle.record(Happening::DialFailed { target: target.clone() }, &target, &reason);
        } else {
            tracing::debug!(%target, reason, "dialling failed");
        }
    }

    /// A target has no room. A node that knows nobody follows to those it named; any other knows members itself.
    fn sent_elsewhere_by(&mut self, now: Instant, target: &TargetKey, by: PeerId, referral: &Referral, reason: &str) {
        let alone = self.links.is_empty();
        tracing::info!(%target, reason, "sent elsewhere");
        self.dialer.elsewhere(now, target, by, reason, alone, jitter());
        self.choice.refused(now, &mut crate::random::number, by, self.links.len());
        if alone && self.parts.config.discovery {
            let ours = self.own_endpoints();
            let mut named = referral.0.clone();
            named.retain(|(peer, _)| *peer != self.parts.identity.peer_id());
            named.iter_mut().for_each(|(_, endpoints)| endpoints.retain(|endpoint| !ours.contains(endpoint)));
            self.dialer.refer(now, named);
        }
        let target = shortened(&target.to_string());
        let happening = Happening::SentElsewhere { target: target.clone(), by };
        self.chronicle.record(happening, &target, reason);
    }

    pub(super) fn dial_configured(&mut self, now: Instant) {
        for target in self.parts.config.peers.clone() {
            self.dialer.connect(now, target);
        }
        for text in self.parts.allocator.targets() {
            match crate::config::Target::parse(text) {
                Ok(target) => self.dialer.connect(now, target),
                Err(error) => tracing::warn!(%error, "a remembered target is of no use"),
            }
        }
    }

    pub(super) fn dial_due(&mut self, now: Instant) {
        let links = &self.links;
        for Due { key, insists } in self.dialer.due(now, |peer| links.contains_key(&peer)) {
            let caller = self.as_caller(&key, insists);
            self.parts.control.dial(key, caller);
        }
    }

    /// Hands gossip's frames to their links. A link whose queue is full loses the frame; digests bring its content.
    pub(super) fn transmit(&mut self) {
        while let Some(transmit) = self.gossip.poll_transmit() {
            let Some(link) = self.links.get(&transmit.to) else { continue };
            let outgoing = Outgoing { frame: transmit.frame, reliable: transmit.reliable };
            if !link.sender.send(outgoing) {
                self.dropped_frames += 1;
            }
        }
    }

    pub(super) fn link_address(&self, peer: PeerId) -> Option<SocketAddr> {
        self.links.get(&peer).map(|link| link.sender.address)
    }
}

/// What a new link is beside the one there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It takes its place.
    Replaces,
    /// It is one too many.
    Spare,
    /// It leads to a process that began after the one that has the link, which may live on.
    OtherRun,
}

/// Of links to the same process a new one comes first when the old one has fallen silent, else their rank decides. A
/// process that began before the one that has the link is the right one without a question: it has just shown that it
/// lives.
fn judge(new: &LinkSender, old: &Link, me: PeerId, now: Instant) -> Verdict {
    if new.run.number != old.sender.run.number {
        return if new.run.started < old.sender.run.started { Verdict::Replaces } else { Verdict::OtherRun };
    }
    let replaces = now.duration_since(old.heard) > FRESH || new.outranks(&old.sender, me);
    if replaces { Verdict::Replaces } else { Verdict::Spare }
}

/// A random number of 0 to 1.
pub(super) fn jitter() -> f64 {
    let mut bytes = [0; 4];
    crate::random::fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}
