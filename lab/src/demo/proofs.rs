//! The claims, one by one.

use std::time::{Duration, Instant};

use crate::demo::report::{Finding, Report};
use crate::error::{Error, Result};
use crate::iperf::Iperf;
use crate::lab::Lab;
use crate::pcap::Packet;
use crate::ping::Ping;
use crate::pod::Pod;
use crate::topology::is_overlay;
use crate::wait::{Look, eventually};

/// What pods say to each other in the capture, and what the hosts say in clear.
const POD_MARKER: &[u8] = b"said-by-a-pod";
const HOST_MARKER: &[u8] = b"said-in-clear";
/// UDP port of control and encrypted data, and of the clear path that is not allowed here.
const ENCRYPTED_PORT: u16 = 6783;
const CLEAR_PORT: u16 = 6784;
const CAPTURE_DEADLINE: Duration = Duration::from_secs(10);
/// Echo requests of each pod and family while the wire is watched.
const REQUESTS: u32 = 20;
const IPERF_SECONDS: u32 = 3;
/// Until every path of a killed and restarted daemon is back.
const RESTART_BAR: Duration = Duration::from_secs(3);
/// Beyond the bar, to tell how long it took when it took longer.
const RESTART_DEADLINE: Duration = Duration::from_secs(30);

/// Every pod reaches every other in both families.
pub(super) fn all_pairs(pods: &[Pod], report: &mut Report) -> Result<()> {
    let silent = report.step("pinging between all pods, in both families", || silent_pairs(pods, |_, _| true))?;
    let asked = pods.len() * (pods.len() - 1) * 2;
    let found = match silent.first() {
        None => format!("{asked} of {asked} pairs answer"),
        Some(first) => format!("{} of {asked} pairs are silent, such as {first}", silent.len()),
    };
    report.add(Finding::proven("all pods reach all pods", silent.is_empty(), found, "every pair, IPv4 and IPv6"));
    Ok(())
}

/// Pairs that do not answer, among those that `concerns`.
fn silent_pairs(pods: &[Pod], concerns: impl Fn(&Pod, &Pod) -> bool) -> Result<Vec<String>> {
    let mut silent = Vec::new();
    for from in pods {
        let others = pods.iter().filter(|to| to.sandbox() != from.sandbox() && concerns(from, to));
        for address in others.flat_map(|to| [to.ipv4(), to.ipv6()]) {
            let address = address?;
            if from.ping(address)?.received == 0 {
                silent.push(format!("{} to {address}", from.sandbox().id));
            }
        }
    }
    Ok(silent)
}

/// TCP between pods of two hosts.
pub(super) fn throughput(lab: &Lab, pods: &[Pod], report: &mut Report) -> Result<()> {
    let (from, to) = across(pods)?;
    let measured = report.step("sending TCP between pods of h1 and h3 for 3 s", || {
        let _server = Iperf::serve(to.namespace(), &lab.host(3).directory().join("iperf3.log"))?;
        Iperf::send(from.namespace(), to.ipv4()?, IPERF_SECONDS)
    })?;
    let gigabits = measured.bits_per_second / 1e9;
    let found = format!("{gigabits:.2} Gbit/s");
    report.add(Finding::proven("encrypted TCP, one stream", gigabits > 0.0, found, "see make bench"));
    Ok(())
}

/// The wire, while pods talk: none of their bytes in clear, and a clear packet of the hosts to prove that it would be seen.
pub(super) fn nothing_clear(lab: &Lab, pods: &[Pod], report: &mut Report) -> Result<()> {
    let (packets, answered) = report.step("watching the fabric while pods talk", || watch(lab, pods))?;
    let count = |is: &dyn Fn(&Packet) -> bool| packets.iter().filter(|packet| is(packet)).count();
    let of_port = |packet: &Packet, port: u16| {
        packet.ip.and_then(|ip| ip.udp_ports).is_some_and(|(from, to)| from == port || to == port)
    };
    let clear =
        count(&|packet| packet.contains(POD_MARKER) || packet.has_address(is_overlay) || of_port(packet, CLEAR_PORT));
    let sealed = count(&|packet| of_port(packet, ENCRYPTED_PORT));
    let twin = count(&|packet| packet.contains(HOST_MARKER));

    let asked = 2 * usize::try_from(REQUESTS).unwrap_or(usize::MAX);
    let found = format!("{clear} of {} packets; {answered} of {asked} answers in {sealed} sealed ones", packets.len());
    // Each answer is at least one sealed packet, and there was a question before it.
    let holds = clear == 0 && answered == asked && sealed >= 2 * answered;
    report.add(Finding::proven("pods' bytes in clear on the fabric", holds, found, "none"));
    let found = format!("{twin} packets");
    report.add(Finding::proven("clear packet between hosts, same capture", twin > 0, found, "is seen"));
    Ok(())
}

fn watch(lab: &Lab, pods: &[Pod]) -> Result<(Vec<Packet>, usize)> {
    let capture = lab.capture("fabric", "")?;
    let (from, to) = across(pods)?;
    let mut answered = 0;
    for address in [to.ipv4()?, to.ipv6()?] {
        let answers = Ping::to(address).count(REQUESTS).marked(POD_MARKER).run(from.namespace())?;
        answered += usize::try_from(answers.received).unwrap_or(usize::MAX);
    }
    // Sent last: when it is in the file, so is everything before it.
    Ping::to(lab.host(2).underlay()[0]).marked(HOST_MARKER).run(lab.host(1).namespace())?;
    capture.wait_for(HOST_MARKER, CAPTURE_DEADLINE)?;
    Ok((capture.stop()?, answered))
}

/// A daemon that is killed and started again has all its pods reachable soon.
pub(super) fn comes_back(lab: &Lab, pods: &[Pod], report: &mut Report) -> Result<()> {
    let killed = lab.host(2);
    let on_killed = |pod: &Pod| pod.namespace().name().starts_with(killed.namespace().name());
    let took = report.step("killing the daemon of h2 (SIGKILL) and starting it again", || {
        let started = Instant::now();
        killed.kill()?;
        killed.start()?;
        lab.wait_until_ready(RESTART_DEADLINE)?;
        eventually(RESTART_DEADLINE, "pods of h2 reachable again", || {
            let silent = silent_pairs(pods, |from, to| on_killed(from) != on_killed(to))?;
            Ok(if silent.is_empty() { Look::Done(started.elapsed()) } else { Look::Missing(silent.join(", ")) })
        })
    })?;
    report.add(Finding::within("daemon killed, all its paths back", took, RESTART_BAR));
    Ok(())
}

/// A pod of the first host and one of the last.
fn across(pods: &[Pod]) -> Result<(&Pod, &Pod)> {
    let pair = pods.first().zip(pods.last());
    pair.ok_or_else(|| Error::Unproven("there are no pods".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_fit_what_ping_repeats() {
        assert!(POD_MARKER.len() <= crate::MAX_MARKER && HOST_MARKER.len() <= crate::MAX_MARKER);
    }
}
