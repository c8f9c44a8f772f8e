//! What tests need that feed links with foreign bytes; nothing else does.

use std::time::Instant;

use meshwork_identity::{Identity, Signature};
use meshwork_wire::{Incarnation, frame};
use quinn::{ApplicationClose, ConnectionError, VarInt};

use super::link::{GREETING_LIMIT, LinkError};
use super::referral::{ELSEWHERE, Referral};
use super::twin::{Evidence, Greeting, IN_USE, Run, Tag, in_use};

/// The greeting that `bytes` are, encoded again.
#[must_use]
pub fn greeting(bytes: &[u8]) -> Option<Vec<u8>> {
    let greeting: Greeting = frame::decode(bytes, GREETING_LIMIT).ok()?;
    assert_eq!(greeting.run().incarnation, frame::decode_first(bytes).unwrap_or_default());
    Some(frame::encode(&greeting))
}

/// A run that begins now.
fn some_run(number: u64) -> Run {
    Run { incarnation: Incarnation(number), number, started: Instant::now() }
}

/// A greeting of a run that began now.
#[must_use]
pub fn some_greeting() -> Vec<u8> {
    frame::encode(&some_run(3).greeting(Default::default()))
}

/// What is made of the end of a connection with this code and reason: whom it names, and whether it proves to `identity`
/// that another process has it.
#[must_use]
pub fn closed(code: u32, reason: &[u8], identity: &Identity, tag: &Tag) -> (Option<Referral>, bool) {
    let close = ApplicationClose { error_code: VarInt::from_u32(code), reason: reason.to_vec().into() };
    let error = ConnectionError::ApplicationClosed(close);
    let referral = Referral::of(&error);
    let error = LinkError::from(error);
    assert!(!error.to_string().is_empty());
    (referral, in_use(&error, tag, identity.public_key(), &some_run(1)).is_some())
}

/// Codes and reasons that this build closes with.
#[must_use]
pub fn some_reasons(identity: &Identity, tag: &Tag) -> Vec<(u32, Vec<u8>)> {
    let address = ([192, 0, 2, 1], 6783).into();
    let run = some_run(2);
    let evidence = Evidence { run: run.number, address, signature: run.sign_life(identity, tag) };
    let forged = Evidence { signature: Signature([7; 64]), ..evidence.clone() };
    let referral = Referral(vec![(identity.peer_id(), vec![address, ([0x20; 16], 6783).into()])]);
    let refusals = [0x10, 0x11, 0x12, 0x13, 0x22].map(|code| (code, Vec::new()));
    let reasons = [(IN_USE, evidence.to_bytes()), (IN_USE, forged.to_bytes()), (ELSEWHERE, frame::encode(&referral))];
    refusals.into_iter().chain(reasons).collect()
}
