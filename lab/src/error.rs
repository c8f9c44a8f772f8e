//! The crate's error: who is to blame, what was tried, what to do next.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use meshwork_api::client::ClientError;

/// The result of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a lab could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The name cannot be part of namespace and directory names.
    #[error("{name:?} is not a usable {what} name: take {rule}")]
    BadName {
        /// What was to be named.
        what: &'static str,
        /// The name as given.
        name: String,
        /// What is allowed.
        rule: &'static str,
    },
    /// There is no such lab.
    #[error("there is no lab {0:?}; `meshlab ls` lists labs, `meshlab up --hosts N --name {0}` makes one")]
    NoSuchLab(String),
    /// There is no such host.
    #[error("lab {lab:?} has no host {host:?}; `meshlab ls` lists hosts")]
    NoSuchHost {
        /// Lab that was asked.
        lab: String,
        /// Host that was named.
        host: String,
    },
    /// A program of this build is not where it should be.
    #[error("{program} is not in {looked_in}; run `make build`, or set MESHWORK_BIN to the folder that holds it")]
    ProgramMissing {
        /// Name of the program.
        program: &'static str,
        /// Folders that were searched.
        looked_in: String,
    },
    /// The system refused a file or a process.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried, as it reads after "cannot".
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel refused a network object.
    #[error(transparent)]
    Kernel(#[from] meshwork_sys::Error),
    /// A command ran and failed.
    #[error("`{command}` in {place} ended with {status}: {output}")]
    Command {
        /// Program and arguments.
        command: String,
        /// Namespace it ran in.
        place: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        output: String,
    },
    /// A program printed something that is not understood.
    #[error("{program} printed something unexpected ({why}): {output}")]
    Unreadable {
        /// Name of the program.
        program: &'static str,
        /// What is wrong with it.
        why: String,
        /// What it printed.
        output: String,
    },
    /// Something that was waited for did not happen.
    #[error("{what} not reached within {} s; missing: {missing}", deadline.as_secs_f32())]
    TimedOut {
        /// State that was waited for.
        what: String,
        /// How long was waited.
        deadline: Duration,
        /// What was missing at the end.
        missing: String,
    },
    /// A daemon ended by itself.
    #[error("meshd of {host} ended with {status}; its log ends with:\n{log}")]
    DaemonEnded {
        /// Host of the daemon.
        host: String,
        /// How it ended.
        status: ExitStatus,
        /// Last lines of its log.
        log: String,
    },
    /// The host has no running daemon to act on.
    #[error("no meshd runs on {host}; its log ends with:\n{log}")]
    NoDaemon {
        /// Host without one.
        host: String,
        /// Last lines of its log.
        log: String,
    },
    /// A daemon did not answer, or refused.
    #[error("asking meshd of {host}: {source}")]
    Api {
        /// Host of the daemon.
        host: String,
        /// What went wrong.
        source: ClientError,
    },
    /// The plugin refused.
    #[error("mesh-cni {command} for {pod} ended with {status}: {message}")]
    Cni {
        /// `ADD` or `DEL`.
        command: &'static str,
        /// Pod it was called for.
        pod: String,
        /// How it ended.
        status: ExitStatus,
        /// The error it printed, or its standard error.
        message: String,
    },
    /// What should hold does not.
    #[error("{0}")]
    Unproven(String),
    /// SIGINT or SIGTERM arrived.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// An [`Error::Io`] for use with `map_err`.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
