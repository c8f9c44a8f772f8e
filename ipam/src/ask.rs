//! Asking others for space: the peer with most of it first, the next one on denial or silence.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use meshwork_wire::{PeerId, Version};

use crate::decide::{Decision, Ipam};
use crate::lease::LeaseError;
use crate::message::{Denial, Message};
use crate::prefix::size;

/// How long a peer may take to answer: a gift is one fsync and two messages.
const SILENCE: Duration = Duration::from_secs(1);

/// Pause after everyone was asked in vain while someone waits for an address.
const PAUSE_URGENT: Duration = Duration::from_secs(1);

/// The same while nobody waits: space that is asked for ahead may come late.
const PAUSE: Duration = Duration::from_secs(30);

/// Peers asked in a round while nobody waits, so that a full mesh is not asked through again and again.
const ROUND: usize = 3;

/// Fewer free addresses than this and more are asked for: more than the pods that start at one moment.
pub(crate) const LOW_WATER: u64 = 16;

/// First wish as a share of the range, as a power of two: a thousand nodes get theirs before it has to be less.
const FIRST_WISH_SHARE_LOG2: u8 = 10;

/// Least first wish as a power of two: below it a small range would be handed around address by address.
const LEAST_WISH_LOG2: u8 = 6;

/// The search for space.
#[derive(Debug, Default)]
pub(crate) struct Asking {
    counter: u64,
    /// The peer asked now, and when it was.
    current: Option<(PeerId, Instant)>,
    /// Requests without an answer: repeated under their number, so that a lost answer is not a second gift.
    open: BTreeMap<PeerId, Version>,
    /// Who was asked in this round: what they said, nothing for silence.
    round: BTreeMap<PeerId, Option<Denial>>,
    /// The last complete round.
    before: BTreeMap<PeerId, Option<Denial>>,
    resume: Option<Instant>,
    /// Whether this round asks for more than what others will not miss.
    urgent: bool,
}

impl Asking {
    /// When something has to be done without an input.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.current.map(|(_, sent)| sent + SILENCE).or(self.resume)
    }

    /// Who appears is asked at once, who disappears is not waited for.
    pub(crate) fn meet(&mut self, before: &BTreeSet<PeerId>, now: &BTreeSet<PeerId>) {
        if !now.is_subset(before) {
            self.resume = None;
        }
        self.current = self.current.filter(|(peer, _)| now.contains(peer));
        self.round.retain(|peer, _| now.contains(peer));
    }

    /// Another ring is followed: what was said about the one before means nothing. Requests stay open, so that an
    /// answer that was thought to belong elsewhere comes again instead of a second gift.
    pub(crate) fn begin_anew(&mut self) {
        (self.current, self.resume) = (None, None);
        self.round.clear();
    }

    pub(crate) fn denied(&mut self, from: PeerId, request: Version, denial: Denial) {
        if self.answered(from, request) {
            self.round.insert(from, Some(denial));
        }
    }

    /// Closes a request. Says whether it was open.
    pub(crate) fn answered(&mut self, from: PeerId, request: Version) -> bool {
        let open = self.open.get(&from) == Some(&request);
        if open {
            self.received_from(from);
        }
        open
    }

    /// Closes whatever was asked of this peer: its gift is here.
    pub(crate) fn received_from(&mut self, giver: PeerId) {
        self.open.remove(&giver);
        self.current = self.current.filter(|(peer, _)| *peer != giver);
        self.resume = None;
    }

    /// Who had nothing to spare may still have something for a need, so that begins anew, and at once.
    fn heed(&mut self, urgent: bool) {
        if urgent && !self.urgent {
            *self = Self { counter: self.counter, ..Self::default() };
        }
        self.urgent = urgent;
    }

    fn end_round(&mut self, resume: Instant) {
        self.before = std::mem::take(&mut self.round);
        self.resume = Some(resume);
    }
}

impl Ipam {
    /// Asks the next peer when space is short and nobody is being asked.
    pub(crate) fn ask_for_space(&mut self, decision: &mut Decision) {
        if let Some((peer, _)) = self.asking.current.filter(|(_, sent)| self.now >= *sent + SILENCE) {
            self.asking.current = None;
            self.asking.round.insert(peer, None);
        }
        if !self.needs_space() || self.stays_out() {
            self.asking.round.clear();
            self.asking.resume = None;
            return;
        }
        self.asking.heed(self.is_urgent());
        self.leave_a_donor_without_space();
        if self.asking.current.is_some() || self.asking.resume.is_some_and(|resume| self.now < resume) {
            return;
        }
        let urgent = self.asking.urgent;
        match self.next_donor().filter(|_| urgent || self.asking.round.len() < ROUND) {
            Some(donor) => self.ask(donor, decision),
            None => self.asking.end_round(self.now + if urgent { PAUSE_URGENT } else { PAUSE }),
        }
    }

    /// Whoever was asked before the ring was heard may own nothing of it: once an owner is known, its answer, if there
    /// ever is one, is not waited for.
    fn leave_a_donor_without_space(&mut self) {
        let Some((donor, _)) = self.asking.current.filter(|_| self.heard.current().is_some()) else { return };
        let owns = |peer: PeerId| self.view.iter().any(|(_, order)| order.peer == peer);
        if !owns(donor) && self.next_donor().is_some_and(|next| next != donor) {
            self.asking.current = None;
        }
    }

    fn ask(&mut self, donor: PeerId, decision: &mut Decision) {
        let next = Version { incarnation: self.config.incarnation, counter: self.asking.counter + 1 };
        let request = *self.asking.open.entry(donor).or_insert(next);
        self.asking.counter = self.asking.counter.max(request.counter);
        self.asking.current = Some((donor, self.now));
        let (ring, want_log2) = (self.heard.current(), self.wish_log2());
        let message = if self.asking.urgent {
            Message::AskSpace { request, ring, want_log2 }
        } else {
            Message::AskSpare { request, ring, want_log2 }
        };
        decision.send(donor, message);
    }

    fn needs_space(&self) -> bool {
        match self.heard.current() {
            Some(_) => self.is_proven() && self.pool4.free() < LOW_WATER,
            // Whoever seeds alone does so when it is asked; whoever joins asks, so that one is.
            None => !self.seeds() && !self.alive.is_empty(),
        }
    }

    /// Whether someone waits, or this node has yet to get its first part.
    fn is_urgent(&self) -> bool {
        !self.waiting.is_empty() || self.owned() == 0
    }

    /// As much again as is owned, so that each gift doubles it.
    fn wish_log2(&self) -> u8 {
        let range_log2 = 32 - self.config.range4.prefix_len();
        let first = range_log2.saturating_sub(FIRST_WISH_SHARE_LOG2).max(LEAST_WISH_LOG2);
        let owned = self.owned().checked_ilog2().map_or(0, |log2| log2 as u8);
        first.max(owned).min(range_log2)
    }

    fn next_donor(&self) -> Option<PeerId> {
        let mut owned: BTreeMap<PeerId, u64> = BTreeMap::new();
        for (prefix, order) in self.view.iter() {
            *owned.entry(order.peer).or_default() += size(prefix);
        }
        let joining = self.heard.current().is_none();
        let candidates = self.alive.iter().filter(|peer| {
            let has_some = joining || owned.contains_key(peer);
            has_some && self.shares_range(**peer) && **peer != self.me && !self.asking.round.contains_key(peer)
        });
        let most = |peer: &&PeerId| match self.free_hints.get(peer) {
            Some(hint) => hint.map_or(0, |log2| u64::from(log2) + 1),
            None => owned.get(peer).map_or(0, |owned| u64::from(owned.ilog2()) + 1),
        };
        candidates.max_by_key(most).copied()
    }

    /// Why a request that waited gets no address.
    pub(crate) fn waiting_reason(&self) -> LeaseError {
        if self.heard.current().is_none() || !self.is_proven() || self.stays_out() {
            return LeaseError::WaitingForRing(self.ring_reason());
        }
        let answers = if self.asking.before.is_empty() { &self.asking.round } else { &self.asking.before };
        let empty = answers.values().filter(|answer| **answer == Some(Denial::NoSpace)).count();
        let silent = answers.values().filter(|answer| answer.is_none()).count();
        let other = answers.len() - empty - silent;
        let reason = format!(
            "of {} peers asked, {empty} have none to spare, {silent} did not answer, {other} cannot give now",
            answers.len()
        );
        let owners = self.view.iter().map(|(_, order)| order.peer).filter(|owner| *owner != self.me);
        let everyone = owners.collect::<BTreeSet<_>>().iter().all(|owner| answers.contains_key(owner));
        if everyone && empty == answers.len() {
            LeaseError::RangeExhausted { range: self.config.range4.to_string(), reason }
        } else {
            LeaseError::NoSpace(reason)
        }
    }
}
