//! What the stories need besides containerd, built by Go from the module beside this file: a program that calls gRPC, the
//! interface that it calls, the plugin that every sandbox's `lo` is brought up by, and the image that sandboxes run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::go;

const MODULE: &str = "containerd_cri";
const PACKAGES: [&str; 3] = [
    "github.com/containernetworking/plugins/plugins/main/loopback",
    "github.com/fullstorydev/grpcurl/cmd/grpcurl",
    "./pause",
];
/// Name of the image. No registry has it, and none is asked for it.
pub(crate) const IMAGE: &str = "meshwork.invalid/pause:1";

/// Where the programs are. Built once per run.
pub(crate) fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| go::build(MODULE, &PACKAGES))
}

/// Folder of `api.proto`, Kubernetes' own description of what a kubelet asks of a runtime.
pub(crate) fn interface() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        // Nothing that is built needs the module, so that a build alone does not fetch it.
        let module = go::run(MODULE, ["mod", "download", "-json", "k8s.io/cri-api"]);
        let module: Value = serde_json::from_str(&module).unwrap();
        Path::new(module["Dir"].as_str().unwrap()).join("pkg/apis/runtime/v1")
    })
}

/// Packs `pause` as an image of one layer, in the format of `docker save`.
pub(crate) fn image(folder: &Path) -> PathBuf {
    std::fs::create_dir_all(folder).unwrap();
    pack(folder, "layer.tar", self::folder(), &["pause"]);
    let sum = printed(Command::new("sha256sum").arg(folder.join("layer.tar")));
    let layer = format!("sha256:{}", sum.split_whitespace().next().unwrap());
    let configuration = json!({
        "os": "linux",
        "architecture": go::run(MODULE, ["env", "GOARCH"]),
        "config": { "Entrypoint": ["/pause"] },
        "rootfs": { "type": "layers", "diff_ids": [layer] },
    });
    let manifest = json!([{ "Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"] }]);
    for (name, content) in [("config.json", configuration), ("manifest.json", manifest)] {
        std::fs::write(folder.join(name), content.to_string()).unwrap();
    }
    pack(folder, "image.tar", folder, &["manifest.json", "config.json", "layer.tar"]);
    folder.join("image.tar")
}

fn pack(folder: &Path, archive: &str, from: &Path, names: &[&str]) {
    printed(Command::new("tar").arg("-cf").arg(folder.join(archive)).arg("-C").arg(from).args(names));
}

fn printed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
