//! What the kernel and a daemon's log say of the daemon.

use std::fs;

use crate::error::{Error, Result};
use crate::host::Host;
use crate::topology::HOST_LINK;

/// Ticks of `/proc/PID/stat` a second: the same on every architecture that Linux gives programs (`USER_HZ`).
const TICKS: f64 = 100.0;

/// Columns behind the program's name in `/proc/PID/stat` (`proc_pid_stat(5)`): time in user and system mode, of the
/// daemon and of the programs that it ran.
const TIMES: std::ops::Range<usize> = 11..15;

/// Column of the bytes sent in `/proc/PID/net/dev`, behind the interface's name.
const SENT: usize = 8;

/// A daemon at one moment, or between two.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sample {
    pub(super) cpu_s: f64,
    pub(super) resident_bytes: f64,
    pub(super) sent_bytes: f64,
}

impl Sample {
    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            cpu_s: self.cpu_s - before.cpu_s,
            resident_bytes: self.resident_bytes,
            sent_bytes: self.sent_bytes - before.sent_bytes,
        }
    }
}

pub(super) fn sample(host: &Host) -> Result<Sample> {
    let pid = host.daemon_id().ok_or_else(|| host.no_daemon())?;
    let of = |file: &str| {
        let path = format!("/proc/{pid}/{file}");
        fs::read_to_string(&path).map_err(Error::io(format!("read {path}")))
    };
    let sample = parse(&of("stat")?, &of("status")?, &of("net/dev")?);
    sample.ok_or_else(|| Error::Unproven(format!("/proc/{pid} cannot be read")))
}

fn parse(stat: &str, status: &str, devices: &str) -> Option<Sample> {
    let times: Vec<&str> = stat.rsplit_once(") ")?.1.split_whitespace().collect();
    let ticks = |column: &&str| column.parse::<f64>().ok();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?;
    let link = devices.lines().find_map(|line| line.trim().strip_prefix(HOST_LINK)?.strip_prefix(':'))?;
    Some(Sample {
        cpu_s: times.get(TIMES)?.iter().map(ticks).sum::<Option<f64>>()? / TICKS,
        resident_bytes: resident.parse::<f64>().ok()? * 1024.0,
        sent_bytes: link.split_whitespace().nth(SENT)?.parse().ok()?,
    })
}

/// Control links that came up since the first start of the daemon, from its log.
pub(super) fn established(host: &Host) -> Result<usize> {
    lines_with(host, "control link established")
}

/// How often a control link came or went since then.
pub(super) fn link_events(host: &Host) -> Result<usize> {
    lines_with(host, "control link ")
}

fn lines_with(host: &Host, words: &str) -> Result<usize> {
    let log = fs::read(host.log()).map_err(Error::io(format!("read {}", host.log().display())))?;
    Ok(String::from_utf8_lossy(&log).lines().filter(|line| line.contains(words)).count())
}

/// Load of the machine over one, five and fifteen minutes.
pub(super) fn load() -> Result<String> {
    let load = fs::read_to_string("/proc/loadavg").map_err(Error::io("read /proc/loadavg"))?;
    Ok(load.split_whitespace().take(3).collect::<Vec<_>>().join(" "))
}

pub(super) fn mean(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    samples.iter().map(of).sum::<f64>() / samples.len().max(1) as f64
}

pub(super) fn most(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    samples.iter().map(of).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_whatever_the_program_is_called() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 100 0 0 0 140 40 15 5 20 0 7 0 99 1 2";
        let status = "Name:\tmeshd\nVmRSS:\t   20000 kB\n";
        let devices = "Inter-|\n face |bytes\n    lo: 1 1 0 0 0 0 0 0 1 1\n  eth0: 7 1 0 0 0 0 0 0 900 3 0\n";
        let sample = parse(stat, status, devices).unwrap();
        assert_eq!((sample.cpu_s, sample.resident_bytes, sample.sent_bytes), (2.0, 20_480_000.0, 900.0));
        assert!(parse(stat, "", devices).is_none());
    }
}
