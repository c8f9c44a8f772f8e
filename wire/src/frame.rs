//! Frames: a format version byte, then one postcard value, then nothing.
//!
//! The length is checked before anything is decoded, and what a frame claims to hold can never allocate more than a
//! small multiple of what it is, because postcard takes collections element by element from the bytes that are there.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Format version that this build writes.
pub const FORMAT: u8 = 1;

/// Room for most frames and records, so that few of them grow while they are written.
const USUAL: usize = 256;

/// A frame that cannot be used. The sender is to blame, or newer than this build.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than the place it came through allows.
    #[error("frame of {length} bytes exceeds the limit of {limit}")]
    TooLong {
        /// Bytes received.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Written by a build that speaks another format.
    #[error("frame format {0} is not known to this build (it speaks {FORMAT})")]
    UnknownFormat(u8),
    /// Truncated, damaged or followed by more bytes.
    #[error("malformed frame: {0}")]
    Malformed(&'static str),
}

/// Encodes a value as a frame.
///
/// # Panics
/// Never for the types of this project: postcard fails only on sequences of unknown length and maps of such.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    encode_onto(Vec::with_capacity(USUAL), value)
}

/// Encodes a value as a frame behind what is there already: whoever writes many uses the same room again.
///
/// # Panics
/// As [`encode`].
pub fn encode_onto<T: Serialize + ?Sized>(mut bytes: Vec<u8>, value: &T) -> Vec<u8> {
    bytes.push(FORMAT);
    postcard::to_extend(value, bytes).expect("wire types have known lengths")
}

/// Decodes a frame of at most `limit` bytes.
///
/// # Errors
/// [`FrameError`] says what is wrong with it.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<T, FrameError> {
    if bytes.len() > limit {
        return Err(FrameError::TooLong { length: bytes.len(), limit });
    }
    match bytes.split_first() {
        None => Err(FrameError::Malformed("empty")),
        Some((&FORMAT, body)) => match postcard::take_from_bytes(body) {
            Ok((value, [])) => Ok(value),
            Ok(_) => Err(FrameError::Malformed("trailing bytes")),
            Err(_) => Err(FrameError::Malformed("not a value of the expected type")),
        },
        Some((&other, _)) => Err(FrameError::UnknownFormat(other)),
    }
}

/// Decodes what stands first in a frame of several values, such as the first field of a struct, and leaves the rest
/// unread.
///
/// # Errors
/// [`FrameError`] says what is wrong with it.
pub fn decode_first<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, FrameError> {
    match bytes.split_first() {
        None => Err(FrameError::Malformed("empty")),
        Some((&FORMAT, body)) => match postcard::take_from_bytes(body) {
            Ok((value, _)) => Ok(value),
            Err(_) => Err(FrameError::Malformed("not a value of the expected type")),
        },
        Some((&other, _)) => Err(FrameError::UnknownFormat(other)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_value_survives() {
        let frame = encode(&("mesh", 7u32));
        assert_eq!(decode::<(String, u32)>(&frame, 64), Ok(("mesh".to_owned(), 7)));
    }

    #[test]
    fn the_first_value_is_read_without_the_rest() {
        let frame = encode(&("mesh", 7u32));
        assert_eq!(decode_first::<String>(&frame), Ok("mesh".to_owned()));
        assert_eq!(decode_first::<String>(&[9, 0]), Err(FrameError::UnknownFormat(9)));
        assert!(decode_first::<String>(&frame[..3]).is_err() && decode_first::<String>(&[]).is_err());
    }

    #[test]
    fn long_foreign_truncated_and_trailing_frames_are_refused() {
        let frame = encode(&7u32);
        assert_eq!(decode::<u32>(&frame, 1), Err(FrameError::TooLong { length: 2, limit: 1 }));
        assert_eq!(decode::<u32>(&[9, 7], 64), Err(FrameError::UnknownFormat(9)));
        assert!(matches!(decode::<u32>(&[], 64), Err(FrameError::Malformed(_))));
        assert!(matches!(decode::<u32>(&[FORMAT], 64), Err(FrameError::Malformed(_))));
        assert!(matches!(decode::<u32>(&[FORMAT, 7, 7], 64), Err(FrameError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = decode::<(String, Vec<u64>, Option<[u8; 16]>)>(&bytes, 128);
        }
    }
}
