//! Length-prefixed frames on a QUIC stream: four bytes, big endian, then the frame.

use quinn::{ReadExactError, RecvStream, SendStream, WriteError};

/// Why a frame could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FramingError {
    /// The stream or its connection ended.
    #[error("the stream ended: {0}")]
    Read(#[from] ReadExactError),
    /// The stream or its connection ended.
    #[error("the stream ended: {0}")]
    Write(#[from] WriteError),
    /// The other side announced more than the place allows.
    #[error("the other side announced a frame of {length} bytes where {limit} are allowed")]
    TooLong {
        /// Bytes announced.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
}

/// Reads one frame of at most `limit` bytes. Not cancel-safe.
pub(super) async fn read_frame(stream: &mut RecvStream, limit: usize) -> Result<Vec<u8>, FramingError> {
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix).await?;
    let length = u32::from_be_bytes(prefix) as usize;
    if length > limit {
        return Err(FramingError::TooLong { length, limit });
    }
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame).await?;
    Ok(frame)
}

/// Writes one frame.
pub(super) async fn write_frame(stream: &mut SendStream, frame: &[u8]) -> Result<(), FramingError> {
    let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(frame).await?;
    Ok(())
}
