//! What the control API is asked, and what its clients are answered.

use std::fmt::Debug;

use meshwork_api::client::Client;
use meshwork_api::event::{Event, Events, PodChange};
use meshwork_api::model::{
    Connections, Done, Exposure, Ipam, Lease, LeaseName, LeaseRequest, Leases, LogFilter, Paths, Peers, Seal, Status,
    Target as TargetModel, VersionInfo,
};
use meshwork_gossip::limits::{MAX_KEY, MAX_VALUE};
use meshwork_router::api::decoders::{lease_request, watches};
use meshwork_wire::frame;
use meshwork_wire::record::{PodKey, PodRecord};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::settings;
use crate::input::{Input, of_kind};

pub(super) fn requests(bytes: &[u8]) {
    let mut input = Input(bytes);
    match input.byte() % 6 {
        0 => {
            same::<LeaseRequest>(input.0);
            lease_request(input.0).iter().for_each(judge);
        }
        1 => drop(same::<LeaseName>(input.0)),
        2 => {
            if let Some(TargetModel { address }) = same::<TargetModel>(input.0) {
                settings::target(&address);
            }
        }
        3 => drop(same::<Seal>(input.0)),
        4 => {
            if let Some(LogFilter { filter }) = same::<LogFilter>(input.0) {
                settings::filter(&filter);
            }
        }
        _ => {
            let asked = std::str::from_utf8(input.0).map(watches);
            assert!(asked != Ok(true) || input.0.windows(5).any(|word| word == b"watch"));
        }
    }
}

/// What may be leased fits into what gossip carries.
fn judge(request: &LeaseRequest) {
    let LeaseRequest { sandbox, interface, pod, .. } = request.clone();
    let key = frame::encode(&PodKey { sandbox, interface });
    let addresses = vec![[0xff; 4].into(), [0xff; 16].into()];
    let record = PodRecord { namespace: pod.namespace, name: pod.name, labels: pod.labels, addresses };
    assert!(key.len() <= MAX_KEY && frame::encode(&record).len() <= MAX_VALUE);
}

/// What is read is written as something that is read as the same.
fn same<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(bytes).ok()?;
    let written = serde_json::to_vec(&value).expect("it can be written");
    assert_eq!(serde_json::from_slice::<T>(&written).ok().as_ref(), Some(&value));
    Some(value)
}

pub(super) fn request_seeds() -> Vec<Vec<u8>> {
    let lease = json!({
        "sandbox": "0abc", "interface": "eth0", "netns": "/run/netns/x", "address": "10.32.0.9", "mtu": 1400,
        "pod": { "namespace": "n", "name": "p", "labels": { "app": "web" } }, "network": "mesh", "masquerade": false,
    });
    let seed = |kind, value: serde_json::Value| of_kind(kind, value.to_string().as_bytes());
    vec![
        seed(0, lease),
        seed(1, json!({ "sandbox": "0abc", "interface": null })),
        seed(2, json!({ "address": "[2001:db8::1]:6783" })),
        seed(3, json!({ "peer": "node-2", "sealed": true })),
        seed(4, json!({ "filter": "warn,meshwork_tunnel=trace" })),
        of_kind(5, b"a=b&watch=1"),
    ]
}

pub(super) fn answers(bytes: &[u8]) {
    let mut input = Input(bytes);
    match input.byte() % 13 {
        0 => answer::<Status>(input.0),
        1 => answer::<Peers>(input.0),
        2 => answer::<Connections>(input.0),
        3 => answer::<Paths>(input.0),
        4 => answer::<Ipam>(input.0),
        5 => answer::<Leases>(input.0),
        6 => answer::<Lease>(input.0),
        7 => answer::<Events>(input.0),
        8 => line::<Event>(input.0),
        9 => line::<PodChange>(input.0),
        10 => answer::<VersionInfo>(input.0),
        11 => answer::<Exposure>(input.0),
        _ => answer::<Done>(input.0),
    }
}

/// A whole HTTP answer, or its body alone.
fn answer<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let client = Client::new("/nonexistent");
    let _ = client.read::<T>("/v1/noun", bytes).map_err(|error| assert!(!error.to_string().is_empty()));
    line::<T>(bytes);
}

/// What is read can be written, and that can be read.
fn line<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(bytes) else { return };
    let written = serde_json::to_vec(&value).expect("it can be written");
    assert!(serde_json::from_slice::<T>(&written).is_ok());
}

pub(super) fn answer_seeds() -> Vec<Vec<u8>> {
    let id = "a5".repeat(16);
    let lease = json!({
        "sandbox": "0abc", "interface": "eth0", "netns": "/x", "pod": {}, "host_interface": "mw0123456789a",
        "addresses": ["10.32.0.9", "fd00::9"], "mtu": 1400, "gateway4": "169.254.1.1", "gateway6": "fe80::1", "routed": true,
    });
    let ring = json!({ "state": "ready", "reason": "", "range": ["10.32.0.0/12"], "owned": 9, "allocated": 1 });
    let status = json!({
        "api": 1, "healthy": true, "ready": true, "reasons": [], "version": "1", "uptime_s": 1.5,
        "peer": { "id": id, "nickname": "n" }, "cluster": "c", "encryption": "off", "discovery": true,
        "listen": "[::]:6783", "targets": [], "peers": { "alive": 1 }, "connections": { "established": 1 },
        "dns": { "listen": [] }, "ipam": ring, "overlay": ["10.32.0.1"], "mtu": 1400, "drops": { "forged": 1 },
        "clear_blocked_packets": 0,
    });
    let mut ipam = ring;
    ipam["api"] = json!(1);
    ipam["peers"] =
        json!([{ "id": id, "nickname": "n", "owned": 1, "share": 0.5, "state": "dead", "parts": ["10.32.0.0/20"] }]);
    ipam["leases"] = json!([lease]);
    let event = json!({
        "sequence": 1, "uptime_s": 1.0, "unix_s": 2.0, "kind": "link_up", "peer": id, "address": "192.0.2.1:6783",
        "direction": "inbound", "subject": "s", "reason": "r",
    });
    let http = |body: &serde_json::Value| {
        let body = body.to_string();
        format!("HTTP/1.0 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
    };
    let refusal = json!({ "error": { "code": "no_space", "message": "m", "hint": "h" } }).to_string();
    let seed = |kind, value: &serde_json::Value| of_kind(kind, value.to_string().as_bytes());
    vec![
        of_kind(0, &http(&status)),
        of_kind(4, &http(&ipam)),
        of_kind(12, format!("HTTP/1.0 409 Conflict\r\n\r\n{refusal}").as_bytes()),
        seed(5, &json!({ "api": 1, "leases": [lease] })),
        seed(8, &event),
        seed(9, &json!({ "change": "added", "lease": lease })),
        seed(9, &json!({ "change": "missed", "missed": 3 })),
        seed(10, &json!({ "api": 1, "version": "1", "protocol": 1 })),
        of_kind(12, &http(&json!({}))),
    ]
}
