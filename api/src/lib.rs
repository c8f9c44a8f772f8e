//! Typed control API of `meshd`: HTTP and JSON on a unix socket.
//!
//! [`model`] holds every request and answer, shared by the daemon, `meshctl` and `mesh-cni`; [`event`] what the daemon
//! tells of its own accord; [`client`] is a small blocking client; [`link`] derives what both sides of a pod's link have
//! to agree on. `GET /v1/<noun>` answers the
//! model of that noun; errors are [`model::ErrorBody`].

pub mod client;
pub mod event;
pub mod link;
pub mod model;
