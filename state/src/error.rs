//! What can be wrong with files, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use meshwork_identity::SecretError;

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another daemon runs on it.
    #[error("{} is in use by {}: stop that daemon, or give this one another --state-dir", .directory.display(), holder(*.pid))]
    InUse {
        /// The state directory.
        directory: PathBuf,
        /// The other daemon, if it left its number.
        pid: Option<u32>,
    },
    /// Something in it cannot be trusted; it was kept under other names.
    #[error("{reason}; kept as {}: {next}", list(.moved_to))]
    Damaged {
        /// What is wrong.
        reason: String,
        /// Where the files are now.
        moved_to: Vec<PathBuf>,
        /// What to do.
        next: &'static str,
    },
    /// Written by a newer build. Nothing was changed.
    #[error("{} has format {found}, and this build knows up to {known}: run the newer build again", .path.display())]
    NewerFormat {
        /// The database.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format that this build reads.
        known: u32,
    },
    /// The operating system refuses access. Nothing was changed.
    #[error("no access to {}: run as the user that owns it, or correct its owner and mode", .path.display())]
    NoAccess {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No space. What was recorded before is intact.
    #[error("the disk of {} is full: free some space; nothing was recorded", .path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Nothing can be written. What was recorded before is intact.
    #[error("the disk of {} is read-only: see the kernel's log (dmesg) for why, and make it writable; nothing was recorded", .path.display())]
    ReadOnly {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Any other failure of the disk. What was recorded before is intact.
    #[error("cannot read or write {}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The database failed while it was in use.
    #[error("the database {} failed: {reason}; restart the daemon, which checks it", .path.display())]
    Database {
        /// The database.
        path: PathBuf,
        /// What it said.
        reason: String,
    },
    /// A transaction failed in a way that leaves open whether it is on disk. Nothing more is recorded.
    #[error("it is not known whether the last change is in {}: restart the daemon, which reads it again", .path.display())]
    Uncertain {
        /// The database.
        path: PathBuf,
    },
}

/// Why a secret file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// It does not hold a secret.
    #[error("{}: {source}", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: SecretError,
    },
    /// The list of files cannot be used.
    #[error(transparent)]
    List(SecretError),
    /// There is none.
    #[error("there is no secret file {}: copy it from another node of the mesh", .path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A secret is to be made where one is already.
    #[error("{} exists already and was left as it is", .path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The disk or its permissions.
    #[error(transparent)]
    File(StateError),
}

impl StateError {
    /// The kind that an error of the system belongs to.
    pub(crate) fn of(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::NoAccess { path, source },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::Full { path, source }
            }
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { path, source },
            _ => Self::Io { path, source },
        }
    }
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" and ")
}
