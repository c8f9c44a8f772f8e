//! What the verbs of `meshlab` do.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use meshwork_lab::topology::{HostNumber, LabName};
use meshwork_lab::{Lab, Link, Nat, interrupt, say};

use crate::Change;

pub(crate) fn done(outcome: meshwork_lab::Result<()>) -> Result<ExitCode> {
    outcome?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn exit_code(proven: bool) -> ExitCode {
    if proven { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

pub(crate) fn up(hosts: u16, name: &str, behind: &[(&[String], Nat)]) -> Result<ExitCode> {
    interrupt::end_lab_on_signal(&LabName::new(name)?)?;
    let mut builder = Lab::build(name)?.hosts(hosts);
    for (host, kind) in behind.iter().flat_map(|(hosts, kind)| hosts.iter().map(move |host| (host, *kind))) {
        let number = HostNumber::parse(host).filter(|number| number.get() <= hosts);
        let number = number.with_context(|| format!("{host} is not among h1 to h{hosts}"))?;
        builder = builder.nat(number.get(), kind);
    }
    let lab = builder.up()?;
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

pub(crate) fn link(lab: &str, host: &str, change: &Change) -> Result<ExitCode> {
    let lab = Lab::open(lab)?;
    let host = lab.host_named(host)?.number();
    let before = lab.link_of(host.get())?;
    let link = changed(before.clone(), change);
    if link != before || change.clean {
        lab.link(host.get(), &link)?;
    }
    say!("{host}  {link}");
    Ok(ExitCode::SUCCESS)
}

fn changed(before: Link, change: &Change) -> Link {
    let before = if change.clean { Link::default() } else { before };
    Link {
        delay: change.delay.map_or(before.delay, Duration::from_millis),
        loss: change.loss.unwrap_or(before.loss),
        reorder: change.reorder.unwrap_or(before.reorder),
        duplicate: change.duplicate.unwrap_or(before.duplicate),
        rate: change.rate.or(before.rate),
        mtu: change.mtu.or(before.mtu),
        black_hole: change.black_hole.or(before.black_hole),
        seed: change.seed.unwrap_or(before.seed),
    }
}
