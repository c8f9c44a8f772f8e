//! From the TUN to the network: find the peer, cut, seal, send in one call what one call can carry.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use meshwork_sys::tun::{VNET_HEADER_LEN, VnetHeader};
use meshwork_sys::udp::MAX_SEND_BYTES;
use meshwork_sys::wake::{Ready, Wake};

use crate::batch::Batch;
use crate::drops::Drop;
use crate::header::{PacketType, SEALED_OVERHEAD};
use crate::peer::{NotWaiting, Path, Peer};
use crate::segment::{count, for_each_segment};
use crate::shared::{Notice, Shared};
use crate::{packet, session::Session};

/// A header and the largest IP packet.
const READ_BYTES: usize = VNET_HEADER_LEN + 65_535;
/// How often a thread with nothing to do lets others run before it sleeps: a wake-up costs more than a look, and
/// three looks brought 12 to 15 % of throughput.
const LOOKS_BEFORE_SLEEP: u32 = 3;

/// Counts looks in vain, and sleeps when there were enough.
#[derive(Debug, Default)]
pub(crate) struct Patience(u32);

impl Patience {
    /// There was something to do, and more is likely to follow.
    pub(crate) fn reset(&mut self) {
        self.0 = 0;
    }

    /// There was nothing: whether the thread may go on, or is to stop.
    pub(crate) fn rest(&mut self, fd: &impl AsFd, wake: &Wake) -> io::Result<bool> {
        if self.0 < LOOKS_BEFORE_SLEEP {
            self.0 += 1;
            thread::yield_now();
            return Ok(true);
        }
        self.sleep(fd, wake)
    }

    /// Sleeps until there is something to do: whether there is, or the thread is to stop.
    pub(crate) fn sleep(&mut self, fd: &impl AsFd, wake: &Wake) -> io::Result<bool> {
        self.reset();
        Ok(wake.wait_readable(fd.as_fd(), None)? != Ready::Rung)
    }
}

/// The sending thread.
pub(crate) fn run(shared: &Shared) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    let mut sealer = Sealer::new(shared);
    let mut patience = Patience::default();
    loop {
        match shared.tun.read(&mut buffer) {
            Ok(Some(length)) => {
                patience.reset();
                if let Some(read) = buffer.get_mut(..length) {
                    carry(shared, &mut sealer, read);
                }
                // Traffic that never pauses must not keep the thread from being told.
                if shared.is_stopping() {
                    return Ok(());
                }
            }
            Ok(None) => {
                sealer.flush();
                if !patience.rest(&shared.tun, &shared.wake)? {
                    return Ok(());
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Carries one read on, or lets it wait for a session.
fn carry(shared: &Shared, sealer: &mut Sealer<'_>, read: &mut [u8]) {
    let Some((_, packet)) = VnetHeader::split(read) else {
        return shared.drops.add(Drop::Malformed, 1);
    };
    let Some((_, destination)) = packet::addresses(packet) else {
        return shared.drops.add(Drop::Malformed, 1);
    };
    let table = shared.decider.table();
    let Some(peer) = table.routes.owner(destination) else {
        return shared.drops.add(Drop::NoRoute, 1);
    };
    let path = peer.path.load();
    match path.as_ref() {
        Some(path) => sealer.push(path, read),
        None => wait(shared, sealer, peer, read),
    }
}

fn wait(shared: &Shared, sealer: &mut Sealer<'_>, peer: &Arc<Peer>, read: &mut [u8]) {
    match peer.wait(read) {
        // Each time, as a notice may be lost: what waits is bounded, and so are they.
        Ok(()) => {
            shared.notify(Notice::Wanted(peer.id));
        }
        Err(NotWaiting::Ready(path)) => sealer.push(&path, read),
        Err(NotWaiting::Full) => shared.drops.add(Drop::QueueFull, 1),
    }
}

/// Seals packets of one path into a buffer until a send is full.
pub(crate) struct Sealer<'a> {
    shared: &'a Shared,
    out: Box<[u8]>,
    batch: Batch,
    path: Option<Arc<Path>>,
}

impl<'a> Sealer<'a> {
    pub(crate) fn new(shared: &'a Shared) -> Self {
        let out = vec![0; MAX_SEND_BYTES].into_boxed_slice();
        Self { shared, out, batch: Batch::default(), path: None }
    }

    /// Seals what was read, header and packet, for `path`.
    pub(crate) fn push(&mut self, path: &Arc<Path>, read: &mut [u8]) {
        if !self.path.as_ref().is_some_and(|current| Arc::ptr_eq(current, path)) {
            self.flush();
            self.path = Some(path.clone());
        }
        if self.seal_all(&path.session, read).is_none() {
            self.shared.drops.add(Drop::Malformed, 1);
        }
        self.note_use(&path.session.peer);
    }

    fn seal_all(&mut self, session: &Session, read: &mut [u8]) -> Option<()> {
        let (header, packet) = VnetHeader::split(read)?;
        let count = count(&header, packet)?;
        let length = packet.len();
        let Some(mut counter) = session.reserve(count as u64) else {
            self.shared.drops.add(Drop::QueueFull, count as u64);
            return Some(());
        };
        if !self.batch.takes_whole(count, length) {
            self.flush();
        }
        let packet = read.get_mut(VNET_HEADER_LEN..)?;
        for_each_segment(&header, packet, |flags, segment| {
            self.seal(session, flags, counter, segment);
            counter += 1;
        })?;
        let traffic = &session.peer.traffic;
        traffic.sent_packets.fetch_add(count as u64, Relaxed);
        traffic.sent_bytes.fetch_add(length as u64, Relaxed);
        Some(())
    }

    fn seal(&mut self, session: &Session, flags: u8, counter: u64, plaintext: &[u8]) {
        let length = plaintext.len() + SEALED_OVERHEAD;
        if !self.batch.takes(length) {
            self.flush();
        }
        let Some(out) = self.out.get_mut(self.batch.place(length)) else {
            return self.shared.drops.add(Drop::Malformed, 1);
        };
        if !session.seal(PacketType::Data, flags, counter, plaintext, out) {
            return self.shared.drops.add(Drop::SendFailed, 1);
        }
        self.batch.add(length);
    }

    /// Sends what is sealed.
    pub(crate) fn flush(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        let (Some(path), Some(sealed)) = (&self.path, batch.sealed(&self.out)) else { return };
        let endpoint = path.endpoint;
        let slices = [IoSlice::new(sealed)];
        let sent = self.shared.socket.send_segments(endpoint.address, endpoint.source, &slices, batch.segment_size());
        if let Err(error) = sent {
            self.shared.drops.add(Drop::SendFailed, batch.segments() as u64);
            tracing::trace!(%error, to = %endpoint.address, "a send failed");
        }
    }

    fn note_use(&self, peer: &Peer) {
        peer.sent.store(self.shared.milliseconds(), Relaxed);
        if !peer.watched.load(Relaxed) && !peer.watched.swap(true, Relaxed) {
            let told = self.shared.notify(Notice::Used(peer.id));
            peer.watched.store(told, Relaxed);
        }
    }
}
