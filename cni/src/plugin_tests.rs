use std::collections::BTreeMap;
use std::ffi::OsString;

use serde_json::Value;

use super::*;
use crate::fake_meshd::{NODE, Scene};

fn invoke(command: &str, config: &str, changes: &[(&str, &str)]) -> (Value, bool) {
    let mut variables = BTreeMap::from([
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", "0abc"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_NETNS", "/nonexistent/netns"),
        ("CNI_PATH", "/opt/cni/bin"),
    ]);
    variables.extend(changes.iter().copied());
    let outcome = run(&|name| variables.get(name).map(OsString::from), config.as_bytes());
    let output = if outcome.output.is_empty() { Value::Null } else { serde_json::from_str(&outcome.output).unwrap() };
    (output, outcome.failed)
}

const CONFIG: &str = r#"{"cniVersion":"0.4.0","name":"mesh","type":"mesh-cni","socket":"/nonexistent/meshd.sock"}"#;

#[test]
fn version_is_answered_without_a_daemon_and_whatever_the_input() {
    for (input, spoken) in
        [(r#"{"cniVersion":"0.4.0"}"#, "0.4.0"), (r#"{"cniVersion":"9.0.0"}"#, "1.0.0"), ("", "1.0.0")]
    {
        let (answer, failed) = invoke("VERSION", input, &[("CNI_CONTAINERID", ""), ("CNI_IFNAME", "")]);
        assert!(!failed);
        assert_eq!(answer["cniVersion"], spoken);
        assert_eq!(answer["supportedVersions"], serde_json::json!(VERSIONS));
    }
}

#[test]
fn an_absent_daemon_asks_the_runtime_to_try_again_later() {
    for netns in ["/nonexistent/netns", ""] {
        let (answer, failed) = invoke("DEL", CONFIG, &[("CNI_NETNS", netns)]);
        assert!(failed);
        assert_eq!((answer["code"].as_u64(), answer["cniVersion"].as_str()), (Some(11), Some("0.4.0")));
        assert!(answer["details"].as_str().unwrap().contains("start meshd"));
    }
}

#[test]
fn a_namespace_that_is_not_there_is_the_runtimes_mistake() {
    let (answer, failed) = invoke("ADD", CONFIG, &[]);
    assert!(failed);
    assert_eq!(answer["code"], 4);
    let (answer, _) = invoke("ADD", CONFIG, &[("CNI_NETNS", "")]);
    assert_eq!(answer["code"], 4);
}

#[test]
fn commands_that_are_not_offered_are_refused() {
    for command in ["GC", "STATUS", "add", ""] {
        let (answer, failed) = invoke(command, CONFIG, &[]);
        assert!(failed);
        assert_eq!(answer["code"], 4, "{command}");
    }
}

#[test]
fn check_needs_a_version_that_has_it_and_a_previous_result() {
    let (answer, _) = invoke("CHECK", CONFIG, &[]);
    assert_eq!(answer["code"], 7);
    let (answer, _) = invoke("CHECK", &CONFIG.replace("0.4.0", "0.3.1"), &[]);
    assert_eq!(answer["code"], 1);
}

#[test]
fn malformed_input_is_answered_with_an_error_and_never_a_panic() {
    let long = " ".repeat(usize::try_from(MAX_INPUT).unwrap() + 1);
    for (input, code) in
        [("", 6), ("{", 6), ("[1,2]", 6), ("\u{0}", 6), (r#"{"cniVersion":"1.0.0","name":3}"#, 6), (&long, 7)]
    {
        let (answer, failed) = invoke("ADD", input, &[]);
        assert!(failed);
        assert_eq!((answer["code"].as_u64(), answer["cniVersion"].as_str()), (Some(code), Some("1.0.0")));
    }
    let outcome = run(&|_| Some("x".into()), &[0xff; 64][..]);
    assert!(outcome.failed);
}

/// Invokes the plugin on the played node, as a runtime would.
fn invoke_in(scene: &Scene, command: &str, version: &str, previous: Option<&Value>) -> (Value, bool) {
    let mut config = serde_json::json!({
        "cniVersion": version, "name": "mesh", "type": "mesh-cni", "socket": scene.socket(), "mtu": 1300,
        "args": { "cni": { "labels": [{ "key": "app", "value": "web" }] } },
    });
    if let Some(previous) = previous {
        config["prevResult"] = previous.clone();
    }
    let netns = scene.netns();
    let changes = [("CNI_NETNS", netns.to_str().unwrap())];
    scene.host.run(|| invoke(command, &config.to_string(), &changes)).unwrap()
}

#[test]
fn a_container_is_added_checked_and_deleted() {
    let scene = Scene::new("cni");
    for version in VERSIONS {
        let (result, failed) = invoke_in(&scene, "ADD", version, None);
        assert!(!failed, "{result}");
        assert_eq!(result["cniVersion"], version);
        assert_eq!(result["interfaces"][1]["name"], "eth0");
        assert_eq!(result["interfaces"][1]["sandbox"], scene.netns().to_str().unwrap());
        assert_eq!(result["ips"][0]["address"], "10.32.0.5/32");
        assert_eq!(Scene::ip(&scene.pod_name, "link show dev eth0")[0]["mtu"], 1300);
        assert!(scene.pings(NODE[0]));
        assert_eq!(invoke_in(&scene, "ADD", version, None), (result.clone(), false));

        let (answer, failed) = invoke_in(&scene, "CHECK", version, Some(&result));
        match version {
            "0.3.1" => assert_eq!((answer["code"].as_u64(), failed), (Some(1), true)),
            _ => assert_eq!((answer, failed), (Value::Null, false)),
        }
        assert_eq!(invoke_in(&scene, "DEL", version, Some(&result)), (Value::Null, false));
        scene.assert_nothing_left(version);
        assert_eq!(invoke_in(&scene, "DEL", version, None), (Value::Null, false), "a container that is unknown by now");
    }
    let (answer, _) = invoke_in(&scene, "CHECK", "1.0.0", Some(&Value::Null));
    assert_eq!(answer["code"], 7);
    let (answer, _) = invoke_in(&scene, "CHECK", "1.0.0", Some(&serde_json::json!({})));
    assert_eq!(answer["code"], 3);
}

#[test]
fn without_the_daemon_add_and_del_ask_to_be_tried_again() {
    let mut scene = Scene::new("cni-down");
    let (_, failed) = invoke_in(&scene, "ADD", "1.0.0", None);
    assert!(!failed);
    scene.stop();
    for command in ["DEL", "ADD"] {
        let (answer, failed) = invoke_in(&scene, command, "1.0.0", None);
        assert!(failed);
        assert_eq!(answer["code"], 11, "{command}");
        assert_eq!(Scene::links(&scene.pod_name), Vec::<String>::new());
    }
}

#[test]
fn a_daemon_that_is_not_ready_asks_to_be_tried_again() {
    let scene = Scene::new("cni-busy");
    *scene.daemon.refuse.lock().unwrap() = Some("/v1/pods");
    let (answer, failed) = invoke_in(&scene, "ADD", "1.0.0", None);
    assert_eq!((answer["code"].as_u64(), failed), (Some(11), true));
    assert!(answer["details"].as_str().unwrap().contains("refused"));
}
