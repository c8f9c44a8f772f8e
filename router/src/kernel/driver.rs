//! The thread that keeps the kernel in line with the mesh.
//!
//! It takes whole desired states, the latest replacing what waits, and requests to route a pod's link that somebody
//! awaits. What waits is taken at once and settled once: the kernel lets a grace period pass for every change of the
//! firewall, so that pods which come together share one. Links are removed beside the thread, since the kernel waits
//! longer still for each.
//!
//! A second thread watches what others change. What the kernel refuses is logged once, kept for `status`, and tried again
//! at the next look. What was put back and what was refused is also kept as [`KernelNews`] until the node's actor takes it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use meshwork_sys::netlink::{Changes, Netlink, Traffic, Watch};
use meshwork_sys::wake::Wake;
use meshwork_wire::PeerId;
use tokio::sync::{Notify, oneshot};
use tokio::task::spawn_blocking;

use super::clear::ClearLinks;
use super::desired::Overlay;
use super::watcher::Watcher;
use super::worker::Worker;
use super::{guard, is_pod_link};

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

/// What the worker is asked.
pub(super) enum Request {
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

pub(super) type News = Arc<Mutex<Vec<KernelNews>>>;

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
        let watch = Watch::start(guard::TABLE_NAME, &netlink)?;
        let worker = Worker::new(netlink, Arc::clone(&health), Arc::clone(&news));
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
