//! `make demo`: three hosts and two pods each, from nothing to proven in one go.
//!
//! Every claim is checked by a tool that is not ours (`ping`, `iperf3`, `tcpdump`) and held against its bar. The lab is
//! taken away at the end, also after Ctrl-C or a failure, unless it is to be kept.

mod proofs;
mod report;

use std::time::{Duration, Instant};

use crate::demo::report::{Finding, Report};
use crate::error::Result;
use crate::interrupt;
use crate::lab::Lab;
use crate::pod::Pod;
use crate::say;
use crate::topology::LabName;

/// Name of the demo's lab.
const NAME: &str = "demo";
const HOSTS: u16 = 3;
const PODS_PER_HOST: u16 = 2;
/// Attached one after the other for the figure, then removed.
const EXTRA_PODS: usize = 10;
/// Bars of the first mesh: what people notice when they wait for it.
const FORM_BAR: Duration = Duration::from_secs(2);
const ATTACH_BAR: Duration = Duration::from_millis(50);

/// Tells the story; whether everything held. With `keep` the lab is left running.
///
/// # Errors
/// When the lab itself cannot be made or taken away, or a signal arrived.
pub fn run(keep: bool) -> Result<bool> {
    interrupt::end_lab_on_signal(&LabName::new(NAME)?)?;
    let mut report = Report::new();
    let mut lab =
        report.step("making a fabric and three hosts", || Lab::build(NAME)?.hosts(HOSTS).without_daemons())?;
    let ended = tell(&mut lab, &mut report);
    let holds = report.conclude(&ended);
    interrupt::check()?;
    if keep {
        say!("{}", KEPT.trim_start());
        lab.leave_running();
    } else {
        lab.down()?;
    }
    Ok(holds)
}

const KEPT: &str = "
The lab is left running. Look around:
  meshlab ls
  meshlab exec h1 --name demo -- ip route
  meshlab exec h1/a --name demo -- ip address
  meshctl --socket /run/meshlab/demo/h1/meshd.sock status
and take it away with:
  meshlab down --name demo";

fn tell(lab: &mut Lab, report: &mut Report) -> Result<()> {
    report.step("starting three daemons", || lab.start())?;
    report.add(Finding::within("mesh of three formed", lab.formed_in(), FORM_BAR));
    let pods = report.step("attaching two pods to each host through mesh-cni", || attach(lab))?;
    let attaching = report.step("attaching ten more in a row, and detaching them", || attach_more(lab))?;
    report.add(Finding::within("CNI ADD, p50", attaching, ATTACH_BAR));
    proofs::all_pairs(&pods, report)?;
    proofs::throughput(lab, &pods, report)?;
    proofs::nothing_clear(lab, &pods, report)?;
    proofs::comes_back(lab, &pods, report)?;
    report.step("asking h1 what it thinks", || show(lab))
}

/// Pods `a` and `b` on every host.
fn attach(lab: &Lab) -> Result<Vec<Pod>> {
    let names: Vec<_> = ('a'..).take(PODS_PER_HOST.into()).map(String::from).collect();
    let mut pods = Vec::new();
    for host in lab.hosts() {
        for name in &names {
            let pod = host.pod(name)?;
            let addresses = pod.addresses().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            say!("    {}/{name} has {addresses} after {}", host.number(), report::shown(pod.attached_in()));
            pods.push(pod);
        }
    }
    Ok(pods)
}

/// The median of some more attachments.
fn attach_more(lab: &Lab) -> Result<Duration> {
    let pods: Result<Vec<_>> = (0..EXTRA_PODS).map(|number| lab.host(1).pod(&format!("more{number}"))).collect();
    let mut took = Vec::new();
    for pod in pods? {
        took.push(pod.attached_in());
        pod.detach()?;
    }
    took.sort_unstable();
    Ok(took.get(took.len() / 2).copied().unwrap_or_default())
}

fn show(lab: &Lab) -> Result<()> {
    for verb in ["status", "peers", "ipam"] {
        let started = Instant::now();
        let shown = lab.host(1).meshctl(&[verb])?;
        say!("\n$ meshctl {verb}   ({})\n{}", report::shown(started.elapsed()), shown.trim_end());
    }
    say!("");
    Ok(())
}
