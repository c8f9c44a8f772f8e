//! What the verbs of `meshlab` do.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use anyhow::{Context, Result};
use meshwork_lab::topology::{HostNumber, LabName};
use meshwork_lab::{Lab, interrupt, say};

pub(crate) fn done(outcome: meshwork_lab::Result<()>) -> Result<ExitCode> {
    outcome?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn exit_code(proven: bool) -> ExitCode {
    if proven { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

pub(crate) fn up(hosts: u16, name: &str) -> Result<ExitCode> {
    interrupt::end_lab_on_signal(&LabName::new(name)?)?;
    let lab = Lab::build(name)?.hosts(hosts).up()?;
    say!("lab {name}: {hosts} hosts are one mesh after {:.2} s", lab.formed_in().as_secs_f64());
    for host in lab.hosts() {
        say!("  {}  {}  {}", host.number(), host.underlay()[0], host.socket().display());
    }
    say!("take it down with: meshlab down --name {name}");
    lab.leave_running();
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn exec(lab: &str, place: &str, command: &[OsString]) -> Result<ExitCode> {
    let lab = Lab::open(lab)?;
    let (host, pod) = place.split_once('/').map_or((place, None), |(host, pod)| (host, Some(pod)));
    let host = lab.host_named(host)?;
    let namespace = match pod {
        Some(pod) => host.pod_namespace(pod)?,
        None => host.namespace().clone(),
    };
    let (program, arguments) = command.split_first().context("no command was given")?;
    let mut inside = namespace.command(program)?;
    // Only returns when the program cannot be started.
    let error = inside.args(arguments).stdin(std::process::Stdio::inherit()).exec();
    Err(error).with_context(|| format!("cannot run {}", program.to_string_lossy()))
}

pub(crate) fn pod(lab: &str, host: &str, name: Option<String>) -> Result<ExitCode> {
    let lab = Lab::open(lab)?;
    let host = lab.host_named(host)?;
    let taken = host.pod_names()?;
    let free = || (1_u32..).map(|number| format!("p{number}")).find(|name| !taken.contains(name)).unwrap_or_default();
    let pod = host.pod(&name.unwrap_or_else(free))?;
    let addresses: Vec<_> = pod.addresses().iter().map(ToString::to_string).collect();
    say!("{}  {}  {}", pod.name(), pod.namespace().name(), addresses.join("  "));
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn cut(lab: &str, one: &str, other: &str, one_way: bool) -> Result<ExitCode> {
    let lab = Lab::open(lab)?;
    let (one, other) = (lab.host_named(one)?.number(), lab.host_named(other)?.number());
    done(if one_way { lab.fabric().cut_one_way(one, other) } else { lab.fabric().cut(one, other) })
}

pub(crate) fn partition(lab: &str, groups: &[String]) -> Result<ExitCode> {
    let lab = Lab::open(lab)?;
    let numbers = |group: &String| group.split(',').map(|host| Ok(lab.host_named(host)?.number())).collect();
    let groups: Vec<Vec<HostNumber>> = groups.iter().map(numbers).collect::<meshwork_lab::Result<_>>()?;
    done(lab.fabric().partition(&groups))
}
