//! Noise on every door: counted, ignored, and nothing of the daemon's health or memory goes with it.
//! `MESHWORK_SEED` replays a run.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails at that line")]

use std::fs;
use std::io::{Read, Write};
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use meshwork_api::model::Status;
use meshwork_lab::{Host, Lab, Look, eventually, figure};

const DATAGRAMS: usize = 3000;
const REQUESTS: usize = 200;
/// What noise may cost the daemon in memory: buffers that grow once, not once per packet.
const GROWTH_KIB: u64 = 32 * 1024;

#[test]
fn random_bytes_on_the_port_and_the_socket_are_counted_and_ignored() {
    let mut noise = Noise::new();
    let lab = Lab::build("randombytes").unwrap().hosts(2).up().unwrap();
    let host = lab.host(1);
    let pods = [host.pod("a").unwrap(), lab.host(2).pod("b").unwrap()];
    let (memory, drops) = (memory_kib(host), dropped(host));

    shout_at_the_port(&lab, &mut noise);
    shout_at_the_socket(host, &mut noise);

    let counted = eventually(Duration::from_secs(10), "noise that is counted", || {
        let counted = dropped(host).saturating_sub(drops);
        // Half of them look like ours, and the kernel has room for all.
        let enough = counted >= DATAGRAMS as u64 / 4;
        Ok(if enough { Look::Done(counted) } else { Look::Missing(format!("more drops than {counted}")) })
    })
    .unwrap();
    let status: Status = host.get("/v1/status").unwrap();
    assert!(status.ready && status.healthy, "{status:?}");
    assert_eq!(pods[0].ping(pods[1].ipv4().unwrap()).unwrap().received, 1, "the mesh goes on");
    let grown = memory_kib(host).saturating_sub(memory);
    figure(format_args!("{counted} of {DATAGRAMS} datagrams of noise counted, {REQUESTS} requests of noise survived"));
    figure(format_args!("memory grew by {grown} KiB (bar {GROWTH_KIB} KiB)"));
    assert!(grown < GROWTH_KIB, "{grown} KiB more memory");
}

/// Datagrams of all sizes; many begin like ours (below 0x40), like QUIC or like a VXLAN header.
fn shout_at_the_port(lab: &Lab, noise: &mut Noise) {
    let to = (lab.host(1).underlay()[0], 6783);
    let socket = lab.host(2).namespace().run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    for number in 0..DATAGRAMS {
        let length = noise.below(1473);
        let mut bytes = noise.bytes(length);
        if let Some([first, version, _, zero]) = bytes.first_chunk_mut() {
            // Noise in every kind of packet of ours gets past the header; the rest looks like QUIC.
            let ours = [(number / 4 % 8) as u8 + 1, 1, 0];
            match number % 4 {
                0 | 1 => [*first, *version, *zero] = ours,
                2 => *first |= 0x40,
                _ => *first |= 0xc0,
            }
        }
        socket.send_to(&bytes, to).unwrap();
    }
}

/// Requests that are none. The daemon may answer, refuse or hang up.
fn shout_at_the_socket(host: &Host, noise: &mut Noise) {
    for _ in 0..REQUESTS {
        let length = noise.below(4096);
        let mut stream = UnixStream::connect(host.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let _ = stream.write_all(&noise.bytes(length));
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read(&mut [0; 512]);
    }
}

fn dropped(host: &Host) -> u64 {
    host.get::<Status>("/v1/status").unwrap().drops.values().sum()
}

fn memory_kib(host: &Host) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", host.daemon_id().unwrap())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    resident.trim().trim_end_matches(" kB").parse().unwrap()
}

/// SplitMix64 (Steele, Lea, Flood 2014): enough for noise, and the same everywhere for one seed.
struct Noise(u64);

impl Noise {
    fn new() -> Self {
        let seed = std::env::var("MESHWORK_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
        eprintln!("MESHWORK_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).collect();
        bytes.truncate(length);
        bytes
    }
}
