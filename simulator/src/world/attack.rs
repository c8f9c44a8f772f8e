//! Hostile nodes at work.

use meshwork_gossip::limits::{MAX_INBOX, MAX_MEMBERS};
use meshwork_wire::record::{LinkRecord, Links};

use super::{What, World};
use crate::hostile::{Hostile, Misdeed, PAUSE, Victims};

impl World {
    /// Makes a node hostile for good.
    pub fn corrupt(&mut self, node: usize, misdeeds: &[Misdeed]) {
        self.disturbed = true;
        let state = &mut self.nodes[node];
        state.hostile = Some(Hostile::new(state.identity.clone(), misdeeds.to_vec()));
        self.at(self.now + PAUSE, What::Misdeed(node));
    }

    /// Whether a node does what it should.
    #[must_use]
    pub fn is_honest(&self, node: usize) -> bool {
        self.nodes[node].hostile.is_none()
    }

    /// Honest nodes whose process exists.
    #[must_use]
    pub fn honest(&self) -> Vec<usize> {
        self.living().into_iter().filter(|&node| self.is_honest(node)).collect()
    }

    pub(super) fn misdeed(&mut self, node: usize) {
        self.at(self.now + PAUSE, What::Misdeed(node));
        let (random, state) = (&mut self.random, &self.nodes[node]);
        let (None, Some(gossip), Some(hostile)) = (state.paused_until, &state.gossip, &state.hostile) else { return };
        let frames = hostile.act(random, &Victims::of(gossip));
        if hostile.misdeeds.contains(&Misdeed::ClaimLinks) {
            self.claim_links(node);
        }
        for (to, frame) in frames {
            let reliable = self.random.below(4) > 0;
            self.carry(node, to, frame, reliable);
        }
    }

    /// Publishes a link to somebody, or withdraws one that is there.
    fn claim_links(&mut self, node: usize) {
        let (far, claims) = (self.random.index(self.nodes.len()), self.random.below(2) == 0);
        let far = self.ids[far];
        self.on(node, |gossip, now| {
            if claims {
                // A full map takes no more of them.
                let _ = gossip.put::<Links>(now, &far, &LinkRecord { rtt_us: Some(1) });
            } else {
                gossip.remove::<Links>(now, &far);
            }
        });
    }

    /// Whether what a node holds because others said something is within its bounds.
    ///
    /// # Errors
    /// Says what is not.
    pub fn bears(&self, node: usize) -> Result<(), String> {
        let (burden, links) = (self.gossip(node).burden(), self.nodes[node].ends.len());
        let within = burden.held <= MAX_MEMBERS
            && burden.members <= MAX_MEMBERS + self.nodes.len()
            && burden.claims <= 2 * MAX_MEMBERS
            && burden.wants <= links * MAX_MEMBERS
            && burden.inbox <= MAX_INBOX;
        if within { Ok(()) } else { Err(format!("node {node} holds more than it may: {burden:?}")) }
    }
}
