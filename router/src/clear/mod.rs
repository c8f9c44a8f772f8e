//! The clear path: kernel VXLAN to peers for which both sides allow it, used only while it is proven.
//!
//! - [`rule`] says between which underlay addresses of two nodes clear text is allowed; both sides compute the same
//! - [`paths`] decides, without IO and clock, when a peer's clear path is proven and when it no longer is
//! - [`sealing`] takes peers off it that the operator wants sealed
//! - [`probe`] is the form of the questions and answers that go through the VXLAN device itself
//!
//! Invariants: a path is used in clear only while the signed records of both nodes allow it and answers come back
//! through it; whatever is unknown, unproven or silent travels encrypted.

pub mod paths;
pub mod probe;
pub mod rule;
pub mod sealing;

use meshwork_wire::PeerId;

/// Ethernet address of a peer's VXLAN devices: locally administered, the rest from the peer id, so that everybody knows
/// it without asking. Sources agree by chance once in 2^40; such a pair of peers stays encrypted.
#[must_use]
pub fn mac_of(peer: PeerId) -> [u8; 6] {
    let [a, b, c, d, e, ..] = peer.0;
    [0x02, a, b, c, d, e]
}
