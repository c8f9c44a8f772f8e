//! Members as people name them: by nickname, by id, or by the beginning of it that tables show.

use std::collections::BTreeSet;

use meshwork_wire::PeerId;

use super::Node;

/// Fewest digits of an id that stand for it: what tables show.
const SHORTEST: usize = 8;

/// Why a name does not tell whom it means.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nobody has it.
    #[error("{0} is no member")]
    Unknown(String),
    /// Several have it.
    #[error("{name} may be any of {}", among.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Ambiguous {
        /// The name.
        name: String,
        /// Who has it.
        among: Vec<PeerId>,
    },
}

impl Node {
    /// The other member of this name.
    pub(super) fn member_named(&self, name: &str) -> Result<PeerId, NameError> {
        let records = self.records();
        let members = self.gossip.members().map(|member| {
            let nickname = records.get(&member.id).map(|record| record.nickname.as_str());
            (member.id, nickname.unwrap_or_default())
        });
        resolve(name, members)
    }
}

fn resolve<'a>(name: &str, members: impl Iterator<Item = (PeerId, &'a str)>) -> Result<PeerId, NameError> {
    let (mut by_nickname, mut by_id) = (Vec::new(), Vec::new());
    for (id, nickname) in members {
        let text = id.to_string();
        if text == name {
            return Ok(id);
        }
        by_nickname.extend((nickname == name).then_some(id));
        by_id.extend((name.len() >= SHORTEST && text.starts_with(name)).then_some(id));
    }
    // Members choose their nicknames: one that looks like another's id is no reason to take it for that one.
    let found = by_nickname.into_iter().chain(by_id).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>();
    match found.as_slice() {
        [] => Err(NameError::Unknown(name.to_owned())),
        [id] => Ok(*id),
        _ => Err(NameError::Ambiguous { name: name.to_owned(), among: found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_one_member_or_says_why_not() {
        let ids = [[0x11; 16], [0x22; 16], [0x23; 16]].map(PeerId);
        let twin = PeerId([[0x11; 8], [0x99; 8]].concat().try_into().expect("16 bytes"));
        let all = [(ids[0], "a"), (ids[1], "b"), (ids[2], "b"), (twin, "22222222")];
        let named = |name: &str| resolve(name, all.into_iter());
        assert_eq!(named("a"), Ok(ids[0]));
        assert_eq!(named(&ids[0].to_string()), Ok(ids[0]), "a whole id is one, whatever else begins so");
        assert_eq!(named("23232323"), Ok(ids[2]));
        assert!(matches!(named("22222222"), Err(NameError::Ambiguous { .. })), "a nickname may look like an id");
        assert!(matches!(named("b"), Err(NameError::Ambiguous { among, .. }) if among == ids[1..]));
        assert!(matches!(named("11111111"), Err(NameError::Ambiguous { .. })));
        for unknown in ["c", "2323", ""] {
            assert_eq!(named(unknown), Err(NameError::Unknown(unknown.to_owned())));
        }
    }
}
