//! The state machine: what comes in, what goes out, and the order of the work in between.
//!
//! One decision holds at most one durable step. Whatever is left is due at once: [`Ipam::poll_timeout`] says so, and
//! the caller decides again with [`Input::Tick`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use ipnet::{Ipv4Net, Ipv6Net};
use meshwork_identity::PublicKey;
use meshwork_wire::record::{FreeSpaceRecord, PodKey, PodRecord, Ranges, RingPart};
use meshwork_wire::{Incarnation, PeerId, Version};

use crate::allocate::Waiting;
use crate::ask::Asking;
use crate::config::{Config, Init, RestoreError, check};
use crate::durable::{Change, Snapshot, order_of};
use crate::give::Asker;
use crate::heard::Heard;
use crate::lease::{Lease, LeaseError, LeaseRequest};
use crate::message::{Denial, Message};
use crate::pool::Pool;
use crate::prefix::{node_prefix6, span};
use crate::ring::Ring;

/// How long a restarted node waits for a peer's ring before it goes on with its own disk, and a lone one before it
/// seeds: a peer that is there is linked and heard within this time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Parts are at least the range divided by 2 to this power, which bounds the ring to 16,384 parts.
const MAX_PARTS_LOG2: u8 = 14;

/// Free space is told at most this often: it is a hint, and every change would go to every node.
const FREE_SPACE_PACE: Duration = Duration::from_secs(10);

/// How long to leave the disk alone after a commit failed.
const STORAGE_PAUSE: Duration = Duration::from_secs(1);

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// The node begins: everything held has to be published. The first input of a run.
    Started,
    /// The whole map of one writer of the ring store, as gossip has it now.
    RingEntries {
        /// Who wrote it.
        origin: PeerId,
        /// Its entries.
        parts: Vec<(Ipv4Net, RingPart)>,
    },
    /// Everything that this peer knows of the ring store has been handed in.
    PeerSynced(PeerId),
    /// Members as known now; each field replaces what it said before.
    Peers {
        /// Members that can be reached.
        alive: BTreeSet<PeerId>,
        /// What they say of their free space.
        free_hints: BTreeMap<PeerId, Option<u8>>,
        /// Keys of all members, also of those that cannot be reached.
        keys: BTreeMap<PeerId, PublicKey>,
        /// Their ranges, as far as they told them.
        ranges: BTreeMap<PeerId, Ranges>,
    },
    /// A peer's message, from the link that proved its identity.
    Message {
        /// The peer.
        from: PeerId,
        /// What it says.
        message: Message,
    },
    /// Asks for a lease; answered once by [`Effect::Granted`] or [`Effect::Refused`] with the same token.
    Lease {
        /// Names the request.
        token: u64,
        /// For whom.
        request: LeaseRequest,
        /// When waiting ends.
        deadline: Instant,
    },
    /// Nobody waits for this request any more.
    Cancel {
        /// The token of a lease request.
        token: u64,
    },
    /// Frees one interface, or all of a sandbox; answered once by [`Effect::Released`], or [`Effect::Refused`] when the
    /// disk fails.
    Release {
        /// Names the request.
        token: u64,
        /// The sandbox.
        sandbox: String,
        /// One interface, or nothing for all.
        interface: Option<String>,
    },
    /// Frees a lease that still stands exactly so, answered as [`Input::Release`]; one that changed meanwhile stays.
    ReleaseUnchanged {
        /// Names the request.
        token: u64,
        /// The lease as it was judged.
        lease: Lease,
    },
    /// Others know a later state of this node than its disk: nothing is leased or given until [`Input::Above`].
    Outranked,
    /// What this node published in that later state. Once it is durable, a new run may begin.
    Former {
        /// Its entries of the ring store.
        parts: Vec<(Ipv4Net, RingPart)>,
        /// Its entries of the pods store.
        pods: Vec<(PodKey, PodRecord)>,
    },
    /// The later state was a copy's, and is taken up: this node goes on above it as this run, once others were heard.
    Above(Incarnation),
    /// Time passed.
    Tick,
}

/// Something to do, after the decision's changes are durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send a message; it may be lost.
    Send {
        /// To whom.
        to: PeerId,
        /// What.
        message: Message,
    },
    /// Write these entries into the own map of the ring store.
    Publish {
        /// Entries to put.
        upserts: Vec<(Ipv4Net, RingPart)>,
        /// Entries to take out.
        withdrawals: Vec<Ipv4Net>,
    },
    /// Write the own entry of the free-space store.
    PublishFreeSpace(FreeSpaceRecord),
    /// Write an entry of the pods store.
    PublishPod(PodKey, PodRecord),
    /// Take an entry out of the pods store.
    WithdrawPod(PodKey),
    /// Answers a lease request.
    Granted {
        /// The request.
        token: u64,
        /// What was leased, now or before.
        lease: Lease,
    },
    /// Answers a lease or release request.
    Refused {
        /// The request.
        token: u64,
        /// Why.
        error: LeaseError,
    },
    /// Answers a release request.
    Released {
        /// The request.
        token: u64,
        /// What was freed; empty when there was nothing.
        leases: Vec<Lease>,
    },
    /// [`Ipam::ownership`] answers something else than before.
    OwnershipChanged,
}

/// What an input led to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// To be made durable together, first.
    pub changes: Vec<Change>,
    /// To be performed in order, after that.
    pub effects: Vec<Effect>,
}

impl Decision {
    /// Whether nothing is left for this decision to take up.
    pub(crate) fn is_durable(&self) -> bool {
        !self.changes.is_empty()
    }

    pub(crate) fn publish(&mut self, upserts: Vec<(Ipv4Net, RingPart)>, withdrawals: Vec<Ipv4Net>) {
        self.effects.push(Effect::Publish { upserts, withdrawals });
        self.effects.push(Effect::OwnershipChanged);
    }

    pub(crate) fn send(&mut self, to: PeerId, message: Message) {
        self.effects.push(Effect::Send { to, message });
    }
}

/// The address ring and the leases of one node.
#[derive(Debug)]
pub struct Ipam {
    pub(crate) config: Config,
    pub(crate) me: PeerId,
    pub(crate) prefix6: Ipv6Net,
    pub(crate) durable: Snapshot,
    /// The held parts as a function of the address; from `durable`, like the pools and holders.
    pub(crate) mine: Ring,
    pub(crate) pool4: Pool,
    pub(crate) pool6: Pool,
    pub(crate) holders: BTreeMap<IpAddr, PodKey>,
    /// Addresses that are in use without a lease.
    avoided: BTreeSet<IpAddr>,
    pub(crate) heard: Heard,
    /// What is heard and what is held in one.
    pub(crate) view: Ring,
    pub(crate) alive: BTreeSet<PeerId>,
    pub(crate) free_hints: BTreeMap<PeerId, Option<u8>>,
    /// Ranges of the members that can be reached.
    pub(crate) ranges: BTreeMap<PeerId, Ranges>,
    pub(crate) started: Instant,
    /// Until when nothing may be handed out, because the disk could be behind what peers know.
    pub(crate) unproven_until: Option<Instant>,
    /// The disk is behind what this node did.
    pub(crate) outranked: bool,
    pub(crate) asking: Asking,
    pub(crate) askers: BTreeMap<PeerId, Asker>,
    pub(crate) waiting: BTreeMap<u64, Waiting>,
    pub(crate) arrivals: u64,
    /// Gifts that came by message and were not looked at yet.
    pub(crate) offered: Vec<(PeerId, Ipv4Net, RingPart)>,
    /// Whether held and heard parts may have something to say to each other.
    pub(crate) unsettled: bool,
    pub(crate) now: Instant,
    told_free: Option<(FreeSpaceRecord, Instant)>,
    storage_pause: Option<Instant>,
    due: bool,
}

impl Ipam {
    /// Rebuilds the state machine from what is durable.
    ///
    /// # Errors
    /// [`RestoreError`] when the configuration cannot work or contradicts the disk.
    pub fn restore(config: Config, durable: Snapshot, now: Instant) -> Result<Self, RestoreError> {
        let config = Config { range4: config.range4.trunc(), range6: config.range6.trunc(), ..config };
        check(&config, &durable)?;
        let me = config.identity.peer_id();
        let ring = durable.parts.values().next().map(|held| held.part.ring);
        let mut ipam = Self {
            me,
            prefix6: node_prefix6(config.range6, me),
            mine: Ring::default(),
            pool4: Pool::default(),
            pool6: Pool::default(),
            holders: BTreeMap::new(),
            avoided: BTreeSet::new(),
            heard: Heard::new(config.range4, longest_part(config.range4), ring),
            view: Ring::default(),
            alive: BTreeSet::new(),
            free_hints: BTreeMap::new(),
            ranges: BTreeMap::new(),
            started: now,
            unproven_until: (!durable.parts.is_empty()).then_some(now + PATIENCE),
            outranked: false,
            asking: Asking::default(),
            askers: BTreeMap::new(),
            waiting: BTreeMap::new(),
            arrivals: 0,
            offered: Vec::new(),
            unsettled: true,
            now,
            told_free: None,
            storage_pause: None,
            due: false,
            config,
            durable,
        };
        ipam.rebuild();
        Ok(ipam)
    }

    /// Hands none of these addresses out in this run, unless a lease of them ends: somebody on this host uses them,
    /// whatever the disk says. Others than this node's own do not matter.
    pub fn avoid(&mut self, addresses: BTreeSet<IpAddr>) {
        let own6 = |address: &IpAddr| matches!(address, IpAddr::V6(address) if self.prefix6.contains(address));
        self.avoided = addresses.into_iter().filter(|address| address.is_ipv4() || own6(address)).collect();
        self.rebuild();
    }

    /// Takes an input. The decision has to be applied or abandoned before the next one is asked for. `random` fills a
    /// buffer with random bytes; it is used when a ring is made.
    pub fn decide(&mut self, now: Instant, random: &mut dyn FnMut(&mut [u8]), input: Input) -> Decision {
        self.now = now;
        self.due = false;
        let mut decision = Decision::default();
        self.take_in(input, &mut decision);
        self.end_waiting(&mut decision);
        if !decision.is_durable() {
            self.work(random, &mut decision);
        }
        if decision.is_durable() {
            self.due = true;
        } else if !self.unsettled {
            self.ask_for_space(&mut decision);
        }
        self.tell_free_space(&mut decision);
        decision
    }

    /// Folds changes into memory, after they are durable.
    pub fn apply(&mut self, changes: &[Change]) {
        let mut parts_changed = false;
        for change in changes {
            parts_changed |= matches!(change, Change::PutPart { .. } | Change::DropPart(_));
            self.fold(change);
        }
        self.durable.apply(changes);
        if parts_changed {
            self.unsettled = true;
            let ring = self.durable.parts.values().next().map(|held| held.part.ring);
            if ring != self.heard.current() {
                self.heard.switch(ring);
            }
            self.rebuild();
        }
    }

    /// Takes back a decision whose changes could not be made durable: memory stays as it was. Returns what is to be
    /// performed instead of its effects; `why` goes to those who asked.
    pub fn abandon(&mut self, decision: &Decision, why: &str) -> Vec<Effect> {
        self.storage_pause = Some(self.now + STORAGE_PAUSE);
        self.unsettled = true;
        self.due = false;
        let instead = |effect: &Effect| match effect {
            Effect::Granted { token, .. } | Effect::Released { token, .. } => {
                Some(Effect::Refused { token: *token, error: LeaseError::Storage(why.to_owned()) })
            }
            Effect::Refused { .. } | Effect::PublishFreeSpace(_) => Some(effect.clone()),
            Effect::Send {
                message: Message::AskSpace { .. } | Message::AskSpare { .. } | Message::Denied { .. },
                ..
            } => Some(effect.clone()),
            _ => None,
        };
        decision.effects.iter().filter_map(instead).collect()
    }

    /// When [`Input::Tick`] is due next; a time that has passed means now.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.due {
            return Some(self.now);
        }
        let patience = (self.heard.current().is_none()).then_some(self.started + PATIENCE);
        let free_space = self.told_free.filter(|(told, _)| *told != self.free_space());
        let timers = [
            self.unproven_until,
            patience.filter(|until| *until > self.now),
            self.storage_pause,
            self.asking.poll_timeout().filter(|_| !self.unsettled),
            self.waiting.values().map(|waiting| waiting.deadline).min(),
            free_space.map(|(_, told)| told + FREE_SPACE_PACE),
        ];
        timers.into_iter().flatten().min()
    }

    /// Whether addresses may be handed out and given: the disk was compared with a peer, or there is none to ask.
    pub(crate) fn is_proven(&self) -> bool {
        self.unproven_until.is_none() && !self.outranked
    }

    /// A version that outranks `over` at its addresses.
    pub(crate) fn version_over(&self, over: Version) -> Version {
        let incarnation = self.config.incarnation;
        if over.incarnation < incarnation {
            Version { incarnation, counter: 1 }
        } else {
            Version { counter: over.counter.saturating_add(1), ..over }
        }
    }

    /// Longest prefix of a part.
    pub(crate) fn longest_part(&self) -> u8 {
        longest_part(self.config.range4)
    }

    fn take_in(&mut self, input: Input, decision: &mut Decision) {
        match input {
            Input::Started => self.publish_everything(decision),
            Input::RingEntries { origin, parts } if origin != self.me => {
                let changed = self.heard.hear(origin, parts);
                self.heard_changed(changed, decision);
            }
            Input::RingEntries { .. } => {}
            Input::PeerSynced(_) => self.unproven_until = None,
            Input::Peers { alive, free_hints, keys, ranges } => {
                self.ranges = ranges.into_iter().filter(|(peer, _)| alive.contains(peer)).collect();
                self.asking.meet(&self.alive, &alive);
                self.alive = alive;
                self.free_hints = free_hints;
                let changed = self.heard.learn_keys(keys);
                self.heard_changed(changed, decision);
            }
            Input::Message { from, message } => self.receive(from, message),
            Input::Lease { token, request, deadline } => self.request_lease(token, request, deadline, decision),
            Input::Cancel { token } => self.waiting.retain(|_, waiting| waiting.token != token),
            Input::Release { token, sandbox, interface } => {
                self.release(token, &sandbox, interface.as_deref(), decision);
            }
            Input::ReleaseUnchanged { token, lease } => self.release_unchanged(token, lease, decision),
            Input::Outranked => self.outranked = true,
            Input::Former { parts, pods } => {
                self.outranked = true;
                self.catch_up(parts, pods, decision);
            }
            Input::Above(incarnation) => self.go_on_above(incarnation, decision),
            Input::Tick => {}
        }
    }

    fn receive(&mut self, from: PeerId, message: Message) {
        match message {
            Message::AskSpace { request, ring, want_log2 } => {
                self.askers.insert(from, Asker { request, ring, want_log2, urgent: true });
            }
            Message::AskSpare { request, ring, want_log2 } => {
                self.askers.insert(from, Asker { request, ring, want_log2, urgent: false });
            }
            Message::Gift { request, prefix, part } => {
                if self.mine.reaches(prefix, order_of(&part)) {
                    // Known already: the giver has not heard that it arrived, and gives nothing new before it has.
                    return self.asking.denied(from, request, Denial::NotReady);
                }
                self.asking.answered(from, request);
                if self.heard.is_sound_gift(from, prefix, &part) {
                    self.adopt_from(&part);
                    self.offered.push((from, prefix, part));
                    self.unsettled = true;
                }
            }
            Message::Denied { request, denial } => self.asking.denied(from, request, denial),
        }
    }

    /// Durable steps in their order; the first that has something to do ends it.
    fn work(&mut self, random: &mut dyn FnMut(&mut [u8]), decision: &mut Decision) {
        self.unproven_until = self.unproven_until.filter(|until| self.now < *until);
        self.storage_pause = self.storage_pause.filter(|until| self.now < *until);
        if self.storage_pause.is_some() {
            return;
        }
        if self.unsettled {
            self.settle(decision);
            self.unsettled = decision.is_durable();
        }
        if !decision.is_durable() && !self.outranked && !self.stays_out() {
            self.seed(random, decision);
        }
        if !decision.is_durable() {
            self.serve_waiting(decision);
        }
        if !decision.is_durable() {
            self.answer_askers(decision);
        }
    }

    pub(crate) fn heard_changed(&mut self, changed: bool, decision: &mut Decision) {
        self.unsettled = true;
        if changed {
            self.rebuild_view();
            decision.effects.push(Effect::OwnershipChanged);
        }
    }

    pub(crate) fn publish_everything(&mut self, decision: &mut Decision) {
        let published = self.durable.parts.iter().filter(|(_, held)| held.is_published());
        let parts: Vec<_> = published.map(|(prefix, held)| (*prefix, held.part.clone())).collect();
        if !parts.is_empty() {
            decision.publish(parts, Vec::new());
        }
        let pods = self.durable.leases.values().filter(|lease| !lease.is_node());
        decision.effects.extend(pods.map(|lease| Effect::PublishPod(lease.name.clone(), lease.pod.clone())));
        // A restart of a node that seeds is no reason to wait for an input.
        self.due = true;
    }

    fn tell_free_space(&mut self, decision: &mut Decision) {
        let record = self.free_space();
        let due = match self.told_free {
            None => self.heard.current().is_some(),
            Some((told, at)) => told != record && self.now >= at + FREE_SPACE_PACE,
        };
        if due {
            self.told_free = Some((record, self.now));
            decision.effects.push(Effect::PublishFreeSpace(record));
        }
    }

    fn free_space(&self) -> FreeSpaceRecord {
        FreeSpaceRecord { log2: self.pool4.free().checked_ilog2().map(|log2| log2 as u8) }
    }

    fn fold(&mut self, change: &Change) {
        match change {
            Change::PutPart { .. } | Change::DropPart(_) => {}
            Change::PutLease(lease) => lease.pod.addresses.iter().for_each(|address| {
                let (pool, number) = self.pool_of(*address);
                pool.take(number);
                self.holders.insert(*address, lease.name.clone());
            }),
            Change::DropLease(name) => {
                let addresses = self.durable.leases.get(name).map(|lease| lease.pod.addresses.clone());
                for address in addresses.iter().flatten() {
                    self.holders.remove(address);
                    // The end of a lease is known to end the use.
                    self.avoided.remove(address);
                }
            }
            Change::PutFreed { sequence, address } => {
                let (pool, number) = self.pool_of(*address);
                pool.rest(*sequence, number);
            }
            Change::DropFreed { sequence } => {
                if let Some(address) = self.durable.freed.get(sequence).copied() {
                    self.pool_of(address).0.refresh(*sequence);
                }
            }
        }
    }

    /// The pool of an address's family, and its number there.
    fn pool_of(&mut self, address: IpAddr) -> (&mut Pool, u32) {
        let pool = if address.is_ipv4() { &mut self.pool4 } else { &mut self.pool6 };
        (pool, number_of(address))
    }

    /// Derives ring, pools and holders from what is durable.
    fn rebuild(&mut self) {
        self.mine = self.durable.ring();
        let owned = self.mine.iter().filter(|(_, order)| order.peer == self.me);
        self.pool4 = Pool::new(owned.map(|(prefix, _)| span(prefix)));
        let (network, broadcast) = span(self.config.range4);
        [network, broadcast].iter().for_each(|reserved| self.pool4.take(*reserved));
        // The first is the subnet-router anycast address, the last is left out like a broadcast address.
        self.pool6 = Pool::new([(1, 0xfffe)]);
        self.holders = BTreeMap::new();
        for lease in self.durable.leases.values() {
            for address in &lease.pod.addresses {
                let pool = if address.is_ipv4() { &mut self.pool4 } else { &mut self.pool6 };
                pool.take(number_of(*address));
                self.holders.insert(*address, lease.name.clone());
            }
        }
        for address in &self.avoided {
            let pool = if address.is_ipv4() { &mut self.pool4 } else { &mut self.pool6 };
            pool.take(number_of(*address));
        }
        for (sequence, address) in &self.durable.freed {
            let pool = if address.is_ipv4() { &mut self.pool4 } else { &mut self.pool6 };
            if pool.is_free(number_of(*address)) {
                pool.rest(*sequence, number_of(*address));
            }
        }
        self.rebuild_view();
    }

    pub(crate) fn rebuild_view(&mut self) {
        self.view = self.heard.ring().clone();
        for (prefix, order) in self.mine.iter() {
            self.view.merge(prefix, order);
        }
    }
}

/// The number of an address in its family's pool.
pub(crate) fn number_of(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => (u128::from(address) & 0xffff) as u32,
    }
}

fn longest_part(range: Ipv4Net) -> u8 {
    (range.prefix_len() + MAX_PARTS_LOG2).min(32)
}

impl Ipam {
    /// Whether this node makes the ring itself when nobody else has one.
    pub(crate) fn seeds(&self) -> bool {
        matches!(self.config.init, Init::Seed | Init::Auto { has_peers: false })
    }

    /// Whether an address may never be leased.
    pub(crate) fn is_reserved(&self, address: Ipv4Addr) -> bool {
        let range = self.config.range4;
        !range.contains(&address) || address == range.network() || address == range.broadcast()
    }
}
