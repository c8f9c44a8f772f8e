//! Membership, topology and replicated stores as one state machine without IO.
//!
//! Every peer is the **origin** of one map from (store, key) to value and its only writer. A signed **manifest** pins
//! the map by incarnation, sequence and a hash over its entries, so anyone may pass it on, nobody can alter it, and a
//! deletion leaves nothing behind. Changes travel as **deltas** from one manifest to the next, pushed over all links
//! while those carry little and **announced** where they carry much or nobody waits for them; who misses one **pulls** it, or
//! the state of that origin, from one neighbour at a time. Every heartbeat carries one hash over all manifests. When two disagree, or a link comes
//! up, both sides **walk** down their tries of hashes to what differs.
//!
//! The driver owns the links (authenticated, each to one peer) and the clock. It calls [`Gossip::link_up`],
//! [`Gossip::receive`], [`Gossip::handle_timeout`] and the typed store calls, and after each of them drains
//! [`Gossip::poll_transmit`] and [`Gossip::poll_event`] and re-arms its timer from [`Gossip::poll_timeout`].
//!
//! Invariants:
//! - What an origin holds always matches a manifest that it signed; a state is taken whole or not at all.
//! - All nodes order the manifests of an origin alike, so equal knowledge gives equal maps.
//! - Nothing that arrives closes a link, panics or grows memory beyond the constants of [`limits`].

#[cfg(feature = "adversary")]
pub mod adversary;
mod answer;
mod block;
mod clock;
#[doc(hidden)]
pub mod decoders;
mod event;
#[cfg(feature = "adversary")]
mod folded;
mod frames;
mod gossip;
mod hash;
mod hearing;
#[cfg(test)]
mod hostile;
pub mod limits;
mod link;
mod liveness;
mod membership;
mod message;
pub mod neighbours;
mod own;
#[cfg(test)]
mod patience;
mod pull;
mod pulse;
mod reach;
mod recent;
mod replica;
mod routing;
mod store;
mod sync;
mod taken;
mod tell;
mod trie;
mod walk;

pub use event::{Counters, Event, Full, Member, MemberState, Misbehaved, Transmit};
#[cfg(feature = "adversary")]
pub use folded::Folded;
pub use gossip::Gossip;
pub use hearing::Hearing;
pub use replica::Pool;
