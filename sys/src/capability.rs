//! The privileges this program has, so that it can say at start which one it lacks instead of failing halfway.

use std::fmt;
use std::fs;

use crate::{Error, Result};

/// The privileges this project asks for. The numbers are the kernel's (capabilities(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Capability {
    /// Signal processes of other users.
    Kill = 5,
    /// Ports below 1024.
    NetBindService = 10,
    /// Links, routes, firewall and large socket buffers.
    NetAdmin = 12,
    /// Packet sockets.
    NetRaw = 13,
    /// Load kernel modules on demand.
    SysModule = 16,
    /// Examine processes of other users, such as their namespaces.
    SysPtrace = 19,
    /// Enter and make namespaces.
    SysAdmin = 21,
}

impl fmt::Display for Capability {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Kill => "CAP_KILL",
            Self::NetBindService => "CAP_NET_BIND_SERVICE",
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::NetRaw => "CAP_NET_RAW",
            Self::SysModule => "CAP_SYS_MODULE",
            Self::SysPtrace => "CAP_SYS_PTRACE",
            Self::SysAdmin => "CAP_SYS_ADMIN",
        })
    }
}

/// Which of `wanted` the calling thread does not have in effect, in the given order.
pub fn missing(wanted: &[Capability]) -> Result<Vec<Capability>> {
    let operation = "tell this thread's capabilities";
    let status = fs::read_to_string("/proc/thread-self/status").map_err(|source| Error::refused(operation, source))?;
    let effective = effective(&status).ok_or_else(|| Error::Malformed {
        operation: operation.into(),
        reason: "the status of the thread has no CapEff line".into(),
    })?;
    Ok(wanted.iter().copied().filter(|&capability| effective & (1 << capability as u8) == 0).collect())
}

fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_set_is_read_from_its_line() {
        let status = "Name:\tmeshd\nCapPrm:\t0000000000003000\nCapEff:\t0000000000001000\n";
        assert_eq!(effective(status), Some(1 << Capability::NetAdmin as u8));
        assert_eq!(effective("CapEff:\tnonsense"), None);
        assert_eq!(effective(""), None);
    }

    #[test]
    fn a_thread_without_privileges_lacks_what_it_gave_up() {
        let lacking = std::thread::spawn(|| {
            // SAFETY: the raw call takes numbers and changes this thread alone, which ends with the test.
            let code = unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) };
            assert_eq!(code, 0);
            missing(&[Capability::NetAdmin, Capability::NetRaw]).unwrap()
        });
        assert_eq!(lacking.join().unwrap(), [Capability::NetAdmin, Capability::NetRaw]);
    }
}
