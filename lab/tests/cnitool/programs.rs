//! The foreign programs of the stories: `cnitool` and reference plugins, built by Go from the module beside this file.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// What [`folder`] holds.
const PACKAGES: [&str; 4] = [
    "github.com/containernetworking/cni/cnitool",
    "github.com/containernetworking/plugins/plugins/main/ptp",
    "github.com/containernetworking/plugins/plugins/meta/bandwidth",
    "github.com/containernetworking/plugins/plugins/meta/portmap",
];

/// Where they are. Built once per run; Go itself knows what is up to date.
pub(crate) fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(build)
}

fn build() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cnitool");
    std::fs::create_dir_all(&folder).unwrap();
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cnitool");
    let mut go = Command::new("go");
    go.current_dir(module).env("CGO_ENABLED", "0").args(["build", "-mod=readonly", "-buildvcs=false", "-o"]);
    // Go takes a path with a slash at its end for a folder.
    let output = go.arg(folder.join("")).args(PACKAGES).output();
    let output =
        output.unwrap_or_else(|error| panic!("cannot run `go` ({error}): install Go 1.24 or later (make setup)"));
    assert!(output.status.success(), "go build: {}", String::from_utf8_lossy(&output.stderr));
    folder
}
