//! One control link and how it comes to be; what it carries is another module's.
//!
//! The dialler opens the only stream. Over it run the admission proof, one greeting each way, the dialler's first so
//! that the other side can send it elsewhere ([`Knock`]), and the frames of gossip; what may be lost travels as QUIC
//! datagrams. A caller that does not prove the secret within [`ADMISSION_TIMEOUT`] of its handshake is closed, so that a
//! stranger holds a slot for moments only.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use meshwork_gossip::neighbours::Caller;
use meshwork_identity::admission::{self, Acceptor, Admitted, Channel, Dialler, EXPORTER_LABEL, Refused};
use meshwork_identity::{KeyId, PublicKey, Secrets};
use meshwork_wire::{PeerId, frame};
use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout;

use super::dialer::TargetKey;
use super::framing::{FramingError, read_frame, write_frame};
use super::pace::Paces;
use super::referral::Referral;
use super::tls::peer_key;
use super::twin::{self, Evidence, Greeting, Run, Tag};

/// Time for the proof (`PROTOCOL` 4).
pub(super) const ADMISSION_TIMEOUT: Duration = Duration::from_secs(2);

/// Time for the greetings behind it: whoever proved the secret may be busy with a crowd of callers.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);

/// Frames that may wait for a slow peer. Beyond it they are dropped, and anti-entropy brings their content later.
pub(super) const OUTGOING_FRAMES: usize = 1024;

/// Bytes that may wait for a slow peer, whatever the number of frames: a full snapshot of a large mesh fits.
const OUTGOING_BYTES: usize = 4 * 1024 * 1024;

/// Close code of a link that both ends can do without.
const GIVEN_UP: u32 = 0x22;

/// A greeting is a few integers.
pub(super) const GREETING_LIMIT: usize = 64;

/// Names a link for the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// Who dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// They did.
    Inbound,
    /// We did.
    Outbound,
}

/// What happens on links, for the node's actor.
#[derive(Debug)]
pub enum LinkEvent {
    /// Someone who proved the secret asks for a link.
    Knock(Knock),
    /// There is a link.
    Up(Box<LinkSender>),
    /// A frame of gossip.
    Frame(LinkId, Vec<u8>),
    /// The link ended.
    Down(LinkId, LinkError),
    /// A dial came to nothing.
    DialFailed(TargetKey, LinkError),
    /// An earlier process holds this node's identity, and called.
    IdentityInUse(SocketAddr),
    /// A later process holds this node's identity, and called.
    Copied(SocketAddr),
}

/// Someone who proved the secret asks for a link.
#[derive(Debug)]
pub struct Knock {
    /// Who.
    pub peer: PeerId,
    /// Where it is.
    pub address: SocketAddr,
    /// Why it should be let in.
    pub caller: Caller,
    /// Takes the answer.
    pub reply: oneshot::Sender<Answer>,
}

/// What a caller is told.
#[derive(Debug)]
pub enum Answer {
    /// Come in.
    Welcome,
    /// Others have more room.
    Elsewhere(Referral),
}

/// A frame on its way out.
#[derive(Debug)]
pub struct Outgoing {
    /// The frame.
    pub frame: Vec<u8>,
    /// Whether it must arrive.
    pub reliable: bool,
}

/// The actor's handle of an established link.
#[derive(Debug)]
pub struct LinkSender {
    /// Its name.
    pub id: LinkId,
    /// The other side.
    pub peer: PeerId,
    /// The key it proved.
    pub key: PublicKey,
    /// Under which secret it was admitted.
    pub key_id: KeyId,
    /// Which process of it this is.
    pub run: Run,
    /// Who dialled.
    pub direction: Direction,
    /// Underlay address of the other side.
    pub address: SocketAddr,
    /// What was dialled.
    pub target: Option<TargetKey>,
    /// What the dialler said of itself.
    pub caller: Caller,
    /// Names the link to both ends and to nobody else.
    pub tag: Tag,
    pub(super) begin: Arc<Notify>,
    pub(super) outgoing: mpsc::Sender<Vec<u8>>,
    pub(super) waiting: Arc<AtomicUsize>,
    pub(super) connection: Connection,
}

/// Why a link ended or never came to be.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The name of a target does not resolve.
    #[error("cannot resolve {0}: check the name and the resolver of this host")]
    Unresolved(String),
    /// QUIC could not start.
    #[error("cannot dial: {0}")]
    Connect(#[from] quinn::ConnectError),
    /// QUIC ended.
    #[error("{}", explain(.0))]
    Connection(ConnectionError),
    /// The stream ended or was misused.
    #[error("{0}")]
    Framing(#[from] FramingError),
    /// This side refused the other.
    #[error("refused: {0}")]
    Refused(#[from] Refused),
    /// The other side refused this one, or says so: a claim without proof.
    #[error("refused: {0}")]
    Rejected(Refused),
    /// The other side did not finish the proof in time.
    #[error("no proof of the secret within {} s: is it a meshwork node?", ADMISSION_TIMEOUT.as_secs())]
    Slow,
    /// The connection has no key, no exporter or a malformed greeting.
    #[error("the other side misbehaved: {0}")]
    Misbehaved(&'static str),
    /// The other side has as many links as it carries.
    #[error("{} has as many links as it carries, and named {} members with room", .by.short(), .referral.0.len())]
    Elsewhere {
        /// Who says so.
        by: PeerId,
        /// Whom it named.
        referral: Referral,
    },
    /// This side has as many links as it carries.
    #[error("sent elsewhere: this node has as many links as it carries")]
    Full,
    /// The other side has no use for the link any more.
    #[error("the other side gave the link up: both ends have more than they need")]
    GivenUp,
    /// A second link to the same peer was kept instead.
    #[error("another link to the same peer was kept")]
    Duplicate,
    /// An earlier process holds this node's identity.
    #[error("identity in use at {0}")]
    IdentityInUse(SocketAddr),
    /// A later process holds this node's identity.
    #[error("a copy of this node's state runs at {0}, and was told to end")]
    Copied(SocketAddr),
    /// The peer fell silent.
    #[error("nothing was heard of the peer for long")]
    Silent,
    /// This node ended it.
    #[error("closed by this node: {0}")]
    Closed(&'static str),
}

/// A refusal that the other side closed with is one of ours to count and to show.
impl From<ConnectionError> for LinkError {
    fn from(error: ConnectionError) -> Self {
        let code = match &error {
            ConnectionError::ApplicationClosed(close) => u32::try_from(close.error_code.into_inner()).ok(),
            _ => None,
        };
        if code == Some(GIVEN_UP) {
            return Self::GivenUp;
        }
        code.and_then(Refused::from_code).map_or(Self::Connection(error), Self::Rejected)
    }
}

fn explain(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ApplicationClosed(_) => "the other side closed the link".to_owned(),
        ConnectionError::TimedOut => "no answer: check that meshd runs there and UDP passes".to_owned(),
        ConnectionError::Reset => "the other side restarted".to_owned(),
        other => other.to_string(),
    }
}

/// What admission needs to know of this node.
#[derive(Debug)]
pub(super) struct Local {
    pub(super) key: PublicKey,
    pub(super) run: Run,
    pub(super) secrets: arc_swap::ArcSwap<Secrets>,
    pub(super) paces: Mutex<Paces>,
}

/// A link that got through admission, with its streams.
pub(super) struct Admission {
    pub(super) connection: Connection,
    pub(super) send: SendStream,
    pub(super) receive: RecvStream,
    pub(super) key: PublicKey,
    pub(super) key_id: KeyId,
    pub(super) run: Run,
    pub(super) caller: Caller,
    pub(super) tag: Tag,
}

/// A caller that proved the secret.
pub(super) struct Proven {
    connection: Connection,
    channel: Channel,
    send: SendStream,
    receive: RecvStream,
    admitted: Admitted,
}

impl LinkSender {
    /// Hands a frame to the link. False means that the peer is slower than its queue is long and the frame is gone.
    pub fn send(&self, Outgoing { frame, reliable }: Outgoing) -> bool {
        if !reliable && self.connection.max_datagram_size().is_some_and(|room| frame.len() <= room) {
            // Heartbeats do not wait behind a state. A datagram may be lost anywhere on its way, here as well.
            return self.connection.send_datagram(frame.into()).is_ok();
        }
        let length = frame.len();
        if self.waiting.load(Ordering::Relaxed) + length > OUTGOING_BYTES {
            return false;
        }
        self.waiting.fetch_add(length, Ordering::Relaxed);
        let sent = self.outgoing.try_send(frame).is_ok();
        if !sent {
            self.waiting.fetch_sub(length, Ordering::Relaxed);
        }
        sent
    }

    /// Whether this link stays when there is `other` to the same run of the peer. Both ends come to the same choice: of
    /// links dialled from either side those of the lesser peer id come first, of links dialled from one side the one
    /// with the lesser tag, because the ends may have seen them come up in different orders.
    pub fn outranks(&self, other: &Self, me: PeerId) -> bool {
        let rank = |link: &Self| (if link.direction == Direction::Outbound { me } else { link.peer }, link.tag);
        rank(self) < rank(other)
    }

    /// Lets the link's frames in. Until then they wait at the other side, so that none is lost while it is judged.
    pub fn begin(&self) {
        self.begin.notify_one();
    }

    /// Ends the link because an earlier process holds the peer's identity.
    pub fn refuse(&self, evidence: &Evidence) {
        self.connection.close(VarInt::from_u32(twin::IN_USE), &evidence.to_bytes());
    }

    /// Ends the link because neither end needs it.
    pub fn give_up(&self) {
        self.close(GIVEN_UP);
    }

    /// Ends the link; its task reports it down.
    pub fn close(&self, code: u32) {
        self.connection.close(VarInt::from_u32(code), b"");
    }

    /// Smoothed round trip as QUIC measures it.
    pub fn rtt(&self) -> Duration {
        self.connection.rtt()
    }

    /// How many frames of QUIC came that tell that the other side lives: what it sent and could only be its own.
    pub fn heard(&self) -> u64 {
        let came = self.connection.stats().frame_rx;
        came.acks + came.datagram + came.stream + came.ping
    }
}

/// Proves the secret to the side that was dialled, and asks for a link.
pub(super) async fn admit_dialled(
    connection: Connection,
    local: &Local,
    caller: Caller,
) -> Result<Admission, LinkError> {
    let (channel, secrets) = channel(&connection, local)?;
    let exchange = async {
        let (mut send, mut receive) = connection.open_bi().await?;
        if channel.theirs == local.key {
            let ours = local.run.greeting(caller);
            write_frame(&mut send, &frame::encode(&ours)).await?;
            return Err(twin::meet(&ours, &read_greeting(&mut receive).await?, &connection));
        }
        let (dialler, opening) = Dialler::new(&secrets, &channel)?;
        write_frame(&mut send, &opening).await?;
        let answer = read_frame(&mut receive, admission::MAX_FRAME).await?;
        let admitted = dialler.receive(&answer)?;
        write_frame(&mut send, &frame::encode(&local.run.greeting(caller))).await?;
        Ok::<_, LinkError>((send, receive, admitted))
    };
    let (send, mut receive, admitted) = within(ADMISSION_TIMEOUT, &connection, exchange).await?;
    let greeting = async {
        let greeting = read_greeting(&mut receive).await;
        greeting.map_err(|error| sent_elsewhere(&connection, &channel).unwrap_or(error))
    };
    let greeting = within(GREETING_TIMEOUT, &connection, greeting).await?;
    Ok(Admission {
        connection,
        send,
        receive,
        key: channel.theirs,
        key_id: admitted.key_id,
        run: greeting.run(),
        caller,
        tag: channel.exporter,
    })
}

/// Whom the other side named instead of itself, if that is why the connection ended.
fn sent_elsewhere(connection: &Connection, channel: &Channel) -> Option<LinkError> {
    let referral = Referral::of(&connection.close_reason()?)?;
    Some(LinkError::Elsewhere { by: channel.theirs.peer_id(), referral })
}

/// Asks the side that dialled for its proof.
pub(super) async fn prove_dialler(connection: Connection, local: &Local) -> Result<Proven, LinkError> {
    let (channel, secrets) = channel(&connection, local)?;
    let exchange = async {
        let (mut send, mut receive) = connection.accept_bi().await?;
        if channel.theirs == local.key {
            let (ours, theirs) = (local.run.greeting(Caller::default()), read_greeting(&mut receive).await?);
            write_frame(&mut send, &frame::encode(&ours)).await?;
            // Closing would overtake the greeting: whoever dialled closes once it has it.
            connection.closed().await;
            return Err(twin::meet(&ours, &theirs, &connection));
        }
        let acceptor = Acceptor::new(&secrets, &channel)?;
        let opening = read_frame(&mut receive, admission::MAX_FRAME).await?;
        let (answer, admitted) = acceptor.receive(&opening)?;
        write_frame(&mut send, &answer).await?;
        Ok::<_, LinkError>((send, receive, admitted))
    };
    let (send, receive, admitted) = within(ADMISSION_TIMEOUT, &connection, exchange).await?;
    Ok(Proven { connection, channel, send, receive, admitted })
}

/// Lets a caller in, or sends it elsewhere, as the node's actor answers.
pub(super) async fn welcome(
    proven: Proven,
    local: &Local,
    events: &mpsc::Sender<LinkEvent>,
) -> Result<Admission, LinkError> {
    let Proven { connection, channel, mut send, mut receive, admitted } = proven;
    let greeted = async {
        let greeting = read_greeting(&mut receive).await?;
        let (reply, answer) = oneshot::channel();
        let (peer, address) = (channel.theirs.peer_id(), canonical(connection.remote_address()));
        let knock = Knock { peer, address, caller: greeting.caller(), reply };
        // The actor is gone only when the process ends.
        let _ = events.send(LinkEvent::Knock(knock)).await;
        match answer.await {
            Ok(Answer::Welcome) => {
                write_frame(&mut send, &frame::encode(&local.run.greeting(Caller::default()))).await?;
                Ok(greeting)
            }
            Ok(Answer::Elsewhere(referral)) => {
                referral.close(&connection);
                Err(LinkError::Full)
            }
            Err(_) => Err(LinkError::Closed("shutting down")),
        }
    };
    let greeting = within(GREETING_TIMEOUT, &connection, greeted).await?;
    Ok(Admission {
        connection,
        send,
        receive,
        key: channel.theirs,
        key_id: admitted.key_id,
        run: greeting.run(),
        caller: greeting.caller(),
        tag: channel.exporter,
    })
}

fn channel(connection: &Connection, local: &Local) -> Result<(Channel, Arc<Secrets>), LinkError> {
    let theirs = peer_key(connection).ok_or(LinkError::Misbehaved("it has no Ed25519 raw public key"))?;
    let mut exporter = [0; 32];
    connection
        .export_keying_material(&mut exporter, EXPORTER_LABEL, b"")
        .map_err(|_| LinkError::Misbehaved("its TLS has no exporter"))?;
    Ok((Channel { exporter, ours: local.key, theirs }, local.secrets.load_full()))
}

/// Runs a step against the clock, and closes with the refusal's code where there was one.
async fn within<T>(
    limit: Duration,
    connection: &Connection,
    step: impl Future<Output = Result<T, LinkError>>,
) -> Result<T, LinkError> {
    let result = timeout(limit, step).await.unwrap_or(Err(LinkError::Slow));
    result.map_err(|error| {
        let error = blame(connection, error);
        let code = if let LinkError::Refused(refused) = &error { refused.code() } else { 0 };
        connection.close(VarInt::from_u32(code), b"");
        error
    })
}

async fn read_greeting(stream: &mut RecvStream) -> Result<Greeting, LinkError> {
    let greeting = read_frame(stream, GREETING_LIMIT).await?;
    frame::decode(&greeting, GREETING_LIMIT).map_err(|_| LinkError::Misbehaved("its greeting is malformed"))
}

/// A stream that ends because the other side closed the connection with a code: the code says more. To be asked before
/// this side closes, which covers it up.
pub(super) fn blame(connection: &Connection, error: LinkError) -> LinkError {
    match (error, connection.close_reason()) {
        (LinkError::Framing(_), Some(reason)) => reason.into(),
        (error, _) => error,
    }
}

/// IPv4 as such: the shared socket shows it as mapped into IPv6.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
