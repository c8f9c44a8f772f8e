//! What was measured, and what becomes of it: ratios are taken within a round, and the middle one of the rounds counts.

use std::collections::BTreeMap;
use std::fmt;

use clap::ValueEnum;

use crate::bench::way::Way;

/// A part of the run, in the order of a round: round trips first, while the machine is at rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Part {
    /// Round trips on an idle machine.
    Ping,
    /// One TCP stream.
    Tcp,
    /// Four TCP streams.
    Streams,
    /// Small datagrams, as many as go.
    Udp,
    /// A stream of datagrams as QUIC sends it.
    Quic,
    /// One TCP stream over IPv6, inside and outside.
    Ipv6,
    /// One TCP stream where 1 % of packets are lost.
    Loss,
    /// One TCP stream where 1 % of packets are overtaken.
    Reorder,
    /// Moving a path between clear and sealed under traffic.
    Moves,
}

/// One kind of figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Measure {
    Tcp,
    TcpCpu,
    Streams,
    Packets,
    Paced,
    Quic,
    MedianRoundTrip,
    TailRoundTrip,
    Ipv6Inside,
    Ipv6Outside,
    Lossy,
    Reordered,
}

impl Measure {
    pub(super) const fn unit(self) -> &'static str {
        match self {
            Self::TcpCpu => "CPU s/GB",
            Self::Packets => "kpps flooded",
            Self::Paced => "kpps in a window",
            Self::MedianRoundTrip => "µs in the middle",
            Self::TailRoundTrip => "µs at p99",
            _ => "Gbit/s",
        }
    }
}

/// What one measurement brought.
pub(super) type Found = Vec<(Measure, f64)>;

/// All figures of one round.
#[derive(Debug, Clone, Default)]
pub(super) struct Round(BTreeMap<(Way, Measure), f64>);

impl Round {
    pub(super) fn note(&mut self, way: Way, found: Found) {
        self.0.extend(found.into_iter().map(|(measure, value)| ((way, measure), value)));
    }

    pub(super) fn get(&self, way: Way, measure: Measure) -> Option<f64> {
        self.0.get(&(way, measure)).copied()
    }

    /// How many times as much one way has as another.
    pub(super) fn ratio(&self, measure: Measure, way: Way, other: Way) -> Option<f64> {
        Some(self.get(way, measure)? / self.get(other, measure)?)
    }

    pub(super) fn most(&self, measure: Measure, ways: &[Way]) -> Option<f64> {
        ways.iter().filter_map(|way| self.get(*way, measure)).max_by(f64::total_cmp)
    }

    pub(super) fn least(&self, measure: Measure, ways: &[Way]) -> Option<f64> {
        ways.iter().filter_map(|way| self.get(*way, measure)).min_by(f64::total_cmp)
    }
}

/// The middle value of the rounds that have one.
pub(super) fn median(rounds: &[Round], of: impl Fn(&Round) -> Option<f64>) -> Option<f64> {
    percentile(rounds.iter().filter_map(of).collect(), 50)
}

/// The value that `percent` of the others do not exceed.
pub(super) fn percentile(mut values: Vec<f64>, percent: usize) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let place = (values.len() * percent / 100).min(values.len().checked_sub(1)?);
    values.get(place).copied()
}

/// Figures of one measurement, for whoever watches.
pub(super) struct Shown<'a>(pub(super) &'a Found);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self.0.iter().map(|(measure, value)| format!("{value:.2} {}", measure.unit())).collect();
        formatter.write_str(&words.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(ours: f64, rival: f64) -> Round {
        let mut round = Round::default();
        round.note(Way::Meshwork, vec![(Measure::Tcp, ours)]);
        round.note(Way::WireguardGo, vec![(Measure::Tcp, rival)]);
        round
    }

    #[test]
    fn ratios_are_taken_within_a_round_and_the_middle_one_counts() {
        let rounds = [round(10.0, 2.0), round(3.0, 1.0), round(8.0, 2.0)];
        let ratio = |round: &Round| round.ratio(Measure::Tcp, Way::Meshwork, Way::WireguardGo);
        assert_eq!(median(&rounds, ratio), Some(4.0));
    }

    #[test]
    fn a_round_without_the_figure_does_not_count() {
        let rounds = [round(10.0, 2.0), Round::default()];
        assert_eq!(median(&rounds, |round| round.get(Way::Meshwork, Measure::Tcp)), Some(10.0));
        assert_eq!(median(&rounds, |round| round.get(Way::Tinc, Measure::Tcp)), None);
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(percentile(values.clone(), 50), Some(101.0));
        assert_eq!(percentile(values, 99), Some(199.0));
        assert_eq!(percentile(vec![7.0], 99), Some(7.0));
        assert_eq!(percentile(Vec::new(), 50), None);
    }
}
