//! Bounds the connections of a listener that others than root can reach.
//!
//! A connection holds a slot until it ends, and ends at the latest after [`LONGEST`]: whoever opens connections and
//! says nothing uses up neither our descriptors nor, for long, the slots of others.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};

/// A scraper asks several times over one connection, and opens another when it is closed.
const LONGEST: Duration = Duration::from_secs(60);

/// A listener that accepts only while a slot is free.
pub(super) struct Slots<L> {
    listener: L,
    free: Arc<Semaphore>,
}

/// A connection with its slot.
pub(super) struct Slot<S> {
    stream: S,
    end: Pin<Box<Sleep>>,
    _held: OwnedSemaphorePermit,
}

impl<L> Slots<L> {
    pub(super) fn new(listener: L, slots: usize) -> Self {
        Self { listener, free: Arc::new(Semaphore::new(slots)) }
    }
}

impl<L: Listener> Listener for Slots<L> {
    type Io = Slot<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let held = Arc::clone(&self.free).acquire_owned().await.expect("the semaphore is never closed");
        let (stream, address) = self.listener.accept().await;
        (Slot { stream, end: Box::pin(sleep(LONGEST)), _held: held }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Slot<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.end.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Slot<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.end.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_connection_beyond_the_slots_waits_until_one_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let mut slots = Slots::new(listener, 1);
        let _clients = (TcpStream::connect(address).await, TcpStream::connect(address).await);
        let first = slots.accept().await;
        assert!(timeout(Duration::from_millis(50), slots.accept()).await.is_err());
        drop(first);
        timeout(Duration::from_secs(5), slots.accept()).await.expect("a free slot");
    }
}
