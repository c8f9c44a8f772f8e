//! Programs that are not ours, which Go builds from pinned modules: each lies in a folder here, beside its stories.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds packages of a module, and hands back the folder that holds their programs. Go itself knows what is up to date.
pub(crate) fn build(module: &str, packages: &[&str]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(module);
    std::fs::create_dir_all(&folder).unwrap();
    // Go takes a path with a slash at its end for a folder.
    let into = folder.join("");
    let flags = ["build", "-mod=readonly", "-buildvcs=false", "-o"].map(OsStr::new);
    run(module, flags.into_iter().chain([into.as_os_str()]).chain(packages.iter().map(OsStr::new)));
    folder
}

/// Runs `go` in a module; it has to succeed. Hands back what it printed.
pub(crate) fn run<A: AsRef<OsStr>>(module: &str, words: impl IntoIterator<Item = A>) -> String {
    let mut go = Command::new("go");
    go.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(module)).env("CGO_ENABLED", "0");
    let output = go.args(words).output();
    let output =
        output.unwrap_or_else(|error| panic!("cannot run `go` ({error}): install Go 1.24 or later (make setup)"));
    assert!(output.status.success(), "go: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
