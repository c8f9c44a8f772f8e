//! `make bench`: the encrypted and the clear path beside their rivals, on one fabric and in one run.
//!
//! Absolute figures depend on the machine, so every ratio is taken within one round, and the median of the rounds counts.
//! Rivals run between plain pods of the same hosts: `wireguard-go` in its fastest form (segmentation offloads are on by
//! default), kernel VXLAN in clear with a static forwarding entry, and plain routing as the ceiling. The clear path is
//! measured between two more hosts that allow it, and moved to the encrypted one and back under traffic.

mod measure;
mod report;
mod rivals;
mod wireguard;

use std::fs;
use std::path::Path;

use meshwork_api::model::PathKind;

use crate::bench::measure::Figures;
use crate::bench::rivals::Rivals;
use crate::error::{Error, Result};
use crate::interrupt;
use crate::lab::Lab;
use crate::pod::Pod;
use crate::say;
use crate::switching;
use crate::topology::LabName;

const NAME: &str = "bench";
/// Odd, so that there is a middle one.
const ROUNDS: usize = 3;
/// Hosts that require encryption, and hosts that allow clear to each other.
const SEALED: [u16; 2] = [1, 2];
const CLEAR: [u16; 2] = [3, 4];
/// Datagrams a second while the path moves, and for how long: enough for a hundred moves.
const MOVING_RATE: u64 = 20_000;
const MOVING_SECONDS: u32 = 20;

/// What is measured, in the order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Meshwork,
    WireguardGo,
    Clear,
    Vxlan,
    Routing,
}

impl Way {
    const ALL: [Self; 5] = [Self::Meshwork, Self::WireguardGo, Self::Clear, Self::Vxlan, Self::Routing];

    /// Its place in a round.
    const fn place(self) -> usize {
        self as usize
    }

    fn shown(self) -> &'static str {
        match self {
            Self::Meshwork => "Meshwork, encrypted",
            Self::WireguardGo => "wireguard-go",
            Self::Clear => "Meshwork, clear",
            Self::Vxlan => "hand-made VXLAN, clear",
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
    let [three, four] = CLEAR;
    let off = &["--encryption", "off"];
    let lab = Lab::build(NAME)?.hosts(four).flags(three, off).flags(four, off).up()?;
    let pods = Pods { sealed: pods_of(&lab, SEALED)?, clear: pods_of(&lab, CLEAR)? };
    for (host, peer, to) in [(three, four, &pods.clear[1]), (four, three, &pods.clear[0])] {
        switching::wait_for(lab.host(host), lab.host(peer), to, PathKind::Vxlan)?;
    }
    let rivals = Rivals::set_up(&lab, &wireguard)?;

    let mut rounds = Vec::new();
    for number in 1..=ROUNDS {
        say!("round {number} of {ROUNDS}");
        rounds.push(round(&lab, &pods, &rivals)?);
    }
    say!("moving the path of h{three} to h{four} between clear and sealed for {MOVING_SECONDS} s");
    let [from, to] = &pods.clear;
    let hosts = (lab.host(three), lab.host(four));
    let moved = switching::under_traffic(hosts, (from, to), MOVING_RATE, MOVING_SECONDS)?;
    let text = report::render(&rounds, moved)?;
    say!("\n{text}");
    fs::write(results, &text).map_err(Error::io(format!("write {}", results.display())))?;
    drop(rivals);
    lab.down()
}

/// Pods of the mesh, one on each host.
struct Pods {
    sealed: [Pod; 2],
    clear: [Pod; 2],
}

fn pods_of(lab: &Lab, [one, other]: [u16; 2]) -> Result<[Pod; 2]> {
    Ok([lab.host(one).pod("mesh")?, lab.host(other).pod("mesh")?])
}

fn round(lab: &Lab, pods: &Pods, rivals: &Rivals) -> Result<Round> {
    let log = lab.host(2).directory().join("iperf3.log");
    let mut round = Round::default();
    for (figures, way) in round.iter_mut().zip(Way::ALL) {
        let of_mesh = match way {
            Way::Meshwork => Some(&pods.sealed),
            Way::Clear => Some(&pods.clear),
            Way::WireguardGo | Way::Vxlan | Way::Routing => None,
        };
        let ([from, to], address) = match of_mesh {
            Some(pods) => (pods.each_ref().map(Pod::namespace), pods[1].ipv4()?),
            None => (rivals.pods(), rivals.address(way, 2)),
        };
        *figures = measure::between(from, to, address, &log)?;
        say!("  {:22} {figures}", way.shown());
    }
    Ok(round)
}
