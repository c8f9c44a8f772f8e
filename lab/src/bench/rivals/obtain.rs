//! Where rivals come from: each by the package client of its own world, in a named version, into a folder of its own.
//!
//! A folder that has the program is left as it is, so only the first run needs the network.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bench::rivals::{boringtun, nebula, tinc, wireguard};
use crate::bench::way::Way;
use crate::error::{Error, Result};
use crate::namespace::both;
use crate::{complain, say};

/// A client that installs programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Client {
    /// `go install`, of these packages.
    Go(&'static [&'static str]),
    /// `cargo install`, of this crate.
    Cargo(&'static str),
    /// `apt-get download`, of these packages; the first one has the version, in any revision. They are unpacked, not installed.
    Apt(&'static [&'static str]),
}

/// A program of somebody else.
#[derive(Debug)]
pub(in crate::bench) struct Package {
    pub(super) name: &'static str,
    /// Named, so that figures of two days compare.
    pub(super) version: &'static str,
    pub(super) client: Client,
    /// Where the program lies in the folder.
    pub(super) program: &'static str,
}

/// What a rival is made of.
pub(in crate::bench) const fn package(way: Way) -> Option<&'static Package> {
    match way {
        Way::WireguardGo => Some(&wireguard::PACKAGE),
        Way::Boringtun => Some(&boringtun::PACKAGE),
        Way::Nebula => Some(&nebula::PACKAGE),
        Way::Tinc => Some(&tinc::PACKAGE),
        Way::Meshwork | Way::Clear | Way::Vxlan | Way::Routing => None,
    }
}

impl Package {
    /// Installs it unless `cache` has it; tells in which folder.
    pub(super) fn obtain(&self, cache: &Path) -> Result<PathBuf> {
        let folder = cache.join(self.name).join(self.version);
        fs::create_dir_all(&folder).map_err(Error::io(format!("make {}", folder.display())))?;
        // Clients want it absolute.
        let folder = folder.canonicalize().map_err(Error::io(format!("find {}", folder.display())))?;
        if !folder.join(self.program).exists() {
            say!("installing {} {} by {}", self.name, self.version, self.client.shown());
            self.install(&folder)?;
        }
        Ok(folder)
    }

    /// How one asks for it.
    pub(in crate::bench) fn shown(&self) -> String {
        format!("{} {} by {}", self.name, self.version, self.client.shown())
    }

    fn install(&self, folder: &Path) -> Result<()> {
        match self.client {
            Client::Go(packages) => {
                let mut go = Command::new("go");
                go.env("GOBIN", folder).arg("install");
                run(go.args(packages.iter().map(|package| format!("{package}@{}", self.version))))
            }
            Client::Cargo(name) => {
                let mut cargo = Command::new("cargo");
                cargo.args(["install", "--quiet", "--locked", "--version", self.version, "--root"]);
                run(cargo.arg(folder).arg(name))
            }
            Client::Apt(packages) => self.unpack(packages, folder),
        }
    }

    fn unpack(&self, packages: &[&str], folder: &Path) -> Result<()> {
        let (own, others) = packages.split_first().ok_or_else(|| Error::Unproven("no package is named".into()))?;
        let mut apt = Command::new("apt-get");
        apt.current_dir(folder).args(["--quiet", "download", &format!("{own}={}-*", self.version)]);
        run(apt.args(others))?;
        let entries = fs::read_dir(folder).map_err(Error::io(format!("list {}", folder.display())))?;
        for archive in entries.flatten().map(|entry| entry.path()) {
            if archive.extension() == Some(OsStr::new("deb")) {
                run(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(folder))?;
            }
        }
        Ok(())
    }
}

impl Client {
    const fn shown(self) -> &'static str {
        match self {
            Self::Go(_) => "go install",
            Self::Cargo(_) => "cargo install",
            Self::Apt(_) => "apt-get download",
        }
    }
}

/// Installs all rivals that can be had into `cache`, and complains of the others.
pub(in crate::bench) fn obtain_all(cache: &Path) {
    for package in Way::ALL.into_iter().filter_map(package) {
        if let Err(error) = package.obtain(cache) {
            complain!("{} is missing: {error}", package.name);
        }
    }
}

pub(super) fn run(command: &mut Command) -> Result<()> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let shown = words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ");
    let output = command.output().map_err(Error::io(format!("run `{shown}`")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Command { command: shown, place: "this machine".into(), status: output.status, output: both(&output) })
}
