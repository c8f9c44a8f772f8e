//! Crowds at every door: strangers who begin connections and leave them, people without the right to ask, and clients
//! that use up the daemon's descriptors. Memory stays bounded, the mesh goes on, and the API answers.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails at that line")]

use std::fs::{self, Permissions};
use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use meshwork_api::model::Status;
use meshwork_lab::{Host, Lab, Look, Ping, Pod, Programs, eventually, figure, took};
use rustls::Side;
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::quic::{Keys, Version};

const DEADLINE: Duration = Duration::from_secs(20);
const STRANGERS: u64 = 10_000;
/// As many wait for an answer at once.
const CROWD: usize = 50;
/// What they may cost the daemon in memory: buffers that grow once, not once per stranger.
const GROWTH_KIB: u64 = 32 * 1024;
/// Descriptors of a daemon that has few: it uses about forty.
const DESCRIPTORS: usize = 64;

#[test]
fn ten_thousand_strangers_who_begin_a_connection_cost_bounded_memory_and_stop_no_member() {
    let lab = Lab::build("blstrangers").unwrap().hosts(2).up().unwrap();
    let host = lab.host(1);
    let pods = [host.pod("one").unwrap(), lab.host(2).pod("two").unwrap()];
    let memory = memory_kib(host);
    let door = SocketAddr::new(host.underlay()[0], 6783);
    let mut answered = call(&lab, door, 0..STRANGERS / 2);
    lab.host(2).kill().unwrap();
    lab.host(2).start().unwrap();
    answered += call(&lab, door, STRANGERS / 2..STRANGERS);

    lab.wait_until_ready(DEADLINE).unwrap();
    goes_on(host, &pods);
    let grown = memory_kib(host).saturating_sub(memory);
    figure(format_args!("{answered} of {STRANGERS} strangers on the port answered or turned away"));
    figure(format_args!("memory grew by {grown} KiB (bar {GROWTH_KIB} KiB)"));
    // Whoever is dropped in a full queue is not answered.
    assert!(answered > STRANGERS / 2, "{answered} calls were answered at all");
    assert!(grown < GROWTH_KIB, "{grown} KiB more memory");
}

#[test]
fn ten_thousand_half_open_connections_to_the_socket_leave_nothing_behind() {
    let lab = Lab::build("blhalfopen").unwrap().hosts(2).up().unwrap();
    let host = lab.host(1);
    let pods = [host.pod("one").unwrap(), lab.host(2).pod("two").unwrap()];
    let (memory, open) = (memory_kib(host), descriptors(host));
    for _ in 0..STRANGERS / CROWD as u64 {
        drop(half_requests(host, CROWD));
    }
    goes_on(host, &pods);
    let left = eventually(DEADLINE, "connections that are gone", || {
        let left = descriptors(host).saturating_sub(open);
        Ok(if left < CROWD { Look::Done(left) } else { Look::Missing(format!("{left} more descriptors")) })
    })
    .unwrap();
    let grown = memory_kib(host).saturating_sub(memory);
    figure(format_args!("{STRANGERS} half requests on the socket left {left} descriptors open"));
    figure(format_args!("memory grew by {grown} KiB (bar {GROWTH_KIB} KiB)"));
    assert!(grown < GROWTH_KIB, "{grown} KiB more memory");
}

#[test]
fn a_daemon_without_descriptors_says_so_keeps_its_mesh_and_recovers() {
    let lab = Lab::build("blfew").unwrap().hosts(2).up().unwrap();
    let host = lab.host(1);
    let pods = [host.pod("one").unwrap(), lab.host(2).pod("two").unwrap()];
    let pid = host.daemon_id().unwrap().to_string();
    host.exec(["prlimit", "--pid", &pid, &format!("--nofile={DESCRIPTORS}")]).unwrap();

    let crowd = half_requests(host, DESCRIPTORS);
    eventually(DEADLINE, "a log that tells of descriptors", || {
        let told = fs::read_to_string(host.log()).unwrap();
        let told = told.lines().any(|line| line.contains("accept error") && line.contains("Too many open files"));
        Ok(if told { Look::Done(()) } else { Look::Missing(host.log_tail()) })
    })
    .unwrap();
    let unheard = host.namespace().output(host.meshctl_line(&["--timeout", "1", "status"])).unwrap();
    assert_eq!(unheard.status.code(), Some(3), "{unheard:?}");
    assert!(answers(&pods), "the mesh goes on");

    let freed = Instant::now();
    drop(crowd);
    eventually(DEADLINE, "an API that answers", || {
        let answer = host.get::<Status>("/v1/status");
        Ok(answer.map_or_else(|error| Look::Missing(error.to_string()), |_| Look::Done(())))
    })
    .unwrap();
    took("API back after its descriptors were let go", freed.elapsed());
    host.pod("later").unwrap();
    lab.wait_until_ready(DEADLINE).unwrap();
}

#[test]
fn a_user_without_the_right_is_told_so_and_the_socket_is_roots_alone() {
    let lab = Lab::build("bluser").unwrap().hosts(1).up().unwrap();
    let host = lab.host(1);
    assert_eq!(fs::metadata(host.socket()).unwrap().permissions().mode() & 0o777, 0o600);
    // Only the socket itself is to be in the user's way.
    for directory in [lab.name().directory(), host.directory()] {
        fs::set_permissions(directory, Permissions::from_mode(0o711)).unwrap();
    }
    let meshctl = host.directory().join("meshctl");
    fs::copy(Programs::find().unwrap().meshctl, &meshctl).unwrap();
    let user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"].map(Into::into);
    let question = [meshctl.into(), "--socket".into(), host.socket().into(), "status".into()];
    let output = host.namespace().output(user.into_iter().chain::<[std::ffi::OsString; 4]>(question)).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("Permission denied") && said.contains("root"), "{said}");
    assert!(output.stdout.is_empty(), "nothing is told");
    figure("refused with code 3, 0 bytes told");
}

/// Calls by strangers, a crowd from each port, who never go on. Tells how many got an answer.
fn call(lab: &Lab, door: SocketAddr, strangers: std::ops::Range<u64>) -> u64 {
    let strangers: Vec<u64> = strangers.collect();
    let mut answered = 0;
    for crowd in strangers.chunks(CROWD) {
        let socket = lab.host(2).namespace().run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        for &stranger in crowd {
            socket.send_to(&initial(stranger), door).unwrap();
        }
        answered += crowd.iter().map_while(|_| socket.recv_from(&mut [0; 1500]).ok()).count() as u64;
    }
    answered
}

/// The first packet of a connection (RFC 9000, section 17.2.2; RFC 9001, section 5), which says nothing but a ping.
fn initial(stranger: u64) -> Vec<u8> {
    const SIZE: usize = 1200;
    const TAG: usize = 16;
    let suite = TLS13_AES_128_GCM_SHA256.tls13().unwrap();
    let id = stranger.to_be_bytes();
    let keys = Keys::initial(Version::V1, suite, suite.quic.unwrap(), &id, Side::Client).local;
    let mut header = [&[0xc3, 0, 0, 0, 1, 8][..], &id, &[8], &id, &[0]].concat();
    let number = header.len() + 2;
    header.extend((0x4000 | u16::try_from(SIZE - number).unwrap()).to_be_bytes());
    header.extend([0; 4]);
    let mut payload = vec![0; SIZE - header.len() - TAG];
    payload[0] = 0x01;
    let tag = keys.packet.encrypt_in_place(0, &header, &mut payload).unwrap();
    let mut packet = [&header, &payload[..], tag.as_ref()].concat();
    let (clear, sealed) = packet.split_at_mut(number + 4);
    let (first, rest) = clear.split_first_mut().unwrap();
    keys.header.encrypt_in_place(&sealed[..16], first, &mut rest[number - 1..]).unwrap();
    packet
}

/// Clients that begin a request and do not end it.
fn half_requests(host: &Host, count: usize) -> Vec<UnixStream> {
    let connect = |_| {
        let mut stream = UnixStream::connect(host.socket()).unwrap();
        stream.write_all(b"GET /v1/status HTTP/1.1\r\nHost: me").unwrap();
        stream
    };
    (0..count).map(connect).collect()
}

fn goes_on(host: &Host, pods: &[Pod; 2]) {
    let status: Status = host.get("/v1/status").unwrap();
    assert!(status.ready && status.healthy, "{status:?}");
    assert!(answers(pods), "the mesh goes on");
}

fn answers(pods: &[Pod; 2]) -> bool {
    Ping::to(pods[1].ipv4().unwrap()).run(pods[0].namespace()).unwrap().received == 1
}

fn descriptors(host: &Host) -> usize {
    fs::read_dir(format!("/proc/{}/fd", host.daemon_id().unwrap())).unwrap().count()
}

fn memory_kib(host: &Host) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", host.daemon_id().unwrap())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    resident.trim().trim_end_matches(" kB").parse().unwrap()
}
