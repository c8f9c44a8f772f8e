//! What nodes say to each other about space, outside the replicated stores. Losing any of it only costs time.

use ipnet::Ipv4Net;
use meshwork_wire::Version;
use meshwork_wire::record::RingPart;
use serde::{Deserialize, Serialize};

use crate::RingId;

/// Most bytes of an encoded message: a gift of one part with three witnesses takes about 400.
pub const MAX_MESSAGE: usize = 4096;

/// A message between two nodes, encoded with [`meshwork_wire::frame`]. Variants and fields are only appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Asks for space that cannot wait. Repeated under the same number until it is answered.
    AskSpace {
        /// Number of the request, counted by the asker.
        request: Version,
        /// The ring that the asker knows, if any.
        ring: Option<RingId>,
        /// Power of two of the addresses wished.
        want_log2: u8,
    },
    /// Gives a part, already durable at the giver. The entry itself is also published by gossip.
    Gift {
        /// The request that it answers.
        request: Version,
        /// The addresses.
        prefix: Ipv4Net,
        /// The signed entry.
        part: RingPart,
    },
    /// Gives nothing.
    Denied {
        /// The request that it answers.
        request: Version,
        /// Why.
        denial: Denial,
    },
    /// Asks ahead of need, for what the giver will not miss. Otherwise like [`Message::AskSpace`].
    AskSpare {
        /// Number of the request, counted by the asker.
        request: Version,
        /// The ring that the asker knows, if any.
        ring: Option<RingId>,
        /// Power of two of the addresses wished.
        want_log2: u8,
    },
}

/// Why a node gives nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Denial {
    /// It has no ring itself, or may not use it yet. Asking again later helps.
    NotReady,
    /// It has nothing to spare.
    NoSpace,
    /// It belongs to another ring.
    OtherRing,
}

#[cfg(test)]
mod tests {
    use meshwork_wire::record::Gift;
    use meshwork_wire::{Incarnation, PeerId, frame};

    use super::*;

    fn hex(message: &Message) -> String {
        let bytes = frame::encode(message);
        assert_eq!(frame::decode::<Message>(&bytes, MAX_MESSAGE).as_ref(), Ok(message));
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_bytes_of_every_message_stay() {
        let request = Version { incarnation: Incarnation(3), counter: 7 };
        let ask = Message::AskSpace { request, ring: Some([0xaa; 16]), want_log2: 10 };
        insta::assert_snapshot!(hex(&ask), @"0100030701aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa0a");
        let gift = Gift { giver: PeerId([2; 16]), signature: vec![9; 4], witnesses: Vec::new() };
        let part = RingPart { ring: [0xaa; 16], epoch: 0, version: request, owner: PeerId([1; 16]), gift: Some(gift) };
        let prefix = "10.32.0.0/20".parse().unwrap();
        insta::assert_snapshot!(hex(&Message::Gift { request, prefix, part }), @"010103070a20000014aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa000307010101010101010101010101010101010102020202020202020202020202020202040909090900");
        insta::assert_snapshot!(hex(&Message::Denied { request, denial: Denial::NoSpace }), @"0102030701");
        let spare = Message::AskSpare { request, ring: None, want_log2: 10 };
        insta::assert_snapshot!(hex(&spare), @"01030307000a");
    }
}
