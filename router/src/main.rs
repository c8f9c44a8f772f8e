//! `meshd`, the node daemon of Meshwork.

use std::process::ExitCode;

use clap::Parser;
use meshwork_router::config::Flags;
use meshwork_router::daemon;

fn main() -> ExitCode {
    match daemon::main(Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("meshd: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
