//! Two meshes that meet by mistake: hosts with different secrets exchange nothing but refusals.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails at that line")]

use std::time::Duration;

use meshwork_api::model::{ConnectionState, Connections, Direction, Paths, Peers, Status};
use meshwork_lab::{Host, Lab, Look, Ping, eventually, figure};

const OTHER_SECRET: &str = "7777777777777777777777777777777777777777777777777777777777777777";
const DEADLINE: Duration = Duration::from_secs(20);

#[test]
fn hosts_with_different_secrets_exchange_nothing_but_refusals() {
    let lab = Lab::build("wrongsecret").unwrap().hosts(2).secret(2, OTHER_SECRET).without_daemons().unwrap();
    let (inside, outside) = (lab.host(1), lab.host(2));
    inside.start().unwrap();
    wait_for(inside, "the seed is ready", |host| Ok(host.get::<Status>("/v1/status")?.ready));
    let pod = inside.pod("pod").unwrap();

    let capture = lab.capture("refusals", "").unwrap();
    outside.start().unwrap();
    for (host, direction) in [(inside, Direction::Inbound), (outside, Direction::Outbound)] {
        wait_for(host, "a refusal for want of the secret", |host| {
            let refused = refusals(&host.get("/v1/connections")?, direction).any(|reason| reason.contains("secret"));
            Ok(refused && host.get::<Status>("/v1/status")?.drops.get("bad_secret").is_some_and(|count| *count > 0))
        });
    }

    for host in [inside, outside] {
        let connections: Connections = host.get("/v1/connections").unwrap();
        let established = |state| state == ConnectionState::Established;
        assert!(!connections.connections.iter().any(|link| established(link.state)), "{connections:?}");
        assert_eq!(host.get::<Peers>("/v1/peers").unwrap().peers.len(), 1, "nobody but itself");
        assert!(host.get::<Paths>("/v1/paths").unwrap().paths.is_empty());
    }
    assert!(!outside.get::<Status>("/v1/status").unwrap().ready, "no ring is heard");
    // The seed's pod goes on, and is no business of the stranger.
    let to = pod.ipv4().unwrap();
    assert_eq!(Ping::to(to).run(inside.namespace()).unwrap().received, 1);
    assert_eq!(Ping::to(to).run(outside.namespace()).map_or(0, |answers| answers.received), 0);

    let packets = capture.stop().unwrap();
    let strange = |packet: &&meshwork_lab::pcap::Packet| {
        packet
            .ip
            .is_some_and(|ip| ip.protocol == 17 && ip.udp_ports.is_none_or(|ports| ports.0 != 6783 && ports.1 != 6783))
    };
    assert_eq!(packets.iter().find(strange), None, "nothing but attempts on the one port");
    let attempt = |packet: &meshwork_lab::pcap::Packet| packet.ip.is_some_and(|ip| ip.udp_ports == Some((6783, 6783)));
    assert!(packets.iter().any(attempt), "the capture shows the attempts");
    let refused = [inside, outside].map(|host| host.get::<Status>("/v1/status").unwrap().drops["bad_secret"]);
    figure(format_args!("{} connections refused for want of the secret, as both sides count", refused[0] + refused[1]));
    figure(format_args!("0 of {} captured packets were anything but attempts", packets.len()));
}

fn refusals(connections: &Connections, direction: Direction) -> impl Iterator<Item = &str> {
    let failed = |state| matches!(state, ConnectionState::Retrying | ConnectionState::Failed);
    let of = connections.connections.iter().filter(move |link| link.direction == direction && failed(link.state));
    of.map(|link| link.reason.as_str())
}

fn wait_for(host: &Host, what: &str, holds: impl Fn(&Host) -> meshwork_lab::Result<bool>) {
    eventually(DEADLINE, what, || {
        Ok(match holds(host) {
            Ok(true) => Look::Done(()),
            Ok(false) => Look::Missing(host.log_tail()),
            Err(error) => Look::Missing(error.to_string()),
        })
    })
    .unwrap();
}
