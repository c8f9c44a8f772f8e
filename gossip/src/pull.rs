//! Pulling states that neighbours have and we lack, each from one neighbour at a time. Of an origin of which a state is held
//! already, what came after it is asked for, and answered with a change or a state.

use std::time::{Duration, Instant};

use meshwork_wire::PeerId;

use crate::event::Event;
use crate::frames::{Base, Frame, Mark, Summary};
use crate::gossip::Gossip;
use crate::limits::{LEAST_PULL, LONGEST_PULL, PULL_TIMEOUT, PULL_WINDOW, PULLS_PER_REQUEST};
use crate::link::{Link, Mask};

/// Room for origins to ask for that a link keeps: it takes a thousand times more of it only where it comes up.
const USUAL_ASKS: usize = 64;

/// What neighbours have of an origin and we lack.
#[derive(Debug)]
pub(crate) struct Want {
    /// The latest that one of them named.
    mark: Mark,
    size: u32,
    /// Those that named it.
    latest: Mask,
    /// Those that named another one, later than ours as well: nobody's claim hides what others have.
    others: Mask,
}

impl Want {
    const fn links(&self) -> Mask {
        self.latest.with(self.others)
    }

    const fn drop_link(&mut self, link: Mask) {
        self.latest = self.latest.without(link);
        self.others = self.others.without(link);
    }
}

/// A state on its way here.
#[derive(Debug)]
pub(crate) struct Pull {
    pub(crate) from: PeerId,
    since: Instant,
    size: usize,
    /// Which of all pulls it is: a neighbour answers them in their order.
    pub(crate) order: u64,
}

impl Gossip {
    /// Notes that a neighbour has what we lack.
    pub(crate) fn want(&mut self, from: PeerId, summary: &Summary) {
        let &Summary { origin, mark, size } = summary;
        self.stirred = true;
        let former = self.former.as_ref().filter(|_| origin == self.id);
        if former.is_some_and(|former| former.mark() >= mark) {
            return;
        }
        let Some(link) = self.links.get_mut(&from).filter(|link| !link.bit.is_empty()) else { return };
        let fresh = Want { mark, size, latest: Mask::default(), others: Mask::default() };
        let known = self.wants.get(&origin);
        if !known.is_some_and(|want| want.links().has(link.bit)) && !link.want(origin) {
            return;
        }
        let want = self.wants.entry(origin).or_insert(fresh);
        if mark > want.mark {
            (want.others, want.latest) = (want.links(), Mask::default());
            (want.mark, want.size) = (mark, size);
        }
        want.drop_link(link.bit);
        let place = if mark == want.mark { &mut want.latest } else { &mut want.others };
        *place = place.with(link.bit);
    }

    /// Whether an origin that is not known yet may become a member: it has to be vouched for by two neighbours, or be
    /// one of those that a neighbour may bring alone.
    pub(crate) fn admits(&mut self, now: Instant, from: PeerId, origin: PeerId) -> bool {
        let Some(link) = self.links.get_mut(&from) else { return false };
        let vouching = self.wants.get(&origin).map_or(Mask::default(), Want::links).with(link.bit);
        vouching.count() >= 2 || link.newcomers.admit(now)
    }

    pub(crate) fn ask_links(&mut self, now: Instant) {
        let waits = |link: &Link| !link.asks.is_empty() || (!link.walk.synced && link.walk.complete);
        let waiting: Vec<PeerId> = self.links.iter().filter(|(_, link)| waits(link)).map(|(peer, _)| *peer).collect();
        for peer in waiting {
            self.ask_link(now, peer);
            self.links.entry(peer).and_modify(|link| link.asks.shrink_to(USUAL_ASKS));
            self.note_synced(peer);
        }
    }

    /// Asks for what a neighbour has and nobody else was asked for, as far as its window has room.
    fn ask_link(&mut self, now: Instant, peer: PeerId) {
        let (mut states, mut bases) = (Vec::new(), Vec::new());
        while states.len() + bases.len() < PULLS_PER_REQUEST {
            let Some(link) = self.links.get_mut(&peer).filter(|link| link.asked < PULL_WINDOW) else { break };
            let Some(origin) = link.asks.pop_front() else { break };
            let bit = link.bit;
            let Some(want) = self.wants.get(&origin).filter(|want| want.links().has(bit)) else { continue };
            let size = (want.size as usize).max(LEAST_PULL);
            if self.pulls.contains_key(&origin) || !self.may_become_member(now, peer, origin) {
                continue;
            }
            let Some(link) = self.links.get_mut(&peer) else { break };
            if link.asked == 0 {
                link.progress = now;
            }
            link.asked += size;
            self.pulls.insert(origin, Pull { from: peer, since: now, size, order: 0 });
            match self.members.of(origin).filter(|_| origin != self.id).map(|held| held.mark()) {
                Some(mark) => bases.push(Base { origin, mark }),
                None => states.push(origin),
            }
        }
        for origin in states.iter().chain(bases.iter().map(|base| &base.origin)) {
            self.asked += 1;
            self.pulls.entry(*origin).and_modify(|pull| pull.order = self.asked);
        }
        if !states.is_empty() {
            self.transmit(peer, &Frame::Request(states));
        }
        if !bases.is_empty() {
            self.transmit(peer, &Frame::Since(bases));
        }
    }

    fn may_become_member(&mut self, now: Instant, peer: PeerId, origin: PeerId) -> bool {
        if self.members.of(origin).is_some() {
            return true;
        }
        if self.members.is_full() {
            self.give_up(origin, peer);
            return false;
        }
        let admitted = self.admits(now, peer, origin);
        if let Some(link) = self.links.get_mut(&peer).filter(|_| !admitted) {
            link.unvouched.push_back(origin);
        }
        admitted
    }

    /// Tries again those that could not be admitted.
    pub(crate) fn review_unvouched(&mut self) {
        for link in self.links.values_mut() {
            link.asks.append(&mut link.unvouched);
        }
    }

    fn note_synced(&mut self, peer: PeerId) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        if link.walk.complete && !link.walk.synced && link.wants == 0 {
            link.walk.synced = true;
            self.emit(Event::Synced { peer });
        }
    }

    /// Gives up on neighbours that were asked and sent nothing for long.
    pub(crate) fn drop_late_pulls(&mut self, now: Instant) {
        let late = |(origin, pull): (&PeerId, &Pull)| {
            let progress = self.links.get(&pull.from).map_or(pull.since, |link| link.progress.max(pull.since));
            let late = now >= progress + PULL_TIMEOUT || now >= pull.since + LONGEST_PULL;
            late.then_some((*origin, pull.from))
        };
        let late: Vec<(PeerId, PeerId)> = self.pulls.iter().filter_map(late).collect();
        for (origin, from) in late {
            self.end_pull(origin, from);
            self.give_up(origin, from);
        }
    }

    pub(crate) fn end_pull(&mut self, origin: PeerId, from: PeerId) {
        self.stirred = true;
        let Some(pull) = self.pulls.remove(&origin) else { return };
        if let Some(link) = self.links.get_mut(&from) {
            link.asked = link.asked.saturating_sub(pull.size);
        }
    }

    /// Expects nothing more of an origin from a neighbour, and turns to the others that have it: also where that neighbour
    /// claims nothing any more, since nobody else was asked while it was.
    pub(crate) fn give_up(&mut self, origin: PeerId, from: PeerId) {
        self.stirred = true;
        let Some(bit) = self.links.get(&from).map(|link| link.bit) else { return };
        let Some(want) = self.wants.get_mut(&origin) else { return };
        let claimed = usize::from(want.links().has(bit));
        want.drop_link(bit);
        let rest = want.links();
        if rest.is_empty() {
            self.wants.remove(&origin);
        }
        for link in self.links.values_mut() {
            if link.bit == bit {
                link.wants = link.wants.saturating_sub(claimed);
            } else if rest.has(link.bit) {
                link.asks.push_back(origin);
            }
        }
    }

    /// A state of an origin is here. Answers who else has the same; who has a later one stays to be asked.
    pub(crate) fn satisfied(&mut self, origin: PeerId, mark: Mark) -> Mask {
        let Some(want) = self.wants.get(&origin).filter(|want| want.mark <= mark) else { return Mask::default() };
        let (all, same) = (want.links(), if want.mark == mark { want.latest } else { Mask::default() });
        self.wants.remove(&origin);
        for link in self.links.values_mut().filter(|link| all.has(link.bit)) {
            link.wants = link.wants.saturating_sub(1);
        }
        same
    }

    /// Forgets what was asked of a link that is gone, or was replaced.
    pub(crate) fn forget_link(&mut self, peer: PeerId) {
        let Some(bit) = self.links.get(&peer).map(|link| link.bit) else { return };
        let pulled: Vec<PeerId> =
            self.pulls.iter().filter(|(_, pull)| pull.from == peer).map(|(origin, _)| *origin).collect();
        for origin in pulled {
            self.end_pull(origin, peer);
            self.give_up(origin, peer);
        }
        let wanted: Vec<PeerId> =
            self.wants.iter().filter(|(_, want)| want.links().has(bit)).map(|(origin, _)| *origin).collect();
        wanted.into_iter().for_each(|origin| self.give_up(origin, peer));
        for known in &mut self.members.list {
            known.informed = known.informed.without(bit);
            known.pending = known.pending.without(bit);
        }
        self.places = self.places.without(bit);
        let queued = self.links.remove(&peer).map_or(0, |link| link.queue.len());
        self.unqueue(queued);
    }
}

impl Link {
    /// Takes the observer's own stall out of the neighbour's silence.
    pub(crate) fn forgive(&mut self, stall: Duration) {
        self.pulse.forgive(stall);
        self.progress += stall;
    }
}
