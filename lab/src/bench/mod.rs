//! `make bench`: the encrypted and the clear path beside their rivals, on one fabric and in one run.
//!
//! Absolute figures depend on the machine, so every ratio is taken within one round, and the median of the rounds counts.
//! Rivals run between plain pods of the same hosts, each in its fastest documented form. The clear path is measured between
//! two more hosts that allow it, and moved to the encrypted one and back under traffic; the encrypted path over IPv6 outside
//! between two hosts that have no IPv4. A part of a round measures all ways one after the other.

mod bulk;
mod figures;
mod measure;
mod plot;
mod report;
mod rivals;
mod way;

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use meshwork_api::model::PathKind;

use crate::bench::figures::{Found, Round, Shown};
use crate::bench::measure::Course;
use crate::bench::report::Report;
use crate::bench::rivals::Rivals;
use crate::bench::way::Way;
use crate::error::{Error, Result};
use crate::interrupt;
use crate::iperf::Datagrams;
use crate::lab::Lab;
use crate::link::Link;
use crate::namespace::Namespace;
use crate::pod::Pod;
use crate::say;
use crate::switching;
use crate::topology::{HOST_LINK, HostNumber, LabName};

pub use figures::Part;

/// Hosts that require encryption, hosts that allow clear to each other, and hosts without IPv4.
const SEALED: [u16; 2] = [1, 2];
const CLEAR: [u16; 2] = [3, 4];
const IPV6: [u16; 2] = [5, 6];
/// What a bad link loses, or lets others overtake.
const BAD_PERCENT: f64 = 1.0;
/// Who is measured over bad links and over IPv6 outside.
const CONTENDERS: [Way; 2] = [Way::Meshwork, Way::WireguardGo];
/// Datagrams a second while the path moves, and for how long: enough for a hundred moves.
const MOVING_RATE: u64 = 20_000;
const MOVING_SECONDS: u32 = 20;

/// What to measure, and where to.
#[derive(Debug)]
pub struct Plan<'a> {
    /// Name of the lab.
    pub name: &'a str,
    /// How often; odd, so that there is a middle one.
    pub rounds: usize,
    /// In the order of [`Part`].
    pub parts: &'a [Part],
    /// Folder that rivals are installed in.
    pub cache: &'a Path,
    /// Markdown file that gets the tables, beside which the plot is put.
    pub results: Option<&'a Path>,
}

/// Installs the rivals into `cache`.
pub fn obtain(cache: &Path) {
    rivals::obtain_all(cache);
}

/// Measures, prints the tables and writes them down.
///
/// # Errors
/// When the lab does not work, or the results cannot be written.
pub fn run(plan: &Plan<'_>) -> Result<()> {
    interrupt::end_lab_on_signal(&LabName::new(plan.name)?)?;
    let disturbance = measure::disturbance()?;
    let lab = lab(plan.name)?;
    let pods = Pods::attach(&lab)?;
    let mut stage = Stage { lab: &lab, pods, rivals: Rivals::set_up(&lab, plan.cache)? };
    let mut rounds = Vec::new();
    for number in 1..=plan.rounds {
        say!("round {number} of {}", plan.rounds);
        rounds.push(stage.round(plan.parts)?);
    }
    let moved = if plan.parts.contains(&Part::Moves) { Some(stage.move_path()?) } else { None };
    let report = Report { rounds: &rounds, parts: plan.parts, missing: stage.rivals.missing(), moved, disturbance };
    let text = report.render()?;
    say!("\n{text}");
    if let Some(results) = plan.results {
        write(results, &text)?;
        write(&results.with_extension("svg"), &plot::render(&rounds))?;
    }
    drop(stage);
    lab.down()
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(Error::io(format!("write {}", path.display())))
}

/// Whoever has no IPv4 begins by the IPv6 address of `h1`.
fn lab(name: &str) -> Result<Lab> {
    let [.., last] = IPV6;
    let mut builder = Lab::build(name)?.hosts(last);
    for host in CLEAR {
        builder = builder.flags(host, &["--encryption", "off"]);
    }
    let first = HostNumber::FIRST.address6().to_string();
    for host in IPV6 {
        builder = builder.begins(host, &["--peer", &first]);
    }
    let mut lab = builder.without_daemons()?;
    for host in IPV6 {
        lab.host(host).exec(["ip", "-4", "address", "flush", "dev", HOST_LINK])?;
    }
    lab.start()?;
    Ok(lab)
}

/// Pods of the mesh, one on each host.
struct Pods {
    sealed: [Pod; 2],
    clear: [Pod; 2],
    ipv6: [Pod; 2],
}

impl Pods {
    fn attach(lab: &Lab) -> Result<Self> {
        let of = |[one, other]: [u16; 2]| -> Result<[Pod; 2]> {
            Ok([lab.host(one).pod("mesh")?, lab.host(other).pod("mesh")?])
        };
        let pods = Self { sealed: of(SEALED)?, clear: of(CLEAR)?, ipv6: of(IPV6)? };
        let [three, four] = CLEAR;
        for (host, peer, to) in [(three, four, &pods.clear[1]), (four, three, &pods.clear[0])] {
            switching::wait_for(lab.host(host), lab.host(peer), to, PathKind::Vxlan)?;
        }
        Ok(pods)
    }
}

/// Everything between which is measured.
struct Stage<'a> {
    lab: &'a Lab,
    pods: Pods,
    rivals: Rivals<'a>,
}

impl Stage<'_> {
    fn round(&mut self, parts: &[Part]) -> Result<Round> {
        let mut round = Round::default();
        self.rivals.restore()?;
        for &part in parts {
            match part {
                Part::Moves => {}
                Part::Loss => self.on_a_bad_link(&mut round, part, &Link::default().loss(BAD_PERCENT))?,
                Part::Reorder => self.on_a_bad_link(&mut round, part, &Link::default().reorder(BAD_PERCENT))?,
                Part::Ipv6 => {
                    self.part(&mut round, part, &Way::ALL)?;
                    self.over_ipv6(&mut round)?;
                }
                _ => self.part(&mut round, part, &Way::ALL)?,
            }
        }
        Ok(round)
    }

    fn part(&mut self, round: &mut Round, part: Part, ways: &[Way]) -> Result<()> {
        for &way in ways {
            if self.rivals.has(way) {
                let found = self.course(way, part == Part::Ipv6)?.measure(part);
                self.note(round, &format!("{part:?}"), way, found)?;
            }
        }
        Ok(())
    }

    fn on_a_bad_link(&mut self, round: &mut Round, part: Part, link: &Link) -> Result<()> {
        let [.., last] = SEALED;
        self.lab.link(last, link)?;
        self.part(round, part, &CONTENDERS)?;
        self.lab.link(last, &Link::default())?;
        self.rivals.restore()
    }

    fn over_ipv6(&mut self, round: &mut Round) -> Result<()> {
        let [from, to] = &self.pods.ipv6;
        let ours = self.between([from.namespace(), to.namespace()], to.ipv4()?).outside();
        self.note(round, "Ipv6 outside", Way::Meshwork, ours)?;
        let rival = Way::WireguardGo;
        match self.rivals.over_ipv6(|| self.course(rival, false)?.outside()).transpose() {
            Some(found) => self.note(round, "Ipv6 outside", rival, found),
            None => Ok(()),
        }
    }

    /// What does not work between plain pods is given up, and the others go on; what does not work of ours ends the run.
    fn note(&mut self, round: &mut Round, part: &str, way: Way, found: Result<Found>) -> Result<()> {
        match found {
            Ok(found) => {
                say!("  {part:12} {:22} {}", way.shown(), Shown(&found));
                round.note(way, found);
                Ok(())
            }
            Err(error) if way.is_ours() => Err(error),
            Err(error) => self.rivals.give_up(way, error),
        }
    }

    /// From the first host to the second.
    fn course(&self, way: Way, ipv6: bool) -> Result<Course<'_>> {
        let [from, to] = match way {
            Way::Meshwork => &self.pods.sealed,
            Way::Clear => &self.pods.clear,
            _ => return Ok(self.between(self.rivals.pods(), self.rivals.address(way, ipv6))),
        };
        let address = if ipv6 { to.ipv6()? } else { to.ipv4()? };
        Ok(self.between([from.namespace(), to.namespace()], address))
    }

    fn between<'a>(&self, [from, to]: [&'a Namespace; 2], address: IpAddr) -> Course<'a> {
        Course { from, to, address, log: self.lab.name().directory().join("iperf3.log") }
    }

    fn move_path(&self) -> Result<(Datagrams, u32)> {
        let [three, four] = CLEAR;
        say!("moving the path of h{three} to h{four} between clear and sealed for {MOVING_SECONDS} s");
        let [from, to] = &self.pods.clear;
        let hosts = (self.lab.host(three), self.lab.host(four));
        switching::under_traffic(hosts, (from, to), MOVING_RATE, MOVING_SECONDS)
    }
}
