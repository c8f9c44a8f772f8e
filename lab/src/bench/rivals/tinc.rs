//! tinc 1.0 in router mode, with datagrams straight to the other node: AES-128-CBC, its fastest cipher that is one, SHA-1,
//! no compression, large socket buffers.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::bench::rivals::obtain::{Client, Package};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::namespace::Running;
use crate::wait::{Look, eventually};

/// Of Debian 12, with the library that it needs.
pub(super) const PACKAGE: Package =
    Package { name: "tinc", version: "1.0.36", client: Client::Apt(&["tinc", "liblzo2-2"]), program: "usr/sbin/tincd" };

pub(super) const DEVICE: &str = "plaintinc";
/// Less than what it finds to fit 1,500 with these ciphers.
pub(super) const MTU: &str = "1400";
/// The same with an Ethernet header, as tinc counts.
const LEAST: u32 = 1414;
/// As large as ours.
const BUFFER: u32 = 8 << 20;
/// It probes for the path's MTU for half a minute, and carries packets over TCP before.
const MTU_DEADLINE: Duration = Duration::from_secs(60);

/// A node of tinc.
#[derive(Debug)]
pub(super) struct Tinc {
    program: Running,
}

/// Runs it on both hosts; `networks` are those of the pods of each.
pub(super) fn join(folder: &Path, hosts: [&Host; 2], networks: &[[String; 2]; 2]) -> Result<[Tinc; 2]> {
    let [first, second] = hosts;
    let tincd = tincd(folder);
    configure(&tincd, first, second, &networks[0])?;
    configure(&tincd, second, first, &networks[1])?;
    for (host, other) in [(first, second), (second, first)] {
        let file = own(other).join("hosts").join(other.number().to_string());
        let target = own(host).join("hosts").join(other.number().to_string());
        fs::copy(&file, &target).map_err(Error::io(format!("copy {}", file.display())))?;
    }
    Ok([start(&tincd, first)?, start(&tincd, second)?])
}

impl Tinc {
    /// Waits until datagrams of `host` to its peer need no TCP any more; `ping` keeps it probing.
    pub(super) fn wait_for_datagrams(&self, host: &Host, ping: impl Fn() -> Result<()>) -> Result<()> {
        eventually(MTU_DEADLINE, "the path MTU of tinc", || {
            ping()?;
            host.exec(["kill", "-USR2", &self.program.id().to_string()])?;
            let printed = self.program.printed();
            let state = printed.lines().rev().find(|line| line.contains(" pmtu ") && !line.contains(" MYSELF"));
            let enough = state.and_then(least_mtu).is_some_and(|mtu| mtu >= LEAST);
            Ok(if enough { Look::Done(()) } else { Look::Missing(state.unwrap_or("nothing told").to_owned()) })
        })
    }
}

/// `… pmtu 1497 (min 1408 max 1497)`: what is known to fit.
fn least_mtu(line: &str) -> Option<u32> {
    line.split_once("(min ")?.1.split_once(" max ")?.0.parse().ok()
}

/// The command line of the program, which finds its library beside it.
fn tincd(folder: &Path) -> Vec<String> {
    // A folder per architecture, which lies in one place or the other.
    let entries = ["lib", "usr/lib"].into_iter().filter_map(|libraries| fs::read_dir(folder.join(libraries)).ok());
    let places: Vec<_> = entries.flatten().flatten().map(|entry| entry.path().display().to_string()).collect();
    let path = format!("LD_LIBRARY_PATH={}", places.join(":"));
    vec!["env".into(), path, folder.join(PACKAGE.program).display().to_string()]
}

fn own(host: &Host) -> PathBuf {
    host.directory().join("tinc")
}

fn configure(tincd: &[String], host: &Host, other: &Host, [pods4, pods6]: &[String; 2]) -> Result<()> {
    let (directory, name) = (own(host), host.number().to_string());
    let write =
        |path: PathBuf, text: String| fs::write(&path, text).map_err(Error::io(format!("write {}", path.display())));
    let hosts = directory.join("hosts");
    fs::create_dir_all(&hosts).map_err(Error::io(format!("make {}", hosts.display())))?;
    write(
        directory.join("tinc.conf"),
        format!(
            "Name = {name}\nMode = router\nInterface = {DEVICE}\nAddressFamily = ipv4\nConnectTo = {}\n\
             UDPRcvBuf = {BUFFER}\nUDPSndBuf = {BUFFER}\n",
            other.number()
        ),
    )?;
    write(
        hosts.join(&name),
        format!(
            "Address = {}\nSubnet = {pods4}\nSubnet = {pods6}\n\
             Cipher = aes-128-cbc\nDigest = sha1\nCompression = 0\n",
            host.number().address4()
        ),
    )?;
    // Adds the public key to the node's own file.
    let words = ["-c".into(), directory.display().to_string(), "-K2048".into()];
    host.exec(tincd.iter().cloned().chain(words)).map(|_| ())
}

fn start(tincd: &[String], host: &Host) -> Result<Tinc> {
    let directory = own(host);
    let pid_file = format!("--pidfile={}", directory.join("pid").display());
    let words = ["-c".into(), directory.display().to_string(), "-D".into(), pid_file];
    let program = host.namespace().spawn(tincd.iter().cloned().chain(words), &directory.join("log"))?;
    Ok(Tinc { program })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_to_fit_is_the_least_mtu() {
        assert_eq!(least_mtu(" h2 at 198.18.0.10 port 655 via h2 pmtu 1497 (min 1408 max 1497)"), Some(1408));
        assert_eq!(least_mtu(" Nodes:"), None);
    }
}
