//! The table, and how it came to be.

use std::fs;

use crate::bench::{MOVING_RATE, MOVING_SECONDS, ROUNDS, Round, Way, wireguard};
use crate::error::{Error, Result};
use crate::iperf::Datagrams;
use crate::table;

/// Bars of the encrypted path.
const TIMES_WIREGUARD_BAR: f64 = 2.5;
const CPU_BAR: f64 = 1.5;
/// Bars of the clear path.
const CLEAR_BAR: f64 = 0.97;
const LEAST_MOVES: u32 = 100;

/// Markdown for people and for the repository.
pub(super) fn render(rounds: &[Round], (datagrams, moves): (Datagrams, u32)) -> Result<String> {
    let rows: Vec<_> = Way::ALL.iter().map(|way| row(rounds, *way)).collect();
    let heading = ["way", "Gbit/s", "x wireguard-go", "x VXLAN", "CPU s/GB", "round trip µs"];
    let times = median(rounds, |round| ratio(round, Way::Meshwork, Way::WireguardGo));
    let cpu = median(rounds, |round| round[Way::Meshwork.place()].cpu_seconds_per_gigabyte);
    let clear = median(rounds, |round| ratio(round, Way::Clear, Way::Vxlan));
    let Datagrams { sent, lost } = datagrams;
    Ok(format!(
        "# Results of `make bench`\n\n{}\n\
         Encrypted TCP is {times:.2} x wireguard-go (bar {TIMES_WIREGUARD_BAR}: {}) at {cpu:.2} CPU seconds per GB \
         (bar {CPU_BAR}: {}). Clear TCP is {clear:.2} x hand-made VXLAN (bar {CLEAR_BAR}: {}). A path moved {moves} \
         times between clear and sealed lost {lost} of {sent} datagrams (bar 0: {}).\n\n{}",
        table::render(heading, &rows),
        verdict(times >= TIMES_WIREGUARD_BAR),
        verdict(cpu <= CPU_BAR),
        verdict(clear >= CLEAR_BAR),
        verdict(lost == 0 && moves >= LEAST_MOVES),
        method()?
    ))
}

fn verdict(holds: bool) -> &'static str {
    if holds { "met" } else { "missed" }
}

fn row(rounds: &[Round], way: Way) -> [String; 6] {
    let times = |rival| format!("{:.2}", median(rounds, |round| ratio(round, way, rival)));
    let at = way.place();
    [
        way.shown().to_owned(),
        format!("{:.2}", median(rounds, |round| round[at].gigabits_per_second)),
        times(Way::WireguardGo),
        times(Way::Vxlan),
        format!("{:.2}", median(rounds, |round| round[at].cpu_seconds_per_gigabyte)),
        format!("{:.0}", median(rounds, |round| round[at].round_trip_us)),
    ]
}

/// How many times as fast one way is as another, in one round.
fn ratio(round: &Round, way: Way, other: Way) -> f64 {
    round[way.place()].gigabits_per_second / round[other.place()].gigabits_per_second
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
         - Hosts as network namespaces joined by a routing namespace (MTU 1,500), pods as namespaces on them: h1 and h2 \
         for what is encrypted and for the rivals, h3 and h4, which allow clear, for the clear path.\n\
         - `iperf3`, one TCP stream for 5 s from a pod of one host to a pod of the other; `ping`, 200 round trips, mean.\n\
         - CPU seconds are those of the whole machine from /proc/stat, iperf3 included, per 10^9 bytes received.\n\
         - Median of {ROUNDS} rounds; each round measures all ways one after the other, ratios are taken within a round.\n\
         - Meshwork: encryption required (the default). wireguard-go {}: defaults, which include segmentation offloads. \
         Hand-made VXLAN: one static remote, no learning, a masquerade rule. Plain routing: no tunnel at all.\n\
         - Moving: {MOVING_RATE} datagrams of 64 bytes a second for {MOVING_SECONDS} s, counted by iperf3.\n",
        kernel.trim(),
        wireguard::VERSION,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::measure::Figures;

    fn round(speeds: [f64; 5]) -> Round {
        speeds.map(|gigabits_per_second| Figures { gigabits_per_second, ..Figures::default() })
    }

    #[test]
    fn ratios_are_taken_within_a_round_and_the_middle_one_counts() {
        let rounds = [[10.0, 2.0], [3.0, 1.0], [8.0, 2.0]].map(|[ours, rival]| round([ours, rival, 1.0, 1.0, 1.0]));
        assert_eq!(median(&rounds, |round| ratio(round, Way::Meshwork, Way::WireguardGo)), 4.0);
    }
}
