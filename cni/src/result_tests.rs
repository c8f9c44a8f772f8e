use std::path::PathBuf;

use meshwork_api::model::Lease;

use super::*;

fn config(version: &str, more: &Value) -> Config {
    let mut config = json!({ "cniVersion": version, "name": "mesh", "type": "mesh-cni" });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Config::parse(config.to_string().as_bytes()).unwrap()
}

fn attachment() -> Attachment {
    let lease = Lease {
        sandbox: "0abc".to_owned(),
        interface: "eth0".to_owned(),
        netns: "/run/netns/pod".to_owned(),
        pod: Default::default(),
        host_interface: "mw0123456789a".to_owned(),
        addresses: vec!["10.32.0.5".parse().unwrap(), "fd4d:6573:6877::5".parse().unwrap()],
        mtu: 1400,
        gateway4: "169.254.1.1".parse().unwrap(),
        gateway6: "fe80::1".parse().unwrap(),
        routed: true,
        network: Some("mesh".to_owned()),
        address_only: false,
        masquerade: true,
    };
    Attachment {
        addresses: lease.addresses.clone(),
        lease,
        host_mac: Mac([2, 0, 0, 0, 0, 1]),
        pod_mac: Mac([2, 0, 0, 0, 0, 2]),
        netns: PathBuf::from("/run/netns/pod"),
        routes: vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()],
        remarks: vec![],
    }
}

/// The result of ADD, behind what came before.
fn add(version: &str, more: &Value) -> Value {
    let config = config(version, more);
    let previous = CniResult::previous(&config).unwrap().unwrap_or_default();
    serde_json::to_value(previous.with_link(&config, &attachment())).unwrap()
}

#[test]
fn version_1_names_no_families() {
    let expected = json!({
        "cniVersion": "1.0.0",
        "interfaces": [
            { "name": "mw0123456789a", "mac": "02:00:00:00:00:01" },
            { "name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/run/netns/pod" },
        ],
        "ips": [
            { "address": "10.32.0.5/32", "gateway": "169.254.1.1", "interface": 1 },
            { "address": "fd4d:6573:6877::5/128", "gateway": "fe80::1", "interface": 1 },
        ],
        "routes": [{ "dst": "0.0.0.0/0", "gw": "169.254.1.1" }, { "dst": "::/0", "gw": "fe80::1" }],
        "dns": {},
    });
    assert_eq!(add("1.0.0", &json!({})), expected);
}

#[test]
fn version_1_1_tells_the_mtu() {
    let result = add("1.1.0", &json!({}));
    assert_eq!((&result["interfaces"][0]["mtu"], &result["interfaces"][1]["mtu"]), (&json!(1400), &json!(1400)));
}

#[test]
fn versions_before_1_name_the_family_of_each_address() {
    for version in ["0.3.1", "0.4.0"] {
        let previous = json!({ "prevResult": { "interfaces": [{ "name": "net0" }],
            "ips": [{ "version": "4", "address": "192.0.2.1/24", "interface": 0 }] } });
        let result = add(version, &previous);
        assert_eq!(result["cniVersion"], version);
        let families: Vec<_> = result["ips"].as_array().unwrap().iter().map(|ip| &ip["version"]).collect();
        assert_eq!(families, ["4", "4", "6"]);
    }
}

#[test]
fn what_the_chain_made_before_is_kept_and_indexes_stay_right() {
    let previous = json!({ "dns": { "domain": "late" }, "prevResult": {
        "cniVersion": "1.1.0",
        "interfaces": [{ "name": "net0", "mac": "aa", "mtu": 9000, "socketPath": "/x", "sandbox": "" }],
        "ips": [{ "address": "192.0.2.1/24", "gateway": "192.0.2.254", "interface": 0 }],
        "routes": [{ "dst": "198.51.100.0/24", "priority": 7 }],
        "dns": { "nameservers": ["192.0.2.53"] },
    } });
    let result = add("1.1.0", &previous);
    assert_eq!(result["interfaces"][0], previous["prevResult"]["interfaces"][0]);
    assert_eq!(result["ips"][0], previous["prevResult"]["ips"][0]);
    assert_eq!(result["routes"][0], previous["prevResult"]["routes"][0]);
    assert_eq!(result["dns"], previous["prevResult"]["dns"]);
    assert_eq!((&result["interfaces"][2]["name"], &result["ips"][1]["interface"]), (&json!("eth0"), &json!(2)));
    assert_eq!(result["routes"].as_array().unwrap().len(), 3);
}

#[test]
fn empty_lists_may_be_null_and_the_configured_resolver_counts_where_nobody_named_one() {
    let nulls = json!({ "dns": { "nameservers": ["10.32.0.53"] }, "prevResult": {
        "interfaces": null, "ips": null, "routes": null, "dns": {} } });
    let result = add("1.0.0", &nulls);
    assert_eq!((&result["ips"][0]["interface"], &result["dns"]["nameservers"][0]), (&json!(1), &json!("10.32.0.53")));
}

#[test]
fn a_previous_result_that_is_none_is_refused() {
    for (previous, code) in [
        (json!({ "interfaces": 7 }), Code::Decode),
        (json!({ "ips": [{ "address": "everywhere" }] }), Code::Decode),
        (json!({ "ips": [{ "address": "192.0.2.1/24", "interface": -1 }] }), Code::Decode),
        (json!({ "ips": [{ "address": "192.0.2.1/24", "interface": 0 }] }), Code::InvalidConfig),
    ] {
        let config = config("1.0.0", &json!({ "prevResult": previous }));
        assert_eq!(CniResult::previous(&config).unwrap_err().code, code, "{previous}");
    }
}

#[test]
fn addresses_alone_come_without_interfaces() {
    let leased = LeasedAddress { net: "10.32.0.5/12".parse().unwrap(), gateway: "10.32.0.1".parse().unwrap() };
    let routes = ["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
    for (version, family) in [("0.4.0", json!({ "version": "4" })), ("1.1.0", json!({}))] {
        let result = CniResult::of_addresses(&config(version, &json!({})), &[leased], &routes);
        let mut ip = json!({ "address": "10.32.0.5/12", "gateway": "10.32.0.1" });
        ip.as_object_mut().unwrap().extend(family.as_object().unwrap().clone());
        let expected = json!({ "cniVersion": version, "ips": [ip], "dns": {},
            "routes": [{ "dst": "0.0.0.0/0", "gw": "10.32.0.1" }] });
        assert_eq!(serde_json::to_value(result).unwrap(), expected);
    }
}

#[test]
fn a_result_says_what_to_expect_of_the_link() {
    let of = |result: Value| CniResult::previous(&config("1.1.0", &json!({ "prevResult": result }))).unwrap().unwrap();
    let expected = Expected {
        pod_mac: Some(attachment().pod_mac),
        host_interface: Some("mw0123456789a".to_owned()),
        addresses: attachment().addresses,
        routes: attachment().routes,
    };
    let result = of(add("1.1.0", &json!({})));
    assert_eq!(result.expected("eth0"), Some(expected));
    assert_eq!(result.expected("eth1"), None);
    assert_eq!(result.addresses("eth0"), attachment().addresses);
    let behind = of(add(
        "1.1.0",
        &json!({ "prevResult": {
        "interfaces": [{ "name": "eth0" }, { "name": "net1", "sandbox": "/run/netns/pod" }],
        "ips": [{ "address": "192.0.2.1/24", "interface": 1 }],
        "routes": [{ "dst": "0.0.0.0/0", "gw": "192.0.2.254" }],
    } }),
    ));
    assert_eq!(behind.expected("eth0").unwrap().addresses, attachment().addresses);
    assert_eq!(behind.expected("eth0").unwrap().routes.len(), 2);
}

#[test]
fn only_versions_that_are_carried_out_whole_are_offered() {
    assert_eq!(versions("1.0.0"), r#"{"cniVersion":"1.0.0","supportedVersions":["0.3.1","0.4.0","1.0.0","1.1.0"]}"#);
}
