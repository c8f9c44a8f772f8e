//! Writes the seeds of the corpus, and runs single inputs.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use meshwork_decoders::targets::TARGETS;
use meshwork_decoders::{corpus, run};

#[derive(Debug, Parser)]
#[command(about = "Inputs of the decoders.")]
enum Command {
    /// Write valid messages of every kind into the corpus
    Seeds,
    /// Name all targets
    List,
    /// Run one input, as the fuzzer does
    Run {
        /// Name of the target
        target: String,
        /// The input
        file: PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Seeds => {
            for target in TARGETS {
                let count = corpus::write_seeds(target).context(target.name)?;
                println!("{}: {count} seeds", target.name);
            }
        }
        Command::List => TARGETS.iter().for_each(|target| println!("{}", target.name)),
        Command::Run { target, file } => run(&target, &std::fs::read(&file).context("the input")?),
    }
    Ok(())
}
