//! What scripts rely on: the keys of every answer, the names of the metrics, health, and what can be changed at run
//! time. Witnesses are `curl` and the JSON itself, not our own models.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails at that line")]

use std::fs;

use meshwork_lab::{Host, Lab};
use serde_json::Value;

#[test]
fn answers_have_the_keys_that_scripts_read() {
    let lab = Lab::build("controlapi").unwrap().hosts(2).up().unwrap();
    let host = lab.host(1);
    let _pod = host.pod("web").unwrap();
    keys_are_there(host);
    metrics_are_there(host);
    errors_say_what_to_do(host);
    what_cannot_be_meant_is_wrong_usage(host);
    a_target_is_waited_for(host, lab.host(2));
    the_log_changes_at_run_time(host);
}

fn curl(host: &Host, arguments: &[&str]) -> String {
    host.exec(["curl", "-s"].iter().chain(arguments)).unwrap()
}

fn from_socket(host: &Host, arguments: &[&str]) -> Value {
    let socket = host.socket();
    let arguments = [&["--unix-socket", socket.to_str().unwrap()], arguments].concat();
    serde_json::from_str(&curl(host, &arguments)).unwrap()
}

fn keys_are_there(host: &Host) {
    for (noun, list, keys) in [
        ("status", "", &["healthy", "ready", "reasons", "version", "peer", "cluster", "encryption", "dns"] as &[&str]),
        ("peers", "peers", &["id", "nickname", "cluster", "self", "state", "endpoints", "overlay", "age_s"]),
        ("connections", "connections", &["peer", "nickname", "address", "direction", "state", "reason", "age_s"]),
        ("paths", "paths", &["peer", "nickname", "kind", "encrypted", "via", "mtu", "rtt_us", "loss", "reason"]),
        ("ipam", "", &["state", "reason", "range", "owned", "allocated", "peers"]),
        ("ipam", "peers", &["id", "nickname", "owned", "share", "state"]),
        ("events", "events", &["sequence", "uptime_s", "unix_s", "kind", "subject", "reason"]),
        ("pods", "leases", &["sandbox", "netns", "interface", "addresses", "pod"]),
    ] {
        let answer = from_socket(host, &[&format!("http://meshd/v1/{noun}")]);
        let entry = if list.is_empty() { &answer } else { &answer[list][0] };
        for key in keys {
            assert!(entry.get(key).is_some(), "{noun}: {key} is missing of {entry}");
        }
        if !["events", "pods"].contains(&noun) {
            let printed: Value = serde_json::from_str(&host.meshctl(&[noun, "-o", "json"]).unwrap()).unwrap();
            let (told, printed) = (answer.as_object().unwrap(), printed.as_object().unwrap());
            assert!(told.keys().eq(printed.keys()), "{noun}: what meshctl shows, curl can get");
        }
    }
}

fn metrics_are_there(host: &Host) {
    let metrics = curl(host, &["http://127.0.0.1:6782/metrics"]);
    for name in [
        "meshwork_peers{state=\"alive\"} 2",
        "meshwork_connections{state=\"established\"} 1",
        "meshwork_path_bytes_total{kind=\"direct\",direction=\"sent\"}",
        "meshwork_drops_total{reason=\"bad_secret\"}",
        "meshwork_drops_total{reason=\"replay\"}",
        "meshwork_clear_blocked_packets_total 0",
        "meshwork_ipam_addresses{state=\"allocated\"} 2",
    ] {
        assert!(metrics.contains(name), "{name} is missing of:\n{metrics}");
    }
    for path in ["healthz", "readyz"] {
        let code = ["-o", "/dev/null", "-w", "%{http_code}", &format!("http://127.0.0.1:6782/{path}")];
        assert_eq!(curl(host, &code), "200", "{path}");
    }
}

fn errors_say_what_to_do(host: &Host) {
    for arguments in [
        &["http://meshd/v1/nothing"] as &[&str],
        &["-X", "DELETE", "http://meshd/v1/peers"],
        &["-H", "content-type: application/json", "-d", "{", "http://meshd/v1/connect"],
        &["-H", "content-type: application/json", "-d", "{\"address\":\"a b\"}", "http://meshd/v1/forget"],
        &["-H", "content-type: application/json", "-d", "{\"filter\":\"=\"}", "http://meshd/v1/log"],
    ] {
        let answer = from_socket(host, arguments);
        for key in ["code", "message", "hint"] {
            let text = answer["error"][key].as_str();
            assert!(text.is_some_and(|text| !text.is_empty()), "{arguments:?}: {answer}");
        }
    }
}

fn meshctl(host: &Host, words: &[&str]) -> (Option<i32>, String, String) {
    let output = host.namespace().output(host.meshctl_line(words)).unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn what_cannot_be_meant_is_wrong_usage(host: &Host) {
    for words in [["connect", "a b"], ["connect", "10.0.0.1:port"], ["log", "="], ["log", "loud"]] {
        let (code, printed, said) = meshctl(host, &words);
        assert_eq!((code, printed.as_str()), (Some(2), ""), "{words:?}: {said}");
    }
    let (code, _, said) = meshctl(host, &["forget", "192.0.2.77"]);
    assert_eq!(code, Some(1), "it could have been one: {said}");
}

fn a_target_is_waited_for(host: &Host, other: &Host) {
    let target = other.underlay()[0].to_string();
    let (code, printed, said) = meshctl(host, &["connect", &target, "--wait", "-o", "json"]);
    assert_eq!(code, Some(0), "{said}");
    let answer: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(answer["address"], format!("{target}:6783"));
    let (code, printed, _) = meshctl(host, &["forget", &target, "-o", "json"]);
    assert_eq!((code, printed.as_str()), (Some(0), "{}\n"));
    assert_eq!(meshctl(host, &["log", "info", "-o", "json"]).1, "{}\n");

    // Nobody answers there.
    let (code, _, said) = meshctl(host, &["connect", "127.0.0.1:9", "--wait", "--timeout", "1"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("no link to 127.0.0.1:9: "), "{said}");
    host.meshctl(&["forget", "127.0.0.1:9"]).unwrap();
}

fn the_log_changes_at_run_time(host: &Host) {
    let says = |what: &str| fs::read_to_string(host.log()).unwrap().contains(what);
    assert!(!says(" DEBUG "), "it is quiet to begin with");
    host.meshctl(&["log", "debug"]).unwrap();
    assert!(says("log filter changed"));
    // An address that nobody answers at: each failed dial is worth a line at this level.
    host.meshctl(&["connect", "127.0.0.1:9"]).unwrap();
    meshwork_lab::eventually(std::time::Duration::from_secs(30), "a line at debug level", || {
        Ok(if says(" DEBUG ") {
            meshwork_lab::Look::Done(())
        } else {
            meshwork_lab::Look::Missing("none yet".to_owned())
        })
    })
    .unwrap();
}
