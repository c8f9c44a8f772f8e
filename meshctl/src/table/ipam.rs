//! `meshctl ipam`.

use meshwork_api::model::{Ipam, IpamPeer, Lease, PeerState};

use super::{Width, columns, list, peer, word};
use crate::units::{percent, plain};

/// The state, then one line per owner, then what this node handed out.
pub(crate) fn ipam(answer: &Ipam, width: Width) -> String {
    let summary = &answer.summary;
    let reason = if summary.reason.is_empty() { String::new() } else { format!(" ({})", plain(&summary.reason)) };
    let mut text = format!("{}{reason}, range {}\n", word(&summary.state), list(&summary.range));
    if !answer.peers.is_empty() {
        text.push('\n');
        text.push_str(&owners(answer, width));
    }
    if !answer.leases.is_empty() {
        text.push('\n');
        text.push_str(&leases(&answer.leases, width));
    }
    text
}

fn owners(answer: &Ipam, width: Width) -> String {
    columns(
        ["PEER", "IPS", "SHARE", "ACTIVE", "STATE", "PARTS"],
        answer.peers.iter().enumerate().map(|(index, owner)| {
            // Only this node, which stands first, knows what it handed out.
            let active = if index == 0 { answer.summary.allocated.to_string() } else { String::new() };
            [
                peer(width, &owner.id, &owner.nickname),
                owner.owned.to_string(),
                percent(owner.share),
                active,
                reachability(owner),
                list(&owner.parts),
            ]
        }),
    )
}

fn reachability(owner: &IpamPeer) -> String {
    match owner.state {
        PeerState::Dead => "dead - unreachable!".to_owned(),
        state => word(&state),
    }
}

fn leases(leases: &[Lease], width: Width) -> String {
    columns(
        ["SANDBOX", "INTERFACE", "ADDRESSES", "POD", "LINK", "ROUTED"],
        leases.iter().map(|lease| {
            let pod = &lease.pod;
            [
                sandbox(&lease.sandbox, width),
                lease.interface.clone(),
                list(&lease.addresses),
                if pod.name.is_empty() { String::new() } else { format!("{}/{}", pod.namespace, pod.name) },
                if lease.address_only { "another plugin's".to_owned() } else { lease.host_interface.clone() },
                if lease.routed { "yes" } else { "no" }.to_owned(),
            ]
        }),
    )
}

/// Runtimes use 64 hex digits, of which people know the first twelve.
fn sandbox(id: &str, width: Width) -> String {
    let runtime = id.len() == 64 && id.bytes().all(|digit| digit.is_ascii_hexdigit());
    if runtime && width == Width::Normal { id.chars().take(12).collect() } else { id.to_owned() }
}

#[cfg(test)]
mod tests {
    use meshwork_api::model::{IpamState, IpamSummary};

    use super::*;
    use crate::table::samples;

    #[test]
    fn owners_and_leases_are_listed() {
        insta::assert_snapshot!(ipam(&samples::ipam(), Width::Normal));
    }

    #[test]
    fn waiting_states_why() {
        let summary = IpamSummary {
            state: IpamState::Waiting,
            reason: "no ring heard, h2 is missing".to_owned(),
            range: vec!["10.32.0.0/12".parse().unwrap()],
            owned: 0,
            allocated: 0,
        };
        let text = ipam(&Ipam { api: 1, summary, peers: vec![], leases: vec![] }, Width::Normal);
        assert_eq!(text, "waiting (no ring heard, h2 is missing), range 10.32.0.0/12\n");
    }
}
