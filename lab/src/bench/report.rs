//! The tables, and how they came to be.

use std::fs;

use crate::bench::figures::{Measure, Part, Round, median};
use crate::bench::measure::{PINGS, SHORT_SECONDS, STREAMS, TCP_SECONDS};
use crate::bench::rivals::package;
use crate::bench::way::Way;
use crate::bench::{BAD_PERCENT, MOVING_RATE, MOVING_SECONDS, bulk};
use crate::error::{Error, Result};
use crate::iperf::Datagrams;
use crate::table;

const LEAST_MOVES: u32 = 100;
/// Where nothing was measured.
const NOTHING: &str = "–";

/// What is to be told of a run.
pub(super) struct Report<'a> {
    pub(super) rounds: &'a [Round],
    pub(super) parts: &'a [Part],
    pub(super) missing: &'a [(Way, String)],
    pub(super) moved: Option<(Datagrams, u32)>,
    /// Share of the machine that something else took.
    pub(super) disturbance: f64,
}

/// A figure and what it has to be.
struct Bar {
    what: &'static str,
    figure: Option<f64>,
    bar: f64,
    /// It is to be no more, instead of no less.
    ceiling: bool,
}

impl Report<'_> {
    /// Markdown for people and for the repository.
    pub(super) fn render(&self) -> Result<String> {
        let heading = [
            "way",
            "TCP Gbit/s",
            "x wireguard-go",
            "x VXLAN",
            "CPU s/GB",
            "4 streams",
            "64 B kpps",
            "in a window",
            "QUIC-like",
            "IPv6 inside",
            "p50 µs",
            "p99 µs",
        ];
        let rows: Vec<_> = Way::ALL.iter().map(|way| self.row(*way)).collect();
        let contest: Vec<_> = CONTESTS.iter().map(|(what, measure)| self.contest(what, *measure)).collect();
        let bars: Vec<_> = self.bars().iter().map(Bar::row).chain(self.moves()).collect();
        Ok(format!(
            "# Results of `make bench`\n\n{}{}\n{}\n{}\n{}",
            self.absent(),
            table::render(heading, &rows),
            table::render(["Gbit/s, one TCP stream", "Meshwork", "wireguard-go", "ratio"], &contest),
            table::render(["bar", "figure", "at", "verdict"], &bars),
            self.method()?
        ))
    }

    fn middle(&self, way: Way, measure: Measure) -> Option<f64> {
        median(self.rounds, |round| round.get(way, measure))
    }

    fn ratio(&self, measure: Measure, way: Way, other: Way) -> Option<f64> {
        median(self.rounds, |round| round.ratio(measure, way, other))
    }

    fn row(&self, way: Way) -> [String; 12] {
        let figure = |measure, digits| shown(self.middle(way, measure), digits);
        [
            way.shown().to_owned(),
            figure(Measure::Tcp, 2),
            shown(self.ratio(Measure::Tcp, way, Way::WireguardGo), 2),
            shown(self.ratio(Measure::Tcp, way, Way::Vxlan), 2),
            figure(Measure::TcpCpu, 2),
            figure(Measure::Streams, 2),
            figure(Measure::Packets, 0),
            figure(Measure::Paced, 0),
            figure(Measure::Quic, 2),
            figure(Measure::Ipv6Inside, 2),
            figure(Measure::MedianRoundTrip, 0),
            figure(Measure::TailRoundTrip, 0),
        ]
    }

    fn contest(&self, what: &str, measure: Measure) -> [String; 4] {
        let of = |way| shown(self.middle(way, measure), 2);
        let ratio = shown(self.ratio(measure, Way::Meshwork, Way::WireguardGo), 2);
        [what.to_owned(), of(Way::Meshwork), of(Way::WireguardGo), ratio]
    }

    fn bars(&self) -> Vec<Bar> {
        let against = |measure| self.ratio(measure, Way::Meshwork, Way::WireguardGo);
        let floor = |what, figure, bar| Bar { what, figure, bar, ceiling: false };
        let ceiling = |what, figure, bar| Bar { what, figure, bar, ceiling: true };
        let own = |round: &Round, measure| round.get(Way::Meshwork, measure);
        let streams = median(self.rounds, |round| Some(own(round, Measure::Streams)? / own(round, Measure::Tcp)?));
        let packets =
            |measure| median(self.rounds, |round| Some(own(round, measure)? / round.most(measure, &Way::RIVALS)?));
        let trip = median(self.rounds, |round| {
            let best = round.least(Measure::MedianRoundTrip, &Way::RIVALS)?;
            Some(own(round, Measure::MedianRoundTrip)? / best)
        });
        vec![
            floor("encrypted TCP, x wireguard-go", against(Measure::Tcp), 2.5),
            floor("encrypted TCP, four streams, x one", streams, 1.0),
            ceiling("encrypted TCP, CPU s/GB", self.middle(Way::Meshwork, Measure::TcpCpu), 1.5),
            floor("small packets, x the best rival", packets(Measure::Packets), 2.0),
            floor("small packets in a window, x the best rival", packets(Measure::Paced), 2.0),
            ceiling("round trip in the middle, x the best rival", trip, 1.0),
            floor("clear TCP, x hand-made VXLAN", self.ratio(Measure::Tcp, Way::Clear, Way::Vxlan), 0.97),
            floor("QUIC-like, x wireguard-go", against(Measure::Quic), 2.5),
            floor("IPv6 inside, x wireguard-go", against(Measure::Ipv6Inside), 2.5),
            floor("IPv6 outside, x wireguard-go", against(Measure::Ipv6Outside), 2.5),
            floor("with loss, x wireguard-go", against(Measure::Lossy), 1.0),
            floor("with reordering, x wireguard-go", against(Measure::Reordered), 1.0),
        ]
    }

    fn moves(&self) -> Option<[String; 4]> {
        let (Datagrams { sent, lost }, moves) = self.moved?;
        let what = format!("datagrams lost of {sent} while the path moved {moves} times");
        Some([what, lost.to_string(), "at most 0".into(), verdict(lost == 0 && moves >= LEAST_MOVES).into()])
    }

    fn absent(&self) -> String {
        let line = |(way, why): &(Way, String)| format!("**Missing: {}**, since {why}.\n\n", way.shown());
        self.missing.iter().map(line).collect()
    }

    fn method(&self) -> Result<String> {
        let kernel =
            fs::read_to_string("/proc/sys/kernel/osrelease").map_err(Error::io("read the kernel's version"))?;
        let processors = fs::read_to_string("/proc/cpuinfo").map_err(Error::io("read /proc/cpuinfo"))?;
        let model = processors.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
        let model = model.trim_start_matches([' ', '\t', ':']);
        let count = processors.lines().filter(|line| line.starts_with("processor")).count();
        let rivals: Vec<_> = Way::ALL.into_iter().filter_map(package).map(|package| package.shown()).collect();
        let parts: Vec<_> = self.parts.iter().map(|part| format!("{part:?}").to_lowercase()).collect();
        Ok(format!(
            "## How it was measured\n\n\
             - Linux {}, {count} x {model}; everything on this one machine, which was {:.0} % busy \
             with other things before.\n\
             - Median of {} rounds of {}. A part of a round measures all ways one after the other; ratios are taken within a \
             round, and the median of the ratios counts, so that it need not be the ratio of the medians.\n\
             - Versions: {}.\n{METHOD}\
             - One TCP stream and {STREAMS}: `iperf3` for {TCP_SECONDS} s ({SHORT_SECONDS} s over IPv6).\n\
             - Small packets: `iperf3 -u -l 64 -b 0` for {SHORT_SECONDS} s, as fast as one iperf3 sends (it takes a processor \
             to itself, which is what the other one has to stand against); counted is what its other end received.\n\
             - In a window: one datagram of 64 bytes in a call, at most {} on their way, for {SHORT_SECONDS} s, so that little \
             is lost; counted is what arrived.\n\
             - QUIC-like: datagrams of {} bytes, {} in a call (UDP_SEGMENT), received in runs (UDP_GRO), at most {} on \
             their way, for {SHORT_SECONDS} s; counted is what arrived.\n\
             - Round trip: {PINGS} times `ping`, one every 5 ms, on a machine that does nothing else; every single time counts.\n\
             - Loss and reordering: {BAD_PERCENT} % of packets each way on one host's link, dropped by nftables or held back \
             for 5 ms by a program in the link; hosts send single packets there.\n\
             - Moving: {MOVING_RATE} datagrams of 64 bytes a second for {MOVING_SECONDS} s, counted by iperf3.\n",
            kernel.trim(),
            self.disturbance * 100.0,
            self.rounds.len(),
            parts.join(", "),
            rivals.join(", "),
            bulk::SMALL.window,
            bulk::QUIC.datagram,
            bulk::QUIC.together,
            bulk::QUIC.window,
        ))
    }
}

/// What is measured of two ways only.
const CONTESTS: [(&str, Measure); 4] = [
    ("IPv6 inside", Measure::Ipv6Inside),
    ("IPv6 outside", Measure::Ipv6Outside),
    ("1 % lost", Measure::Lossy),
    ("1 % overtaken", Measure::Reordered),
];

/// What does not depend on the run.
const METHOD: &str = "\
- Hosts as network namespaces joined by a routing namespace (MTU 1,500), pods as namespaces on them: h1 and h2 for what is \
encrypted and for the rivals, h3 and h4, which allow clear, for the clear path, h5 and h6, which have no IPv4, for IPv6 outside. \
All programs run all the time; those that are not measured are idle.
- Meshwork: encryption required (the default). wireguard-go: defaults, which include segmentation offloads. boringtun: defaults \
(four threads, several queues). nebula: AES, two routines, MTU 1,440, socket buffers of 8 MB. tinc: router mode, datagrams, \
AES-128-CBC with SHA-1, no compression, socket buffers of 8 MB. Hand-made VXLAN: one static remote, no learning, a masquerade \
rule. Plain routing: no tunnel at all.
- CPU seconds are those of the whole machine from /proc/stat, with interrupts, softirqs and iperf3, per 10^9 bytes that one TCP \
stream carried.
";

impl Bar {
    fn row(&self) -> [String; 4] {
        let met = self.figure.map(|figure| if self.ceiling { figure <= self.bar } else { figure >= self.bar });
        let bound = format!("at {} {}", if self.ceiling { "most" } else { "least" }, self.bar);
        [self.what.into(), shown(self.figure, 2), bound, met.map_or(NOTHING, verdict).into()]
    }
}

fn verdict(holds: bool) -> &'static str {
    if holds { "met" } else { "missed" }
}

fn shown(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| NOTHING.into(), |value| format!("{value:.digits$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round() -> Round {
        let mut round = Round::default();
        round.note(Way::Meshwork, vec![(Measure::Tcp, 10.0), (Measure::MedianRoundTrip, 90.0)]);
        round.note(Way::WireguardGo, vec![(Measure::Tcp, 5.0), (Measure::MedianRoundTrip, 100.0)]);
        round
    }

    fn rendered(missing: &[(Way, String)]) -> String {
        Report { rounds: &[round()], parts: &[Part::Tcp, Part::Ping], missing, moved: None, disturbance: 0.0 }
            .render()
            .unwrap()
    }

    #[test]
    fn a_bar_is_met_missed_or_not_measured() {
        let text = rendered(&[]);
        let line = |what: &str| text.lines().find(|line| line.contains(what)).unwrap().to_owned();
        assert!(line("encrypted TCP, x wireguard-go").ends_with("| at least 2.5  | missed  |"), "{text}");
        assert!(line("round trip in the middle").contains("| 0.90   | at most 1"), "{text}");
        assert!(line("round trip in the middle").ends_with("| met     |"), "{text}");
        assert!(line("small packets, x").ends_with("| –       |"), "{text}");
    }

    #[test]
    fn a_rival_that_is_not_there_is_named() {
        assert!(!rendered(&[]).contains("Missing"));
        assert!(rendered(&[(Way::Tinc, "there is no such package".into())]).contains("**Missing: tinc**, since there"));
    }
}
