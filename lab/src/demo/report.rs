//! What the demo found: a line while it happens, a table at the end.

use std::time::{Duration, Instant};

use crate::error::Result;
use crate::say;
use crate::table;

/// The result of one step.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) what: &'static str,
    pub(super) found: String,
    pub(super) bar: String,
    pub(super) holds: bool,
}

impl Finding {
    /// Something that simply has to be so.
    pub(super) fn proven(what: &'static str, holds: bool, found: String, bar: &str) -> Self {
        Self { what, found, bar: bar.to_owned(), holds }
    }

    /// Something that has to be quicker than `bar`.
    pub(super) fn within(what: &'static str, took: Duration, bar: Duration) -> Self {
        Self { what, found: shown(took), bar: format!("< {}", shown(bar)), holds: took < bar }
    }
}

/// Findings in the order of the story.
#[derive(Debug)]
pub(super) struct Report {
    started: Instant,
    findings: Vec<Finding>,
}

impl Report {
    pub(super) fn new() -> Self {
        Self { started: Instant::now(), findings: Vec::new() }
    }

    /// Says what is done, does it, says how long it took and what came of it.
    pub(super) fn step<T>(&self, says: &str, step: impl FnOnce() -> Result<T>) -> Result<T> {
        say!("==> {says}");
        let started = Instant::now();
        let done = step();
        match &done {
            Ok(_) => say!("    done in {}", shown(started.elapsed())),
            Err(error) => say!("    FAILED after {}: {error}", shown(started.elapsed())),
        }
        done
    }

    pub(super) fn add(&mut self, finding: Finding) {
        let verdict = if finding.holds { "holds" } else { "DOES NOT HOLD" };
        say!("    {}: {} ({}; {verdict})", finding.what, finding.found, finding.bar);
        self.findings.push(finding);
    }

    /// Prints the table; whether everything held.
    pub(super) fn conclude(&self, ended: &Result<()>) -> bool {
        let row = |finding: &Finding| {
            let verdict = if finding.holds { "yes" } else { "NO" };
            [finding.what.to_owned(), finding.found.clone(), finding.bar.clone(), verdict.to_owned()]
        };
        let rows: Vec<_> = self.findings.iter().map(row).collect();
        say!("\n{}", table::render(["what", "found", "bar", "holds"], &rows));
        if let Err(error) = ended {
            say!("the story broke off: {error}");
        }
        let holds = ended.is_ok() && !self.findings.is_empty() && self.findings.iter().all(|finding| finding.holds);
        let verdict = if holds { "everything holds" } else { "NOT everything holds" };
        say!("{verdict}; {} in all", shown(self.started.elapsed()));
        holds
    }
}

/// A duration with as many digits as people read.
pub(super) fn shown(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 1.0 { format!("{:.1} ms", seconds * 1000.0) } else { format!("{seconds:.2} s") }
}
