//! `meshctl connections` and `meshctl paths`.

use meshwork_api::model::{Connection, Connections, Direction, Path, PathKind, Paths};

use super::{Width, columns, list, peer, word};
use crate::units::{age, bytes, percent, round_trip};

/// One line per control link or target: direction, address and state first, as `weave status connections` had them.
pub(crate) fn connections(answer: &Connections, width: Width) -> String {
    columns(
        ["", "ADDRESS", "STATE", "PEER", "RTT", "AGE", "REASON"],
        answer.connections.iter().map(|connection| {
            let name = connection.peer.as_ref().map(|id| peer(width, id, &connection.nickname));
            [
                arrow(connection.direction).to_owned(),
                connection.address.clone(),
                word(&connection.state),
                name.unwrap_or_else(|| connection.nickname.clone()),
                connection.rtt_us.map(round_trip).unwrap_or_default(),
                age(connection.age_s),
                reason(connection),
            ]
        }),
    )
}

/// `->` was dialled from here, `<-` from there.
fn arrow(direction: Direction) -> &'static str {
    match direction {
        Direction::Outbound => "->",
        Direction::Inbound => "<-",
    }
}

fn reason(connection: &Connection) -> String {
    match connection.retry_in_s {
        Some(seconds) => format!("{}, retry: {}", connection.reason, age(seconds)),
        None => connection.reason.clone(),
    }
}

/// One line per other member: what carries its packets, and how well.
pub(crate) fn paths(answer: &Paths, width: Width) -> String {
    let common = |path: &Path| {
        [
            peer(width, &path.peer, &path.nickname),
            route(path, width),
            if path.up { "up" } else { "down" }.to_owned(),
            if path.encrypted { "encrypted" } else { "clear" }.to_owned(),
            path.mtu.to_string(),
            path.rtt_us.map(round_trip).unwrap_or_default(),
            path.loss.map(percent).unwrap_or_default(),
        ]
    };
    let paths = answer.paths.iter();
    match width {
        Width::Normal => columns(
            ["PEER", "PATH", "STATE", "PRIVACY", "MTU", "RTT", "LOSS", "REASON"],
            paths.map(|path| {
                let [peer, route, state, privacy, mtu, rtt, loss] = common(path);
                [peer, route, state, privacy, mtu, rtt, loss, path.reason.clone()]
            }),
        ),
        Width::Wide => columns(
            [
                "PEER",
                "PATH",
                "STATE",
                "PRIVACY",
                "MTU",
                "RTT",
                "LOSS",
                "CIPHER",
                "HANDSHAKE",
                "SENT",
                "RECEIVED",
                "REASON",
            ],
            paths.map(|path| {
                let [peer, route, state, privacy, mtu, rtt, loss] = common(path);
                let cipher = path.cipher.clone().unwrap_or_default();
                let handshake = path.handshake_age_s.map(age).unwrap_or_default();
                let (sent, received) = (bytes(path.sent_bytes), bytes(path.received_bytes));
                [peer, route, state, privacy, mtu, rtt, loss, cipher, handshake, sent, received, path.reason.clone()]
            }),
        ),
    }
}

/// `direct 203.0.113.5:6783`, `vxlan 203.0.113.5:6784`, `relay via a1b2c3d4`.
fn route(path: &Path, width: Width) -> String {
    let kind = word(&path.kind);
    match (path.kind, path.endpoint) {
        (PathKind::Relay, _) => format!("{kind} via {}", list(path.via.iter().map(|id| peer(width, id, "")))),
        (_, Some(endpoint)) => format!("{kind} {endpoint}"),
        (_, None) => kind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::samples;

    #[test]
    fn connections_show_direction_state_and_the_next_attempt() {
        insta::assert_snapshot!(connections(&samples::connections(), Width::Normal));
    }

    #[test]
    fn paths_show_what_carries_packets_and_why() {
        insta::assert_snapshot!(paths(&samples::paths(), Width::Normal));
    }

    #[test]
    fn wide_paths_show_ciphers_and_traffic() {
        insta::assert_snapshot!(paths(&samples::paths(), Width::Wide));
    }

    #[test]
    fn no_connections_leave_the_header() {
        let none = Connections { api: 1, connections: vec![] };
        assert_eq!(connections(&none, Width::Normal).lines().count(), 1);
    }
}
