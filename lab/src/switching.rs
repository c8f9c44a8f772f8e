//! Moves a path between clear and sealed while datagrams flow on it, and counts what is lost.

use std::thread;
use std::time::Duration;

use meshwork_api::model::{PathKind, Paths};

use crate::error::{Error, Result};
use crate::host::Host;
use crate::iperf::{Datagrams, Iperf};
use crate::pod::Pod;
use crate::wait::{Look, eventually};

/// How long the path stays either way, so that both carry some of what flows.
const STAY: Duration = Duration::from_millis(80);
/// One move is a netlink message; a loaded machine may take its time.
const MOVE_DEADLINE: Duration = Duration::from_secs(10);

/// Sends `rate` datagrams a second for `seconds` from a pod of `host` to a pod of `peer`, meanwhile moving the path there
/// and back as often as fits: what became of them, and how many moves there were.
///
/// # Errors
/// When a move does not take place, or iperf3 does not work.
pub fn under_traffic(
    (host, peer): (&Host, &Host),
    (from, to): (&Pod, &Pod),
    rate: u64,
    seconds: u32,
) -> Result<(Datagrams, u32)> {
    let address = to.ipv4()?;
    let unread = || to.namespace().udp_counter("RcvbufErrors");
    let unread_before = unread()?;
    let _server = Iperf::serve(to.namespace(), &peer.directory().join("iperf3.log"))?;
    thread::scope(|scope| {
        let sending = scope.spawn(|| Iperf::send_datagrams(from.namespace(), address, rate, seconds));
        let mut moves = 0;
        while !sending.is_finished() {
            moves += move_there_and_back(host, peer, to)?;
        }
        let sent = sending.join().map_err(|_| Error::Unproven("the sending thread panicked".into()))?;
        let mut datagrams = sent?;
        // They came to the pod, whose reader was too slow: on a busy machine it pauses longer than its socket holds.
        datagrams.lost = datagrams.lost.saturating_sub(unread()? - unread_before);
        Ok((datagrams, moves))
    })
}

fn move_there_and_back(host: &Host, peer: &Host, to: &Pod) -> Result<u32> {
    for (verb, kind) in [("seal", PathKind::Direct), ("unseal", PathKind::Vxlan)] {
        host.meshctl(&[verb, &peer.number().to_string()])?;
        wait_for(host, peer, to, kind)?;
        thread::sleep(STAY);
    }
    Ok(2)
}

/// Waits until packets from `host` to a pod of `peer` travel by `kind`, as the kernel itself routes them.
///
/// # Errors
/// When they do not in time.
pub fn wait_for(host: &Host, peer: &Host, to: &Pod, kind: PathKind) -> Result<()> {
    let (peer, address) = (peer.number().to_string(), to.ipv4()?.to_string());
    let device = if kind == PathKind::Vxlan { "meshwork-vx" } else { "meshwork0" };
    eventually(MOVE_DEADLINE, &format!("path of {} to {peer} by {kind:?}", host.number()), || {
        let path = host.get::<Paths>("/v1/paths")?.paths.into_iter().find(|path| path.nickname == peer);
        let told = path.as_ref().is_some_and(|path| path.kind == kind && path.up);
        let route = host.exec(["ip", "route", "get", address.as_str()])?;
        let routed = route.contains(&format!("dev {device} "));
        Ok(if told && routed { Look::Done(()) } else { Look::Missing(format!("{path:?}; {route}")) })
    })
}
