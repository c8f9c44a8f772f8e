//! Questions and answers inside a session: the round trip, what is lost, and whether a new endpoint is the peer's.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::header::PROBE_LEN;

const QUESTION: u8 = 1;
const ANSWER: u8 = 2;
/// A question that is older has no answer any more.
const PATIENCE: Duration = Duration::from_secs(2);
/// Questions that may be open: four a second for [`PATIENCE`], and challenges.
const MOST_OPEN: usize = 12;
/// Latest outcomes that the loss is counted over.
const REMEMBERED: u32 = 32;

/// The plaintext of a question.
pub(crate) fn question(token: u64) -> [u8; PROBE_LEN] {
    encode(QUESTION, token)
}

/// The plaintext of the answer to a question.
pub(crate) fn answer(token: u64) -> [u8; PROBE_LEN] {
    encode(ANSWER, token)
}

/// The token, if `plaintext` is a question.
pub(crate) fn read_question(plaintext: &[u8]) -> Option<u64> {
    decode(QUESTION, plaintext)
}

/// The token, if `plaintext` is an answer.
pub(crate) fn read_answer(plaintext: &[u8]) -> Option<u64> {
    decode(ANSWER, plaintext)
}

fn encode(kind: u8, token: u64) -> [u8; PROBE_LEN] {
    let [a, b, c, d, e, f, g, h] = token.to_be_bytes();
    [kind, a, b, c, d, e, f, g, h, 0, 0, 0, 0, 0, 0, 0]
}

fn decode(kind: u8, plaintext: &[u8]) -> Option<u64> {
    let &[found, a, b, c, d, e, f, g, h, ..] = <&[u8; PROBE_LEN]>::try_from(plaintext).ok()?;
    (found == kind).then(|| u64::from_be_bytes([a, b, c, d, e, f, g, h]))
}

/// What an answer tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The path works.
    Alive,
    /// The peer answered a challenge where it was sent.
    Moved,
}

#[derive(Debug)]
struct Open {
    token: u64,
    sent: Instant,
    challenge: Option<SocketAddr>,
}

/// The questions to one peer.
#[derive(Debug, Default)]
pub(super) struct Probes {
    open: VecDeque<Open>,
    /// One bit for each outcome, the latest lowest: set for lost.
    outcomes: u32,
    outcome_count: u32,
    /// Questions in a row without an answer, up to the latest.
    unanswered: u32,
    rtt: Option<Duration>,
}

impl Probes {
    pub(super) fn note_sent(&mut self, token: u64, challenge: Option<SocketAddr>, now: Instant) {
        while self.open.len() >= MOST_OPEN {
            self.open.pop_front();
        }
        self.open.push_back(Open { token, sent: now, challenge });
    }

    pub(super) fn handle_answer(&mut self, token: u64, from: SocketAddr, now: Instant) -> Option<Verdict> {
        let place = self.open.iter().position(|open| open.token == token)?;
        let open = self.open.remove(place)?;
        let sample = now.saturating_duration_since(open.sent);
        self.unanswered = 0;
        // The gain of RFC 6298.
        self.rtt = Some(self.rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
        match open.challenge {
            None => {
                self.note_outcome(false);
                Some(Verdict::Alive)
            }
            Some(address) => (address == from).then_some(Verdict::Moved),
        }
    }

    /// Gives up on what is too old: whether a challenge was among it.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let mut challenge = false;
        while self.open.front().is_some_and(|open| now.saturating_duration_since(open.sent) >= PATIENCE) {
            match self.open.pop_front() {
                Some(Open { challenge: Some(_), .. }) => challenge = true,
                _ => self.note_outcome(true),
            }
        }
        challenge
    }

    /// Questions in a row that found no answer. The peer may be heard all the same: it does not hold the session that we
    /// send on.
    pub(super) fn unanswered(&self) -> u32 {
        self.unanswered
    }

    /// Another session is asked from now on.
    pub(super) fn begin_anew(&mut self) {
        self.unanswered = 0;
    }

    pub(super) fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// Share of the latest questions without an answer.
    pub(super) fn loss(&self) -> Option<f64> {
        let lost = f64::from(self.outcomes.count_ones());
        (self.outcome_count > 0).then(|| lost / f64::from(self.outcome_count))
    }

    fn note_outcome(&mut self, lost: bool) {
        self.unanswered = if lost { self.unanswered + 1 } else { 0 };
        self.outcomes = self.outcomes << 1 | u32::from(lost);
        self.outcome_count = (self.outcome_count + 1).min(REMEMBERED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_reads_back_and_nothing_else_does() {
        assert_eq!(question(0x0102), [1, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(read_question(&question(7)), Some(7));
        assert_eq!(read_answer(&answer(7)), Some(7));
        assert_eq!(read_answer(&question(7)), None);
        assert_eq!(read_question(&question(7)[..15]), None);
    }

    #[test]
    fn unanswered_questions_count_as_lost_and_a_challenge_counts_only_where_it_was_sent() {
        let (start, mut probes) = (Instant::now(), Probes::default());
        let (here, there) = ("192.0.2.1:1".parse().unwrap(), "192.0.2.2:1".parse().unwrap());
        probes.note_sent(1, None, start);
        probes.note_sent(2, None, start);
        assert_eq!(probes.handle_answer(1, here, start + Duration::from_millis(8)), Some(Verdict::Alive));
        assert_eq!(probes.handle_answer(1, here, start), None, "an answer counts once");
        assert!(!probes.expire(start + PATIENCE));
        assert_eq!((probes.loss(), probes.rtt()), (Some(0.5), Some(Duration::from_millis(8))));
        for (from, verdict) in [(here, None), (there, Some(Verdict::Moved))] {
            probes.note_sent(3, Some(there), start);
            assert_eq!(probes.handle_answer(3, from, start), verdict);
        }
    }
}
