//! The mutual proof by which two nodes admit each other.
//!
//! It runs once, over the first stream of a TLS 1.3 connection whose raw public keys both sides have checked. The
//! dialler proves first, under each of its secrets; the acceptor answers under the one that it knows as well. A proof
//! is a MAC over the dialler's or acceptor's role, the connection's exporter (RFC 8446, section 7.5), both public
//! keys, both peer ids, the mesh id and the protocol version: it fits one connection and one direction only, so it can
//! neither be replayed nor reflected. Nothing else that the other side sends may be believed before.

use aws_lc_rs::hmac;
use meshwork_wire::frame::{self, FrameError};
use serde::{Deserialize, Serialize};

use crate::PublicKey;
use crate::secret::{KeyId, MAX_SECRETS, Secret, Secrets};

/// Version of the control protocol, bound into every proof.
pub const PROTOCOL: u16 = 1;

/// Longest frame of the exchange, in bytes: four proofs need 150, and a stranger gets no more of our memory than this.
pub const MAX_FRAME: usize = 1024;

/// Label for the TLS exporter (RFC 5705) whose 32 bytes, with an empty context, go into [`Channel::exporter`].
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-meshwork-admission";

/// What both sides of a connection know of it.
#[derive(Debug, Clone, Copy)]
pub struct Channel {
    /// TLS exporter under [`EXPORTER_LABEL`].
    pub exporter: [u8; 32],
    /// Our identity.
    pub ours: PublicKey,
    /// The key that the other side proved in the TLS handshake.
    pub theirs: PublicKey,
}

/// The other side knows one of our secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    /// Which secret: the link has to end when this one is no longer accepted.
    pub key_id: KeyId,
}

/// Why the other side is not admitted. [`Refused::code`] travels as the QUIC close code, so that it learns why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No secret in common, or a false proof.
    #[error("the other side does not know our secret: compare `STATE/secret` of both hosts")]
    WrongSecret,
    /// The connection leads back to this node, or to a copy of it.
    #[error(
        "the other side has our own identity: take this node's address out of its `--peer` list, or give a copied host a state directory of its own"
    )]
    OwnIdentity,
    /// The builds do not fit together.
    #[error("the other side speaks another control protocol than {PROTOCOL}: install the same version on both hosts")]
    Version,
    /// Not a frame of this exchange.
    #[error("the other side sent a malformed admission ({0}): check that a meshwork node listens at that address")]
    Malformed(&'static str),
}

impl Refused {
    /// Number on the wire.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::WrongSecret => 0x10,
            Self::OwnIdentity => 0x11,
            Self::Version => 0x12,
            Self::Malformed(_) => 0x13,
        }
    }

    /// Reads the number that the other side closed with. It is a claim without proof, good for a message to people.
    #[must_use]
    pub const fn from_code(code: u32) -> Option<Self> {
        match code {
            0x10 => Some(Self::WrongSecret),
            0x11 => Some(Self::OwnIdentity),
            0x12 => Some(Self::Version),
            0x13 => Some(Self::Malformed("it says that of our frame")),
            _ => None,
        }
    }
}

impl From<FrameError> for Refused {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::UnknownFormat(_) => Self::Version,
            FrameError::TooLong { .. } => Self::Malformed("too long"),
            FrameError::Malformed(what) => Self::Malformed(what),
        }
    }
}

/// First frame, from the dialler.
#[derive(Debug, Serialize, Deserialize)]
struct Opening {
    version: u16,
    proofs: Vec<Proof>,
}

/// Second and last frame, from the acceptor.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    version: u16,
    proof: Proof,
}

#[derive(Debug, Serialize, Deserialize)]
struct Proof {
    key_id: KeyId,
    mac: [u8; 32],
}

/// The side that opened the connection.
#[derive(Debug)]
pub struct Dialler {
    secrets: Secrets,
    transcript: Transcript,
}

impl Dialler {
    /// Begins the exchange; the frame goes out first.
    ///
    /// # Errors
    /// [`Refused::OwnIdentity`] when the connection leads back to this identity.
    pub fn new(secrets: &Secrets, channel: &Channel) -> Result<(Self, Vec<u8>), Refused> {
        let transcript = Transcript::new(channel, Role::Dialler)?;
        let proofs = secrets.iter().map(|secret| transcript.prove(Role::Dialler, secret)).collect();
        let opening = frame::encode(&Opening { version: PROTOCOL, proofs });
        Ok((Self { secrets: secrets.clone(), transcript }, opening))
    }

    /// Takes the acceptor's answer.
    ///
    /// # Errors
    /// [`Refused`] when it proves nothing: close the connection.
    pub fn receive(self, answer: &[u8]) -> Result<Admitted, Refused> {
        let answer: Answer = frame::decode(answer, MAX_FRAME)?;
        check_version(answer.version)?;
        self.transcript.check(Role::Acceptor, &self.secrets, &answer.proof).ok_or(Refused::WrongSecret)?;
        Ok(Admitted { key_id: answer.proof.key_id })
    }
}

/// The side that was dialled.
#[derive(Debug)]
pub struct Acceptor {
    secrets: Secrets,
    transcript: Transcript,
}

impl Acceptor {
    /// Waits for the dialler's frame.
    ///
    /// # Errors
    /// [`Refused::OwnIdentity`] when the connection comes from this identity.
    pub fn new(secrets: &Secrets, channel: &Channel) -> Result<Self, Refused> {
        Ok(Self { secrets: secrets.clone(), transcript: Transcript::new(channel, Role::Acceptor)? })
    }

    /// Takes the dialler's opening and returns the answer to send.
    ///
    /// # Errors
    /// [`Refused`] when it proves nothing: close the connection with its code and answer nothing.
    pub fn receive(self, opening: &[u8]) -> Result<(Vec<u8>, Admitted), Refused> {
        let opening: Opening = frame::decode(opening, MAX_FRAME)?;
        check_version(opening.version)?;
        if opening.proofs.len() > MAX_SECRETS {
            return Err(Refused::Malformed("more than four proofs"));
        }
        let matched = |proof| self.transcript.check(Role::Dialler, &self.secrets, proof);
        let secret = opening.proofs.iter().find_map(matched).ok_or(Refused::WrongSecret)?;
        let proof = self.transcript.prove(Role::Acceptor, secret);
        let admitted = Admitted { key_id: proof.key_id };
        Ok((frame::encode(&Answer { version: PROTOCOL, proof }), admitted))
    }
}

const fn check_version(theirs: u16) -> Result<(), Refused> {
    if theirs == PROTOCOL { Ok(()) } else { Err(Refused::Version) }
}

#[derive(Debug, Clone, Copy)]
enum Role {
    Dialler = 1,
    Acceptor = 2,
}

/// What a proof covers besides role and secret.
#[derive(Debug)]
struct Transcript {
    exporter: [u8; 32],
    dialler: PublicKey,
    acceptor: PublicKey,
}

impl Transcript {
    fn new(channel: &Channel, ours: Role) -> Result<Self, Refused> {
        if channel.ours == channel.theirs {
            return Err(Refused::OwnIdentity);
        }
        let (dialler, acceptor) = match ours {
            Role::Dialler => (channel.ours, channel.theirs),
            Role::Acceptor => (channel.theirs, channel.ours),
        };
        Ok(Self { exporter: channel.exporter, dialler, acceptor })
    }

    fn prove(&self, role: Role, secret: &Secret) -> Proof {
        let tag = hmac::sign(&admission_key(secret), &self.bytes(role, secret));
        Proof { key_id: secret.key_id(), mac: tag.as_ref().try_into().expect("HMAC-SHA-256 has 32 bytes") }
    }

    /// The secret under which `proof` holds, compared in constant time.
    fn check<'a>(&self, role: Role, secrets: &'a Secrets, proof: &Proof) -> Option<&'a Secret> {
        let secret = secrets.by_key_id(proof.key_id)?;
        hmac::verify(&admission_key(secret), &self.bytes(role, secret), &proof.mac).ok().map(|()| secret)
    }

    /// Every part has a fixed length, so the concatenation is unambiguous.
    fn bytes(&self, role: Role, secret: &Secret) -> Vec<u8> {
        [
            &[role as u8][..],
            &self.exporter,
            &self.dialler.0,
            &self.acceptor.0,
            &self.dialler.peer_id().0,
            &self.acceptor.peer_id().0,
            &secret.mesh_id(),
            &PROTOCOL.to_be_bytes(),
        ]
        .concat()
    }
}

fn admission_key(secret: &Secret) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &secret.derive(b"admit")[..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Identity;

    fn secrets(bytes: &[u8]) -> Secrets {
        Secrets::new(bytes.iter().map(|&byte| Secret::generate([byte; 32])).collect()).expect("they differ")
    }

    fn channels() -> (Channel, Channel) {
        let (one, other) = (Identity::from_seed([1; 32]).public_key(), Identity::from_seed([2; 32]).public_key());
        let exporter = [9; 32];
        (Channel { exporter, ours: one, theirs: other }, Channel { exporter, ours: other, theirs: one })
    }

    fn admit(dialler: &[u8], acceptor: &[u8]) -> Result<(Admitted, Admitted), Refused> {
        let (near, far) = channels();
        let (dialler, opening) = Dialler::new(&secrets(dialler), &near)?;
        let (answer, theirs) = Acceptor::new(&secrets(acceptor), &far)?.receive(&opening)?;
        Ok((dialler.receive(&answer)?, theirs))
    }

    #[test]
    fn two_nodes_with_one_secret_admit_each_other() {
        let key_id = Secret::generate([1; 32]).key_id();
        assert_eq!(admit(&[1], &[1]), Ok((Admitted { key_id }, Admitted { key_id })));
    }

    #[test]
    fn any_common_secret_will_do_and_the_diallers_order_decides() {
        let admitted = Admitted { key_id: Secret::generate([3; 32]).key_id() };
        assert_eq!(admit(&[1, 2, 3, 4], &[5, 3, 6]), Ok((admitted, admitted)));
        assert_eq!(admit(&[3, 4], &[4, 3]), Ok((admitted, admitted)));
    }

    #[test]
    fn without_a_common_secret_nobody_is_admitted() {
        assert_eq!(admit(&[1, 2], &[3, 4]), Err(Refused::WrongSecret));
    }

    #[test]
    fn a_known_key_id_without_its_secret_proves_nothing() {
        let (near, far) = channels();
        let proof = Proof { key_id: Secret::generate([1; 32]).key_id(), mac: [0; 32] };
        let opening = frame::encode(&Opening { version: PROTOCOL, proofs: vec![proof] });
        assert_eq!(receive(&far, &opening), Err(Refused::WrongSecret));
        let (dialler, _) = Dialler::new(&secrets(&[1]), &near).expect("two identities");
        let proof = Proof { key_id: Secret::generate([1; 32]).key_id(), mac: [0; 32] };
        assert_eq!(dialler.receive(&frame::encode(&Answer { version: PROTOCOL, proof })), Err(Refused::WrongSecret));
    }

    fn receive(channel: &Channel, opening: &[u8]) -> Result<Admitted, Refused> {
        Acceptor::new(&secrets(&[1]), channel)?.receive(opening).map(|(_, admitted)| admitted)
    }

    #[test]
    fn a_proof_is_not_taken_back_by_its_maker() {
        let (near, far) = channels();
        let (dialler, opening) = Dialler::new(&secrets(&[1]), &near).expect("two identities");
        let mut opened: Opening = frame::decode(&opening, MAX_FRAME).expect("our own frame");
        let proof = opened.proofs.remove(0);
        let mirrored = frame::encode(&Answer { version: PROTOCOL, proof });
        assert_eq!(dialler.receive(&mirrored), Err(Refused::WrongSecret));
        // Opened back over the same connection, as if the acceptor had dialled.
        assert_eq!(receive(&near, &opening), Err(Refused::WrongSecret));
        assert!(receive(&far, &opening).is_ok());
    }

    #[test]
    fn a_proof_fits_one_connection_and_one_pair_of_keys() {
        let (near, far) = channels();
        let (_, opening) = Dialler::new(&secrets(&[1]), &near).expect("two identities");
        assert_eq!(receive(&Channel { exporter: [8; 32], ..far }, &opening), Err(Refused::WrongSecret));
        let third = Identity::from_seed([3; 32]).public_key();
        assert_eq!(receive(&Channel { theirs: third, ..far }, &opening), Err(Refused::WrongSecret));
        assert_eq!(receive(&Channel { ours: third, ..far }, &opening), Err(Refused::WrongSecret));
    }

    #[test]
    fn ones_own_identity_is_refused_on_both_sides() {
        let (near, _) = channels();
        let mirror = Channel { theirs: near.ours, ..near };
        assert_eq!(Dialler::new(&secrets(&[1]), &mirror).err(), Some(Refused::OwnIdentity));
        assert_eq!(Acceptor::new(&secrets(&[1]), &mirror).err(), Some(Refused::OwnIdentity));
    }

    #[test]
    fn other_versions_long_frames_and_too_many_proofs_are_refused() {
        let (_, far) = channels();
        let newer = frame::encode(&Opening { version: PROTOCOL + 1, proofs: vec![] });
        assert_eq!(receive(&far, &newer), Err(Refused::Version));
        assert_eq!(receive(&far, &[frame::FORMAT + 1]), Err(Refused::Version));
        assert_eq!(receive(&far, &[frame::FORMAT; MAX_FRAME + 1]), Err(Refused::Malformed("too long")));
        let proofs = (0..5).map(|_| Proof { key_id: [0; 4], mac: [0; 32] }).collect();
        let many = frame::encode(&Opening { version: PROTOCOL, proofs });
        assert_eq!(receive(&far, &many), Err(Refused::Malformed("more than four proofs")));
    }

    #[test]
    fn codes_read_back() {
        for refused in [Refused::WrongSecret, Refused::OwnIdentity, Refused::Version] {
            assert_eq!(Refused::from_code(refused.code()), Some(refused));
        }
        assert_eq!(Refused::from_code(0), None);
    }

    #[test]
    fn frames_keep_their_bytes() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let (near, far) = channels();
        let (_, opening) = Dialler::new(&secrets(&[1]), &near).expect("two identities");
        assert_eq!(hex(&opening), "010101f0797a5ebc7a4df8b343e9bdc69e5a471b6860c330de493597a515e785769f40b238c401");
        let (answer, _) =
            Acceptor::new(&secrets(&[1]), &far).and_then(|side| side.receive(&opening)).expect("admitted");
        assert_eq!(hex(&answer), "0101f0797a5ee968524c369d92eb65a88401732575277f00b5348dd4d6fd8afe08b87e827a37");
    }

    proptest! {
        #[test]
        fn random_bytes_admit_nobody(bytes in proptest::collection::vec(any::<u8>(), 0..200), framed: bool) {
            let bytes = if framed { [&[frame::FORMAT, PROTOCOL as u8], &bytes[..]].concat() } else { bytes };
            let (near, far) = channels();
            prop_assert!(receive(&far, &bytes).is_err());
            let (dialler, _) = Dialler::new(&secrets(&[1]), &near).expect("two identities");
            prop_assert!(dialler.receive(&bytes).is_err());
        }
    }
}
