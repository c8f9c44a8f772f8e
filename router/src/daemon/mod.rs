//! Start and end of the daemon.
//!
//! The order matters: configuration, privileges, the firewall and secrets are judged first and touch nothing; every port is bound
//! before an identity is made, and the state directory is locked before the first kernel object is. So a daemon that
//! cannot run leaves nothing half-made. On the way out links close and threads end, and kernel objects stay, but for
//! those of a node that turns out to be a copy of another.

mod error;
mod port;
mod secrets;
mod servers;
mod signals;

use std::fs;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;
use std::{env, panic, process, thread};

use meshwork_identity::{Identity, Secrets};
use meshwork_ipam::{Config as IpamConfig, Init, Ipam, Lease};
use meshwork_state::NodeState;
use meshwork_sys::netlink::Netlink;
use meshwork_sys::nft;
use meshwork_sys::tun::{Tun, TunOptions};
use meshwork_sys::udp::UdpSocket;
use meshwork_tunnel::{Tunnel, TunnelConfig};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;

use self::servers::{Servers, SocketPath};
use self::signals::{Signals, told_to_stop};
use crate::addresses::{AddressEvent, Allocator};
use crate::api::{self, Services, StreamSlots};
use crate::config::{Config, Flags, RingStart, meaningless_variables};
use crate::control::{ControlEndpoint, ControlQueue, LinkEvent, QueueSink, Run};
use crate::kernel::driver::KernelDriver;
use crate::kernel::guard;
use crate::kernel::underlay::{self, Underlay};
use crate::kernel::{TUN_NAME, held_by_pods, purge};
use crate::log::LogFilter;
use crate::node::{self, Lost, NodeHandle, Parts};
use crate::sandboxes;

pub use error::StartError;

/// Events of links that may wait for the actor, 64 KB each at most; beyond it the links' readers wait, and QUIC slows
/// their senders.
const LINK_EVENTS: usize = 256;

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// [`StartError`] says why it could not run and what to do.
pub fn main(flags: Flags) -> Result<(), StartError> {
    let config = flags.resolve(&host_name())?;
    let log = LogFilter::start(&config.log).map_err(StartError::Log)?;
    let variables = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in meaningless_variables(variables) {
        tracing::warn!(%name, "this variable sets nothing: see `meshd --help` for the names of settings");
    }
    let missing = underlay::missing_capabilities()?;
    if !missing.is_empty() {
        return Err(StartError::Capability(missing));
    }
    if config.purge {
        return purge_everything();
    }
    // Only to see that it can be asked: without the firewall nothing keeps packets from leaving in clear.
    nft::list_table("inet", guard::TABLE_NAME)?;
    end_with_any_thread();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(config, log))
}

/// A thread that panics takes the process with it: a daemon without its allocator, kernel thread or packet pump would
/// look alive and do nothing, while one that ends is started again. Tasks run on the main thread and end alone.
fn end_with_any_thread() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        report(panic);
        if thread::current().name() != Some("main") {
            process::exit(1);
        }
    }));
}

fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "node".to_owned() } else { name.to_owned() }
}

fn purge_everything() -> Result<(), StartError> {
    let mut netlink = Netlink::connect()?;
    if netlink.link(TUN_NAME)?.is_some() {
        // Fails while a daemon holds the device: it would put back half of what is removed under it.
        drop(Tun::open(TUN_NAME, TunOptions { persistent: true, ..TunOptions::default() })?);
    }
    let removed = purge::purge(&mut netlink)?;
    let mut out = std::io::stdout().lock();
    let lines = removed.iter().map(|what| format!("  {what}"));
    for line in std::iter::once(format!("removed {} kernel objects", removed.len())).chain(lines) {
        // Whoever reads may have read enough.
        let _ = writeln!(out, "{line}");
    }
    Ok(())
}

/// What is opened before the first kernel object is made.
struct Opened {
    host: Host,
    ports: Ports,
    signals: Signals,
}

/// Who this node is and what it knows from before.
struct Host {
    state: NodeState,
    run: Run,
    identity: Arc<Identity>,
    secrets: Secrets,
}

/// Where it listens.
struct Ports {
    socket: Arc<UdpSocket>,
    metrics: TcpListener,
    api: UnixListener,
    path: SocketPath,
}

async fn run(config: Config, log: LogFilter) -> Result<(), StartError> {
    let Opened { host, ports, signals } = open(&config).await?;
    let (link_sender, link_events) = mpsc::channel(LINK_EVENTS);
    let (address_sender, address_events) = mpsc::unbounded_channel();
    let config = Arc::new(config);
    let found_tun = Netlink::connect()?.link(TUN_NAME)?.is_some();
    let parts = assemble(Arc::clone(&config), host, ports.socket, link_sender, address_sender)?;

    let (node, questions) = NodeHandle::new();
    let (allocator, kernel) = (parts.allocator.clone(), Arc::clone(&parts.kernel));
    tokio::spawn(node::lease_own_address(allocator.clone(), node.clone()));
    tokio::spawn(sandboxes::reconcile(allocator.clone(), node.clone()));
    tokio::spawn(secrets::reload(config, signals.hangup, node.clone()));
    let services = Services { node, allocator, kernel, log, streams: StreamSlots::default() };
    let servers = Servers::start(ports.api, ports.metrics, services);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), listen = %parts.listen, mtu = parts.mtu, "meshd runs");
    let stop = told_to_stop(signals.terminate, signals.interrupt);
    let ended = node::run(parts, questions, link_events, address_events, stop).await;
    servers.end().await;
    drop(ports.path);
    if let (Err(Lost::IdentityInUse(_)), false) = (&ended, found_tun) {
        // Nothing of ours was here before, and this node is not to be.
        purge::purge(&mut Netlink::connect()?)?;
    }
    Ok(ended?)
}

/// Makes the TUN and starts everything that has a thread or a socket of its own.
fn assemble(
    config: Arc<Config>,
    host: Host,
    socket: Arc<UdpSocket>,
    link_events: mpsc::Sender<LinkEvent>,
    address_events: mpsc::UnboundedSender<AddressEvent>,
) -> Result<Parts, StartError> {
    let mut netlink = Netlink::connect()?;
    let underlay = Underlay::read(&mut netlink, config.range4, config.range6)?;
    let mtu = config.mtu.unwrap_or_else(|| underlay.pod_mtu());
    let mut ipam = restore(&config, &host)?;
    refuse_overlap(&underlay, &ipam)?;
    // Before the kernel thread sweeps: routes may be all that is left of leases that the disk has lost.
    ipam.avoid(held_by_pods(&mut netlink)?);
    let tun = prepare_host(&mut netlink)?;
    let Host { state, run, identity, secrets } = host;
    let incarnation = run.incarnation;

    let control_queue = Arc::new(ControlQueue::default());
    let (reset_key, listen, prefers_aes) = (reset_key(&identity), socket.local_address(), prefers_aes());
    let control = ControlEndpoint::start(
        &identity,
        run,
        secrets.clone(),
        &reset_key,
        Arc::clone(&socket),
        Arc::clone(&control_queue),
        link_events,
    )?;
    let tunnel = TunnelConfig {
        identity: Arc::clone(&identity),
        secrets: secrets.clone(),
        incarnation,
        prefers_aes,
        inner_mtu: mtu,
    };
    let tunnel = Tunnel::start(tunnel, tun, socket, Box::new(QueueSink(Arc::clone(&control_queue))))?;
    let allocator = Allocator::start(ipam, state, address_events)?;
    let kernel = Arc::new(KernelDriver::start(Netlink::connect()?)?);
    Ok(Parts {
        config,
        identity,
        run,
        control,
        control_queue,
        tunnel,
        kernel,
        allocator,
        underlay,
        netlink,
        listen,
        mtu,
        prefers_aes,
        secrets,
    })
}

async fn open(config: &Config) -> Result<Opened, StartError> {
    let signals = Signals::take_over()?;
    secrets::expect(config)?;
    let socket = Arc::new(port::bind(config.listen).await?);
    let metrics = api::bind_metrics(config.metrics_listen)
        .await
        .map_err(|source| StartError::Metrics { address: config.metrics_listen, source })?;
    let state = NodeState::open(&config.state_dir, &mut crate::random::fill)?;
    let secrets = secrets::make_or_read(config)?;
    let api = api::socket::bind(&config.socket).await?;
    let path = SocketPath(config.socket.clone());
    let identity = state.identity();
    let run = Run::begin(state.next_incarnation()?);
    tracing::info!(peer = %identity.peer_id(), incarnation = %run.incarnation, "this node");
    Ok(Opened { host: Host { state, run, identity, secrets }, ports: Ports { socket, metrics, api, path }, signals })
}

/// A node that begins must not cut off what its host uses. One that already has pods goes on and says so in `status`: to
/// refuse would cut off the pods instead.
fn refuse_overlap(underlay: &Underlay, ipam: &Ipam) -> Result<(), StartError> {
    match underlay.overlaps.first() {
        Some(overlap) if ipam.leases().all(Lease::is_node) => Err(StartError::Overlap(overlap.clone())),
        Some(overlap) => {
            tracing::warn!(overlap, "goes on, because pods live here");
            Ok(())
        }
        None => Ok(()),
    }
}

/// Opens the TUN and sets what forwarding needs. The TUN comes first, because hosts lack it more often than the rest
/// fails; one that was made here does not stay behind when the rest does fail.
fn prepare_host(netlink: &mut Netlink) -> Result<Tun, StartError> {
    let was_there = netlink.link(TUN_NAME)?.is_some();
    let tun = Tun::open(TUN_NAME, TunOptions { persistent: true, ..TunOptions::default() })?;
    let prepared = underlay::prepare(netlink).and_then(|()| underlay::prepare_tun(netlink));
    if prepared.is_err() && !was_there {
        let _ = netlink.delete_link(TUN_NAME);
    }
    Ok(prepared.map(|()| tun)?)
}

fn restore(config: &Config, host: &Host) -> Result<Ipam, StartError> {
    let init = match config.ring_start {
        RingStart::Auto => Init::Auto { has_peers: !config.peers.is_empty() },
        RingStart::Seed => Init::Seed,
        RingStart::Join => Init::Join,
    };
    let ipam = IpamConfig {
        identity: Arc::clone(&host.identity),
        incarnation: host.run.incarnation,
        range4: config.range4,
        range6: config.range6,
        init,
    };
    Ok(Ipam::restore(ipam, host.state.load()?, Instant::now())?)
}

/// The key by which a restarted node ends the links of its former self.
fn reset_key(identity: &Identity) -> [u8; 32] {
    let signed = identity.sign(b"meshwork quic stateless reset v1");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &signed.0);
    let mut key = [0; 32];
    key.copy_from_slice(digest.as_ref());
    key
}

/// Whether this CPU has AES instructions, without which ChaCha20 is several times as fast.
fn prefers_aes() -> bool {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    cpu.lines()
        .find(|line| line.starts_with("flags") || line.starts_with("Features"))
        .is_some_and(|line| line.split_ascii_whitespace().any(|flag| flag == "aes"))
}
