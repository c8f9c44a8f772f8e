//! Telling neighbours what is new here: pushed while a link carries little, announced where it carries much. What nobody
//! waits for is announced after a while in any case, in a mesh where many would handle every copy that is pushed.
//!
//! What a link is to be told is a set of members and not a queue of messages: however slow a neighbour is, it costs no
//! more than that, and gets the latest state only.

use std::sync::Arc;
use std::time::{Duration, Instant};

use meshwork_wire::PeerId;
use serde_bytes::ByteBuf;

use crate::frames::{Frame, Mark, Summary};
use crate::gossip::Gossip;
use crate::limits::{ANNOUNCE_PAUSE, MAX_BATCH, PATIENCE, PATIENCE_PER_MEMBER};
use crate::link::{Link, Mask};
use crate::membership::SELF;
use crate::replica::peers_in;

/// Changes of one member that are pushed together; beyond it its state is announced.
const LONGEST_CHAIN: usize = 8;

/// Summaries in one frame: about 40 bytes each.
const ANNOUNCE_MOST: usize = 512;

impl Gossip {
    /// Has all links told of a member's state but those that are `informed`.
    pub(crate) fn tell_all(&mut self, number: u32, informed: Mask) {
        let Some(known) = self.members.get_mut(number) else { return };
        known.informed = informed;
        self.stirred = true;
        for (peer, link) in &mut self.links {
            let lacks = *peer != known.id && !(known.informed.has(link.bit) || known.pending.has(link.bit));
            if lacks {
                known.pending = known.pending.with(link.bit);
                link.tell.push(number);
            }
        }
    }

    /// Keeps a change that was just applied to what was held `before`: links are told of it, and some will ask for it.
    pub(crate) fn note_change(&mut self, number: u32, before: Option<Mark>, patient: bool, bytes: Arc<[u8]>) {
        let held = self.members.get(number).and_then(|known| known.replica.as_ref()).map(|replica| replica.mark());
        if let Some((from, to)) = before.zip(held) {
            self.recent.note(number, from, to, patient, &bytes);
        }
        let untold = self.fresh.contains_key(&number);
        if patient && !untold && self.patience() > Duration::ZERO {
            self.patient.insert(number);
            return;
        }
        // What the change builds on was not pushed where it waits to be announced.
        let pushable = !self.patient.remove(&number);
        let chain = self.fresh.entry(number).or_default();
        // One that was broken off stays so until links were told.
        let whole = !(untold && chain.is_empty());
        match pushable && whole && chain.len() < LONGEST_CHAIN {
            true => chain.push(bytes),
            false => chain.clear(),
        }
        self.tell_promptly(number);
    }

    /// Has links told at once that were to be told of an earlier state of the same member in a while.
    fn tell_promptly(&mut self, number: u32) {
        let Some(known) = self.members.get(number) else { return };
        for link in self.links.values_mut().filter(|link| known.pending.has(link.bit)) {
            if !link.tell.contains(&number) {
                link.tell.push(number);
            }
        }
    }

    /// Has one link told, whatever it was told before.
    pub(crate) fn tell_again(&mut self, to: PeerId, number: u32) {
        let (Some(known), Some(link)) = (self.members.get_mut(number), self.links.get_mut(&to)) else { return };
        known.informed = known.informed.without(link.bit);
        self.stirred = true;
        if known.id != to && !known.pending.has(link.bit) {
            known.pending = known.pending.with(link.bit);
            link.tell.push(number);
        }
    }

    /// Neighbours of a neighbour: what it passed on they get from it, or from where it got it.
    pub(crate) fn served_by(&self, from: PeerId) -> Mask {
        let replica = self.members.of(from);
        let theirs = replica.into_iter().flat_map(|replica| peers_in(&replica.block));
        let ours = theirs.filter_map(|peer| self.links.get(&peer));
        ours.fold(Mask::default(), |mask, link| mask.with(link.bit))
    }

    pub(crate) fn tell_links(&mut self, now: Instant) {
        let waits = |link: &Link| !link.tell.is_empty() || link.announces_at(now).is_some_and(|at| at <= now);
        let waiting: Vec<PeerId> = self.links.iter().filter(|(_, link)| waits(link)).map(|(peer, _)| *peer).collect();
        for to in waiting {
            self.tell_link(now, to);
            self.announce(now, to);
        }
        self.fresh.clear();
        self.patient.clear();
    }

    /// Pushes what can be pushed, and leaves the rest to be announced.
    fn tell_link(&mut self, now: Instant, to: PeerId) {
        let (tells_own, patience) = (self.tells_own(to), self.patience());
        let Some(link) = self.links.get_mut(&to) else { return };
        let (mut changes, mut pushed) = (Vec::new(), 0);
        for number in std::mem::take(&mut link.tell) {
            if number == SELF && !tells_own {
                link.tell.push(number);
                continue;
            }
            let Some(known) = self.members.get_mut(number) else { continue };
            let fresh = self.fresh.get(&number).filter(|chain| !chain.is_empty());
            match fresh.filter(|_| pushed < MAX_BATCH && link.load.is_light(now)) {
                Some(chain) => {
                    known.pending = known.pending.without(link.bit);
                    known.informed = known.informed.with(link.bit);
                    pushed += chain.iter().map(|delta| delta.len()).sum::<usize>();
                    changes.extend(chain.iter().cloned());
                }
                None => {
                    link.announce.push(number);
                    link.announce_within(now, if self.patient.contains(&number) { patience } else { Duration::ZERO });
                }
            }
        }
        self.push(to, changes);
    }

    fn patience(&self) -> Duration {
        PATIENCE_PER_MEMBER.saturating_mul(self.members_beyond_hasty()).min(PATIENCE)
    }

    fn push(&mut self, to: PeerId, changes: Vec<Arc<[u8]>>) {
        let (mut frame, mut size) = (Vec::new(), 0);
        for change in changes {
            if size + change.len() > MAX_BATCH && !frame.is_empty() {
                self.transmit(to, &Frame::Changes(std::mem::take(&mut frame)));
                size = 0;
            }
            size += change.len();
            frame.push(ByteBuf::from(change.to_vec()));
        }
        if !frame.is_empty() {
            self.transmit(to, &Frame::Changes(frame));
        }
    }

    /// Announces what the neighbour did not come to know meanwhile, or puts that off when it was done a moment ago.
    fn announce(&mut self, now: Instant, to: PeerId) {
        let tells_own = self.tells_own(to);
        let Some(link) = self.links.get_mut(&to) else { return };
        let Some(due) = link.announces_at(now) else { return };
        if now < due {
            return self.arm(due);
        }
        let (numbers, bit) = (std::mem::take(&mut link.announce), link.bit);
        (link.announced, link.announce_at) = (Some(now), None);
        let summary = |number: u32| {
            let known = self.members.get_mut(number)?;
            known.pending = known.pending.without(bit);
            let lacks = !known.informed.has(bit);
            known.informed = known.informed.with(bit);
            let may = lacks && (number != SELF || tells_own);
            known.replica.as_ref().filter(|_| may).map(|replica| replica.summary(known.id))
        };
        let summaries: Vec<Summary> = numbers.into_iter().filter_map(summary).collect();
        for batch in summaries.chunks(ANNOUNCE_MOST) {
            self.transmit(to, &Frame::Announce(batch.to_vec()));
        }
    }

    /// A neighbour tells what it holds.
    pub(crate) fn on_announce(&mut self, from: PeerId, summaries: &[Summary]) {
        for summary in summaries {
            self.compare(from, summary, false);
        }
    }

    /// Notes what a neighbour holds of an origin. What is newer there is pulled; what is newer here it is told,
    /// `again` even if it was told.
    pub(crate) fn compare(&mut self, from: PeerId, summary: &Summary, again: bool) {
        if summary.origin == self.id {
            return self.compare_own(from, summary, again);
        }
        let Some(bit) = self.links.get(&from).map(|link| link.bit) else { return };
        let number = self.members.find(summary.origin);
        let known = number.and_then(|number| self.members.get_mut(number));
        let (Some(number), Some(known)) = (number, known) else { return self.want(from, summary) };
        match known.replica.as_ref().map(|replica| summary.mark.cmp(&replica.mark())) {
            None | Some(std::cmp::Ordering::Greater) => self.want(from, summary),
            Some(std::cmp::Ordering::Equal) => known.informed = known.informed.with(bit),
            Some(std::cmp::Ordering::Less) if again || !known.informed.has(bit) => self.tell_again(from, number),
            Some(std::cmp::Ordering::Less) => {}
        }
    }
}

impl Link {
    /// Has what waits announced within so long, and no sooner after the last time than it may be.
    fn announce_within(&mut self, now: Instant, pause: Duration) {
        let at = self.announced.map_or(now, |announced| announced + ANNOUNCE_PAUSE).max(now + pause);
        self.announce_at = Some(self.announce_at.map_or(at, |known| known.min(at)));
    }

    /// When to announce what waits for it.
    pub(crate) fn announces_at(&self, now: Instant) -> Option<Instant> {
        (!self.announce.is_empty()).then_some(self.announce_at.unwrap_or(now))
    }
}
