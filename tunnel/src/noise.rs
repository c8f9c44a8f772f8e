//! Handshake messages: `Noise_IKpsk2` in the frame of [`crate::header`].
//!
//! The first MAC is keyed by the mesh secret and covers the reader's id and all before it, so that a stranger costs one
//! MAC and no Diffie-Hellman. The second is reserved for cookies: zero, and not looked at. The prologue binds the
//! mesh, the version, the cipher, the secret's key id, and the responder with its run, so that a first message recorded
//! from one run is worth nothing to the next. Source: the Noise protocol framework, revision 34, sections 7.5 and 9.

use aws_lc_rs::{constant_time, hmac};
use meshwork_identity::{Identity, KeyId, Secret};
use meshwork_wire::{Incarnation, PeerId};
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher as NoiseCipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};
use zeroize::Zeroizing;

use crate::drops::Drop;
use crate::header::{HEADER_LEN, Header, PacketType, VERSION};
use crate::session::{Cipher, Keys};

const MAC_LEN: usize = 16;
/// Ephemeral key, sealed static key, sealed incarnation and counter.
const NOISE_FIRST_LEN: usize = 32 + 48 + 32;
/// Ephemeral key and the tag of nothing.
const NOISE_SECOND_LEN: usize = 32 + 16;
pub(crate) const INITIATION_LEN: usize = HEADER_LEN + NOISE_FIRST_LEN + 2 * MAC_LEN;
pub(crate) const RESPONSE_LEN: usize = HEADER_LEN + NOISE_SECOND_LEN + 2 * MAC_LEN;

/// A secret and the keys made of it.
pub(crate) struct SecretKeys {
    pub(crate) key_id: KeyId,
    mesh_id: [u8; 16],
    mac: hmac::Key,
    psk: Zeroizing<[u8; 32]>,
}

impl SecretKeys {
    pub(crate) fn new(secret: &Secret) -> Self {
        Self {
            key_id: secret.key_id(),
            mesh_id: secret.mesh_id(),
            mac: hmac::Key::new(hmac::HMAC_SHA256, &*secret.derive(b"tunnel mac1")),
            psk: secret.derive(b"noise psk"),
        }
    }

    pub(crate) fn append_macs(&self, reader: PeerId, message: &mut Vec<u8>) {
        let tag = self.mac1(reader, message);
        message.extend(tag.as_ref().iter().take(MAC_LEN));
        message.extend([0; MAC_LEN]);
    }

    fn mac1(&self, reader: PeerId, message: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.mac);
        context.update(&reader.0);
        context.update(message);
        context.sign()
    }

    fn verify(&self, reader: PeerId, datagram: &[u8]) -> Result<(), Drop> {
        let (message, macs) = datagram.split_at_checked(datagram.len() - 2 * MAC_LEN).ok_or(Drop::Malformed)?;
        let (given, expected) = (macs.get(..MAC_LEN), self.mac1(reader, message));
        let equal =
            given.zip(expected.as_ref().get(..MAC_LEN)).map(|(a, b)| constant_time::verify_slices_are_equal(a, b));
        matches!(equal, Some(Ok(()))).then_some(()).ok_or(Drop::Forged)
    }

    fn prologue(&self, cipher: Cipher, responder: PeerId, incarnation: Incarnation) -> Vec<u8> {
        let mut prologue = b"meshwork tunnel".to_vec();
        prologue.extend(self.mesh_id);
        prologue.extend([VERSION, cipher.number()]);
        prologue.extend(self.key_id);
        prologue.extend(responder.0);
        prologue.extend(incarnation.0.to_be_bytes());
        prologue
    }
}

/// Hands snow the random bytes that it was given, so that no randomness is drawn behind the caller's back.
struct Drawn([u8; 32]);

impl Random for Drawn {
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), snow::Error> {
        let bytes = self.0.get(..out.len()).ok_or(snow::Error::Rng)?;
        out.copy_from_slice(bytes);
        Ok(())
    }
}

struct Resolver([u8; 32]);

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Drawn(self.0)))
    }
    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }
    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }
    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn NoiseCipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

fn builder(cipher: Cipher, random: [u8; 32]) -> Result<Builder<'static>, snow::Error> {
    let name = match cipher {
        Cipher::Aes256Gcm => "Noise_IKpsk2_25519_AESGCM_BLAKE2s",
        Cipher::ChaCha20Poly1305 => "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s",
    };
    Ok(Builder::with_resolver(name.parse()?, Box::new(Resolver(random))))
}

/// Whom we call.
pub(crate) struct Callee {
    pub(crate) id: PeerId,
    pub(crate) noise_key: [u8; 32],
    pub(crate) incarnation: Incarnation,
}

/// A first message that waits for its answer.
pub(crate) struct Initiating {
    state: HandshakeState,
    cipher: Cipher,
    key_id: KeyId,
    incarnation: Incarnation,
}

/// Which message of which run: the responder answers only to greater ones.
pub(crate) type Sequence = (Incarnation, u64);

impl Initiating {
    /// The first message to `callee`, and what reads the answer. `None` if the callee's key is no key.
    pub(crate) fn start(
        local: &Identity,
        callee: &Callee,
        secret: &SecretKeys,
        cipher: Cipher,
        (incarnation, counter): Sequence,
        local_index: u32,
        random: [u8; 32],
    ) -> Option<(Self, Vec<u8>)> {
        let mut state = builder(cipher, random)
            .and_then(|noise| {
                noise
                    .psk(2, &secret.psk)?
                    .local_private_key(local.noise_private())?
                    .remote_public_key(&callee.noise_key)?
                    .prologue(&secret.prologue(cipher, callee.id, callee.incarnation))?
                    .build_initiator()
            })
            .ok()?;
        let [k0, k1, k2, k3] = secret.key_id;
        let [.., i0, i1, i2, i3] = callee.incarnation.0.to_be_bytes();
        let header = Header {
            kind: PacketType::Initiation,
            flags: cipher.number(),
            index: local_index,
            counter: u64::from_be_bytes([k0, k1, k2, k3, i0, i1, i2, i3]),
        };
        let mut payload = [0; 16];
        let (front, back) = payload.split_at_mut(8);
        front.copy_from_slice(&incarnation.0.to_be_bytes());
        back.copy_from_slice(&counter.to_be_bytes());
        let mut message = header.to_bytes().to_vec();
        let mut noise = [0; NOISE_FIRST_LEN];
        state.write_message(&payload, &mut noise).ok()?;
        message.extend(noise);
        secret.append_macs(callee.id, &mut message);
        let key_id = secret.key_id;
        Some((Self { state, cipher, key_id, incarnation: callee.incarnation }, message))
    }

    pub(crate) fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// Reads an answer that is [`vouched`] for. A wrong one leaves this waiting for the right one.
    pub(crate) fn read_response(&mut self, header: Header, datagram: &[u8]) -> Result<Keys, Drop> {
        let noise = datagram.get(HEADER_LEN..HEADER_LEN + NOISE_SECOND_LEN).ok_or(Drop::Malformed)?;
        self.state.read_message(noise, &mut []).map_err(|_| Drop::Forged)?;
        let (send, receive) = self.state.dangerously_get_raw_split();
        Ok(Keys {
            cipher: self.cipher,
            send: send.into(),
            receive: receive.into(),
            key_id: self.key_id,
            incarnation: self.incarnation,
            remote_index: header.counter as u32,
            initiator: true,
        })
    }
}

/// A first message that has been read and may be answered.
pub(crate) struct Received {
    state: HandshakeState,
    cipher: Cipher,
    key_id: KeyId,
    remote_index: u32,
    /// The initiator's static key. It is authentic: only its owner can have sealed the payload.
    pub(crate) noise_key: [u8; 32],
    pub(crate) sequence: Sequence,
}

impl Received {
    /// Reads a first message to us, in the run `incarnation`.
    pub(crate) fn read(
        header: Header,
        datagram: &[u8],
        local: &Identity,
        incarnation: Incarnation,
        secrets: &[SecretKeys],
        random: [u8; 32],
    ) -> Result<Self, Drop> {
        let cipher = Cipher::from_number(header.flags).ok_or(Drop::Malformed)?;
        let secret = vouched(header, datagram, local.peer_id(), secrets)?;
        if header.counter as u32 != incarnation.0 as u32 {
            return Err(Drop::Stale);
        }
        let mut state = builder(cipher, random)
            .and_then(|noise| {
                noise
                    .psk(2, &secret.psk)?
                    .local_private_key(local.noise_private())?
                    .prologue(&secret.prologue(cipher, local.peer_id(), incarnation))?
                    .build_responder()
            })
            .map_err(|_| Drop::Malformed)?;
        let noise = datagram.get(HEADER_LEN..HEADER_LEN + NOISE_FIRST_LEN).ok_or(Drop::Malformed)?;
        let mut payload = [0; 16];
        state.read_message(noise, &mut payload).map_err(|_| Drop::Forged)?;
        let number = u128::from_be_bytes(payload);
        let noise_key = state.get_remote_static().and_then(|key| key.try_into().ok()).ok_or(Drop::Forged)?;
        Ok(Self {
            state,
            cipher,
            key_id: secret.key_id,
            remote_index: header.index,
            noise_key,
            sequence: (Incarnation((number >> 64) as u64), number as u64),
        })
    }

    /// The answer to `caller`, and the keys, which are unproven until the caller uses them.
    pub(crate) fn answer(
        mut self,
        caller: PeerId,
        secrets: &[SecretKeys],
        local_index: u32,
    ) -> Option<(Keys, Vec<u8>)> {
        let secret = secrets.iter().find(|secret| secret.key_id == self.key_id)?;
        let [k0, k1, k2, k3] = self.key_id;
        let [i0, i1, i2, i3] = local_index.to_be_bytes();
        let counter = u64::from_be_bytes([k0, k1, k2, k3, i0, i1, i2, i3]);
        let header = Header { kind: PacketType::Response, flags: 0, index: self.remote_index, counter };
        let mut message = header.to_bytes().to_vec();
        let mut noise = [0; NOISE_SECOND_LEN];
        self.state.write_message(&[], &mut noise).ok()?;
        message.extend(noise);
        secret.append_macs(caller, &mut message);
        let (receive, send) = self.state.dangerously_get_raw_split();
        let keys = Keys {
            cipher: self.cipher,
            send: send.into(),
            receive: receive.into(),
            key_id: self.key_id,
            incarnation: self.sequence.0,
            remote_index: self.remote_index,
            initiator: false,
        };
        Some((keys, message))
    }
}

/// The accepted secret whose holder made this handshake message for `reader`. It costs one MAC, and what does not pass
/// costs nothing more.
pub(crate) fn vouched<'a>(
    header: Header,
    datagram: &[u8],
    reader: PeerId,
    secrets: &'a [SecretKeys],
) -> Result<&'a SecretKeys, Drop> {
    let length = match header.kind {
        PacketType::Initiation => INITIATION_LEN,
        PacketType::Response => RESPONSE_LEN,
        _ => return Err(Drop::Malformed),
    };
    if datagram.len() != length {
        return Err(Drop::Malformed);
    }
    let hint = ((header.counter >> 32) as u32).to_be_bytes();
    let secret = secrets.iter().find(|secret| secret.key_id == hint).ok_or(Drop::BadSecret)?;
    secret.verify(reader, datagram)?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(byte: u8) -> SecretKeys {
        SecretKeys::new(&Secret::generate([byte; 32]))
    }

    #[test]
    fn only_who_knows_the_secret_is_vouched_for_and_only_to_the_reader_meant() {
        let (caller, callee) = (Identity::from_seed([1; 32]), Identity::from_seed([2; 32]));
        let run = Incarnation(1);
        let to = Callee { id: callee.peer_id(), noise_key: callee.noise_public(), incarnation: run };
        let (ours, cipher) = (secret(7), Cipher::Aes256Gcm);
        let (_, message) = Initiating::start(&caller, &to, &ours, cipher, (run, 1), 9, [3; 32]).unwrap();
        let look = |message: &[u8], reader: PeerId, secrets: &[SecretKeys]| {
            vouched(Header::read(message).unwrap(), message, reader, secrets).map(|secret| secret.key_id)
        };
        assert_eq!(look(&message, callee.peer_id(), &[secret(8), secret(7)]), Ok(ours.key_id));
        assert_eq!(look(&message, callee.peer_id(), &[secret(8)]), Err(Drop::BadSecret));
        assert_eq!(look(&message, caller.peer_id(), &[secret(7)]), Err(Drop::Forged));
        assert_eq!(look(&message[..message.len() - 1], callee.peer_id(), &[secret(7)]), Err(Drop::Malformed));
        let mut guessed = message.clone();
        guessed[INITIATION_LEN - 2 * MAC_LEN] ^= 1;
        assert_eq!(look(&guessed, callee.peer_id(), &[secret(7)]), Err(Drop::Forged));
    }
}
