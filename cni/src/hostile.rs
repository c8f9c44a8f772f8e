//! Whatever comes in on standard input and in the environment, one JSON object with a code of ours goes out.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::plugin::run;

const COMMANDS: [&str; 7] = ["ADD", "DEL", "CHECK", "STATUS", "GC", "VERSION", "UPDATE"];

/// Codes of the specification, and our own.
const CODES: [u64; 13] = [1, 2, 3, 4, 5, 6, 7, 11, 50, 51, 100, 101, 102];

/// Keys that mean something to somebody.
const KEYS: [&str; 16] = [
    "cniVersion",
    "name",
    "type",
    "socket",
    "mtu",
    "ipMasq",
    "ipam",
    "args",
    "runtimeConfig",
    "prevResult",
    "routes",
    "dns",
    "ips",
    "interfaces",
    "cni",
    "cni.dev/valid-attachments",
];

/// One JSON object and the exit code that belongs to it; never a panic.
fn assert_answer(variables: &BTreeMap<&str, OsString>, input: &[u8]) {
    let outcome = run(&|name| variables.get(name).cloned(), input);
    if outcome.failed {
        let answer: Value = serde_json::from_str(&outcome.output).unwrap();
        assert!(CODES.contains(&answer["code"].as_u64().unwrap()), "{answer}");
        assert!(answer["msg"].is_string() && answer["cniVersion"].is_string(), "{answer}");
    } else {
        let version = variables.get("CNI_COMMAND").is_some_and(|command| command == "VERSION");
        assert!(version, "there is no daemon: {variables:?}, {}", String::from_utf8_lossy(input));
    }
}

fn environment(command: &str) -> BTreeMap<&'static str, OsString> {
    [("CNI_COMMAND", command), ("CNI_CONTAINERID", "0abc"), ("CNI_IFNAME", "eth0"), ("CNI_NETNS", "/nonexistent/netns")]
        .into_iter()
        .map(|(name, value)| (name, OsString::from(value)))
        .collect()
}

/// Any JSON, its keys often known ones.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop_oneof![".{0,12}", Just("mesh-cni".to_owned()), Just("10.32.0.9/24".to_owned()), Just("1.1.0".to_owned())]
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        let key = prop_oneof![proptest::sample::select(&KEYS[..]).prop_map(str::to_owned), ".{0,8}"];
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(key, inner, 0..5).prop_map(|map| Value::Object(Map::from_iter(map))),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes_on_standard_input_are_answered(
        command in proptest::sample::select(&COMMANDS[..]),
        input in vec(any::<u8>(), 0..512),
    ) {
        assert_answer(&environment(command), &input);
    }

    #[test]
    fn any_values_under_known_keys_are_answered(
        command in proptest::sample::select(&COMMANDS[..]),
        keys in btree_map(proptest::sample::select(&KEYS[..]), value(), 0..6),
    ) {
        let mut config = json!({ "cniVersion": "1.1.0", "name": "mesh", "type": "mesh-cni" });
        config.as_object_mut().unwrap().extend(keys.into_iter().map(|(key, value)| (key.to_owned(), value)));
        // A socket of the machine's own must not be asked.
        config["socket"] = json!("/nonexistent/meshd.sock");
        if let Some(ipam) = config["ipam"].as_object_mut() {
            ipam.insert("socket".to_owned(), json!("/nonexistent/meshd.sock"));
        }
        assert_answer(&environment(command), config.to_string().as_bytes());
    }

    #[test]
    fn any_environment_is_answered(
        values in btree_map(
            proptest::sample::select(&["CNI_COMMAND", "CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "CNI_ARGS"][..]),
            vec(any::<u8>(), 0..40),
            0..5,
        ),
    ) {
        let mut variables = environment("ADD");
        variables.extend(values.into_iter().map(|(name, value)| (name, OsString::from_vec(value))));
        let config = br#"{"cniVersion":"1.1.0","name":"mesh","type":"mesh-cni","socket":"/nonexistent/meshd.sock"}"#;
        assert_answer(&variables, config);
    }
}
