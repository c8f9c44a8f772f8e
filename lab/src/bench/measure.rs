//! One measurement between two namespaces: throughput, what it cost the machine, and the round trip.

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::iperf::Iperf;
use crate::namespace::Namespace;
use crate::ping::Ping;

/// Long enough for TCP's start not to matter, short enough for rounds to see the same machine.
const SECONDS: u32 = 5;
const PINGS: u32 = 200;
const PING_EVERY: Duration = Duration::from_millis(5);
/// Ticks per second of `/proc/stat`: `USER_HZ`, fixed in the kernel's interface to programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// What was measured.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Figures {
    pub(super) gigabits_per_second: f64,
    /// Of all processors, with everything that ran on them, iperf3 included.
    pub(super) cpu_seconds_per_gigabyte: f64,
    pub(super) round_trip_us: f64,
}

impl fmt::Display for Figures {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { gigabits_per_second, cpu_seconds_per_gigabyte, round_trip_us } = self;
        write!(
            formatter,
            "{gigabits_per_second:6.2} Gbit/s  {cpu_seconds_per_gigabyte:5.2} CPU s/GB  {round_trip_us:4.0} µs"
        )
    }
}

pub(super) fn between(from: &Namespace, to: &Namespace, address: IpAddr, log: &Path) -> Result<Figures> {
    // The first packet of a path may have to find it.
    Ping::to(address).count(10).run(from)?;
    let round_trips = Ping::to(address).count(PINGS).every(PING_EVERY).run(from)?;
    let silent = || Error::Unproven(format!("no answer from {address} in {}", from.name()));
    let round_trip_us = round_trips.average_us.ok_or_else(silent)?;

    let _server = Iperf::serve(to, log)?;
    let before = busy_seconds()?;
    let measured = Iperf::send(from, address, SECONDS)?;
    let busy = busy_seconds()? - before;
    Ok(Figures {
        gigabits_per_second: measured.bits_per_second / 1e9,
        cpu_seconds_per_gigabyte: busy / (measured.bytes / 1e9),
        round_trip_us,
    })
}

/// Seconds that all processors together were not idle since the machine started.
fn busy_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat").map_err(Error::io("read /proc/stat"))?;
    let ticks = parse_busy(&stat).ok_or_else(|| Error::Unproven("/proc/stat has no line of all processors".into()))?;
    Ok(ticks / TICKS_PER_SECOND)
}

/// `cpu user nice system idle iowait irq softirq steal guest …`: all but the two idle ones; guest is part of user.
fn parse_busy(stat: &str) -> Option<f64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<f64> = line.split_whitespace().take(8).filter_map(|word| word.parse().ok()).collect();
    let [user, nice, system, _idle, _waiting, interrupts, soft_interrupts, stolen] = ticks[..] else { return None };
    Some(user + nice + system + interrupts + soft_interrupts + stolen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_not_busy_time() {
        assert_eq!(parse_busy("cpu  1 2 4 1000 1000 8 16 32 64 64\ncpu0 1 1 1 1 1 1 1 1 1 1"), Some(63.0));
        assert_eq!(parse_busy("cpu  1 2"), None);
    }
}
