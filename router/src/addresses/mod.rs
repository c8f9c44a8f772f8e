//! Leases and the ring, with the database behind them, on a thread of their own.
//!
//! [`worker`] runs the state machine of `meshwork_ipam`: it decides, makes the decision durable, applies it, and only
//! then lets its effects out. So an answer that was given is always on disk, and a slow disk delays leases but no
//! heartbeat: nobody else writes to it. [`Allocator`] is the handle that everyone else holds.

#[cfg(test)]
mod tests;
mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use ipnet::Ipv4Net;
use meshwork_ipam::{Effect, Input, Ipam, Lease, LeaseError, LeaseRequest, Status};
use meshwork_state::{NodeState, StateError};
use meshwork_wire::record::{PodKey, PodRecord, RingPart};
use meshwork_wire::{Incarnation, PeerId};
use tokio::sync::{mpsc, oneshot};

use worker::{Request, Worker};

/// Requests that may wait. Gossip's inputs are whole states and messages that are repeated, so that what does not fit
/// is not lost for good; leases are refused instead.
const REQUESTS: usize = 1024;

/// What the allocator wants of the node's actor.
#[derive(Debug)]
pub enum AddressEvent {
    /// Everything that the disk held has been told: the first state that others see of this run may follow.
    Begun,
    /// Something to send or to publish. Answers to requests are not among these: they go to whoever asked.
    Effect(Effect),
    /// [`Allocator::view`] answers something else than before.
    ViewChanged,
    /// The disk has taken in what others knew of a later state, up to this run.
    CaughtUp(Incarnation),
    /// Addresses are handed out again, as this run, which is above all that others knew.
    Above(Incarnation),
    /// It is not known what is on disk: only a restart, which reads it, may hand out addresses again.
    Lost(StateError),
}

/// Ownership and leases at one moment.
#[derive(Debug, Clone)]
pub struct View {
    /// State for people and programs.
    pub status: Status,
    /// Ring parts by owner.
    pub ownership: BTreeMap<PeerId, Vec<Ipv4Net>>,
    /// Leases of this node, its own among them.
    pub leases: Vec<Lease>,
}

/// Handle of the thread.
#[derive(Clone)]
pub struct Allocator {
    requests: SyncSender<Request>,
    view: Arc<ArcSwap<View>>,
    targets: Arc<[String]>,
    exposed: bool,
}

impl Allocator {
    /// Starts the thread. The first input it sees is [`Input::Started`].
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(ipam: Ipam, state: NodeState, events: mpsc::UnboundedSender<AddressEvent>) -> std::io::Result<Self> {
        let targets = state.targets().unwrap_or_else(|error| {
            tracing::error!(%error, "cannot read the remembered targets");
            Vec::new()
        });
        let exposed = state.exposed().unwrap_or_else(|error| {
            tracing::error!(%error, "cannot read whether the host is exposed, so it is hidden");
            false
        });
        let (requests, receiver) = std::sync::mpsc::sync_channel(REQUESTS);
        let view = Arc::new(ArcSwap::from_pointee(worker::view(&ipam)));
        let worker = Worker::new(ipam, state, events, Arc::clone(&view));
        std::thread::Builder::new().name("allocator".into()).spawn(move || worker.run(&receiver))?;
        Ok(Self { requests, view, targets: targets.into(), exposed })
    }

    /// Ownership and leases now.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Hands over what gossip heard. Dropped when the allocator is far behind; false then.
    pub fn input(&self, input: Input) -> bool {
        self.requests.try_send(Request::Input(input)).is_ok()
    }

    /// Hands over what this node published in a later state than its disk has. False when the allocator is far behind.
    pub fn catch_up(
        &self,
        incarnation: Incarnation,
        parts: Vec<(Ipv4Net, RingPart)>,
        pods: Vec<(PodKey, PodRecord)>,
    ) -> bool {
        let former = Input::Former { parts, pods };
        self.requests.try_send(Request::CatchUp { incarnation, former }).is_ok()
    }

    /// Goes on above the run of a copy, which is caught up with. False when the allocator is far behind.
    pub fn go_on_above(&self, copied: Incarnation) -> bool {
        self.requests.try_send(Request::Above(Incarnation(copied.0.saturating_add(1)))).is_ok()
    }

    /// Leases an address, waiting for space or a ring at most that long.
    ///
    /// # Errors
    /// [`LeaseError`] says what was waited for, or what speaks against the wish.
    pub async fn lease(&self, request: LeaseRequest, patience: Duration) -> Result<Lease, LeaseError> {
        let (reply, answer) = oneshot::channel();
        let deadline = Instant::now() + patience;
        self.request(Request::Lease { request, deadline, reply })?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Frees one interface of a sandbox, or all; answers what was freed.
    ///
    /// # Errors
    /// When the change could not be recorded.
    pub async fn release(&self, sandbox: String, interface: Option<String>) -> Result<Vec<Lease>, LeaseError> {
        let (reply, answer) = oneshot::channel();
        self.request(Request::Release { sandbox, interface, reply })?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Frees a lease that still stands exactly so; answers it, or nothing where it changed.
    ///
    /// # Errors
    /// When the change could not be recorded.
    pub async fn release_unchanged(&self, lease: Lease) -> Result<Vec<Lease>, LeaseError> {
        let (reply, answer) = oneshot::channel();
        self.request(Request::ReleaseUnchanged { lease, reply })?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    fn request(&self, request: Request) -> Result<(), LeaseError> {
        self.requests
            .try_send(request)
            .map_err(|_| LeaseError::Storage("the allocator is far behind; try again".into()))
    }

    /// Targets that were remembered when the thread started.
    #[must_use]
    pub fn targets(&self) -> &[String] {
        &self.targets
    }

    /// Remembers a target over restarts, or no longer.
    ///
    /// # Errors
    /// When the change could not be recorded.
    pub async fn remember_target(&self, target: String, remember: bool) -> Result<(), RememberError> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Target { target, remember, reply };
        self.requests.try_send(request).map_err(|_| RememberError::Busy)?;
        answer.await.unwrap_or(Err(RememberError::Gone))
    }

    /// Whether others might reach the host when the thread started.
    #[must_use]
    pub fn exposed(&self) -> bool {
        self.exposed
    }

    /// Remembers over restarts whether others may reach the host.
    ///
    /// # Errors
    /// When the change could not be recorded.
    pub async fn remember_exposed(&self, exposed: bool) -> Result<(), RememberError> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Exposed { exposed, reply };
        self.requests.try_send(request).map_err(|_| RememberError::Busy)?;
        answer.await.unwrap_or(Err(RememberError::Gone))
    }
}

/// Why a choice of the operator is not remembered.
#[derive(Debug, thiserror::Error)]
pub enum RememberError {
    /// The disk.
    #[error(transparent)]
    State(#[from] StateError),
    /// Too many requests wait.
    #[error("the allocator is far behind; try again")]
    Busy,
    /// The thread has ended.
    #[error("the daemon is shutting down")]
    Gone,
}

fn gone() -> LeaseError {
    LeaseError::Storage("the daemon is shutting down".into())
}
