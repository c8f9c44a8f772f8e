//! Everything that touches the kernel, and the only crate that may hold unsafe code.
//!
//! - [`netlink`]: links, addresses, routes, nexthop objects and neighbours over one blocking socket
//! - [`netns`]: network namespaces
//! - [`tun`]: the TUN device with offloads
//! - [`udp`]: UDP sockets with segmentation and coalescing offloads
//! - [`nft`]: nftables through the `nft` program
//! - [`packet`]: Ethernet frames of a type of their own
//! - [`wake`]: ends the waits of other threads
//! - [`sysctl`], [`capability`], [`process`]: kernel settings, privileges, programs started in a namespace

pub mod capability;
mod error;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod packet;
pub mod process;
pub mod sysctl;
pub mod tun;
pub mod udp;
pub mod wake;

pub use error::{Error, Result};
