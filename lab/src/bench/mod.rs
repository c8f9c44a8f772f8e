//! `make bench`: the encrypted path beside its rivals, on one fabric and in one run.
//!
//! Absolute figures depend on the machine, so every ratio is taken within one round, and the median of the rounds counts.
//! Rivals run between plain pods of the same hosts: `wireguard-go` in its fastest form (segmentation offloads are on by
//! default), kernel VXLAN in clear with a static forwarding entry, and plain routing as the ceiling.

mod measure;
mod report;
mod rivals;
mod wireguard;

use std::fs;
use std::path::Path;

use crate::bench::measure::Figures;
use crate::bench::rivals::Rivals;
use crate::error::{Error, Result};
use crate::interrupt;
use crate::lab::Lab;
use crate::say;
use crate::topology::LabName;

const NAME: &str = "bench";
/// Odd, so that there is a middle one.
const ROUNDS: usize = 3;

/// What is measured, in the order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Meshwork,
    WireguardGo,
    Vxlan,
    Routing,
}

impl Way {
    const ALL: [Self; 4] = [Self::Meshwork, Self::WireguardGo, Self::Vxlan, Self::Routing];

    fn shown(self) -> &'static str {
        match self {
            Self::Meshwork => "Meshwork, encrypted",
            Self::WireguardGo => "wireguard-go",
            Self::Vxlan => "kernel VXLAN, clear",
            Self::Routing => "plain routing",
        }
    }
}

/// One measurement of every way, in the order of [`Way::ALL`].
type Round = [Figures; Way::ALL.len()];

/// Measures, prints the table and writes it to `results`. Rivals are built in `cache`.
///
/// # Errors
/// When the lab or a rival does not work, or the results cannot be written.
pub fn run(cache: &Path, results: &Path) -> Result<()> {
    interrupt::end_lab_on_signal(&LabName::new(NAME)?)?;
    let wireguard = wireguard::build(cache)?;
    let lab = Lab::build(NAME)?.hosts(2).up()?;
    let pods = [lab.host(1).pod("mesh")?, lab.host(2).pod("mesh")?];
    let rivals = Rivals::set_up(&lab, &wireguard)?;

    let mut rounds = Vec::new();
    for number in 1..=ROUNDS {
        say!("round {number} of {ROUNDS}");
        rounds.push(round(&lab, &pods, &rivals)?);
    }
    let text = report::render(&rounds)?;
    say!("\n{text}");
    fs::write(results, &text).map_err(Error::io(format!("write {}", results.display())))?;
    drop(rivals);
    lab.down()
}

fn round(lab: &Lab, pods: &[crate::Pod; 2], rivals: &Rivals) -> Result<Round> {
    let log = lab.host(2).directory().join("iperf3.log");
    let mut round = Round::default();
    for (figures, way) in round.iter_mut().zip(Way::ALL) {
        let [from, to] = match way {
            Way::Meshwork => pods.each_ref().map(crate::Pod::namespace),
            _ => rivals.pods(),
        };
        let address = match way {
            Way::Meshwork => pods[1].ipv4()?,
            rival => rivals.address(rival, 2),
        };
        *figures = measure::between(from, to, address, &log)?;
        say!("  {:20} {figures}", way.shown());
    }
    Ok(round)
}
