//! What has to hold, and what one node sees of another.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use meshwork_gossip::{Event, Member, MemberState};
use meshwork_wire::PeerId;
use meshwork_wire::record::Links;

use crate::content::Notes;
use crate::world::World;

/// All notes, and all links, that a node knows.
type View = (BTreeSet<(PeerId, u32, String)>, BTreeSet<(PeerId, PeerId)>);

/// What everyone had said at a moment.
pub struct Said {
    states: Vec<Option<(u64, u64)>>,
    /// How many of them each node is known to hold, so that none is looked for again.
    held: Vec<usize>,
}

impl World {
    /// What a node knows of another.
    #[must_use]
    pub fn member(&self, node: usize, of: usize) -> Option<Member> {
        self.gossip(node).member(self.id(of))
    }

    /// Whether a node sees another in a state.
    #[must_use]
    pub fn sees(&self, node: usize, of: usize, state: MemberState) -> bool {
        self.member(node, of).is_some_and(|member| member.state == state)
    }

    /// Events of a node about another one since a moment.
    #[must_use]
    pub fn events_about(&self, node: usize, of: usize, since: Duration) -> Vec<&Event> {
        let id = self.id(of);
        let about = |event: &&Event| match event {
            Event::Member { peer, .. } | Event::Restarted { peer, .. } => *peer == id,
            _ => false,
        };
        self.events(node).iter().filter(|(at, _)| *at >= since).map(|(_, event)| event).filter(about).collect()
    }

    /// Whether all honest running nodes hold the same of each other, and everyone's own notes are all there.
    ///
    /// # Errors
    /// Says what differs.
    pub fn agrees(&self) -> Result<(), String> {
        let living = self.honest();
        let Some(&first) = living.first() else { return Ok(()) };
        let reference = self.view(first);
        for &node in &living {
            self.keeps_its_own(node)?;
            if let Some(difference) = difference(&self.view(node), &reference) {
                return Err(format!("nodes {node} and {first} differ: {difference}"));
            }
            if let Some(of) = living.iter().find(|&&of| of != node && !self.sees(node, of, MemberState::Alive)) {
                return Err(format!("node {node} does not see {of} alive"));
            }
        }
        Ok(())
    }

    /// The latest state of each node.
    #[must_use]
    pub fn said_by_all(&self) -> Said {
        Said { states: (0..self.count()).map(|node| self.said(node)).collect(), held: vec![0; self.count()] }
    }

    /// Whether all see all alive, and hold what everyone had said by then. While links are chosen anew there is always
    /// something newer on its way.
    pub fn is_one(&self, said: &mut Said) -> bool {
        let living = self.living();
        let complete = living.iter().all(|&node| self.sees_alive(node) + 1 == living.len());
        complete && living.iter().all(|&node| self.holds(node, said))
    }

    /// Whether a node holds all that was said by then. Nobody goes back to an older state.
    fn holds(&self, node: usize, said: &mut Said) -> bool {
        let lacks = |origin: usize| self.is_running(origin) && self.state(node, origin) < said.states[origin];
        let first = (said.held[node]..said.states.len()).find(|&origin| lacks(origin));
        said.held[node] = first.unwrap_or(said.states.len());
        first.is_none()
    }

    /// Whether a node still says what it was told to say.
    ///
    /// # Errors
    /// Names the node.
    pub fn keeps_its_own(&self, node: usize) -> Result<(), String> {
        let own: BTreeMap<u32, String> = self.gossip(node).own::<Notes>().collect();
        if own == *self.notes(node) { Ok(()) } else { Err(format!("node {node} lost own entries")) }
    }

    fn view(&self, node: usize) -> View {
        let gossip = self.gossip(node);
        let honest = |origin: PeerId| self.number(origin).is_some_and(|node| self.is_honest(node));
        let notes = gossip.entries::<Notes>().filter(|(origin, ..)| honest(*origin));
        let links = gossip.entries::<Links>().filter(|(origin, ..)| honest(*origin));
        (notes.collect(), links.map(|(origin, key, _)| (origin, key)).collect())
    }
}

/// The first thing that one view has and the other has not.
fn difference(one: &View, other: &View) -> Option<String> {
    let note = one
        .0
        .symmetric_difference(&other.0)
        .next()
        .map(|(origin, key, value)| format!("only one has note {key} of {}, {value:?}", origin.short()));
    let link = || one.1.symmetric_difference(&other.1).next();
    note.or_else(|| link().map(|(near, far)| format!("only one has the link {} to {}", near.short(), far.short())))
}
