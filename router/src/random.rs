//! Random bytes from the cryptographic library.

/// Fills the buffer.
///
/// # Panics
/// When the kernel gives no randomness: nothing that a node does is safe then.
pub(crate) fn fill(bytes: &mut [u8]) {
    aws_lc_rs::rand::fill(bytes).expect("the kernel's random source works");
}

/// A random number.
pub(crate) fn number() -> u64 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    u64::from_le_bytes(bytes)
}
