//! The program: environment and standard input in, one line of JSON and an exit code out.

use std::io::{self, Write as _};
use std::process::ExitCode;

fn main() -> ExitCode {
    let outcome = meshwork_cni::run(&|name| std::env::var_os(name), io::stdin().lock());
    let mut stdout = io::stdout().lock();
    if !outcome.output.is_empty() && (writeln!(stdout, "{}", outcome.output).is_err() || stdout.flush().is_err()) {
        return ExitCode::FAILURE;
    }
    if outcome.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
