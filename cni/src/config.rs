//! The network configuration on standard input.
//!
//! The keys of our own stand in the network's object, or in its `ipam` section where another plugin makes the link:
//! the object is that plugin's then, and keys of the same name are none of ours. `args`, `runtimeConfig` and
//! `prevResult` are the specification's, in one place for everyone.

use std::path::PathBuf;

use ipnet::IpNet;
use meshwork_api::model::DEFAULT_SOCKET;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{CniError, Code};
use crate::wishes::{Arguments, RuntimeConfig};

/// Versions of the specification that are carried out whole, oldest first.
pub(crate) const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The newest of [`VERSIONS`]: what answers use where the question names none.
pub(crate) const LATEST: &str = "1.1.0";

/// What is meant by a configuration that names no version.
const UNNAMED_VERSION: &str = "0.1.0";

/// Our own name, as configurations use it.
const PLUGIN: &str = "mesh-cni";

/// IPv6 needs that much (RFC 8200 section 5).
const MIN_MTU: u32 = 1280;

/// Most that a veth takes.
const MAX_MTU: u32 = 65_535;

/// What the plugin is called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Duty {
    /// The whole link.
    Link,
    /// Addresses alone: `ipam.type` is ours and `type` is another plugin's.
    Addresses,
}

/// What of the configuration is of use here. Other keys belong to other plugins of the chain.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) cni_version: String,
    /// Name of the network.
    pub(crate) name: String,
    pub(crate) duty: Duty,
    pub(crate) own: Own,
    pub(crate) arguments: Arguments,
    pub(crate) runtime: RuntimeConfig,
    /// What earlier plugins of the chain made, or what ADD answered.
    pub(crate) previous: Option<Value>,
    /// Where `meshd` listens.
    pub(crate) socket: PathBuf,
}

/// Keys of our own.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Own {
    socket: Option<PathBuf>,
    mtu: Option<u32>,
    ip_masq: Option<bool>,
    /// What the pod reaches through the link besides.
    pub(crate) routes: Option<Vec<Route>>,
    /// For the pod's resolver.
    pub(crate) dns: Option<Map<String, Value>>,
}

/// A route as results and configurations write it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Route {
    pub(crate) dst: IpNet,
    #[serde(flatten)]
    pub(crate) more: Map<String, Value>,
}

/// The keys of the specification. Objects are taken as such, since a struct would also be read from a list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    #[serde(default = "unnamed_version")]
    cni_version: String,
    name: String,
    #[serde(default, rename = "type")]
    plugin: Option<String>,
    #[serde(default)]
    ipam: Option<Map<String, Value>>,
    #[serde(default)]
    args: Option<Map<String, Value>>,
    #[serde(default)]
    runtime_config: Option<Map<String, Value>>,
    #[serde(default)]
    prev_result: Option<Map<String, Value>>,
}

impl Config {
    /// Reads and checks a configuration.
    pub(crate) fn parse(input: &[u8]) -> Result<Self, CniError> {
        let version = named_version(input);
        if let Some(version) = version.as_deref().filter(|version| !VERSIONS.contains(version)) {
            let details = format!("cniVersion {version:?}, but this plugin speaks {}", VERSIONS.join(", "));
            return Err(CniError::new(Code::IncompatibleVersion, "incompatible CNI version", details));
        }
        let whole: Map<String, Value> = decode(serde_json::from_slice(input))?;
        let envelope: Envelope = read(Value::Object(whole.clone()))?;
        let duty = envelope.duty()?;
        let section = match duty {
            Duty::Link => whole.clone(),
            Duty::Addresses => envelope.ipam.unwrap_or_default(),
        };
        let own: Own = read(Value::Object(section))?;
        let elsewhere = whole.get("socket").and_then(Value::as_str).map(PathBuf::from);
        let config = Self {
            cni_version: envelope.cni_version,
            name: envelope.name,
            duty,
            socket: own.socket.clone().or(elsewhere).unwrap_or_else(|| DEFAULT_SOCKET.into()),
            own,
            arguments: read(Value::Object(envelope.args.unwrap_or_default()))?,
            runtime: read(Value::Object(envelope.runtime_config.unwrap_or_default()))?,
            previous: envelope.prev_result.map(Value::Object),
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), CniError> {
        let invalid = |details: String| CniError::new(Code::InvalidConfig, "invalid network configuration", details);
        let first_fits = self.name.starts_with(|first: char| first.is_ascii_alphanumeric());
        if !first_fits || !self.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)) {
            return Err(invalid("name must be letters, digits, `_`, `.` and `-`".to_owned()));
        }
        if self.mtu().is_some_and(|mtu| !(MIN_MTU..=MAX_MTU).contains(&mtu)) {
            return Err(invalid(format!("mtu must be between {MIN_MTU} and {MAX_MTU}, or 0 for the node's own")));
        }
        Ok(())
    }

    /// Wished MTU; 0 means whatever the node offers.
    pub(crate) fn mtu(&self) -> Option<u32> {
        self.own.mtu.filter(|mtu| *mtu != 0)
    }

    /// Whether what leaves the overlay takes the node's address: it does unless the configuration says otherwise, since
    /// nobody outside knows the way back to a pod.
    pub(crate) fn masquerade(&self) -> bool {
        self.own.ip_masq.unwrap_or(true)
    }

    /// Refuses a verb that the configuration's version does not have yet.
    pub(crate) fn require(&self, since: &str, verb: &str) -> Result<(), CniError> {
        let place = |version: &str| VERSIONS.iter().position(|known| *known == version);
        if place(&self.cni_version) >= place(since) {
            return Ok(());
        }
        let details =
            format!("{verb} came with version {since} of the specification: set cniVersion to that or a later one");
        Err(CniError::new(Code::IncompatibleVersion, "incompatible CNI version", details))
    }
}

impl Envelope {
    fn duty(&self) -> Result<Duty, CniError> {
        let delegated = self.ipam.as_ref().and_then(|ipam| ipam.get("type")).unwrap_or(&Value::Null);
        let delegated: Option<String> = read(delegated.clone())?;
        match (delegated.as_deref().unwrap_or_default(), self.plugin.as_deref().unwrap_or(PLUGIN)) {
            ("", _) | (PLUGIN, PLUGIN) => Ok(Duty::Link),
            (PLUGIN, _) => Ok(Duty::Addresses),
            _ => Err(CniError::new(
                Code::UnsupportedField,
                "unsupported field ipam.type",
                "addresses come from the mesh's own ring: leave out the ipam section, and name mesh-cni as the network's type",
            )),
        }
    }
}

/// The version that an input names, whatever else is wrong with it; nothing where there is no JSON object.
pub(crate) fn named_version(input: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(input).ok()?;
    let object = value.as_object()?;
    Some(object.get("cniVersion").map_or(UNNAMED_VERSION, |version| version.as_str().unwrap_or_default()).to_owned())
}

/// Reads a part of the configuration.
pub(crate) fn read<T: DeserializeOwned>(value: Value) -> Result<T, CniError> {
    decode(serde_json::from_value(value))
}

fn decode<T>(outcome: serde_json::Result<T>) -> Result<T, CniError> {
    outcome
        .map_err(|error| CniError::new(Code::Decode, "the network configuration is not understood", error.to_string()))
}

fn unnamed_version() -> String {
    UNNAMED_VERSION.to_owned()
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
