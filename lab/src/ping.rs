//! Echo requests with a payload that can be found again in a capture.

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
    /// Requests sent.
    pub sent: u32,
    /// Answers received.
    pub received: u32,
    /// Mean round trip in microseconds; nothing without answers.
    pub average_us: Option<f64>,
}

impl Ping {
    /// One request, waited for a second.
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
        let mut line: Vec<String> = ["ping", "-n", "-q", "-s"].map(str::to_owned).into();
        line.push(PAYLOAD.to_string());
        line.extend(["-c".into(), self.count.to_string()]);
        line.extend(["-i".into(), format!("{:.3}", self.every.as_secs_f64())]);
        line.extend(["-W".into(), format!("{:.3}", self.patience.as_secs_f64())]);
        line.extend(self.marker.iter().flat_map(|marker| ["-p".into(), marker.clone()]));
        line.push(self.address.to_string());
        line
    }

    /// Asks from inside `namespace`. No answer is no error.
    ///
    /// # Errors
    /// When `ping` cannot run or is not understood.
    pub fn run(&self, namespace: &Namespace) -> Result<Answers> {
        let output = namespace.output(self.line())?;
        let printed = both(&output);
        parse(&printed).ok_or_else(|| Error::Unreadable {
            program: "ping",
            why: "no statistics".into(),
            output: format!("{printed} ({})", output.status),
        })
    }
}

/// `3 packets transmitted, 3 received, 0% packet loss, time 40ms` and `rtt min/avg/max/mdev = 0.1/0.2/0.3/0.0 ms`.
fn parse(printed: &str) -> Option<Answers> {
    let counts = printed.lines().find(|line| line.contains("packets transmitted"))?;
    let number_before = |word: &str| {
        let part = counts.split(',').find(|part| part.contains(word))?;
        part.split_whitespace().next()?.parse().ok()
    };
    let (sent, received) = (number_before("transmitted")?, number_before("received")?);
    let round_trips = printed.lines().find_map(|line| line.trim().strip_prefix("rtt min/avg/max/mdev = "));
    let average_ms = round_trips.and_then(|line| line.split('/').nth(1)?.parse::<f64>().ok());
    Some(Answers { sent, received, average_us: average_ms.map(|average| average * 1000.0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_read() {
        let printed = "PING 1.1.1.1 (1.1.1.1) 120(148) bytes of data.\n\n--- 1.1.1.1 ping statistics ---\n3 packets \
                       transmitted, 2 received, 33% packet loss, time 40ms\nrtt min/avg/max/mdev = 0.1/0.25/0.3/0.0 ms\n";
        let answers = parse(printed).unwrap();
        assert_eq!((answers.sent, answers.received, answers.average_us), (3, 2, Some(250.0)));
    }

    #[test]
    fn silence_has_no_round_trip() {
        let printed = "1 packets transmitted, 0 received, +1 errors, 100% packet loss, time 0ms";
        let answers = parse(printed).unwrap();
        assert_eq!((answers.sent, answers.received, answers.average_us), (1, 0, None));
        assert!(parse("ping: connect: Network is unreachable").is_none());
    }

    #[test]
    fn a_marker_is_given_as_hex_and_cut_to_what_ping_takes() {
        let line = Ping::to([1, 1, 1, 1]).marked(b"0123456789abcdefg").line().join(" ");
        assert!(line.ends_with("-p 30313233343536373839616263646566 1.1.1.1"), "{line}");
    }
}
