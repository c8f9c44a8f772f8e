//! What lies between two nodes: when a frame arrives, and what it costs.
//!
//! A link is an ordered, reliable stream and unreliable datagrams beside it. The stream is modelled as QUIC over UDP: a
//! frame is cut into datagrams, each of which costs [`DATAGRAM_OVERHEAD`] bytes more, and one that is lost delays all
//! behind it by a retransmission. An unreliable one is acknowledged by a datagram that is as easily lost; those of the
//! stream are not modelled.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use meshwork_gossip::{Folded, Hearing};

use crate::random::Random;

/// IP, UDP and QUIC headers with their tag, in bytes.
pub const DATAGRAM_OVERHEAD: u64 = 60;

/// Bytes of a frame that one datagram carries.
const DATAGRAM_PAYLOAD: u64 = 1200;

/// Length in front of a frame on the stream.
const FRAME_LENGTH: u64 = 4;

/// Bytes of an acknowledgement besides its headers.
const ACKNOWLEDGEMENT: usize = 6;

/// How long the transport waits for something to send along with an acknowledgement (RFC 9000, 13.2.1).
const ACKNOWLEDGEMENT_DELAY: Duration = Duration::from_millis(25);

/// Least time after which a lost datagram is sent again.
const RETRANSMISSION: Duration = Duration::from_millis(200);

/// How all links behave.
#[derive(Debug, Clone, Copy)]
pub struct Conditions {
    /// One way.
    pub latency: Duration,
    /// Most that a datagram takes longer: they overtake each other and the stream within it.
    pub jitter: Duration,
    /// Datagrams lost of 10,000.
    pub loss: u32,
    /// Unreliable datagrams that arrive twice of 10,000.
    pub duplicates: u32,
}

impl Default for Conditions {
    fn default() -> Self {
        let (latency, jitter) = (Duration::from_millis(5), Duration::from_millis(3));
        Self { latency, jitter, loss: 0, duplicates: 0 }
    }
}

/// What one frame costs its sender, and when it arrives.
pub(crate) struct Passage {
    pub(crate) bytes: u64,
    /// Nothing if it is lost.
    pub(crate) arrives: Option<Instant>,
}

/// A frame on its way.
#[derive(Debug, Clone)]
pub(crate) struct Packet {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) connection: u64,
    pub(crate) reliable: bool,
    pub(crate) frame: Folded,
    /// Bytes of the frame.
    pub(crate) length: usize,
}

/// One direction of a connection, at the sending side.
#[derive(Debug)]
pub(crate) struct End {
    /// Which connection this end uses.
    pub(crate) connection: u64,
    /// When the last frame on the stream arrives: none overtakes another.
    pub(crate) last: Instant,
    /// Frames of the stream that wait for a cut to end.
    pub(crate) held: VecDeque<Packet>,
    /// When something last came.
    pub(crate) heard: Instant,
    /// Acknowledgements that came.
    pub(crate) acknowledged: u64,
    pub(crate) hearing: Hearing,
    /// This end dialled.
    pub(crate) dialled: bool,
    /// The dialler's operator named the other side.
    pub(crate) named: bool,
    /// The other side was let in because it had nobody else.
    pub(crate) alone: bool,
}

impl End {
    pub(crate) const fn new(connection: u64, now: Instant) -> Self {
        let held = VecDeque::new();
        let hearing = Hearing::new(now, 0);
        let heard = now;
        let (dialled, named, alone) = (false, false, false);
        Self { connection, last: now, held, heard, acknowledged: 0, hearing, dialled, named, alone }
    }
}

impl Conditions {
    /// A frame on the stream whose frame before arrives at `last`, sent when `leaves`.
    pub(crate) fn stream(&self, random: &mut Random, leaves: Instant, last: Instant, length: usize) -> Passage {
        let payload = length as u64 + FRAME_LENGTH;
        let datagrams = payload.div_ceil(DATAGRAM_PAYLOAD);
        let (mut bytes, mut penalty) = (payload + datagrams * DATAGRAM_OVERHEAD, Duration::ZERO);
        for _ in 0..datagrams {
            let mut late = Duration::ZERO;
            while random.chance(self.loss) {
                late += RETRANSMISSION.max(self.latency * 2);
                bytes += payload.min(DATAGRAM_PAYLOAD) + DATAGRAM_OVERHEAD;
            }
            penalty = penalty.max(late);
        }
        Passage { bytes, arrives: Some((leaves + self.latency + penalty).max(last)) }
    }

    /// A frame that goes as one datagram.
    pub(crate) fn datagram(&self, random: &mut Random, leaves: Instant, length: usize) -> Passage {
        let bytes = length as u64 + DATAGRAM_OVERHEAD;
        let lost = random.chance(self.loss);
        let arrives = (!lost).then(|| leaves + self.latency + self.late(random));
        Passage { bytes, arrives }
    }

    /// The answer of the transport itself to what came as a datagram.
    pub(crate) fn acknowledgement(&self, random: &mut Random, now: Instant) -> Passage {
        self.datagram(random, now + ACKNOWLEDGEMENT_DELAY, ACKNOWLEDGEMENT)
    }

    /// How much longer than the latency something takes.
    pub(crate) fn late(&self, random: &mut Random) -> Duration {
        let most = u64::try_from(self.jitter.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(if most == 0 { 0 } else { random.below(most) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_keeps_its_order_and_pays_for_what_is_lost() {
        let (start, mut random) = (Instant::now(), Random::new(1));
        let conditions = Conditions { latency: Duration::from_millis(50), loss: 5000, ..Conditions::default() };
        let (mut last, mut late) = (start, 0);
        for _ in 0..100 {
            let passage = conditions.stream(&mut random, start, last, 100);
            let arrives = passage.arrives.expect("a stream loses nothing");
            assert!(arrives >= last && passage.bytes >= 164);
            late += u32::from(passage.bytes > 164);
            last = arrives;
        }
        assert!((20..80).contains(&late) && last >= start + Duration::from_millis(250));
    }

    #[test]
    fn a_long_frame_costs_a_header_for_each_datagram() {
        let conditions = Conditions::default();
        let passage = conditions.stream(&mut Random::new(1), Instant::now(), Instant::now(), 3000);
        assert_eq!(passage.bytes, 3004 + 3 * DATAGRAM_OVERHEAD);
    }
}
