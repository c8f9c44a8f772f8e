//! Members that misbehave. A hostile node runs the honest state machine, so that it has links and is believed, and does
//! more and other things than that says.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use meshwork_gossip::Gossip;
use meshwork_gossip::adversary::Forger;
use meshwork_identity::{Identity, PublicKey};
use meshwork_wire::PeerId;

use crate::random::Random;

/// Between two misdeeds.
pub(crate) const PAUSE: Duration = Duration::from_millis(400);

/// Frames of others that it keeps to send them again.
const KEPT: usize = 64;

/// Frames of one misdeed.
const BURST: u64 = 8;

/// Members that it makes up, and that others shall want, at a time.
const STRANGERS: usize = 40;

/// What a hostile node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Misdeed {
    /// Asks for everything, all the time.
    Demand,
    /// Changes what it passes on.
    Alter,
    /// Publishes in others' names.
    Forge,
    /// Sends again what others said long ago.
    Replay,
    /// Claims to have what nobody said, and never sends it.
    Promise,
    /// The same of members that do not exist.
    PromiseStrangers,
    /// Makes members up.
    Invent,
    /// Publishes several states of its own under one number, from the far future.
    Split,
    /// Claims links that do not exist.
    ClaimLinks,
    /// Sends messages in others' names.
    Impersonate,
    /// Sends bytes that are no frame.
    Noise,
    /// Passes nothing on but what keeps its links.
    Withhold,
    /// Takes nothing from its links.
    Ignore,
}

impl Misdeed {
    /// Whether others may go on believing that it has links to whom it has none: it says so, does not say otherwise, or
    /// has said so much that this waits behind it.
    #[must_use]
    pub const fn hides_losses(self) -> bool {
        !matches!(self, Self::Demand | Self::Forge | Self::Replay | Self::Invent | Self::Impersonate | Self::Noise)
    }
}

/// All of them.
pub const MISDEEDS: [Misdeed; 13] = [
    Misdeed::Demand,
    Misdeed::Alter,
    Misdeed::Forge,
    Misdeed::Replay,
    Misdeed::Promise,
    Misdeed::PromiseStrangers,
    Misdeed::Invent,
    Misdeed::Split,
    Misdeed::ClaimLinks,
    Misdeed::Impersonate,
    Misdeed::Noise,
    Misdeed::Withhold,
    Misdeed::Ignore,
];

/// The hostile side of a node.
#[derive(Debug)]
pub(crate) struct Hostile {
    pub(crate) misdeeds: Vec<Misdeed>,
    forger: Forger,
    seen: VecDeque<Vec<u8>>,
}

/// Whom it knows.
pub(crate) struct Victims {
    neighbours: Vec<PeerId>,
    members: Vec<(PeerId, PublicKey)>,
}

impl Victims {
    pub(crate) fn of(gossip: &Gossip) -> Self {
        let members = gossip.members().map(|member| (member.id, member.public_key)).take(300).collect();
        Self { neighbours: gossip.live_links().into_iter().collect(), members }
    }

    fn ids(&self) -> Vec<PeerId> {
        self.members.iter().map(|(id, _)| *id).collect()
    }
}

impl Hostile {
    pub(crate) fn new(identity: Arc<Identity>, misdeeds: Vec<Misdeed>) -> Self {
        Self { misdeeds, forger: Forger::new(identity), seen: VecDeque::new() }
    }

    fn does(&self, misdeed: Misdeed) -> bool {
        self.misdeeds.contains(&misdeed)
    }

    /// A frame came. Answers whether the node takes it.
    pub(crate) fn takes(&mut self, random: &mut Random, frame: &[u8]) -> bool {
        if self.seen.len() < KEPT {
            self.seen.push_back(frame.to_vec());
        } else if random.chance(500) {
            self.seen.pop_front();
        }
        !self.does(Misdeed::Ignore)
    }

    /// What becomes of a frame that it would send. Heartbeats keep its links.
    pub(crate) fn sends(&self, random: &mut Random, frame: Vec<u8>, reliable: bool) -> Option<Vec<u8>> {
        if self.does(Misdeed::Withhold) && reliable {
            return None;
        }
        let altered = self.does(Misdeed::Alter).then(|| self.forger.altered(&mut || random.draw(), &frame)).flatten();
        Some(altered.unwrap_or(frame))
    }

    /// What it sends on its own account now.
    pub(crate) fn act(&self, random: &mut Random, victims: &Victims) -> Vec<(PeerId, Vec<u8>)> {
        if self.misdeeds.is_empty() || victims.neighbours.is_empty() || victims.members.is_empty() {
            return Vec::new();
        }
        let misdeed = random.pick(&self.misdeeds);
        let frames = (0..1 + random.below(BURST)).filter_map(|_| {
            let to = random.pick(&victims.neighbours);
            Some((to, self.frame(random, misdeed, to, victims)?))
        });
        frames.collect()
    }

    fn frame(&self, random: &mut Random, misdeed: Misdeed, to: PeerId, victims: &Victims) -> Option<Vec<u8>> {
        let (victim, key) = random.pick(&victims.members);
        let seen = self.seen.get(random.index(self.seen.len()));
        let draw = &mut || random.draw();
        Some(match misdeed {
            Misdeed::Demand => self.forger.demand(draw, &victims.ids()),
            Misdeed::Alter => self.forger.altered(draw, seen?)?,
            Misdeed::Forge => self.forger.forged(draw, key),
            Misdeed::Replay => seen?.clone(),
            Misdeed::Promise => self.forger.promised(draw, &victims.ids()),
            Misdeed::PromiseStrangers => self.forger.promised_strangers(draw, STRANGERS),
            Misdeed::Invent => self.forger.invented(draw, &victims.neighbours),
            Misdeed::Split => self.forger.split(draw),
            Misdeed::Impersonate => self.forger.message(draw, victim, to),
            Misdeed::Noise => self.forger.noise(draw, seen?),
            Misdeed::ClaimLinks | Misdeed::Withhold | Misdeed::Ignore => return None,
        })
    }
}
