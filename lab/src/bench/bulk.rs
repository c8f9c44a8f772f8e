//! A stream of datagrams of one size, no more on their way than a window holds, received in runs (`UDP_GRO`): as QUIC sends
//! it, many in a call (`UDP_SEGMENT`), or one by one.
//!
//! Sender and receiver are threads of this process with sockets in two namespaces, so acknowledgements cost nothing and are
//! not measured. What is lost is written off when nothing has arrived for a while, as a probe timeout does it.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use meshwork_sys::udp::{ReceiveBatch, UdpSocket};
use meshwork_sys::wake::Wake;

use crate::error::{Error, Result};
use crate::namespace::Namespace;

/// What a stream is like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Payload of a datagram.
    pub(super) datagram: usize,
    /// Datagrams in a call.
    pub(super) together: usize,
    /// Datagrams on their way: fewer than a device's queue holds, and several times what is there at full speed.
    pub(super) window: usize,
}

/// Datagrams as large as every QUIC path carries (RFC 9000, section 14).
pub(super) const QUIC: Shape = Shape { datagram: 1200, together: 32, window: 448 };
/// Small ones, each in a call of its own.
pub(super) const SMALL: Shape = Shape { datagram: 64, together: 1, window: 256 };

/// Nothing arrives for so long only where something was lost.
const PATIENCE: Duration = Duration::from_millis(20);
/// Runs that one call receives.
const RUNS: usize = 4;

/// Sends from one namespace to `address` in the other for so long: how many datagrams arrived in a second.
pub(super) fn carry(shape: Shape, from: &Namespace, to: &Namespace, address: IpAddr, lasting: Duration) -> Result<f64> {
    let (sender, receiver) = (socket(from)?, socket(to)?);
    let target = SocketAddr::new(address, receiver.local_address().port());
    let (arrived, done, own) = (AtomicU64::new(0), AtomicBool::new(false), thread::current());
    thread::scope(|scope| {
        let receiving = scope.spawn(|| receive(&receiver, &arrived, &done, &own));
        let sent = send(shape, &sender, target, &arrived, lasting);
        let bytes = arrived.load(Relaxed);
        done.store(true, Relaxed);
        let received = receiving.join().map_err(|_| Error::Unproven("the receiving thread panicked".into()))?;
        sent.and(received).map_err(Error::io(format!("carry datagrams to {target}")))?;
        Ok(bytes as f64 / shape.datagram as f64 / lasting.as_secs_f64())
    })
}

fn socket(namespace: &Namespace) -> Result<UdpSocket> {
    let bound = namespace.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0).into()))?;
    bound.map_err(|error| Error::Unproven(error.to_string()))
}

fn send(
    shape: Shape,
    socket: &UdpSocket,
    target: SocketAddr,
    arrived: &AtomicU64,
    lasting: Duration,
) -> io::Result<()> {
    let (payload, begun) = (vec![0; shape.datagram * shape.together], Instant::now());
    let (call, window) = (payload.len() as u64, (shape.datagram * shape.window) as u64);
    let (mut sent, mut written_off) = (0_u64, 0);
    while begun.elapsed() < lasting {
        let seen = arrived.load(Relaxed);
        // What was written off may still arrive.
        let on_their_way = |seen: u64| sent - (seen + written_off).min(sent);
        if on_their_way(seen) + call <= window {
            socket.send_segments(target, None, &[IoSlice::new(&payload)], shape.datagram)?;
            sent += call;
            continue;
        }
        let waited = Instant::now();
        thread::park_timeout(PATIENCE);
        if arrived.load(Relaxed) == seen && waited.elapsed() >= PATIENCE {
            written_off += on_their_way(seen);
        }
    }
    Ok(())
}

fn receive(socket: &UdpSocket, arrived: &AtomicU64, done: &AtomicBool, sender: &Thread) -> io::Result<()> {
    let (mut batch, never) = (ReceiveBatch::new(RUNS), Wake::new()?);
    while !done.load(Relaxed) {
        if socket.receive(&mut batch)? == 0 {
            never.wait_readable(socket.as_fd(), Some(PATIENCE))?;
            continue;
        }
        let bytes: usize = batch.arrivals().map(|arrival| arrival.bytes.len()).sum();
        arrived.fetch_add(bytes as u64, Relaxed);
        sender.unpark();
    }
    Ok(())
}
