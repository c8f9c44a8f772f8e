//! What is wished for one pod: addresses, Ethernet address, routes, labels. It comes in up to four places: the
//! configuration, its `args`, what the runtime adds under `runtimeConfig`, and `CNI_ARGS`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;

use crate::config::{Config, Route};
use crate::environment::Attachment;
use crate::error::{CniError, Code};

/// `args`: the conventions' section, and our own.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Arguments {
    #[serde(default)]
    cni: Option<Section>,
    #[serde(default)]
    meshwork: Option<Section>,
}

#[derive(Debug, Default, Deserialize)]
struct Section {
    #[serde(default)]
    labels: Option<Labels>,
    #[serde(default)]
    ips: Option<Vec<String>>,
    #[serde(default)]
    mac: Option<String>,
    #[serde(default)]
    routes: Option<Vec<Route>>,
}

/// `runtimeConfig`: capabilities that the configuration asked for.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct RuntimeConfig {
    #[serde(default)]
    ips: Option<Vec<String>>,
    #[serde(default)]
    mac: Option<String>,
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

impl Arguments {
    /// Labels from both places; our own key wins.
    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        self.sections().filter_map(|section| section.labels.clone()).flat_map(Labels::into_map).collect()
    }

    fn sections(&self) -> impl Iterator<Item = &Section> {
        [&self.cni, &self.meshwork].into_iter().flatten()
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

/// The IPv4 address that a pod is to have, if any. The same one may be wished in several places.
pub(crate) fn address(config: &Config, attachment: &Attachment) -> Result<Option<IpAddr>, CniError> {
    let in_arguments = config.arguments.sections().filter_map(|section| section.ips.as_ref()).flatten();
    let told = config.runtime.ips.iter().flatten().chain(in_arguments);
    let told = told.map(|text| parse(text).ok_or_else(|| not_an_address(text)));
    let wished: BTreeSet<IpAddr> = told.chain(attachment.wished.iter().copied().map(Ok)).collect::<Result<_, _>>()?;
    if let Some(address) = wished.iter().find(|address| address.is_ipv6()) {
        let details = format!("{address} cannot be wished: IPv6 addresses follow from the node; wish an IPv4 address");
        return Err(CniError::new(Code::UnsupportedField, "unsupported field ips", details));
    }
    let mut wished = wished.into_iter();
    match (wished.next(), wished.next()) {
        (Some(one), Some(other)) => {
            let details = format!("both {one} and {other} are wished, and a pod has one address per family");
            Err(CniError::new(Code::InvalidConfig, "invalid network configuration", details))
        }
        (address, _) => Ok(address),
    }
}

/// Refuses a wished Ethernet address.
pub(crate) fn refuse_mac(config: &Config, attachment: &Attachment) -> Result<(), CniError> {
    let in_arguments = config.arguments.sections().filter_map(|section| section.mac.as_deref());
    let told = config.runtime.mac.as_deref().into_iter().chain(in_arguments).chain(attachment.mac.as_deref());
    match told.into_iter().find(|mac| !mac.is_empty()) {
        None => Ok(()),
        Some(mac) => Err(CniError::new(
            Code::UnsupportedField,
            "unsupported field mac",
            format!(
                "{mac} cannot be wished: both ends of a pod's link have Ethernet addresses that follow from the lease; leave it out"
            ),
        )),
    }
}

/// What the pod is to reach besides, through the link's own gateway.
pub(crate) fn routes(config: &Config) -> Result<Vec<IpNet>, CniError> {
    let in_arguments = config.arguments.sections().filter_map(|section| section.routes.as_ref()).flatten();
    let routes = config.own.routes.iter().flatten().chain(in_arguments);
    routes.map(|route| plain(route).map(|()| route.dst.trunc())).collect()
}

fn plain(route: &Route) -> Result<(), CniError> {
    match route.more.iter().find(|(_, value)| !value.is_null()) {
        None => Ok(()),
        Some((key, _)) => Err(CniError::new(
            Code::UnsupportedField,
            "unsupported field in routes",
            format!(
                "{key:?} of the route to {}: every route of a pod goes by its link's own gateway; give dst alone",
                route.dst
            ),
        )),
    }
}

/// An address, with or without a prefix: a pod's address stands alone on its link anyway.
pub(crate) fn parse(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| text.parse::<IpNet>().ok().map(|net| net.addr()))
}

fn not_an_address(text: &str) -> CniError {
    let details = format!("{text:?} in ips is no IP address");
    CniError::new(Code::InvalidConfig, "invalid network configuration", details)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(keys: &str) -> Config {
        Config::parse(format!(r#"{{"cniVersion":"1.0.0","name":"mesh"{keys}}}"#).as_bytes()).unwrap()
    }

    fn attachment() -> Attachment {
        Attachment {
            container: "0abc".to_owned(),
            interface: "eth0".to_owned(),
            netns: None,
            pod: Default::default(),
            wished: vec![],
            mac: None,
        }
    }

    #[test]
    fn an_address_may_be_wished_in_every_place() {
        let wished = Some("10.32.0.9".parse().unwrap());
        for keys in [
            r#","runtimeConfig":{"ips":["10.32.0.9"]}"#,
            r#","runtimeConfig":{"ips":["10.32.0.9/24"]}"#,
            r#","args":{"cni":{"ips":["10.32.0.9"]}}"#,
            r#","args":{"meshwork":{"ips":["10.32.0.9"]}},"runtimeConfig":{"ips":["10.32.0.9"]}"#,
        ] {
            assert_eq!(address(&config(keys), &attachment()).unwrap(), wished, "{keys}");
        }
        let by_environment = Attachment { wished: vec!["10.32.0.9".parse().unwrap()], ..attachment() };
        assert_eq!(address(&config(""), &by_environment).unwrap(), wished);
        assert_eq!(address(&config(""), &attachment()).unwrap(), None);
    }

    #[test]
    fn wishes_that_cannot_be_met_are_refused_with_the_specifications_code() {
        for (keys, code) in [
            (r#","runtimeConfig":{"ips":["10.32.0.9","10.32.0.10"]}"#, Code::InvalidConfig),
            (r#","runtimeConfig":{"ips":["10.32.0.9"]},"args":{"cni":{"ips":["10.32.0.8"]}}"#, Code::InvalidConfig),
            (r#","runtimeConfig":{"ips":["web-0"]}"#, Code::InvalidConfig),
            (r#","runtimeConfig":{"ips":["fd4d::5"]}"#, Code::UnsupportedField),
        ] {
            assert_eq!(address(&config(keys), &attachment()).unwrap_err().code, code, "{keys}");
        }
    }

    #[test]
    fn an_ethernet_address_is_refused_wherever_it_is_wished() {
        for keys in [
            r#","runtimeConfig":{"mac":"02:00:00:00:00:01"}"#,
            r#","args":{"cni":{"mac":"02:00:00:00:00:01"}}"#,
            r#","args":{"meshwork":{"mac":"x"}}"#,
        ] {
            assert_eq!(refuse_mac(&config(keys), &attachment()).unwrap_err().code, Code::UnsupportedField, "{keys}");
        }
        let by_environment = Attachment { mac: Some("02:00:00:00:00:01".to_owned()), ..attachment() };
        assert_eq!(refuse_mac(&config(""), &by_environment).unwrap_err().code, Code::UnsupportedField);
        assert!(refuse_mac(&config(r#","runtimeConfig":{"mac":""}"#), &attachment()).is_ok());
    }

    #[test]
    fn routes_come_from_configuration_and_args_and_go_by_the_links_gateway() {
        let both =
            r#","routes":[{"dst":"192.0.2.7/24"}],"args":{"cni":{"routes":[{"dst":"2001:db8::/32","gw":null}]}}"#;
        assert_eq!(routes(&config(both)).unwrap(), ["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()]);
        for more in [r#""gw":"192.0.2.1""#, r#""mtu":1400"#, r#""table":7"#] {
            let keys = format!(r#","routes":[{{"dst":"192.0.2.0/24",{more}}}]"#);
            assert_eq!(routes(&config(&keys)).unwrap_err().code, Code::UnsupportedField, "{more}");
        }
    }

    #[test]
    fn labels_may_be_a_list_or_a_map_and_our_own_win() {
        let keys = r#","args":{"cni":{"labels":[{"key":"app","value":"web"},{"key":"bare"}]},"meshwork":{"labels":{"app":"shop"}}}"#;
        let labels = BTreeMap::from([("app".to_owned(), "shop".to_owned()), ("bare".to_owned(), String::new())]);
        assert_eq!(config(keys).arguments.labels(), labels);
    }
}
