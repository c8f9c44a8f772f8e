//! Calls the CNI plugin the way a container runtime does: environment, configuration on standard input, result on
//! standard output.

use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::json;

use crate::error::{Error, Result};
use crate::namespace::{Namespace, both};

/// Version of the specification that is spoken here.
const CNI_VERSION: &str = "1.0.0";
/// Interface that the plugin makes in a pod.
pub const POD_LINK: &str = "eth0";

/// The plugin as one host would run it.
#[derive(Debug, Clone)]
pub struct Cni {
    pub(crate) host: Namespace,
    pub(crate) plugin: PathBuf,
    pub(crate) socket: PathBuf,
}

/// What the plugin is called for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// Container id.
    pub id: String,
    /// Name of the pod.
    pub name: String,
    /// File of its network namespace.
    pub netns: PathBuf,
}

/// The part of a result that a lab needs.
#[derive(Debug, Deserialize)]
struct Attachment {
    #[serde(default)]
    ips: Vec<AttachedAddress>,
}

#[derive(Debug, Deserialize)]
struct AttachedAddress {
    address: IpNet,
}

/// The plugin's error object.
#[derive(Debug, Deserialize)]
struct Refusal {
    code: u32,
    msg: String,
    #[serde(default)]
    details: String,
}

impl Cni {
    /// Attaches a sandbox and tells its addresses.
    ///
    /// # Errors
    /// [`Error::Cni`] when the plugin refuses, [`Error::Unreadable`] when its result is none.
    pub fn add(&self, sandbox: &Sandbox) -> Result<Vec<IpAddr>> {
        let output = self.succeed("ADD", sandbox)?;
        let result: Attachment = serde_json::from_slice(&output.stdout).map_err(|error| Error::Unreadable {
            program: "mesh-cni",
            why: error.to_string(),
            output: both(&output),
        })?;
        Ok(result.ips.iter().map(|ip| ip.address.addr()).collect())
    }

    /// Detaches a sandbox; one that is not attached is detached with success.
    ///
    /// # Errors
    /// [`Error::Cni`] when the plugin refuses.
    pub fn delete(&self, sandbox: &Sandbox) -> Result<()> {
        self.succeed("DEL", sandbox).map(|_| ())
    }

    fn succeed(&self, command: &'static str, sandbox: &Sandbox) -> Result<Output> {
        let output = self.call(command, sandbox)?;
        if output.status.success() {
            return Ok(output);
        }
        let message = match serde_json::from_slice::<Refusal>(&output.stdout) {
            Ok(refusal) => format!("{} (code {}) {}", refusal.msg, refusal.code, refusal.details),
            Err(_) => both(&output),
        };
        Err(Error::Cni { command, pod: sandbox.name.clone(), status: output.status, message })
    }

    /// Runs the plugin, whatever it answers.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn call(&self, command: &str, sandbox: &Sandbox) -> Result<Output> {
        let mut plugin = self.host.command(&self.plugin)?;
        plugin
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &sandbox.id)
            .env("CNI_NETNS", &sandbox.netns)
            .env("CNI_IFNAME", POD_LINK)
            .env("CNI_ARGS", format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=lab;K8S_POD_NAME={}", sandbox.name))
            .env("CNI_PATH", self.plugin.parent().unwrap_or(Path::new("/")));
        plugin.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = plugin.spawn().map_err(Error::io("start mesh-cni"))?;
        if let Some(mut input) = child.stdin.take() {
            // A plugin that ends without reading says why itself.
            let _ = input.write_all(self.configuration().as_bytes());
        }
        child.wait_with_output().map_err(Error::io("wait for mesh-cni"))
    }

    fn configuration(&self) -> String {
        json!({ "cniVersion": CNI_VERSION, "name": "meshwork", "type": "mesh-cni", "socket": self.socket }).to_string()
    }
}
