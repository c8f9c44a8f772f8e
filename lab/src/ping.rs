//! Echo requests with a payload that can be found again in a capture.
//!
//! Each request is told from the others by its sequence number, and the last one is waited for as long as it deserves:
//! `ping -W` holds only while nothing was answered at all, and gives the last request two round trips otherwise, which
//! counts an answer as lost when the machine merely paused. `ping -w` waits, but goes on asking meanwhile; those requests
//! are beyond the count and are not counted.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::namespace::{Namespace, both};

/// Payload of a request: the pattern repeats in it at least three times behind the 16 bytes of its time stamp.
const PAYLOAD: usize = 120;
/// Longest pattern that `ping` fills a payload with.
pub const MAX_MARKER: usize = 16;

/// A question to one address.
#[derive(Debug, Clone)]
pub struct Ping {
    address: IpAddr,
    count: u32,
    every: Duration,
    patience: Duration,
    marker: Option<String>,
}

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answers {
    /// Requests that were answered, each counted once.
    pub received: u32,
    /// Mean round trip in microseconds; nothing without answers.
    pub average_us: Option<f64>,
}

impl Ping {
    /// One request, waited for a second at least.
    #[must_use]
    pub fn to(address: impl Into<IpAddr>) -> Self {
        Self {
            address: address.into(),
            count: 1,
            every: Duration::from_millis(20),
            patience: Duration::from_secs(1),
            marker: None,
        }
    }

    /// Sends `count` requests.
    #[must_use]
    pub fn count(mut self, count: u32) -> Self {
        self.count = count;
        self
    }

    /// Leaves this long between two requests.
    #[must_use]
    pub fn every(mut self, every: Duration) -> Self {
        self.every = every;
        self
    }

    /// Fills the payload with `marker`, at most [`MAX_MARKER`] bytes.
    #[must_use]
    pub fn marked(mut self, marker: &[u8]) -> Self {
        self.marker = Some(marker.iter().take(MAX_MARKER).map(|byte| format!("{byte:02x}")).collect());
        self
    }

    /// Command line of this question.
    #[must_use]
    pub fn line(&self) -> Vec<String> {
        let mut line: Vec<String> = ["ping", "-n", "-s"].map(str::to_owned).into();
        line.push(PAYLOAD.to_string());
        line.extend(["-c".into(), self.count.to_string()]);
        line.extend(["-i".into(), format!("{:.3}", self.every.as_secs_f64())]);
        // Whole seconds are all that it takes, and its pauses are up to twice as long as asked for.
        let deadline = (self.every * self.count * 2 + self.patience).as_secs_f64().ceil();
        line.extend(["-w".into(), format!("{deadline:.0}")]);
        line.extend(self.marker.iter().flat_map(|marker| ["-p".into(), marker.clone()]));
        line.push(self.address.to_string());
        line
    }

    /// Asks from inside `namespace`. No answer is no error.
    ///
    /// # Errors
    /// When `ping` cannot run or is not understood.
    pub fn run(&self, namespace: &Namespace) -> Result<Answers> {
        self.ask(namespace, |printed| parse(printed, self.count))
    }

    /// Asks from inside `namespace`: the round trip of each answer in microseconds, as they came.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn round_trips(&self, namespace: &Namespace) -> Result<Vec<f64>> {
        self.ask(namespace, |printed| {
            parse(printed, self.count)?;
            Some(printed.lines().filter_map(round_trip).collect())
        })
    }

    fn ask<T>(&self, namespace: &Namespace, parse: impl FnOnce(&str) -> Option<T>) -> Result<T> {
        let output = namespace.output(self.line())?;
        let printed = both(&output);
        parse(&printed).ok_or_else(|| Error::Unreadable {
            program: "ping",
            why: "no statistics".into(),
            output: format!("{printed} ({})", output.status),
        })
    }
}

/// `128 bytes from 10.32.0.2: icmp_seq=1 ttl=62 time=0.5 ms` for each answer, at the end `3 packets transmitted, …` and
/// `rtt min/avg/max/mdev = 0.1/0.2/0.3/0.0 ms`. Answers beyond the first `count` requests are none of ours.
fn parse(printed: &str, count: u32) -> Option<Answers> {
    printed.lines().find(|line| line.contains("packets transmitted"))?;
    let answered: BTreeSet<u32> = printed.lines().filter_map(sequence).filter(|number| *number <= count).collect();
    let round_trips = printed.lines().find_map(|line| line.trim().strip_prefix("rtt min/avg/max/mdev = "));
    let average_ms = round_trips.and_then(|line| line.split('/').nth(1)?.parse::<f64>().ok());
    let received = u32::try_from(answered.len()).ok()?;
    Some(Answers { received, average_us: average_ms.map(|average| average * 1000.0) })
}

/// Which request a line answers, if it is an answer and no error of some router.
fn sequence(line: &str) -> Option<u32> {
    let (_, rest) = line.contains(" bytes from ").then(|| line.split_once("icmp_seq="))??;
    rest.split_whitespace().next()?.parse().ok()
}

/// Microseconds that an answer took, if a line is one that counts.
fn round_trip(line: &str) -> Option<f64> {
    sequence(line)?;
    let (time, unit) = line.rsplit_once("time=")?.1.split_once(' ')?;
    (unit == "ms").then(|| time.parse::<f64>().ok().map(|milliseconds| milliseconds * 1000.0)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: &str = "PING 1.1.1.1 (1.1.1.1) 120(148) bytes of data.
128 bytes from 1.1.1.1: icmp_seq=1 ttl=62 time=0.2 ms
128 bytes from 1.1.1.1: icmp_seq=1 ttl=62 time=0.2 ms (DUP!)
From 10.32.0.1 icmp_seq=2 Destination Host Unreachable
128 bytes from 1.1.1.1: icmp_seq=3 ttl=62 time=31 ms
128 bytes from 1.1.1.1: icmp_seq=4 ttl=62 time=0.1 ms

--- 1.1.1.1 ping statistics ---
4 packets transmitted, 3 received, +1 duplicates, +1 errors, 25% packet loss, time 40ms
rtt min/avg/max/mdev = 0.1/0.25/31.0/0.0 ms
";

    #[test]
    fn each_request_counts_once_and_those_beyond_the_count_do_not() {
        let answers = parse(THREE, 3).unwrap();
        assert_eq!((answers.received, answers.average_us), (2, Some(250.0)));
    }

    #[test]
    fn each_answer_has_a_round_trip_and_a_doubled_one_does_not_count() {
        let times: Vec<_> = THREE.lines().filter_map(round_trip).collect();
        assert_eq!(times, [200.0, 31_000.0, 100.0]);
    }

    #[test]
    fn silence_has_no_round_trip() {
        let printed = "1 packets transmitted, 0 received, +1 errors, 100% packet loss, time 0ms";
        let answers = parse(printed, 1).unwrap();
        assert_eq!((answers.received, answers.average_us), (0, None));
        assert!(parse("ping: connect: Network is unreachable", 1).is_none());
    }

    #[test]
    fn the_last_request_is_waited_for_as_long_as_the_first() {
        let line = Ping::to([1, 1, 1, 1]).count(60).line().join(" ");
        assert!(line.contains("-c 60 -i 0.020 -w 4"), "{line}");
    }

    #[test]
    fn a_marker_is_given_as_hex_and_cut_to_what_ping_takes() {
        let line = Ping::to([1, 1, 1, 1]).marked(b"0123456789abcdefg").line().join(" ");
        assert!(line.ends_with("-p 30313233343536373839616263646566 1.1.1.1"), "{line}");
    }
}
