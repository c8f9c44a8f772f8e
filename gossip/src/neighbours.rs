//! Which members this node should have links to; no IO, no clock, no random source.
//!
//! In a mesh of up to [`FULL_MESH`] others that is everyone. Above that it is the members beside this node on a few
//! [rings](view), which all nodes compute alike, and up to [`NEAR_LINKS`] more of low round trip: together a random graph
//! of about eight links per node (ten at 5,000), of small diameter, and whole when a third of it is gone. Rings depend on
//! who is a member and on nothing else, so neither the order of joins nor a partition shows in the graph. When somebody
//! fails, the members on both sides of it turn to each other.
//!
//! [`Choice`] tells of every change with [`Neighbours::changed`], calls [`Neighbours::review`] when
//! [`Neighbours::poll_timeout`] is due, has dialled what [`Neighbours::chosen`] says and closed what
//! [`Neighbours::give_up`] names. [`Dialer`] decides when each of them is dialled. What is left to the driver is to dial,
//! to carry and to close.
//!
//! Invariants:
//! - A member is passed over only while it is full, or for a while after it could not be linked; nobody is for ever.
//! - A link is given up by the end that dialled it, one at a time, and only where both ends keep as many as they want;
//!   what an operator asked for is only where the other end has more than it takes and can be reached without. Without changes of the mesh this comes to an end, and no link changes after.
//! - Members that cannot be reached are dialled by their neighbours on the rings, so that parts of a mesh find each other.

mod choice;
mod dialer;
mod door;
mod growth;
mod near;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use meshwork_wire::PeerId;

pub use choice::{Choice, Held};
pub use dialer::{Dialer, Due, TargetKey, TargetState, TargetStatus};
pub use door::{Caller, Occupancy, Welcome};
pub use view::{Known, View};

use growth::Growth;
use near::{Spread, any, farthest, near_one, nearer, tolerance};

use crate::limits::{
    CHOOSE_CALMLY, CHOOSE_WITHIN, FULL_MESH, FULL_MESH_AGAIN, GIVE_UP_AFTER, GIVE_UP_SOON, LEAST_RINGS, LINK_PATIENCE,
    MOST_EXPLORED, MOST_LINKS, MOST_LOST, MOST_RINGS, NEAR_LINKS, NEARER_INTERVAL, PASSED_OVER, RING_GROWTH_LOG2,
    ROOMY, SECOND_CALLER,
};

/// A link that is up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OwnLink {
    /// This node dialled it.
    pub dialled: bool,
    /// An operator of either end asked for it.
    pub kept: bool,
}

/// What this node has.
#[derive(Debug, Default)]
pub struct Own {
    /// Links that are up.
    pub links: BTreeMap<PeerId, OwnLink>,
    /// Round trips as far as they are known, also to members without a link.
    pub trips: BTreeMap<PeerId, Duration>,
}

/// A source of random numbers.
pub type Random<'a> = &'a mut dyn FnMut() -> u64;

/// Chooses links.
#[derive(Debug)]
pub struct Neighbours {
    me: PeerId,
    /// Links are bounded.
    sparse: bool,
    rings: usize,
    chosen: BTreeMap<PeerId, Chosen>,
    /// Chosen besides those of the rings, and not linked yet.
    more: BTreeSet<PeerId>,
    passed_over: BTreeMap<PeerId, Instant>,
    /// Links that are one too many, since when.
    surplus: BTreeMap<PeerId, Instant>,
    growth: Growth,
    /// Members tried for being near.
    explored: usize,
    review_at: Option<Instant>,
    nearer_at: Instant,
    give_up_at: Instant,
    give_up_pause: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Chosen {
    dial_at: Instant,
    /// Since when a member that can be reached has no link.
    missing_since: Option<Instant>,
}

impl Neighbours {
    /// Of a node that knows nobody yet.
    #[must_use]
    pub fn new(me: PeerId, now: Instant) -> Self {
        Self {
            me,
            sparse: false,
            rings: LEAST_RINGS,
            chosen: BTreeMap::new(),
            more: BTreeSet::new(),
            passed_over: BTreeMap::new(),
            surplus: BTreeMap::new(),
            growth: Growth::default(),
            explored: 0,
            review_at: None,
            nearer_at: now + NEARER_INTERVAL,
            give_up_at: now,
            give_up_pause: GIVE_UP_AFTER,
        }
    }

    /// Members or links changed; there are so many links. `told` where a neighbour has told all that it knew, so that a
    /// small mesh is known to be one.
    pub fn changed(&mut self, now: Instant, random: Random<'_>, links: usize, told: bool) {
        let pause = if links == 0 || (told && !self.sparse) {
            Duration::ZERO
        } else if links < self.enough() && !self.growth.holds_back(now, links) {
            share(CHOOSE_WITHIN, random())
        } else {
            CHOOSE_CALMLY / 2 + share(CHOOSE_CALMLY / 2, random())
        };
        self.review_at = Some(self.review_at.map_or(now + pause, |known| known.min(now + pause)));
    }

    /// A member sent this node elsewhere.
    pub fn refused(&mut self, now: Instant, random: Random<'_>, peer: PeerId, links: usize) {
        if self.sparse {
            self.pass_over(now, random, peer);
            self.changed(now, random, links, false);
        }
    }

    /// When to call [`Self::review`].
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        let missing = self.chosen.values().filter_map(|choice| Some(choice.missing_since? + LINK_PATIENCE));
        let missing = missing.filter(|_| self.sparse).min();
        let again = self.passed_over.values().min().copied();
        let give_up = self.surplus.values().min().map(|since| self.give_up_at.max(*since + self.give_up_pause));
        [self.review_at, missing, again, give_up].into_iter().flatten().fold(self.nearer_at, Instant::min)
    }

    /// Chooses anew. Answers whether other members are chosen than before.
    pub fn review(&mut self, now: Instant, random: Random<'_>, view: &View, own: &Own) -> bool {
        self.review_at = None;
        self.passed_over.retain(|_, until| *until > now);
        self.measure(now, view);
        self.lose_patience(now, random, view, own);
        let (mut picks, lost) = if self.sparse { self.on_rings(view, own) } else { everyone(view, self.me) };
        if self.sparse && own.links.len() >= MOST_LINKS {
            // Others pass over this node, which many have named.
            picks.retain(|peer| own.links.contains_key(peer));
        }
        let unripe = self.sparse && self.growth.is_unripe(now);
        if unripe {
            let dialled = self.still_dialled(view, own);
            self.growth.thin(&mut picks, &dialled, own);
            let random = share(CHOOSE_WITHIN, random());
            self.review_at = self.growth.ripe_at().map(|at| at + random);
        }
        let looks_nearer = now >= self.nearer_at;
        if looks_nearer {
            self.nearer_at = now + NEARER_INTERVAL / 2 + share(NEARER_INTERVAL, random());
        }
        if self.sparse && !unripe {
            self.choose_more(looks_nearer, random, view, own, &picks);
        }
        self.note_surplus(now, view, own, &picks);
        let wanted: BTreeSet<PeerId> = picks.union(&lost).chain(&self.more).copied().collect();
        self.choose(now, random, view, own, wanted)
    }

    /// Members that should have a link, each with the moment from which it is dialled.
    pub fn chosen(&self) -> impl Iterator<Item = (PeerId, Instant)> {
        self.chosen.iter().map(|(peer, choice)| (*peer, choice.dial_at))
    }

    /// Links that this node wants in a mesh where links are bounded.
    #[must_use]
    pub const fn enough(&self) -> usize {
        2 * self.rings + NEAR_LINKS
    }

    /// Whether links are bounded here.
    #[must_use]
    pub const fn is_sparse(&self) -> bool {
        self.sparse
    }

    /// A link to close, because both ends have more than enough; asked for after each review.
    pub fn give_up(&mut self, now: Instant, random: Random<'_>, own: &Own) -> Option<PeerId> {
        let pause = self.give_up_pause;
        if now < self.give_up_at {
            return None;
        }
        let due = |(peer, since): (&PeerId, &Instant)| (now >= *since + pause).then_some(*peer);
        let due: Vec<PeerId> = self.surplus.iter().filter_map(due).collect();
        let peer = farthest(&due, own, random)?;
        self.surplus.remove(&peer);
        self.give_up_at = now + pause / 2 + share(pause, random());
        Some(peer)
    }

    /// How many others there are decides how many links there should be; neither is undone by a few that come and go.
    fn measure(&mut self, now: Instant, view: &View) {
        let others = view.reachable_but(self.me);
        self.growth.note(now, others);
        self.sparse = others > if self.sparse { FULL_MESH_AGAIN } else { FULL_MESH };
        let rings = |others: usize| (others.max(1).ilog2() / RING_GROWTH_LOG2) as usize;
        let (most, least) = (rings(others), rings(others + others / 8));
        self.rings = self.rings.clamp(most, most.max(least)).clamp(LEAST_RINGS, MOST_RINGS);
    }

    /// Members to whom no link comes about are passed over for a while.
    fn lose_patience(&mut self, now: Instant, random: Random<'_>, view: &View, own: &Own) {
        let mut hopeless = Vec::new();
        for (peer, choice) in &mut self.chosen {
            let missing = !own.links.contains_key(peer) && view.member(*peer).is_some_and(|known| known.reachable);
            let since = missing.then(|| choice.missing_since.unwrap_or(now.max(choice.dial_at)));
            choice.missing_since = since;
            hopeless.extend(since.filter(|since| self.sparse && now >= *since + LINK_PATIENCE).map(|_| *peer));
        }
        hopeless.into_iter().for_each(|peer| self.pass_over(now, random, peer));
    }

    fn pass_over(&mut self, now: Instant, random: Random<'_>, peer: PeerId) {
        self.passed_over.insert(peer, now + PASSED_OVER / 2 + share(PASSED_OVER, random()));
        self.more.remove(&peer);
    }

    /// Chosen before, and as good a choice as then.
    fn still_dialled(&self, view: &View, own: &Own) -> BTreeSet<PeerId> {
        let open = |peer: &PeerId| view.member(*peer).is_some_and(|known| self.is_open(*peer, known, own, MOST_LINKS));
        self.chosen.keys().copied().filter(open).collect()
    }

    fn is_open(&self, peer: PeerId, known: Known, own: &Own, most: usize) -> bool {
        let free = known.degree < most && !self.passed_over.contains_key(&peer);
        known.reachable && (own.links.contains_key(&peer) || free)
    }

    /// The nearest on either side of each ring, and those before them that cannot be reached.
    fn on_rings(&self, view: &View, own: &Own) -> (BTreeSet<PeerId>, BTreeSet<PeerId>) {
        let (mut picks, mut lost) = (BTreeSet::new(), BTreeSet::new());
        for ring in 0..MOST_RINGS {
            if ring >= self.rings && picks.len() >= 2 * self.rings {
                break;
            }
            for forwards in [true, false] {
                let mut walk = view.walk(self.me, ring, forwards);
                let pick = walk.find(|(peer, known)| {
                    if !known.reachable && ring < self.rings && lost.len() < MOST_LOST {
                        lost.insert(*peer);
                    }
                    self.is_open(*peer, *known, own, MOST_LINKS)
                });
                picks.extend(pick.map(|(peer, _)| peer));
            }
        }
        (picks, lost)
    }

    /// Fills up to as many links as are wanted, and now and then turns to somebody nearer.
    fn choose_more(
        &mut self,
        looks_nearer: bool,
        random: Random<'_>,
        view: &View,
        own: &Own,
        picks: &BTreeSet<PeerId>,
    ) {
        let mut more = std::mem::take(&mut self.more);
        let open = |peer: PeerId| view.member(peer).is_some_and(|known| self.is_open(peer, known, own, MOST_LINKS));
        more.retain(|peer| open(*peer) && !picks.contains(peer) && !own.links.contains_key(peer));
        let sure: BTreeSet<PeerId> = own.links.keys().chain(picks).copied().collect();
        while sure.len() + more.len() > self.enough() + 1 && more.pop_first().is_some() {}
        // A nearer one comes first, and another one goes for it later.
        if sure.len() + more.len() < self.enough() + if looks_nearer { 2 } else { 0 } {
            let mut candidates = self.candidates(view, own, |peer| sure.contains(&peer) || more.contains(&peer));
            if looks_nearer {
                more.extend(nearer(&candidates, own).or_else(|| self.explore(&candidates, own, random)));
            }
            while sure.len() + more.len() < self.enough() {
                let Some(chosen) = near_one(&candidates, own, random) else { break };
                candidates.retain(|peer| *peer != chosen);
                more.insert(chosen);
            }
        }
        self.more = more;
    }

    /// Round trips are known of neighbours and theirs alone. A node that has none near although there are distances
    /// tries a few others.
    fn explore(&mut self, candidates: &[PeerId], own: &Own, random: Random<'_>) -> Option<PeerId> {
        let spread = Spread::of(own)?;
        if self.explored >= MOST_EXPLORED || !spread.has_distances() || spread.is_near(spread.near) {
            return None;
        }
        self.explored += 1;
        any(candidates, random)
    }

    /// Members that could be linked; full ones only where there is nobody else.
    fn candidates(&self, view: &View, own: &Own, taken: impl Fn(PeerId) -> bool) -> Vec<PeerId> {
        let of = |most: usize| -> Vec<PeerId> {
            let open = |(peer, known): &(PeerId, Known)| self.is_open(*peer, *known, own, most) && !taken(*peer);
            view.others(self.me).filter(open).map(|(peer, _)| peer).collect()
        };
        let roomy = of(ROOMY);
        if roomy.is_empty() { of(MOST_LINKS) } else { roomy }
    }

    /// A link may be given up where the other end has more than enough. One that is farther than the near ones may go
    /// where it has just enough: it gets to choose a nearer one itself, so that this comes to an end. Whoever has more links
    /// than it takes is left for another.
    fn note_surplus(&mut self, now: Instant, view: &View, own: &Own, picks: &BTreeSet<PeerId>) {
        let (enough, spread) = (self.enough(), Spread::of(own));
        let measured = |peer: &PeerId| spread.zip(own.trips.get(peer).copied());
        let near =
            |peer: &PeerId| measured(peer).is_some_and(|(spread, trip)| trip <= spread.near && spread.is_near(trip));
        let far =
            |peer: &PeerId| measured(peer).is_some_and(|(spread, trip)| spread.near + tolerance(spread.near) < trip);
        let spare = |peer: &PeerId| {
            view.member(*peer).is_some_and(|known| known.degree + usize::from(far(peer)) > enough) && !near(peer)
        };
        let needed = |peer: &PeerId, link: &OwnLink| !link.dialled || link.kept || picks.contains(peer) || !spare(peer);
        let crowded = own.links.len() + NEAR_LINKS >= MOST_LINKS;
        self.give_up_pause = if crowded { GIVE_UP_SOON } else { GIVE_UP_AFTER };
        let too_many = own.links.len() > enough;
        let overrun = |peer: &PeerId| view.member(*peer).is_some_and(|known| known.degree > MOST_LINKS);
        let surplus =
            own.links.iter().filter(|(peer, link)| self.sparse && (too_many || overrun(peer)) && !needed(peer, link));
        self.surplus = surplus.map(|(peer, _)| (*peer, self.surplus.get(peer).copied().unwrap_or(now))).collect();
    }

    fn choose(&mut self, now: Instant, random: Random<'_>, view: &View, own: &Own, wanted: BTreeSet<PeerId>) -> bool {
        let before = self.chosen.len();
        self.chosen.retain(|peer, _| wanted.contains(peer));
        let mut changed = self.chosen.len() != before;
        for peer in wanted {
            if self.chosen.contains_key(&peer) {
                continue;
            }
            let reachable = view.member(peer).is_some_and(|known| known.reachable);
            let dial_at = now + self.pause_before(peer, own, random);
            let missing_since = (reachable && !own.links.contains_key(&peer)).then_some(dial_at);
            self.chosen.insert(peer, Chosen { dial_at, missing_since });
            changed = true;
        }
        changed
    }

    /// In a small mesh, and without a link, there is no time to lose.
    fn pause_before(&self, peer: PeerId, own: &Own, random: Random<'_>) -> Duration {
        if !self.sparse || own.links.is_empty() {
            return Duration::ZERO;
        }
        let second = if self.me < peer || self.more.contains(&peer) { Duration::ZERO } else { SECOND_CALLER };
        second + share(CHOOSE_WITHIN, random())
    }
}

/// All others that can be reached, and of the rest as many as are dialled at once.
fn everyone(view: &View, me: PeerId) -> (BTreeSet<PeerId>, BTreeSet<PeerId>) {
    let reachable = view.others(me).filter(|(_, known)| known.reachable).map(|(peer, _)| peer);
    let lost = view.walk(me, 0, true).filter(|(_, known)| !known.reachable).map(|(peer, _)| peer);
    (reachable.collect(), lost.take(MOST_LOST).collect())
}

/// A random part of a duration.
fn share(whole: Duration, random: u64) -> Duration {
    whole.mul_f64((random >> 11) as f64 / (1_u64 << 53) as f64)
}
