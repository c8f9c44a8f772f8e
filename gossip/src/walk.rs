//! Finding what two neighbours hold differently, at a cost that does not grow with what they hold alike.
//!
//! Whoever begins sends the fingerprints below the top of its trie. Each side answers about those that differ: with
//! fingerprints one digit further down where it holds much, or with a list of all that it holds there. The other side of
//! a list pulls what is newer in it and tells what is newer here. Rounds alternate until one has nothing in it.

use std::time::Instant;

use meshwork_wire::PeerId;

use crate::frames::{Frame, Item, Summary, Walk};
use crate::gossip::Gossip;
use crate::hash::Half;
use crate::limits::{LIST_BELOW, LIST_MOST, MAX_BATCH, MAX_MEMBERS};
use crate::membership::SELF;
use crate::trie::{DEPTH, NOTHING, Print};

/// What a summary takes at most on the wire: two numbers of ten bytes, and one of five, at their worst.
const SUMMARY: usize = 16 + 10 + 10 + 16 + 5;

/// Bytes of answers to one frame, about. An honest comparison of full tables stays below it; who asks for more gets no
/// answer to the rest.
const MOST_WORK: usize = 2 * MAX_MEMBERS * SUMMARY;

impl Gossip {
    /// Begins a comparison of everything.
    pub(crate) fn begin_walk(&mut self, now: Instant, with: PeerId) {
        let Some(link) = self.links.get_mut(&with) else { return };
        link.walk.begin(now);
        let top = self.prints(Vec::new());
        self.say(with, true, false, vec![top]);
    }

    pub(crate) fn on_walk(&mut self, from: PeerId, walk: Walk) {
        let Walk { begun, more, items } = walk;
        let heard = !items.is_empty();
        let (mut answers, mut work) = (Vec::new(), 0);
        for item in items {
            if work > MOST_WORK {
                break;
            }
            let before = answers.len();
            match item {
                Item::Prints { path, present, prints } => self.on_prints(&path, present, &prints, &mut answers),
                Item::Listing { path, summaries } => work += self.on_listing(from, &path, &summaries) * SUMMARY,
            }
            work += answers.iter().skip(before).map(length).sum::<usize>();
        }
        let Some(link) = self.links.get_mut(&from) else { return };
        let [ours, theirs] = &mut link.walk.rounds;
        let round = if begun { theirs } else { ours };
        round.heard |= heard;
        if !more && !std::mem::take(&mut round.heard) {
            link.walk.complete = true;
            self.stirred = true;
        } else {
            self.say(from, !begun, more, answers);
        }
    }

    /// Sends items, and ends the round unless more follow.
    fn say(&mut self, to: PeerId, begun: bool, more: bool, items: Vec<Item>) {
        let (mut batch, mut size, said) = (Vec::new(), 0, !items.is_empty());
        for item in items {
            let length = length(&item);
            if size + length > MAX_BATCH && !batch.is_empty() {
                self.transmit(to, &Frame::Walk(Walk { begun, more: true, items: std::mem::take(&mut batch) }));
                size = 0;
            }
            size += length;
            batch.push(item);
        }
        if !more || !batch.is_empty() {
            self.transmit(to, &Frame::Walk(Walk { begun, more, items: batch }));
        }
        let Some(link) = self.links.get_mut(&to) else { return };
        let [ours, theirs] = &mut link.walk.rounds;
        let round = if begun { ours } else { theirs };
        round.said |= said;
        if !more && !std::mem::take(&mut round.said) {
            link.walk.complete = true;
            self.stirred = true;
        }
    }

    fn prints(&mut self, path: Vec<u8>) -> Item {
        let below = self.members.prints_below(&path);
        let present = (0..16).zip(&below).filter(|(_, print)| print.count > 0).map(|(digit, _)| 1 << digit).sum();
        let prints = below.iter().filter(|print| print.count > 0).map(|print| print.hash).collect();
        Item::Prints { path, present, prints }
    }

    fn on_prints(&mut self, path: &[u8], present: u16, prints: &[Half], answers: &mut Vec<Item>) {
        if path.len() >= DEPTH {
            return;
        }
        let mut theirs = prints.iter();
        let ours = self.members.prints_below(path);
        for (digit, Print { hash, count }) in (0u8..).zip(ours) {
            let there = if present & (1 << digit) == 0 { NOTHING } else { theirs.next().copied().unwrap_or(NOTHING) };
            if there == hash {
                continue;
            }
            let below = [path, &[digit]].concat();
            if there == NOTHING || count < LIST_BELOW || below.len() == DEPTH {
                self.list(below, answers);
            } else {
                answers.push(self.prints(below));
            }
        }
    }

    /// Lists all that is held below `path`, in as many parts as it takes.
    fn list(&self, path: Vec<u8>, answers: &mut Vec<Item>) {
        let numbers = self.members.below(&path);
        if numbers.len() > LIST_MOST as usize && path.len() < DEPTH {
            (0..16).for_each(|digit| self.list([&path[..], &[digit]].concat(), answers));
            return;
        }
        let told = numbers.into_iter().filter(|number| *number != SELF || !self.keeps_quiet());
        let known = told.filter_map(|number| self.members.get(number));
        let summaries = known.filter_map(|known| Some(known.replica.as_ref()?.summary(known.id))).collect();
        answers.push(Item::Listing { path, summaries });
    }

    /// Answers how many origins it was about.
    fn on_listing(&mut self, from: PeerId, path: &[u8], summaries: &[Summary]) -> usize {
        for summary in summaries {
            self.compare(from, summary, true);
        }
        let mut listed: Vec<PeerId> = summaries.iter().map(|summary| summary.origin).collect();
        listed.sort_unstable();
        let below = self.members.below(path);
        for number in &below {
            let known = self.members.get(*number);
            if known.is_some_and(|known| listed.binary_search(&known.id).is_err()) {
                self.tell_again(from, *number);
            }
        }
        below.len() + listed.len()
    }
}

fn length(item: &Item) -> usize {
    match item {
        Item::Prints { path, prints, .. } => path.len() + prints.len() * size_of::<Half>() + 8,
        Item::Listing { path, summaries } => path.len() + summaries.len() * SUMMARY + 8,
    }
}
