//! `meshlab churn`: what a runtime pays that attaches and detaches pods without end.
//!
//! One attachment is due every so often, whether or not the one before is through: several workers take them in turn,
//! each with a namespace of its own, and every attachment has a sandbox of its own, as pods have. Times are those of the
//! whole plugin, from starting its process to its end.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use meshwork_api::model::Leases;

use crate::cni::Sandbox;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::interrupt;
use crate::lab::Lab;
use crate::namespace::Namespace;
use crate::say;
use crate::table;
use crate::topology::LabName;

const NAME: &str = "churn";

/// Attachments under way at once: enough that a slow one does not delay the next, few enough for two cores.
const WORKERS: u16 = 4;

/// Times of one attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Turn {
    /// Begun so long after it was due.
    late: Duration,
    add: Duration,
    delete: Duration,
}

/// Attaches and detaches `rate` pods per second for so many seconds, and prints how long each verb took.
///
/// # Errors
/// When the lab does not work, an attachment fails, or anything is left at the end.
pub fn run(rate: u32, seconds: u32) -> Result<()> {
    interrupt::end_lab_on_signal(&LabName::new(NAME)?)?;
    let lab = Lab::build(NAME)?.hosts(1).up()?;
    let host = lab.host(1);
    say!("{rate} ADD and DEL per second for {seconds} s, {WORKERS} workers");
    let schedule = Schedule { start: Instant::now(), rate, count: rate * seconds, taken: AtomicU32::new(0) };
    let (plan, workers) = (&schedule, 1..=WORKERS);
    let turns = thread::scope(|scope| {
        let workers: Vec<_> = workers.map(|number| scope.spawn(move || work(host, number, plan))).collect();
        let joined =
            workers.into_iter().map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.collect::<Result<Vec<_>>>()
    })?;
    let turns: Vec<Turn> = turns.into_iter().flatten().collect();
    say!("\n{}", render(&turns, schedule.start.elapsed()));
    nothing_left(host)?;
    lab.down()
}

/// When each attachment is due, and how many were taken.
struct Schedule {
    start: Instant,
    rate: u32,
    count: u32,
    taken: AtomicU32,
}

impl Schedule {
    /// The next attachment and when it is due.
    fn take(&self) -> Option<(u32, Instant)> {
        let number = self.taken.fetch_add(1, Ordering::Relaxed);
        let due = self.start + Duration::from_secs(1) * number / self.rate;
        (number < self.count).then_some((number, due))
    }
}

fn work(host: &Host, worker: u16, schedule: &Schedule) -> Result<Vec<Turn>> {
    let sandbox = host.sandbox(&format!("w{worker}"));
    let name = sandbox.netns.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Namespace::create(name)?;
    let mut turns = Vec::new();
    while let Some((number, due)) = schedule.take() {
        interrupt::check()?;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        turns.push(turn(host, &Sandbox { id: format!("churn-{number}"), ..sandbox.clone() }, due)?);
    }
    Ok(turns)
}

fn turn(host: &Host, sandbox: &Sandbox, due: Instant) -> Result<Turn> {
    let begun = Instant::now();
    host.cni().add(sandbox)?;
    let added = Instant::now();
    host.cni().delete(sandbox)?;
    Ok(Turn { late: begun - due, add: added - begun, delete: added.elapsed() })
}

fn nothing_left(host: &Host) -> Result<()> {
    let leases: Leases = host.get("/v1/pods")?;
    let links = host.exec(["ip", "-o", "link", "show", "type", "veth"])?;
    let links = links.lines().filter(|line| line.contains(": mw")).count();
    match (leases.leases.len(), links) {
        (0, 0) => Ok(()),
        (leases, links) => Err(Error::Unproven(format!("{leases} leases and {links} links are left"))),
    }
}

fn render(turns: &[Turn], took: Duration) -> String {
    let row = |name: &str, of: fn(&Turn) -> Duration| {
        let mut times: Vec<Duration> = turns.iter().map(of).collect();
        times.sort_unstable();
        let [median, most, longest] =
            [50, 99, 100].map(|percent| Milliseconds(percentile(&times, percent)).to_string());
        [name.to_owned(), median, most, longest]
    };
    let rows = [row("ADD", |turn| turn.add), row("DEL", |turn| turn.delete), row("begun late by", |turn| turn.late)];
    let rate = turns.len() as f64 / took.as_secs_f64();
    format!(
        "{}\n{} attachments, {rate:.1} per second\n",
        table::render(["ms", "p50", "p99", "max"], &rows),
        turns.len()
    )
}

/// The least of sorted times that so many of a hundred do not exceed.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(rank).copied().unwrap_or_default()
}

struct Milliseconds(Duration);

impl fmt::Display for Milliseconds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:.1}", self.0.as_secs_f64() * 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_time_that_was_measured() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        let of = |percent| percentile(&times, percent).as_millis();
        assert_eq!((of(50), of(99), of(100)), (100, 198, 200));
        assert_eq!(percentile(&times[..1], 99), times[0]);
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }

    #[test]
    fn attachments_are_due_at_an_even_pace() {
        let start = Instant::now();
        let schedule = Schedule { start, rate: 4, count: 3, taken: AtomicU32::new(0) };
        let due: Vec<_> = std::iter::from_fn(|| schedule.take()).map(|(_, due)| (due - start).as_millis()).collect();
        assert_eq!(due, [0, 250, 500]);
    }
}
