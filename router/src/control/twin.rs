//! Tells the processes that hold one identity apart, and proves to the later one that it has to end.
//!
//! An identity is one process's. Where a state directory was copied there are two, and the one that started later gives
//! way. Nobody ends on anybody's word: either the other process itself holds the identity's key in a handshake, or it
//! signed, for the very link that is refused, that it lives ([`Evidence`]). A signature that this process made itself
//! proves nothing, so that no member can turn it against its maker.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use meshwork_gossip::neighbours::Caller;
use meshwork_identity::{Identity, PublicKey, Signature};
use meshwork_wire::{Incarnation, frame};
use quinn::{Connection, ConnectionError};
use serde::{Deserialize, Serialize};

use super::link::LinkError;

/// Opens what a process signs to show that it lives.
const LIFE_LABEL: &[u8] = b"meshwork life v1";

/// Close code of a link whose identity is in use by an earlier process.
pub(super) const IN_USE: u32 = 0x20;

/// A run, an address and a signature.
const EVIDENCE_LIMIT: usize = 160;

/// A number that both ends of a link know and neither chose.
pub type Tag = [u8; 32];

/// One process that holds an identity.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// Which start of the state directory, or of a copy of it.
    pub incarnation: Incarnation,
    /// Random: no two processes have the same.
    pub number: u64,
    /// When it began, by the clock of this node.
    pub started: Instant,
}

/// What each side says of itself once admitted; why it should be let in is for the dialler to say.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Greeting {
    incarnation: Incarnation,
    run: u64,
    age_ms: u64,
    caller: Caller,
}

impl Run {
    /// This process, which begins now.
    #[must_use]
    pub fn begin(incarnation: Incarnation) -> Self {
        let mut number = [0; 8];
        crate::random::fill(&mut number);
        Self { incarnation, number: u64::from_le_bytes(number), started: Instant::now() }
    }

    pub(super) fn greeting(&self, caller: Caller) -> Greeting {
        let age_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Greeting { incarnation: self.incarnation, run: self.number, age_ms, caller }
    }

    /// Shows the holder of `tag` that this process lives.
    #[must_use]
    pub fn sign_life(&self, identity: &Identity, tag: &Tag) -> Signature {
        identity.sign(&life(tag, self.number))
    }
}

impl Greeting {
    /// Why the dialler should be let in.
    pub(super) const fn caller(&self) -> Caller {
        self.caller
    }

    /// The other side's run. A greater age than this host's clock has is cut.
    pub(super) fn run(&self) -> Run {
        let now = Instant::now();
        let started = now.checked_sub(Duration::from_millis(self.age_ms)).unwrap_or(now);
        Run { incarnation: self.incarnation, number: self.run, started }
    }

    /// Whether the process that says this began after the one that says `other`: both come to the same answer.
    const fn is_later_than(&self, other: &Self) -> bool {
        self.age_ms < other.age_ms || (self.age_ms == other.age_ms && self.run < other.run)
    }
}

/// What a holder of our own key at the other end of `connection` is to this process.
pub(super) fn meet(ours: &Greeting, theirs: &Greeting, connection: &Connection) -> LinkError {
    let address = super::link::canonical(connection.remote_address());
    if ours.run == theirs.run {
        LinkError::Refused(meshwork_identity::admission::Refused::OwnIdentity)
    } else if ours.is_later_than(theirs) {
        LinkError::IdentityInUse(address)
    } else {
        LinkError::Copied(address)
    }
}

/// Shows a process that another one holds its identity and lives.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Evidence {
    /// The run that lives.
    pub run: u64,
    /// Where it is, as whoever refuses sees it.
    pub address: SocketAddr,
    /// Of the link's tag and the run, by the identity's key.
    pub signature: Signature,
}

impl Evidence {
    /// Whether the holder of `key` made it for the link with this tag.
    #[must_use]
    pub fn holds(&self, key: PublicKey, tag: &Tag) -> bool {
        key.verify(&life(tag, self.run), &self.signature)
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        frame::encode(self)
    }
}

/// Where this process's identity is in use, if that is why a link with this tag ended and if it is proven.
pub(super) fn in_use(error: &LinkError, tag: &Tag, key: PublicKey, run: &Run) -> Option<SocketAddr> {
    let LinkError::Connection(ConnectionError::ApplicationClosed(close)) = error else { return None };
    if close.error_code.into_inner() != u64::from(IN_USE) {
        return None;
    }
    let evidence: Evidence = frame::decode(&close.reason, EVIDENCE_LIMIT).ok()?;
    (evidence.run != run.number && evidence.holds(key, tag)).then_some(evidence.address)
}

fn life(tag: &Tag, run: u64) -> Vec<u8> {
    frame::encode(&(LIFE_LABEL, tag, run))
}

#[cfg(test)]
mod tests {
    use quinn::{ApplicationClose, VarInt};

    use super::*;

    const TAG: Tag = [5; 32];

    fn refusal(evidence: &Evidence) -> LinkError {
        let close = ApplicationClose { error_code: VarInt::from_u32(IN_USE), reason: evidence.to_bytes().into() };
        ConnectionError::ApplicationClosed(close).into()
    }

    #[test]
    fn a_process_ends_only_when_another_one_of_its_identity_signed_for_this_link() {
        let (identity, stranger) = (Identity::from_seed([1; 32]), Identity::from_seed([2; 32]));
        let (one, other) = (Run::begin(Incarnation(1)), Run::begin(Incarnation(2)));
        let address = SocketAddr::from(([192, 0, 2, 1], 6783));
        let evidence =
            |run: &Run, key: &Identity| Evidence { run: run.number, address, signature: run.sign_life(key, &TAG) };
        let judge = |error: &LinkError, tag| in_use(error, tag, identity.public_key(), &other);
        assert_eq!(judge(&refusal(&evidence(&one, &identity)), &TAG), Some(address));
        assert_eq!(judge(&refusal(&evidence(&one, &identity)), &[6; 32]), None, "of another link");
        assert_eq!(judge(&refusal(&evidence(&one, &stranger)), &TAG), None, "by another key");
        assert_eq!(judge(&refusal(&evidence(&other, &identity)), &TAG), None, "signed by itself");
    }

    #[test]
    fn both_of_two_processes_agree_which_one_began_later() {
        let greeting = |run, age_ms| Greeting { incarnation: Incarnation(1), run, age_ms, caller: Caller::default() };
        for (one, other) in [(greeting(1, 5), greeting(2, 9)), (greeting(1, 5), greeting(2, 5))] {
            assert!(one.is_later_than(&other) && !other.is_later_than(&one));
        }
    }
}
