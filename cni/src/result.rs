//! Results: what ADD prints, and the `prevResult` that comes in, in the shape of the asked version.
//!
//! What earlier plugins of the chain made is kept as it came, unknown keys and all, and stands first, so that every
//! `interface` of theirs still counts right. Before 1.0.0 every address says its family.

use std::net::IpAddr;

use ipnet::IpNet;
use meshwork_api::link::{LinkMacs, Mac};
use meshwork_attach::{Attachment, Expected, LeasedAddress};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

use crate::config::{Config, VERSIONS};
use crate::error::{CniError, Code};

/// A result of any version.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CniResult {
    #[serde(default)]
    cni_version: String,
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    interfaces: Vec<Interface>,
    #[serde(default, deserialize_with = "list")]
    ips: Vec<Ip>,
    #[serde(default, deserialize_with = "list")]
    routes: Vec<Value>,
    #[serde(default)]
    dns: Option<Map<String, Value>>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Interface {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mac: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sandbox: Option<String>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Ip {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    address: IpNet,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    interface: Option<usize>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

impl CniResult {
    /// What earlier plugins of the chain made, or nothing.
    pub(crate) fn previous(config: &Config) -> Result<Option<Self>, CniError> {
        let Some(previous) = &config.previous else { return Ok(None) };
        let result: Self = serde_json::from_value(previous.clone())
            .map_err(|error| CniError::new(Code::Decode, "prevResult is not understood", error.to_string()))?;
        match result.ips.iter().find(|ip| ip.interface.is_some_and(|index| index >= result.interfaces.len())) {
            None => Ok(Some(result)),
            Some(ip) => {
                let details = format!("{} is of an interface that prevResult does not list", ip.address);
                Err(CniError::new(Code::InvalidConfig, "invalid prevResult", details))
            }
        }
    }

    /// Adds the link behind whatever was there.
    pub(crate) fn with_link(mut self, config: &Config, attachment: &Attachment) -> Self {
        let mtu = knows_mtu(&config.cni_version).then(|| json!(attachment.lease.mtu));
        let more: Map<String, Value> = mtu.into_iter().map(|mtu| ("mtu".to_owned(), mtu)).collect();
        self.interfaces.push(Interface {
            name: attachment.lease.host_interface.clone(),
            mac: Some(attachment.host_mac.to_string()),
            sandbox: None,
            more: more.clone(),
        });
        let pod = self.interfaces.len();
        self.interfaces.push(Interface {
            name: attachment.lease.interface.clone(),
            mac: Some(attachment.pod_mac.to_string()),
            sandbox: Some(attachment.netns.to_string_lossy().into_owned()),
            more,
        });
        for address in &attachment.addresses {
            self.ips.push(Ip::new(IpNet::from(*address), attachment.gateway(*address), Some(pod)));
        }
        for route in &attachment.routes {
            self.routes.push(json!({ "dst": route, "gw": attachment.gateway(route.addr()) }));
        }
        self.shaped(config)
    }

    /// Addresses alone, for the plugin that makes the link.
    pub(crate) fn of_addresses(config: &Config, addresses: &[LeasedAddress], routes: &[IpNet]) -> Self {
        let gateway = |route: &IpNet| {
            let same = addresses.iter().find(|leased| leased.gateway.is_ipv4() == route.addr().is_ipv4());
            same.map(|leased| json!({ "dst": route, "gw": leased.gateway }))
        };
        let ips = addresses.iter().map(|leased| Ip::new(leased.net, leased.gateway, None)).collect();
        Self { ips, routes: routes.iter().filter_map(gateway).collect(), ..Self::default() }.shaped(config)
    }

    /// Gives it the shape of the configuration's version, and the configured resolver where nobody named one.
    fn shaped(mut self, config: &Config) -> Self {
        self.cni_version.clone_from(&config.cni_version);
        let named = config.cni_version.starts_with("0.");
        for ip in &mut self.ips {
            let family = if ip.address.addr().is_ipv4() { "4" } else { "6" };
            ip.version = named.then(|| family.to_owned());
        }
        let told = self.dns.filter(|dns| !dns.is_empty());
        self.dns = Some(told.or_else(|| config.own.dns.clone()).unwrap_or_default());
        self
    }

    /// What it says of the pod's interface `name`.
    pub(crate) fn expected(&self, name: &str) -> Option<Expected> {
        let of_pod = |interface: &Interface| interface.name == name && interface.sandbox.as_deref() > Some("");
        let index = self.interfaces.iter().position(of_pod)?;
        let ips: Vec<&Ip> = self.ips.iter().filter(|ip| ip.interface == Some(index)).collect();
        let gateways: Vec<IpAddr> = ips.iter().filter_map(|ip| ip.gateway).collect();
        let field = |route: &Value, key: &str| route.get(key)?.as_str().map(str::to_owned);
        let through_us = self.routes.iter().filter(|route| {
            field(route, "gw").and_then(|gateway| gateway.parse().ok()).is_some_and(|gw| gateways.contains(&gw))
        });
        let host =
            self.interfaces.iter().filter(|interface| interface.sandbox.as_deref().unwrap_or_default().is_empty());
        let mut host = host.filter(|interface| LinkMacs::of_host_interface(&interface.name).is_some());
        Some(Expected {
            pod_mac: self.interfaces.get(index).and_then(|interface| Mac::parse(interface.mac.as_deref()?)),
            host_interface: host.next().map(|interface| interface.name.clone()),
            addresses: ips.iter().map(|ip| ip.address.addr()).collect(),
            routes: through_us.filter_map(|route| field(route, "dst")?.parse().ok()).collect(),
        })
    }

    /// All addresses of interface `name`, or all there are where interfaces are not told.
    pub(crate) fn addresses(&self, name: &str) -> Vec<IpAddr> {
        let named = |index: usize| self.interfaces.get(index).is_some_and(|interface| interface.name == name);
        self.ips.iter().filter(|ip| ip.interface.is_none_or(named)).map(|ip| ip.address.addr()).collect()
    }

    pub(crate) fn to_json(&self) -> Result<String, CniError> {
        serde_json::to_string(self)
            .map_err(|error| CniError::new(Code::Io, "the result cannot be written", error.to_string()))
    }
}

impl Ip {
    fn new(address: IpNet, gateway: IpAddr, interface: Option<usize>) -> Self {
        Self { version: None, address, gateway: Some(gateway), interface, more: Map::new() }
    }
}

/// Interfaces tell their MTU from 1.1.0 on.
fn knows_mtu(version: &str) -> bool {
    version == "1.1.0"
}

/// Go writes an empty list as `null`.
fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Answer of VERSION.
pub(crate) fn versions(version: &str) -> String {
    json!({ "cniVersion": version, "supportedVersions": VERSIONS }).to_string()
}

#[cfg(test)]
#[path = "result_tests.rs"]
mod tests;
