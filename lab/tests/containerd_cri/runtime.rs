//! A containerd on a host of the lab, spoken to as a kubelet speaks to it.
//!
//! It lives in a process namespace and a mount namespace, so that its containers and mounts end with it. `/run` and
//! `/var/lib`, where containerd, runc and libcni keep things under names that nobody can choose, are its own.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use meshwork_lab::{Host, Look, Programs, Running, eventually};
use serde_json::{Value, json};

use crate::groups::Groups;
use crate::programs;

/// The lab's folder lies in `/run` and stays where it is. `mount` keeps a table of its own in there, too, unless told not to.
const RUN: &str = r#"set -e
mount -n --bind "$LAB/memory" /var/lib
mount -n -t tmpfs tmpfs "$LAB/run"
mkdir -p "$LAB/run/${LAB#/run/}"
mount -n --bind "$LAB" "$LAB/run/${LAB#/run/}"
mount -n --move "$LAB/run" /run
containerd --config "$LAB/containerd.toml" &
wait
"#;
/// It starts in a second, and its first start on a busy machine takes a multiple.
const STARTED: Duration = Duration::from_secs(60);
/// Longest call, in seconds: what runc does for a sandbox, on a busy machine.
const PATIENCE: &str = "60";

/// One containerd with nothing but the image of sandboxes. It ends with the value, and all it made with it: processes first,
/// then the groups they were in.
pub(crate) struct Containerd<'a> {
    host: &'a Host,
    folder: PathBuf,
    running: Running,
    groups: Groups,
}

impl<'a> Containerd<'a> {
    /// Starts it, without a list of CNI plugins.
    pub(crate) fn start(host: &'a Host) -> Self {
        let folder = host.directory();
        for part in ["memory", "run", "lists", "plugins"] {
            fs::create_dir_all(folder.join(part)).unwrap();
        }
        symlink(programs::folder().join("loopback"), folder.join("plugins/loopback")).unwrap();
        symlink(Programs::find().unwrap().mesh_cni, folder.join("plugins/mesh-cni")).unwrap();
        fs::write(folder.join("containerd.toml"), configuration(&folder.display().to_string())).unwrap();
        let groups = Groups::new(host.namespace().name());
        let lab = format!("LAB={}", folder.display());
        let line =
            ["env", &lab, "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", RUN];
        let mut running = host.namespace().spawn(line, &folder.join("containerd.log")).unwrap();
        running.wait_for("containerd successfully booted", STARTED).unwrap();
        let containerd = Self { host, folder, running, groups };
        containerd.wait_until_served();
        containerd.import();
        containerd
    }

    /// Gives it a list with our plugin alone.
    pub(crate) fn configure(&self) {
        let plugin = json!({ "type": "mesh-cni", "socket": self.host.socket() });
        let list = json!({ "cniVersion": "1.0.0", "name": "meshwork", "plugins": [plugin] });
        // Whole at once, and within the folder: a file that is moved in from elsewhere is one that containerd overlooks.
        let lists = self.folder.join("lists");
        fs::write(lists.join("new"), list.to_string()).unwrap();
        fs::rename(lists.join("new"), lists.join("10-meshwork.conflist")).unwrap();
    }

    /// Control groups above its sandboxes.
    pub(crate) fn groups(&self) -> &Groups {
        &self.groups
    }

    /// Calls a method of the runtime service, which has to succeed.
    pub(crate) fn call(&self, method: &str, request: &Value) -> Value {
        self.try_call(method, request).unwrap_or_else(|error| panic!("{method}: {error}\n{}", self.log_tail()))
    }

    /// Either the answer or the reason why there is none.
    pub(crate) fn try_call(&self, method: &str, request: &Value) -> Result<Value, String> {
        let mut command = self.host.namespace().command(programs::folder().join("grpcurl")).unwrap();
        command.args(["-plaintext", "-emit-defaults", "-max-time", PATIENCE, "-proto", "api.proto", "-import-path"]);
        command.arg(programs::interface()).args(["-d", &request.to_string()]);
        command.arg(format!("unix://{}", self.socket().display())).arg(format!("runtime.v1.RuntimeService/{method}"));
        let output = command.output().unwrap();
        if !output.status.success() {
            return Err(said(&output));
        }
        serde_json::from_slice(&output.stdout).map_err(|error| format!("{error}: {}", said(&output)))
    }

    /// Kubernetes is served a little later than everybody else.
    fn wait_until_served(&self) {
        eventually(STARTED, "containerd's CRI", || {
            let answer = self.try_call("Status", &json!({}));
            Ok(answer.map_or_else(|error| Look::Missing(format!("{error}\n{}", self.log_tail())), |_| Look::Done(())))
        })
        .unwrap();
    }

    fn import(&self) {
        let image = programs::image(&self.folder.join("image"));
        let mut ctr = self.host.namespace().command("ctr").unwrap();
        ctr.args(["--timeout", &format!("{PATIENCE}s"), "--address"]).arg(self.socket()).args([
            "--namespace",
            "k8s.io",
            "images",
            "import",
        ]);
        let output = ctr.args(["--snapshotter", "native"]).arg(image).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("containerd.sock")
    }

    fn log_tail(&self) -> String {
        let log = self.running.printed();
        let lines: Vec<_> = log.lines().collect();
        lines.get(lines.len().saturating_sub(10)..).unwrap_or_default().join("\n")
    }
}

/// Everything below the lab's folder. Snapshots are copies, which works on any file system; and what containers may do to
/// each other is left to the kernel, since not every machine has AppArmor or lets a score be lowered.
fn configuration(folder: &str) -> String {
    let image = programs::IMAGE;
    format!(
        r#"version = 2
root = "{folder}/containerd"
state = "/run/containerd"
[grpc]
address = "{folder}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "{folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{image}"
disable_apparmor = true
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{folder}/plugins"
conf_dir = "{folder}/lists"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
"#
    )
}

fn said(output: &Output) -> String {
    [&output.stderr, &output.stdout].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}
