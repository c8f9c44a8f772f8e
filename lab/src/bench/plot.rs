//! Bars for people: what each way reaches, a panel per kind of figure.

use std::fmt::Write;

use crate::bench::figures::{Measure, Round, median};
use crate::bench::way::Way;

/// Panels, and whether less is better.
const PANELS: [(Measure, &str); 6] = [
    (Measure::Tcp, "TCP, one stream: Gbit/s"),
    (Measure::TcpCpu, "TCP, one stream: CPU seconds per GB (less is better)"),
    (Measure::Streams, "TCP, four streams: Gbit/s"),
    (Measure::Packets, "Datagrams of 64 bytes, unlimited: thousands a second"),
    (Measure::Quic, "Datagrams as QUIC sends them: Gbit/s"),
    (Measure::MedianRoundTrip, "Round trip in the middle: µs (less is better)"),
];

const COLUMNS: usize = 2;
const WIDTH: f64 = 480.0;
/// Of a panel: a title and a line per way.
const HEIGHT: f64 = 40.0 + ROW * Way::ALL.len() as f64;
const ROW: f64 = 20.0;
/// Where bars begin, and how long the longest is.
const LEFT: f64 = 150.0;
const LONGEST: f64 = 270.0;

/// The medians of the rounds as an SVG picture.
pub(super) fn render(rounds: &[Round]) -> String {
    let (width, height) = (WIDTH * COLUMNS as f64, HEIGHT * PANELS.len().div_ceil(COLUMNS) as f64);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (place, (measure, title)) in PANELS.iter().enumerate() {
        let corner = ((place % COLUMNS) as f64 * WIDTH, (place / COLUMNS) as f64 * HEIGHT);
        panel(&mut svg, corner, title, |way| median(rounds, |round| round.get(way, *measure)));
    }
    svg + "</svg>\n"
}

fn panel(svg: &mut String, (left, top): (f64, f64), title: &str, value: impl Fn(Way) -> Option<f64>) {
    let start = left + LEFT;
    text(svg, (start, top + 24.0), "start", title);
    let most = Way::ALL.into_iter().filter_map(&value).fold(0.0, f64::max);
    for (row, way) in Way::ALL.into_iter().enumerate() {
        let y = top + 34.0 + ROW * row as f64;
        text(svg, (start - 6.0, y + 11.0), "end", way.shown());
        let Some(value) = value(way) else {
            text(svg, (start + 4.0, y + 11.0), "start", "not measured");
            continue;
        };
        let length = if most > 0.0 { LONGEST * value / most } else { 0.0 };
        let colour = if way.is_ours() { "#0072b2" } else { "#999999" };
        // Writing to a string cannot fail.
        let _ = writeln!(
            svg,
            r#"<rect x="{start:.1}" y="{y:.1}" width="{length:.1}" height="{:.1}" fill="{colour}"/>"#,
            ROW - 6.0
        );
        text(svg, (start + length + 4.0, y + 11.0), "start", &figure(value));
    }
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, words: &str) {
    let _ = writeln!(svg, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{words}</text>"#);
}

fn figure(value: f64) -> String {
    if value < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_fits_and_what_is_missing_has_none() {
        let mut round = Round::default();
        round.note(Way::Meshwork, vec![(Measure::Tcp, 10.0)]);
        round.note(Way::Tinc, vec![(Measure::Tcp, 5.0)]);
        let svg = render(&[round]);
        assert_eq!(svg.matches("<rect x=").count(), 2);
        assert!(svg.contains(r#"width="270.0""#) && svg.contains(r#"width="135.0""#), "{svg}");
        assert_eq!(svg.matches("not measured").count(), PANELS.len() * Way::ALL.len() - 2);
    }
}
