//! What the runtime says in `CNI_*` variables, checked before anything is done with it.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use meshwork_api::model::PodIdentity;

use crate::error::{CniError, Code};
use crate::wishes;

/// Longest interface name that the kernel takes: `IFNAMSIZ` less the closing zero.
const MAX_INTERFACE_NAME: usize = 15;

/// Container runtimes use 64 hex digits; the bound keeps records small.
const MAX_CONTAINER_ID: usize = 256;

/// Reads one variable; tests pass a table instead of the process's environment.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Names one attachment of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attachment {
    pub(crate) container: String,
    pub(crate) interface: String,
    /// Absent only on DEL, when the namespace is gone.
    pub(crate) netns: Option<PathBuf>,
    /// Namespace and name of the pod, where the runtime is Kubernetes'.
    pub(crate) pod: PodIdentity,
    /// Addresses that it is to have.
    pub(crate) wished: Vec<IpAddr>,
    /// Ethernet address that it is to have.
    pub(crate) mac: Option<String>,
}

/// What `CNI_ARGS` says.
#[derive(Debug, Default)]
struct Arguments {
    pod: PodIdentity,
    wished: Vec<IpAddr>,
    mac: Option<String>,
}

/// The verb: `CNI_COMMAND`.
pub(crate) fn command(lookup: Lookup<'_>) -> Result<String, CniError> {
    required(lookup, "CNI_COMMAND")
}

/// Everything else.
pub(crate) fn attachment(lookup: Lookup<'_>) -> Result<Attachment, CniError> {
    let container = required(lookup, "CNI_CONTAINERID")?;
    check_container(&container)?;
    let interface = required(lookup, "CNI_IFNAME")?;
    check_interface(&interface)?;
    let netns = optional(lookup, "CNI_NETNS")?.map(PathBuf::from);
    let Arguments { pod, wished, mac } = arguments(&optional(lookup, "CNI_ARGS")?.unwrap_or_default())?;
    Ok(Attachment { container, interface, netns, pod, wished, mac })
}

fn optional(lookup: Lookup<'_>, name: &'static str) -> Result<Option<String>, CniError> {
    match lookup(name).map(OsString::into_string) {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
        Some(Err(_)) => Err(invalid(format!("{name} is not UTF-8"))),
    }
}

fn required(lookup: Lookup<'_>, name: &'static str) -> Result<String, CniError> {
    optional(lookup, name)?.ok_or_else(|| invalid(format!("{name} is missing: the runtime has to set it")))
}

fn check_container(id: &str) -> Result<(), CniError> {
    let alphanumeric_first = id.starts_with(|first: char| first.is_ascii_alphanumeric());
    let allowed = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if alphanumeric_first && allowed && id.len() <= MAX_CONTAINER_ID {
        return Ok(());
    }
    Err(invalid(
        "CNI_CONTAINERID must be letters, digits, `_`, `.` and `-`, and begin with a letter or digit".to_owned(),
    ))
}

fn check_interface(name: &str) -> Result<(), CniError> {
    let reserved = name == "." || name == ".." || name == "lo";
    let allowed =
        name.chars().all(|letter| !matches!(letter, '/' | ':') && !letter.is_whitespace() && !letter.is_control());
    if !reserved && allowed && name.len() <= MAX_INTERFACE_NAME {
        return Ok(());
    }
    Err(invalid(format!("CNI_IFNAME must be a free interface name of at most {MAX_INTERFACE_NAME} bytes")))
}

/// `KEY=VALUE;KEY=VALUE`. An unknown key is an error unless `IgnoreUnknown` allows it.
fn arguments(text: &str) -> Result<Arguments, CniError> {
    let mut arguments = Arguments::default();
    let mut unknown = None;
    let mut ignore_unknown = false;
    for argument in text.split(';').filter(|argument| !argument.is_empty()) {
        let (key, value) = argument
            .split_once('=')
            .ok_or_else(|| invalid(format!("CNI_ARGS has {argument:?} where KEY=VALUE was expected")))?;
        match key {
            "K8S_POD_NAMESPACE" => value.clone_into(&mut arguments.pod.namespace),
            "K8S_POD_NAME" => value.clone_into(&mut arguments.pod.name),
            "K8S_POD_INFRA_CONTAINER_ID" | "K8S_POD_UID" => {}
            "IP" => arguments.wished = addresses(value)?,
            "MAC" => arguments.mac = Some(value.to_owned()),
            "IgnoreUnknown" => ignore_unknown = matches!(value, "1" | "t" | "true" | "True" | "TRUE"),
            _ => unknown = unknown.or(Some(key)),
        }
    }
    match unknown {
        Some(key) if !ignore_unknown => {
            Err(invalid(format!("CNI_ARGS has the unknown key {key:?}; set IgnoreUnknown=1")))
        }
        _ => Ok(arguments),
    }
}

/// One address, or several between commas.
fn addresses(value: &str) -> Result<Vec<IpAddr>, CniError> {
    let texts = value.split(',').map(str::trim).filter(|text| !text.is_empty());
    let bad = |text: &str| invalid(format!("CNI_ARGS has IP={text}, which is no IP address"));
    texts.map(|text| wishes::parse(text).ok_or_else(|| bad(text))).collect()
}

fn invalid(details: String) -> CniError {
    CniError::new(Code::InvalidEnvironment, "invalid environment variable", details)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read(changes: &[(&str, &str)]) -> Result<Attachment, CniError> {
        let mut variables = BTreeMap::from([
            ("CNI_CONTAINERID", "0abc"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", "/proc/1/ns/net"),
            ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;OTHER=x"),
        ]);
        variables.extend(changes.iter().copied());
        attachment(&|name| variables.get(name).map(OsString::from))
    }

    #[test]
    fn a_whole_environment_is_read() {
        let attachment = read(&[]).unwrap();
        assert_eq!((attachment.container.as_str(), attachment.interface.as_str()), ("0abc", "eth0"));
        assert_eq!(attachment.netns, Some(PathBuf::from("/proc/1/ns/net")));
        assert_eq!((attachment.pod.namespace.as_str(), attachment.pod.name.as_str()), ("shop", "web-0"));
        assert_eq!(read(&[("CNI_NETNS", ""), ("CNI_ARGS", "")]).unwrap().netns, None);
    }

    #[test]
    fn wishes_may_stand_in_the_arguments() {
        let wished = read(&[("CNI_ARGS", "IP=10.32.0.9;MAC=02:00:00:00:00:01")]).unwrap();
        assert_eq!(
            (wished.wished, wished.mac.as_deref()),
            (vec!["10.32.0.9".parse().unwrap()], Some("02:00:00:00:00:01"))
        );
        assert_eq!(read(&[("CNI_ARGS", "IP=10.32.0.9/24, fd4d::9")]).unwrap().wished.len(), 2);
        assert_eq!(read(&[("CNI_ARGS", "IP=")]).unwrap().wished, Vec::<IpAddr>::new());
    }

    #[test]
    fn bad_values_are_refused_with_code_4() {
        let long = "a".repeat(MAX_CONTAINER_ID + 1);
        for change in [
            ("CNI_CONTAINERID", ""),
            ("CNI_CONTAINERID", "-a"),
            ("CNI_CONTAINERID", "a/b"),
            ("CNI_CONTAINERID", "ä"),
            ("CNI_CONTAINERID", &long),
            ("CNI_IFNAME", ""),
            ("CNI_IFNAME", ".."),
            ("CNI_IFNAME", "lo"),
            ("CNI_IFNAME", "a/b"),
            ("CNI_IFNAME", "a b"),
            ("CNI_IFNAME", "a:b"),
            ("CNI_IFNAME", "sixteen-bytes-xx"),
            ("CNI_ARGS", "K8S_POD_NAME"),
            ("CNI_ARGS", "IP=web-0"),
            ("CNI_ARGS", "UNKNOWN=1"),
            ("CNI_ARGS", "IgnoreUnknown=0;X=1"),
        ] {
            assert_eq!(read(&[change]).unwrap_err().code, Code::InvalidEnvironment, "{change:?}");
        }
    }
}
