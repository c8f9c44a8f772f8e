//! Takes a lab away, whoever made it and however it ended.
//!
//! What belongs to a lab is told by names alone: namespaces by their prefix, processes by the namespace they live in or by a
//! pid file whose process still has the lab's directory in its command line, files by the directory. Nothing else is
//! touched, and a lab that is not there is taken away with success.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use meshwork_sys::netns::{self, NetNs, NetNsId};
use meshwork_sys::process::{self, Signal};

use crate::error::{Error, Result};
use crate::topology::{LabName, NAMESPACE_PREFIX, ROOT};
use crate::volume;

/// A killed process is gone in milliseconds unless the kernel is busy closing what it held.
const END_DEADLINE: Duration = Duration::from_secs(10);
/// Name of the file with a daemon's process id, in its host's directory.
pub(crate) const PID_FILE: &str = "pid";

/// Ends the lab's processes, then removes its namespaces, mounts and files.
///
/// # Errors
/// When a process does not end or the kernel refuses to let something go.
pub fn clear(lab: &LabName) -> Result<()> {
    end_processes(lab)?;
    for name in namespaces(lab)? {
        netns::remove(&name)?;
    }
    volume::unmount(lab)?;
    match fs::remove_dir_all(lab.directory()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", lab.directory().display()))(error))
        }
        _ => Ok(()),
    }
}

/// Names of all labs that left a namespace or a directory.
///
/// # Errors
/// When neither can be listed.
pub fn labs() -> Result<BTreeSet<LabName>> {
    let mut found = BTreeSet::new();
    for name in netns::names()? {
        let lab = name.strip_prefix(NAMESPACE_PREFIX).and_then(|rest| rest.split('-').next());
        found.extend(lab.and_then(|lab| LabName::new(lab).ok()));
    }
    if let Ok(directories) = fs::read_dir(ROOT) {
        let names = directories.flatten().filter_map(|entry| LabName::new(entry.file_name().to_str()?).ok());
        found.extend(names);
    }
    Ok(found)
}

/// Namespaces of a lab, sorted by name.
pub(crate) fn namespaces(lab: &LabName) -> Result<Vec<String>> {
    let prefix = lab.namespace_prefix();
    Ok(netns::names()?.into_iter().filter(|name| name.starts_with(&prefix)).collect())
}

/// Ends what runs in the lab's namespaces, so that nothing that was started there goes on.
pub(crate) fn end_processes(lab: &LabName) -> Result<()> {
    end_all(|| processes_in(&namespaces(lab)?, &recorded_daemons(lab)))
}

/// Ends what runs in these namespaces.
pub(crate) fn end_processes_in(namespaces: &[String]) -> Result<()> {
    end_all(|| processes_in(namespaces, &BTreeSet::new()))
}

fn end_all(living: impl Fn() -> Result<BTreeSet<u32>>) -> Result<()> {
    let started = Instant::now();
    loop {
        let pids = living()?;
        if pids.is_empty() {
            return Ok(());
        }
        for &pid in &pids {
            end(pid)?;
        }
        if started.elapsed() > END_DEADLINE {
            let missing = format!("processes {pids:?} do not end");
            return Err(Error::TimedOut { what: "end of a lab's processes".into(), deadline: END_DEADLINE, missing });
        }
        // Not `eventually`: a lab is cleared after a signal, too.
        thread::sleep(Duration::from_millis(5));
    }
}

fn end(pid: u32) -> Result<()> {
    match process::signal(pid, Signal::Kill) {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(()),
    }
}

fn processes_in(namespaces: &[String], recorded: &BTreeSet<u32>) -> Result<BTreeSet<u32>> {
    let inside: BTreeSet<NetNsId> = namespaces
        .iter()
        .filter_map(|name| NetNs::open(netns::path(name)).and_then(|namespace| namespace.identity()).ok())
        .collect();
    let all = fs::read_dir("/proc").map_err(Error::io("list processes"))?;
    let all = all.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let ours = all.filter(|&pid| pid != std::process::id() && !has_ended(pid));
    Ok(ours.filter(|&pid| recorded.contains(&pid) || lives_in(pid, &inside)).collect())
}

fn lives_in(pid: u32, namespaces: &BTreeSet<NetNsId>) -> bool {
    let namespace = NetNs::open(format!("/proc/{pid}/ns/net")).and_then(|namespace| namespace.identity());
    namespace.is_ok_and(|namespace| namespaces.contains(&namespace))
}

/// A zombie holds nothing any more and only waits for its parent to look, once its last other thread is gone.
fn has_ended(pid: u32) -> bool {
    let states = thread_states(pid);
    states.len() <= 1 && states.iter().all(|state| matches!(state, 'Z' | 'X'))
}

/// Whether every thread of a process has been stopped by a signal.
pub(crate) fn stands_still(pid: u32) -> bool {
    let states = thread_states(pid);
    !states.is_empty() && states.iter().all(|state| *state == 'T')
}

/// The letter that the kernel has for what each thread does; none of a process that is gone.
fn thread_states(pid: u32) -> Vec<char> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let stats = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
    // The name before the state may hold spaces and parentheses.
    stats.filter_map(|stat| stat.rsplit_once(')')?.1.trim_start().chars().next()).collect()
}

/// Daemons whose namespace has lost its name. The number in the file may meanwhile be someone else's: the command line
/// decides.
fn recorded_daemons(lab: &LabName) -> BTreeSet<u32> {
    let Ok(hosts) = fs::read_dir(lab.directory()) else { return BTreeSet::new() };
    hosts.flatten().filter_map(|host| recorded_process(&host.path(), PID_FILE, lab)).collect()
}

/// The process that a host's pid file speaks of, if it lives and is the lab's.
pub(crate) fn recorded_process(host_directory: &Path, pid_file: &str, lab: &LabName) -> Option<u32> {
    let pid = fs::read_to_string(host_directory.join(pid_file)).ok()?.trim().parse().ok()?;
    let command_line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mark = format!("{}/", lab.directory().display());
    (!has_ended(pid) && crate::pcap::contains(&command_line, mark.as_bytes())).then_some(pid)
}
