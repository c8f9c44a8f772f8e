//! The control group above a story's sandboxes: as under a kubelet, the runtime makes groups in it, and who named it takes
//! it away.
//!
//! A container that is killed leaves its groups, since they are no process's. So all below the name goes, in every
//! hierarchy, however the story ends; and what an earlier run could not take away goes before this one begins.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use meshwork_lab::{Look, eventually};

/// A group can be removed once the kernel is done with the last process in it.
const EMPTIED: Duration = Duration::from_secs(20);

/// All groups of one name, one in each hierarchy.
#[derive(Debug)]
pub(crate) struct Groups {
    name: String,
}

impl Groups {
    pub(crate) fn new(name: &str) -> Self {
        let groups = Self { name: name.to_owned() };
        groups.remove().unwrap();
        groups
    }

    /// As a runtime is told it.
    pub(crate) fn path(&self) -> String {
        format!("/{}", self.name)
    }

    /// Those of sandboxes and containers.
    pub(crate) fn inner(&self) -> Vec<PathBuf> {
        self.tops().iter().flat_map(|top| below(top)).collect()
    }

    fn tops(&self) -> Vec<PathBuf> {
        let tops = hierarchies().into_iter().map(|hierarchy| hierarchy.join(&self.name));
        tops.filter(|group| group.is_dir()).collect()
    }

    fn remove(&self) -> meshwork_lab::Result<()> {
        eventually(EMPTIED, &format!("end of the control groups {}", self.name), || {
            let tops = self.tops();
            for group in tops.iter().flat_map(|top| below(top)).chain(tops.iter().cloned()) {
                // Whether it was refused is seen below.
                let _ = fs::remove_dir(group);
            }
            let left = self.tops();
            Ok(if left.is_empty() { Look::Done(()) } else { Look::Missing(format!("{left:?} have processes")) })
        })
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        match self.remove() {
            Err(error) if thread::panicking() => eprintln!("{error}"),
            other => other.unwrap(),
        }
    }
}

/// Where the kernel shows control groups: one tree of version 2, or several of version 1, or both. See proc(5) for the fields.
fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let groups = mounts.lines().filter(|line| line.contains(" - cgroup ") || line.contains(" - cgroup2 "));
    groups.filter_map(|line| line.split(' ').nth(4).map(PathBuf::from)).collect()
}

/// Groups in a group, inner ones first.
fn below(group: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    let groups = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path());
    groups.flat_map(|group| below(&group).into_iter().chain([group])).collect()
}
