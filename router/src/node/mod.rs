//! The node's one actor: it owns gossip, links and what the mesh means for this node.
//!
//! One task, [`run`], takes link events, outcomes of the allocator, questions of the API and timers, one at a time, so
//! nothing here needs a lock. What follows from a change (whom to dial, what the tunnel forwards, what the kernel
//! holds) is computed anew from the whole and handed on; those who receive it find the differences.
//!
//! - [`links`]: control links come and go
//! - [`neighbours`]: which of them this node wants, and which it takes
//! - [`mesh`]: gossip and addresses become dial targets, tunnel peers and kernel state
//! - [`host`]: the host under the overlay
//! - [`clear`]: the clear path, and the probes through it
//! - [`twins`]: two processes of one identity
//! - [`chronicle`]: what of all this changed, and why
//! - [`views`]: the same, as the API shows it

mod chronicle;
mod clear;
mod host;
mod links;
mod mesh;
mod named;
mod neighbours;
mod own;
mod twins;
mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use meshwork_gossip::Gossip;
use meshwork_gossip::neighbours::Choice;
use meshwork_identity::{Identity, Secrets};
use meshwork_state::StateError;
use meshwork_sys::netlink::Netlink;
use meshwork_tunnel::Tunnel;
use meshwork_wire::record::{PeerRecord, PodKey, PodRecord};
use meshwork_wire::{Incarnation, PeerId};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep_until;

use crate::addresses::{AddressEvent, Allocator};
use crate::config::Config;
use crate::control::dialer::Dialer;
use crate::control::{ControlEndpoint, ControlQueue, LinkEvent, LinkId, Run};
use crate::kernel::driver::KernelDriver;
use crate::kernel::underlay::Underlay;
use crate::moderation::Moderation;

pub use chronicle::EventClock;
pub use named::NameError;
pub use own::lease_own_address;
#[doc(hidden)]
pub use twins::twin_message_again;
pub use views::host_interface;

/// Questions that may wait: a burst of CNI calls and scrapes.
const QUESTIONS: usize = 256;

/// Longest sleep without a timer: how late a tunnel that has ended is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(2);

/// For so long what happens on links is taken in before its consequences are drawn: all of a burst costs what one costs,
/// and whoever sends what is dear to check keeps nobody waiting.
const LONGEST_TOGETHER: Duration = Duration::from_millis(5);

/// How long to leave an allocator alone whose queue is full.
const ALLOCATOR_PAUSE: Duration = Duration::from_millis(100);

/// Everything the actor is made of.
pub struct Parts {
    /// What the operator asked for.
    pub config: Arc<Config>,
    /// Who this node is.
    pub identity: Arc<Identity>,
    /// Which run of it.
    pub run: Run,
    /// Control links.
    pub control: ControlEndpoint,
    /// Datagrams on their way to it.
    pub control_queue: Arc<ControlQueue>,
    /// The encrypted path.
    pub tunnel: Tunnel,
    /// The kernel's side.
    pub kernel: Arc<KernelDriver>,
    /// Leases and the ring.
    pub allocator: Allocator,
    /// The host.
    pub underlay: Underlay,
    /// Finds what the run before left in the kernel.
    pub netlink: Netlink,
    /// Where the UDP socket listens.
    pub listen: SocketAddr,
    /// MTU of pods.
    pub mtu: u32,
    /// Whether AES-GCM is the faster cipher here.
    pub prefers_aes: bool,
    /// Secrets of the mesh.
    pub secrets: Secrets,
}

/// The actor's state.
pub struct Node {
    parts: Parts,
    started: Instant,
    gossip: Gossip,
    dialer: Dialer,
    links: BTreeMap<PeerId, links::Link>,
    peer_of_link: BTreeMap<LinkId, PeerId>,
    newcomers: twins::Newcomers,
    later_run: twins::LaterRun,
    choice: Choice,
    /// What members say of themselves.
    records: Arc<BTreeMap<PeerId, PeerRecord>>,
    own: Vec<std::net::IpAddr>,
    /// Whether others may reach the host there.
    exposed: bool,
    /// Host ends of pod links that are made.
    confirmed: BTreeSet<String>,
    /// What outlives a change until the next flush.
    stale: mesh::Stale,
    /// Set once somebody holds a later state of ours than we do.
    outranked: Option<Incarnation>,
    /// Pods that gossip had no room for.
    untold: BTreeMap<PodKey, PodRecord>,
    /// Set once the node must not go on.
    lost: Option<Lost>,
    clear: clear::ClearPath,
    chronicle: chronicle::Chronicle,
    /// Of computing anew what follows from the whole mesh.
    moderation: Moderation,
    host: host::HostReader,
    dropped_frames: u64,
    /// Callers that were sent elsewhere.
    sent_elsewhere: u64,
    misbehaved_frames: u64,
}

/// Asks the actor.
#[derive(Clone)]
pub struct NodeHandle {
    questions: mpsc::Sender<Question>,
}

type Question = Box<dyn FnOnce(&mut Node) + Send>;

/// What a node cannot go on without. But for the identity, a restart makes or reads it anew; whoever starts the daemon
/// is expected to.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// It is not known what is on disk.
    #[error(transparent)]
    State(#[from] StateError),
    /// The disk was older than what the mesh knew of this node; it no longer is.
    #[error("the state was rolled back: peers know run {0} of this node. It has caught up; start meshd again")]
    RolledBack(Incarnation),
    /// An earlier process holds the identity.
    #[error("identity in use at {0}: give a copied host a state directory of its own, or stop the other meshd")]
    IdentityInUse(SocketAddr),
    /// The device was deleted, or the socket is of no use.
    #[error("{0}; start meshd again, which makes what is missing")]
    Tunnel(String),
}

/// The actor has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the daemon is shutting down")]
pub struct NodeGone;

impl NodeHandle {
    /// A handle and the queue to give to [`run`].
    #[must_use]
    pub fn new() -> (Self, Questions) {
        let (questions, queue) = mpsc::channel(QUESTIONS);
        (Self { questions }, Questions(queue))
    }

    /// Runs a closure on the actor and brings its answer back.
    ///
    /// # Errors
    /// [`NodeGone`] when the daemon shuts down.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Node) -> T + Send + 'static,
    ) -> Result<T, NodeGone> {
        let (reply, answer) = oneshot::channel();
        let ask: Question = Box::new(move |node| {
            // Whoever asked may have gone away.
            let _ = reply.send(question(node));
        });
        self.questions.send(ask).await.map_err(|_| NodeGone)?;
        answer.await.map_err(|_| NodeGone)
    }
}

/// The actor's end of the questions.
pub struct Questions(mpsc::Receiver<Question>);

/// Runs the actor until `stop` resolves, then closes links and threads; kernel objects stay.
///
/// # Errors
/// [`Lost`] when the node cannot go on, and only a restart helps.
pub async fn run(
    parts: Parts,
    mut questions: Questions,
    mut link_events: mpsc::Receiver<LinkEvent>,
    mut addresses: mpsc::UnboundedReceiver<AddressEvent>,
    stop: impl Future<Output = ()>,
) -> Result<(), Lost> {
    let (mut node, mut frames, mut readings) = Node::new(parts, Instant::now());
    let kernel = Arc::clone(&node.parts.kernel);
    node.begin(&mut addresses).await;
    tokio::pin!(stop);
    loop {
        node.settle(Instant::now());
        if node.lost.is_some() {
            break;
        }
        let wake = node.wake_at(Instant::now());
        tokio::select! {
            Some(event) = link_events.recv() => {
                node.link_event(Instant::now(), event);
                let until = Instant::now() + LONGEST_TOGETHER;
                while Instant::now() < until && let Ok(event) = link_events.try_recv() {
                    node.link_event(Instant::now(), event);
                }
            }
            Some(event) = addresses.recv() => node.address_event(Instant::now(), event),
            Some(question) = questions.0.recv() => question(&mut node),
            Some(frame) = frames.recv() => node.clear_frame(Instant::now(), frame),
            () = kernel.changed() => node.host.due(Instant::now()),
            Some(reading) = readings.recv() => node.host_read(reading),
            () = sleep_until(wake.into()) => node.timers(Instant::now()),
            () = &mut stop => break,
        }
    }
    let lost = node.lost.take();
    node.shut_down().await;
    lost.map_or(Ok(()), Err)
}

/// Those of the links named that exist: a run that ended between lease and link leaves a lease without one.
fn standing_links(netlink: &mut Netlink, names: impl Iterator<Item = String>) -> BTreeSet<String> {
    let links = netlink.links().unwrap_or_else(|error| {
        tracing::warn!(%error, "pods of the run before have to be attached again");
        Vec::new()
    });
    let standing: BTreeSet<String> = links.into_iter().filter(|link| link.up).map(|link| link.name).collect();
    names.filter(|name| standing.contains(name)).collect()
}

impl Node {
    fn new(mut parts: Parts, now: Instant) -> (Self, mpsc::Receiver<clear::Frame>, mpsc::Receiver<host::Reading>) {
        let gossip = Gossip::new(Arc::clone(&parts.identity), parts.run.incarnation, now);
        let view = parts.allocator.view();
        // A restarted node keeps its address: what the run before left in the kernel stays in use meanwhile.
        let own = view.leases.iter().find(|lease| lease.is_node());
        let inherited = crate::kernel::clear::inherited(&mut parts.netlink).unwrap_or_else(|error| {
            tracing::warn!(%error, "clear paths of the run before are proven anew");
            BTreeMap::new()
        });
        let (clear, frames) =
            clear::ClearPath::start((parts.config.encryption, &parts.config.trusted), &parts.secrets, inherited, now);
        let (range4, range6) = (parts.config.range4, parts.config.range6);
        let (host, readings) =
            host::HostReader::new(now, move || Underlay::read(&mut Netlink::connect()?, range4, range6));
        let mut node = Self {
            started: now,
            clear,
            chronicle: chronicle::Chronicle::new(now),
            gossip,
            dialer: Dialer::default(),
            links: BTreeMap::new(),
            peer_of_link: BTreeMap::new(),
            newcomers: twins::Newcomers::default(),
            later_run: twins::LaterRun::default(),
            choice: Choice::new(parts.identity.peer_id(), now),
            records: Arc::default(),
            confirmed: standing_links(&mut parts.netlink, view.leases.iter().map(host_interface)),
            own: own.map(|lease| lease.pod.addresses.clone()).unwrap_or_default(),
            exposed: parts.allocator.exposed(),
            stale: mesh::Stale::everything(),
            outranked: None,
            untold: BTreeMap::new(),
            lost: None,
            moderation: Moderation::new(now),
            host,
            dropped_frames: 0,
            sent_elsewhere: 0,
            misbehaved_frames: 0,
            parts,
        };
        node.begin_chronicle();
        node.dial_configured(now);
        (node, frames, readings)
    }

    /// Takes in what the disk held before any link is up: the first state that others see of a new run replaces all
    /// that they knew of the old one, and must not lack the pods that live on.
    async fn begin(&mut self, addresses: &mut mpsc::UnboundedReceiver<AddressEvent>) {
        while let Some(event) = addresses.recv().await {
            if let AddressEvent::Begun = event {
                return;
            }
            self.address_event(Instant::now(), event);
        }
    }

    /// Lets every change take effect: gossip's outcomes, then what follows from them, then what is to be sent.
    fn settle(&mut self, now: Instant) {
        if let Some(failure) = self.parts.tunnel.failure() {
            self.lost = Some(Lost::Tunnel(failure.to_owned()));
        }
        self.gossip_events(now);
        self.choose_links(now);
        self.refresh(now);
        self.dial_due(now);
        self.transmit();
        self.chronicle(now);
    }

    fn wake_at(&self, now: Instant) -> Instant {
        let timers = [
            self.gossip.poll_timeout(),
            self.dialer.poll_timeout(),
            self.clear.poll_timeout(now),
            self.newcomers.timeout(now),
            self.later_run.timeout(),
            Some(self.choice.poll_timeout()),
            self.stale.waits_for_allocator().then_some(now + ALLOCATOR_PAUSE),
            Some(self.moderation.rests_until()).filter(|until| self.stale.is_any() && *until > now),
            self.host.timeout(),
            Some(self.chronicle.poll_timeout()),
            Some(now + LONGEST_SLEEP),
        ];
        timers.into_iter().flatten().min().unwrap_or(now)
    }

    fn timers(&mut self, now: Instant) {
        self.hear_links(now);
        self.gossip.handle_timeout(now);
        self.clear_timers(now);
        self.end_waiting(now);
        self.judge_later_run(now);
        self.host.handle_timeout(now);
    }

    async fn shut_down(self) {
        for link in self.links.values() {
            link.sender.close(0);
        }
        self.parts.control.close().await;
        self.parts.tunnel.stop();
        self.parts.kernel.stop();
    }
}
