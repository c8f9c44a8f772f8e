//! wireguard-go: built as a Go module, configured over its own socket.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::host::Host;
use crate::namespace::{Running, both};
use crate::say;
use crate::wait::{Look, eventually};

const MODULE: &str = "golang.zx2c4.com/wireguard";
/// Named, so that figures of two days compare.
pub(super) const VERSION: &str = "v0.0.0-20260522210424-ecfc5a8d5446";
/// Where wireguard-go listens for its configuration; the path is built in.
const SOCKETS: &str = "/var/run/wireguard";
const PORT: u16 = 51820;
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

/// A running wireguard-go with one peer.
#[derive(Debug)]
pub(super) struct WireGuard {
    _program: Running,
    device: String,
}

/// Builds the program unless `cache` has it; tells where it is.
pub(super) fn build(cache: &Path) -> Result<PathBuf> {
    let folder = cache.join("wireguard-go").join(VERSION);
    fs::create_dir_all(&folder).map_err(Error::io(format!("make {}", folder.display())))?;
    // Go wants it absolute.
    let folder = folder.canonicalize().map_err(Error::io(format!("find {}", folder.display())))?;
    let program = folder.join("wireguard");
    if program.exists() {
        return Ok(program);
    }
    say!("building {MODULE}@{VERSION}");
    let mut go = Command::new("go");
    go.env("GOBIN", &folder).args(["install", &format!("{MODULE}@{VERSION}")]);
    let output = go.output().map_err(Error::io("run `go install` (the rival wireguard-go needs Go)"))?;
    if output.status.success() {
        return Ok(program);
    }
    let command = format!("go install {MODULE}@{VERSION}");
    Err(Error::Command { command, place: folder.display().to_string(), status: output.status, output: both(&output) })
}

impl WireGuard {
    /// Runs it on `host` with `other` as its peer, who may send from `network`.
    pub(super) fn start(program: &Path, host: &Host, other: &Host, network: &str) -> Result<Self> {
        let device = format!("plainwg{}", host.number());
        let log = host.directory().join("wireguard.log");
        let line = [program.as_os_str(), "-f".as_ref(), device.as_ref()];
        let wireguard = Self { _program: host.namespace().spawn(line, &log)?, device };
        let configuration = configuration(host, other, network);
        eventually(START_DEADLINE, "a configured wireguard-go", || {
            Ok(match configure(&wireguard.socket(), &configuration) {
                Ok(answer) if answer.contains("errno=0") => Look::Done(()),
                Ok(answer) => Look::Missing(answer),
                Err(error) => Look::Missing(error.to_string()),
            })
        })?;
        Ok(wireguard)
    }

    pub(super) fn device(&self) -> &str {
        &self.device
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

/// The cross-platform userspace interface: <https://www.wireguard.com/xplatform/>.
fn configuration(host: &Host, other: &Host, network: &str) -> String {
    let pair = |host: &Host| if host.number().get() == 1 { KEYS[0] } else { KEYS[1] };
    let ((private, _), (_, public)) = (pair(host), pair(other));
    let endpoint = other.number().address4();
    format!(
        "set=1\nprivate_key={private}\nlisten_port={PORT}\nreplace_peers=true\npublic_key={public}\n\
         endpoint={endpoint}:{PORT}\nreplace_allowed_ips=true\nallowed_ip={network}\n\n"
    )
}

fn configure(socket: &Path, configuration: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(START_DEADLINE))?;
    stream.write_all(configuration.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
