//! The table, and how it came to be.

use std::fs;

use crate::bench::{ROUNDS, Round, Way, wireguard};
use crate::error::{Error, Result};
use crate::table;

/// Bars of the encrypted path.
const TIMES_WIREGUARD_BAR: f64 = 2.5;
const CPU_BAR: f64 = 1.5;

/// Markdown for people and for the repository.
pub(super) fn render(rounds: &[Round]) -> Result<String> {
    let rows: Vec<_> = Way::ALL.iter().enumerate().map(|(at, way)| row(rounds, at, *way)).collect();
    let heading = ["way", "Gbit/s", "x wireguard-go", "x VXLAN", "CPU s/GB", "round trip µs"];
    let times = median(rounds, |round| ratio(round, 0, 1));
    let cpu = median(rounds, |round| round[0].cpu_seconds_per_gigabyte);
    Ok(format!(
        "# Results of `make bench`\n\n{}\n\
         Encrypted TCP is {times:.2} x wireguard-go (bar {TIMES_WIREGUARD_BAR}: {}) at {cpu:.2} CPU seconds per GB \
         (bar {CPU_BAR}: {}).\n\n{}",
        table::render(heading, &rows),
        verdict(times >= TIMES_WIREGUARD_BAR),
        verdict(cpu <= CPU_BAR),
        method()?
    ))
}

fn verdict(holds: bool) -> &'static str {
    if holds { "met" } else { "missed" }
}

fn row(rounds: &[Round], at: usize, way: Way) -> [String; 6] {
    let times = |rival: usize| format!("{:.2}", median(rounds, |round| ratio(round, at, rival)));
    [
        way.shown().to_owned(),
        format!("{:.2}", median(rounds, |round| round[at].gigabits_per_second)),
        times(1),
        times(2),
        format!("{:.2}", median(rounds, |round| round[at].cpu_seconds_per_gigabyte)),
        format!("{:.0}", median(rounds, |round| round[at].round_trip_us)),
    ]
}

/// How many times as fast one way is as another, in one round.
fn ratio(round: &Round, way: usize, other: usize) -> f64 {
    round[way].gigabits_per_second / round[other].gigabits_per_second
}

fn median(rounds: &[Round], of: impl Fn(&Round) -> f64) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn method() -> Result<String> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").map_err(Error::io("read the kernel's version"))?;
    let processors = fs::read_to_string("/proc/cpuinfo").map_err(Error::io("read /proc/cpuinfo"))?;
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let model = model.trim_start_matches([' ', '\t', ':']);
    let count = processors.lines().filter(|line| line.starts_with("processor")).count();
    Ok(format!(
        "## How it was measured\n\n\
         - Linux {}, {count} x {model}; everything on this one machine.\n\
         - Two hosts as network namespaces joined by a routing namespace (MTU 1,500), pods as namespaces on them.\n\
         - `iperf3`, one TCP stream for 5 s from a pod of h1 to a pod of h2; `ping`, 200 round trips, mean.\n\
         - CPU seconds are those of the whole machine from /proc/stat, iperf3 included, per 10^9 bytes received.\n\
         - Median of {ROUNDS} rounds; each round measures all ways one after the other, ratios are taken within a round.\n\
         - Meshwork: encryption required (the default). wireguard-go {}: defaults, which include segmentation offloads. \
         Kernel VXLAN: one static remote, no learning. Plain routing: no tunnel at all.\n",
        kernel.trim(),
        wireguard::VERSION,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::measure::Figures;

    fn round(speeds: [f64; 4]) -> Round {
        speeds.map(|gigabits_per_second| Figures { gigabits_per_second, ..Figures::default() })
    }

    #[test]
    fn ratios_are_taken_within_a_round_and_the_middle_one_counts() {
        let rounds = [round([10.0, 2.0, 1.0, 1.0]), round([3.0, 1.0, 1.0, 1.0]), round([8.0, 2.0, 1.0, 1.0])];
        assert_eq!(median(&rounds, |round| ratio(round, 0, 1)), 4.0);
    }
}
