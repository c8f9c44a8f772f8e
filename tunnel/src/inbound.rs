//! From the network to the TUN: open in place, check, join, write in one call what one call can carry.

use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use meshwork_sys::tun::VnetHeader;
use meshwork_sys::udp::{Arrival, ReceiveBatch};

use crate::coalesce::{Joined, MOST_JOINED, partial};
use crate::config::ControlSink;
use crate::drops::Drop;
use crate::header::{FLAG_PARTIAL_CHECKSUM, HEADER_LEN, Header, PacketType, is_ours};
use crate::machine::{answer, answer_endpoint, read_answer, read_question};
use crate::noise::vouched;
use crate::outbound::Patience;
use crate::packet::{Transport, addresses};
use crate::peer::Endpoint;
use crate::session::Session;
use crate::shared::{Notice, Shared};
use crate::table::Table;

/// Runs of 64 KB that one call receives: together they stay in the processor's cache until they are written.
const RUNS: usize = 4;

/// An opened inner packet: where it lies in its run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opened {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) partial: bool,
}

/// The receiving thread.
pub(crate) fn run(shared: &Shared, control: Box<dyn ControlSink>) -> io::Result<()> {
    let mut batch = ReceiveBatch::new(RUNS);
    let mut receiver = Receiver { shared, control, opened: Vec::with_capacity(1024) };
    let mut patience = Patience::default();
    loop {
        if shared.socket.receive(&mut batch)? == 0 {
            if !patience.rest(&*shared.socket, &shared.wake)? {
                return Ok(());
            }
            continue;
        }
        let (table, mut carried) = (shared.decider.table(), false);
        for arrival in batch.arrivals() {
            carried |= receiver.handle(&table, arrival);
        }
        if shared.is_stopping() {
            return Ok(());
        }
        // What is not carried comes alone: looking for more would be most of what an idle node does.
        match carried {
            true => patience.reset(),
            false if patience.sleep(&*shared.socket, &shared.wake)? => {}
            false => return Ok(()),
        }
    }
}

struct Receiver<'a> {
    shared: &'a Shared,
    control: Box<dyn ControlSink>,
    opened: Vec<Opened>,
}

/// What the last packets had in common, so that it is found once per run.
#[derive(Default)]
pub(crate) struct Recent {
    session: Option<Arc<Session>>,
    admitted: Option<(IpAddr, IpAddr)>,
    packets: u64,
    bytes: u64,
}

impl Recent {
    fn settle(&mut self, milliseconds: u64) {
        let (packets, bytes) = (std::mem::take(&mut self.packets), std::mem::take(&mut self.bytes));
        if let Some(session) = self.session.take() {
            let peer = &session.peer;
            peer.traffic.received_packets.fetch_add(packets, Relaxed);
            peer.traffic.received_bytes.fetch_add(bytes, Relaxed);
            peer.hear(milliseconds);
        }
        self.admitted = None;
    }
}

impl Receiver<'_> {
    /// Takes a run of datagrams. Whether packets of pods were among them.
    fn handle(&mut self, table: &Table, arrival: Arrival<'_>) -> bool {
        let Arrival { bytes, segment_size, from, to } = arrival;
        let endpoint = answer_endpoint(from, to);
        let mut recent = Recent::default();
        self.opened.clear();
        let mut start = 0;
        for segment in bytes.chunks_mut(segment_size) {
            let length = segment.len();
            if segment.first().copied().is_some_and(is_ours) {
                match self.open(table, &mut recent, segment, endpoint) {
                    Ok(Some((length, partial))) => {
                        let start = start + HEADER_LEN;
                        self.opened.push(Opened { start, end: start + length, partial });
                    }
                    Ok(None) => {}
                    Err(reason) => self.shared.drops.add(reason, 1),
                }
            } else {
                self.control.datagram(segment, from, to);
            }
            start += length;
        }
        recent.settle(self.shared.milliseconds());
        self.deliver(bytes);
        !self.opened.is_empty()
    }

    /// The length of the inner packet that `segment` opens to, and whether its checksum is partial.
    fn open(
        &self,
        table: &Table,
        recent: &mut Recent,
        segment: &mut [u8],
        from: Endpoint,
    ) -> Result<Option<(usize, bool)>, Drop> {
        let header = Header::read(segment).ok_or(Drop::Malformed)?;
        match header.kind {
            PacketType::Data | PacketType::Probe => {}
            // Members' only: the queue holds few, and strangers must not take their places.
            PacketType::Initiation | PacketType::Response => {
                vouched(header, segment, table.local, &table.secrets)?;
                self.shared.notify(Notice::Handshake { datagram: (&*segment).into(), from });
                return Ok(None);
            }
            _ => return Err(Drop::Malformed),
        }
        let session = self.find(table, recent, header.index)?;
        let (length, newest) = session.open(header, segment)?;
        if session.confirm() {
            // A confirmation that nobody took note of is told with the next packet.
            if !self.shared.notify(Notice::Confirmed { index: header.index, from }) {
                session.doubt();
            }
        } else if newest {
            self.watch_endpoint(&session, from);
        }
        let plaintext = segment.get(HEADER_LEN..HEADER_LEN + length).ok_or(Drop::Malformed)?;
        if header.kind == PacketType::Probe {
            return self.handle_probe(&session, plaintext, from).map(|()| None);
        }
        if plaintext.is_empty() {
            return Ok(None);
        }
        admit(table, recent, &session, plaintext)?;
        recent.packets += 1;
        recent.bytes += length as u64;
        Ok(Some((length, header.flags & FLAG_PARTIAL_CHECKSUM != 0)))
    }

    fn find(&self, table: &Table, recent: &mut Recent, index: u32) -> Result<Arc<Session>, Drop> {
        if let Some(session) = recent.session.as_ref().filter(|session| session.local_index == index) {
            return Ok(session.clone());
        }
        let session = table.sessions.get(&index).ok_or(Drop::UnknownSession)?.clone();
        recent.settle(self.shared.milliseconds());
        recent.session = Some(session.clone());
        Ok(session)
    }

    fn watch_endpoint(&self, session: &Arc<Session>, from: Endpoint) {
        let peer = &session.peer;
        let moved = peer.path.load().as_ref().is_some_and(|path| path.endpoint.address != from.address);
        if moved && !peer.moving.swap(true, Relaxed) {
            let told = self.shared.notify(Notice::Moved { index: session.local_index, from });
            peer.moving.store(told, Relaxed);
        }
    }

    fn handle_probe(&self, session: &Session, plaintext: &[u8], from: Endpoint) -> Result<(), Drop> {
        if let Some(token) = read_question(plaintext) {
            let datagram = session.seal_alone(PacketType::Probe, &answer(token)).ok_or(Drop::QueueFull)?;
            return self.shared.send(from, &datagram).map_err(|_| Drop::SendFailed);
        }
        let token = read_answer(plaintext).ok_or(Drop::Malformed)?;
        self.shared.notify(Notice::Answer { index: session.local_index, token, from, at: Instant::now() });
        Ok(())
    }

    /// Writes the opened packets of a run, joined where they go together.
    fn deliver(&self, run: &mut [u8]) {
        let udp_allowed = self.shared.tun.udp_segmentation();
        let mut rest = self.opened.as_slice();
        while let Some(first) = rest.first() {
            let joined = join(run, rest, udp_allowed);
            let count = joined.as_ref().map_or(1, |(_, count)| *count);
            let written = match joined {
                Some((joined, count)) if count > 1 => {
                    self.write_joined(run, joined, rest.get(..count).unwrap_or_default())
                }
                _ => self.write_single(run, *first),
            };
            match written {
                Ok(()) => {}
                Err(Drop::SendFailed) => self.shared.drops.add(Drop::SendFailed, count as u64),
                Err(reason) => self.shared.drops.add(reason, 1),
            }
            rest = rest.get(count..).unwrap_or_default();
        }
    }

    fn write_single(&self, run: &[u8], packet: Opened) -> Result<(), Drop> {
        let bytes = run.get(packet.start..packet.end).ok_or(Drop::Malformed)?;
        let header = if packet.partial {
            partial(Transport::find(bytes).ok_or(Drop::Malformed)?)
        } else {
            VnetHeader::default()
        };
        self.write(&[IoSlice::new(&header.to_bytes()), IoSlice::new(bytes)])
    }

    fn write_joined(&self, run: &mut [u8], joined: Joined, packets: &[Opened]) -> Result<(), Drop> {
        let (first, others) = packets.split_first().ok_or(Drop::Malformed)?;
        let header = joined.finish(run.get_mut(first.start..first.end).ok_or(Drop::Malformed)?).to_bytes();
        let mut slices = [IoSlice::new(&[]); MOST_JOINED + 1];
        let mut places = slices.iter_mut();
        let mut add = |bytes| {
            if let Some(place) = places.next() {
                *place = IoSlice::new(bytes);
            }
        };
        add(&header);
        add(run.get(first.start..first.end).unwrap_or_default());
        for other in others {
            add(run.get(other.start + joined.payload_start()..other.end).unwrap_or_default());
        }
        self.write(slices.get(..packets.len() + 1).unwrap_or_default())
    }

    fn write(&self, slices: &[IoSlice<'_>]) -> Result<(), Drop> {
        self.shared.tun.write(slices).map_err(|error| {
            tracing::trace!(%error, "the device did not take a packet");
            Drop::SendFailed
        })
    }
}

/// How many of `packets` go together, and as what. `None`: the first stays alone.
pub(crate) fn join(run: &[u8], packets: &[Opened], udp_allowed: bool) -> Option<(Joined, usize)> {
    let (first, others) = packets.split_first()?;
    let first_bytes = run.get(first.start..first.end).filter(|_| first.partial)?;
    let mut joined = Joined::start(first_bytes, udp_allowed)?;
    let followers = others.iter().take_while(|next| {
        next.partial && run.get(next.start..next.end).is_some_and(|bytes| joined.append(first_bytes, bytes))
    });
    let count = 1 + followers.count();
    Some((joined, count))
}

/// Whether a packet of this session may have these addresses.
pub(crate) fn admit(table: &Table, recent: &mut Recent, session: &Arc<Session>, packet: &[u8]) -> Result<(), Drop> {
    let (source, destination) = addresses(packet).ok_or(Drop::Malformed)?;
    if recent.admitted == Some((source, destination)) {
        return Ok(());
    }
    if !table.routes.owner(source).is_some_and(|owner| Arc::ptr_eq(owner, &session.peer)) {
        return Err(Drop::WrongSource);
    }
    if !table.routes.is_local(destination) {
        return Err(Drop::WrongDestination);
    }
    recent.admitted = Some((source, destination));
    Ok(())
}
