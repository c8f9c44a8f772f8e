//! `meshlab scale`: a hundred daemons on one machine, release builds: how long they take to become one mesh, what they
//! cost when nothing happens, and what it costs when half of them start again together.
//!
//! Figures come from the kernel (`/proc`, the hosts' own interfaces) and from the daemons' logs; the daemons are asked for
//! nothing but whom they see. Each figure stands beside its bar.

mod measure;

use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use meshwork_api::model::{ConnectionState, PeerState, Status};

use crate::error::{Error, Result};
use crate::host::Host;
use crate::interrupt;
use crate::lab::Lab;
use crate::say;
use crate::topology::LabName;
use crate::wait::{Look, eventually};
use measure::{Sample, mean, most};

/// Nothing takes this long that works at all.
const PATIENCE: Duration = Duration::from_secs(180);
/// A mesh is at rest when no host made or lost a link for this long: surplus ones are given up one after the other.
const REST: Duration = Duration::from_secs(20);
/// Longest wait for that.
const SETTLING: Duration = Duration::from_secs(300);
/// Hosts that are asked at the same time whether they see all others, and how long each is left alone in between.
const ASKED_TOGETHER: usize = 8;
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// What is called idle.
const IDLE: Duration = Duration::from_secs(60);

/// Bars.
const FORMED_S: f64 = 30.0;
const IDLE_PERCENT: f64 = 0.3;
const IDLE_MEGABYTES: f64 = 30.0;
const WHOLE_AGAIN_S: f64 = 30.0;
/// Links that a restarted node may make until it is whole: twice what it wants, and what others make to it.
const LINKS_PER_RESTART: f64 = 16.0;

/// Makes a lab of its own, measures, prints and takes it away. Answers whether every bar was met.
///
/// # Errors
/// When the lab cannot be made, a daemon ends by itself, or the mesh does not become whole.
pub fn run(name: &str, hosts: u16, keep: bool) -> Result<bool> {
    interrupt::end_lab_on_signal(&LabName::new(name)?)?;
    say!("{hosts} hosts; load of the machine before: {}", measure::load()?);
    let lab = Lab::build(name)?.hosts(hosts).without_daemons()?;
    let outcome = figures(&lab);
    if outcome.is_err() && keep {
        say!("the lab is left running; take it away with: meshlab down --name {name}");
        lab.leave_running();
        return outcome;
    }
    let met = outcome?;
    lab.down()?;
    Ok(met)
}

fn figures(lab: &Lab) -> Result<bool> {
    let formed = forming(lab)?;
    let formed = verdict("one mesh", formed, "s", FORMED_S);
    say!("  {}", links(lab)?);
    let rested = settling(lab)?;
    say!("at rest after another {:.0} s: {}; load {}", rested.as_secs_f64(), links(lab)?, measure::load()?);
    let idle = idling(lab)?;
    let again = restarting(lab)?;
    Ok(formed && idle && again)
}

/// Seconds from the first start until everyone sees everyone.
fn forming(lab: &Lab) -> Result<f64> {
    let begun = Instant::now();
    lab.hosts().iter().try_for_each(Host::start)?;
    say!("{} daemons started after {:.1} s", lab.hosts().len(), begun.elapsed().as_secs_f64());
    wait_until_whole(lab)?;
    Ok(begun.elapsed().as_secs_f64())
}

/// How long it took until links came to rest, as the daemons' logs tell of them.
fn settling(lab: &Lab) -> Result<Duration> {
    let (begun, mut seen, mut since) = (Instant::now(), usize::MAX, Instant::now());
    eventually(SETTLING, "a mesh at rest", || {
        interrupt::check()?;
        let made = lab.hosts().iter().map(measure::link_events).sum::<Result<usize>>()?;
        if made != seen {
            (seen, since) = (made, Instant::now());
        }
        if since.elapsed() >= REST { Ok(Look::Done(())) } else { later("links still come and go") }
    })?;
    Ok(since - begun)
}

fn idling(lab: &Lab) -> Result<bool> {
    let before = samples(lab)?;
    thread::sleep(IDLE);
    interrupt::check()?;
    let after = samples(lab)?;
    let spent: Vec<Sample> = after.iter().zip(&before).map(|(after, before)| after.since(before)).collect();
    let percent = |sample: &Sample| 100.0 * sample.cpu_s / IDLE.as_secs_f64();
    let megabytes = |sample: &Sample| sample.resident_bytes / 1e6;
    let sent = |sample: &Sample| sample.sent_bytes / IDLE.as_secs_f64();
    say!("idle for {} s; load {}", IDLE.as_secs(), measure::load()?);
    let cpu = verdict("  CPU of a daemon, mean", mean(&spent, percent), "% of a core", IDLE_PERCENT);
    say!("  CPU of a daemon, most: {:.2} % of a core", most(&spent, percent));
    let memory = verdict("  memory of a daemon, most", most(&after, megabytes), "MB", IDLE_MEGABYTES);
    say!("  sent by a host, mean: {:.0} B/s, most: {:.0} B/s", mean(&spent, sent), most(&spent, sent));
    Ok(cpu && memory)
}

/// Every second daemon is killed and started again.
fn restarting(lab: &Lab) -> Result<bool> {
    let (restarted, others): (Vec<&Host>, Vec<&Host>) =
        lab.hosts().iter().partition(|host| host.number().get() % 2 == 0);
    let before = lab.hosts().iter().map(measure::established).sum::<Result<usize>>()?;
    let spent_before: Vec<Sample> = others.iter().map(|host| measure::sample(host)).collect::<Result<_>>()?;
    restarted.iter().try_for_each(|host| host.kill())?;
    let begun = Instant::now();
    restarted.iter().try_for_each(|host| host.start())?;
    wait_until_whole(lab)?;
    let took = begun.elapsed().as_secs_f64();
    let made = lab.hosts().iter().map(measure::established).sum::<Result<usize>>()? - before;
    let spent: Vec<Sample> = others
        .iter()
        .zip(&spent_before)
        .map(|(host, before)| Ok(measure::sample(host)?.since(before)))
        .collect::<Result<_>>()?;
    say!("{} of {} restarted together; load {}", restarted.len(), lab.hosts().len(), measure::load()?);
    let whole = verdict("  whole again", took, "s", WHOLE_AGAIN_S);
    // Each link is told of at both ends.
    let links_made = made as f64 / 2.0 / restarted.len() as f64;
    let bounded = verdict("  links made for each that restarted", links_made, "", LINKS_PER_RESTART);
    say!(
        "  the others meanwhile: {:.2} s of CPU each, {:.0} kB sent each",
        mean(&spent, |sample| sample.cpu_s),
        mean(&spent, |sample| sample.sent_bytes / 1e3)
    );
    say!("  {}", links(lab)?);
    Ok(whole && bounded)
}

/// Each host is asked until it sees all others: a few at a time, because an answer takes its time on a machine that is busy
/// with a hundred daemons, and seldom, because it costs them.
fn wait_until_whole(lab: &Lab) -> Result<()> {
    let (hosts, others) = (Mutex::new(lab.hosts().iter()), lab.hosts().len() - 1);
    let next = || hosts.lock().unwrap_or_else(PoisonError::into_inner).next();
    let ask_on = || std::iter::from_fn(next).try_for_each(|host| wait_until_it_sees(host, others));
    thread::scope(|scope| {
        let asking: Vec<_> = (0..ASKED_TOGETHER).map(|_| scope.spawn(ask_on)).collect();
        asking.into_iter().try_for_each(|asked| asked.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

fn wait_until_it_sees(host: &Host, others: usize) -> Result<()> {
    eventually(PATIENCE, &format!("{} in a mesh of {}", host.number(), others + 1), || {
        host.check_daemon()?;
        let Ok(status) = host.get::<Status>("/v1/status") else { return later("no answer") };
        let alive = status.peers.get(&PeerState::Alive).copied().unwrap_or_default();
        match (status.ready, alive > others) {
            (true, true) => Ok(Look::Done(())),
            (false, _) => later(&status.reasons.join("; ")),
            (true, false) => later(&format!("it sees {} others", alive.saturating_sub(1))),
        }
    })
    .map_err(|error| with_log(error, host))
}

fn later(missing: &str) -> Result<Look<()>> {
    thread::sleep(ASK_AGAIN);
    Ok(Look::Missing(missing.to_owned()))
}

fn with_log(error: Error, host: &Host) -> Error {
    let Error::TimedOut { what, deadline, missing } = error else { return error };
    Error::TimedOut { what, deadline, missing: format!("{missing}; its log ends with:\n{}", host.log_tail()) }
}

fn links(lab: &Lab) -> Result<String> {
    let count = |host: &Host| -> Result<usize> {
        let status: Status = host.get("/v1/status")?;
        Ok(status.connections.get(&ConnectionState::Established).copied().unwrap_or_default())
    };
    let mut counts: Vec<usize> = lab.hosts().iter().map(count).collect::<Result<_>>()?;
    counts.sort_unstable();
    let (least, most) = (counts.first().copied().unwrap_or_default(), counts.last().copied().unwrap_or_default());
    let mean = counts.iter().sum::<usize>() as f64 / counts.len().max(1) as f64;
    Ok(format!("links of a node: {least} to {most}, {mean:.1} in the mean"))
}

fn samples(lab: &Lab) -> Result<Vec<Sample>> {
    lab.hosts().iter().map(measure::sample).collect()
}

fn verdict(what: &str, value: f64, unit: &str, bar: f64) -> bool {
    let met = value <= bar;
    say!("{what}: {value:.2} {unit} (bar {bar} {unit}): {}", if met { "met" } else { "MISSED" });
    met
}
