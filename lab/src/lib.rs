//! Many Meshwork hosts on one machine, in network namespaces.
//!
//! A [`Lab`] is a fabric namespace that routes between host namespaces; each [`Host`] has its own daemon, state, socket and
//! pods. Everything that happens to real hosts can happen to these: links are cut, parted, lossy, slow, narrow or out of
//! order ([`Link`]), hosts sit behind translators ([`Nat`]), daemons are killed and frozen, disks rolled back and cloned
//! ([`Snapshot`]), machines booted again, and [`faults`] does much of it by a schedule from a seed. [`Capture`] shows what is
//! on the wire. Tests, the demo and the benches stand on it and read like a topology:
//!
//! ```no_run
//! # fn main() -> Result<(), meshwork_lab::Error> {
//! use std::time::Duration;
//! use meshwork_lab::{Lab, Link, Nat};
//!
//! let slow = Link::default().delay(Duration::from_millis(20)).loss(1.0);
//! let lab = Lab::build("story")?.hosts(3).link(2, slow).nat(3, Nat::PortRestricted).up()?;
//! let one = lab.host(1).pod("one")?;
//! let two = lab.host(2).pod("two")?;
//! assert_eq!(one.ping(two.ipv4()?)?.received, 1);
//!
//! lab.partition(&[&[1, 2], &[3]])?;
//! lab.link(2, &Link::default())?;
//! lab.heal()?;
//! lab.host(3).kill()?;
//! lab.host(3).start()?;
//! lab.reboot(2)?;
//! lab.host(2).start()?;
//! lab.wait_until_ready(Duration::from_secs(30))?;
//! # Ok(())
//! # }
//! ```
//!
//! Everything of a lab carries its name, so labs run side by side, and [`remains::clear`] takes away what any of them left.
//! It needs root, or the user namespace that `meshlab --rootless` makes, and the programs of the same build ([`Programs`]).

pub mod bench;
mod builder;
mod capture;
pub mod churn;
pub mod cni;
mod conditions;
pub mod demo;
mod disk;
mod error;
mod fabric;
pub mod faults;
mod figure;
mod host;
pub mod interrupt;
mod iperf;
pub mod kills;
mod lab;
mod link;
mod namespace;
mod nat;
pub mod pcap;
mod ping;
mod pod;
mod programs;
pub mod random;
mod readiness;
mod reboot;
pub mod remains;
pub mod say;
pub mod scale;
pub mod switching;
mod table;
pub mod topology;
mod volume;
mod wait;
pub mod wire;

pub use builder::Builder;
pub use capture::Capture;
pub use disk::Snapshot;
pub use error::{Error, Result};
pub use fabric::Fabric;
pub use figure::{figure, took, took_within};
pub use host::Host;
pub use iperf::{Iperf, Throughput};
pub use lab::Lab;
pub use link::{Link, Rate};
pub use namespace::{Namespace, Running};
pub use nat::Nat;
pub use ping::{Answers, MAX_MARKER, Ping};
pub use pod::Pod;
pub use programs::Programs;
pub use wait::{Look, eventually};
