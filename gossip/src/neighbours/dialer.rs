//! Decides whom to dial and when; no IO.
//!
//! A target is an address to begin from (configured or added by `connect`), in whatever form `T` the driver has it, or an
//! endpoint of a member that gossip told of. Each has its own schedule: at once, then with exponential backoff and jitter, so that a mesh that restarts
//! together does not dial in step. A target rests while a link that it led to, or a link to its peer, is up.
//!
//! A node that is full sends its callers elsewhere. That is no failure: who is named by the operator is called again
//! much later, a member is left to the choice of links. Whom the full node named is dialled by a node that knows nobody,
//! each once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use meshwork_wire::PeerId;

/// First wait after a failure: a daemon that restarts is back within it.
const FIRST_BACKOFF: Duration = Duration::from_millis(250);

/// Longest wait. A configured peer that comes back is found within this without anyone's help; it mostly dials first.
const LONGEST_BACKOFF: Duration = Duration::from_secs(15);

/// The same for a node without any link: it has nothing else to do, and those that a crowd turned away at the start are
/// what the others wait for.
const LONGEST_BACKOFF_ALONE: Duration = Duration::from_secs(1);

/// A link that lasted less than this counts as a failed attempt: whoever admits us only to hang up again, such as a
/// second node of the same identity, is not dialled in a tight loop.
const LASTING: Duration = Duration::from_secs(5);

/// Members dialled at once. One that invents thousands of members at others' addresses does not make this node knock
/// at all of them in the same moment.
const MOST_DIALLED: usize = 32;

/// First pause before a target is called again that sent this node elsewhere, and the longest.
const ELSEWHERE: Duration = Duration::from_secs(30);
const LONGEST_ELSEWHERE: Duration = Duration::from_secs(300);

/// The first one for a node without any link: what the other side named had its chance.
const ELSEWHERE_ALONE: Duration = Duration::from_secs(2);

/// Members that others named, dialled within [`REFERRED_MEMORY`]: a hostile member, or one after the other, gets a node
/// that knows nobody to knock at this many addresses a minute.
const MOST_REFERRED: usize = 30;

/// How long a member that was named is not dialled again for that.
const REFERRED_MEMORY: Duration = Duration::from_secs(60);

/// What is dialled.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum TargetKey<T> {
    /// Given by the operator, resolved at each attempt.
    Named(T),
    /// An endpoint that a member tells of itself. The member is part of the name, because anyone may tell of an address
    /// that is another's.
    Endpoint(PeerId, SocketAddr),
}

impl<T> TargetKey<T> {
    /// The member whose endpoint it is.
    #[must_use]
    pub const fn member(&self) -> Option<PeerId> {
        match self {
            Self::Named(_) => None,
            Self::Endpoint(member, _) => Some(*member),
        }
    }
}

impl<T: fmt::Display> fmt::Display for TargetKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(target) => target.fmt(f),
            Self::Endpoint(_, address) => address.fmt(f),
        }
    }
}

/// Where a target stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetState {
    /// An attempt is under way.
    Dialling,
    /// The next attempt is due then.
    Waiting(Instant),
    /// It sent this node elsewhere; it is called again then.
    Elsewhere(Instant),
    /// It leads to this peer, which has a link.
    Linked(PeerId),
    /// It leads to this node itself: never again.
    Ourselves,
}

/// One target as people see it.
#[derive(Debug, Clone)]
pub struct TargetStatus<T> {
    /// What is dialled.
    pub key: TargetKey<T>,
    /// Where it stands.
    pub state: TargetState,
    /// Since when.
    pub since: Instant,
    /// Last failure, empty when there was none.
    pub reason: String,
}

#[derive(Debug)]
struct Schedule {
    state: TargetState,
    since: Instant,
    failures: u32,
    reason: String,
    /// How often in a row it sent this node elsewhere, and who it is.
    sent_away: u32,
    leads_to: Option<PeerId>,
    /// A full node named it.
    referred: bool,
}

/// A target to dial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due<T> {
    /// What.
    pub key: TargetKey<T>,
    /// It sent this node elsewhere before.
    pub insists: bool,
}

/// Every target and its schedule.
#[derive(Debug)]
pub struct Dialer<T> {
    targets: BTreeMap<TargetKey<T>, Schedule>,
    /// Members that were dialled because a full node named them, and when.
    referred: BTreeMap<PeerId, Instant>,
}

impl<T> Default for Dialer<T> {
    fn default() -> Self {
        Self { targets: BTreeMap::new(), referred: BTreeMap::new() }
    }
}

impl<T: Clone + Ord> Dialer<T> {
    /// Adds a target of the operator; known ones are tried at once.
    pub fn connect(&mut self, now: Instant, target: T) {
        let schedule = self.targets.entry(TargetKey::Named(target)).or_insert_with(|| Schedule::new(now));
        if let TargetState::Waiting(_) | TargetState::Elsewhere(_) = schedule.state {
            let sent_away = schedule.sent_away;
            *schedule = Schedule { sent_away, ..Schedule::new(now) };
        }
    }

    /// Takes a target of the operator away. False where there was none.
    pub fn forget(&mut self, target: &T) -> bool {
        self.targets.remove(&TargetKey::Named(target.clone())).is_some()
    }

    /// The members that should have a link, with their endpoints and the moment from which they are dialled; what is no
    /// longer wanted is dropped.
    pub fn discover(&mut self, wanted: &BTreeMap<PeerId, (Instant, Vec<SocketAddr>)>) {
        let endpoints: BTreeMap<TargetKey<T>, Instant> = wanted
            .iter()
            .flat_map(|(peer, (at, told))| told.iter().map(|address| (TargetKey::Endpoint(*peer, *address), *at)))
            .collect();
        self.targets.retain(|key, schedule| key.member().is_none() || schedule.referred || endpoints.contains_key(key));
        for (key, at) in endpoints {
            self.targets.entry(key).or_insert_with(|| Schedule::new(at)).referred = false;
        }
    }

    /// A member can be reached again: whatever was tried in vain before is tried anew.
    pub fn revive(&mut self, at: Instant, peer: PeerId) {
        for (key, schedule) in &mut self.targets {
            if let (Some(member), TargetState::Waiting(_)) = (key.member(), &schedule.state)
                && member == peer
            {
                schedule.failures = 0;
                schedule.enter(at, TargetState::Waiting(at));
            }
        }
    }

    /// Members that a full node named, for a node that knows nobody.
    pub fn refer(&mut self, now: Instant, members: Vec<(PeerId, Vec<SocketAddr>)>) {
        self.referred.retain(|_, at| now.saturating_duration_since(*at) < REFERRED_MEMORY);
        for (peer, endpoints) in members {
            if self.referred.len() >= MOST_REFERRED || self.referred.contains_key(&peer) {
                continue;
            }
            self.referred.insert(peer, now);
            for endpoint in endpoints {
                let key = TargetKey::Endpoint(peer, endpoint);
                self.targets.entry(key).or_insert_with(|| Schedule { referred: true, ..Schedule::new(now) });
            }
        }
    }

    /// A target sent this node elsewhere. `alone` where this node has no link at all; `jitter` is a random number of 0
    /// to 1.
    pub fn elsewhere(&mut self, now: Instant, key: &TargetKey<T>, by: PeerId, reason: &str, alone: bool, jitter: f64) {
        if self.take_referred(key) {
            return;
        }
        let Some(schedule) = self.targets.get_mut(key).filter(|schedule| schedule.state == TargetState::Dialling)
        else {
            return;
        };
        let (first, longest) = if alone { (ELSEWHERE_ALONE, ELSEWHERE) } else { (ELSEWHERE, LONGEST_ELSEWHERE) };
        let pause =
            first.saturating_mul(1 << schedule.sent_away.min(16)).min(longest).mul_f64(0.5 + jitter.clamp(0.0, 1.0));
        schedule.sent_away = schedule.sent_away.saturating_add(1);
        schedule.leads_to = Some(by);
        reason.clone_into(&mut schedule.reason);
        schedule.enter(now, TargetState::Elsewhere(now + pause));
    }

    /// Whom others named is dialled once: takes it away, where it is such a target.
    fn take_referred(&mut self, key: &TargetKey<T>) -> bool {
        let referred = self.targets.get(key).is_some_and(|schedule| schedule.referred);
        if referred {
            self.targets.remove(key);
        }
        referred
    }

    /// Whom a target led to when it sent this node elsewhere, or was given up.
    #[must_use]
    pub fn leads_to(&self, key: &TargetKey<T>) -> Option<PeerId> {
        self.targets.get(key)?.leads_to
    }

    /// This node gave up its link to a peer that has too many. What the operator named is called again much later, as
    /// after a call that was sent elsewhere. `jitter` is a random number of 0 to 1.
    pub fn given_up(&mut self, now: Instant, peer: PeerId, jitter: f64) {
        let named = self.targets.iter_mut().filter(|(key, _)| key.member().is_none()).map(|(_, schedule)| schedule);
        for schedule in named.filter(|schedule| schedule.state == TargetState::Linked(peer)) {
            schedule.leads_to = Some(peer);
            schedule.sent_away = schedule.sent_away.saturating_add(1);
            schedule.enter(now, TargetState::Elsewhere(now + LONGEST_ELSEWHERE.mul_f64(0.5 + jitter.clamp(0.0, 1.0))));
        }
    }

    /// Whether the operator asked for a link to this peer.
    #[must_use]
    pub fn names(&self, peer: PeerId) -> bool {
        let names =
            |(key, schedule): (&TargetKey<T>, &Schedule)| key.member().is_none() && schedule.leads_to == Some(peer);
        self.targets.iter().any(names)
    }

    /// A link is up: its target and every endpoint of the same peer rest.
    pub fn linked(&mut self, now: Instant, key: Option<&TargetKey<T>>, peer: PeerId) {
        // With a link the mesh itself tells of its members.
        self.targets.retain(|candidate, schedule| !schedule.referred || Some(candidate) == key);
        for (candidate, schedule) in &mut self.targets {
            let sent_away = matches!(schedule.state, TargetState::Elsewhere(_)) && schedule.leads_to == Some(peer);
            if Some(candidate) == key || candidate.member() == Some(peer) || sent_away {
                schedule.enter(now, TargetState::Linked(peer));
                schedule.leads_to = Some(peer);
                schedule.sent_away = 0;
                schedule.reason.clear();
            }
        }
    }

    /// The last link to a peer is gone: what led to it is tried at once, or later where the link hardly lasted.
    /// `jitter` is a random number of 0 to 1.
    pub fn unlinked(&mut self, now: Instant, peer: PeerId, reason: &str, jitter: f64) {
        for schedule in self.targets.values_mut().filter(|schedule| schedule.state == TargetState::Linked(peer)) {
            if now.saturating_duration_since(schedule.since) >= LASTING {
                schedule.failures = 0;
                schedule.reason = reason.to_owned();
                schedule.enter(now, TargetState::Waiting(now));
            } else {
                schedule.back_off(now, reason, LONGEST_BACKOFF, jitter);
            }
        }
    }

    /// An attempt failed. `alone` where this node has no link at all; `jitter` is a random number of 0 to 1. Answers
    /// whether the reason is a new one.
    pub fn failed(&mut self, now: Instant, key: &TargetKey<T>, reason: &str, alone: bool, jitter: f64) -> bool {
        if self.take_referred(key) {
            return false;
        }
        let Some(schedule) = self.targets.get_mut(key) else { return false };
        if schedule.state != TargetState::Dialling {
            return false;
        }
        let new = schedule.reason != reason;
        schedule.back_off(now, reason, if alone { LONGEST_BACKOFF_ALONE } else { LONGEST_BACKOFF }, jitter);
        new
    }

    /// The target is this node itself.
    pub fn ourselves(&mut self, now: Instant, key: &TargetKey<T>) {
        if let Some(schedule) = self.targets.get_mut(key) {
            schedule.enter(now, TargetState::Ourselves);
        }
    }

    /// Targets that are due, marked as being dialled; of a member's endpoints one at a time. `linked` says which peers
    /// have a link already.
    pub fn due(&mut self, now: Instant, linked: impl Fn(PeerId) -> bool) -> Vec<Due<T>> {
        let mut due = Vec::new();
        if !self.targets.values().any(|schedule| schedule.waits_until().is_some_and(|at| at <= now)) {
            return due;
        }
        let mut busy = self.members_being_dialled();
        for key in self.waiting_until(now) {
            let Some(schedule) = self.targets.get_mut(&key) else { continue };
            match key.member() {
                Some(peer) if linked(peer) => schedule.enter(now, TargetState::Linked(peer)),
                Some(peer) if busy.len() >= MOST_DIALLED || !busy.insert(peer) => {}
                _ => {
                    schedule.enter(now, TargetState::Dialling);
                    due.push(Due { key, insists: schedule.sent_away > 0 });
                }
            }
        }
        due
    }

    /// What may be dialled, the longest due first, so that a crowd passes over nobody.
    fn waiting_until(&self, now: Instant) -> Vec<TargetKey<T>> {
        let waiting = self.targets.iter().filter_map(|(key, schedule)| {
            let at = schedule.waits_until().filter(|at| *at <= now)?;
            Some((at, key))
        });
        let sorted: BTreeSet<_> = waiting.collect();
        sorted.into_iter().map(|(_, key)| key.clone()).collect()
    }

    /// When the next attempt is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let busy = self.members_being_dialled();
        let waits = self.targets.iter().filter_map(|(key, schedule)| match (&schedule.state, key.member()) {
            (TargetState::Waiting(_) | TargetState::Elsewhere(_), Some(peer))
                if busy.len() >= MOST_DIALLED || busy.contains(&peer) =>
            {
                None
            }
            (TargetState::Waiting(at) | TargetState::Elsewhere(at), _) => Some(*at),
            _ => None,
        });
        waits.min()
    }

    fn members_being_dialled(&self) -> BTreeSet<PeerId> {
        let dialled = self.targets.iter().filter(|(_, schedule)| schedule.state == TargetState::Dialling);
        dialled.filter_map(|(key, _)| key.member()).collect()
    }

    /// Every target for people.
    pub fn status(&self) -> impl Iterator<Item = TargetStatus<T>> {
        self.targets.iter().map(|(key, schedule)| TargetStatus {
            key: key.clone(),
            state: schedule.state.clone(),
            since: schedule.since,
            reason: schedule.reason.clone(),
        })
    }
}

impl Schedule {
    fn new(now: Instant) -> Self {
        Self {
            state: TargetState::Waiting(now),
            since: now,
            failures: 0,
            reason: String::new(),
            sent_away: 0,
            leads_to: None,
            referred: false,
        }
    }

    const fn waits_until(&self) -> Option<Instant> {
        match self.state {
            TargetState::Waiting(at) | TargetState::Elsewhere(at) => Some(at),
            _ => None,
        }
    }

    fn back_off(&mut self, now: Instant, reason: &str, longest: Duration, jitter: f64) {
        let backoff = FIRST_BACKOFF.saturating_mul(1 << self.failures.min(16)).min(longest);
        let wait = backoff.mul_f64(0.5 + jitter.clamp(0.0, 1.0));
        self.failures = self.failures.saturating_add(1);
        reason.clone_into(&mut self.reason);
        self.enter(now, TargetState::Waiting(now + wait));
    }

    fn enter(&mut self, now: Instant, state: TargetState) {
        if self.state != state {
            self.state = state;
            self.since = now;
        }
    }
}

#[cfg(test)]
#[path = "dialer_tests.rs"]
mod tests;
