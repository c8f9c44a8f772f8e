//! One end of a pair of tunnels, for tests and measurements between two network namespaces.
//!
//! `pair OWN PEER DEVICE LISTEN ENDPOINT OWN-PREFIXES PEER-PREFIXES [MTU]`: OWN and PEER are numbers from which the
//! identities are made, prefixes are separated by commas. Prints the path and the drops on each line read from standard
//! input, and ends with it.

use std::error::Error;
use std::io::BufRead;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use meshwork_identity::{Identity, Secret, Secrets};
use meshwork_sys::tun::{Tun, TunOptions};
use meshwork_sys::udp::UdpSocket;
use meshwork_tunnel::{ControlSink, Desired, Tunnel, TunnelConfig, TunnelPeer};
use meshwork_wire::Incarnation;

struct Silent;

impl ControlSink for Silent {
    fn datagram(&mut self, _bytes: &[u8], _from: SocketAddr, _to: Option<IpAddr>) {}
}

fn prefixes(text: &str) -> Result<Vec<IpNet>, ipnet::AddrParseError> {
    text.split(',').map(str::parse).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [own, peer, device, listen, endpoint, local, remote, rest @ ..] = arguments.as_slice() else {
        return Err("seven arguments are needed: see the source".into());
    };
    let identity = |number: &str| number.parse().map(|number: u8| Identity::from_seed([number; 32]));
    let (own, peer) = (identity(own)?, identity(peer)?);
    let inner_mtu = rest.first().map_or(Ok(1400), |text| text.parse())?;
    let prefers_aes = !rest.iter().any(|word| word == "chacha");
    let config = TunnelConfig {
        identity: Arc::new(own),
        secrets: Secrets::new(vec![Secret::generate([7; 32])])?,
        incarnation: Incarnation(1),
        prefers_aes,
        inner_mtu,
    };
    let tun = Tun::open(device, TunOptions::default())?;
    let socket = Arc::new(UdpSocket::bind(listen.parse()?)?);
    let tunnel = Tunnel::start(config, tun, socket, Box::new(Silent))?;
    let peer = TunnelPeer {
        id: peer.peer_id(),
        noise_key: peer.noise_public(),
        prefers_aes,
        incarnation: Incarnation(1),
        endpoints: vec![endpoint.parse()?],
        prefixes: prefixes(remote)?,
        eager: false,
    };
    tunnel.configure(Desired { local: prefixes(local)?, peers: vec![peer] });
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        line?;
        println!("{:?}\n{:?}", tunnel.paths(), tunnel.drops());
    }
    tunnel.stop();
    Ok(())
}
