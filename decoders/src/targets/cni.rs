//! The plugin's standard input and environment.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use meshwork_cni::decoders::read;
use serde_json::{Value, json};

use crate::input::{Input, part};

const VARIABLES: [&str; 5] = ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "CNI_ARGS"];

pub(super) fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let values = VARIABLES.map(|name| (name, input.part().to_vec()));
    let lookup = |wanted: &str| {
        let (_, value) = values.iter().find(|(name, _)| *name == wanted)?;
        Some(OsString::from_vec(value.clone()))
    };
    if let Err(error) = read(&lookup, input.0) {
        let error: Value = serde_json::from_str(&error).expect("an error is JSON");
        assert!(error["code"].is_u64() && error["msg"].is_string() && error["cniVersion"].is_string());
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let seed = |arguments: &str, config: Value| {
        let values = ["ADD", "0abc", "eth0", "/run/netns/x", arguments];
        [values.map(|value| part(value.as_bytes())).concat(), config.to_string().into_bytes()].concat()
    };
    let previous = json!({
        "cniVersion": "1.1.0",
        "interfaces": [
            { "name": "mw0123456789a", "mac": "02:00:00:00:00:01", "mtu": 1400 },
            { "name": "eth0", "mac": "06:00:00:00:00:01", "sandbox": "/run/netns/x" },
        ],
        "ips": [{ "address": "10.32.0.9/32", "gateway": "169.254.1.1", "interface": 1 }],
        "routes": [{ "dst": "0.0.0.0/0", "gw": "169.254.1.1" }],
        "dns": { "nameservers": ["10.32.0.53"] },
    });
    vec![
        seed("", json!({ "cniVersion": "1.1.0", "name": "mesh", "type": "mesh-cni", "prevResult": previous })),
        seed(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=n;K8S_POD_NAME=p;IP=10.32.0.9;MAC=",
            json!({
                "cniVersion": "1.0.0", "name": "mesh", "type": "mesh-cni", "mtu": 1400, "ipMasq": false,
                "routes": [{ "dst": "192.0.2.0/24" }],
                "runtimeConfig": { "ips": ["10.32.0.9/24"] },
                "args": { "cni": { "labels": [{ "key": "app", "value": "web" }] }, "meshwork": { "labels": { "a": "b" } } },
            }),
        ),
        seed(
            "",
            json!({
                "cniVersion": "1.1.0", "name": "mesh", "type": "bridge",
                "ipam": { "type": "mesh-cni", "socket": "/x", "dns": {}, "routes": [{ "dst": "fd00::/8", "gw": null }] },
                "cni.dev/valid-attachments": [{ "containerID": "0abc", "ifname": "eth0" }],
                "cni.dev/attachments": null,
            }),
        ),
        seed("IP=fd00::1,10.0.0.1", json!({ "cniVersion": "0.3.1", "name": "mesh", "prevResult": { "ips": null } })),
    ]
}
