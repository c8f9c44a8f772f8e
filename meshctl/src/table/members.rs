//! `meshctl peers`.

use meshwork_api::model::{Peer, Peers};

use super::{Width, columns, list, peer, word};
use crate::units::age;

/// One line per member, this node first.
pub(crate) fn peers(answer: &Peers, width: Width) -> String {
    let common = |member: &Peer| {
        let mark = if member.is_self { " (self)" } else { "" };
        [
            format!("{}{mark}", peer(width, &member.id, &member.nickname)),
            word(&member.state),
            age(member.age_s),
            list(&member.overlay),
            list(&member.endpoints),
        ]
    };
    let members = answer.peers.iter();
    match width {
        Width::Normal => columns(["PEER", "STATE", "AGE", "OVERLAY", "ENDPOINTS"], members.map(common)),
        Width::Wide => columns(
            ["PEER", "STATE", "AGE", "OVERLAY", "ENDPOINTS", "CLUSTER", "INCARNATION", "VERSION"],
            members.map(|member| {
                let [name, state, age, overlay, endpoints] = common(member);
                let incarnation = member.incarnation.to_string();
                [name, state, age, overlay, endpoints, member.cluster.clone(), incarnation, member.version.clone()]
            }),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::samples;

    #[test]
    fn members_are_listed_with_state_and_age() {
        insta::assert_snapshot!(peers(&samples::peers(), Width::Normal));
    }

    #[test]
    fn wide_members_show_whole_ids_and_versions() {
        insta::assert_snapshot!(peers(&samples::peers(), Width::Wide));
    }
}
