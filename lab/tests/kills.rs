//! A daemon that is killed at random moments, while pods come and go through the plugin, keeps every answer that it gave,
//! and nothing else is left. `MESHWORK_SEED` chooses the moments, `MESHWORK_SCHEDULES` how many: a tenth as many kills.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails at that line")]

use meshwork_lab::{faults, figure, kills};

/// A tenth of a full run.
const SCHEDULES: u32 = 200;

#[test]
fn every_answer_of_a_daemon_that_is_killed_again_and_again_is_still_true() {
    let seed = faults::seed().unwrap();
    let schedules = std::env::var("MESHWORK_SCHEDULES").map_or(SCHEDULES, |text| text.parse().unwrap());
    println!("MESHWORK_SEED={seed}");
    let lab = kills::lab("kills").unwrap();
    let figures = kills::carry_out(&lab, schedules.div_ceil(10), seed).unwrap();
    figure(format_args!("{figures}"));
    figure("0 links, routes, rules, addresses or leases leaked");
    assert!(figures.added > figures.kills, "hardly anything was attached: {figures}");
}
