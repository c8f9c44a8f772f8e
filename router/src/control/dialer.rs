//! Decides whom to dial and when; no IO.
//!
//! A target is an address to begin from (configured or added by `connect`) or an endpoint of a member that gossip told
//! of. Each has its own schedule: at once, then with exponential backoff and jitter, so that a mesh that restarts
//! together does not dial in step. A target rests while a link that it led to, or a link to its peer, is up.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use meshwork_wire::PeerId;

use crate::config::Target;

/// First wait after a failure: a daemon that restarts is back within it.
const FIRST_BACKOFF: Duration = Duration::from_millis(250);

/// Longest wait. A configured peer that comes back is found within this without anyone's help; it mostly dials first.
const LONGEST_BACKOFF: Duration = Duration::from_secs(15);

/// A link that lasted less than this counts as a failed attempt: whoever admits us only to hang up again, such as a
/// second node of the same identity, is not dialled in a tight loop.
const LASTING: Duration = Duration::from_secs(5);

/// Members dialled at once. One that invents thousands of members at others' addresses does not make this node knock
/// at all of them in the same moment.
const MOST_DIALLED: usize = 32;

/// What is dialled.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum TargetKey {
    /// Given by the operator, resolved at each attempt.
    Named(Target),
    /// An endpoint that a member tells of itself. The member is part of the name, because anyone may tell of an address
    /// that is another's.
    Endpoint(PeerId, SocketAddr),
}

impl TargetKey {
    /// The member whose endpoint it is.
    #[must_use]
    pub const fn member(&self) -> Option<PeerId> {
        match self {
            Self::Named(_) => None,
            Self::Endpoint(member, _) => Some(*member),
        }
    }
}

impl fmt::Display for TargetKey {
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
    /// It leads to this peer, which has a link.
    Linked(PeerId),
    /// It leads to this node itself: never again.
    Ourselves,
}

/// One target as people see it.
#[derive(Debug, Clone)]
pub struct TargetStatus {
    /// What is dialled.
    pub key: TargetKey,
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
}

/// Every target and its schedule.
#[derive(Debug, Default)]
pub struct Dialer {
    targets: BTreeMap<TargetKey, Schedule>,
}

impl Dialer {
    /// Adds a target of the operator; known ones are tried at once.
    pub fn connect(&mut self, now: Instant, target: Target) {
        let schedule = self.targets.entry(TargetKey::Named(target)).or_insert_with(|| Schedule::new(now));
        if let TargetState::Waiting(_) = schedule.state {
            *schedule = Schedule::new(now);
        }
    }

    /// Takes a target of the operator away. False where there was none.
    pub fn forget(&mut self, target: &Target) -> bool {
        self.targets.remove(&TargetKey::Named(target.clone())).is_some()
    }

    /// The members that should have a link, with their endpoints; what is no longer wanted is dropped.
    pub fn discover(&mut self, now: Instant, wanted: &BTreeMap<PeerId, Vec<SocketAddr>>) {
        let endpoints: BTreeSet<TargetKey> = wanted
            .iter()
            .flat_map(|(peer, addresses)| addresses.iter().map(|address| TargetKey::Endpoint(*peer, *address)))
            .collect();
        self.targets.retain(|key, _| key.member().is_none() || endpoints.contains(key));
        for key in endpoints {
            self.targets.entry(key).or_insert_with(|| Schedule::new(now));
        }
    }

    /// A link is up: its target and every endpoint of the same peer rest.
    pub fn linked(&mut self, now: Instant, key: Option<&TargetKey>, peer: PeerId) {
        for (candidate, schedule) in &mut self.targets {
            if Some(candidate) == key || candidate.member() == Some(peer) {
                schedule.enter(now, TargetState::Linked(peer));
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
                schedule.back_off(now, reason, jitter);
            }
        }
    }

    /// An attempt failed. `jitter` is a random number of 0 to 1. Answers whether the reason is a new one.
    pub fn failed(&mut self, now: Instant, key: &TargetKey, reason: &str, jitter: f64) -> bool {
        let Some(schedule) = self.targets.get_mut(key) else { return false };
        if schedule.state != TargetState::Dialling {
            return false;
        }
        let new = schedule.reason != reason;
        schedule.back_off(now, reason, jitter);
        new
    }

    /// The target is this node itself.
    pub fn ourselves(&mut self, now: Instant, key: &TargetKey) {
        if let Some(schedule) = self.targets.get_mut(key) {
            schedule.enter(now, TargetState::Ourselves);
        }
    }

    /// Targets that are due, marked as being dialled; of a member's endpoints one at a time. `linked` says which peers
    /// have a link already.
    pub fn due(&mut self, now: Instant, linked: impl Fn(PeerId) -> bool) -> Vec<TargetKey> {
        let mut busy = self.members_being_dialled();
        let mut due = Vec::new();
        for key in self.waiting_until(now) {
            let Some(schedule) = self.targets.get_mut(&key) else { continue };
            match key.member() {
                Some(peer) if linked(peer) => schedule.enter(now, TargetState::Linked(peer)),
                Some(peer) if busy.len() >= MOST_DIALLED || !busy.insert(peer) => {}
                _ => {
                    schedule.enter(now, TargetState::Dialling);
                    due.push(key);
                }
            }
        }
        due
    }

    /// What may be dialled, the longest due first, so that a crowd passes over nobody.
    fn waiting_until(&self, now: Instant) -> Vec<TargetKey> {
        let waiting = self.targets.iter().filter_map(|(key, schedule)| match schedule.state {
            TargetState::Waiting(at) if at <= now => Some((at, key)),
            _ => None,
        });
        let sorted: BTreeSet<_> = waiting.collect();
        sorted.into_iter().map(|(_, key)| key.clone()).collect()
    }

    /// When the next attempt is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let busy = self.members_being_dialled();
        let waits = self.targets.iter().filter_map(|(key, schedule)| match (&schedule.state, key.member()) {
            (TargetState::Waiting(_), Some(peer)) if busy.len() >= MOST_DIALLED || busy.contains(&peer) => None,
            (TargetState::Waiting(at), _) => Some(*at),
            _ => None,
        });
        waits.min()
    }

    fn members_being_dialled(&self) -> BTreeSet<PeerId> {
        let dialled = self.targets.iter().filter(|(_, schedule)| schedule.state == TargetState::Dialling);
        dialled.filter_map(|(key, _)| key.member()).collect()
    }

    /// Every target for people.
    pub fn status(&self) -> impl Iterator<Item = TargetStatus> {
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
        Self { state: TargetState::Waiting(now), since: now, failures: 0, reason: String::new() }
    }

    fn back_off(&mut self, now: Instant, reason: &str, jitter: f64) {
        let backoff = FIRST_BACKOFF.saturating_mul(1 << self.failures.min(16)).min(LONGEST_BACKOFF);
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
mod tests {
    use super::*;

    const PEER: PeerId = PeerId([7; 16]);

    fn target(text: &str) -> Target {
        Target::parse(text).expect("a target")
    }

    fn named(text: &str) -> TargetKey {
        TargetKey::Named(target(text))
    }

    fn endpoint() -> SocketAddr {
        "192.0.2.1:6783".parse().expect("an address")
    }

    fn nobody(_: PeerId) -> bool {
        false
    }

    #[test]
    fn a_new_target_is_dialled_at_once_and_once() {
        let (now, mut dialer) = (Instant::now(), Dialer::default());
        dialer.connect(now, target("a"));
        assert_eq!(dialer.due(now, nobody), [named("a")]);
        assert_eq!(dialer.due(now, nobody), []);
    }

    #[test]
    fn failures_back_off_up_to_the_longest_wait() {
        let (mut now, mut dialer) = (Instant::now(), Dialer::default());
        dialer.connect(now, target("a"));
        let mut waits = Vec::new();
        for _ in 0..12 {
            assert_eq!(dialer.due(now, nobody), [named("a")]);
            dialer.failed(now, &named("a"), "no answer", 0.5);
            let next = dialer.poll_timeout().expect("another attempt");
            waits.push(next - now);
            now = next;
        }
        assert_eq!(waits.first(), Some(&FIRST_BACKOFF));
        assert_eq!(waits.last(), Some(&LONGEST_BACKOFF));
        assert!(waits.is_sorted());
    }

    #[test]
    fn a_linked_target_rests_until_the_link_is_gone() {
        let (now, mut dialer) = (Instant::now(), Dialer::default());
        dialer.connect(now, target("a"));
        dialer.due(now, nobody);
        dialer.linked(now, Some(&named("a")), PEER);
        assert_eq!(dialer.poll_timeout(), None);
        let later = now + LASTING;
        dialer.unlinked(later, PEER, "reset", 0.5);
        assert_eq!(dialer.due(later, nobody), [named("a")]);
    }

    #[test]
    fn a_link_that_hardly_lasted_counts_as_a_failure() {
        let (mut now, mut dialer) = (Instant::now(), Dialer::default());
        dialer.connect(now, target("a"));
        let mut waits = Vec::new();
        for _ in 0..12 {
            assert_eq!(dialer.due(now, nobody), [named("a")]);
            dialer.linked(now, Some(&named("a")), PEER);
            dialer.unlinked(now, PEER, "closed by the other side", 0.5);
            let next = dialer.poll_timeout().expect("another attempt");
            waits.push(next - now);
            now = next;
        }
        assert_eq!((waits.first(), waits.last()), (Some(&FIRST_BACKOFF), Some(&LONGEST_BACKOFF)));
    }

    #[test]
    fn a_member_that_tells_of_anothers_address_keeps_nobody_from_dialling_it() {
        let (now, mut dialer) = (Instant::now(), Dialer::default());
        let liar = PeerId([0xff; 16]);
        dialer.discover(now, &BTreeMap::from([(PEER, vec![endpoint()]), (liar, vec![endpoint()])]));
        dialer.linked(now, None, liar);
        assert_eq!(dialer.due(now, |peer| peer == liar), [TargetKey::Endpoint(PEER, endpoint())]);
    }

    #[test]
    fn members_are_dialled_only_while_wanted_and_without_a_link() {
        let (now, mut dialer) = (Instant::now(), Dialer::default());
        let wanted = BTreeMap::from([(PEER, vec![endpoint()])]);
        dialer.discover(now, &wanted);
        assert_eq!(dialer.due(now, |peer| peer == PEER), []);
        let later = now + LASTING;
        dialer.unlinked(later, PEER, "gone", 0.5);
        assert_eq!(dialer.due(later, nobody), [TargetKey::Endpoint(PEER, endpoint())]);
        dialer.discover(now, &BTreeMap::new());
        assert_eq!(dialer.status().count(), 0);
    }

    #[test]
    fn a_crowd_of_members_is_dialled_a_few_at_a_time() {
        let (now, mut dialer) = (Instant::now(), Dialer::default());
        let crowd = (0..200).map(|number| (PeerId([number; 16]), vec![endpoint()]));
        dialer.discover(now, &crowd.collect());
        let first = dialer.due(now, nobody);
        assert_eq!((first.len(), dialer.poll_timeout()), (MOST_DIALLED, None));
        let later = now + LONGEST_BACKOFF;
        dialer.failed(now, &first[0], "no answer", 0.5);
        let next = dialer.due(later, nobody);
        assert!(next.len() == 1 && !first.contains(&next[0]), "one that failed waits for the others");
    }

    #[test]
    fn a_forgotten_target_and_oneself_are_never_dialled_again() {
        let (now, mut dialer) = (Instant::now(), Dialer::default());
        dialer.connect(now, target("a"));
        assert!(dialer.forget(&target("a")));
        assert!(!dialer.forget(&target("a")));
        dialer.connect(now, target("b"));
        dialer.due(now, nobody);
        dialer.ourselves(now, &named("b"));
        assert_eq!(dialer.poll_timeout(), None);
    }
}
