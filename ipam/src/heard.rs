//! What other nodes say of the ring, checked entry by entry.
//!
//! An entry that cannot be right is left out and counted; it stops nothing else of its writer or of anyone. Entries
//! are believed when their writer speaks of itself, or gives with a signature of its own: that is what gossip's
//! per-origin signatures and [`meshwork_wire::record::RingPart::signed_bytes`] can prove. Rings of different ids are
//! kept apart; only the current one is merged.
//!
//! Witness signatures are carried in the entries but not asked for: `witnesses` is empty in gifts that this build makes.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;
use meshwork_identity::{PublicKey, Signature};
use meshwork_wire::PeerId;
use meshwork_wire::record::{Gift, RingPart};

use crate::RingId;
use crate::durable::order_of;
use crate::ring::Ring;

/// Greatest counter and incarnation believed. Half of the numbers: nobody counts that far, and a hostile entry
/// cannot push an honest successor over the end.
const MAX_VERSION: u64 = u64::MAX / 2;

/// How an entry was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Sound,
    /// Whether it is sound turns out once the writer's key is known.
    KeyUnknown,
    Forged,
    Malformed,
}

/// One writer's entries.
#[derive(Debug, Default)]
struct Origin {
    entries: BTreeMap<Ipv4Net, (RingPart, Verdict)>,
}

/// A ring that someone speaks of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RingSummary {
    /// Who speaks of it.
    pub(crate) peers: BTreeSet<PeerId>,
    /// Whether anything was allocated or given from it: its entries have left version counter 0.
    pub(crate) used: bool,
}

/// Everything heard.
#[derive(Debug)]
pub(crate) struct Heard {
    range: Ipv4Net,
    longest: u8,
    keys: BTreeMap<PeerId, PublicKey>,
    origins: BTreeMap<PeerId, Origin>,
    current: Option<RingId>,
    ring: Ring,
}

impl Heard {
    /// Nothing yet. Entries have to lie in `range` and be no longer than `longest`.
    pub(crate) fn new(range: Ipv4Net, longest: u8, current: Option<RingId>) -> Self {
        let (keys, origins) = (BTreeMap::new(), BTreeMap::new());
        Self { range, longest, keys, origins, current, ring: Ring::default() }
    }

    /// The ring that is merged.
    pub(crate) const fn current(&self) -> Option<RingId> {
        self.current
    }

    /// The current ring as others tell it.
    pub(crate) const fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Merges another ring from now on.
    pub(crate) fn switch(&mut self, ring: Option<RingId>) {
        self.current = ring;
        self.ring = Ring::default();
        let origins = std::mem::take(&mut self.origins);
        for origin in origins.values() {
            self.merge(origin);
        }
        self.origins = origins;
    }

    /// Takes the whole map of one writer. What it no longer says was said: the ring only grows. Answers whether the
    /// current ring changed.
    pub(crate) fn hear(&mut self, writer: PeerId, parts: Vec<(Ipv4Net, RingPart)>) -> bool {
        let mut before = self.origins.remove(&writer).unwrap_or_default().entries;
        let judge = |(prefix, part): (Ipv4Net, RingPart)| {
            let known = before.remove(&prefix).filter(|(old, verdict)| *old == part && *verdict != Verdict::KeyUnknown);
            let verdict = known.map_or_else(|| self.judge(writer, prefix, &part), |(_, verdict)| verdict);
            (prefix, (part, verdict))
        };
        let origin = Origin { entries: parts.into_iter().map(judge).collect() };
        let changed = self.merge(&origin);
        self.origins.insert(writer, origin);
        changed
    }

    /// Takes the keys of members, and judges again what waited for one. Answers whether the current ring changed.
    pub(crate) fn learn_keys(&mut self, keys: BTreeMap<PeerId, PublicKey>) -> bool {
        self.keys = keys;
        let waits = |origin: &Origin| origin.entries.values().any(|(_, verdict)| *verdict == Verdict::KeyUnknown);
        let waiting: Vec<PeerId> =
            self.origins.iter().filter(|(_, origin)| waits(origin)).map(|(writer, _)| *writer).collect();
        let mut changed = false;
        for writer in waiting {
            let entries = self.origins.get(&writer).map(|origin| origin.entries.clone()).unwrap_or_default();
            changed |= self.hear(writer, entries.into_iter().map(|(prefix, (part, _))| (prefix, part)).collect());
        }
        changed
    }

    /// Whether a peer says that it owns anything, rightly or not.
    pub(crate) fn claims_space(&self, peer: PeerId) -> bool {
        let entries = self.origins.get(&peer).map(|origin| &origin.entries);
        entries.is_some_and(|entries| entries.values().any(|(part, _)| part.owner == peer))
    }

    /// Sound entries by which `peer` was given something, with their writers.
    pub(crate) fn gifts_to(&self, peer: PeerId) -> impl Iterator<Item = (PeerId, Ipv4Net, &RingPart)> {
        self.origins.iter().flat_map(move |(writer, origin)| {
            let sound = origin.entries.iter().filter(move |(_, (part, verdict))| {
                *verdict == Verdict::Sound && part.owner == peer && Some(part.ring) == self.current
            });
            sound.map(move |(prefix, (part, _))| (*writer, *prefix, part))
        })
    }

    /// Whether a gift that came in a message is one that its giver's entry could hold.
    pub(crate) fn is_sound_gift(&self, giver: PeerId, prefix: Ipv4Net, part: &RingPart) -> bool {
        part.owner != giver && self.judge(giver, prefix, part) == Verdict::Sound
    }

    /// Every ring that sound entries name.
    pub(crate) fn rings(&self) -> BTreeMap<RingId, RingSummary> {
        let mut rings: BTreeMap<RingId, RingSummary> = BTreeMap::new();
        for (writer, origin) in &self.origins {
            for (part, _) in origin.entries.values().filter(|(_, verdict)| *verdict == Verdict::Sound) {
                let summary = rings.entry(part.ring).or_default();
                summary.peers.insert(*writer);
                summary.used |= part.gift.is_some() || part.version.counter > 0;
            }
        }
        rings
    }

    /// Entries left out now: forged ones, and ones that do not fit the range.
    pub(crate) fn isolated(&self) -> (usize, usize) {
        let count = |verdict| {
            let entries = self.origins.values().flat_map(|origin| origin.entries.values());
            entries.filter(|(_, judged)| *judged == verdict).count()
        };
        (count(Verdict::Forged), count(Verdict::Malformed))
    }

    fn merge(&mut self, origin: &Origin) -> bool {
        let mut changed = false;
        for (prefix, (part, verdict)) in &origin.entries {
            if *verdict == Verdict::Sound && Some(part.ring) == self.current {
                changed |= self.ring.merge(*prefix, order_of(part));
            }
        }
        changed
    }

    fn judge(&self, writer: PeerId, prefix: Ipv4Net, part: &RingPart) -> Verdict {
        let fits = prefix == prefix.trunc() && self.range.contains(&prefix) && prefix.prefix_len() <= self.longest;
        if !fits || part.version.counter > MAX_VERSION || part.version.incarnation.0 > MAX_VERSION {
            return Verdict::Malformed;
        }
        match &part.gift {
            None if part.owner == writer => Verdict::Sound,
            None => Verdict::Forged,
            Some(gift) if part.owner != writer && gift.giver != writer => Verdict::Forged,
            Some(gift) => match self.keys.get(&gift.giver) {
                Some(key) if is_signed(key, prefix, part, gift) => Verdict::Sound,
                Some(_) => Verdict::Forged,
                // The writer's own word for what it owns stands without a proof, so a giver who left takes nothing back.
                None if part.owner == writer => Verdict::Sound,
                None => Verdict::KeyUnknown,
            },
        }
    }
}

fn is_signed(key: &PublicKey, prefix: Ipv4Net, part: &RingPart, gift: &Gift) -> bool {
    let signature = <[u8; 64]>::try_from(&gift.signature[..]);
    signature.is_ok_and(|bytes| key.verify(&part.signed_bytes(prefix, gift.giver), &Signature(bytes)))
}

#[cfg(test)]
mod tests {
    use meshwork_identity::Identity;
    use meshwork_wire::{Incarnation, Version};

    use super::*;

    const RING: RingId = [1; 16];

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    fn heard(known: &[&Identity]) -> Heard {
        let mut heard = Heard::new(net("10.0.0.0/16"), 30, Some(RING));
        heard.learn_keys(known.iter().map(|identity| (identity.peer_id(), identity.public_key())).collect());
        heard
    }

    fn part(owner: PeerId, counter: u64) -> RingPart {
        let version = Version { incarnation: Incarnation(1), counter };
        RingPart { ring: RING, epoch: 0, version, owner, gift: None }
    }

    fn given(giver: &Identity, prefix: Ipv4Net, owner: PeerId, counter: u64) -> RingPart {
        let mut part = part(owner, counter);
        let signature = giver.sign(&part.signed_bytes(prefix, giver.peer_id())).0.to_vec();
        part.gift = Some(Gift { giver: giver.peer_id(), signature, witnesses: Vec::new() });
        part
    }

    #[test]
    fn a_signed_gift_counts_and_a_forged_one_is_isolated() {
        let (giver, thief) = (Identity::from_seed([1; 32]), Identity::from_seed([2; 32]));
        let (me, prefix) = (PeerId([9; 16]), net("10.0.1.0/24"));
        let mut heard = heard(&[&giver, &thief]);
        let honest = given(&giver, prefix, me, 1);
        let mut moved = honest.clone();
        moved.owner = thief.peer_id();
        assert!(heard.hear(giver.peer_id(), vec![(prefix, honest.clone())]));
        assert!(!heard.hear(thief.peer_id(), vec![(prefix, moved), (net("10.0.2.0/24"), part(giver.peer_id(), 7))]));
        assert_eq!(heard.isolated(), (2, 0));
        assert_eq!(heard.gifts_to(me).collect::<Vec<_>>(), [(giver.peer_id(), prefix, &honest)]);
    }

    #[test]
    fn a_gift_waits_for_the_key_of_its_giver() {
        let giver = Identity::from_seed([1; 32]);
        let (me, prefix) = (PeerId([9; 16]), net("10.0.1.0/24"));
        let mut heard = heard(&[]);
        assert!(!heard.hear(giver.peer_id(), vec![(prefix, given(&giver, prefix, me, 1))]));
        assert_eq!(heard.gifts_to(me).count(), 0);
        assert!(heard.learn_keys([(giver.peer_id(), giver.public_key())].into()));
        assert_eq!(heard.gifts_to(me).count(), 1);
    }

    #[test]
    fn entries_that_do_not_fit_are_isolated() {
        let (peer, mut heard) = (PeerId([3; 16]), heard(&[]));
        let bad = ["10.1.0.0/24", "10.0.0.0/15", "10.0.0.0/31", "10.0.0.1/24"].map(|text| (net(text), part(peer, 1)));
        let endless = (net("10.0.4.0/24"), part(peer, u64::MAX));
        assert!(!heard.hear(peer, bad.into_iter().chain([endless]).collect()));
        assert_eq!(heard.isolated(), (0, 5));
        assert!(heard.rings().is_empty());
    }

    #[test]
    fn rings_of_different_ids_never_mix() {
        let (peer, prefix, mut heard) = (PeerId([3; 16]), net("10.0.1.0/24"), heard(&[]));
        let mut foreign = part(peer, 0);
        foreign.ring = [2; 16];
        assert!(!heard.hear(peer, vec![(prefix, foreign)]));
        assert_eq!(heard.ring().iter().count(), 0);
        assert!(!heard.rings()[&[2; 16]].used);
        heard.switch(Some([2; 16]));
        assert_eq!(heard.ring().iter().count(), 1);
    }
}
