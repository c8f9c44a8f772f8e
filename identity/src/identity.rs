//! The keys of a node, all from one seed.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use aws_lc_rs::{agreement, digest};
use meshwork_wire::PeerId;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::kdf;

/// HKDF salt of everything that comes from a node's seed.
const SEED_SALT: &[u8] = b"meshwork identity v1";

/// DER of an Ed25519 SubjectPublicKeyInfo up to the 32 key bytes (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Private keys of a node: Ed25519 for TLS and signatures, X25519 for Noise.
pub struct Identity {
    signing: Ed25519KeyPair,
    public: PublicKey,
    noise_private: Zeroizing<[u8; 32]>,
    noise_public: [u8; 32],
}

impl Identity {
    /// Derives both key pairs from a seed of 32 random bytes, under separate labels.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let seed = Zeroizing::new(seed);
        let signing_seed = kdf::derive(SEED_SALT, &seed[..], b"ed25519");
        let signing = Ed25519KeyPair::from_seed_unchecked(&signing_seed[..]).expect("any 32 bytes are an Ed25519 seed");
        let public = public_key_of(&signing);
        let noise_private = kdf::derive(SEED_SALT, &seed[..], b"x25519 noise");
        let noise_public = x25519_public(&noise_private);
        Self { signing, public, noise_private, noise_public }
    }

    /// Name that follows from the public key.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.public.peer_id()
    }

    /// Public half of the Ed25519 key.
    #[must_use]
    pub const fn public_key(&self) -> PublicKey {
        self.public
    }

    /// Signs `message` with Ed25519 (RFC 8032). Callers open the message with a label of their own, so that a
    /// signature made for one purpose is never valid for another.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        let signature = self.signing.sign(message);
        Signature(signature.as_ref().try_into().expect("an Ed25519 signature has 64 bytes"))
    }

    /// X25519 private key of the encrypted path.
    #[must_use]
    pub fn noise_private(&self) -> &[u8; 32] {
        &self.noise_private
    }

    /// X25519 public key of the encrypted path.
    #[must_use]
    pub const fn noise_public(&self) -> [u8; 32] {
        self.noise_public
    }

    /// The Ed25519 private key as PKCS#8 v1 DER (RFC 8410, section 7), the form that rustls loads.
    #[must_use]
    pub fn pkcs8_der(&self) -> Zeroizing<Vec<u8>> {
        let document = self.signing.to_pkcs8v1().expect("an Ed25519 key has a PKCS#8 form");
        Zeroizing::new(document.as_ref().to_vec())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("peer", &self.peer_id()).finish_non_exhaustive()
    }
}

fn public_key_of(pair: &Ed25519KeyPair) -> PublicKey {
    PublicKey(pair.public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes"))
}

fn x25519_public(private: &[u8; 32]) -> [u8; 32] {
    let public = agreement::PrivateKey::from_private_key(&agreement::X25519, private)
        .and_then(|key| Ok(key.compute_public_key()?))
        .expect("any 32 bytes are an X25519 private key");
    public.as_ref().try_into().expect("an X25519 public key has 32 bytes")
}

/// Ed25519 public key of a peer. Any 32 bytes can stand here: a key that is no curve point verifies nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// The first 16 bytes of SHA-256 of the key.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        let digest = digest::digest(&digest::SHA256, &self.0);
        let mut id = [0; 16];
        id.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
        PeerId(id)
    }

    /// Whether `signature` is this key's over `message`.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &Signature) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, &signature.0).is_ok()
    }

    /// The key as SubjectPublicKeyInfo DER, the form of TLS raw public keys (RFC 7250).
    #[must_use]
    pub fn spki_der(&self) -> Vec<u8> {
        [&SPKI_PREFIX[..], &self.0].concat()
    }

    /// Reads exactly the form that [`PublicKey::spki_der`] writes.
    ///
    /// # Errors
    /// The bytes are anything else.
    pub fn from_spki(der: &[u8]) -> Result<Self, SpkiError> {
        let key = der.strip_prefix(&SPKI_PREFIX).ok_or(SpkiError)?;
        key.try_into().map(Self).map_err(|_| SpkiError)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.peer_id())
    }
}

/// The other side offered something else than an Ed25519 raw public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the other side's TLS key is not an Ed25519 raw public key: it is no meshwork node, or of another version")]
pub struct SpkiError;

/// Ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature(#[serde(with = "serde_bytes")] pub [u8; 64]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signature(..)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustls::crypto::aws_lc_rs::sign::any_eddsa_type;
    use rustls::pki_types::PrivatePkcs8KeyDer;

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_seed_gives_the_same_keys_in_every_release() {
        let identity = Identity::from_seed([7; 32]);
        assert_eq!(hex(&identity.public_key().0), "b1cd43a518bd4a0262a16ce45911e726bfca21d37fd1fda92f7ec1b24a945e93");
        assert_eq!(hex(&identity.noise_public()), "05202f0ef7c35386f534fe3ccbd21e9cc6beb0471483a6a2a01273bbb3f49443");
        assert_eq!(identity.peer_id().to_string(), "d24fde44547437c51afa95fe32a2f1fa");
    }

    #[test]
    fn another_seed_gives_other_keys_and_no_key_is_the_seed() {
        let (one, other) = (Identity::from_seed([1; 32]), Identity::from_seed([2; 32]));
        assert_ne!(one.public_key(), other.public_key());
        assert_ne!(one.noise_private(), other.noise_private());
        assert_ne!(one.noise_private(), &[1; 32]);
        assert_ne!(one.noise_public(), one.public_key().0);
    }

    #[test]
    fn a_signature_holds_for_its_message_and_key_only() {
        let identity = Identity::from_seed([1; 32]);
        let signature = identity.sign(b"meshwork");
        assert!(identity.public_key().verify(b"meshwork", &signature));
        assert!(!identity.public_key().verify(b"meshwort", &signature));
        assert!(!Identity::from_seed([2; 32]).public_key().verify(b"meshwork", &signature));
        assert!(!PublicKey([0xff; 32]).verify(b"meshwork", &signature));
    }

    #[test]
    fn rustls_loads_the_private_key_and_agrees_on_the_public_one() {
        let identity = Identity::from_seed([1; 32]);
        let der = identity.pkcs8_der();
        let key = any_eddsa_type(&PrivatePkcs8KeyDer::from(&der[..])).expect("rustls takes the key");
        let spki = key.public_key().expect("the key has a public half");
        assert_eq!(spki.as_ref(), identity.public_key().spki_der());
    }

    #[test]
    fn only_the_exact_public_key_form_is_read() {
        let key = Identity::from_seed([1; 32]).public_key();
        let der = key.spki_der();
        assert_eq!(PublicKey::from_spki(&der), Ok(key));
        assert_eq!(PublicKey::from_spki(&der[..43]), Err(SpkiError));
        assert_eq!(PublicKey::from_spki(&[&der[..], &[0]].concat()), Err(SpkiError));
        let mut x25519 = der;
        x25519[8] = 0x6e;
        assert_eq!(PublicKey::from_spki(&x25519), Err(SpkiError));
    }

    #[test]
    fn nothing_private_is_printed() {
        let identity = Identity::from_seed([1; 32]);
        let text = format!("{identity:?}");
        assert_eq!(text, format!("Identity {{ peer: PeerId({}), .. }}", identity.peer_id()));
    }

    proptest! {
        #[test]
        fn random_bytes_are_no_public_key(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(key) = PublicKey::from_spki(&bytes) {
                prop_assert_eq!(key.spki_der(), bytes);
            }
        }
    }
}
