//! Links that nodes choose themselves, as a daemon carries the choice out: whom it dials and when, whom it lets in, and
//! what it does where a link is one too many.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use meshwork_gossip::neighbours::{Caller, Choice, Dialer, Due, Held, Own, OwnLink, TargetKey};
use meshwork_gossip::{Event, Gossip};
use meshwork_wire::PeerId;
use meshwork_wire::record::{Peers, Store};

use super::links::HANDSHAKE;
use super::{What, World};
use crate::content;
use crate::wire::End;

/// After this QUIC gives up on who does not answer.
const NO_ANSWER: Duration = Duration::from_secs(10);

/// A link that was heard within this is alive; an older one gives way to a new link to the same peer.
const FRESH: Duration = Duration::from_secs(2);

/// Between a change of the members and its consequences for whom to dial.
const REFRESH: Duration = Duration::from_millis(100);

/// What of a daemon decides about links.
pub(super) struct Driver {
    choice: Choice,
    /// Operators name nodes by their number.
    dialer: Dialer<usize>,
    /// When members are looked up again, some of which told where they are.
    discover_at: Option<Instant>,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ending {
    Lost,
    /// Neither end needed it.
    GivenUp,
}

/// An attempt to get a link.
pub(super) struct Call {
    from: usize,
    start: u64,
    to: usize,
    begun: Instant,
    caller: Caller,
    key: TargetKey<usize>,
}

impl Driver {
    pub(super) fn new(me: PeerId, now: Instant, seeds: &[usize]) -> Self {
        let mut dialer = Dialer::default();
        seeds.iter().for_each(|seed| dialer.connect(now, *seed));
        Self { choice: Choice::new(me, now), dialer, discover_at: None }
    }

    pub(super) fn due(&self) -> Instant {
        let dial = self.dialer.poll_timeout();
        [dial, self.discover_at].into_iter().flatten().fold(self.choice.poll_timeout(), Instant::min)
    }
}

impl World {
    /// Notes what the choice of links depends on.
    pub(super) fn heed(&mut self, node: usize, event: &Event) {
        let (now, random, state) = (self.now, &mut self.random, &mut self.nodes[node]);
        let Some(driver) = state.driver.as_mut() else { return };
        if matches!(event, Event::Changed { store, .. } if *store == Peers::ID) {
            driver.discover_at.get_or_insert(now + REFRESH);
        }
        let (ends, index) = (&state.ends, &self.index);
        let linked = |peer: PeerId| index.get(&peer).is_some_and(|far| ends.contains_key(far));
        let revived = driver.choice.heed(now, &mut || random.draw(), event, ends.len(), linked);
        if let Some((peer, pause)) = revived {
            driver.dialer.revive(now + pause, peer);
        }
    }

    fn links_changed(&mut self, node: usize) {
        let (now, random, state) = (self.now, &mut self.random, &mut self.nodes[node]);
        let links = state.ends.len();
        if let Some(driver) = state.driver.as_mut() {
            driver.choice.changed(now, &mut || random.draw(), links);
        }
    }

    /// Does what is due about links.
    pub(super) fn drive(&mut self, node: usize) {
        let now = self.now;
        if !self.runs(node) || self.nodes[node].driver.as_ref().is_none_or(|driver| driver.due() > now) {
            return;
        }
        self.choose_links(node);
        self.dial_due(node);
    }

    fn choose_links(&mut self, node: usize) {
        let (now, random, state) = (self.now, &mut self.random, &mut self.nodes[node]);
        let (Some(driver), Some(gossip)) = (state.driver.as_mut(), state.gossip.as_ref()) else { return };
        let mut discover = driver.discover_at.is_some_and(|at| at <= now);
        let mut given_up = None;
        if driver.choice.poll_timeout() <= now {
            let own = own_links(gossip, &state.ends, &driver.dialer, |far| self.ids[far]);
            discover |= driver.choice.review(now, &mut || random.draw(), &gossip.view(), &own);
            given_up = driver.choice.give_up(now, &mut || random.draw(), &own);
        }
        if discover {
            driver.discover_at = None;
            driver.dialer.discover(&wanted(&driver.choice, gossip, now));
        }
        if let Some(peer) = given_up {
            let jitter = self.jitter();
            if let Some(driver) = self.nodes[node].driver.as_mut() {
                driver.dialer.given_up(now, peer, jitter);
            }
            self.drop_link(node, self.index[&peer], Ending::GivenUp);
        }
    }

    fn dial_due(&mut self, node: usize) {
        let (now, state, index) = (self.now, &mut self.nodes[node], &self.index);
        let (Some(driver), Some(gossip)) = (state.driver.as_mut(), state.gossip.as_ref()) else { return };
        let (ends, start) = (&state.ends, state.starts);
        let alone = ends.is_empty();
        let due = driver.dialer.due(now, |peer| index.get(&peer).is_some_and(|far| ends.contains_key(far)));
        let reached = |key: &TargetKey<usize>| driver.dialer.leads_to(key).is_some_and(|peer| gossip.reaches(peer));
        let as_caller = |Due { key, insists }: Due<usize>| {
            let named = key.member().is_none() && !reached(&key);
            (key, Caller { named, alone, insists })
        };
        let calls: Vec<(TargetKey<usize>, Caller)> = due.into_iter().map(as_caller).collect();
        for (key, caller) in calls {
            let to = match &key {
                TargetKey::Named(seed) => Some(*seed),
                TargetKey::Endpoint(_, address) => content::host_at(*address).filter(|host| *host < self.ids.len()),
            };
            if to == Some(node) {
                self.ourselves(node, &key);
            } else if let Some(to) = to {
                let call = Call { from: node, start, to, begun: now, caller, key };
                self.at(now + self.conditions.latency * 2 * HANDSHAKE, What::Knock(Box::new(call)));
            }
        }
    }

    fn ourselves(&mut self, node: usize, key: &TargetKey<usize>) {
        let now = self.now;
        if let Some(driver) = self.nodes[node].driver.as_mut() {
            driver.dialer.ourselves(now, key);
        }
    }

    /// A call has come as far as the door, or does not come there at all.
    pub(super) fn knock(&mut self, call: Call) {
        let Call { from, start, to, .. } = call;
        if !self.is_running(from) || self.nodes[from].starts != start {
            return;
        }
        let passes = !self.is_cut(from, to) && !self.is_cut(to, from);
        if !passes || !self.runs(from) || !self.runs(to) || self.nodes[to].driver.is_none() {
            self.call_again(call);
        } else if self.lets_in(&call) {
            self.come_in(call);
        } else {
            self.send_elsewhere(&call);
        }
        self.drain(from);
        self.drain(to);
    }

    /// QUIC sends its first packet again, after twice the time, until it gives up.
    fn call_again(&mut self, call: Call) {
        let (again, end) = (call.begun + (self.now - call.begun) * 2, call.begun + NO_ANSWER);
        if again < end && again > self.now {
            self.at(again, What::Knock(Box::new(call)));
        } else {
            self.at(end.max(self.now), What::Unanswered(Box::new(call)));
        }
    }

    /// Nobody answered a call.
    pub(super) fn unanswered(&mut self, call: &Call) {
        let (now, jitter) = (self.now, self.jitter());
        let state = &mut self.nodes[call.from];
        if let Some(driver) = state.driver.as_mut().filter(|_| state.starts == call.start) {
            driver.dialer.failed(now, &call.key, "", state.ends.is_empty(), jitter);
            self.drain(call.from);
        }
    }

    /// A random number of 0 to 1.
    fn jitter(&mut self) -> f64 {
        self.random.below(1 << 20) as f64 / (1 << 20) as f64
    }

    fn lets_in(&mut self, call: &Call) -> bool {
        let (now, peer, state) = (self.now, self.ids[call.from], &mut self.nodes[call.to]);
        let Some(driver) = state.driver.as_mut() else { return false };
        let held = |(far, end): (&usize, &End)| Held {
            peer: self.ids[*far],
            ours: driver.dialer.names(self.ids[*far]),
            inbound: !end.dialled,
            named: end.named,
            alone: end.alone,
        };
        let held: Vec<Held> = state.ends.iter().map(held).collect();
        let wanted = state.ends.contains_key(&call.from) || driver.dialer.names(peer);
        driver.choice.knock(now, peer, call.caller, wanted, &held)
    }

    fn send_elsewhere(&mut self, call: &Call) {
        let (now, jitter, by) = (self.now, self.jitter(), self.ids[call.to]);
        let gossip = self.nodes[call.to].gossip.as_ref();
        let place = |peer: PeerId| endpoints(gossip?, peer);
        let random = &mut self.random;
        let view = gossip.map(Gossip::view).unwrap_or_default();
        let mut named = view.refer(by, self.ids[call.from], &mut || random.draw(), place);
        let state = &mut self.nodes[call.from];
        let Some(driver) = state.driver.as_mut() else { return };
        let alone = state.ends.is_empty();
        driver.dialer.elsewhere(now, &call.key, by, "", alone, jitter);
        driver.choice.refused(now, &mut || random.draw(), by, state.ends.len());
        if alone {
            named.retain(|(peer, _)| *peer != state.id);
            driver.dialer.refer(now, named);
        }
    }

    /// A call that was welcome becomes a link, unless the pair has one that comes first.
    fn come_in(&mut self, call: Call) {
        let Call { from, to, caller, key, .. } = call;
        let (now, peer) = (self.now, self.ids[to]);
        let replaces = !self.is_whole(from, to)
            || [(from, to), (to, from)].iter().any(|&(near, far)| {
                let end = &self.nodes[near].ends[&far];
                let dialler = self.ids[if end.dialled { near } else { far }];
                now.saturating_duration_since(end.heard) > FRESH || self.ids[from] < dialler
            });
        let Some(driver) = self.nodes[from].driver.as_mut() else { return };
        driver.dialer.linked(now, Some(&key), peer);
        if !replaces {
            return;
        }
        let caller_id = self.ids[from];
        let mut alone = false;
        if let Some(driver) = self.nodes[to].driver.as_mut() {
            driver.dialer.linked(now, None, caller_id);
            alone = driver.choice.came(caller_id);
        }
        self.link(from, to, |end, near| {
            end.dialled = near == from;
            end.named = caller.named;
            end.alone = alone && near == to;
        });
        self.links_changed(from);
        self.links_changed(to);
    }

    /// Ends a node's link, and tells the other end.
    fn drop_link(&mut self, node: usize, far: usize, ending: Ending) {
        let Some(end) = self.nodes[node].ends.remove(&far) else { return };
        let peer = self.ids[far];
        if self.nodes[node].driver.is_some() {
            self.at(self.now + self.conditions.latency, What::Closed(node, far, end.connection, ending));
        }
        self.links_changed(node);
        self.on(node, |gossip, now| match ending {
            Ending::Lost => gossip.link_down(now, peer),
            Ending::GivenUp => gossip.link_given_up(now, peer),
        });
    }

    /// A link is gone without this node's doing.
    pub(super) fn lose_link(&mut self, node: usize, far: usize, ending: Ending) {
        let (now, peer, jitter) = (self.now, self.ids[far], self.jitter());
        if let Some(driver) = self.nodes[node].driver.as_mut() {
            driver.dialer.unlinked(now, peer, "", jitter);
        }
        self.drop_link(node, far, ending);
    }

    /// The other end of a connection ended it, or a process that does not know it answered.
    pub(super) fn closed(&mut self, by: usize, node: usize, connection: u64, ending: Ending) {
        let open = self.nodes[node].ends.get(&by).is_some_and(|end| end.connection == connection);
        if open && !self.is_cut(by, node) && self.runs(node) {
            self.lose_link(node, by, ending);
        }
    }

    /// A packet came for a connection that its receiver does not know.
    pub(super) fn reset(&mut self, node: usize, far: usize, connection: u64) {
        if self.nodes[node].driver.is_some() && self.runs(node) {
            self.at(self.now + self.conditions.latency, What::Closed(node, far, connection, Ending::Lost));
        }
    }
}

fn own_links(
    gossip: &Gossip,
    ends: &BTreeMap<usize, End>,
    dialer: &Dialer<usize>,
    id: impl Fn(usize) -> PeerId,
) -> Own {
    let live = gossip.live_links();
    let links = ends.iter().map(|(far, end)| (id(*far), end)).filter(|(peer, _)| live.contains(peer));
    let own = |(peer, end): (PeerId, &End)| {
        let kept = (end.named || dialer.names(peer)) && !gossip.is_overrun(peer);
        (peer, OwnLink { dialled: end.dialled, kept })
    };
    Own { links: links.map(own).collect(), trips: gossip.trips() }
}

/// Chosen members with the endpoints that they tell.
fn wanted(choice: &Choice, gossip: &Gossip, now: Instant) -> BTreeMap<PeerId, (Instant, Vec<SocketAddr>)> {
    let own: Vec<IpAddr> = endpoints(gossip, gossip.peer_id()).iter().flatten().map(SocketAddr::ip).collect();
    let told = |(peer, at): (PeerId, Instant)| {
        let mut endpoints = endpoints(gossip, peer)?;
        endpoints.retain(|endpoint| !own.contains(&endpoint.ip()));
        Some((peer, (at.max(now), endpoints)))
    };
    choice.chosen().filter_map(told).collect()
}

fn endpoints(gossip: &Gossip, peer: PeerId) -> Option<Vec<SocketAddr>> {
    Some(gossip.get::<Peers>(peer, &())?.endpoints)
}
