//! What peers share: identifiers, the total order of replicated entries, the record types of the stores and the frame
//! codec.
//!
//! Nothing here does IO or keeps state. Every type that crosses the network is encoded with postcard inside a frame
//! that opens with a format version ([`frame`]); fields and variants are only ever appended, and snapshot tests pin
//! the bytes.

pub mod frame;
mod id;
mod order;
pub mod record;

pub use id::{Incarnation, ParsePeerIdError, PeerId};
pub use order::{Order, Version};
