//! How what a node sends and holds grows with the mesh, from figures that were kept of several sizes.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::bars::{Figure, IDLE, MEMORY};
use crate::plot::{Chart, Curve, charts};

/// How much more than in proportion to the logarithm a mesh may send than the smallest: the same mesh from another seed
/// differs by as much.
const TOLERANCE: f64 = 0.05;

/// The figures of one mesh.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    nodes: usize,
    /// Links were given and not chosen.
    given: bool,
    seed: u64,
    /// What came to be.
    figures: BTreeMap<String, f64>,
}

impl Point {
    /// Of a mesh of so many nodes.
    pub fn new<'a>(nodes: usize, given: bool, seed: u64, figures: impl Iterator<Item = &'a Figure>) -> Self {
        let figures = figures.filter_map(|figure| Some((figure.what.to_owned(), figure.value?)));
        Self { nodes, given, seed, figures: figures.collect() }
    }

    /// Adds it to a file as a line.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn append(&self, path: &Path) -> io::Result<()> {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
        writeln!(file, "{}", serde_json::to_string(self)?)
    }

    fn of(&self, what: &str) -> f64 {
        self.figures.get(what).copied().unwrap_or(f64::NAN)
    }
}

/// Figures of meshes with chosen links and of such with given ones, by size.
#[derive(Debug, Default)]
pub struct Growth([Vec<Point>; 2]);

/// What tells them apart, in this order.
const LINKS: [&str; 2] = ["chosen", "given"];

impl Growth {
    /// Reads what was kept; of several meshes of one size and kind the last.
    ///
    /// # Errors
    /// The file cannot be read, or has something else in it.
    pub fn read(path: &Path) -> io::Result<Self> {
        let text = if path.exists() { std::fs::read_to_string(path)? } else { String::new() };
        let points = text.lines().map(serde_json::from_str).collect::<Result<Vec<Point>, _>>()?;
        Ok(Self::of(points))
    }

    fn of(points: Vec<Point>) -> Self {
        let mut growth = Self::default();
        for (kind, given) in growth.0.iter_mut().zip([false, true]) {
            let latest: BTreeMap<usize, &Point> =
                points.iter().filter(|point| point.given == given).map(|point| (point.nodes, point)).collect();
            *kind = latest.into_values().cloned().collect();
        }
        growth
    }

    /// Whether a mesh of this size and kind is among them.
    #[must_use]
    pub fn has(&self, nodes: usize, given: bool) -> bool {
        self.0.iter().flatten().any(|point| (point.nodes, point.given) == (nodes, given))
    }

    /// Whether each kind that was measured at all does well, and one was.
    #[must_use]
    pub fn holds(&self) -> bool {
        let mut kinds = self.0.iter().filter(|kind| !kind.is_empty()).peekable();
        kinds.peek().is_some() && kinds.all(|kind| does_well(kind))
    }

    /// Both as pictures, traffic beside what would be in proportion to the logarithm.
    #[must_use]
    pub fn drawn(&self) -> String {
        let chart = |title: &str, curves: Vec<(&str, Vec<(f64, f64)>)>| Chart {
            title: title.to_owned(),
            across: "nodes",
            curves: curves.into_iter().map(|(name, points)| Curve { name: name.to_owned(), points }).collect(),
            marks: Vec::new(),
        };
        let kinds = || LINKS.iter().zip(&self.0).filter(|(_, kind)| !kind.is_empty());
        let mut idle: Vec<_> = kinds().map(|(links, kind)| (*links, curve(kind, IDLE))).collect();
        let mut memory: Vec<_> = kinds().map(|(links, kind)| (*links, curve(kind, MEMORY))).collect();
        let all: BTreeMap<usize, f64> =
            self.0.iter().rev().flatten().map(|point| (point.nodes, point.of(IDLE))).collect();
        let unit = all.first_key_value().map_or(0.0, |(nodes, rate)| rate / (*nodes as f64).ln());
        idle.push(("like log n", all.keys().map(|nodes| (*nodes as f64, unit * (*nodes as f64).ln())).collect()));
        memory.push(("bar", all.keys().map(|nodes| (*nodes as f64, Figure::memory(0.0).bar)).collect()));
        let titles = ["Idle traffic sent by a node, B/s, by how links came about", "Memory for each known peer, bytes"];
        charts(&[chart(titles[0], idle), chart(titles[1], memory)])
    }
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (links, kind) in LINKS.iter().zip(&self.0).filter(|(_, kind)| !kind.is_empty()) {
            for point in kind {
                let (nodes, rate, memory) = (point.nodes, point.of(IDLE), point.of(MEMORY));
                let what = format!("{rate:7.1} B/s sent by a node, {memory:6.0} B for each known peer");
                writeln!(f, "{nodes:6} nodes, {links} links: {what}")?;
            }
            let idle = curve(kind, IDLE);
            if let Some(exponent) = exponent(&idle) {
                writeln!(f, "{links} links: idle traffic grows like (log n)^{exponent:.2}, at most 1 is met")?;
            }
            if idle.len() < 2 {
                writeln!(f, "{links} links: one mesh shows no growth, name more sizes")?;
                continue;
            }
            let (percent, most) = (excess(&idle) * 100.0, TOLERANCE * 100.0);
            let what = format!("beside the smallest in proportion to log n, the worst size sends {percent:+.1} %");
            writeln!(f, "{links} links: {what}, at most {most:+.0} % is met")?;
        }
        Ok(())
    }
}

fn curve(points: &[Point], what: &str) -> Vec<(f64, f64)> {
    points.iter().filter_map(|point| Some((point.nodes as f64, *point.figures.get(what)?))).collect()
}

/// Whether idle traffic grows no faster than the logarithm of the size, and memory keeps its bar: no mesh sends more than
/// the smallest one by more than their logarithms differ, and neither does the curve that fits all of them best.
fn does_well(points: &[Point]) -> bool {
    let (idle, memory) = (curve(points, IDLE), curve(points, MEMORY));
    let complete = idle.len() > 1 && idle.len() == points.len() && memory.len() == points.len();
    let steep = exponent(&idle).is_none_or(|exponent| exponent > 1.0);
    let held = memory.iter().all(|(_, bytes)| Figure::memory(*bytes).holds());
    complete && !steep && excess(&idle) <= TOLERANCE && held
}

/// Of the power of the logarithm that fits best, by least squares of the logarithms of both.
fn exponent(points: &[(f64, f64)]) -> Option<f64> {
    let points: Vec<(f64, f64)> = points.iter().map(|(nodes, rate)| (nodes.ln().ln(), rate.ln())).collect();
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / points.len() as f64;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    (spread > 0.0).then(|| points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum::<f64>() / spread)
}

/// By which part at most one of them is more than in proportion to the logarithm from the smallest on. From one size to the
/// next it may be more: links come in whole numbers, so the traffic goes up in steps.
fn excess(points: &[(f64, f64)]) -> f64 {
    let slope = |(nodes, rate): &(f64, f64)| rate / nodes.ln();
    let Some((smallest, others)) = points.split_first() else { return f64::NEG_INFINITY };
    others.iter().map(|large| slope(large) / slope(smallest) - 1.0).fold(f64::NEG_INFINITY, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn growth(rates: &[(usize, f64)], memory: f64) -> Growth {
        let figures = |rate| BTreeMap::from([(IDLE.to_owned(), rate), (MEMORY.to_owned(), memory)]);
        let point = |&(nodes, rate): &(usize, f64)| Point { nodes, given: false, seed: 1, figures: figures(rate) };
        Growth::of(rates.iter().map(point).collect())
    }

    #[test]
    fn traffic_that_grows_like_the_logarithm_is_well_and_faster_is_not() {
        let like = |power: f64| [100, 500, 1000, 5000].map(|nodes| (nodes, 100.0 * (nodes as f64).ln().powf(power)));
        assert!(growth(&like(1.0), 2000.0).holds() && growth(&like(0.3), 2000.0).holds());
        assert!(!growth(&like(1.3), 2000.0).holds());
        assert!(!growth(&like(1.0), 2100.0).holds(), "too much memory");
        assert!(!growth(&like(1.0)[..1], 2000.0).holds(), "one mesh shows nothing");
    }

    #[test]
    fn a_bulge_between_the_ends_is_noticed() {
        let level = [(100, 700.0), (500, 700.0), (5000, 700.0)];
        assert!(growth(&level, 1000.0).holds());
        let bulge = [(100, 700.0), (500, 1000.0), (5000, 700.0)];
        assert!(!growth(&bulge, 1000.0).holds());
    }

    #[test]
    fn of_two_measurements_of_one_size_the_later_counts() {
        let twice = growth(&[(100, 9000.0), (500, 700.0), (100, 700.0)], 1000.0);
        assert!(twice.holds() && twice.has(100, false) && !twice.has(100, true));
    }

    #[test]
    fn chosen_and_given_links_are_judged_apart() {
        let mut points = growth(&[(100, 700.0), (500, 710.0)], 1000.0).0.concat();
        let given = growth(&[(500, 9000.0), (5000, 9100.0)], 1000.0).0.concat();
        points.extend(given.into_iter().map(|point| Point { given: true, ..point }));
        assert!(Growth::of(points.clone()).holds() && Growth::of(points.clone()).drawn().contains("given"));
        points.last_mut().expect("several").figures.insert(IDLE.to_owned(), 19_000.0);
        assert!(!Growth::of(points).holds());
    }

    #[test]
    fn what_is_kept_is_read_again() {
        let path = std::env::temp_dir().join(format!("growth-{}.jsonl", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let growth = growth(&[(100, 650.5), (500, 700.25)], 1234.0);
        growth.0.iter().flatten().for_each(|point| point.append(&path).expect("a temporary file"));
        let read = Growth::read(&path).expect("it was just written");
        std::fs::remove_file(&path).expect("it is there");
        assert_eq!(read.0, growth.0);
        assert!(!Growth::read(&path).expect("nothing is no error").has(100, false));
    }
}
