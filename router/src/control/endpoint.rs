//! Dials and accepts control links.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use meshwork_gossip::neighbours::Caller;
use meshwork_identity::admission::Refused;
use meshwork_identity::{Identity, KeyId, Secrets};
use meshwork_sys::udp::UdpSocket;
use quinn::{ClientConfig, ConnectionError, Endpoint, Incoming, TokioRuntime};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::callers::{RefusedCaller, RefusedCallers};
use super::carry;
use super::dialer::TargetKey;
use super::link::{self, ADMISSION_TIMEOUT, Direction, LinkError, LinkEvent, LinkId, Local};
use super::socket::{ControlQueue, SharedSocket};
use super::tls::{SERVER_NAME, TlsError, quic_configs};
use super::twin::Run;

/// Connections in admission beyond which a caller must first show that its address is its own (QUIC Retry).
const RETRY_ABOVE: usize = 16;

/// Connections in admission beyond which callers are turned away.
const REFUSE_ABOVE: usize = 64;

/// Time for the handshake with whoever is dialled: a far and lossy path repeats a packet or two within it, and an
/// address where somebody only pretends to answer keeps the member's other ones waiting no longer than a dead one.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// The QUIC endpoint on the shared socket.
pub struct ControlEndpoint {
    endpoint: Endpoint,
    client: ClientConfig,
    shared: Arc<Shared>,
}

struct Shared {
    local: Local,
    events: mpsc::Sender<LinkEvent>,
    next_link: AtomicU64,
    in_admission: AtomicUsize,
    refused: Refusals,
    callers: Mutex<RefusedCallers>,
}

/// Links refused since the start.
#[derive(Debug, Default)]
struct Refusals {
    secret: AtomicU64,
    other: AtomicU64,
}

impl ControlEndpoint {
    /// Starts listening. `reset_key` is 32 secret bytes that stay the same over restarts of this node.
    ///
    /// # Errors
    /// [`TlsError`] where the TLS library does not take our keys, or an IO error of the runtime as such.
    pub fn start(
        identity: &Identity,
        run: Run,
        secrets: Secrets,
        reset_key: &[u8; 32],
        socket: Arc<UdpSocket>,
        queue: Arc<ControlQueue>,
        events: mpsc::Sender<LinkEvent>,
    ) -> Result<Self, EndpointError> {
        let configs = quic_configs(identity, reset_key)?;
        let socket = Arc::new(SharedSocket::new(socket, queue));
        let endpoint =
            Endpoint::new_with_abstract_socket(configs.endpoint, Some(configs.server), socket, Arc::new(TokioRuntime))?;
        let secrets = arc_swap::ArcSwap::from_pointee(secrets);
        let local = Local { key: identity.public_key(), run, secrets, paces: Mutex::default() };
        let shared = Arc::new(Shared {
            local,
            events,
            next_link: AtomicU64::new(1),
            in_admission: AtomicUsize::new(0),
            refused: Refusals::default(),
            callers: Mutex::default(),
        });
        tokio::spawn(accept(endpoint.clone(), Arc::clone(&shared)));
        Ok(Self { endpoint, client: configs.client, shared })
    }

    /// Dials in the background, and says of itself what `caller` says; the outcome arrives as an event.
    pub fn dial(&self, target: TargetKey, caller: Caller) {
        let (endpoint, client, shared) = (self.endpoint.clone(), self.client.clone(), Arc::clone(&self.shared));
        tokio::spawn(async move {
            match dial(&endpoint, client, &shared.local, &target, caller).await {
                Ok(admission) => {
                    let id = shared.next_link();
                    carry::run(id, Direction::Outbound, Some(target), admission, &shared.local, shared.events.clone())
                        .await;
                }
                Err(error) => {
                    shared.count(&error);
                    // The actor is gone only when the process ends.
                    let _ = shared.events.send(LinkEvent::DialFailed(target, error)).await;
                }
            }
        });
    }

    /// Puts other secrets in force for links that are admitted from now on.
    pub fn set_secrets(&self, secrets: Secrets) {
        self.shared.local.secrets.store(Arc::new(secrets));
    }

    /// Whether links that were admitted under this secret may stay.
    #[must_use]
    pub fn accepts(&self, key_id: KeyId) -> bool {
        self.shared.local.secrets.load().by_key_id(key_id).is_some()
    }

    /// Links refused since the start: for want of the secret, and for anything else.
    pub fn refused(&self) -> (u64, u64) {
        let refused = &self.shared.refused;
        (refused.secret.load(Ordering::Relaxed), refused.other.load(Ordering::Relaxed))
    }

    /// Who called and was refused lately.
    pub fn refused_callers(&self) -> Vec<RefusedCaller> {
        self.shared.callers().lately(Instant::now())
    }

    /// Closes every link and waits until the other sides were told.
    pub async fn close(&self) {
        self.endpoint.close(0u32.into(), b"");
        self.endpoint.wait_idle().await;
    }
}

/// Why the endpoint could not start.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The runtime.
    #[error("cannot start QUIC: {0}")]
    Io(#[from] std::io::Error),
}

impl Shared {
    fn next_link(&self) -> LinkId {
        LinkId(self.next_link.fetch_add(1, Ordering::Relaxed))
    }

    fn count(&self, error: &LinkError) {
        match error {
            LinkError::Refused(Refused::WrongSecret) | LinkError::Rejected(Refused::WrongSecret) => {
                &self.refused.secret
            }
            LinkError::Elsewhere { .. } => return,
            _ => &self.refused.other,
        }
        .fetch_add(1, Ordering::Relaxed);
    }

    /// Keeps what people should know of a caller. Whoever never finished a handshake may have called from anybody's
    /// address, and is only counted.
    fn note_refused(&self, address: SocketAddr, error: &LinkError) {
        let itself = matches!(error, LinkError::Refused(Refused::OwnIdentity));
        if !itself && !matches!(error, LinkError::Connection(_) | LinkError::Slow) {
            self.callers().refused(Instant::now(), address, error.to_string());
        }
    }

    /// Handshake and proof together. A stranger who spins the handshake out holds a slot meanwhile: it has no more time
    /// than for the proof where slots are short.
    fn admission_allowance(&self) -> Duration {
        let crowded = self.in_admission.load(Ordering::Relaxed) >= RETRY_ABOVE;
        if crowded { ADMISSION_TIMEOUT } else { HANDSHAKE_TIMEOUT }
    }

    fn callers(&self) -> MutexGuard<'_, RefusedCallers> {
        // Each change of it is whole.
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn dial(
    endpoint: &Endpoint,
    client: ClientConfig,
    local: &Local,
    target: &TargetKey,
    caller: Caller,
) -> Result<link::Admission, LinkError> {
    let mut last = LinkError::Unresolved(target.to_string());
    for address in resolve(target).await? {
        let connection = match endpoint.connect_with(client.clone(), address, SERVER_NAME) {
            Ok(connecting) => timeout(HANDSHAKE_TIMEOUT, connecting)
                .await
                .unwrap_or(Err(ConnectionError::TimedOut))
                .map_err(LinkError::from),
            Err(error) => Err(error.into()),
        };
        match connection {
            Ok(connection) => return link::admit_dialled(connection, local, caller).await,
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn resolve(target: &TargetKey) -> Result<Vec<SocketAddr>, LinkError> {
    match target {
        TargetKey::Endpoint(_, address) => Ok(vec![*address]),
        TargetKey::Named(target) => tokio::net::lookup_host((target.host.as_str(), target.port))
            .await
            .map(Iterator::collect)
            .map_err(|_| LinkError::Unresolved(target.to_string())),
    }
}

async fn accept(endpoint: Endpoint, shared: Arc<Shared>) {
    while let Some(incoming) = endpoint.accept().await {
        let waiting = shared.in_admission.load(Ordering::Relaxed);
        if waiting >= REFUSE_ABOVE {
            incoming.refuse();
        } else if waiting >= RETRY_ABOVE && incoming.may_retry() && !incoming.remote_address_validated() {
            // It fails only for an address that was validated already.
            let _ = incoming.retry();
        } else {
            shared.in_admission.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(admit(incoming, Arc::clone(&shared)));
        }
    }
}

async fn admit(incoming: Incoming, shared: Arc<Shared>) {
    let address = link::canonical(incoming.remote_address());
    let proof = async {
        let connection = incoming.await?;
        let proof = link::prove_dialler(connection, &shared.local);
        timeout(ADMISSION_TIMEOUT, proof).await.unwrap_or(Err(LinkError::Slow))
    };
    let proof = timeout(shared.admission_allowance(), proof).await.unwrap_or(Err(LinkError::Slow));
    shared.in_admission.fetch_sub(1, Ordering::Relaxed);
    let admission = match proof {
        Ok(proven) => link::welcome(proven, &shared.local, &shared.events).await,
        Err(error) => Err(error),
    };
    match admission {
        Ok(admission) => {
            shared.callers().admitted(address);
            let id = shared.next_link();
            carry::run(id, Direction::Inbound, None, admission, &shared.local, shared.events.clone()).await;
        }
        Err(LinkError::Full) => shared.callers().admitted(address),
        Err(error) => {
            shared.count(&error);
            shared.note_refused(address, &error);
            tracing::debug!(%address, %error, "refused a control link");
            let met = match error {
                LinkError::IdentityInUse(address) => LinkEvent::IdentityInUse(address),
                LinkError::Copied(address) => LinkEvent::Copied(address),
                _ => return,
            };
            // The actor is gone only when the process ends.
            let _ = shared.events.send(met).await;
        }
    }
}
