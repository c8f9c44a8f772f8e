//! The foreign programs of the stories: `cnitool` and reference plugins, built by Go from the module beside this file.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::go;

/// What [`folder`] holds.
const PACKAGES: [&str; 4] = [
    "github.com/containernetworking/cni/cnitool",
    "github.com/containernetworking/plugins/plugins/main/ptp",
    "github.com/containernetworking/plugins/plugins/meta/bandwidth",
    "github.com/containernetworking/plugins/plugins/meta/portmap",
];

/// Where they are. Built once per run.
pub(crate) fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| go::build("cnitool", &PACKAGES))
}
