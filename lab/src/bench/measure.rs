//! Measurements between two namespaces: what arrived, and what it cost the machine.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::bench::bulk;
use crate::bench::figures::{Found, Measure, Part, percentile};
use crate::error::{Error, Result};
use crate::iperf::Iperf;
use crate::namespace::Namespace;
use crate::ping::Ping;

/// Long enough for TCP's start not to matter, short enough for rounds to see the same machine.
pub(super) const TCP_SECONDS: u32 = 5;
/// For what varies less, or is one of many.
pub(super) const SHORT_SECONDS: u32 = 3;
pub(super) const STREAMS: u32 = 4;
pub(super) const PINGS: u32 = 400;
const PING_EVERY: Duration = Duration::from_millis(5);
/// How long is looked at what the machine does besides.
const QUIET: Duration = Duration::from_secs(2);
/// Ticks per second of `/proc/stat`: `USER_HZ`, fixed in the kernel's interface to programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// From where to where is measured.
#[derive(Debug)]
pub(super) struct Course<'a> {
    pub(super) from: &'a Namespace,
    pub(super) to: &'a Namespace,
    /// Of the far end.
    pub(super) address: IpAddr,
    /// Where the far end's iperf3 prints.
    pub(super) log: PathBuf,
}

impl Course<'_> {
    /// Measures what `part` is about.
    pub(super) fn measure(&self, part: Part) -> Result<Found> {
        // The first packets of a path may have to find it.
        Ping::to(self.address).count(10).run(self.from)?;
        match part {
            Part::Ping => self.round_trips(),
            Part::Tcp => self.tcp(1, TCP_SECONDS, Measure::Tcp),
            Part::Streams => self.tcp(STREAMS, TCP_SECONDS, Measure::Streams),
            Part::Udp => self.packets(),
            Part::Quic => self.quic(),
            Part::Ipv6 => self.tcp(1, SHORT_SECONDS, Measure::Ipv6Inside),
            Part::Loss => self.tcp(1, TCP_SECONDS, Measure::Lossy),
            Part::Reorder => self.tcp(1, TCP_SECONDS, Measure::Reordered),
            Part::Moves => Ok(Found::new()),
        }
    }

    /// One TCP stream over IPv6 outside.
    pub(super) fn outside(&self) -> Result<Found> {
        Ping::to(self.address).count(10).run(self.from)?;
        self.tcp(1, SHORT_SECONDS, Measure::Ipv6Outside)
    }

    fn round_trips(&self) -> Result<Found> {
        let times = Ping::to(self.address).count(PINGS).every(PING_EVERY).round_trips(self.from)?;
        let at = |percent| {
            let silent = || Error::Unproven(format!("no answer from {} in {}", self.address, self.from.name()));
            percentile(times.clone(), percent).ok_or_else(silent)
        };
        Ok(vec![(Measure::MedianRoundTrip, at(50)?), (Measure::TailRoundTrip, at(99)?)])
    }

    fn tcp(&self, streams: u32, seconds: u32, measure: Measure) -> Result<Found> {
        let _server = Iperf::serve(self.to, &self.log)?;
        let before = busy_seconds()?;
        let measured = Iperf::send_streams(self.from, self.address, streams, seconds)?;
        let busy = busy_seconds()? - before;
        let speed = (measure, measured.bits_per_second / 1e9);
        let cpu = (Measure::TcpCpu, busy / (measured.bytes / 1e9));
        Ok(if measure == Measure::Tcp { vec![speed, cpu] } else { vec![speed] })
    }

    fn packets(&self) -> Result<Found> {
        let _server = Iperf::serve(self.to, &self.log)?;
        let datagrams = Iperf::flood(self.from, self.address, SHORT_SECONDS)?;
        let arrived = datagrams.sent.saturating_sub(datagrams.lost);
        let flooded = (Measure::Packets, arrived as f64 / f64::from(SHORT_SECONDS) / 1e3);
        Ok(vec![flooded, (Measure::Paced, self.stream(bulk::SMALL)? / 1e3)])
    }

    fn quic(&self) -> Result<Found> {
        let bits = bulk::QUIC.datagram as f64 * 8.0;
        Ok(vec![(Measure::Quic, self.stream(bulk::QUIC)? * bits / 1e9)])
    }

    /// Datagrams a second.
    fn stream(&self, shape: bulk::Shape) -> Result<f64> {
        bulk::carry(shape, self.from, self.to, self.address, Duration::from_secs(SHORT_SECONDS.into()))
    }
}

/// The share of all processors that something takes while nothing is measured: what runs on the machine besides.
pub(super) fn disturbance() -> Result<f64> {
    let (before, begun) = (busy_seconds()?, Instant::now());
    thread::sleep(QUIET);
    let busy = busy_seconds()? - before;
    let processors = thread::available_parallelism().map_or(1.0, |count| count.get() as f64);
    Ok(busy / begun.elapsed().as_secs_f64() / processors)
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
