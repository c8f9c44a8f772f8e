//! `mesh-cni`: attaches containers to the mesh for any runtime that speaks CNI.
//!
//! Synchronous and static: one process per operation, which asks `meshd` and makes the link through `meshwork-attach`.
//! The specification 0.3.1 to 1.1.0 as a whole, alone, in a chain, as a delegate, and as the address plugin of another.

mod config;
mod environment;
mod error;
#[cfg(test)]
#[path = "../../attach/src/fake_meshd.rs"]
mod fake_meshd;
#[cfg(test)]
mod hostile;
mod plugin;
mod result;
mod upkeep;
mod wishes;

use std::io::{self, Write as _};
use std::process::ExitCode;

fn main() -> ExitCode {
    let outcome = plugin::run(&|name| std::env::var_os(name), io::stdin().lock());
    let mut stdout = io::stdout().lock();
    if !outcome.output.is_empty() && (writeln!(stdout, "{}", outcome.output).is_err() || stdout.flush().is_err()) {
        return ExitCode::FAILURE;
    }
    if outcome.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
