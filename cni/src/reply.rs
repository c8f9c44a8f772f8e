//! What ADD and VERSION print, in the shape of the asked version of the specification.

use std::net::IpAddr;

use ipnet::IpNet;
use meshwork_attach::Attachment;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::config::VERSIONS;

/// Result of ADD. Lists hold what earlier plugins of the chain made, then our own.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AddResult {
    cni_version: String,
    interfaces: Vec<Value>,
    ips: Vec<Value>,
    routes: Vec<Value>,
    dns: Map<String, Value>,
}

impl AddResult {
    /// The result of `attachment`, after `previous` where the plugin does not begin the chain.
    pub(crate) fn new(version: &str, attachment: &Attachment, previous: Option<&Value>) -> Self {
        let mut result = Self::previous(version, previous);
        let pod_index = result.interfaces.len() + 1;
        result
            .interfaces
            .push(json!({ "name": attachment.lease.host_interface, "mac": attachment.host_mac.to_string() }));
        result.interfaces.push(json!({
            "name": attachment.lease.interface,
            "mac": attachment.pod_mac.to_string(),
            "sandbox": attachment.netns,
        }));
        for address in &attachment.addresses {
            result.ips.push(ip(version, *address, attachment.gateway(*address), pod_index));
        }
        for route in &attachment.routes {
            result.routes.push(json!({ "dst": route, "gw": attachment.gateway(route.addr()) }));
        }
        result
    }

    fn previous(version: &str, previous: Option<&Value>) -> Self {
        let list = |key| previous.and_then(|value| value.get(key)?.as_array().cloned()).unwrap_or_default();
        Self {
            cni_version: version.to_owned(),
            interfaces: list("interfaces"),
            ips: list("ips"),
            routes: list("routes"),
            dns: previous.and_then(|value| value.get("dns")?.as_object().cloned()).unwrap_or_default(),
        }
    }

    pub(crate) fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

/// Before 1.0.0 every address says its family.
fn ip(version: &str, address: IpAddr, gateway: IpAddr, interface: usize) -> Value {
    let mut ip = json!({ "address": IpNet::from(address), "gateway": gateway, "interface": interface });
    if let (true, Some(fields)) = (version.starts_with("0."), ip.as_object_mut()) {
        fields.insert("version".to_owned(), Value::from(if address.is_ipv4() { "4" } else { "6" }));
    }
    ip
}

/// Answer of VERSION.
pub(crate) fn versions(version: &str) -> String {
    json!({ "cniVersion": version, "supportedVersions": VERSIONS }).to_string()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use meshwork_api::model::Lease;
    use meshwork_attach::Mac;

    use super::*;

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
            network: None,
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

    #[test]
    fn version_1_names_no_families() {
        let result = serde_json::to_value(AddResult::new("1.0.0", &attachment(), None)).unwrap();
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
        assert_eq!(result, expected);
    }

    #[test]
    fn versions_before_1_name_the_family_of_each_address() {
        for version in ["0.3.1", "0.4.0"] {
            let result = serde_json::to_value(AddResult::new(version, &attachment(), None)).unwrap();
            assert_eq!(result["cniVersion"], version);
            assert_eq!(result["ips"][0]["version"], "4");
            assert_eq!(result["ips"][1]["version"], "6");
        }
    }

    #[test]
    fn what_the_chain_made_before_is_kept_and_indexes_stay_right() {
        let previous = json!({
            "interfaces": [{ "name": "net0" }], "ips": [{ "address": "192.0.2.1/24", "interface": 0 }],
            "dns": { "domain": "x" }, "routes": "nonsense",
        });
        let result = serde_json::to_value(AddResult::new("1.0.0", &attachment(), Some(&previous))).unwrap();
        assert_eq!(result["interfaces"][0]["name"], "net0");
        assert_eq!(result["ips"][0]["interface"], 0);
        assert_eq!(result["ips"][1]["interface"], 2);
        assert_eq!(result["dns"]["domain"], "x");
        assert_eq!(result["routes"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn only_versions_that_are_carried_out_whole_are_offered() {
        assert_eq!(versions("1.0.0"), r#"{"cniVersion":"1.0.0","supportedVersions":["0.3.1","0.4.0","1.0.0"]}"#);
    }
}
