//! The thread that keeps the kernel in line with the mesh.
//!
//! It takes whole desired states, the latest replacing what waits, and requests to route a pod's link that somebody
//! awaits. What waits is taken at once and settled once: the kernel lets a grace period pass for every change of the
//! firewall, so that pods which come together share one. Links are removed beside the thread, since the kernel waits
//! longer still for each.
//!
//! A second thread watches what others change and has the first look; without any notice it looks every
//! [`RECONCILE_INTERVAL`], and less often where that takes long. The firewall's transactions are numbered by the kernel: those that touched our table and are
//! none of ours put it back. What the kernel refuses is logged once, kept for `status`, and tried again at the next look.
//! What was put back and what was refused is also kept as [`KernelNews`] until the node's actor takes it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use meshwork_sys::netlink::{Changes, Netlink, Traffic, Watch, firewall_generation};
use meshwork_sys::nft;
use meshwork_sys::wake::{Ready, Wake};
use meshwork_wire::PeerId;
use tokio::sync::{Notify, oneshot};
use tokio::task::spawn_blocking;

use super::clear::ClearLinks;
use super::desired::Overlay;
use super::mended::Mended;
use super::reconcile::{Reconciled, RefusedRoute};
use super::transactions::Transactions;
use super::{guard, is_pod_link, reconcile};
use crate::moderation::Moderation;

/// How often routes and nexthops are compared unasked: three dumps, well under a millisecond.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(2);

/// How long such a comparison rests at least, as a multiple of what it took: a thousandth of a core, whatever the mesh's size.
const RECONCILE_REST: u32 = 999;

/// It does not rest longer.
const LONGEST_RECONCILE_REST: Duration = Duration::from_secs(30);

/// Most requests settled at once: more would keep the first of them waiting for the links of all.
const TOGETHER: usize = 64;

/// How often settling begins again where a link goes meanwhile. Every attempt lists links anew.
const ATTEMPTS: usize = 3;

/// How often the firewall's counters are read: each time starts the `nft` program.
const COUNTERS_INTERVAL: Duration = Duration::from_secs(10);

/// Notices come in bursts, some of our own making: one look answers all that came within this time.
const SETTLING: Duration = Duration::from_millis(100);

/// How long the watch waits when nothing happens.
const WATCH_INTERVAL: Duration = Duration::from_secs(60);

/// News that wait for the actor, which takes them twice a second; the latest are left out when it does not.
const MOST_NEWS: usize = 64;

/// Why a pod's link could not be put in place.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The host end is not there.
    #[error("link {0} does not exist: it must be made before the lease is confirmed")]
    NoLink(String),
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] meshwork_sys::Error),
    /// The thread is gone.
    #[error("the daemon is shutting down")]
    Stopped,
}

type Reply = oneshot::Sender<Result<(), KernelError>>;

enum Request {
    Apply(Arc<Overlay>),
    Put { overlay: Arc<Overlay>, reply: Reply },
    RoutePod { link: String, overlay: Arc<Overlay>, reply: Reply },
    Changed(Changes),
    Stop,
}

/// What the thread last saw.
#[derive(Debug, Clone, Default)]
pub struct KernelHealth {
    /// Whether the latest desired state stands in full.
    pub in_place: bool,
    /// Whether it stands but for single routes, mostly because somebody else's are in their place.
    pub usable: bool,
    /// What the kernel refused last, while it still does.
    pub error: Option<String>,
    /// Times something was found changed and mended, beyond what the mesh asked for.
    pub repairs: u64,
    /// Overlay packets that the guard kept from travelling in clear.
    pub clear_blocked: u64,
    /// Packets of pods with a source that is not theirs.
    pub pod_wrong_source: u64,
    /// Packets of the clear path from or to addresses for which it is not allowed.
    pub clear_refused: u64,
    /// Packets from the overlay to the hidden host.
    pub hidden: u64,
    /// Devices of the clear path that stand.
    pub clear_links: ClearLinks,
    /// Peers that packets go to in clear, and to which address.
    pub in_clear: BTreeMap<PeerId, IpAddr>,
    /// The same as an earlier run left it, by Ethernet address, for peers that are not known yet.
    pub left_in_clear: BTreeMap<[u8; 6], IpAddr>,
    /// What the devices carried.
    pub clear_traffic: Traffic,
}

/// What the thread did or could not do of its own accord.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelNews {
    /// These objects of ours had been changed by others, and were put back.
    Repaired(Vec<String>),
    /// The kernel refused a change, with what it said.
    Refused(String),
}

type News = Arc<Mutex<Vec<KernelNews>>>;

/// Handle of the thread.
pub struct KernelDriver {
    requests: Sender<Request>,
    health: Arc<Mutex<KernelHealth>>,
    news: News,
    changed: Arc<Notify>,
    ending: Arc<Wake>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl KernelDriver {
    /// Starts the threads, in the network namespace of the caller.
    ///
    /// # Errors
    /// When the system gives no thread, or the kernel no notices.
    pub fn start(netlink: Netlink) -> meshwork_sys::Result<Self> {
        let refused = |source| meshwork_sys::Error::refused("start a thread", source);
        let (requests, receiver) = mpsc::channel();
        let (health, news) = (Arc::new(Mutex::new(KernelHealth::default())), News::default());
        let (changed, ending) = (Arc::new(Notify::new()), Arc::new(Wake::new().map_err(refused)?));
        let worker = Worker::new(netlink, Arc::clone(&health), Arc::clone(&news));
        let watch = Watch::start(guard::TABLE_NAME)?;
        let worker = thread::Builder::new().name("kernel".into()).spawn(move || worker.run(&receiver));
        let watcher =
            Watcher { watch, ending: Arc::clone(&ending), changed: Arc::clone(&changed), requests: requests.clone() };
        let watcher = thread::Builder::new().name("kernel-watch".into()).spawn(move || watcher.run());
        let threads = Mutex::new(vec![worker.map_err(refused)?, watcher.map_err(refused)?]);
        Ok(Self { requests, health, news, changed, ending, threads })
    }

    /// Resolves after links, addresses or routes changed, whoever changed them.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Asks for a state; the latest asked for is the one that counts.
    pub fn apply(&self, overlay: Arc<Overlay>) {
        self.request(Request::Apply(overlay));
    }

    /// Asks for a state, at the call and before any later one; the future only waits until it stands.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn put(&self, overlay: Arc<Overlay>) -> impl Future<Output = Result<(), KernelError>> + use<> {
        let (reply, answer) = oneshot::channel();
        self.request(Request::Put { overlay, reply });
        async { answer.await.unwrap_or(Err(KernelError::Stopped)) }
    }

    /// Puts a pod's link in place: up, gateway on it, routed, and allowed to send. `overlay` already holds the pod. It
    /// is asked for at the call, before any later state; the future only waits for the outcome.
    ///
    /// # Errors
    /// [`KernelError`] names the link or what the kernel refused.
    pub fn route_pod(
        &self,
        link: String,
        overlay: Arc<Overlay>,
    ) -> impl Future<Output = Result<(), KernelError>> + use<> {
        let (reply, answer) = oneshot::channel();
        self.request(Request::RoutePod { link, overlay, reply });
        async { answer.await.unwrap_or(Err(KernelError::Stopped)) }
    }

    /// Deletes a pod's link, its host routes with it; succeeds where there is none.
    ///
    /// # Errors
    /// What the kernel refused.
    pub async fn remove_link(&self, link: String) -> Result<(), KernelError> {
        if !is_pod_link(&link) {
            return Ok(());
        }
        let removed = spawn_blocking(move || Netlink::connect()?.delete_link(&link)).await;
        Ok(removed.map_err(|_| KernelError::Stopped)??)
    }

    /// Devices of the clear path that stand.
    #[must_use]
    pub fn clear_links(&self) -> ClearLinks {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clear_links
    }

    /// What the thread last saw.
    #[must_use]
    pub fn health(&self) -> KernelHealth {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What happened since the last call.
    #[must_use]
    pub fn take_news(&self) -> Vec<KernelNews> {
        std::mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends the threads; everything they made stays.
    pub fn stop(&self) {
        self.ending.ring();
        self.request(Request::Stop);
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a kernel thread had panicked");
            }
        }
    }

    /// A request to a thread that is gone is dropped with its reply, which tells whoever waits.
    fn request(&self, request: Request) {
        let _ = self.requests.send(request);
    }
}

/// Tells the worker what others change.
struct Watcher {
    watch: Watch,
    ending: Arc<Wake>,
    changed: Arc<Notify>,
    requests: Sender<Request>,
}

impl Watcher {
    fn run(mut self) {
        loop {
            let told = match self.watch.wait(&self.ending, WATCH_INTERVAL) {
                Ok(Ready::Rung) => return,
                Ok(Ready::TimedOut) => continue,
                Ok(Ready::Readable) => {
                    thread::sleep(SETTLING);
                    self.watch.changes()
                }
                Err(error) => Err(error),
            };
            let Ok(changes) = told.inspect_err(|error| tracing::error!(%error, "changes by others are seen late"))
            else {
                return;
            };
            if changes.routing {
                self.changed.notify_one();
            }
            if self.requests.send(Request::Changed(changes)).is_err() {
                return;
            }
        }
    }
}

/// What settling changed, and the routes that it could not.
#[derive(Default)]
struct Settled {
    mended: Mended,
    refused: Vec<RefusedRoute>,
}

struct Worker {
    netlink: Netlink,
    health: Arc<Mutex<KernelHealth>>,
    news: News,
    desired: Option<Arc<Overlay>>,
    /// The script in force, as far as we know.
    guard: String,
    transactions: Transactions,
    /// Interfaces whose settings may have been changed.
    settings: BTreeSet<i32>,
    looked: Instant,
    look_rest: Duration,
    counted: Instant,
    /// Replaces the desired state once it has rested.
    resting: Option<Arc<Overlay>>,
    moderation: Moderation,
}

impl Worker {
    fn new(netlink: Netlink, health: Arc<Mutex<KernelHealth>>, news: News) -> Self {
        let (looked, counted) = (Instant::now(), Instant::now());
        let (guard, transactions, settings) = (String::new(), Transactions::default(), BTreeSet::new());
        let (desired, resting, moderation) = (None, None, Moderation::new(looked));
        let look_rest = RECONCILE_INTERVAL;
        Self {
            netlink,
            health,
            news,
            desired,
            guard,
            transactions,
            settings,
            looked,
            look_rest,
            counted,
            resting,
            moderation,
        }
    }

    fn run(mut self, requests: &Receiver<Request>) {
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
            look |= touched || changes.routing;
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
        let mut outcome = reconcile::reconcile(&mut self.netlink, &overlay, &self.settings);
        for _ in 1..ATTEMPTS {
            match &outcome {
                Err(error) if error.is_not_found() => {
                    outcome = reconcile::reconcile(&mut self.netlink, &overlay, &self.settings);
                }
                _ => break,
            }
        }
        let reconciled = outcome?;
        self.settings.clear();
        let mut health = self.health();
        health.in_clear = overlay.in_clear(reconciled.clear);
        health.left_in_clear = overlay.left_in_clear(reconciled.clear);
        (health.clear_links, health.clear_traffic) = (reconciled.clear, reconciled.clear_traffic);
        drop(health);
        let Reconciled { mut mended, refused, .. } = reconciled;
        if guarded {
            mended.note("table", format_args!("inet {}", guard::TABLE_NAME));
        }
        Ok(Settled { mended, refused })
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
        let rest = self.looked.elapsed() * RECONCILE_REST;
        // What was refused is tried again soon.
        let longest = if self.health().error.is_none() { LONGEST_RECONCILE_REST } else { RECONCILE_INTERVAL };
        self.look_rest = rest.clamp(RECONCILE_INTERVAL, longest);
    }

    /// Counters that cannot be read mean that the table is gone: it is put back at once.
    fn read_counters(&mut self) {
        let counters = nft::counters("inet", guard::TABLE_NAME).unwrap_or_default();
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

    fn remember(&self, outcome: Result<&Settled, &meshwork_sys::Error>) {
        let error = match outcome {
            Ok(settled) => settled.refused.first().map(|route| route.error.to_string()),
            Err(error) => Some(error.to_string()),
        };
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
