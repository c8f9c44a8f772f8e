//! All targets.

mod api;
mod cni;
mod gossip;
mod kernel;
mod keys;
mod links;
mod records;
mod ring;
mod rows;
mod settings;
mod state;
mod tunnel;

use crate::target::{Bound, Target};

/// What parsed JSON takes at most for each byte: an object of one key is seven bytes of text and a node of a tree.
const JSON: u64 = 600;

/// What a value in frames takes at most for each byte, while the list that holds it grows.
const FRAME: u64 = 200;

/// With its own checks switched on, redb asks for as much as a damaged page number says, twice, before it finds that the file
/// is shorter. Nobody touches that memory, so it costs nothing; as shipped, it compares checksums first.
const DATABASE_KB: u64 = 9 << 20;

const fn bound(fixed_kb: u64, per_byte: u64, longest: usize, dearness: u64) -> Bound {
    Bound { fixed: fixed_kb << 10, per_byte, longest, dearness }
}

/// Every place where bytes come in from elsewhere.
pub const TARGETS: &[Target] = &[
    Target { name: "records", run: records::run, seeds: records::seeds, bound: bound(16, FRAME, 20_000, 1) },
    Target { name: "frames", run: gossip::frame, seeds: gossip::frame_seeds, bound: bound(64, FRAME, 70_000, 1) },
    Target { name: "gossip", run: gossip::receive, seeds: gossip::seeds, bound: bound(2048, FRAME, 70_000, 20) },
    Target { name: "keys", run: keys::run, seeds: keys::seeds, bound: bound(16, 16, 200, 1) },
    Target {
        name: "admission",
        run: links::admission,
        seeds: links::admission_seeds,
        bound: bound(64, FRAME, 1100, 4),
    },
    Target { name: "control", run: links::control, seeds: links::control_seeds, bound: bound(64, FRAME, 1400, 2) },
    Target {
        name: "datagrams",
        run: tunnel::datagrams,
        seeds: tunnel::datagram_seeds,
        bound: bound(512, FRAME, 8000, 40),
    },
    Target { name: "packets", run: tunnel::packets, seeds: tunnel::packet_seeds, bound: bound(64, FRAME, 66_000, 1) },
    Target { name: "probes", run: tunnel::probes, seeds: tunnel::probe_seeds, bound: bound(16, 8, 1600, 1) },
    Target { name: "ring", run: ring::run, seeds: ring::seeds, bound: bound(2048, FRAME, 8000, 20) },
    Target { name: "rows", run: rows::run, seeds: rows::seeds, bound: bound(2048, FRAME, 8000, 20) },
    Target { name: "database", run: state::run, seeds: state::seeds, bound: bound(DATABASE_KB, FRAME, 4000, 1000) },
    Target { name: "secret_file", run: state::secret, seeds: state::secret_seeds, bound: bound(64, 16, 100, 20) },
    Target { name: "cni", run: cni::run, seeds: cni::seeds, bound: bound(256, JSON, 8000, 4) },
    Target { name: "requests", run: api::requests, seeds: api::request_seeds, bound: bound(4096, JSON, 8000, 2) },
    Target { name: "answers", run: api::answers, seeds: api::answer_seeds, bound: bound(64, JSON, 8000, 2) },
    Target { name: "settings", run: settings::run, seeds: settings::seeds, bound: bound(4096, JSON, 4000, 8) },
    Target { name: "netlink", run: kernel::netlink, seeds: kernel::netlink_seeds, bound: bound(64, FRAME, 8000, 1) },
    Target { name: "counters", run: kernel::counters, seeds: kernel::counter_seeds, bound: bound(64, JSON, 4000, 1) },
];
