//! The node's durable state: identity, incarnation, ring and leases in one embedded database.
//!
//! [`NodeState`] owns one directory: `identity` (the seed of the node's keys), `meshwork.redb` (everything else) and
//! `lock` (held while a daemon runs). Identity and database belong together: the database names its peer, and
//! whenever one of them is damaged, foreign or missing, both are moved aside, so that the next start is a new peer
//! that cannot hand out addresses a second time. Every change is one transaction, on disk before it is answered.
//!
//! Mesh secrets lie beside it or elsewhere: [`load_secret_files`] and [`create_secret`].

mod database;
mod error;
mod file;
mod node;
mod secret;

pub use error::{SecretFileError, StateError};
pub use node::NodeState;
pub use secret::{LoadedSecrets, SecretWarning, create_secret, load_secret_files};
