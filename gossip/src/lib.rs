//! Membership, topology and replicated stores as one state machine without IO.
//!
//! Every peer is the **origin** of one map from (store, key) to value and its only writer. A signed **manifest** pins
//! the map by incarnation, sequence and the root of a hash trie over its entries, so anyone may pass it on, nobody can
//! alter it, and a deletion leaves nothing behind. Changes travel as **deltas** from one manifest to the next, pushed
//! at once over all links; who misses one pulls a **snapshot** of that origin; **digests** of all manifests are
//! compared when a link comes up and when heartbeats disagree.
//!
//! The driver owns the links (authenticated, each to one peer) and the clock. It calls [`Gossip::link_up`],
//! [`Gossip::receive`], [`Gossip::handle_timeout`] and the typed store calls, and after each of them drains
//! [`Gossip::poll_transmit`] and [`Gossip::poll_event`] and re-arms its timer from [`Gossip::poll_timeout`].
//!
//! Invariants:
//! - What an origin holds always matches a manifest that it signed; a frame is applied whole or not at all.
//! - All nodes order the manifests of an origin alike, so equal knowledge gives equal maps.
//! - Nothing that arrives closes a link, panics or grows memory beyond the constants of [`limits`].

mod clock;
mod event;
mod frames;
mod gossip;
#[cfg(test)]
mod hostile;
pub mod limits;
mod link;
mod liveness;
mod membership;
mod message;
pub mod neighbours;
mod replica;
mod routing;
mod snapshot;
mod store;
mod sync;
mod trie;

pub use event::{Counters, Event, Full, Member, MemberState, Misbehaved, Transmit};
pub use gossip::Gossip;
