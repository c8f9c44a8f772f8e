//! Runs whole meshes under a virtual clock and holds them against their bars.

use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};
use meshwork_simulator::bars::{Course, Figure};

/// Whole meshes of gossip in one process, under a virtual clock.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Prints every figure beside its bar; ends with 1 if one is missed.
    Bars {
        /// Nodes of the mesh.
        #[arg(long, default_value_t = 1000)]
        nodes: usize,
        /// Leave out partition and losses, which take most of the time.
        #[arg(long)]
        calm: bool,
        /// What everything left to chance follows from.
        #[arg(long, env = "MESHWORK_SEED", default_value_t = 1)]
        seed: u64,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().verb {
        Verb::Bars { nodes, calm, seed } => bars(nodes, calm, seed),
    }
}

fn bars(nodes: usize, calm: bool, seed: u64) -> ExitCode {
    println!("{nodes} nodes, 50 ms one way, 1 % loss, MESHWORK_SEED={seed}");
    let begun = Instant::now();
    let mut course = Course::new(seed, nodes, print);
    let met = course.run(!calm).iter().all(Figure::holds);
    println!("simulated in {:.1} s", begun.elapsed().as_secs_f64());
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print(figure: &Figure) {
    let Figure { what, value, bar, unit } = figure;
    let value = value.map_or("never".to_owned(), |value| format!("{value:.2}"));
    let verdict = if figure.holds() { "met" } else { "MISSED" };
    match bar.is_finite() {
        true => println!("{what:34} {value:>9} {unit:4} {verdict}, the bar is {bar} {unit}"),
        false => println!("{what:34} {value:>9} {unit}"),
    }
}
