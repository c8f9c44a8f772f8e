//! What a kubelet asks of a runtime for its pods. Requests hold what no kubelet leaves out, and nothing else.

use std::net::IpAddr;
use std::path::Path;

use serde_json::{Value, json};

use crate::programs::IMAGE;
use crate::runtime::Containerd;

/// Folders of this machine that a container sees, read-only: the image has no programs that could ask anything.
const PROGRAMS: [&str; 5] = ["/usr", "/bin", "/sbin", "/lib", "/lib64"];

/// Calls of a kubelet.
pub(crate) struct Kubelet<'a> {
    containerd: &'a Containerd<'a>,
}

impl<'a> Kubelet<'a> {
    pub(crate) fn of(containerd: &'a Containerd<'a>) -> Self {
        Self { containerd }
    }

    /// Whether the node has a network, and why not. It makes a node's condition `Ready`.
    pub(crate) fn network(&self) -> (bool, String) {
        let answer = self.containerd.call("Status", &json!({}));
        let conditions = answer["status"]["conditions"].as_array().unwrap();
        let found = conditions.iter().find(|condition| condition["type"] == "NetworkReady").unwrap();
        (found["status"].as_bool().unwrap(), found["message"].as_str().unwrap().to_owned())
    }

    /// A pod as a runtime is told it. Without name servers of its own it would get this machine's.
    fn pod(&self, name: &str) -> Value {
        json!({
            "metadata": { "name": name, "uid": name, "namespace": "lab" },
            "hostname": name,
            "dns_config": { "servers": ["10.96.0.10"] },
            "linux": { "cgroup_parent": self.containerd.groups().path() },
        })
    }

    /// Makes a pod's sandbox; hands back its id.
    pub(crate) fn run(&self, name: &str) -> String {
        self.try_run(name).unwrap()
    }

    /// Makes the sandbox of the only pod once more: what was left of an earlier try goes first, since it has the pod's name.
    pub(crate) fn try_again(&self, name: &str) -> Result<String, String> {
        for sandbox in self.sandboxes() {
            self.try_stop(&sandbox)?;
            self.remove(&sandbox);
        }
        self.try_run(name)
    }

    pub(crate) fn try_run(&self, name: &str) -> Result<String, String> {
        let answer = self.containerd.try_call("RunPodSandbox", &json!({ "config": self.pod(name) }))?;
        Ok(answer["podSandboxId"].as_str().unwrap().to_owned())
    }

    /// Addresses of a pod as they come to stand in Kubernetes' `podIPs`.
    pub(crate) fn addresses(&self, sandbox: &str) -> Vec<IpAddr> {
        let network = &self.status(sandbox)["network"];
        let more = network["additionalIps"].as_array().unwrap().iter().map(|more| &more["ip"]);
        [&network["ip"]].into_iter().chain(more).map(|ip| ip.as_str().unwrap().parse().unwrap()).collect()
    }

    /// State of a sandbox by its name in the interface.
    pub(crate) fn state(&self, sandbox: &str) -> String {
        self.status(sandbox)["state"].as_str().unwrap().to_owned()
    }

    fn status(&self, sandbox: &str) -> Value {
        self.containerd.call("PodSandboxStatus", &json!({ "pod_sandbox_id": sandbox }))["status"].take()
    }

    /// Runs a container in a sandbox of pod `box`; hands back its id.
    pub(crate) fn start_container(&self, sandbox: &str) -> String {
        let folders = PROGRAMS.iter().filter(|folder| Path::new(folder).exists());
        let mount = |folder| json!({ "host_path": folder, "container_path": folder, "readonly": true });
        let container = json!({
            "metadata": { "name": "container" },
            "image": { "image": IMAGE },
            "mounts": folders.map(mount).collect::<Vec<_>>(),
        });
        let request = json!({ "pod_sandbox_id": sandbox, "config": container, "sandbox_config": self.pod("box") });
        let container = self.containerd.call("CreateContainer", &request)["containerId"].take();
        self.containerd.call("StartContainer", &json!({ "container_id": container }));
        container.as_str().unwrap().to_owned()
    }

    /// Runs a command in a container to its end.
    pub(crate) fn exec(&self, container: &str, line: &[&str]) -> Value {
        self.containerd.call("ExecSync", &json!({ "container_id": container, "cmd": line, "timeout": 20 }))
    }

    /// Ends a sandbox and its containers.
    pub(crate) fn stop(&self, sandbox: &str) {
        self.try_stop(sandbox).unwrap();
    }

    pub(crate) fn try_stop(&self, sandbox: &str) -> Result<(), String> {
        self.containerd.try_call("StopPodSandbox", &json!({ "pod_sandbox_id": sandbox })).map(|_| ())
    }

    /// Forgets a sandbox.
    pub(crate) fn remove(&self, sandbox: &str) {
        self.containerd.call("RemovePodSandbox", &json!({ "pod_sandbox_id": sandbox }));
    }

    /// Ids of all sandboxes that the runtime knows.
    pub(crate) fn sandboxes(&self) -> Vec<String> {
        let answer = self.containerd.call("ListPodSandbox", &json!({}));
        answer["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
    }
}
