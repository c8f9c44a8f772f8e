//! Giving space away: at most half of the largest free block, along CIDR borders, recorded before anything is said.

use ipnet::Ipv4Net;
use meshwork_wire::record::{Gift, RingPart};
use meshwork_wire::{PeerId, Version};

use crate::RingId;
use crate::ask::LOW_WATER;
use crate::decide::{Decision, Ipam};
use crate::durable::{Change, HeldPart, Holding};
use crate::interval::IntervalSet;
use crate::message::{Denial, Message};
use crate::prefix::{at, cut, size, span, without};

/// A peer's request for space that was not answered yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asker {
    pub(crate) request: Version,
    pub(crate) ring: Option<RingId>,
    pub(crate) want_log2: u8,
    pub(crate) urgent: bool,
}

impl Ipam {
    /// Answers those who asked, up to the first new gift. Whose range is not known yet waits for that.
    pub(crate) fn answer_askers(&mut self, decision: &mut Decision) {
        let undecided = self.heard.current().is_none() && self.seeds();
        if undecided {
            return;
        }
        let known: Vec<PeerId> = self.askers.keys().filter(|peer| self.ranges.contains_key(peer)).copied().collect();
        for peer in known {
            let Some(asker) = self.askers.remove(&peer) else { continue };
            self.answer_asker(peer, &asker, decision);
            if decision.is_durable() {
                return;
            }
        }
    }

    fn answer_asker(&self, peer: PeerId, asker: &Asker, decision: &mut Decision) {
        let Asker { request, ring, want_log2, urgent } = *asker;
        if let Some((prefix, part)) = self.gift_made(peer, request) {
            return decision.send(peer, Message::Gift { request, prefix, part });
        }
        let denial = match (self.heard.current(), ring) {
            (Some(own), Some(theirs)) if own != theirs => Denial::OtherRing,
            _ if !self.shares_range(peer) => Denial::OtherRing,
            (None, _) => Denial::NotReady,
            _ if !self.is_proven() => Denial::NotReady,
            _ => match self.block_to_give(want_log2).filter(|(_, block)| urgent || self.can_spare(*block)) {
                Some((whole, block)) => return self.give(peer, request, whole, block, decision),
                None => Denial::NoSpace,
            },
        };
        decision.send(peer, Message::Denied { request, denial });
    }

    /// Whether enough is left without it that this node does not have to ask in turn. A giver that got short by giving
    /// ahead of need would ask it back, and a small range would go around for ever.
    fn can_spare(&self, block: Ipv4Net) -> bool {
        self.pool4.free().saturating_sub(size(block)) >= LOW_WATER
    }

    /// The gift that this request got, or one that the peer has not taken up: it gets no second one before that.
    fn gift_made(&self, peer: PeerId, request: Version) -> Option<(Ipv4Net, RingPart)> {
        let mut made = self.durable.parts.iter().filter(|(_, held)| match held.holding {
            Holding::Given { request: of, acknowledged } => held.part.owner == peer && (of == request || !acknowledged),
            _ => false,
        });
        made.next().map(|(prefix, held)| (*prefix, held.part.clone()))
    }

    fn give(&self, to: PeerId, request: Version, whole: Ipv4Net, block: Ipv4Net, decision: &mut Decision) {
        let Some(held) = self.durable.parts.get(&whole) else { return };
        let part = self.sign_gift(block, &held.part, to);
        decision.changes.push(Change::DropPart(whole));
        let mut upserts = self.keep(&without(whole, block), held, decision);
        upserts.push((block, part.clone()));
        let holding = Holding::Given { request, acknowledged: false };
        decision.changes.push(Change::PutPart { prefix: block, held: HeldPart { part: part.clone(), holding } });
        let (first, last) = span(block);
        let resting = self.pool4.resting().filter(|(_, number)| (first..=last).contains(number));
        decision.changes.extend(resting.map(|(sequence, _)| Change::DropFreed { sequence }));
        decision.publish(upserts, vec![whole]);
        decision.send(to, Message::Gift { request, prefix: block, part });
    }

    fn sign_gift(&self, prefix: Ipv4Net, from: &RingPart, to: PeerId) -> RingPart {
        let version = self.version_over(from.version);
        let mut part = RingPart { version, owner: to, gift: None, ..from.clone() };
        let signature = self.config.identity.sign(&part.signed_bytes(prefix, self.me)).0.to_vec();
        part.gift = Some(Gift { giver: self.me, signature, witnesses: Vec::new() });
        part
    }

    /// What to give to someone who wants 2 to the power `want_log2`, and the held part that it is cut from. Addresses
    /// that were freed lately are given only when there is nothing else.
    fn block_to_give(&self, want_log2: u8) -> Option<(Ipv4Net, Ipv4Net)> {
        let fresh = self.free_blocks(false);
        self.pick_block(&fresh, want_log2).or_else(|| self.pick_block(&self.free_blocks(true), want_log2))
    }

    fn pick_block(&self, blocks: &[(Ipv4Net, Ipv4Net)], want_log2: u8) -> Option<(Ipv4Net, Ipv4Net)> {
        let shortest = blocks.iter().map(|(_, block)| block.prefix_len()).min()?;
        let wished = 32 - want_log2.min(32);
        let length = (shortest + 1).max(wished.min(self.longest_part()));
        if length > self.longest_part() {
            return None;
        }
        // The smallest that fits, the highest of those: large blocks and low addresses stay whole.
        let fitting = blocks.iter().filter(|(_, block)| block.prefix_len() <= length);
        let (whole, block) = fitting.max_by_key(|(_, block)| (block.prefix_len(), span(*block).0))?;
        let last = span(*block).1;
        let first = last - (size(at(0, length)) - 1) as u32;
        Some((*whole, at(first, length)))
    }

    /// The aligned blocks without a lease in every owned part, each with its part.
    fn free_blocks(&self, with_resting: bool) -> Vec<(Ipv4Net, Ipv4Net)> {
        let mut free = IntervalSet::default();
        self.pool4.fresh().for_each(|(first, last)| free.insert(first, last));
        // Nobody leases the first and last address of the range, so they move with their block.
        for reserved in <[u32; 2]>::from(span(self.config.range4)) {
            if self.mine.owner(reserved) == Some(self.me) {
                free.insert(reserved, reserved);
            }
        }
        if with_resting {
            self.pool4.resting().for_each(|(_, number)| free.insert(number, number));
        }
        // A gift outranks the part that it is cut from: that has to be the rank in force everywhere in it.
        let in_force = |prefix: Ipv4Net, held: &HeldPart| self.mine.holds(prefix, held.order());
        let owned = self.durable.parts.iter();
        let owned = owned.filter(|(prefix, held)| held.holding == Holding::Owned && in_force(**prefix, held));
        let blocks = owned.flat_map(|(whole, _)| {
            let (from, to) = span(*whole);
            let cut_to = move |(first, last): (u32, u32)| (first.max(from), last.min(to));
            let spans = free.overlapping(from, to).map(cut_to);
            spans.flat_map(|(first, last)| cut(first, last)).map(|block| (*whole, block)).collect::<Vec<_>>()
        });
        blocks.collect()
    }
}
