//! Carries the frames of a link that got through admission, in both directions, until either side ends it.
//!
//! Frames of the stream go to the actor no faster than the peer's [`Pace`], and datagrams no faster than one that the
//! link has for them, so that a peer that is slowed down still lives. What waits to be sent is bounded in frames and bytes.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use meshwork_gossip::limits::MAX_FRAME;
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;

use super::dialer::TargetKey;
use super::framing::{read_frame, write_frame};
use super::link::{
    Admission, Direction, LinkError, LinkEvent, LinkId, LinkSender, Local, OUTGOING_FRAMES, blame, canonical,
};
use super::pace::Pace;
use super::tls::ADMITTED_WINDOW;
use super::twin;

/// Reports the link and carries its frames until it ends.
pub(super) async fn run(
    id: LinkId,
    direction: Direction,
    target: Option<TargetKey>,
    admission: Admission,
    local: &Local,
    events: mpsc::Sender<LinkEvent>,
) {
    let Admission { connection, send, receive, key, key_id, run, caller, tag } = admission;
    connection.set_receive_window(ADMITTED_WINDOW);
    let (outgoing, queue) = mpsc::channel(OUTGOING_FRAMES);
    let (waiting, begin) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let sender = LinkSender {
        id,
        peer: key.peer_id(),
        key,
        key_id,
        run,
        direction,
        address: canonical(connection.remote_address()),
        target,
        caller,
        tag,
        begin: Arc::clone(&begin),
        outgoing,
        waiting: Arc::clone(&waiting),
        connection: connection.clone(),
    };
    let pace = local.paces.lock().unwrap_or_else(PoisonError::into_inner).of(key.peer_id(), Instant::now());
    if events.send(LinkEvent::Up(Box::new(sender))).await.is_err() {
        return;
    }
    let ended = tokio::select! {
        error = read(id, receive, &connection, &begin, pace, &events) => error,
        error = connection.closed() => error.into(),
        error = write_frames(send, queue, &waiting) => error,
    };
    let ended = blame(&connection, ended);
    let ended = twin::in_use(&ended, &tag, local.key, &local.run).map_or(ended, LinkError::IdentityInUse);
    connection.close(VarInt::from_u32(0), b"");
    // The actor is gone only when the process ends.
    let _ = events.send(LinkEvent::Down(id, ended)).await;
}

async fn read(
    id: LinkId,
    stream: RecvStream,
    connection: &Connection,
    begin: &Notify,
    pace: Arc<Mutex<Pace>>,
    events: &mpsc::Sender<LinkEvent>,
) -> LinkError {
    begin.notified().await;
    let ended = tokio::select! {
        ended = read_frames(id, stream, &pace, events) => ended,
        ended = read_datagrams(id, connection, events) => ended,
    };
    let Err(error) = ended;
    error
}

/// Hands a frame to the actor, and waits as long as the link has to.
async fn hand_over(
    id: LinkId,
    frame: Vec<u8>,
    pace: &Mutex<Pace>,
    events: &mpsc::Sender<LinkEvent>,
) -> Result<(), LinkError> {
    let wait = pace.lock().unwrap_or_else(PoisonError::into_inner).charge(Instant::now(), frame.len());
    events.send(LinkEvent::Frame(id, frame)).await.map_err(|_| LinkError::Closed("shutting down"))?;
    if !wait.is_zero() {
        sleep(wait).await;
    }
    Ok(())
}

async fn read_frames(
    id: LinkId,
    mut stream: RecvStream,
    pace: &Mutex<Pace>,
    events: &mpsc::Sender<LinkEvent>,
) -> Result<Infallible, LinkError> {
    loop {
        match read_frame(&mut stream, MAX_FRAME).await {
            Ok(frame) => hand_over(id, frame, pace, events).await?,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Datagrams that wait too long are dropped by QUIC, the oldest first: what comes in them may be lost.
async fn read_datagrams(
    id: LinkId,
    connection: &Connection,
    events: &mpsc::Sender<LinkEvent>,
) -> Result<Infallible, LinkError> {
    let pace = Mutex::new(Pace::of_datagrams(Instant::now()));
    loop {
        match connection.read_datagram().await {
            Ok(frame) => hand_over(id, frame.to_vec(), &pace, events).await?,
            Err(error) => return Err(error.into()),
        }
    }
}

async fn write_frames(mut stream: SendStream, mut queue: mpsc::Receiver<Vec<u8>>, waiting: &AtomicUsize) -> LinkError {
    while let Some(frame) = queue.recv().await {
        waiting.fetch_sub(frame.len(), Ordering::Relaxed);
        if let Err(error) = write_frame(&mut stream, &frame).await {
            return error.into();
        }
    }
    LinkError::Duplicate
}
