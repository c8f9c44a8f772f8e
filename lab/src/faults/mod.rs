//! Faults by schedule: what befalls a mesh is drawn from a seed, carried out, and mended; then the mesh has to be whole.

mod runner;
mod schedule;
mod whole;

use std::env;
use std::time::Duration;

pub use runner::Faults;
pub use schedule::{Action, Fault, schedule};

use crate::error::{Error, Result};
use crate::interrupt;
use crate::lab::Lab;
use crate::say;
use crate::topology::LabName;

/// Replays a run.
const SEED_VARIABLE: &str = "MESHWORK_SEED";
/// Until a mesh is whole again after everything was mended: QUIC notices a lost link after 10 s, a restarted node waits
/// up to 5 s for a peer's ring, and a debug build on a loaded machine takes a multiple of the rest.
pub const WHOLE_DEADLINE: Duration = Duration::from_secs(45);

/// The seed of `MESHWORK_SEED`, else 1.
///
/// # Errors
/// When it is no number.
pub fn seed() -> Result<u64> {
    let Ok(text) = env::var(SEED_VARIABLE) else { return Ok(1) };
    text.parse().map_err(|_| Error::Unproven(format!("{SEED_VARIABLE} is a number, not {text:?}")))
}

/// Makes a lab of its own, lets faults befall it for `duration`, mends them, and waits until the mesh is whole. If it does
/// not become so, the logs are told, and with `keep` the lab is left running to look around in.
///
/// # Errors
/// When the lab cannot be made, a daemon ends by itself, or the mesh is not whole at the deadline.
pub fn run(name: &str, hosts: u16, seed: u64, duration: Duration, keep: bool) -> Result<()> {
    interrupt::end_lab_on_signal(&LabName::new(name)?)?;
    say!("faults for {} s on {hosts} hosts, {SEED_VARIABLE}={seed}", duration.as_secs());
    let lab = Lab::build(name)?.hosts(hosts).up()?;
    let befallen = befall(&lab, &schedule(seed, hosts, duration));
    interrupt::check()?;
    let told = befallen.map(|took| format!("whole {:.2} s after everything was mended", took.as_secs_f64()));
    lab.conclude(told, keep)
}

fn befall(lab: &Lab, schedule: &[Fault]) -> Result<Duration> {
    let mut faults = Faults::new(lab);
    faults.carry_out(schedule)?;
    faults.mend()?;
    faults.wait_until_whole(WHOLE_DEADLINE)
}
