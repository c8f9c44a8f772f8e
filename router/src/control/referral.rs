//! What a node that has as many links as it carries tells a caller: members with room.
//!
//! It travels as the reason of the connection's end, from a side that has proven the secret, and fits one packet. Whom
//! it names is dialled only by a node that knows nobody, a bounded number of them, each once.

use std::net::SocketAddr;

use meshwork_gossip::limits::MOST_REFERRED;
use meshwork_wire::{PeerId, frame};
use quinn::{ConnectionError, VarInt};
use serde::{Deserialize, Serialize};

/// Close code of a link for which there is no room.
pub(super) const ELSEWHERE: u32 = 0x21;

/// Endpoints told of each member: one of each family.
pub const MOST_REFERRED_ENDPOINTS: usize = 2;

/// [`MOST_REFERRED`] ids with [`MOST_REFERRED_ENDPOINTS`] IPv6 addresses each.
const LIMIT: usize = 512;

/// Members with room, and where they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Referral(pub Vec<(PeerId, Vec<SocketAddr>)>);

impl Referral {
    pub(super) fn close(&self, connection: &quinn::Connection) {
        connection.close(VarInt::from_u32(ELSEWHERE), &frame::encode(self));
    }

    /// Of a connection that ended so, within bounds whatever the other side wrote.
    pub(super) fn of(error: &ConnectionError) -> Option<Self> {
        let ConnectionError::ApplicationClosed(close) = error else { return None };
        if close.error_code != VarInt::from_u32(ELSEWHERE) {
            return None;
        }
        let Self(mut members) = frame::decode(&close.reason, LIMIT).unwrap_or_default();
        members.truncate(MOST_REFERRED);
        members.iter_mut().for_each(|(_, endpoints)| endpoints.truncate(MOST_REFERRED_ENDPOINTS));
        Some(Self(members))
    }
}

#[cfg(test)]
mod tests {
    use quinn::ApplicationClose;

    use super::*;

    fn ended(code: u32, reason: Vec<u8>) -> ConnectionError {
        ConnectionError::ApplicationClosed(ApplicationClose {
            error_code: VarInt::from_u32(code),
            reason: reason.into(),
        })
    }

    fn of(members: u8, endpoints: u16) -> Referral {
        let endpoint = |port| SocketAddr::from(([0x20, 1, 0xd, 0xb8, 0, 0, 0, 1], port));
        Referral((0..members).map(|number| (PeerId([number; 16]), (0..endpoints).map(endpoint).collect())).collect())
    }

    #[test]
    fn a_whole_referral_fits_and_arrives() {
        let whole = of(4, 2);
        assert!(frame::encode(&whole).len() <= LIMIT);
        assert_eq!(Referral::of(&ended(ELSEWHERE, frame::encode(&whole))), Some(whole));
    }

    #[test]
    fn what_is_too_long_or_no_referral_names_nobody_and_other_codes_are_none() {
        assert_eq!(Referral::of(&ended(ELSEWHERE, frame::encode(&of(200, 9)))), Some(Referral::default()));
        assert_eq!(Referral::of(&ended(ELSEWHERE, vec![9; 40])), Some(Referral::default()));
        assert_eq!(Referral::of(&ended(ELSEWHERE, frame::encode(&of(7, 1)))), Some(of(4, 1)));
        assert_eq!(Referral::of(&ended(0, frame::encode(&of(1, 1)))), None);
    }
}
