//! Who is near: round trips of links and members, and what of them is a difference.

use std::time::Duration;

use meshwork_wire::PeerId;

use super::{Own, Random};
use crate::limits::{NEAR_LINKS, RTT_CHANGE, RTT_CHANGE_PERCENT};

/// What differs by no more than this is equally near.
pub(super) fn tolerance(trip: Duration) -> Duration {
    trip * RTT_CHANGE_PERCENT / 100 + RTT_CHANGE
}

/// One of those as near as the nearest, as far as round trips are known; else anyone.
pub(super) fn near_one(candidates: &[PeerId], own: &Own, random: Random<'_>) -> Option<PeerId> {
    let trip = |peer: &PeerId| own.trips.get(peer).copied();
    let Some(nearest) = candidates.iter().filter_map(trip).min() else { return any(candidates, random) };
    let reach = nearest + tolerance(nearest);
    let near = candidates.iter().filter(|peer| trip(peer).is_some_and(|trip| trip <= reach));
    any(&near.copied().collect::<Vec<_>>(), random)
}

/// Round trips of the links.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spread {
    least: Duration,
    /// Within it there are as many links as near ones are wanted.
    pub(super) near: Duration,
    middle: Duration,
    most: Duration,
}

impl Spread {
    pub(super) fn of(own: &Own) -> Option<Self> {
        let mut trips: Vec<Duration> = own.links.keys().filter_map(|peer| own.trips.get(peer).copied()).collect();
        trips.sort_unstable();
        let (least, near) = (*trips.first()?, *trips.get(NEAR_LINKS - 1)?);
        Some(Self { least, near, middle: *trips.get(trips.len() / 2)?, most: *trips.last()? })
    }

    pub(super) fn has_distances(self) -> bool {
        self.least + tolerance(self.least) < self.most
    }

    /// Clearly nearer than half of the links.
    pub(super) fn is_near(self, trip: Duration) -> bool {
        trip + tolerance(trip) < self.middle
    }
}

/// Somebody clearly nearer than the near links.
pub(super) fn nearer(candidates: &[PeerId], own: &Own) -> Option<PeerId> {
    let near = Spread::of(own)?.near;
    let trip = |peer: &PeerId| own.trips.get(peer).map(|trip| (*trip, *peer));
    let (trip, best) = candidates.iter().filter_map(trip).min()?;
    (trip + tolerance(trip) < near).then_some(best)
}

/// One of those as far as the farthest; whose round trip is not known counts as that.
pub(super) fn farthest(of: &[PeerId], own: &Own, random: Random<'_>) -> Option<PeerId> {
    let trip = |peer: &PeerId| own.trips.get(peer).copied();
    let known: Option<Vec<Duration>> = of.iter().map(trip).collect();
    let most = known.and_then(|trips| trips.into_iter().max());
    let far = of.iter().filter(|peer| match (trip(peer), most) {
        (Some(trip), Some(most)) => trip + tolerance(trip) >= most,
        (known, _) => known.is_none(),
    });
    any(&far.copied().collect::<Vec<_>>(), random)
}

/// One of these.
pub(super) fn any(of: &[PeerId], random: Random<'_>) -> Option<PeerId> {
    of.get((random() % of.len().max(1) as u64) as usize).copied()
}
