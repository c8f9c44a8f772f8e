use std::collections::BTreeMap;
use std::ffi::OsString;

use serde_json::{Value, json};

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
        [(r#"{"cniVersion":"0.4.0"}"#, "0.4.0"), (r#"{"cniVersion":"9.0.0"}"#, "1.1.0"), ("", "1.1.0")]
    {
        let (answer, failed) = invoke("VERSION", input, &[("CNI_CONTAINERID", ""), ("CNI_IFNAME", "")]);
        assert!(!failed);
        assert_eq!(answer["cniVersion"], spoken);
        assert_eq!(answer["supportedVersions"], json!(VERSIONS));
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
    for command in ["UPDATE", "add", ""] {
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
fn gc_and_status_need_a_version_that_has_them_and_a_daemon() {
    for (command, code) in [("GC", 11), ("STATUS", 50)] {
        let (answer, failed) = invoke(command, &CONFIG.replace("0.4.0", "1.0.0"), &[]);
        assert_eq!((answer["code"].as_u64(), failed), (Some(1), true), "{command}");
        let nobody = [("CNI_CONTAINERID", ""), ("CNI_IFNAME", ""), ("CNI_NETNS", "")];
        let (answer, failed) = invoke(command, &CONFIG.replace("0.4.0", "1.1.0"), &nobody);
        assert_eq!((answer["code"].as_u64(), failed), (Some(code), true), "{command}: {answer}");
    }
}

#[test]
fn malformed_input_is_answered_with_an_error_and_never_a_panic() {
    let long = " ".repeat(usize::try_from(MAX_INPUT).unwrap() + 1);
    for (input, code) in
        [("", 6), ("{", 6), ("[1,2]", 6), ("\u{0}", 6), (r#"{"cniVersion":"1.0.0","name":3}"#, 6), (&long, 7)]
    {
        let (answer, failed) = invoke("ADD", input, &[]);
        assert!(failed);
        assert_eq!(
            (answer["code"].as_u64(), answer["cniVersion"].as_str()),
            (Some(code), Some(if input.contains("1.0.0") { "1.0.0" } else { "1.1.0" }))
        );
    }
    let outcome = run(&|_| Some("x".into()), &[0xff; 64][..]);
    assert!(outcome.failed);
}

/// Invokes the plugin on the played node, as a runtime would.
fn invoke_in(scene: &Scene, command: &str, version: &str, previous: Option<&Value>) -> (Value, bool) {
    let previous = previous.map_or(json!({}), |previous| json!({ "prevResult": previous }));
    invoke_with(scene, command, version, &previous)
}

/// The same with more keys, or others.
fn invoke_with(scene: &Scene, command: &str, version: &str, keys: &Value) -> (Value, bool) {
    let mut config = json!({
        "cniVersion": version, "name": "mesh", "type": "mesh-cni", "socket": scene.socket(), "mtu": 1300,
        "args": { "cni": { "labels": [{ "key": "app", "value": "web" }] } },
    });
    config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
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
        let told = if version == "1.1.0" { json!(1300) } else { Value::Null };
        assert!([0, 1].iter().all(|end| result["interfaces"][end]["mtu"] == told), "{result}");
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
    let (answer, _) = invoke_in(&scene, "CHECK", "1.0.0", Some(&json!({})));
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

#[test]
fn check_compares_the_previous_result_with_what_stands() {
    let scene = Scene::new("cni-check");
    let (result, _) = invoke_in(&scene, "ADD", "1.1.0", None);
    let differing = [
        ("/ips/0/address", json!("10.32.0.77/32")),
        ("/interfaces/1/mac", json!("02:00:00:00:00:77")),
        ("/interfaces/0/name", json!("mw00000000077")),
        ("/routes/0/dst", json!("192.0.2.0/24")),
    ];
    for (place, value) in differing {
        let mut other = result.clone();
        *other.pointer_mut(place).unwrap() = value;
        let (answer, failed) = invoke_in(&scene, "CHECK", "1.1.0", Some(&other));
        assert_eq!((answer["code"].as_u64(), failed), (Some(101), true), "{place}: {answer}");
    }
    let (answer, _) = invoke_in(&scene, "CHECK", "1.1.0", Some(&json!({ "interfaces": [{ "name": "eth0" }] })));
    assert_eq!(answer["code"], 7, "{answer}");
    assert_eq!(invoke_in(&scene, "CHECK", "1.1.0", Some(&result)), (Value::Null, false));
    Scene::ip(&scene.pod_name, "route delete default");
    let (answer, _) = invoke_in(&scene, "CHECK", "1.1.0", Some(&result));
    assert!(answer["details"].as_str().unwrap().contains("0.0.0.0/0"), "{answer}");
}

#[test]
fn a_result_of_a_chain_holds_all_of_it_and_check_finds_our_part() {
    let scene = Scene::new("cni-chain");
    let earlier = json!({
        "cniVersion": "1.0.0", "interfaces": [{ "name": "net9", "sandbox": scene.netns() }],
        "ips": [{ "address": "192.0.2.9/24", "interface": 0 }],
    });
    let (result, failed) = invoke_in(&scene, "ADD", "1.0.0", Some(&earlier));
    assert!(!failed, "{result}");
    assert_eq!((&result["interfaces"][2]["name"], &result["ips"][1]["interface"]), (&json!("eth0"), &json!(2)));
    assert_eq!(invoke_in(&scene, "CHECK", "1.0.0", Some(&result)), (Value::Null, false));
}

#[test]
fn gc_frees_what_the_runtime_does_not_know_and_nothing_of_others() {
    let scene = Scene::new("cni-gc");
    let (result, failed) = invoke_in(&scene, "ADD", "1.1.0", None);
    assert!(!failed, "{result}");
    let of_others = [("netns-4-17", None), ("0def", Some("another"))];
    for (sandbox, network) in of_others {
        let lease = scene.daemon.leases.lock().unwrap().values().next().unwrap().clone();
        let (sandbox, network) = (sandbox.to_owned(), network.map(str::to_owned));
        let other = meshwork_api::model::Lease { sandbox, network, host_interface: "mw00000000099".into(), ..lease };
        scene.daemon.leases.lock().unwrap().insert((other.sandbox.clone(), "eth0".to_owned()), other);
    }
    let known = json!([{ "containerID": "0abc", "ifname": "eth0" }]);
    for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
        assert_eq!(invoke_with(&scene, "GC", "1.1.0", &json!({ key: known })), (Value::Null, false));
        assert_eq!(scene.daemon.leases.lock().unwrap().len(), 3, "{key}");
        assert!(scene.pings(NODE[0]));
    }
    let (answer, _) = invoke_with(&scene, "GC", "1.1.0", &json!({ "cni.dev/valid-attachments": [{ "ifname": 7 }] }));
    assert_eq!((answer["code"].as_u64(), scene.daemon.leases.lock().unwrap().len()), (Some(6), 3), "{answer}");

    let other_interface = json!([{ "containerID": "0abc", "ifname": "eth1" }]);
    let keys = json!({ "cni.dev/valid-attachments": other_interface, "cni.dev/attachments": other_interface });
    assert_eq!(invoke_with(&scene, "GC", "1.1.0", &keys), (Value::Null, false));
    let left: Vec<String> = scene.daemon.leases.lock().unwrap().keys().map(|(sandbox, _)| sandbox.clone()).collect();
    assert_eq!(left, ["0def", "netns-4-17"]);
    assert_eq!(Scene::links(&scene.pod_name), Vec::<String>::new());
}

#[test]
fn status_tells_whether_add_could_be_served() {
    let scene = Scene::new("cni-status");
    let status = || invoke_with(&scene, "STATUS", "1.1.0", &json!({}));
    assert_eq!(status(), (Value::Null, false));
    for (says, code) in [
        (json!({ "ready": false, "reasons": ["addresses: no ring yet"] }), Some(50)),
        (json!({ "ready": false, "peers": { "alive": 1, "dead": 2 }, "connections": { "retrying": 2 } }), Some(51)),
        (json!({ "healthy": false, "peers": { "alive": 1, "dead": 2 }, "connections": { "retrying": 2 } }), None),
    ] {
        *scene.daemon.status.lock().unwrap() = says.clone();
        let (answer, failed) = status();
        assert_eq!((answer["code"].as_u64(), failed), (code, code.is_some()), "{says}: {answer}");
    }
}

#[test]
fn under_another_plugin_addresses_are_leased_and_no_link_is_made() {
    let scene = Scene::new("cni-ipam");
    let keys = |more: Value| {
        let mut keys =
            json!({ "type": "ptp", "mtu": "its own", "ipam": { "type": "mesh-cni", "socket": scene.socket() } });
        keys.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        keys
    };
    let (result, failed) = invoke_with(&scene, "ADD", "1.0.0", &keys(json!({})));
    assert!(!failed, "{result}");
    assert_eq!(result["ips"][0], json!({ "address": "10.32.0.5/12", "gateway": NODE[0] }));
    assert_eq!(result["routes"][1], json!({ "dst": "::/0", "gw": NODE[1] }));
    assert_eq!(result.get("interfaces"), None);
    assert_eq!(Scene::links(&scene.pod_name), Vec::<String>::new());
    assert!(scene.daemon.leases.lock().unwrap().values().all(|lease| lease.address_only));

    let previous = keys(json!({ "prevResult": result }));
    assert_eq!(invoke_with(&scene, "CHECK", "1.0.0", &previous), (Value::Null, false));
    let other = keys(json!({ "prevResult": { "ips": [{ "address": "10.32.0.77/12" }] } }));
    assert_eq!(invoke_with(&scene, "CHECK", "1.0.0", &other).0["code"], 101);
    assert_eq!(invoke_with(&scene, "DEL", "1.0.0", &keys(json!({}))), (Value::Null, false));
    scene.assert_nothing_left("ipam");
    assert_eq!(invoke_with(&scene, "CHECK", "1.0.0", &previous).0["code"], 3);

    *scene.daemon.status.lock().unwrap() = json!({ "overlay": [] });
    assert_eq!(invoke_with(&scene, "ADD", "1.0.0", &keys(json!({}))).0["code"], 11);
    scene.assert_nothing_left("a node without an address");
}

#[test]
fn wished_routes_are_made_and_told() {
    let scene = Scene::new("cni-routes");
    let (result, failed) = invoke_with(&scene, "ADD", "1.0.0", &json!({ "routes": [{ "dst": "192.0.2.0/24" }] }));
    assert!(!failed, "{result}");
    assert!(result["routes"].as_array().unwrap().contains(&json!({ "dst": "192.0.2.0/24", "gw": "169.254.1.1" })));
    assert_eq!(Scene::ip(&scene.pod_name, "route show 192.0.2.0/24")[0]["gateway"], "169.254.1.1");
    assert_eq!(invoke_in(&scene, "CHECK", "1.0.0", Some(&result)), (Value::Null, false));
}

#[test]
fn a_wish_that_cannot_be_met_is_refused_before_anything_is_made() {
    let scene = Scene::new("cni-wish");
    for (keys, code) in [
        (json!({ "runtimeConfig": { "mac": "02:00:00:00:00:01" } }), 2),
        (json!({ "runtimeConfig": { "ips": ["fd4d::1"] } }), 2),
        (json!({ "routes": [{ "dst": "192.0.2.0/24", "gw": "192.0.2.1" }] }), 2),
        (json!({ "prevResult": { "ips": [{ "address": "192.0.2.1/24", "interface": 3 }] } }), 7),
    ] {
        let (answer, failed) = invoke_with(&scene, "ADD", "1.0.0", &keys);
        assert_eq!((answer["code"].as_u64(), failed), (Some(code), true), "{keys}: {answer}");
        scene.assert_nothing_left(&keys.to_string());
    }
}
