//! The network configuration on standard input.

use std::collections::BTreeMap;
use std::path::PathBuf;

use meshwork_api::model::DEFAULT_SOCKET;
use serde::Deserialize;
use serde_json::Value;

use crate::error::{CniError, Code};

/// Versions of the specification that are carried out whole, oldest first. 1.1.0 demands GC and STATUS.
pub(crate) const VERSIONS: [&str; 3] = ["0.3.1", "0.4.0", "1.0.0"];

/// The newest of [`VERSIONS`]: what answers use where the question names none.
pub(crate) const LATEST: &str = "1.0.0";

/// What is meant by a configuration that names no version.
const UNNAMED_VERSION: &str = "0.1.0";

/// IPv6 needs that much (RFC 8200 section 5).
const MIN_MTU: u32 = 1280;

/// Most that a veth takes.
const MAX_MTU: u32 = 65_535;

/// What of the configuration is of use here. Other keys belong to other plugins of the chain.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Config {
    #[serde(default = "unnamed_version")]
    pub(crate) cni_version: String,
    /// Name of the network.
    pub(crate) name: String,
    /// Where `meshd` listens.
    #[serde(default = "default_socket")]
    pub(crate) socket: PathBuf,
    #[serde(default)]
    mtu: Option<u32>,
    #[serde(default)]
    ipam: Option<Ipam>,
    #[serde(default)]
    args: Option<Arguments>,
    /// What an earlier plugin of the chain made.
    #[serde(default)]
    pub(crate) prev_result: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Ipam {
    #[serde(default, rename = "type")]
    plugin: String,
}

#[derive(Debug, Default, Deserialize)]
struct Arguments {
    #[serde(default)]
    cni: Option<Labelled>,
    #[serde(default)]
    meshwork: Option<Labelled>,
}

#[derive(Debug, Deserialize)]
struct Labelled {
    #[serde(default)]
    labels: Option<Labels>,
}

/// The CNI conventions write labels as a list; a plain object is what people write.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Labels {
    Map(BTreeMap<String, String>),
    List(Vec<Label>),
}

#[derive(Debug, Clone, Deserialize)]
struct Label {
    key: String,
    #[serde(default)]
    value: String,
}

impl Config {
    /// Reads and checks a configuration.
    pub(crate) fn parse(input: &[u8]) -> Result<Self, CniError> {
        let version = named_version(input);
        if let Some(version) = version.as_deref().filter(|version| !VERSIONS.contains(version)) {
            let details = format!("cniVersion {version:?}, but this plugin speaks {}", VERSIONS.join(", "));
            return Err(CniError::new(Code::IncompatibleVersion, "incompatible CNI version", details));
        }
        let config: Self = serde_json::from_slice(input).map_err(|error| {
            CniError::new(Code::Decode, "the network configuration is not understood", error.to_string())
        })?;
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
        match &self.ipam {
            Some(ipam) if !ipam.plugin.is_empty() => Err(CniError::new(
                Code::UnsupportedField,
                "unsupported field ipam.type",
                "addresses come from the mesh's own ring: leave out the ipam section, and name mesh-cni as the network's type",
            )),
            _ => Ok(()),
        }
    }

    /// Wished MTU; 0 means whatever the node offers.
    pub(crate) fn mtu(&self) -> Option<u32> {
        self.mtu.filter(|mtu| *mtu != 0)
    }

    /// Labels from both places; our own key wins.
    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        let Some(arguments) = &self.args else { return BTreeMap::new() };
        let places = [&arguments.cni, &arguments.meshwork];
        places.into_iter().flatten().filter_map(|place| place.labels.clone()).flat_map(Labels::into_map).collect()
    }
}

impl Labels {
    fn into_map(self) -> BTreeMap<String, String> {
        match self {
            Self::Map(map) => map,
            Self::List(list) => list.into_iter().map(|label| (label.key, label.value)).collect(),
        }
    }
}

/// The version that an input names, whatever else is wrong with it; nothing where there is no JSON object.
pub(crate) fn named_version(input: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(input).ok()?;
    let object = value.as_object()?;
    Some(object.get("cniVersion").map_or(UNNAMED_VERSION, |version| version.as_str().unwrap_or_default()).to_owned())
}

fn unnamed_version() -> String {
    UNNAMED_VERSION.to_owned()
}

fn default_socket() -> PathBuf {
    DEFAULT_SOCKET.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(input: &str) -> Code {
        Config::parse(input.as_bytes()).unwrap_err().code
    }

    #[test]
    fn the_least_configuration_gets_defaults() {
        let config = Config::parse(br#"{"cniVersion":"1.0.0","name":"mesh","type":"mesh-cni"}"#).unwrap();
        assert_eq!(config.socket, PathBuf::from(DEFAULT_SOCKET));
        assert_eq!(config.mtu(), None);
        assert!(config.labels().is_empty());
    }

    #[test]
    fn every_key_is_read_and_foreign_ones_are_left_alone() {
        let config = Config::parse(
            br#"{"cniVersion":"0.4.0","name":"mesh","type":"mesh-cni","socket":"/s","mtu":1400,"ipMasq":true,
                "runtimeConfig":{"portMappings":[]},"capabilities":{"x":true},"dns":{},"ipam":{},
                "args":{"cni":{"labels":[{"key":"app","value":"web"},{"key":"bare"}]},"meshwork":{"labels":{"app":"shop"}}}}"#,
        )
        .unwrap();
        assert_eq!((config.socket.to_str(), config.mtu()), (Some("/s"), Some(1400)));
        let labels = BTreeMap::from([("app".to_owned(), "shop".to_owned()), ("bare".to_owned(), String::new())]);
        assert_eq!(config.labels(), labels);
    }

    #[test]
    fn wrong_input_gets_the_code_that_the_specification_gives_it() {
        assert_eq!(code(""), Code::Decode);
        assert_eq!(code("[]"), Code::Decode);
        assert_eq!(code(r#"{"cniVersion":"1.0.0"}"#), Code::Decode);
        assert_eq!(code(&"[".repeat(100_000)), Code::Decode);
        assert_eq!(code(r#"{"name":"mesh"}"#), Code::IncompatibleVersion);
        assert_eq!(code(r#"{"cniVersion":7,"name":"mesh"}"#), Code::IncompatibleVersion);
        assert_eq!(code(r#"{"cniVersion":"1.1.0","name":"mesh"}"#), Code::IncompatibleVersion);
        assert_eq!(code(r#"{"cniVersion":"1.0.0","name":"a b"}"#), Code::InvalidConfig);
        assert_eq!(code(r#"{"cniVersion":"1.0.0","name":"mesh","mtu":576}"#), Code::InvalidConfig);
        assert_eq!(code(r#"{"cniVersion":"1.0.0","name":"mesh","mtu":-1}"#), Code::Decode);
        assert_eq!(
            code(r#"{"cniVersion":"1.0.0","name":"mesh","ipam":{"type":"host-local"}}"#),
            Code::UnsupportedField
        );
    }
}
