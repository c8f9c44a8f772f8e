//! `meshlab`: labs from the command line.

mod list;
mod rootless;
mod verbs;

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};
use meshwork_lab::topology::LabName;
use meshwork_lab::{Lab, Nat, Rate, bench, churn, complain, demo, faults, interrupt, kills, remains, say, scale, wire};

use crate::verbs::{done, exit_code};

/// What shells expect of a program that ended by SIGINT.
const INTERRUPTED: u8 = 130;
/// The same for one whose output nobody reads any more (SIGPIPE).
const UNHEARD: u8 = 141;

/// Where rivals are installed, from the folder of the call.
const CACHE: &str = ".cache";

/// Many Meshwork hosts on one machine, in network namespaces.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Works in a user namespace of its own, as everybody but root does anyway.
    #[arg(long, global = true)]
    rootless: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Makes a lab whose hosts are one mesh, and leaves it running.
    Up {
        /// How many hosts: h1 to hN.
        #[arg(long)]
        hosts: u16,
        /// Puts a host behind a port-restricted NAT; repeatable.
        #[arg(long, value_name = "HOST")]
        nat: Vec<String>,
        /// Puts a host behind a symmetric NAT; repeatable.
        #[arg(long, value_name = "HOST")]
        symmetric_nat: Vec<String>,
        #[command(flatten)]
        lab: Which,
    },
    /// Takes a lab away, also what an interrupted one left.
    Down(Which),
    /// Runs a command on a host, or in a pod given as HOST/POD.
    Exec {
        /// Host or HOST/POD.
        host: String,
        #[command(flatten)]
        lab: Which,
        /// Program and arguments.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Makes a pod on a host and prints its addresses.
    Pod {
        /// Host.
        host: String,
        /// Name of the pod; else the first free one of p1, p2, …
        name: Option<String>,
        #[command(flatten)]
        lab: Which,
    },
    /// Drops everything between two hosts.
    Cut {
        /// One host.
        one: String,
        /// The other.
        other: String,
        /// Drops only what the first sends to the second.
        #[arg(long)]
        one_way: bool,
        #[command(flatten)]
        lab: Which,
    },
    /// Drops everything between hosts of different groups, such as `partition h1,h2 h3,h4`.
    Partition {
        /// Hosts with commas between them; a host of no group still reaches everybody.
        #[arg(required = true, num_args = 2..)]
        groups: Vec<String>,
        #[command(flatten)]
        lab: Which,
    },
    /// Changes what a host's link is like, each way; without a change it tells.
    Link {
        /// Host.
        host: String,
        #[command(flatten)]
        change: Change,
        #[command(flatten)]
        lab: Which,
    },
    /// Mends every cut and partition; links stay as they are.
    Heal(Which),
    /// Lists labs with their hosts and pods.
    Ls,
    /// Builds a mesh of three hosts from nothing, proves what it promises and takes it away (KEEP=1 leaves it running).
    Demo,
    /// Attaches and detaches pods without end through mesh-cni, and tells how long that takes.
    Churn {
        /// Pods per second.
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1000))]
        rate: u32,
        /// For how long.
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
        seconds: u32,
    },
    /// Lets faults befall a mesh of its own, mends them and proves that it is whole again (KEEP=1 leaves one running that
    /// is not).
    Faults {
        /// Which faults, and when; replays a run. Else MESHWORK_SEED, else 1.
        #[arg(long)]
        seed: Option<u64>,
        /// For how long.
        #[arg(long, default_value_t = 30)]
        seconds: u64,
        /// How many hosts.
        #[arg(long, default_value_t = 4)]
        hosts: u16,
        /// Name of the lab.
        #[arg(long, value_name = "LAB", default_value = "faults")]
        name: String,
    },
    /// Kills a daemon at random moments while pods come and go, and proves that every answer it gave is still true and that
    /// nothing else is left (KEEP=1 leaves a lab running where it is not so).
    Kills {
        /// How often.
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        times: u32,
        /// Which moments, and what comes and goes. Else MESHWORK_SEED, else 1.
        #[arg(long)]
        seed: Option<u64>,
        /// Name of the lab.
        #[arg(long, value_name = "LAB", default_value = "kills")]
        name: String,
    },
    /// Measures many daemons on this machine: becoming one mesh, idling, half of them starting again together (KEEP=1
    /// leaves a lab running that did not become whole).
    Scale {
        /// How many hosts.
        #[arg(long, default_value_t = 100)]
        hosts: u16,
        /// Name of the lab.
        #[arg(long, value_name = "LAB", default_value = "scale")]
        name: String,
    },
    /// Keeps a rootless room: what its first command starts.
    #[command(hide = true, name = rootless::KEEP)]
    KeepRoom,
    /// Carries frames between two TAP devices: what `link` starts.
    #[command(hide = true)]
    Wire { near: String, far: String, conditions: PathBuf },
    /// Measures the encrypted path beside its rivals, on one fabric and in one run.
    Bench {
        /// Markdown file that gets the tables, and beside it a plot of the same name.
        #[arg(long)]
        results: Option<PathBuf>,
        /// Folder that rivals are installed in.
        #[arg(long, default_value = CACHE)]
        cache: PathBuf,
        /// Parts to measure, with commas between them; else all.
        #[arg(long, value_enum, value_delimiter = ',', value_name = "PARTS")]
        only: Vec<bench::Part>,
        /// How often; odd, so that there is a middle one.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=99))]
        rounds: u16,
        /// Name of the lab.
        #[arg(long, value_name = "LAB", default_value = "bench")]
        name: String,
    },
    /// Installs the rivals that `bench` measures, as whoever calls.
    Rivals {
        /// Folder that they are installed in.
        #[arg(long, default_value = CACHE)]
        cache: PathBuf,
    },
}

#[derive(Args)]
struct Which {
    /// Name of the lab.
    #[arg(long = "name", value_name = "LAB", default_value = "lab")]
    lab: String,
}

/// Changes of a link; what is not given stays as it is.
#[derive(Args)]
pub(crate) struct Change {
    /// Makes it a good link again, before the other changes.
    #[arg(long)]
    clean: bool,
    /// Milliseconds that a frame takes.
    #[arg(long, value_name = "MS")]
    delay: Option<u64>,
    /// Packets that are lost.
    #[arg(long, value_name = "PERCENT")]
    loss: Option<f64>,
    /// Frames that later ones overtake.
    #[arg(long, value_name = "PERCENT")]
    reorder: Option<f64>,
    /// Frames that arrive twice.
    #[arg(long, value_name = "PERCENT")]
    duplicate: Option<f64>,
    /// Most that passes, such as 100mbit.
    #[arg(long)]
    rate: Option<Rate>,
    /// Largest packet; larger ones are answered with ICMP.
    #[arg(long, value_name = "BYTES")]
    mtu: Option<u32>,
    /// Largest packet; larger ones vanish without a word.
    #[arg(long, value_name = "BYTES")]
    black_hole: Option<u32>,
    /// Where the chances of reordering and duplication begin.
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    let Arguments { rootless, verb } = Arguments::parse();
    match run_where_it_may(rootless, verb) {
        Ok(code) => code,
        Err(_) if say::is_closed() => ExitCode::from(UNHEARD),
        Err(error) => {
            complain!("meshlab: {error:#}");
            if interrupt::check().is_err() { ExitCode::from(INTERRUPTED) } else { ExitCode::FAILURE }
        }
    }
}

fn run_where_it_may(rootless: bool, verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::KeepRoom => match rootless::keep()? {},
        Verb::Wire { near, far, conditions } => done(wire::carry(&near, &far, &conditions)),
        Verb::Rivals { cache } => {
            bench::obtain(&cache);
            Ok(ExitCode::SUCCESS)
        }
        _ if rootless::is_wanted(rootless)? => match rootless::enter()? {},
        verb => {
            let outcome = run(verb);
            // Also after a failure, which may have taken the last lab away.
            rootless::leave()?;
            outcome
        }
    }
}

fn run(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Up { hosts, nat, symmetric_nat, lab } => {
            verbs::up(hosts, &lab.lab, &[(&nat, Nat::PortRestricted), (&symmetric_nat, Nat::Symmetric)])
        }
        Verb::Down(lab) => done(remains::clear(&LabName::new(&lab.lab)?)),
        Verb::Exec { host, lab, command } => verbs::exec(&lab.lab, &host, &command),
        Verb::Pod { host, name, lab } => verbs::pod(&lab.lab, &host, name),
        Verb::Cut { one, other, one_way, lab } => verbs::cut(&lab.lab, &one, &other, one_way),
        Verb::Partition { groups, lab } => verbs::partition(&lab.lab, &groups),
        Verb::Link { host, change, lab } => verbs::link(&lab.lab, &host, &change),
        Verb::Heal(lab) => done(Lab::open(&lab.lab)?.heal()),
        Verb::Ls => done(list::print()),
        Verb::Demo => Ok(exit_code(demo::run(is_to_keep())?)),
        Verb::Churn { rate, seconds } => done(churn::run(rate, seconds)),
        Verb::Faults { seed, seconds, hosts, name } => {
            let seed = seed.map_or_else(faults::seed, Ok)?;
            done(faults::run(&name, hosts, seed, Duration::from_secs(seconds), is_to_keep()))
        }
        Verb::Kills { times, seed, name } => {
            let seed = seed.map_or_else(faults::seed, Ok)?;
            done(kills::run(&name, times, seed, is_to_keep()))
        }
        Verb::Scale { hosts, name } => Ok(exit_code(scale::run(&name, hosts, is_to_keep())?)),
        Verb::Bench { results, cache, only, rounds, name } => {
            let all = bench::Part::value_variants().iter();
            let parts: Vec<_> = all.copied().filter(|part| only.is_empty() || only.contains(part)).collect();
            let (rounds, results) = (rounds.into(), results.as_deref());
            done(bench::run(&bench::Plan { name: &name, rounds, parts: &parts, cache: &cache, results }))
        }
        // These begin elsewhere.
        Verb::KeepRoom | Verb::Wire { .. } | Verb::Rivals { .. } => Ok(ExitCode::FAILURE),
    }
}

fn is_to_keep() -> bool {
    env::var_os("KEEP").is_some_and(|keep| keep == "1")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
