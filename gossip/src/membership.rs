//! Everyone known: what each said last, in which state it is, and who was told of it.
//!
//! Members are numbered in the order in which they became known, this node first; nobody is ever forgotten, so a number
//! stays good. The trie finds a number by its id and knows by one hash what is held of all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use meshwork_identity::PublicKey;
use meshwork_wire::{Incarnation, PeerId};

use crate::block::Block;
use crate::event::{Event, MemberState};
use crate::hash::Half;
use crate::limits::{DEATH, MAX_MEMBERS};
use crate::link::Mask;
use crate::reach::{NOBODY, Reach};
use crate::replica::Replica;
use crate::trie::{Leaves, NOTHING, Print, Trie};

/// This node's number.
pub(crate) const SELF: u32 = 0;

/// One of them.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) id: PeerId,
    /// Nothing for a neighbour of which no state came yet.
    pub(crate) replica: Option<Arc<Replica>>,
    /// Nothing for this node.
    pub(crate) standing: Option<Standing>,
    /// Key of a neighbour of which no state came yet.
    key: Option<Box<PublicKey>>,
    /// Links that have this state, or were told of it.
    pub(crate) informed: Mask,
    /// Links that are to be told.
    pub(crate) pending: Mask,
    /// Whose claim of a link makes it reachable.
    pub(crate) parent: u32,
}

/// A member other than this node, as seen from here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    pub(crate) incarnation: Incarnation,
    pub(crate) state: MemberState,
    pub(crate) since: Instant,
    announced: bool,
}

impl Known {
    /// Its identity, unless it is this node.
    pub(crate) fn public_key(&self) -> Option<PublicKey> {
        let proven = self.replica.as_ref().map(|replica| replica.manifest.origin);
        proven.or_else(|| self.key.as_deref().copied())
    }
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Members {
    pub(crate) list: Vec<Known>,
    /// This node's entries, with those that are not signed yet.
    pub(crate) draft: Block,
    pub(crate) reach: Reach,
    trie: Trie,
    held: usize,
    /// Members that are alive.
    alive: usize,
    /// Unreachable since when, not yet dead.
    suspects: BTreeMap<u32, Instant>,
}

impl Leaves for Vec<Known> {
    fn id(&self, leaf: u32) -> PeerId {
        self.get(leaf as usize).map_or(PeerId([0; 16]), |known| known.id)
    }

    fn hash(&self, leaf: u32) -> Half {
        self.get(leaf as usize).and_then(|known| known.replica.as_ref()).map_or(NOTHING, |replica| replica.leaf)
    }
}

impl Members {
    pub(crate) fn new(own: PeerId) -> Self {
        let mut members = Self {
            list: Vec::new(),
            draft: Block::default(),
            reach: Reach::default(),
            trie: Trie::new(),
            held: 0,
            alive: 0,
            suspects: BTreeMap::new(),
        };
        members.add(own, None, None);
        if let Some(own) = members.list.first_mut() {
            own.parent = SELF;
        }
        members
    }

    fn add(&mut self, id: PeerId, standing: Option<Standing>, key: Option<Box<PublicKey>>) -> u32 {
        let number = u32::try_from(self.list.len()).unwrap_or(NOBODY);
        let (informed, pending) = (Mask::default(), Mask::default());
        grow_slowly(&mut self.list);
        self.list.push(Known { id, replica: None, standing, key, informed, pending, parent: NOBODY });
        self.trie.insert(number, &self.list);
        number
    }

    pub(crate) fn find(&self, id: PeerId) -> Option<u32> {
        self.trie.find(id, &self.list)
    }

    pub(crate) fn get(&self, number: u32) -> Option<&Known> {
        self.list.get(number as usize)
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut Known> {
        self.list.get_mut(number as usize)
    }

    /// What is held of an origin.
    pub(crate) fn of(&self, origin: PeerId) -> Option<&Arc<Replica>> {
        self.get(self.find(origin)?)?.replica.as_ref()
    }

    pub(crate) fn public_key(&self, peer: PeerId) -> Option<PublicKey> {
        self.get(self.find(peer)?)?.public_key()
    }

    /// Origins of which something is held, this node included.
    pub(crate) const fn held(&self) -> usize {
        self.held
    }

    /// How many others can be reached.
    pub(crate) const fn alive(&self) -> usize {
        self.alive
    }

    pub(crate) const fn is_full(&self) -> bool {
        self.held >= MAX_MEMBERS
    }

    /// Entries of a member, this node's unsigned ones included.
    pub(crate) fn block(&self, number: u32) -> Option<&Block> {
        if number == SELF { Some(&self.draft) } else { Some(&self.get(number)?.replica.as_ref()?.block) }
    }

    /// All origins with their entries, in order of their ids.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = (PeerId, &Block)> {
        let numbers = self.trie.below(&[], &self.list);
        numbers.into_iter().filter_map(|number| Some((self.get(number)?.id, self.block(number)?)))
    }

    /// All members but this node, in order of their ids.
    pub(crate) fn others(&self) -> impl Iterator<Item = (u32, &Known)> {
        let numbers = self.trie.below(&[], &self.list);
        numbers.into_iter().filter(|number| *number != SELF).filter_map(|number| Some((number, self.get(number)?)))
    }

    /// Numbers of origins whose ids begin with `path`, as far as something is held of them.
    pub(crate) fn below(&self, path: &[u8]) -> Vec<u32> {
        let mut numbers = self.trie.below(path, &self.list);
        numbers.retain(|number| self.get(*number).is_some_and(|known| known.replica.is_some()));
        numbers
    }

    pub(crate) fn prints_below(&mut self, path: &[u8]) -> [Print; 16] {
        self.trie.prints_below(path, &self.list)
    }

    /// Fingerprint of all that is held.
    pub(crate) fn digest(&mut self) -> Half {
        self.trie.root(&self.list)
    }

    /// Replaces what is held of a member.
    pub(crate) fn install(&mut self, number: u32, replica: Arc<Replica>) {
        let Some(known) = self.list.get_mut(number as usize) else { return };
        self.held += usize::from(known.replica.is_none());
        known.replica = Some(replica);
        known.key = None;
        self.trie.touch(known.id);
    }

    /// Notes that `peer` exists and which run of it speaks. Answers its number and what is new about a known one.
    pub(crate) fn learn(
        &mut self,
        now: Instant,
        peer: PeerId,
        public_key: PublicKey,
        incarnation: Incarnation,
    ) -> (u32, Option<Event>) {
        let Some(number) = self.find(peer) else {
            let state = MemberState::Suspect;
            let standing = Standing { incarnation, state, since: now, announced: false };
            let number = self.add(peer, Some(standing), Some(Box::new(public_key)));
            self.appeared(number);
            return (number, None);
        };
        let Some(standing) = self.get_mut(number).and_then(|known| known.standing.as_mut()) else {
            return (number, None);
        };
        let before = standing.incarnation;
        standing.incarnation = before.max(incarnation);
        // A member that is known by its link alone has not yet said which run it is.
        let restarted = before < incarnation && before > Incarnation(0);
        (number, restarted.then_some(Event::Restarted { peer, incarnation }))
    }

    /// Sets the states of those whose reachability changed. `is_silent` tells of links that went quiet.
    pub(crate) fn update(&mut self, now: Instant, is_silent: impl Fn(PeerId) -> bool) -> Vec<Event> {
        let mut events = Vec::new();
        for number in self.reach.take_moved() {
            let Some(known) = self.list.get_mut(number as usize) else { continue };
            let (reachable, peer) = (known.parent != NOBODY, known.id);
            let Some(standing) = known.standing.as_mut() else { continue };
            let (state, reason) = match (reachable, standing.state) {
                (true, _) => (MemberState::Alive, "a path of links leads to it"),
                (false, MemberState::Dead) => (MemberState::Dead, "unreachable for long"),
                (false, _) if is_silent(peer) => (
                    MemberState::Suspect,
                    "nothing came over our link for 3 s, and no reachable member has a link to it",
                ),
                (false, _) => (MemberState::Suspect, "no reachable member has a link to it"),
            };
            let was = usize::from(standing.state == MemberState::Alive);
            let Some(event) = standing.become_state(now, peer, state, reason) else { continue };
            self.alive = self.alive + usize::from(state == MemberState::Alive) - was;
            if state == MemberState::Suspect {
                self.suspects.insert(number, now)
            } else {
                self.suspects.remove(&number)
            };
            events.push(event);
        }
        events
    }

    /// Declares dead who has been unreachable for too long.
    pub(crate) fn bury(&mut self, now: Instant) -> Vec<Event> {
        let due: Vec<u32> =
            self.suspects.iter().filter(|(_, since)| now >= **since + DEATH).map(|(number, _)| *number).collect();
        let mut events = Vec::new();
        for number in due {
            self.suspects.remove(&number);
            let Some(known) = self.get_mut(number) else { continue };
            let peer = known.id;
            let standing = known.standing.as_mut();
            let reason = "unreachable for 30 s";
            events.extend(standing.and_then(|standing| standing.become_state(now, peer, MemberState::Dead, reason)));
        }
        events
    }

    /// Takes this node's own stall out of the silence of others.
    pub(crate) fn forgive(&mut self, stall: Duration) {
        self.suspects.values_mut().for_each(|since| *since += stall);
    }

    pub(crate) fn timeout(&self) -> Option<Instant> {
        self.suspects.values().min().map(|since| *since + DEATH)
    }
}

/// Makes room by an eighth at a time: a table of thousands is held for long, and most of what doubling would set aside
/// is never used.
pub(crate) fn grow_slowly<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact(list.len() / 8 + 8);
    }
}

impl Standing {
    fn become_state(&mut self, now: Instant, peer: PeerId, state: MemberState, reason: &str) -> Option<Event> {
        if self.announced && self.state == state {
            return None;
        }
        *self = Self { state, since: now, announced: true, ..*self };
        Some(Event::Member { peer, state, incarnation: self.incarnation, reason: reason.to_owned() })
    }
}
