//! The program as people run it, beside a played daemon in namespaces of its own.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../../attach/src/fake_meshd.rs"]
mod fake_meshd;

use std::path::Path;
use std::process::{Command, Output};

use fake_meshd::{GATEWAYS, NODE, Scene};
use serde_json::Value;

fn meshctl(socket: &Path, arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meshctl"));
    command.arg("--socket").arg(socket).args(arguments.split(' ')).output().unwrap()
}

fn meshctl_in(scene: &Scene, arguments: &str) -> Output {
    scene.host.run(|| meshctl(&scene.socket(), arguments)).unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn an_absent_daemon_is_exit_code_3_with_a_hint() {
    let absent = Path::new("/nonexistent/meshd.sock");
    for arguments in
        ["status", "peers", "connections -o json", "ipam status", "connect 10.0.0.1", "status --wait --timeout 1"]
    {
        let output = meshctl(absent, arguments);
        assert_eq!(output.status.code(), Some(3), "{arguments}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("start meshd"));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn what_needs_no_daemon_works_without_one() {
    let absent = Path::new("/nonexistent/meshd.sock");
    let output = meshctl(absent, "version -o json");
    let versions: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!((&versions["client"], &versions["daemon"]), (&Value::from(env!("CARGO_PKG_VERSION")), &Value::Null));
    assert_eq!(stdout(&meshctl(absent, "secret generate")).trim_end().len(), 64);
    assert!(stdout(&meshctl(absent, "completion bash")).contains("meshctl"));
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for arguments in ["nothing", "attach", "status --timeout x", "dns"] {
        assert_eq!(meshctl(Path::new("/x"), arguments).status.code(), Some(2), "{arguments}");
    }
}

#[test]
fn a_namespace_is_attached_shown_and_detached() {
    let mut scene = Scene::new("program");
    let attach = format!("attach {} --namespace shop --pod web --label app=web", scene.pod_name);
    let output = meshctl_in(&scene, &attach);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(stdout(&output), "10.32.0.5 fd4d:6573:6877::5\n");
    assert!(scene.pings(NODE[0]));
    let default = &Scene::ip(&scene.pod_name, "route show default")[0];
    assert_eq!(default["gateway"], GATEWAYS[0]);

    let path = scene.netns().display().to_string();
    let again: Value = serde_json::from_slice(&meshctl_in(&scene, &format!("{attach} -o json")).stdout).unwrap();
    assert_eq!(again["addresses"][0], "10.32.0.5");
    assert_eq!(Scene::links(&scene.host_name).len(), 1);
    assert_eq!(scene.daemon.leases.lock().unwrap().len(), 1);

    let shown = meshctl_in(&scene, "ipam -o yaml");
    assert_eq!(shown.status.code(), Some(0));
    assert!(stdout(&shown).contains("state: ready\n"));

    *scene.daemon.refuse.lock().unwrap() = Some("/v1/pods/release");
    assert_eq!(meshctl_in(&scene, &format!("detach {path}")).status.code(), Some(1));
    *scene.daemon.refuse.lock().unwrap() = None;
    let output = meshctl_in(&scene, &format!("detach {path} -o json"));
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["addresses"][0], "10.32.0.5");
    scene.assert_nothing_left("detached");
    assert_eq!(meshctl_in(&scene, &format!("detach {path}")).status.code(), Some(0));
    let nowhere = meshctl_in(&scene, "detach no-such-namespace");
    let said = String::from_utf8_lossy(&nowhere.stderr).into_owned();
    assert_eq!(nowhere.status.code(), Some(0), "nothing is attached, as was asked for");
    assert!(said.contains("no-such-namespace") && said.contains("nothing is attached"), "{said}");
    scene.stop();
    assert_eq!(meshctl_in(&scene, &attach).status.code(), Some(3));
}
