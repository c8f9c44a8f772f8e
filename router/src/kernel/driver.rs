//! The thread that keeps the kernel in line with the mesh.
//!
//! It takes whole desired states, the latest replacing what waits, and single requests about a pod's link that somebody
//! awaits. Between requests it looks every [`RECONCILE_INTERVAL`] whether anything was changed behind our back. What
//! the kernel refuses is logged once, kept for `status`, and tried again at the next look.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use meshwork_api::link::LinkMacs;
use meshwork_sys::netlink::{InterfaceAddress, Netlink, Scope};
use meshwork_sys::nft;
use tokio::sync::oneshot;

use super::desired::Overlay;
use super::{GATEWAY6, guard, is_pod_link, reconcile, underlay};
use crate::config::SMALLEST_POD_MTU;

/// How often routes and nexthops are compared unasked: three dumps, well under a millisecond.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(2);

/// How often the firewall table is looked for unasked: each look starts the `nft` program.
const GUARD_INTERVAL: Duration = Duration::from_secs(10);

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
    RoutePod { link: String, overlay: Arc<Overlay>, reply: Reply },
    RemoveLink { link: String, reply: Reply },
    Stop,
}

/// What the thread last saw.
#[derive(Debug, Clone, Default)]
pub struct KernelHealth {
    /// Whether the latest desired state stands in full.
    pub in_place: bool,
    /// What the kernel refused last, while it still does.
    pub error: Option<String>,
    /// Times something was found changed and mended, beyond what the mesh asked for.
    pub repairs: u64,
    /// Overlay packets that the guard kept from travelling in clear.
    pub clear_blocked: u64,
    /// Packets of pods with a source that is not theirs.
    pub pod_wrong_source: u64,
}

/// Handle of the thread.
pub struct KernelDriver {
    requests: Sender<Request>,
    health: Arc<Mutex<KernelHealth>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl KernelDriver {
    /// Starts the thread, in the network namespace of the caller.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(netlink: Netlink) -> std::io::Result<Self> {
        let (requests, receiver) = mpsc::channel();
        let health = Arc::new(Mutex::new(KernelHealth::default()));
        let worker = Worker::new(netlink, Arc::clone(&health));
        let thread = thread::Builder::new().name("kernel".into()).spawn(move || worker.run(&receiver))?;
        Ok(Self { requests, health, thread: Mutex::new(Some(thread)) })
    }

    /// Asks for a state; the latest asked for is the one that counts.
    pub fn apply(&self, overlay: Arc<Overlay>) {
        self.request(Request::Apply(overlay));
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
        let (reply, answer) = oneshot::channel();
        self.request(Request::RemoveLink { link, reply });
        answer.await.unwrap_or(Err(KernelError::Stopped))
    }

    /// What the thread last saw.
    #[must_use]
    pub fn health(&self) -> KernelHealth {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the thread; everything it made stays.
    pub fn stop(&self) {
        self.request(Request::Stop);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the kernel thread had panicked");
        }
    }

    /// A request to a thread that is gone is dropped with its reply, which tells whoever waits.
    fn request(&self, request: Request) {
        let _ = self.requests.send(request);
    }
}

struct Worker {
    netlink: Netlink,
    health: Arc<Mutex<KernelHealth>>,
    desired: Option<Arc<Overlay>>,
    /// The script in force, as far as we know.
    guard: String,
    guard_looked: Instant,
}

impl Worker {
    fn new(netlink: Netlink, health: Arc<Mutex<KernelHealth>>) -> Self {
        Self { netlink, health, desired: None, guard: String::new(), guard_looked: Instant::now() }
    }

    fn run(mut self, requests: &Receiver<Request>) {
        loop {
            match requests.recv_timeout(RECONCILE_INTERVAL) {
                Ok(Request::Apply(overlay)) => {
                    self.desired = Some(overlay);
                    self.settle();
                }
                Ok(Request::RoutePod { link, overlay, reply }) => {
                    self.desired = Some(overlay);
                    // Nobody waits any more where the caller gave up.
                    let _ = reply.send(self.route_pod(&link));
                }
                Ok(Request::RemoveLink { link, reply }) => {
                    let _ = reply.send(self.remove_link(&link));
                }
                Err(RecvTimeoutError::Timeout) => self.look(),
                Ok(Request::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Brings everything in line and remembers how it went.
    fn settle(&mut self) {
        let outcome = self.try_settle();
        self.remember(outcome);
    }

    fn try_settle(&mut self) -> meshwork_sys::Result<bool> {
        let Some(overlay) = self.desired.clone() else { return Ok(false) };
        // The guard first: a route must never exist before the wall behind it.
        let guarded = self.put_guard(&overlay)?;
        Ok(reconcile::reconcile(&mut self.netlink, &overlay)? || guarded)
    }

    fn put_guard(&mut self, overlay: &Overlay) -> meshwork_sys::Result<bool> {
        let script = guard::script(overlay);
        if script == self.guard {
            return Ok(false);
        }
        nft::apply(&script)?;
        self.guard = script;
        self.guard_looked = Instant::now();
        Ok(true)
    }

    /// Looks whether anything changed behind our back, and mends it.
    fn look(&mut self) {
        if self.guard_looked.elapsed() >= GUARD_INTERVAL {
            self.guard_looked = Instant::now();
            self.look_at_guard();
        }
        let outcome = self.try_settle();
        if let Ok(true) = outcome {
            tracing::warn!("kernel objects of ours had been changed by somebody else; restored");
            self.health().repairs += 1;
        }
        self.remember(outcome);
    }

    /// A table that is gone is forgotten here, so that settling puts it back; its counters are read while it stands.
    fn look_at_guard(&mut self) {
        match (
            nft::counter("inet", "meshwork", guard::CLEAR_BLOCKED),
            nft::counter("inet", "meshwork", guard::WRONG_SOURCE),
        ) {
            (Ok(clear), Ok(wrong)) => {
                let mut health = self.health();
                health.clear_blocked = clear;
                health.pod_wrong_source = wrong;
            }
            _ => self.guard.clear(),
        }
    }

    fn route_pod(&mut self, link: &str) -> Result<(), KernelError> {
        let Some(found) = self.netlink.link(link)? else { return Err(KernelError::NoLink(link.to_owned())) };
        let ipv6 = underlay::has_ipv6() && found.mtu >= SMALLEST_POD_MTU;
        underlay::distrust(link)?;
        if ipv6 {
            self.netlink.set_address_generation_none(found.index)?;
        }
        if !found.up {
            self.netlink.set_up(found.index)?;
        }
        if ipv6 {
            let net = ipnet::Ipv6Net::new_assert(GATEWAY6, 64).into();
            self.netlink.add_address(found.index, &InterfaceAddress { net, scope: Scope::Link, nodad: true })?;
        }
        self.know_pod(link, found.index, ipv6)?;
        let outcome = self.try_settle();
        self.remember(outcome.as_ref());
        Ok(outcome.map(|_| ())?)
    }

    /// Both ends' Ethernet addresses follow from the link's name, so the host need not ask the pod for its own.
    fn know_pod(&mut self, link: &str, index: u32, ipv6: bool) -> Result<(), KernelError> {
        let (Some(overlay), Some(macs)) = (self.desired.clone(), LinkMacs::of_host_interface(link)) else {
            return Ok(());
        };
        let addresses = overlay.pods.get(link).into_iter().flatten();
        for address in addresses.filter(|address| ipv6 || address.is_ipv4()) {
            self.netlink.replace_neighbour(index, *address, macs.pod.0)?;
        }
        Ok(())
    }

    fn remove_link(&mut self, link: &str) -> Result<(), KernelError> {
        if is_pod_link(link) {
            self.netlink.delete_link(link)?;
        }
        Ok(())
    }

    fn health(&self) -> std::sync::MutexGuard<'_, KernelHealth> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember<T, E: std::fmt::Display>(&self, outcome: Result<T, E>) {
        let error = outcome.err().map(|error| error.to_string());
        let mut health = self.health();
        if let Some(error) = &error
            && health.error.as_ref() != Some(error)
        {
            tracing::error!(%error, "the kernel refused a change");
        }
        health.in_place = error.is_none();
        health.error = error;
    }
}
