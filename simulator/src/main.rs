//! Runs whole meshes under a virtual clock and holds them against their bars.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use meshwork_simulator::Random;
use meshwork_simulator::bars::{Course, Extent, Figure};
use meshwork_simulator::growth::{Growth, Point};
use meshwork_simulator::memory::per_peer;
use meshwork_simulator::schedule::Schedule;

/// Least peers over which memory is measured: it grows page by page.
const LEAST: usize = 1000;

/// Least nodes of a mesh that has halves, and a tenth to lose.
const SMALLEST: usize = 10;

/// Where the figures of `growth` are kept unless said.
const KEPT: &str = "target/simulator/growth.jsonl";

/// Whole meshes of gossip in one process, under a virtual clock.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

/// What mesh is measured, and how far.
#[derive(Args, Clone)]
struct CourseArguments {
    /// Leave out partition and losses, which take most of the time.
    #[arg(long)]
    calm: bool,
    /// Leave out the partition alone.
    #[arg(long)]
    spare_partition: bool,
    /// Links are given, and nobody chooses any: a large mesh that chooses takes hours.
    #[arg(long)]
    given: bool,
    /// What everything left to chance follows from.
    #[arg(long, env = "MESHWORK_SEED", default_value_t = 1)]
    seed: u64,
    /// File to which the figures are added, one line for each mesh; `growth` uses target/simulator/growth.jsonl unless told.
    #[arg(long)]
    keep: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Verb {
    /// Prints every figure beside its bar; ends with 1 if one is missed.
    Bars {
        /// Nodes of the mesh, 10 at least. A thousand that choose their links take ten minutes.
        #[arg(long, default_value_t = 1000, value_parser = mesh_size)]
        nodes: usize,
        #[command(flatten)]
        course: CourseArguments,
    },
    /// Prints and draws how idle traffic and memory grow with the mesh; ends with 1 if they grow too fast.
    Growth {
        /// Sizes, such as 100,200,500: those are measured, without partition and losses, that the file lacks. 5,000 nodes
        /// take ten minutes with given links, and hours if they choose them.
        #[arg(long, value_delimiter = ',', default_values_t = [100, 200, 500, 1000, 2000, 5000], value_parser = mesh_size)]
        nodes: Vec<usize>,
        /// Where to put the picture.
        #[arg(long)]
        out: Option<PathBuf>,
        #[command(flatten)]
        course: CourseArguments,
    },
    /// Prints the bytes by which a node grows for each peer that it comes to know.
    #[command(hide = true)]
    Memory {
        /// Peers.
        #[arg(long)]
        peers: usize,
    },
    /// Draws convergence and traffic over time, and the mesh, as SVG.
    Draw {
        /// Nodes of the mesh.
        #[arg(long, default_value_t = 200, value_parser = mesh_size)]
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
        Verb::Bars { nodes, course } => bars(nodes, &course)?,
        Verb::Growth { nodes, out, course } => growth(&nodes, out, &course)?,
        Verb::Memory { peers } => {
            println!("{}", per_peer(peers)?);
            true
        }
        Verb::Draw { nodes, seed, out } => draw(nodes, seed, &out)?,
        Verb::Schedules { count, seed } => schedules(count, seed),
    };
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn mesh_size(text: &str) -> Result<usize, String> {
    let nodes = text.parse().map_err(|_| "a mesh size is a number".to_owned())?;
    if nodes < SMALLEST { Err(format!("at least {SMALLEST}: smaller ones have no figures")) } else { Ok(nodes) }
}

/// Measures a mesh, prints its figures and keeps them.
fn bars(nodes: usize, arguments: &CourseArguments) -> anyhow::Result<bool> {
    let CourseArguments { calm, spare_partition, given, seed, keep } = arguments;
    // Before the measurement, which takes long.
    if let Some(keep) = keep {
        read(keep)?;
        make_folder_of(keep)?;
    }
    let memory = Figure::memory(memory_in_its_own_process(nodes.max(LEAST))?);
    let links = if *given { "given links" } else { "chosen links" };
    println!("{nodes} nodes, {links}, 50 ms one way, 1 % loss, MESHWORK_SEED={seed}");
    let begun = Instant::now();
    let mut course = Course::new(*seed, nodes, *given, print);
    print(&memory);
    let extent = match (calm, spare_partition) {
        (true, _) => Extent::Calm,
        (_, true) => Extent::Losses,
        _ => Extent::Whole,
    };
    // What follows takes long, and may be stopped.
    append(keep.as_deref(), &Point::new(nodes, *given, *seed, course.run().iter().chain([&memory])))?;
    let figures = course.go_on(extent);
    let met = figures.iter().chain([&memory]).all(Figure::holds);
    println!("simulated in {:.1} s", begun.elapsed().as_secs_f64());
    if extent != Extent::Calm {
        append(keep.as_deref(), &Point::new(nodes, *given, *seed, figures.iter().chain([&memory])))?;
    }
    Ok(met)
}

fn append(keep: Option<&Path>, point: &Point) -> anyhow::Result<()> {
    keep.map_or(Ok(()), |keep| point.append(keep).with_context(|| format!("cannot write {}", keep.display())))
}

fn read(keep: &Path) -> anyhow::Result<Growth> {
    let remedy = || format!("cannot read {}: name another file, or mend the line", keep.display());
    Growth::read(keep).with_context(remedy)
}

fn make_folder_of(path: &Path) -> anyhow::Result<()> {
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))
}

/// What a process has used before is not given back, and room that it has is not asked for.
fn memory_in_its_own_process(peers: usize) -> anyhow::Result<f64> {
    let mut process = Command::new(std::env::current_exe()?);
    process.args(["memory", "--peers", &peers.to_string()]).env_remove("GLIBC_TUNABLES");
    let output = process.output()?;
    anyhow::ensure!(output.status.success(), "memory was not measured: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

fn growth(sizes: &[usize], out: Option<PathBuf>, arguments: &CourseArguments) -> anyhow::Result<bool> {
    let keep = arguments.keep.as_deref().unwrap_or(Path::new(KEPT));
    out.iter().try_for_each(|out| make_folder_of(out))?;
    let arguments = CourseArguments { calm: true, keep: Some(keep.to_owned()), ..arguments.clone() };
    for nodes in sizes {
        if !read(keep)?.has(*nodes, arguments.given) {
            bars(*nodes, &arguments)?;
        }
    }
    let growth = read(keep)?;
    print!("{growth}");
    if let Some(out) = out {
        std::fs::write(&out, growth.drawn()).with_context(|| format!("cannot write {}", out.display()))?;
        println!("drawn to {}", out.display());
    }
    Ok(growth.holds())
}

fn draw(nodes: usize, seed: u64, out: &Path) -> anyhow::Result<bool> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot make the folder {}", out.display()))?;
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
