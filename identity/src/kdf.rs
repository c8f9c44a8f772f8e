//! HKDF-SHA-256 (RFC 5869) to 32 bytes.

use aws_lc_rs::hkdf;
use zeroize::Zeroizing;

/// Derives 32 bytes from `input`. `salt` names the kind of input and `label` the use, so no two uses share a key.
pub(crate) fn derive(salt: &[u8], input: &[u8], label: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut output = Zeroizing::new([0; 32]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(input)
        .expand(&[label], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut output[..]))
        .expect("one hash length is within what HKDF can expand to");
    output
}
