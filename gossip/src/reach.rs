//! Who is reachable: a tree of claimed links that grows and is mended where something changed.
//!
//! A member is reachable when a path of links leads to it from here, where each link is claimed by its near end: the
//! claims of a peer that is not itself reachable count for nothing, so what a dead node once said keeps nobody alive.
//! Each reachable member has the one whose claim was found first as its parent. A claim more, or one less that is not in
//! the tree, costs nothing beyond itself; a member that loses its parent is hung up elsewhere if another claim of it is
//! known by its own links; only where that fails all links are gone over, and at most every [`REACH_PAUSE`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use meshwork_wire::PeerId;

use crate::block::Block;
use crate::limits::{MAX_CLAIMS, REACH_PAUSE};
use crate::membership::{Members, SELF};
use crate::replica::{claims_link, peers_in};

/// No parent: unreachable.
pub(crate) const NOBODY: u32 = u32::MAX;

/// What is left to do.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    /// Members whose reachability may have changed.
    moved: Vec<u32>,
    /// Claims by reachable members of links to members that are not known yet.
    claimed: BTreeMap<PeerId, u32>,
    /// Someone lost its place in the tree.
    broken: bool,
    repaired: Option<Instant>,
}

impl Reach {
    pub(crate) fn take_moved(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.moved)
    }

    /// When all links have to be gone over. The first time is done at once and not waited for.
    pub(crate) fn timeout(&self) -> Option<Instant> {
        self.repaired.filter(|_| self.broken).map(|repaired| repaired + REACH_PAUSE)
    }

    fn is_due(&self, now: Instant) -> bool {
        self.broken && self.repaired.is_none_or(|repaired| now >= repaired + REACH_PAUSE)
    }
}

impl Members {
    pub(crate) fn is_reachable(&self, number: u32) -> bool {
        self.get(number).is_some_and(|known| known.parent != NOBODY)
    }

    fn links_of(&self, number: u32) -> Vec<PeerId> {
        self.block(number).into_iter().flat_map(peers_in).collect()
    }

    fn claims(&self, number: u32, peer: PeerId) -> bool {
        self.block(number).is_some_and(|block| claims_link(block, peer))
    }

    /// A member is new here.
    pub(crate) fn appeared(&mut self, number: u32) {
        self.reach.moved.push(number);
        let Some(id) = self.get(number).map(|known| known.id) else { return };
        let parent = self.reach.claimed.remove(&id);
        if let Some(parent) = parent.filter(|parent| self.is_reachable(*parent) && self.claims(*parent, id)) {
            self.grow(number, parent);
        }
    }

    /// The links that a member claims were others before.
    pub(crate) fn links_changed(&mut self, number: u32, before: &Block) {
        let (before, after): (Vec<PeerId>, _) = (peers_in(before).collect(), self.links_of(number));
        if !self.is_reachable(number) {
            self.hang_up(number, &after);
            return;
        }
        for peer in after.iter().filter(|peer| before.binary_search(peer).is_err()) {
            self.claim(number, *peer);
        }
        for peer in before.iter().filter(|peer| after.binary_search(peer).is_err()) {
            let lost = self.find(*peer).filter(|lost| self.get(*lost).is_some_and(|known| known.parent == number));
            if let Some(lost) = lost {
                let links = self.links_of(lost);
                self.reach.broken |= !self.hang_up(lost, &links);
            }
        }
    }

    /// A reachable member claims a link.
    fn claim(&mut self, number: u32, peer: PeerId) {
        match self.find(peer) {
            Some(far) if !self.is_reachable(far) => self.grow(far, number),
            None if self.reach.claimed.len() < MAX_CLAIMS => drop(self.reach.claimed.insert(peer, number)),
            _ => {}
        }
    }

    /// A member is reachable, and so is whom it leads to: the nearest first, so that ways are short and few members lose
    /// theirs with one of them.
    fn grow(&mut self, number: u32, parent: u32) {
        let mut open = VecDeque::from([(number, parent)]);
        while let Some((number, parent)) = open.pop_front() {
            if self.is_reachable(number) {
                continue;
            }
            let Some(known) = self.get_mut(number) else { continue };
            known.parent = parent;
            self.reach.moved.push(number);
            for peer in self.links_of(number) {
                match self.find(peer) {
                    Some(far) if self.is_reachable(far) => {}
                    Some(far) => open.push_back((far, number)),
                    None => self.claim(number, peer),
                }
            }
        }
    }

    /// Gives a member a parent among those to which it claims links itself. Answers whether there was one.
    fn hang_up(&mut self, number: u32, links: &[PeerId]) -> bool {
        let Some(id) = self.get(number).map(|known| known.id) else { return false };
        let holds = |peer: &PeerId| {
            let near = self.find(*peer)?;
            (self.leads_home(near, number) && self.claims(near, id)).then_some(near)
        };
        let Some(parent) = links.iter().find_map(holds) else { return false };
        if self.is_reachable(number) {
            if let Some(known) = self.get_mut(number) {
                known.parent = parent;
            }
        } else {
            self.grow(number, parent);
        }
        true
    }

    /// Whether so many members that have a link to another one can be reached from here without it. The tree does not
    /// tell: it may lead to all of them by way of that one.
    pub(crate) fn has_ways_around(&self, number: u32, ways: usize) -> bool {
        let Some(id) = self.get(number).map(|known| known.id) else { return false };
        let near: Vec<u32> = self.links_of(number).into_iter().filter_map(|peer| self.find(peer)).collect();
        let (mut found, mut open, mut seen) = (0, vec![SELF], BTreeSet::from([SELF, number]));
        while let Some(next) = open.pop() {
            let links = self.links_of(next).into_iter().filter_map(|peer| self.find(peer));
            for far in links.filter(|far| seen.insert(*far)) {
                found += usize::from(near.contains(&far) && self.claims(far, id));
                open.push(far);
            }
            if found >= ways {
                return true;
            }
        }
        false
    }

    /// Whether the way from a member to this node is whole without another one.
    fn leads_home(&self, mut number: u32, without: u32) -> bool {
        for _ in 0..self.list.len() {
            match self.get(number).map(|known| known.parent) {
                _ if number == without => return false,
                _ if number == SELF => return true,
                None | Some(NOBODY) => return false,
                Some(parent) => number = parent,
            }
        }
        false
    }

    /// Goes over all links if that is due.
    pub(crate) fn repair(&mut self, now: Instant) {
        if !self.reach.is_due(now) {
            return;
        }
        self.reach.broken = false;
        self.reach.repaired = Some(now);
        self.reach.claimed.clear();
        let before: Vec<bool> = self.list.iter().map(|known| known.parent != NOBODY).collect();
        let moved = std::mem::take(&mut self.reach.moved);
        self.list.iter_mut().for_each(|known| known.parent = NOBODY);
        self.grow(SELF, SELF);
        let after = self.list.iter().map(|known| known.parent != NOBODY);
        let changed = (0..).zip(before.iter().zip(after)).filter(|(_, (before, after))| *before != after);
        self.reach.moved = moved.into_iter().chain(changed.map(|(number, _)| number)).collect();
    }
}
