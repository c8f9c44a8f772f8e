//! Questions and answers of the clear path, in Ethernet frames of a type of their own.
//!
//! Layout, 62 bytes and padding: version, kind, key id (4), asking or answering peer (16), the other peer (16), token (8),
//! MAC (16). The MAC is the first half of HMAC-SHA256 under a key of the mesh secret over all before it, so that nobody
//! without the secret can make a dead path look alive. A question is padded to the largest packet, because a path that
//! does not carry those is of no use.

use aws_lc_rs::{constant_time, hmac};
use meshwork_identity::{KeyId, Secret, Secrets};
use meshwork_wire::PeerId;

/// `ETH_P_802_EX1`: local experimental use (IEEE 802, section 9.2.3). The frames never leave a tunnel of ours.
pub const ETHERTYPE: u16 = 0x88b5;

const VERSION: u8 = 1;
const QUESTION: u8 = 1;
const ANSWER: u8 = 2;
const SIGNED_LEN: usize = 2 + 4 + 16 + 16 + 8;
const MAC_LEN: usize = 16;

/// What a probe says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// An answer repeats the token of its question.
    pub answer: bool,
    /// Who says it.
    pub from: PeerId,
    /// To whom.
    pub to: PeerId,
    /// Random, new for each question.
    pub token: u64,
}

/// The keys of all accepted secrets; the first one seals.
#[derive(Debug)]
pub struct ProbeKeys(Vec<(KeyId, hmac::Key)>);

impl ProbeKeys {
    /// Derives the keys.
    #[must_use]
    pub fn new(secrets: &Secrets) -> Self {
        let key = |secret: &Secret| hmac::Key::new(hmac::HMAC_SHA256, &*secret.derive(b"clear path probe"));
        Self(secrets.iter().map(|secret| (secret.key_id(), key(secret))).collect())
    }

    /// The bytes of a probe, padded with zeros to `length`.
    #[must_use]
    pub fn seal(&self, probe: &Probe, length: usize) -> Vec<u8> {
        let Some((id, key)) = self.0.first() else { return Vec::new() };
        let mut bytes = vec![VERSION, if probe.answer { ANSWER } else { QUESTION }];
        bytes.extend(id);
        bytes.extend(probe.from.0);
        bytes.extend(probe.to.0);
        bytes.extend(probe.token.to_be_bytes());
        let mac = hmac::sign(key, &bytes);
        bytes.extend(mac.as_ref().iter().take(MAC_LEN));
        bytes.resize(bytes.len().max(length), 0);
        bytes
    }

    /// The probe in `bytes`, if somebody who knows the secret wrote it.
    #[must_use]
    pub fn open(&self, bytes: &[u8]) -> Option<Probe> {
        let (signed, rest) = bytes.split_at_checked(SIGNED_LEN)?;
        let (&[VERSION, kind, ref fields @ ..], given) = (signed, rest.get(..MAC_LEN)?) else { return None };
        let (id, fields) = fields.split_first_chunk::<4>()?;
        let (_, key) = self.0.iter().find(|(known, _)| known == id)?;
        let expected = hmac::sign(key, signed);
        constant_time::verify_slices_are_equal(given, expected.as_ref().get(..MAC_LEN)?).ok()?;
        let (from, fields) = fields.split_first_chunk::<16>()?;
        let (to, token) = fields.split_first_chunk::<16>()?;
        let answer = match kind {
            QUESTION => false,
            ANSWER => true,
            _ => return None,
        };
        let token = u64::from_be_bytes(token.try_into().ok()?);
        Some(Probe { answer, from: PeerId(*from), to: PeerId(*to), token })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PROBE: Probe =
        Probe { answer: false, from: PeerId([1; 16]), to: PeerId([2; 16]), token: 0x0102_0304_0506_0708 };

    fn keys(seeds: &[u8]) -> ProbeKeys {
        let secrets = seeds.iter().map(|seed| Secret::generate([*seed; 32])).collect();
        ProbeKeys::new(&Secrets::new(secrets).expect("secrets"))
    }

    #[test]
    fn the_bytes_are_these() {
        let hex: String = keys(&[7]).seal(&PROBE, 0).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(&hex[..4], "0101");
        assert_eq!(&hex[12..92], format!("{}{}0102030405060708", "01".repeat(16), "02".repeat(16)));
        assert_eq!(hex.len(), 2 * (SIGNED_LEN + MAC_LEN));
    }

    #[test]
    fn padding_and_rotated_secrets_are_read_and_another_mesh_is_not() {
        let sealed = keys(&[7]).seal(&PROBE, 1400);
        assert_eq!(sealed.len(), 1400);
        assert_eq!(keys(&[9, 7]).open(&sealed), Some(PROBE));
        assert_eq!(keys(&[9]).open(&sealed), None);
    }

    #[test]
    fn no_altered_bit_is_believed() {
        let sealed = keys(&[7]).seal(&Probe { answer: true, ..PROBE }, 0);
        for bit in 0..sealed.len() * 8 {
            let mut altered = sealed.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(keys(&[7]).open(&altered), None, "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            prop_assert_eq!(keys(&[7]).open(&bytes), None);
        }
    }
}
