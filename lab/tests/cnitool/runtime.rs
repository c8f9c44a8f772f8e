//! A container runtime on a host of the lab: `cnitool` with its own configurations and its own memory of attachments.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use meshwork_lab::{Host, Programs};
use serde_json::{Value, json};

use crate::programs;

/// Gives the command a `/var/lib` of its own, where libcni remembers what it added.
const WITH_MEMORY: &str = r#"mount --bind "$1" /var/lib && shift && exec "$@""#;

/// One runtime. Another one on the same host knows nothing of what this one added.
pub(crate) struct Runtime<'a> {
    host: &'a Host,
    folder: PathBuf,
}

/// What was printed, and whether it was a success.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) succeeded: bool,
    pub(crate) text: String,
}

impl<'a> Runtime<'a> {
    pub(crate) fn new(host: &'a Host, name: &str) -> Self {
        let folder = host.directory().join(name);
        for part in ["memory", "networks"] {
            fs::create_dir_all(folder.join(part)).unwrap();
        }
        Self { host, folder }
    }

    /// Writes a network of one chain of plugins.
    pub(crate) fn network(&self, name: &str, version: &str, plugins: &[Value]) {
        let list = json!({ "cniVersion": version, "name": name, "plugins": plugins });
        fs::write(self.folder.join("networks").join(format!("{name}.conflist")), list.to_string()).unwrap();
    }

    /// Our own link in a chain.
    pub(crate) fn mesh(&self) -> Value {
        json!({ "type": "mesh-cni", "socket": self.host.socket() })
    }

    /// Runs a verb for interface `eth0`.
    pub(crate) fn call(&self, verb: &str, network: &str, netns: &Path) -> Answer {
        self.call_with(verb, network, netns, "eth0", &json!({}))
    }

    /// Runs a verb with an interface and what the runtime knows besides: port mappings, wished addresses.
    pub(crate) fn call_with(
        &self,
        verb: &str,
        network: &str,
        netns: &Path,
        interface: &str,
        capabilities: &Value,
    ) -> Answer {
        let mut command = self.host.namespace().command("unshare").unwrap();
        let memory = self.folder.join("memory");
        command.args(["--mount", "sh", "-c", WITH_MEMORY, "sh"]).arg(memory);
        command.arg(programs::folder().join("cnitool")).args([verb, network]).arg(netns);
        command.env("NETCONFPATH", self.folder.join("networks")).env("CNI_PATH", plugins());
        command.env("CNI_IFNAME", interface).env("CAP_ARGS", capabilities.to_string());
        Answer::of(&command.output().unwrap())
    }
}

impl Answer {
    fn of(output: &Output) -> Self {
        let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        Self { succeeded: output.status.success(), text: text.concat() }
    }

    /// The result of a success.
    pub(crate) fn result(&self) -> Value {
        assert!(self.succeeded, "{}", self.text);
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// Nothing is printed by a success without a result.
    pub(crate) fn done(&self) {
        assert!(self.succeeded && self.text.is_empty(), "{}", self.text);
    }

    /// Asserts a failure that names `word`.
    pub(crate) fn fails_with(&self, word: &str) {
        assert!(!self.succeeded && self.text.contains(word), "{word:?} in: {}", self.text);
    }
}

/// The reference plugins and our own, as `CNI_PATH` has them.
fn plugins() -> std::ffi::OsString {
    let ours = Programs::find().unwrap().mesh_cni;
    env::join_paths([programs::folder(), ours.parent().unwrap()]).unwrap()
}
