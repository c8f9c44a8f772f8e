//! Programs started in a namespace, tied to the life of this program, and signalled.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::netns::NetNs;
use crate::{Error, Result};

/// Makes the program start inside `netns`. Only the network differs: mounts, cgroups and all else stay, unlike with
/// `ip netns exec`.
pub fn in_netns(command: &mut Command, netns: &NetNs) -> Result<()> {
    let netns = netns.try_clone()?;
    // SAFETY: the closure makes one system call on a descriptor that it owns, and neither allocates nor locks.
    unsafe { command.pre_exec(move || netns.enter()) };
    Ok(())
}

/// Makes the kernel kill the program when the thread that starts it ends, whatever way it ends. Start it from a thread
/// that lives as long as the program should, never from within [`NetNs::run`].
pub fn die_with_parent(command: &mut Command) {
    let parent = std::process::id();
    // SAFETY: the closure makes two system calls without pointers, and neither allocates nor locks.
    unsafe { command.pre_exec(move || end_with(parent)) };
}

fn end_with(parent: u32) -> io::Result<()> {
    // SAFETY: PR_SET_PDEATHSIG takes a signal number and no pointers.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: getppid cannot fail and takes no arguments.
    let actual = unsafe { libc::getppid() };
    match u32::try_from(actual) == Ok(parent) {
        true => Ok(()),
        // The parent died before the request; nobody would kill us any more.
        false => Err(io::Error::from_raw_os_error(libc::ESRCH)),
    }
}

/// The signals that this project sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// End orderly.
    Term,
    /// End at once.
    Kill,
    /// End orderly, as by Ctrl-C.
    Interrupt,
    /// Freeze.
    Stop,
    /// Go on after [`Signal::Stop`].
    Continue,
    /// Read the configuration again.
    Hangup,
}

impl Signal {
    fn number(self) -> libc::c_int {
        match self {
            Self::Term => libc::SIGTERM,
            Self::Kill => libc::SIGKILL,
            Self::Interrupt => libc::SIGINT,
            Self::Stop => libc::SIGSTOP,
            Self::Continue => libc::SIGCONT,
            Self::Hangup => libc::SIGHUP,
        }
    }
}

/// Sends `signal` to one process; [`Error::is_not_found`] if there is none.
pub fn signal(pid: u32, signal: Signal) -> Result<()> {
    // Zero and negative numbers mean groups of processes, or all of them.
    let target = libc::pid_t::try_from(pid).ok().filter(|&pid| pid > 0);
    let target = target.ok_or_else(|| Error::invalid("process id", pid.to_string(), "it names no single process"))?;
    // SAFETY: kill takes two numbers.
    match unsafe { libc::kill(target, signal.number()) } {
        0 => Ok(()),
        _ => Err(Error::last_os_error(format!("send {signal:?} to process {pid}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_means_many_processes_is_no_target() {
        for pid in [0, u32::MAX, 1 << 31] {
            assert!(matches!(signal(pid, Signal::Continue), Err(Error::Invalid { .. })), "{pid}");
        }
    }

    #[test]
    fn a_program_that_has_ended_is_not_found() {
        let mut child = Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert!(signal(pid, Signal::Term).unwrap_err().is_not_found());
    }

    #[test]
    fn a_signal_arrives() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        signal(child.id(), Signal::Kill).unwrap();
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn a_program_dies_with_the_thread_that_started_it() {
        let starter = std::thread::spawn(|| {
            let mut command = Command::new("sleep");
            die_with_parent(command.arg("60"));
            command.spawn().unwrap()
        });
        let mut child = starter.join().unwrap();
        assert!(!child.wait().unwrap().success());
    }
}
