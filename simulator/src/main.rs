//! Runs whole meshes under a virtual clock and holds them against their bars.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};
use meshwork_simulator::Random;
use meshwork_simulator::bars::{Course, Figure};
use meshwork_simulator::memory::per_peer;
use meshwork_simulator::plot::{Chart, Curve, charts};
use meshwork_simulator::schedule::Schedule;

/// Least peers over which memory is measured: it grows page by page.
const LEAST: usize = 1000;

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
    /// Prints how idle traffic and memory grow with the mesh; ends with 1 if they grow too fast.
    Growth {
        /// Sizes, in order.
        #[arg(long, value_delimiter = ',', default_values_t = [100, 300, 1000, 5000])]
        nodes: Vec<usize>,
        /// What everything left to chance follows from.
        #[arg(long, env = "MESHWORK_SEED", default_value_t = 1)]
        seed: u64,
        /// Where to put the picture.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Draws convergence and traffic over time, and the mesh, as SVG.
    Draw {
        /// Nodes of the mesh.
        #[arg(long, default_value_t = 200)]
        nodes: usize,
        /// What everything left to chance follows from.
        #[arg(long, env = "MESHWORK_SEED", default_value_t = 1)]
        seed: u64,
        /// Folder for the pictures.
        #[arg(long, default_value = "target/simulator")]
        out: PathBuf,
    },
    /// Runs random schedules of small meshes; ends with 1 at the first that fails, made as small as can be.
    Schedules {
        /// How many.
        #[arg(long, default_value_t = 10_000)]
        count: u64,
        /// What all of them follow from.
        #[arg(long, env = "MESHWORK_SEED", default_value_t = 1)]
        seed: u64,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    let met = match Arguments::parse().verb {
        Verb::Bars { nodes, calm, seed } => bars(nodes, calm, seed)?,
        Verb::Growth { nodes, seed, out } => growth(&nodes, seed, out)?,
        Verb::Draw { nodes, seed, out } => draw(nodes, seed, &out)?,
        Verb::Schedules { count, seed } => schedules(count, seed),
    };
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn bars(nodes: usize, calm: bool, seed: u64) -> anyhow::Result<bool> {
    // First, while nothing else has used the memory of this process.
    let memory = Figure::memory(per_peer(nodes.max(LEAST))?);
    println!("{nodes} nodes, 50 ms one way, 1 % loss, MESHWORK_SEED={seed}");
    let begun = Instant::now();
    let mut course = Course::new(seed, nodes, print);
    print(&memory);
    let met = course.run(!calm).iter().all(Figure::holds) && memory.holds();
    println!("simulated in {:.1} s", begun.elapsed().as_secs_f64());
    Ok(met)
}

fn growth(sizes: &[usize], seed: u64, out: Option<PathBuf>) -> anyhow::Result<bool> {
    let (mut traffic, mut memory) = (Vec::new(), Vec::new());
    // All of these first, while nothing else has used the memory of this process.
    for &nodes in sizes {
        memory.push((nodes as f64, per_peer(nodes.max(LEAST))?));
    }
    for (&nodes, (_, bytes)) in sizes.iter().zip(&memory) {
        let rate = Course::new(seed, nodes, |_| ()).idle_rate();
        println!("{nodes:6} nodes: {rate:7.1} B/s sent by a node, {bytes:6.0} bytes for each known peer");
        traffic.push((nodes as f64, rate));
    }
    let slope = |(nodes, rate): &(f64, f64)| rate / nodes.ln();
    let grows = traffic.first().zip(traffic.last()).is_some_and(|(first, last)| slope(last) > slope(first));
    if let Some(out) = out {
        let chart = |title: &str, name: &str, points| Chart {
            title: title.to_owned(),
            across: "nodes",
            curves: vec![Curve { name: name.to_owned(), points }],
            marks: Vec::new(),
        };
        let memory = chart("Memory for each known peer", "bytes", memory.clone());
        std::fs::write(&out, charts(&[chart("Idle traffic sent by a node", "B/s", traffic), memory]))?;
        println!("drawn to {}", out.display());
    }
    Ok(!grows && memory.iter().all(|(_, bytes)| Figure::memory(*bytes).holds()))
}

fn draw(nodes: usize, seed: u64, out: &Path) -> anyhow::Result<bool> {
    std::fs::create_dir_all(out)?;
    let (curves, mesh) = meshwork_simulator::draw::draw(seed, nodes);
    for (name, picture) in [("convergence.svg", curves), ("mesh.svg", mesh)] {
        std::fs::write(out.join(name), picture)?;
        println!("drawn to {}", out.join(name).display());
    }
    Ok(true)
}

fn schedules(count: u64, seed: u64) -> bool {
    println!("MESHWORK_SEED={seed}");
    let mut random = Random::new(seed);
    for _ in 0..count {
        let nodes = 2 + random.index(5);
        if let Err(failure) = Schedule::draw(random.draw(), nodes, 12).check() {
            println!("{failure}");
            return false;
        }
    }
    println!("{count} schedules held");
    true
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
