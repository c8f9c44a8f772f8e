//! WireGuard in userspace: two programs, configured over the same kind of socket.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::bench::rivals::obtain::{Client, Package};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::namespace::Running;
use crate::wait::{Look, eventually};

/// wireguard-go in its defaults, which include segmentation offloads.
pub(super) const PACKAGE: Package = Package {
    name: "wireguard-go",
    version: "v0.0.0-20260522210424-ecfc5a8d5446",
    client: Client::Go(&["golang.zx2c4.com/wireguard"]),
    program: "wireguard",
};

/// 1,500 less an IPv6, UDP and WireGuard header, as wireguard-go chooses it.
pub(super) const MTU: &str = "1420";
/// Where the programs listen for their configuration; the path is built in.
const SOCKETS: &str = "/var/run/wireguard";
const START_DEADLINE: Duration = Duration::from_secs(10);

/// Key pairs (private, public) of the two hosts: Alice's and Bob's of RFC 7748, section 6.1. They guard nothing.
const KEYS: [(&str, &str); 2] = [
    (
        "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
        "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
    ),
    (
        "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
        "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
    ),
];

/// What is different between the two programs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    /// Of the device, without the host's number.
    pub(super) device: &'static str,
    pub(super) port: u16,
    pub(super) flags: &'static [&'static str],
}

pub(super) const KIND: Kind = Kind { device: "plainwg", port: 51820, flags: &["-f"] };

/// A running program with one peer.
#[derive(Debug)]
pub(super) struct WireGuard {
    _program: Running,
    device: String,
    peer: &'static str,
    port: u16,
}

impl WireGuard {
    /// Runs it on `host` with `other` as its peer, who may send from `networks`.
    pub(super) fn start(
        program: &Path,
        kind: Kind,
        (host, other): (&Host, &Host),
        networks: &[String; 2],
    ) -> Result<Self> {
        let device = format!("{}{}", kind.device, host.number());
        let log = host.directory().join(format!("{device}.log"));
        let flags = kind.flags.iter().map(OsString::from);
        let line = std::iter::once(program.into()).chain(flags).chain([OsString::from(&device)]);
        let ((private, _), (_, peer)) = (keys(host), keys(other));
        let wireguard = Self { _program: host.namespace().spawn(line, &log)?, device, peer, port: kind.port };
        let port = kind.port;
        let endpoint = SocketAddr::new(other.number().address4().into(), port);
        let allowed = networks.each_ref().map(|network| format!("allowed_ip={network}\n")).concat();
        wireguard.set(&format!(
            "private_key={private}\nlisten_port={port}\nreplace_peers=true\npublic_key={peer}\n\
             endpoint={endpoint}\nreplace_allowed_ips=true\n{allowed}"
        ))?;
        Ok(wireguard)
    }

    pub(super) fn device(&self) -> &str {
        &self.device
    }

    /// Sends to the peer there from now on.
    pub(super) fn point_to(&self, peer: IpAddr) -> Result<()> {
        let endpoint = SocketAddr::new(peer, self.port);
        self.set(&format!("public_key={}\nupdate_only=true\nendpoint={endpoint}\n", self.peer))
    }

    /// Whether it sends to the peer over IPv6.
    pub(super) fn is_over_ipv6(&self) -> Result<bool> {
        let state = ask(&self.socket(), "get=1\n\n").map_err(Error::io(format!("ask {}", self.device)))?;
        Ok(state.contains("endpoint=["))
    }

    /// The cross-platform userspace interface: <https://www.wireguard.com/xplatform/>.
    fn set(&self, configuration: &str) -> Result<()> {
        let question = format!("set=1\n{configuration}\n");
        eventually(START_DEADLINE, &format!("a configured {}", self.device), || {
            Ok(match ask(&self.socket(), &question) {
                Ok(answer) if answer.contains("errno=0") => Look::Done(()),
                Ok(answer) => Look::Missing(answer),
                Err(error) => Look::Missing(error.to_string()),
            })
        })
    }

    fn socket(&self) -> PathBuf {
        Path::new(SOCKETS).join(format!("{}.sock", self.device))
    }
}

impl Drop for WireGuard {
    fn drop(&mut self) {
        // It is killed, so it cannot do this itself.
        let _ = fs::remove_file(self.socket());
    }
}

fn keys(host: &Host) -> (&'static str, &'static str) {
    if host.number().get() == 1 { KEYS[0] } else { KEYS[1] }
}

/// An answer ends with an empty line; only one of the programs closes the connection then.
fn ask(socket: &Path, question: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(START_DEADLINE))?;
    stream.write_all(question.as_bytes())?;
    let mut answer = String::new();
    for line in BufReader::new(stream).lines() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        answer += &line;
        answer.push('\n');
    }
    Ok(answer)
}
