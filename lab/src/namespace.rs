//! Network namespaces of a lab, and commands that run in them.
//!
//! A [`Namespace`] is only a name with verbs: the namespace itself lives until the lab is cleared, so that one piece of code
//! ([`crate::remains`]) removes what a lab leaves, whether it ended well or not.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use meshwork_sys::netlink::Netlink;
use meshwork_sys::netns::{self, NetNs};
use meshwork_sys::{process, sysctl};

use crate::error::{Error, Result};
use crate::interrupt;
use crate::wait::{Look, eventually};

/// A network namespace of a lab.
#[derive(Debug, Clone)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes the namespace, without duplicate address detection: it would keep IPv6 addresses unusable for a second, on
    /// links that nobody else uses.
    pub(crate) fn create(name: String) -> Result<Self> {
        netns::create(&name)?;
        let namespace = Self { name };
        for interfaces in ["all", "default"] {
            namespace.sysctl(&format!("net.ipv6.conf.{interfaces}.accept_dad"), "0")?;
        }
        Ok(namespace)
    }

    /// The namespace `name`, which exists.
    pub(crate) fn existing(name: String) -> Self {
        Self { name }
    }

    /// Name as `ip netns` shows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// File that stands for it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        netns::path(&self.name)
    }

    /// Runs `work` on a thread inside.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        Ok(self.open()?.run(work)?)
    }

    /// Writes a kernel setting of the namespace, such as `net.ipv4.ip_forward`.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        self.run(|| sysctl::write(name, value))??;
        Ok(())
    }

    /// A command that will run inside.
    ///
    /// # Errors
    /// When the namespace cannot be opened.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        let mut command = Command::new(program);
        process::in_netns(&mut command, &self.open()?)?;
        command.stdin(Stdio::null());
        Ok(command)
    }

    /// Runs a command to its end, whatever it ends with.
    ///
    /// # Errors
    /// When it cannot be started, or [`Error::Interrupted`].
    pub fn output<A: AsRef<OsStr>>(&self, line: impl IntoIterator<Item = A>) -> Result<Output> {
        let command = self.line(line)?;
        output_of(command)
    }

    /// Runs a command that has to succeed, and hands back what it printed.
    ///
    /// # Errors
    /// [`Error::Command`] with what it said when it fails.
    pub fn exec<A: AsRef<OsStr>>(&self, line: impl IntoIterator<Item = A>) -> Result<String> {
        let command = self.line(line)?;
        let shown = shown(&command);
        let output = output_of(command)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(Error::Command { command: shown, place: self.name.clone(), status: output.status, output: both(&output) })
    }

    /// What the kernel counts of UDP over IPv4 inside, by the name it has in `/proc/net/snmp` (RFC 4113).
    ///
    /// # Errors
    /// Where there is no such counter.
    pub fn udp_counter(&self, name: &str) -> Result<u64> {
        let counters = self.exec(["cat", "/proc/net/snmp"])?;
        let mut lines = counters.lines().filter_map(|line| line.strip_prefix("Udp:"));
        let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let mut named = names.split_whitespace().zip(values.split_whitespace());
        let found = named.find(|(known, _)| *known == name).and_then(|(_, value)| value.parse().ok());
        found.ok_or_else(|| Error::Unproven(format!("the kernel counts no {name} of UDP")))
    }

    /// Starts a command that goes on until it is dropped, everything it prints going to `log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn<A: AsRef<OsStr>>(&self, line: impl IntoIterator<Item = A>, log: &Path) -> Result<Running> {
        Running::start(self.line(line)?, log)
    }

    fn line<A: AsRef<OsStr>>(&self, line: impl IntoIterator<Item = A>) -> Result<Command> {
        let mut words = line.into_iter();
        let program = words.next().ok_or_else(|| Error::Unproven("no command was given".into()))?;
        let mut command = self.command(program)?;
        command.args(words);
        Ok(command)
    }

    /// A netlink socket of the namespace.
    pub(crate) fn netlink(&self) -> Result<Netlink> {
        Ok(Netlink::connect_in(&self.open()?)?)
    }

    pub(crate) fn open(&self) -> Result<NetNs> {
        Ok(NetNs::open(self.path())?)
    }
}

/// A program that runs beside the lab and ends with this value.
#[derive(Debug)]
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    pub(crate) fn start(mut command: Command, log: &Path) -> Result<Self> {
        let file = File::create(log).map_err(Error::io(format!("make {}", log.display())))?;
        let again = file.try_clone().map_err(Error::io(format!("share {}", log.display())))?;
        let shown = shown(&command);
        let child = command.stdout(file).stderr(again).spawn().map_err(Error::io(format!("start `{shown}`")))?;
        Ok(Self { child, log: log.to_path_buf() })
    }

    /// Process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it printed so far.
    #[must_use]
    pub fn printed(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Waits until it has printed `words`.
    ///
    /// # Errors
    /// When it ends before, or does not say so in time.
    pub fn wait_for(&mut self, words: &str, deadline: Duration) -> Result<()> {
        eventually(deadline, &format!("{words:?} in {}", self.log.display()), || {
            let printed = self.printed();
            if printed.contains(words) {
                return Ok(Look::Done(()));
            }
            match self.child.try_wait().map_err(Error::io("wait for a program"))? {
                Some(status) => Err(Error::Unproven(format!("a program ended early with {status}: {printed}"))),
                None => Ok(Look::Missing(printed)),
            }
        })
    }

    /// Waits for its own end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn wait_for_end(&mut self, deadline: Duration) -> Result<std::process::ExitStatus> {
        eventually(deadline, &format!("end of the program that logs to {}", self.log.display()), || {
            let ended = self.child.try_wait().map_err(Error::io("wait for a program"))?;
            Ok(ended.map_or_else(|| Look::Missing("it still runs".into()), Look::Done))
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing left to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn output_of(mut command: Command) -> Result<Output> {
    interrupt::check()?;
    let shown = shown(&command);
    let output = command.output().map_err(Error::io(format!("run `{shown}`")))?;
    interrupt::check()?;
    Ok(output)
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// What a command said, errors first.
pub(crate) fn both(output: &Output) -> String {
    let said = [&output.stderr, &output.stdout].map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned());
    said.iter().filter(|text| !text.is_empty()).cloned().collect::<Vec<_>>().join("; ")
}
