//! Lets QUIC share the one UDP port with encrypted data.
//!
//! The tunnel's inbound thread owns reading: it keeps what is data and pushes the rest, datagram by datagram, into
//! [`ControlQueue`], from which quinn reads. Sending needs no sharing: both write to the same socket.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use meshwork_sys::udp::UdpSocket;
use meshwork_tunnel::ControlSink;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

/// Control datagrams that may wait. A mesh of a thousand sends a node a handful at once; a flood is cut off here.
const QUEUE_DATAGRAMS: usize = 1024;

/// Nothing that QUIC sends us is larger: links of 9,000 bytes and some.
const LARGEST_DATAGRAM: usize = 9216;

/// Datagrams on their way from the inbound thread to quinn.
#[derive(Default)]
pub struct ControlQueue {
    waiting: Mutex<Waiting>,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    datagrams: VecDeque<Datagram>,
    reader: Option<Waker>,
}

struct Datagram {
    bytes: Vec<u8>,
    from: SocketAddr,
    to: Option<IpAddr>,
}

impl ControlQueue {
    /// Datagrams dropped because quinn did not keep up, or because none of its packets is that large.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, datagram: Datagram) {
        let mut waiting = self.lock();
        if waiting.datagrams.len() >= QUEUE_DATAGRAMS {
            drop(waiting);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.datagrams.push_back(datagram);
        let reader = waiting.reader.take();
        drop(waiting);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

/// The writing end, held by the inbound thread.
pub struct QueueSink(pub Arc<ControlQueue>);

impl ControlSink for QueueSink {
    fn datagram(&mut self, bytes: &[u8], from: SocketAddr, to: Option<IpAddr>) {
        if bytes.len() > LARGEST_DATAGRAM {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.0.push(Datagram { bytes: bytes.to_vec(), from, to });
    }
}

/// The socket as quinn sees it.
pub(super) struct SharedSocket {
    socket: Arc<UdpSocket>,
    queue: Arc<ControlQueue>,
}

impl SharedSocket {
    pub(super) fn new(socket: Arc<UdpSocket>, queue: Arc<ControlQueue>) -> Self {
        Self { socket, queue }
    }

    /// The form of a sender in which quinn dials it: on a socket of both families it maps IPv4 into IPv6, and what
    /// comes from another address than it dialled it takes for somebody else's.
    fn as_dialled(&self, from: SocketAddr) -> SocketAddr {
        match (self.socket.local_address(), from) {
            (SocketAddr::V6(_), SocketAddr::V4(v4)) => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
            _ => from,
        }
    }
}

impl fmt::Debug for SharedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedSocket").finish_non_exhaustive()
    }
}

impl AsyncUdpSocket for SharedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    /// A full send buffer drops the datagram, as a full queue on the way would: QUIC repeats what matters.
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len());
        let slices = [IoSlice::new(transmit.contents)];
        match self.socket.try_send_segments(transmit.destination, transmit.src_ip, &slices, segment) {
            Ok(()) => Ok(()),
            // Whether the buffer is full or the network unreachable: a datagram is lost here as it may be anywhere.
            Err(error) => {
                tracing::trace!(%error, to = %transmit.destination, "a control datagram was not sent");
                Ok(())
            }
        }
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut waiting = self.queue.lock();
        let mut taken = 0;
        while let (Some(buffer), Some(meta)) = (buffers.get_mut(taken), meta.get_mut(taken)) {
            let Some(datagram) = waiting.datagrams.pop_front() else { break };
            let Some(room) = buffer.get_mut(..datagram.bytes.len()) else { continue };
            room.copy_from_slice(&datagram.bytes);
            *meta = RecvMeta {
                addr: self.as_dialled(datagram.from),
                len: datagram.bytes.len(),
                stride: datagram.bytes.len(),
                ecn: None,
                dst_ip: datagram.to,
            };
            taken += 1;
        }
        if taken > 0 {
            return Poll::Ready(Ok(taken));
        }
        waiting.reader = Some(context.waker().clone());
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.socket.local_address())
    }

    /// The tunnel sets "don't fragment" on the shared socket.
    fn may_fragment(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
