//! An eventfd that ends another thread's wait.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Ends the waits of the threads that hold it. Once rung it stays rung: it is for stopping, not for counting.
#[derive(Debug)]
pub struct Wake(OwnedFd);

/// What ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// The descriptor has something to read, or an error to fetch.
    Readable,
    /// [`Wake::ring`] was called.
    Rung,
    /// The time is over.
    TimedOut,
}

impl Wake {
    /// A wake that has not been rung.
    pub fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes no pointers; the result is checked before use.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Ends the current and all later waits. A full counter is already rung, so the result does not matter.
    pub fn ring(&self) {
        let one = 1_u64;
        // SAFETY: eight readable bytes are passed, as eventfd asks.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    /// Waits until `fd` is readable, this is rung or `timeout` is over (`None`: no limit).
    pub fn wait_readable(&self, fd: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<Ready> {
        self.poll(&mut [poll_entry(fd), poll_entry(self.0.as_fd())], timeout)
    }

    /// The same for any of several descriptors.
    pub fn wait_any_readable(&self, fds: &[BorrowedFd<'_>], timeout: Option<Duration>) -> io::Result<Ready> {
        let own = poll_entry(self.0.as_fd());
        let mut entries: Vec<_> = fds.iter().map(|fd| poll_entry(*fd)).chain([own]).collect();
        self.poll(&mut entries, timeout)
    }

    /// The last entry is this one's own.
    fn poll(&self, entries: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<Ready> {
        let milliseconds =
            timeout.map_or(-1, |limit| i32::try_from(limit.as_millis().saturating_add(1)).unwrap_or(i32::MAX));
        // SAFETY: the entries are valid for their number during the call.
        let count = unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, milliseconds) };
        if count < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(Ready::TimedOut) } else { Err(error) };
        }
        let rung = entries.last().is_some_and(|own| own.revents != 0);
        Ok(match (rung, count) {
            (true, _) => Ready::Rung,
            (false, 0) => Ready::TimedOut,
            (false, _) => Ready::Readable,
        })
    }
}

fn poll_entry(fd: BorrowedFd<'_>) -> libc::pollfd {
    libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rung_wake_ends_every_wait() {
        let (wake, silent) = (Wake::new().unwrap(), Wake::new().unwrap());
        let wait = |limit| wake.wait_readable(silent.0.as_fd(), limit).unwrap();
        assert_eq!(wait(Some(Duration::ZERO)), Ready::TimedOut);
        wake.ring();
        assert_eq!(wait(None), Ready::Rung);
        assert_eq!(wait(None), Ready::Rung);
    }
}
