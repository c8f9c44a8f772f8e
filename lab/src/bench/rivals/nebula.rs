//! nebula with a certificate authority of its own: AES, a routine per processor, large socket buffers.
//!
//! Nodes have addresses of their own in nebula, and each routes for its pods (`unsafe_networks`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bench::rivals::obtain::{Client, Package, run};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::namespace::Running;
use crate::topology::HostNumber;

/// The newest of those that the setup's Go builds and whose dependencies can all be had.
pub(super) const PACKAGE: Package = Package {
    name: "nebula",
    version: "v1.10.3",
    client: Client::Go(&["github.com/slackhq/nebula/cmd/nebula", "github.com/slackhq/nebula/cmd/nebula-cert"]),
    program: "nebula",
};

/// 1,500 less an IPv4 and UDP header, 16 bytes of nebula's and 16 of its tag.
pub(super) const MTU: &str = "1440";
const DEVICE: &str = "plainneb";
const PORT: u16 = 4242;
/// As large as ours.
const BUFFER: u32 = 8 << 20;
/// A queue of the device and a socket each: for two processors, which the bars are said for.
const ROUTINES: usize = 2;

/// Runs it on both hosts; `networks` are those of the pods of each.
pub(super) fn join(folder: &Path, hosts: [&Host; 2], networks: &[[String; 2]; 2]) -> Result<[Running; 2]> {
    let [first, second] = hosts;
    let [first_pods, second_pods] = networks;
    let authority = Authority::create(folder, first)?;
    authority.certify(first, first_pods)?;
    authority.certify(second, second_pods)?;
    Ok([authority.start(first, second, second_pods)?, authority.start(second, first, first_pods)?])
}

/// Who says which node is which.
struct Authority<'a> {
    folder: &'a Path,
    key: PathBuf,
    certificate: PathBuf,
}

impl<'a> Authority<'a> {
    fn create(folder: &'a Path, host: &Host) -> Result<Self> {
        let [key, certificate] = ["nebula-ca.key", "nebula-ca.crt"].map(|name| host.directory().join(name));
        let authority = Self { folder, key, certificate };
        let mut command = authority.cert("ca");
        run(command
            .args(["-name", "bench"])
            .arg("-out-key")
            .arg(&authority.key)
            .arg("-out-crt")
            .arg(&authority.certificate))?;
        Ok(authority)
    }

    fn certify(&self, host: &Host, pods: &[String; 2]) -> Result<()> {
        let [v4, v6] = addresses(host.number());
        let mut command = self.cert("sign");
        command.arg("-ca-key").arg(&self.key).arg("-ca-crt").arg(&self.certificate);
        command.args(["-name", &host.number().to_string(), "-networks", &format!("{v4}/24,{v6}/64")]);
        command.args(["-unsafe-networks", &pods.join(",")]);
        run(command.arg("-out-key").arg(own(host, "key")).arg("-out-crt").arg(own(host, "crt")))
    }

    fn start(&self, host: &Host, other: &Host, its_pods: &[String; 2]) -> Result<Running> {
        let file = own(host, "yml");
        let text = configuration(&self.certificate, host, other, its_pods);
        fs::write(&file, text).map_err(Error::io(format!("write {}", file.display())))?;
        let line = [self.folder.join("nebula").into_os_string(), "-config".into(), file.into()];
        host.namespace().spawn(line, &own(host, "log"))
    }

    fn cert(&self, verb: &str) -> Command {
        let mut command = Command::new(self.folder.join("nebula-cert"));
        command.arg(verb);
        command
    }
}

fn own(host: &Host, extension: &str) -> PathBuf {
    host.directory().join("nebula").with_extension(extension)
}

/// Addresses of a node in nebula.
fn addresses(host: HostNumber) -> [String; 2] {
    [format!("10.77.0.{}", host.get()), format!("fd77:ffff::{}", host.get())]
}

fn configuration(authority: &Path, host: &Host, other: &Host, [pods4, pods6]: &[String; 2]) -> String {
    let [its4, its6] = addresses(other.number());
    let endpoint = format!("{}:{PORT}", other.number().address4());
    let (ca, certificate, key) = (authority.display(), own(host, "crt"), own(host, "key"));
    let (certificate, key) = (certificate.display(), key.display());
    format!(
        "pki: {{ca: {ca}, cert: {certificate}, key: {key}}}\n\
         static_host_map: {{\"{its4}\": [\"{endpoint}\"], \"{its6}\": [\"{endpoint}\"]}}\n\
         lighthouse: {{am_lighthouse: false, hosts: []}}\n\
         listen: {{host: 0.0.0.0, port: {PORT}, read_buffer: {BUFFER}, write_buffer: {BUFFER}}}\n\
         cipher: aes\n\
         routines: {ROUTINES}\n\
         logging: {{level: warning}}\n\
         tun:\n  dev: {DEVICE}\n  mtu: {MTU}\n  tx_queue: 1000\n  unsafe_routes:\n\
         \x20   - {{route: {pods4}, via: {its4}}}\n    - {{route: \"{pods6}\", via: \"{its6}\"}}\n\
         firewall:\n  default_local_cidr_any: true\n\
         \x20 outbound: [{{port: any, proto: any, host: any}}]\n  inbound: [{{port: any, proto: any, host: any}}]\n"
    )
}
