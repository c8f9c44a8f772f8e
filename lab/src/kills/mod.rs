//! `meshlab kills`: a daemon that is killed at random moments while pods come and go keeps every answer that it gave.
//!
//! Runtimes attach and detach pods on `h1` without pause; a [`Ledger`] remembers what they were told. Its daemon is killed
//! at moments that follow from a seed, and started again at once. Meanwhile an auditor asks the kernel and the API for what
//! the living pods were promised, and every few kills everything comes to rest and is compared whole: nothing is missing,
//! and nothing else is there.

mod audit;
mod held;
mod ledger;
mod runtime;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};
use std::thread;
use std::time::{Duration, Instant};

use meshwork_api::model::VersionInfo;

use crate::error::Result;
use crate::host::Host;
use crate::interrupt;
use crate::lab::Lab;
use crate::random::Random;
use crate::say;
use crate::topology::{HostNumber, LabName};
use crate::wait::{Look, eventually};
use audit::Auditor;
use ledger::Ledger;
use runtime::Runtime;

/// The host whose daemon is killed, and the one that asks its pods.
const KILLED: u16 = 1;
const WITNESS: u16 = 2;
/// Runtimes at work at once: their calls overlap, on two cores.
const RUNTIMES: u64 = 4;
/// Kills from one rest to the next.
const REST_EVERY: u32 = 10;
/// Half of the kills come this soon after the start, while the daemon begins; the others while it works.
const SOON: Duration = Duration::from_millis(250);
const LATE: Duration = Duration::from_millis(2000);
/// Longer than any daemon is left alone.
const PATIENCE: Duration = Duration::from_secs(60);

/// What happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Times that the daemon was killed.
    pub kills: u32,
    /// Attachments that succeeded.
    pub added: u32,
    /// Attachments that failed, each followed by detaching.
    pub refused: u32,
    /// Detachments that succeeded.
    pub deleted: u32,
    /// Detachments that failed and were asked for again.
    pub repeated: u32,
    /// Times that the living pods were looked after while all went on.
    pub audits: u32,
    /// Longest time from a kill to the next answer of the API, over as many kills as came in between.
    pub longest_silence: Duration,
}

/// Makes a lab of its own and kills in it. If an answer turns out to be false, the logs are told, and with `keep` the lab
/// is left running to look around in.
///
/// # Errors
/// When the lab cannot be made, a daemon ends by itself, or an answer is not true.
pub fn run(name: &str, times: u32, seed: u64, keep: bool) -> Result<()> {
    interrupt::end_lab_on_signal(&LabName::new(name)?)?;
    say!("{times} kills under {RUNTIMES} runtimes, MESHWORK_SEED={seed}");
    let lab = lab(name)?;
    let outcome = carry_out(&lab, times, seed);
    interrupt::check()?;
    lab.conclude(outcome.map(|figures| figures.to_string()), keep)
}

/// Two hosts that dial each other: a daemon that waits to be dialled is called back ever later if it keeps dying young.
///
/// # Errors
/// When the lab cannot be made.
pub fn lab(name: &str) -> Result<Lab> {
    let witness = HostNumber::new(WITNESS).map(|number| number.address4().to_string()).unwrap_or_default();
    Lab::build(name)?.hosts(2).flags(KILLED, &["--peer", &witness]).up()
}

/// Kills the daemon of `h1` so many times while pods come and go there, and proves that what was answered holds.
///
/// # Errors
/// [`crate::Error::Unproven`] or [`crate::Error::TimedOut`] with the answer that is not true; what the lab refuses.
pub fn carry_out(lab: &Lab, times: u32, seed: u64) -> Result<Figures> {
    let (ledger, turns) = (Ledger::default(), Turns::default());
    let auditor = Auditor::new(lab, &ledger)?;
    let mut killer =
        Killer { host: lab.host(KILLED), random: Random::new(seed), silent_since: None, figures: Figures::default() };
    thread::scope(|scope| {
        let runtimes = (1..=RUNTIMES).map(|number| Runtime::new(lab.host(KILLED), number, seed, &ledger, &turns));
        let mut threads: Vec<_> = runtimes.map(|runtime| scope.spawn(|| turns.until_over(|| runtime.run()))).collect();
        threads.push(scope.spawn(|| turns.until_over(|| auditor.watch(&turns))));
        let killed = turns.until_over(|| killer.run(times, &turns, &auditor));
        // What ended early knows best why.
        let joined = threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.and(killed)
    })?;
    Ok(ledger.count(killer.figures))
}

/// Lets all come to rest, and to an end.
#[derive(Debug, Default)]
struct Turns {
    over: AtomicBool,
    resting: RwLock<()>,
}

impl Turns {
    fn are_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Does one thing that has to be through before a rest.
    fn take<T>(&self, turn: impl FnOnce() -> T) -> T {
        let _working = self.resting.read().unwrap_or_else(PoisonError::into_inner);
        turn()
    }

    /// Waits until everybody is through, and keeps them from going on.
    fn rest(&self) -> RwLockWriteGuard<'_, ()> {
        self.resting.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever ends, well or not, ends it for all.
    fn until_over(&self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let outcome = work();
        self.over.store(true, Ordering::Relaxed);
        outcome
    }
}

/// Kills one daemon, and starts it again.
struct Killer<'a> {
    host: &'a Host,
    random: Random,
    /// The first kill since the daemon last answered.
    silent_since: Option<Instant>,
    figures: Figures,
}

impl Killer<'_> {
    fn run(&mut self, times: u32, turns: &Turns, auditor: &Auditor<'_>) -> Result<()> {
        for number in 1..=times {
            self.live_on(turns)?;
            if turns.are_over() {
                return Ok(());
            }
            self.silent_since.get_or_insert_with(Instant::now);
            self.host.kill()?;
            self.figures.kills = number;
            self.host.start()?;
            if number % REST_EVERY == 0 || number == times {
                let rested = Instant::now();
                self.rest(turns, auditor)?;
                say!("{number} kills: every answer is true, proven in {:.2} s", rested.elapsed().as_secs_f64());
            }
        }
        Ok(())
    }

    /// Leaves the daemon alone until its next kill is due.
    fn live_on(&mut self, turns: &Turns) -> Result<()> {
        let longest = if self.random.happens(50.0) { SOON } else { LATE };
        let due = Instant::now() + Duration::from_micros(self.random.below(longest.as_micros() as u64));
        eventually(PATIENCE, "time of the next kill", || {
            self.host.check_daemon()?;
            self.listen();
            let ripe = Instant::now() >= due || turns.are_over();
            Ok(if ripe { Look::Done(()) } else { Look::Missing("time".into()) })
        })
    }

    /// Notes how long the daemon was silent once it answers.
    fn listen(&mut self) {
        let Some(since) = self.silent_since else { return };
        if self.host.get::<VersionInfo>("/v1/version").is_ok() {
            self.figures.longest_silence = self.figures.longest_silence.max(since.elapsed());
            self.silent_since = None;
        }
    }

    /// Compares everything while nobody works, once more after a death that nobody saw.
    fn rest(&mut self, turns: &Turns, auditor: &Auditor<'_>) -> Result<()> {
        eventually(PATIENCE, "an answer of the daemon", || {
            self.host.check_daemon()?;
            self.listen();
            Ok(if self.silent_since.is_none() { Look::Done(()) } else { Look::Missing("an answer".into()) })
        })?;
        let _resting = turns.rest();
        if turns.are_over() {
            return Ok(());
        }
        auditor.compare_whole()?;
        self.host.kill()?;
        auditor.look_after_the_living()?;
        self.host.start()?;
        auditor.compare_whole()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kills, added, refused, deleted, repeated, audits, longest_silence } = self;
        write!(
            formatter,
            "{kills} kills; {added} ADD and {refused} refused; {deleted} DEL and {repeated} asked for again; \
             {audits} looks at the living; at most {:.2} s without an answer",
            longest_silence.as_secs_f64()
        )
    }
}
