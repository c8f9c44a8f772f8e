//! When the clear path to a peer is proven, and when it no longer is.
//!
//! Each peer with candidate addresses goes through: proving (questions in quick succession until enough answers came in
//! a row), up (one question a second, quick ones as soon as one is missing), and resting (after all candidates failed,
//! longer each time). A path that fell needs more answers than a new one, so that a link that comes and goes does not
//! move traffic with it. Traffic moves away within [`SILENCE`] of the last answer, well under the 2 s promised.
//!
//! Nothing here reads a clock, draws randomness or does IO. Time and random numbers come in, questions and changes go
//! out: [`ClearPaths::handle_timeout`] at [`ClearPaths::poll_timeout`], then [`ClearPaths::poll_question`] until empty.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use meshwork_wire::PeerId;

/// Between questions while proving.
const PROVING_INTERVAL: Duration = Duration::from_millis(100);
/// Between questions while all is well: few enough to cost nothing, and [`SILENCE`] holds.
const CALM_INTERVAL: Duration = Duration::from_secs(1);
/// How long an answer is waited for before the question is repeated: above the round trip of any path worth using.
const PATIENCE: Duration = Duration::from_millis(250);
/// A path up to which nothing was heard for this long is down: three repeated questions behind a calm interval.
const SILENCE: Duration = Duration::from_millis(1800);
/// A peer that the mesh takes for alive this long after its silence began is: it would be known as unreachable by then.
const MESH_KNOWS: Duration = Duration::from_secs(6);
/// A candidate that never answered is given up after this.
const CANDIDATE_PATIENCE: Duration = Duration::from_millis(1500);
/// Answers in a row that prove a path.
const PROOF: u32 = 3;
/// Each fall doubles the proof, this often at most.
const MOST_DOUBLINGS: u32 = 5;
/// A path that stood this long is trusted as a new one.
const STEADY: Duration = Duration::from_secs(60);
/// Rest after the first round over all candidates in vain; doubled after each further one.
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(60);

/// The clear paths of one node.
#[derive(Debug, Default)]
pub struct ClearPaths {
    paths: BTreeMap<PeerId, ClearPath>,
    questions: VecDeque<Question>,
    doubts: VecDeque<PeerId>,
    changed: bool,
}

/// What else tells that a peer's daemon runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Witness {
    /// When it was last heard on another path: a control link, or sealed.
    pub heard: Option<Instant>,
    /// The mesh takes it for alive.
    pub alive: bool,
}

/// A question to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// To whom.
    pub to: PeerId,
    /// To be repeated in the answer.
    pub token: u64,
}

/// How the clear path to one peer stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The underlay address of the peer that is in use or being tried.
    pub remote: IpAddr,
    /// Whether packets may be sent on it.
    pub proven: bool,
    /// Round trip of the latest question.
    pub rtt: Option<Duration>,
    /// Share of the latest questions without an answer, 0 to 1.
    pub loss: f64,
    /// Why, for people.
    pub reason: String,
}

#[derive(Debug)]
struct ClearPath {
    candidates: Vec<IpAddr>,
    /// Which of them.
    chosen: usize,
    state: State,
    due: Instant,
    open: Option<(u64, Instant)>,
    /// One bit for each of the latest 32 questions, the newest lowest: set for lost.
    lost: u32,
    rtt: Option<Duration>,
    /// Falls since it last was steady.
    falls: u32,
    /// Rounds over all candidates in vain.
    rounds: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Proving {
        since: Instant,
        answers: u32,
    },
    /// `missed` is when the first question since `heard` was sent that found no answer.
    Up {
        since: Instant,
        heard: Instant,
        missed: Option<Instant>,
    },
    Resting,
}

impl ClearPaths {
    /// Takes on the peers with which clear is allowed, each with its addresses, best first. `inherited` tells the
    /// address that a former run of this node left in use: that path goes on, and is proven while it is used.
    pub fn configure(
        &mut self,
        wanted: BTreeMap<PeerId, Vec<IpAddr>>,
        inherited: impl Fn(PeerId) -> Option<IpAddr>,
        now: Instant,
    ) {
        let before = self.paths.len();
        self.paths.retain(|peer, _| wanted.contains_key(peer));
        self.changed |= self.paths.len() != before;
        for (peer, candidates) in wanted {
            match self.paths.get_mut(&peer) {
                Some(path) if path.candidates == candidates => {}
                Some(path) => {
                    path.take_candidates(candidates, now);
                    self.changed = true;
                }
                None => {
                    self.paths.insert(peer, ClearPath::new(candidates, inherited(peer), now));
                    self.changed = true;
                }
            }
        }
    }

    /// An answer came through the path.
    pub fn handle_answer(&mut self, peer: PeerId, token: u64, now: Instant) {
        if let Some(path) = self.paths.get_mut(&peer) {
            self.changed |= path.handle_answer(token, now);
        }
    }

    /// Does what has become due. `random` gives tokens that nobody can guess.
    pub fn handle_timeout(
        &mut self,
        now: Instant,
        mut random: impl FnMut() -> u64,
        witness: impl Fn(PeerId) -> Witness,
    ) {
        for (peer, path) in self.paths.iter_mut().filter(|(_, path)| path.due <= now) {
            if path.expire(now) {
                self.doubts.push_back(*peer);
            }
            self.changed |= path.handle_timeout(now, || witness(*peer));
            if path.asks(now) {
                let token = random();
                path.open = Some((token, now));
                self.questions.push_back(Question { to: *peer, token });
            }
        }
    }

    /// When to call [`Self::handle_timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.paths.values().map(|path| path.due).min()
    }

    /// The next question to send.
    pub fn poll_question(&mut self) -> Option<Question> {
        self.questions.pop_front()
    }

    /// The next peer that is to be asked in another way, because it did not answer in clear.
    pub fn poll_doubt(&mut self) -> Option<PeerId> {
        self.doubts.pop_front()
    }

    /// Whether anything that the kernel has to know changed since the last call.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// How the path to a peer stands; nothing where clear is not allowed.
    #[must_use]
    pub fn standing(&self, peer: PeerId) -> Option<Standing> {
        self.paths.get(&peer).and_then(ClearPath::standing)
    }
}

impl ClearPath {
    fn new(candidates: Vec<IpAddr>, inherited: Option<IpAddr>, now: Instant) -> Self {
        let chosen = inherited.and_then(|remote| candidates.iter().position(|candidate| *candidate == remote));
        let state = match chosen {
            Some(_) => State::Up { since: now, heard: now, missed: None },
            None => State::Proving { since: now, answers: 0 },
        };
        let chosen = chosen.unwrap_or_default();
        Self { candidates, chosen, state, due: now, open: None, lost: 0, rtt: None, falls: 0, rounds: 0 }
    }

    /// Other addresses: the one in use stays in use where it is among them.
    fn take_candidates(&mut self, candidates: Vec<IpAddr>, now: Instant) {
        let in_use = self.candidates.get(self.chosen).copied();
        let kept = in_use.and_then(|remote| candidates.iter().position(|candidate| *candidate == remote));
        self.candidates = candidates;
        match kept {
            Some(kept) if self.state != State::Resting => self.chosen = kept,
            _ => {
                self.rounds = 0;
                self.prove(0, now);
            }
        }
    }

    fn prove(&mut self, candidate: usize, now: Instant) {
        self.chosen = candidate;
        self.state = State::Proving { since: now, answers: 0 };
        self.open = None;
        self.due = now;
    }

    /// Whether the kernel has to know.
    fn handle_answer(&mut self, token: u64, now: Instant) -> bool {
        let Some((_, sent)) = self.open.take_if(|(open, _)| *open == token) else { return false };
        self.rtt = Some(now.saturating_duration_since(sent));
        self.lost <<= 1;
        match &mut self.state {
            State::Resting => false,
            State::Up { since, heard, missed } => {
                (*heard, *missed) = (now, None);
                if now.saturating_duration_since(*since) >= STEADY {
                    self.falls = 0;
                }
                self.due = sent + CALM_INTERVAL;
                false
            }
            State::Proving { answers, .. } => {
                *answers += 1;
                if *answers < PROOF << self.falls.min(MOST_DOUBLINGS) {
                    self.due = sent + PROVING_INTERVAL;
                    return false;
                }
                self.state = State::Up { since: now, heard: now, missed: None };
                self.rounds = 0;
                self.due = now + CALM_INTERVAL;
                true
            }
        }
    }

    /// Gives up on an answer that is too late. Whether a path in use is in doubt.
    fn expire(&mut self, now: Instant) -> bool {
        let late = self.open.take_if(|(_, sent)| now.saturating_duration_since(*sent) >= PATIENCE);
        let Some((_, sent)) = late else { return false };
        self.lost = self.lost << 1 | 1;
        match &mut self.state {
            State::Proving { answers, .. } => {
                *answers = 0;
                false
            }
            State::Up { missed, .. } => {
                missed.get_or_insert(sent);
                true
            }
            State::Resting => false,
        }
    }

    /// Whether the kernel has to know.
    fn handle_timeout(&mut self, now: Instant, witness: impl FnOnce() -> Witness) -> bool {
        match self.state {
            State::Up { heard, missed: Some(missed), .. } if now.saturating_duration_since(heard) >= SILENCE => {
                let Witness { heard, alive } = witness();
                let known = alive && now.saturating_duration_since(missed) >= MESH_KNOWS;
                let broken = known || heard.is_some_and(|heard| heard > missed + PATIENCE);
                if broken {
                    self.falls += 1;
                    self.prove(self.chosen, now);
                }
                broken
            }
            State::Proving { since, answers: 0 } if now.saturating_duration_since(since) >= CANDIDATE_PATIENCE => {
                self.next_candidate(now);
                true
            }
            State::Resting => {
                self.prove(0, now);
                true
            }
            State::Up { .. } | State::Proving { .. } => false,
        }
    }

    fn next_candidate(&mut self, now: Instant) {
        if self.chosen + 1 < self.candidates.len() {
            return self.prove(self.chosen + 1, now);
        }
        self.state = State::Resting;
        self.open = None;
        self.due = now + FIRST_REST.saturating_mul(1 << self.rounds.min(6)).min(LONGEST_REST);
        self.rounds += 1;
    }

    /// Whether a question is to be sent now; says when to look again.
    fn asks(&mut self, now: Instant) -> bool {
        if self.state == State::Resting {
            return false;
        }
        let (asks, due) = match self.open {
            Some((_, sent)) => (false, sent + PATIENCE),
            None => (true, now + PATIENCE),
        };
        self.due = match self.state {
            State::Up { heard, .. } if heard + SILENCE > now => due.min(heard + SILENCE),
            _ => due,
        };
        asks
    }

    fn standing(&self) -> Option<Standing> {
        let remote = *self.candidates.get(self.chosen)?;
        let reason = match self.state {
            State::Up { missed: Some(_), .. } => {
                "nothing answers for now; the kernel carries packets also while the daemon there is down".to_owned()
            }
            State::Up { .. } => "both sides allow clear, and probes through it are answered".to_owned(),
            State::Proving { .. } if self.falls > 0 => {
                format!("the clear path to {remote} fell silent and is being proven again")
            }
            State::Proving { .. } => format!("the clear path to {remote} is being proven"),
            State::Resting => format!(
                "the clear path is allowed, but nothing answers through it at {}: is its UDP port open?",
                self.candidates.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            ),
        };
        Some(Standing {
            remote,
            proven: matches!(self.state, State::Up { .. }),
            rtt: self.rtt,
            loss: f64::from(self.lost.count_ones()) / 32.0,
            reason,
        })
    }
}

#[cfg(test)]
#[path = "paths_tests.rs"]
mod tests;
