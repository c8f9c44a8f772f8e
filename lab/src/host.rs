//! A host: a namespace with one link to the fabric, a directory, and a daemon that can be started, stopped, killed and
//! frozen while its pods stay.
//!
//! The daemon is a child of this process in a process group of its own, so that a terminal's Ctrl-C reaches the lab first
//! and a lab that is left running survives its maker.

use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use meshwork_api::client::Client;
use meshwork_sys::process::{self, Signal};
use serde::de::DeserializeOwned;

use crate::cni::Cni;
use crate::error::{Error, Result};
use crate::fabric::Fabric;
use crate::namespace::Namespace;
use crate::nat;
use crate::pod::{self, Pod};
use crate::programs::Programs;
use crate::remains::{self, PID_FILE};
use crate::topology::{HostNumber, LabName};
use crate::wait::{Look, eventually};

/// One question to a daemon; longer than any answer takes that needs no waiting.
const API_TIMEOUT: Duration = Duration::from_secs(5);
/// An orderly stop tells peers and closes the database.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// Lines of a log that are shown when something fails.
const TAIL: usize = 25;

/// How a host's daemon is started.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    pub(crate) flags: Vec<OsString>,
    pub(crate) environment: Vec<(OsString, OsString)>,
}

/// One host of a lab.
#[derive(Debug)]
pub struct Host {
    lab: LabName,
    number: HostNumber,
    namespace: Namespace,
    programs: Programs,
    settings: Settings,
    daemon: Mutex<Option<Child>>,
}

impl Host {
    pub(crate) fn new(lab: &LabName, number: HostNumber, programs: Programs, settings: Settings) -> Self {
        let namespace = Namespace::existing(lab.host(number));
        Self { lab: lab.clone(), number, namespace, programs, settings, daemon: Mutex::new(None) }
    }

    /// Which host it is; prints as `h1`.
    #[must_use]
    pub fn number(&self) -> HostNumber {
        self.number
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The addresses by which others reach it: its own or, for IPv4 and if it has one, its translator's.
    #[must_use]
    pub fn underlay(&self) -> [IpAddr; 2] {
        [self.number.address4().into(), self.number.address6().into()]
    }

    /// Whose end of the link to the fabric it is: its own or its translator's namespace.
    pub(crate) fn outermost(&self) -> Namespace {
        self.translator().unwrap_or_else(|| self.namespace.clone())
    }

    /// The address translator in front of it, if there is one.
    #[must_use]
    pub fn translator(&self) -> Option<Namespace> {
        let translator = Namespace::existing(self.lab.nat(self.number));
        translator.path().exists().then_some(translator)
    }

    /// Everything that it keeps in files.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        self.lab.directory().join(self.number.to_string())
    }

    /// State directory of the daemon.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.directory().join("state")
    }

    /// Control socket of the daemon.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory().join("meshd.sock")
    }

    /// File with the mesh secret.
    #[must_use]
    pub fn secret(&self) -> PathBuf {
        self.directory().join("secret")
    }

    /// Log of the daemon, over all its runs.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.directory().join("log")
    }

    /// The last lines of the log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines.get(lines.len().saturating_sub(TAIL)..).unwrap_or_default().join("\n")
    }

    /// The daemon's command line, program first.
    #[must_use]
    pub fn daemon_line(&self) -> Vec<OsString> {
        let flags: [(&str, OsString); 5] = [
            ("--nickname", self.number.to_string().into()),
            ("--state-dir", self.state().into()),
            ("--socket", self.socket().into()),
            ("--secret-file", self.secret().into()),
            ("--log", "info".into()),
        ];
        let flags = flags.into_iter().flat_map(|(flag, value)| [flag.into(), value]);
        std::iter::once(self.programs.meshd.clone().into()).chain(flags).chain(self.settings.flags.clone()).collect()
    }

    /// Starts the daemon; [`crate::Lab::wait_until_ready`] waits for what it does then.
    ///
    /// # Errors
    /// When one runs already or it cannot be started.
    pub fn start(&self) -> Result<()> {
        self.start_with(&[])
    }

    /// Starts the daemon with more flags than usual, for this run alone.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(&self, more: &[&str]) -> Result<()> {
        let mut daemon = self.daemon();
        if daemon.is_some() {
            return Err(Error::Unproven(format!("meshd of {} runs already", self.number)));
        }
        let log = OpenOptions::new().create(true).append(true).open(self.log());
        let log = log.map_err(Error::io(format!("open {}", self.log().display())))?;
        let again = log.try_clone().map_err(Error::io("share the daemon's log"))?;
        let line = self.daemon_line();
        let mut command = self.namespace.command(&self.programs.meshd)?;
        command.args(line.iter().skip(1)).args(more).envs(self.settings.environment.iter().cloned());
        let child = command.stdout(log).stderr(again).process_group(0).spawn().map_err(Error::io("start meshd"))?;
        fs::write(self.directory().join(PID_FILE), child.id().to_string()).map_err(Error::io("write a pid file"))?;
        *daemon = Some(child);
        Ok(())
    }

    /// Process id of the daemon, while it is this lab's child.
    #[must_use]
    pub fn daemon_id(&self) -> Option<u32> {
        self.daemon().as_ref().map(Child::id)
    }

    /// Ends the daemon with SIGKILL.
    ///
    /// # Errors
    /// [`Error::NoDaemon`].
    pub fn kill(&self) -> Result<()> {
        self.signal(Signal::Kill)?;
        self.wait_for_exit(STOP_DEADLINE).map(|_| ())
    }

    /// Ends the daemon with SIGTERM and tells how it ended.
    ///
    /// # Errors
    /// [`Error::NoDaemon`], or it does not end in time.
    pub fn stop(&self) -> Result<ExitStatus> {
        self.signal(Signal::Term)?;
        self.wait_for_exit(STOP_DEADLINE)
    }

    /// Stops and starts the daemon.
    ///
    /// # Errors
    /// As [`Self::stop`] and [`Self::start`].
    pub fn restart(&self) -> Result<()> {
        self.stop()?;
        self.start()
    }

    /// Freezes the daemon.
    ///
    /// # Errors
    /// [`Error::NoDaemon`].
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::Stop)
    }

    /// Lets a frozen daemon go on.
    ///
    /// # Errors
    /// [`Error::NoDaemon`].
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::Continue)
    }

    /// Sends the daemon a signal.
    ///
    /// # Errors
    /// [`Error::NoDaemon`].
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.daemon_id().ok_or_else(|| self.no_daemon())?;
        Ok(process::signal(pid, signal)?)
    }

    /// Waits until the daemon has ended.
    ///
    /// # Errors
    /// [`Error::NoDaemon`], or it does not end in time.
    pub fn wait_for_exit(&self, deadline: Duration) -> Result<ExitStatus> {
        eventually(deadline, &format!("end of meshd on {}", self.number), || {
            let mut daemon = self.daemon();
            let child = daemon.as_mut().ok_or_else(|| self.no_daemon())?;
            let Some(status) = child.try_wait().map_err(Error::io("wait for meshd"))? else {
                return Ok(Look::Missing("it still runs".into()));
            };
            *daemon = None;
            Ok(Look::Done(status))
        })
    }

    /// Fails if the daemon ended by itself.
    pub(crate) fn check_daemon(&self) -> Result<()> {
        let mut daemon = self.daemon();
        let Some(child) = daemon.as_mut() else { return Ok(()) };
        match child.try_wait().map_err(Error::io("wait for meshd"))? {
            None => Ok(()),
            Some(status) => {
                *daemon = None;
                Err(Error::DaemonEnded { host: self.number.to_string(), status, log: self.log_tail() })
            }
        }
    }

    /// A client of the daemon's control API.
    #[must_use]
    pub fn api(&self) -> Client {
        Client::new(self.socket()).with_timeout(API_TIMEOUT)
    }

    /// Asks the daemon, such as for `/v1/status`.
    ///
    /// # Errors
    /// [`Error::Api`].
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.api().get(path).map_err(|source| Error::Api { host: self.number.to_string(), source })
    }

    /// Runs `meshctl` against the daemon; it has to succeed.
    ///
    /// # Errors
    /// When it does not.
    pub fn meshctl(&self, words: &[&str]) -> Result<String> {
        self.namespace.exec(self.meshctl_line(words))
    }

    /// Command line of `meshctl` against this daemon.
    #[must_use]
    pub fn meshctl_line(&self, words: &[&str]) -> Vec<OsString> {
        let start = [self.programs.meshctl.clone().into(), "--socket".into(), self.socket().into()];
        start.into_iter().chain(words.iter().map(OsString::from)).collect()
    }

    /// Runs a command that has to succeed on the host.
    ///
    /// # Errors
    /// When it fails.
    pub fn exec<A: AsRef<OsStr>>(&self, line: impl IntoIterator<Item = A>) -> Result<String> {
        self.namespace.exec(line)
    }

    /// The CNI plugin on this host.
    #[must_use]
    pub fn cni(&self) -> Cni {
        Cni { host: self.namespace.clone(), plugin: self.programs.mesh_cni.clone(), socket: self.socket() }
    }

    /// Makes a pod and attaches it.
    ///
    /// # Errors
    /// When the plugin refuses.
    pub fn pod(&self, name: &str) -> Result<Pod> {
        Pod::attach(&self.lab, self.number, name, self.cni())
    }

    /// The sandbox that a pod of this name has or would have.
    #[must_use]
    pub fn sandbox(&self, pod: &str) -> crate::cni::Sandbox {
        pod::sandbox(&self.lab, self.number, pod)
    }

    /// Names of the pods that have a namespace on this host.
    ///
    /// # Errors
    /// When namespaces cannot be listed.
    pub fn pod_names(&self) -> Result<Vec<String>> {
        let prefix = format!("{}-", self.namespace.name());
        let names = remains::namespaces(&self.lab)?;
        Ok(names.iter().filter_map(|name| name.strip_prefix(&prefix).map(str::to_owned)).collect())
    }

    /// Namespace of a pod of this host.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn pod_namespace(&self, pod: &str) -> Result<Namespace> {
        if self.pod_names()?.iter().any(|name| name == pod) {
            return Ok(Namespace::existing(self.lab.pod(self.number, pod)));
        }
        Err(Error::NoSuchHost { lab: self.lab.to_string(), host: format!("{}/{pod}", self.number) })
    }

    /// Links the host to the fabric, through its translator if it has one.
    pub(crate) fn attach(&self, fabric: &Fabric) -> Result<()> {
        match self.translator() {
            None => fabric.attach(self.number, &self.namespace),
            Some(translator) => {
                fabric.attach(self.number, &translator)?;
                nat::attach(&translator, &self.namespace)
            }
        }
    }

    /// Prepares the directory: empty, closed to others, with the mesh secret in it.
    pub(crate) fn prepare(&self, secret: &str) -> Result<()> {
        let directory = self.directory();
        fs::create_dir_all(&directory).map_err(Error::io(format!("make {}", directory.display())))?;
        write_secret(&self.secret(), secret)
    }

    /// Ends the daemon without asking, for the end of the lab.
    pub(crate) fn end(&self) {
        if let Some(mut child) = self.daemon().take() {
            // Nothing is left to do for a child that ended before.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Lets the daemon go on without this process.
    pub(crate) fn release(&self) {
        self.daemon().take();
    }

    pub(crate) fn no_daemon(&self) -> Error {
        Error::NoDaemon { host: self.number.to_string(), log: self.log_tail() }
    }

    fn daemon(&self) -> MutexGuard<'_, Option<Child>> {
        // A panic elsewhere leaves the option as it was.
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a secret that only its owner reads.
pub(crate) fn write_secret(path: &Path, secret: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| writeln!(file, "{secret}"));
    written.map_err(Error::io(format!("write {}", path.display())))
}
