//! Disks of hosts: state directories that are kept, put back, and put into another host.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::host::Host;
use crate::remains;
use crate::wait::{Look, eventually};

/// A thread stops at its next way out of the kernel, which a slow disk delays.
const FREEZE_DEADLINE: Duration = Duration::from_secs(10);

/// A state directory as it was at one moment. It lives as long as the lab.
#[derive(Debug, Clone)]
pub struct Snapshot {
    directory: PathBuf,
}

impl Host {
    /// Keeps the state directory as it is now. A running daemon stands still meanwhile, so the copy is what a power cut
    /// would leave.
    ///
    /// # Errors
    /// When it cannot be read, or the daemon does not stand still.
    pub fn snapshot(&self) -> Result<Snapshot> {
        let directory = self.next_snapshot()?;
        let running = self.daemon_id().filter(|&pid| !remains::stands_still(pid));
        if let Some(pid) = running {
            self.pause()?;
            eventually(FREEZE_DEADLINE, &format!("meshd of {} standing still", self.number()), || {
                let still = remains::stands_still(pid);
                Ok(if still { Look::Done(()) } else { Look::Missing("a thread still runs".into()) })
            })?;
        }
        let copied = copy(&self.state(), &directory);
        // Whatever came of the copy, the daemon goes on.
        running.map_or(Ok(()), |_| self.resume())?;
        copied?;
        Ok(Snapshot { directory })
    }

    /// Puts a snapshot in place of the state directory: an old one of this host, or one of another host, whose clone it
    /// becomes. The daemon must not run.
    ///
    /// # Errors
    /// When the daemon runs, or the directory cannot be replaced.
    pub fn restore(&self, snapshot: &Snapshot) -> Result<()> {
        if self.daemon_id().is_some() {
            return Err(Error::Unproven(format!("meshd of {} runs; stop it before its disk changes", self.number())));
        }
        let state = self.state();
        if state.exists() {
            fs::remove_dir_all(&state).map_err(Error::io(format!("remove {}", state.display())))?;
        }
        copy(&snapshot.directory, &state)
    }

    fn next_snapshot(&self) -> Result<PathBuf> {
        let all = self.directory().join("snapshots");
        fs::create_dir_all(&all).map_err(Error::io(format!("make {}", all.display())))?;
        let taken = fs::read_dir(&all).map_err(Error::io(format!("list {}", all.display())))?.count();
        Ok(all.join(taken.to_string()))
    }
}

/// Copies a directory with the rights of everything in it: secrets stay closed.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let failed = || Error::io(format!("copy {} to {}", from.display(), to.display()));
    fs::create_dir(to).map_err(failed())?;
    let rights = fs::metadata(from).map_err(failed())?.permissions();
    fs::set_permissions(to, rights).map_err(failed())?;
    for entry in fs::read_dir(from).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        let target = to.join(entry.file_name());
        match entry.file_type().map_err(failed())?.is_dir() {
            true => copy(&entry.path(), &target)?,
            false => drop(fs::copy(entry.path(), &target).map_err(failed())?),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_copy_has_everything_with_its_rights() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        fs::create_dir_all(from.join("deep")).unwrap();
        fs::write(from.join("deep/secret"), "hush").unwrap();
        fs::set_permissions(from.join("deep"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::set_permissions(from.join("deep/secret"), fs::Permissions::from_mode(0o600)).unwrap();
        copy(&from, &to).unwrap();
        let mode = |path: &str| fs::metadata(to.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("deep"), mode("deep/secret")), (0o700, 0o600));
        assert_eq!(fs::read_to_string(to.join("deep/secret")).unwrap(), "hush");
        assert!(copy(&from, &to).is_err(), "what is there is not mixed with what comes");
    }
}
