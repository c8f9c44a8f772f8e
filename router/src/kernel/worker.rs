//! The work of the kernel thread: it settles what is desired, looks whether it stands, and tells what it mended.
//!
//! Without any notice it looks every [`RECONCILE_INTERVAL`], and less often where that takes long. What changes over its
//! own socket is not noticed. The firewall's transactions are numbered by the kernel: those that touched our table and are
//! none of ours put it back.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use meshwork_sys::netlink::{EVERY_INTERFACE, Netlink, firewall_counters, firewall_generation};
use meshwork_sys::nft;

use super::desired::{Overlay, Routing};
use super::driver::{KernelError, KernelHealth, KernelNews, News, Request};
use super::mended::Mended;
use super::reconcile::{Reconciled, RefusedRoute};
use super::transactions::Transactions;
use super::{guard, reconcile};
use crate::moderation::Moderation;

/// How often routes and nexthops are compared unasked: three dumps, well under a millisecond.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(2);

/// How long such a comparison rests at least, as a multiple of what it took: a ten-thousandth of a core, whatever the mesh's size.
const RECONCILE_REST: u32 = 9_999;

/// The same after changes of our own, which others may have crossed: what the kernel notices of them is not looked at.
const OWN_CHANGE_REST: u32 = 99;

/// It does not rest longer.
const LONGEST_RECONCILE_REST: Duration = Duration::from_secs(60);

/// Most requests settled at once: more would keep the first of them waiting for the links of all.
const TOGETHER: usize = 64;

/// How often settling begins again where a link goes meanwhile. Every attempt lists links anew.
const ATTEMPTS: usize = 3;

/// How often the firewall's counters are read at most: with each look.
const COUNTERS_INTERVAL: Duration = Duration::from_secs(10);

/// News that wait for the actor, which takes them twice a second; the latest are left out when it does not.
const MOST_NEWS: usize = 64;

/// What settling changed, and the routes that it could not.
#[derive(Default)]
struct Settled {
    mended: Mended,
    refused: Vec<RefusedRoute>,
}

pub(super) struct Worker {
    netlink: Netlink,
    health: Arc<Mutex<KernelHealth>>,
    news: News,
    desired: Option<Arc<Overlay>>,
    /// The script in force, as far as we know.
    guard: String,
    transactions: Transactions,
    /// Interfaces whose settings may have been changed.
    settings: BTreeSet<i32>,
    /// Interfaces of ours, as last seen.
    devices: BTreeSet<i32>,
    /// Nexthops and routes of ours, as last seen and changed since: hundreds in a large mesh, of which few change at a time.
    present: Option<Routing>,
    looked: Instant,
    look_took: Duration,
    look_rest: Duration,
    counted: Instant,
    /// Replaces the desired state once it has rested.
    resting: Option<Arc<Overlay>>,
    moderation: Moderation,
}

impl Worker {
    pub(super) fn new(netlink: Netlink, health: Arc<Mutex<KernelHealth>>, news: News) -> Self {
        let (looked, counted) = (Instant::now(), Instant::now());
        let (guard, transactions, settings) = (String::new(), Transactions::default(), BTreeSet::new());
        let (desired, resting, moderation) = (None, None, Moderation::new(looked));
        let (look_rest, devices) = (RECONCILE_INTERVAL, BTreeSet::new());
        Self {
            netlink,
            health,
            news,
            desired,
            guard,
            transactions,
            settings,
            devices,
            present: None,
            looked,
            look_took: Duration::ZERO,
            look_rest,
            counted,
            resting,
            moderation,
        }
    }

    pub(super) fn run(mut self, requests: &Receiver<Request>) {
        loop {
            let rest = self.look_rest.saturating_sub(self.looked.elapsed());
            let rest = match self.resting {
                Some(_) => rest.min(self.moderation.rests_until().saturating_duration_since(Instant::now())),
                None => rest,
            };
            match requests.recv_timeout(rest) {
                Ok(first) => {
                    let all = std::iter::once(first).chain(requests.try_iter()).take(TOGETHER);
                    if self.carry_out(all.collect()).is_break() {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= self.moderation.rests_until()
                && let Some(rested) = self.resting.take()
            {
                let outcome = self.settle(rested);
                self.remember(outcome.as_ref());
            }
            if self.looked.elapsed() >= self.look_rest {
                self.look();
            }
        }
    }

    /// Looks where others changed something, against the state that was asked for until now.
    fn handle_changes(&mut self, all: &[Request]) {
        let mut look = false;
        for request in all {
            let Request::Changed(changes) = request else { continue };
            let foreign =
                changes.firewall.iter().filter(|generation| !self.transactions.take(**generation)).count() > 0;
            let touched = foreign || (changes.firewall_lost && !self.firewall_stands());
            if touched {
                self.guard.clear();
            }
            self.settings.extend(&changes.settings);
            let ours = |index: &i32| *index == EVERY_INTERFACE || self.devices.contains(index);
            look |= touched || changes.routing || !changes.settings.is_empty() || changes.neighbours.iter().any(ours);
        }
        if look {
            self.look();
        }
    }

    /// Whether nobody touched the firewall since we did; where that is not to be known, somebody may have.
    fn firewall_stands(&self) -> bool {
        firewall_generation().is_ok_and(|generation| self.transactions.stands(generation))
    }

    /// Takes requests in their order, settles once, and answers those who wait.
    fn carry_out(&mut self, requests: Vec<Request>) -> ControlFlow<()> {
        self.handle_changes(&requests);
        let (mut waiting, mut latest) = (Vec::new(), None);
        for request in requests {
            match request {
                Request::Apply(overlay) => latest = Some(overlay),
                Request::Put { overlay, reply } => {
                    latest = Some(overlay);
                    waiting.push((None, reply));
                }
                Request::RoutePod { link, overlay, reply } => {
                    latest = Some(overlay);
                    waiting.push((Some(link), reply));
                }
                Request::Changed(_) => {}
                Request::Stop => return ControlFlow::Break(()),
            }
        }
        let Some(latest) = latest else { return ControlFlow::Continue(()) };
        if waiting.is_empty() && Instant::now() < self.moderation.rests_until() && !self.is_urgent(&latest) {
            self.resting = Some(latest);
            return ControlFlow::Continue(());
        }
        let mut outcome = self.settle(latest);
        self.remember(outcome.as_ref());
        for (link, reply) in waiting {
            let answer = match outcome {
                Ok(ref mut settled) => self.answer(link.as_deref(), settled),
                // An error has one owner: where the kernel refuses, the next one asks for itself.
                Err(error) => {
                    outcome = self.try_settle();
                    Err(error.into())
                }
            };
            // Nobody waits any more where the caller gave up.
            let _ = reply.send(answer);
        }
        ControlFlow::Continue(())
    }

    /// What settling led to for one who waits: a pod's link has to be there, and its own routes have to stand.
    fn answer(&mut self, link: Option<&str>, settled: &mut Settled) -> Result<(), KernelError> {
        let Some(link) = link else { return Ok(()) };
        if self.netlink.link(link)?.is_none() {
            return Err(KernelError::NoLink(link.to_owned()));
        }
        let addresses = self.desired.as_ref().and_then(|overlay| overlay.pods.get(link)).cloned().unwrap_or_default();
        let its_own = |route: &RefusedRoute| addresses.contains(&route.destination.addr());
        match settled.refused.iter().position(its_own) {
            Some(place) => Err(settled.refused.swap_remove(place).error.into()),
            None => Ok(()),
        }
    }

    /// The other side may refuse already what no longer goes in clear.
    fn is_urgent(&self, latest: &Overlay) -> bool {
        self.desired.as_ref().is_none_or(|before| latest.takes_clear_from(before))
    }

    /// Settles a new desired state, and lets the next one rest.
    fn settle(&mut self, desired: Arc<Overlay>) -> meshwork_sys::Result<Settled> {
        let begun = Instant::now();
        (self.desired, self.resting) = (Some(desired), None);
        let outcome = self.try_settle();
        self.moderation.worked(begun, Instant::now());
        outcome
    }

    fn try_settle(&mut self) -> meshwork_sys::Result<Settled> {
        let Some(overlay) = self.desired.clone() else { return Ok(Settled::default()) };
        // The guard first: a route must never exist before the wall behind it.
        let guarded = self.put_guard(&overlay)?;
        let mut outcome = self.reconcile(&overlay);
        for _ in 1..ATTEMPTS {
            match &outcome {
                Err(error) if error.is_not_found() => {
                    outcome = self.reconcile(&overlay);
                }
                _ => break,
            }
        }
        let reconciled = outcome?;
        self.settings.clear();
        self.devices.clone_from(&reconciled.devices);
        let mut health = self.health();
        health.in_clear = overlay.in_clear(reconciled.clear);
        health.left_in_clear = overlay.left_in_clear(reconciled.clear);
        (health.clear_links, health.clear_traffic) = (reconciled.clear, reconciled.clear_traffic);
        drop(health);
        let Reconciled { mut mended, refused, .. } = reconciled;
        if !mended.is_empty() {
            self.look_rest = self.look_rest.min(self.look_took * OWN_CHANGE_REST).max(RECONCILE_INTERVAL);
        }
        if guarded {
            mended.note("table", format_args!("inet {}", guard::TABLE_NAME));
        }
        Ok(Settled { mended, refused })
    }

    fn reconcile(&mut self, overlay: &Overlay) -> meshwork_sys::Result<Reconciled> {
        reconcile::reconcile(&mut self.netlink, overlay, &self.settings, &mut self.present)
    }

    fn put_guard(&mut self, overlay: &Overlay) -> meshwork_sys::Result<bool> {
        let script = guard::script(overlay);
        if script == self.guard {
            return Ok(false);
        }
        let before = firewall_generation()?;
        nft::apply(&script)?;
        let after = firewall_generation()?;
        self.transactions.note(before, after);
        self.guard = script;
        Ok(true)
    }

    /// Looks whether anything changed behind our back, and mends it.
    fn look(&mut self) {
        self.looked = Instant::now();
        if self.counted.elapsed() >= COUNTERS_INTERVAL {
            self.counted = self.looked;
            self.read_counters();
        }
        self.present = None;
        let outcome = self.try_settle();
        self.remember(outcome.as_ref());
        if let Ok(Settled { mended, .. }) = outcome
            && !mended.is_empty()
        {
            let objects = mended.into_names();
            tracing::warn!(?objects, "kernel objects of ours had been changed by somebody else; restored");
            self.health().repairs += 1;
            self.tell(KernelNews::Repaired(objects));
        }
        self.look_took = self.looked.elapsed();
        let rest = self.look_took * RECONCILE_REST;
        // What was refused is tried again soon.
        let longest = if self.health().error.is_none() { LONGEST_RECONCILE_REST } else { RECONCILE_INTERVAL };
        self.look_rest = rest.clamp(RECONCILE_INTERVAL, longest);
    }

    /// Counters that cannot be read mean that the table is gone: it is put back at once.
    fn read_counters(&mut self) {
        let counters = firewall_counters(guard::TABLE_NAME).unwrap_or_default();
        let names = [guard::CLEAR_BLOCKED, guard::WRONG_SOURCE, guard::CLEAR_REFUSED, guard::HIDDEN];
        match names.map(|name| counters.get(name).copied()) {
            [Some(blocked), Some(wrong), Some(refused), Some(hidden)] => {
                let mut health = self.health();
                health.clear_blocked = blocked;
                health.pod_wrong_source = wrong;
                health.clear_refused = refused;
                health.hidden = hidden;
            }
            _ => self.guard.clear(),
        }
    }

    fn health(&self) -> std::sync::MutexGuard<'_, KernelHealth> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, told: KernelNews) {
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        if news.len() < MOST_NEWS {
            news.push(told);
        }
    }

    fn remember(&mut self, outcome: Result<&Settled, &meshwork_sys::Error>) {
        let error = match outcome {
            Ok(settled) => settled.refused.first().map(|route| route.error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        if error.is_some() {
            self.look_rest = self.look_rest.min(RECONCILE_INTERVAL);
        }
        let mut health = self.health();
        if let Some(error) = &error
            && health.error.as_ref() != Some(error)
        {
            tracing::error!(%error, "the kernel refused a change");
            self.tell(KernelNews::Refused(error.clone()));
        }
        health.usable = outcome.is_ok();
        health.in_place = error.is_none();
        health.error = error;
    }
}
