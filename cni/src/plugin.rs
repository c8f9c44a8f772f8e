//! The verbs: one invocation in, one line of JSON and an exit code out.

use std::io::Read;
use std::time::Duration;

use meshwork_api::client::Client;
use meshwork_api::model::PodIdentity;
use meshwork_attach::{AttachRequest, DetachRequest};

use crate::config::{Config, LATEST, VERSIONS, named_version};
use crate::environment::{self, Attachment, Lookup};
use crate::error::{CniError, Code};
use crate::reply::{AddResult, versions};

/// Most that is read of a configuration, `prevResult` and all.
const MAX_INPUT: u64 = 1 << 20;

/// Runtimes give an operation minutes, and retry: past this the daemon is taken as hung.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What the process prints, and whether it failed.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// For standard output; empty where the specification wants nothing.
    pub(crate) output: String,
    pub(crate) failed: bool,
}

/// Carries out one invocation.
pub(crate) fn run(lookup: Lookup<'_>, input: impl Read) -> Outcome {
    let (version, result) = match read(input) {
        Ok(input) => (answer_version(&input), dispatch(lookup, &input)),
        Err(error) => (LATEST.to_owned(), Err(error)),
    };
    match result {
        Ok(output) => Outcome { output, failed: false },
        Err(error) => Outcome { output: error.to_json(&version), failed: true },
    }
}

fn dispatch(lookup: Lookup<'_>, input: &[u8]) -> Result<String, CniError> {
    match environment::command(lookup)?.as_str() {
        "VERSION" => Ok(versions(&answer_version(input))),
        "ADD" => add(environment::attachment(lookup)?, &Config::parse(input)?),
        "DEL" => delete(environment::attachment(lookup)?, &Config::parse(input)?),
        "CHECK" => check(environment::attachment(lookup)?, &Config::parse(input)?),
        other => Err(CniError::new(
            Code::InvalidEnvironment,
            "unsupported CNI_COMMAND",
            format!("{other:?} is not one of ADD, DEL, CHECK and VERSION"),
        )),
    }
}

fn add(attachment: Attachment, config: &Config) -> Result<String, CniError> {
    let request = AttachRequest {
        netns: attachment.netns.ok_or_else(missing_netns)?,
        sandbox: attachment.container,
        interface: attachment.interface,
        pod: PodIdentity { labels: config.labels(), ..attachment.pod },
        mtu: config.mtu(),
        address: None,
    };
    let attachment = meshwork_attach::attach(&client(config), &request)?;
    for remark in &attachment.remarks {
        eprintln!("mesh-cni: {remark}");
    }
    AddResult::new(&config.cni_version, &attachment, config.prev_result.as_ref())
        .to_json()
        .map_err(|error| CniError::new(Code::Io, "the result cannot be written", error.to_string()))
}

/// Succeeds where there is nothing to delete. While the daemon is down the link goes, but the runtime has to come back
/// for the lease.
fn delete(attachment: Attachment, config: &Config) -> Result<String, CniError> {
    let request =
        DetachRequest { sandbox: attachment.container, interface: Some(attachment.interface), netns: attachment.netns };
    meshwork_attach::detach(&client(config), &request)?;
    Ok(String::new())
}

fn check(attachment: Attachment, config: &Config) -> Result<String, CniError> {
    if config.cni_version == "0.3.1" {
        let details = "CHECK came with version 0.4.0 of the specification";
        return Err(CniError::new(Code::IncompatibleVersion, "incompatible CNI version", details));
    }
    if config.prev_result.is_none() {
        let details = "CHECK needs the prevResult of ADD, which the runtime has to keep";
        return Err(CniError::new(Code::InvalidConfig, "missing prevResult", details));
    }
    let netns = attachment.netns.ok_or_else(missing_netns)?;
    match meshwork_attach::check(&client(config), &attachment.container, &attachment.interface, &netns)? {
        true => Ok(String::new()),
        false => Err(CniError::new(
            Code::UnknownContainer,
            "unknown container",
            format!("meshd holds no lease of {} on {}: delete and add it", attachment.container, attachment.interface),
        )),
    }
}

fn client(config: &Config) -> Client {
    Client::new(&config.socket).with_timeout(TIMEOUT)
}

fn missing_netns() -> CniError {
    let details = "CNI_NETNS is missing: the runtime has to set it";
    CniError::new(Code::InvalidEnvironment, "invalid environment variable", details)
}

/// Answers speak the version of the question where that is possible.
fn answer_version(input: &[u8]) -> String {
    named_version(input).filter(|version| VERSIONS.contains(&version.as_str())).unwrap_or_else(|| LATEST.to_owned())
}

fn read(input: impl Read) -> Result<Vec<u8>, CniError> {
    let mut bytes = Vec::new();
    input
        .take(MAX_INPUT + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| CniError::new(Code::Io, "the network configuration cannot be read", error.to_string()))?;
    if bytes.len() as u64 > MAX_INPUT {
        let details = format!("standard input is longer than {MAX_INPUT} bytes");
        return Err(CniError::new(Code::InvalidConfig, "the network configuration is too long", details));
    }
    Ok(bytes)
}

#[cfg(test)]
#[path = "plugin_tests.rs"]
mod tests;
