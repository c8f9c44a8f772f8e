//! Identity keys, mesh secrets and the mutual proof that admits a peer.
//!
//! A node's [`Identity`] grows from one 32-byte seed that is kept in its state directory; its [`PublicKey`] names it to
//! everyone else. A [`Secret`] makes whoever knows it a member of a mesh. [`admission`] is the short exchange in which
//! two nodes prove to each other, over an established TLS 1.3 connection, that they know the same secret.
//!
//! Nothing here reads files, sockets, clocks or random sources: seeds and random bytes come in as arguments. Private
//! bytes are wiped when dropped and never printed.

pub mod admission;
mod identity;
mod kdf;
mod secret;

pub use identity::{Identity, PublicKey, Signature, SpkiError};
pub use secret::{KeyId, MAX_SECRETS, Secret, SecretError, Secrets};
