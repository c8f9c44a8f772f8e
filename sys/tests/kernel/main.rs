//! The kernel layer against the real kernel, with `ip` and `nft` as independent witnesses. Needs root; everything
//! happens in namespaces that each test makes and removes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod address;
mod link;
mod netns;
mod nexthop;
mod nft;
mod packet;
mod route;
mod sandbox;
mod vxlan;
mod watch;
