//! Mesh secrets: 256 bits that make a node a member.

use std::fmt;
use std::fmt::Write as _;

use aws_lc_rs::constant_time;
use zeroize::Zeroizing;

use crate::kdf;

/// HKDF salt of everything that comes from a mesh secret.
const SECRET_SALT: &[u8] = b"meshwork secret v1";

/// Most secrets accepted at once: a rotation needs two, a rotation overtaken by another three. Also bounds what an
/// admission costs.
pub const MAX_SECRETS: usize = 4;

/// Tells which of several secrets is meant and nothing more: 4 bytes of an HKDF output.
pub type KeyId = [u8; 4];

/// Why a secret or a list of secrets is refused. The operator's input is to blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Not the one accepted form.
    #[error(
        "a secret is exactly 64 hex digits, with at most one newline after them: make one with `meshctl secret generate`"
    )]
    NotHex,
    /// None or too many.
    #[error("between 1 and {MAX_SECRETS} secrets can be given, not {0}")]
    Count(usize),
    /// Twice the same, or the one case in 2^32 where two cannot be told apart.
    #[error("the same secret is given twice: name each secret file once")]
    Duplicate,
}

/// A mesh secret.
#[derive(Clone)]
pub struct Secret(Zeroizing<[u8; 32]>);

impl Secret {
    /// Makes a secret of 32 random bytes.
    #[must_use]
    pub fn generate(random: [u8; 32]) -> Self {
        Self(Zeroizing::new(random))
    }

    /// Reads the text form: 64 hex digits, then nothing or one newline.
    ///
    /// # Errors
    /// [`SecretError::NotHex`] for anything else.
    pub fn parse_hex(text: &str) -> Result<Self, SecretError> {
        let digits = text.strip_suffix('\n').unwrap_or(text).as_bytes();
        if digits.len() != 64 {
            return Err(SecretError::NotHex);
        }
        let mut bytes = Zeroizing::new([0; 32]);
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            for &digit in pair {
                *byte = *byte << 4 | hex_value(digit).ok_or(SecretError::NotHex)?;
            }
        }
        Ok(Self(bytes))
    }

    /// 64 lower-case hex digits without a newline.
    #[must_use]
    pub fn to_hex(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(64));
        for byte in self.0.iter() {
            write!(text, "{byte:02x}").expect("writing to a string succeeds");
        }
        text
    }

    /// Hint by which another node finds the same secret among its own.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        first(&self.derive(b"key id"))
    }

    /// Names the mesh that this secret opens.
    #[must_use]
    pub fn mesh_id(&self) -> [u8; 16] {
        first(&self.derive(b"mesh id"))
    }

    /// A key for one use, named by `label`.
    #[must_use]
    pub fn derive(&self, label: &[u8]) -> Zeroizing<[u8; 32]> {
        kdf::derive(SECRET_SALT, &self.0[..], label)
    }
}

/// Compared in constant time.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        constant_time::verify_slices_are_equal(&self.0[..], &other.0[..]).is_ok()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

fn hex_value(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

fn first<const N: usize>(key: &[u8; 32]) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    bytes
}

/// The secrets that a node accepts, 1 to [`MAX_SECRETS`], all different. The first is the one it uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secrets(Vec<Secret>);

impl Secrets {
    /// Checks and takes a list.
    ///
    /// # Errors
    /// The list is empty, too long or names a secret twice.
    pub fn new(secrets: Vec<Secret>) -> Result<Self, SecretError> {
        if secrets.is_empty() || secrets.len() > MAX_SECRETS {
            return Err(SecretError::Count(secrets.len()));
        }
        let mut ids: Vec<KeyId> = secrets.iter().map(Secret::key_id).collect();
        ids.sort_unstable();
        if ids.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(SecretError::Duplicate);
        }
        Ok(Self(secrets))
    }

    /// The secret in use.
    #[must_use]
    pub fn first(&self) -> &Secret {
        self.0.first().expect("the constructor refuses an empty list")
    }

    /// All accepted secrets, the one in use first.
    pub fn iter(&self) -> std::slice::Iter<'_, Secret> {
        self.0.iter()
    }

    /// The accepted secret that a hint means.
    #[must_use]
    pub fn by_key_id(&self, key_id: KeyId) -> Option<&Secret> {
        self.iter().find(|secret| secret.key_id() == key_id)
    }
}

impl<'a> IntoIterator for &'a Secrets {
    type Item = &'a Secret;
    type IntoIter = std::slice::Iter<'a, Secret>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    fn secret(byte: u8) -> Secret {
        Secret::generate([byte; 32])
    }

    #[test]
    fn text_form_reads_back_with_or_without_newline_and_in_capitals() {
        for text in [TEXT.to_owned(), format!("{TEXT}\n"), TEXT.to_uppercase()] {
            assert_eq!(Secret::parse_hex(&text).expect("it is the accepted form").to_hex().as_str(), TEXT);
        }
    }

    #[test]
    fn any_other_text_is_refused() {
        let long = format!("{TEXT}0");
        let wide = format!("{}é", &TEXT[..62]);
        let signed = format!("+{}", &TEXT[1..]);
        for text in ["", "\n", &TEXT[1..], &long, &wide, &signed, &format!("{TEXT}\n\n"), &format!(" {TEXT}")] {
            assert_eq!(Secret::parse_hex(text).err(), Some(SecretError::NotHex), "{text:?}");
        }
    }

    #[test]
    fn derived_values_are_the_same_in_every_release() {
        let secret = Secret::parse_hex(TEXT).expect("it is the accepted form");
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(&secret.key_id()), "06e5acf8");
        assert_eq!(hex(&secret.mesh_id()), "98fc6029696d45b62cf998b49a6dead6");
        assert_eq!(
            hex(&secret.derive(b"admit")[..]),
            "ad2ca85c24886ce1bc420f3423869980c7e09eb9a55f273ef102c5f6b3d57269"
        );
    }

    #[test]
    fn nothing_secret_is_printed() {
        assert_eq!(format!("{:?}", secret(1)), "Secret(..)");
    }

    #[test]
    fn a_list_holds_one_to_four_different_secrets() {
        assert_eq!(Secrets::new(vec![]).err(), Some(SecretError::Count(0)));
        assert_eq!(Secrets::new((0..5).map(secret).collect()).err(), Some(SecretError::Count(5)));
        assert_eq!(Secrets::new(vec![secret(1), secret(2), secret(1)]).err(), Some(SecretError::Duplicate));
        let secrets = Secrets::new((0..4).map(secret).collect()).expect("four differ");
        assert_eq!(secrets.first(), &secret(0));
        assert_eq!(secrets.by_key_id(secret(3).key_id()), Some(&secret(3)));
        assert_eq!(secrets.by_key_id(secret(4).key_id()), None);
    }

    proptest! {
        #[test]
        fn random_text_never_panics(text in any::<String>()) {
            let _ = Secret::parse_hex(&text);
        }
    }
}
