//! What held and heard parts have to say to each other: gifts taken up, gifts acknowledged, parts overtaken, buddies
//! joined, unused rings yielded; and the making of a ring.

use ipnet::Ipv4Net;
use meshwork_wire::record::RingPart;
use meshwork_wire::{Order, PeerId, Version};
use tracing::{info, warn};

use crate::RingId;
use crate::config::Init;
use crate::decide::{Decision, Effect, Ipam, PATIENCE};
use crate::durable::{Change, HeldPart, Holding, order_of};
use crate::heard::RingSummary;
use crate::prefix::{buddy, without};

impl Ipam {
    /// Does the first of these that has something to do.
    pub(crate) fn settle(&mut self, decision: &mut Decision) {
        self.choose_ring(decision);
        let steps = [Self::take_gifts, Self::acknowledge, Self::step_back, Self::join_buddies];
        for step in steps {
            if decision.is_durable() {
                return;
            }
            step(self, decision);
        }
    }

    /// Makes the ring when this node is to and nobody else has one.
    pub(crate) fn seed(&mut self, random: &mut dyn FnMut(&mut [u8]), decision: &mut Decision) {
        if self.heard.current().is_some() || !self.is_time_to_seed() {
            return;
        }
        let mut ring = RingId::default();
        random(&mut ring);
        let version = Version { incarnation: self.config.incarnation, counter: 0 };
        let part = RingPart { ring, epoch: 0, version, owner: self.me, gift: None };
        let prefix = self.config.range4;
        info!(range = %prefix, "made a new address ring");
        decision.publish(vec![(prefix, part.clone())], Vec::new());
        decision.changes.push(Change::PutPart { prefix, held: HeldPart { part, holding: Holding::Owned } });
    }

    fn is_time_to_seed(&self) -> bool {
        let wanted = !self.waiting.is_empty() || !self.askers.is_empty();
        match self.config.init {
            Init::Seed => true,
            Init::Auto { has_peers: false } => wanted && self.now >= self.started + PATIENCE,
            Init::Auto { has_peers: true } | Init::Join => false,
        }
    }

    /// A node without a stake follows the ring that others use, and one with an unused ring of its own yields it.
    fn choose_ring(&mut self, decision: &mut Decision) {
        let rings = self.heard.rings();
        let current = self.heard.current();
        let others = rings.iter().filter(|(ring, _)| Some(**ring) != current);
        let ranked = others.map(|(ring, summary)| (self.preference(*ring, summary), ring));
        let Some((rank, best)) = ranked.max() else { return };
        let mine = current.map(|ring| {
            let heard = rings.get(&ring).cloned().unwrap_or_default();
            self.preference(ring, &RingSummary { used: heard.used || self.has_stake(), ..heard })
        });
        if self.has_stake() || mine.is_some_and(|mine| mine > rank) {
            return;
        }
        let withdrawals: Vec<Ipv4Net> = self.durable.parts.keys().copied().collect();
        if withdrawals.is_empty() {
            self.heard.switch(Some(*best));
            self.asking.begin_anew();
            self.rebuild_view();
            decision.effects.push(Effect::OwnershipChanged);
        } else {
            info!("yields its unused address ring to the one of others");
            decision.changes.extend(withdrawals.iter().map(|prefix| Change::DropPart(*prefix)));
            decision.publish(Vec::new(), withdrawals);
        }
    }

    /// Joins the ring of a gift when there is none yet: the giver's own entry may come later.
    pub(crate) fn adopt_from(&mut self, gift: &RingPart) {
        if self.heard.current().is_none() {
            self.heard.switch(Some(gift.ring));
            self.rebuild_view();
        }
    }

    /// Whether anything was ever leased, given or received here: all that is otherwise held is the seeded part.
    fn has_stake(&self) -> bool {
        !self.durable.leases.is_empty() || (!self.durable.parts.is_empty() && !self.is_pristine())
    }

    /// Whether the own ring is as it was seeded. Its first use leaves version counter 0, so that others can tell.
    pub(crate) fn is_pristine(&self) -> bool {
        let fresh = |held: &HeldPart| held.part.gift.is_none() && held.part.version.counter == 0;
        !self.durable.parts.is_empty() && self.durable.parts.values().all(fresh)
    }

    /// Marks the ring as used, along with the first lease.
    pub(crate) fn mark_used(&self, decision: &mut Decision) {
        let mut upserts = Vec::new();
        for (prefix, held) in &self.durable.parts {
            let mut held = held.clone();
            held.part.version = self.version_over(held.part.version);
            upserts.push((*prefix, held.part.clone()));
            decision.changes.push(Change::PutPart { prefix: *prefix, held });
        }
        decision.publish(upserts, Vec::new());
    }

    fn take_gifts(&mut self, decision: &mut Decision) {
        let mut gifts = std::mem::take(&mut self.offered);
        gifts.extend(self.heard.gifts_to(self.me).map(|(giver, prefix, part)| (giver, prefix, part.clone())));
        let mut taken = Vec::new();
        for (giver, prefix, part) in gifts {
            let fresh = Some(part.ring) == self.heard.current() && !self.mine.reaches(prefix, order_of(&part));
            // Nobody else can give what is owned here: no gift that covers any of it is honest.
            let fresh = fresh && self.mine.within(prefix).iter().all(|(_, order)| order.peer != self.me);
            if fresh && !taken.iter().any(|(other, _)| *other == prefix) {
                self.asking.received_from(giver);
                self.drop_outranked(prefix, order_of(&part), decision);
                taken.push((prefix, part.clone()));
                decision.changes.push(Change::PutPart { prefix, held: HeldPart { part, holding: Holding::Owned } });
            }
        }
        if !taken.is_empty() {
            decision.publish(taken, Vec::new());
        }
    }

    /// Old records inside a part that outranks them say nothing any more.
    pub(crate) fn drop_outranked(&self, prefix: Ipv4Net, order: Order, decision: &mut Decision) {
        let inside = self
            .durable
            .parts
            .iter()
            .filter(|(other, held)| **other != prefix && prefix.contains(*other) && held.order() < order);
        decision.changes.extend(inside.map(|(other, _)| Change::DropPart(*other)));
    }

    /// Stops publishing gifts that their receivers publish.
    fn acknowledge(&mut self, decision: &mut Decision) {
        let mut withdrawals = Vec::new();
        for (prefix, held) in &self.durable.parts {
            let Holding::Given { request, acknowledged: false } = held.holding else { continue };
            if self.heard.ring().reaches(*prefix, held.order()) {
                let holding = Holding::Given { request, acknowledged: true };
                let held = HeldPart { part: held.part.clone(), holding };
                decision.changes.push(Change::PutPart { prefix: *prefix, held });
                withdrawals.push(*prefix);
            }
        }
        if !withdrawals.is_empty() {
            decision.publish(Vec::new(), withdrawals);
        }
    }

    /// Stops using what an entry of greater order gives to someone else. This happens after a removal, or when this
    /// disk is older than what others know.
    fn step_back(&mut self, decision: &mut Decision) {
        let owned = self.durable.parts.iter().filter(|(_, held)| held.holding == Holding::Owned);
        for (prefix, held) in owned {
            let outranks = |(_, order): &(Ipv4Net, Order)| *order > held.order() && order.peer != self.me;
            let lost: Vec<_> = self.heard.ring().within(*prefix).into_iter().filter(outranks).collect();
            if !lost.is_empty() {
                warn!(%prefix, pieces = lost.len(), "a peer owns addresses that this node held: it stops using them");
                self.give_up(*prefix, held, &lost, decision);
            }
        }
    }

    fn give_up(&self, prefix: Ipv4Net, held: &HeldPart, lost: &[(Ipv4Net, Order)], decision: &mut Decision) {
        let mut rest = vec![prefix];
        decision.changes.push(Change::DropPart(prefix));
        for (piece, order) in lost {
            rest = rest.into_iter().flat_map(|whole| pieces_without(whole, *piece)).collect();
            let Order { epoch, version, peer: owner } = *order;
            let part = RingPart { ring: held.part.ring, epoch, version, owner, gift: None };
            let held = HeldPart { part, holding: Holding::Overtaken };
            decision.changes.push(Change::PutPart { prefix: *piece, held });
        }
        let kept = self.keep(&rest, held, decision);
        let withdrawn = !kept.iter().any(|(kept, _)| *kept == prefix);
        decision.publish(kept, withdrawn.then_some(prefix).into_iter().collect());
    }

    /// Holds pieces of a part on their own. The proof of a gift is over the whole part, so they stand on the owner's
    /// word.
    pub(crate) fn keep(
        &self,
        pieces: &[Ipv4Net],
        held: &HeldPart,
        decision: &mut Decision,
    ) -> Vec<(Ipv4Net, RingPart)> {
        let part = RingPart { gift: None, ..held.part.clone() };
        let put = |prefix: &Ipv4Net| Change::PutPart {
            prefix: *prefix,
            held: HeldPart { part: part.clone(), holding: Holding::Owned },
        };
        decision.changes.extend(pieces.iter().map(put));
        pieces.iter().map(|prefix| (*prefix, part.clone())).collect()
    }

    /// Joins owned buddies under one new version.
    fn join_buddies(&mut self, decision: &mut Decision) {
        let owned = |prefix: &Ipv4Net| self.durable.parts.get(prefix).filter(|held| held.holding == Holding::Owned);
        let (mut upserts, mut withdrawals) = (Vec::new(), Vec::new());
        for (prefix, held) in &self.durable.parts {
            let Some((other, parent)) = buddy(*prefix).filter(|(other, _)| prefix < other) else { continue };
            let (Some(_), Some(beside)) = (owned(prefix), owned(&other)) else { continue };
            if held.part.epoch != beside.part.epoch {
                continue;
            }
            let version = self.version_over(held.part.version.max(beside.part.version));
            let part = RingPart { version, gift: None, ..held.part.clone() };
            upserts.push((parent, part.clone()));
            withdrawals.extend([*prefix, other]);
            decision.changes.extend([Change::DropPart(*prefix), Change::DropPart(other)]);
            decision.changes.push(Change::PutPart { prefix: parent, held: HeldPart { part, holding: Holding::Owned } });
        }
        if !upserts.is_empty() {
            decision.publish(upserts, withdrawals);
        }
    }

    /// Other rings in use, when this node uses its own: who is in them.
    pub(crate) fn foreign_rings(&self) -> Vec<(RingId, Vec<PeerId>)> {
        let rings = self.heard.rings();
        let current = self.heard.current();
        let own = current.and_then(|ring| rings.get(&ring)).is_some_and(|summary| summary.used) || self.has_stake();
        let foreign = rings
            .into_iter()
            .filter(|(ring, summary)| own && Some(*ring) != current && summary.used && self.is_upheld(summary));
        foreign.map(|(ring, summary)| (ring, summary.peers.into_iter().collect())).collect()
    }

    /// Used rings before unused ones, those that a reachable node holds before what is left of vanished ones, then the
    /// lesser id: the same choice everywhere in a mesh that is whole.
    fn preference(&self, ring: RingId, summary: &RingSummary) -> (bool, bool, std::cmp::Reverse<RingId>) {
        (summary.used, self.is_upheld(summary), std::cmp::Reverse(ring))
    }

    /// Whether anyone who can be reached holds parts of this ring. A ring whose holders are all gone asks for no
    /// decision until one of them is back.
    fn is_upheld(&self, summary: &RingSummary) -> bool {
        summary.peers.iter().any(|peer| *peer == self.me || self.alive.contains(peer))
    }
}

fn pieces_without(whole: Ipv4Net, piece: Ipv4Net) -> Vec<Ipv4Net> {
    if piece.contains(&whole) {
        Vec::new()
    } else if whole.contains(&piece) {
        without(whole, piece)
    } else {
        vec![whole]
    }
}
