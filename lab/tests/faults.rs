//! Faults by schedule: whatever befalls a mesh, once everything is mended it is whole, and nothing is left over.
//! `MESHWORK_SEED` replays a run.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails at that line")]

use std::time::Duration;

use meshwork_lab::faults::{self, Faults, WHOLE_DEADLINE};
use meshwork_lab::{Lab, figure, took};

const HOSTS: u16 = 4;
const DURATION: Duration = Duration::from_secs(25);

#[test]
fn a_mesh_is_whole_again_after_whatever_befell_it() {
    let seed = faults::seed().unwrap();
    println!("MESHWORK_SEED={seed}");
    let lab = Lab::build("faults").unwrap().hosts(HOSTS).up().unwrap();
    let mut faults = Faults::new(&lab);
    let schedule = faults::schedule(seed, HOSTS, DURATION);
    faults.carry_out(&schedule).unwrap();
    faults.mend().unwrap();
    let mended = faults.wait_until_whole(WHOLE_DEADLINE).unwrap();
    figure(format_args!("{} faults survived, {} pods live, nothing left over", schedule.len(), faults.pods()));
    took("mesh whole again after all was mended", mended);
}
