//! A stream of datagrams as QUIC sends it: many of one size in a call (`UDP_SEGMENT`), no more on their way than a window
//! holds, received in runs (`UDP_GRO`).
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

/// Payload of a datagram: what every QUIC path carries (RFC 9000, section 14).
pub(super) const DATAGRAM: usize = 1200;
/// Datagrams in a call.
pub(super) const TOGETHER: usize = 32;
/// Bytes on their way: four times what 10 Gbit/s have there in 100 µs, and fewer packets than a device's queue holds.
pub(super) const WINDOW: u64 = 512 << 10;
const CALL: usize = DATAGRAM * TOGETHER;
/// Nothing arrives for so long only where something was lost.
const PATIENCE: Duration = Duration::from_millis(20);
/// Runs that one call receives.
const RUNS: usize = 4;

/// Sends from one namespace to `address` in the other for so long: how many bytes arrived.
pub(super) fn carry(from: &Namespace, to: &Namespace, address: IpAddr, lasting: Duration) -> Result<u64> {
    let (sender, receiver) = (socket(from)?, socket(to)?);
    let target = SocketAddr::new(address, receiver.local_address().port());
    let (arrived, done, own) = (AtomicU64::new(0), AtomicBool::new(false), thread::current());
    thread::scope(|scope| {
        let receiving = scope.spawn(|| receive(&receiver, &arrived, &done, &own));
        let sent = send(&sender, target, &arrived, lasting);
        let bytes = arrived.load(Relaxed);
        done.store(true, Relaxed);
        let received = receiving.join().map_err(|_| Error::Unproven("the receiving thread panicked".into()))?;
        sent.and(received).map_err(Error::io(format!("carry datagrams to {target}")))?;
        Ok(bytes)
    })
}

fn socket(namespace: &Namespace) -> Result<UdpSocket> {
    let bound = namespace.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0).into()))?;
    bound.map_err(|error| Error::Unproven(error.to_string()))
}

fn send(socket: &UdpSocket, target: SocketAddr, arrived: &AtomicU64, lasting: Duration) -> io::Result<()> {
    let (payload, begun) = (vec![0; CALL], Instant::now());
    let (mut sent, mut written_off) = (0_u64, 0);
    while begun.elapsed() < lasting {
        let seen = arrived.load(Relaxed);
        // What was written off may still arrive.
        let on_their_way = |seen: u64| sent - (seen + written_off).min(sent);
        if on_their_way(seen) + CALL as u64 <= WINDOW {
            socket.send_segments(target, None, &[IoSlice::new(&payload)], DATAGRAM)?;
            sent += CALL as u64;
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
