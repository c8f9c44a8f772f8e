//! The verbs: one invocation in, one line of JSON and an exit code out.

use std::io::Read;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use meshwork_api::client::Client;
use meshwork_api::model::PodIdentity;
use meshwork_attach::{AttachRequest, DetachRequest, check_address};

use crate::config::{Config, Duty, LATEST, VERSIONS, named_version};
use crate::environment::{self, Attachment, Lookup};
use crate::error::{CniError, Code};
use crate::result::{CniResult, versions};
use crate::{upkeep, wishes};

/// Most that is read of a configuration, `prevResult` and all.
const MAX_INPUT: u64 = 1 << 20;

/// Runtimes give an operation minutes, and retry: past this the daemon is taken as hung.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What the process prints, and whether it failed.
#[derive(Debug)]
pub struct Outcome {
    /// For standard output; empty where the specification wants nothing.
    pub output: String,
    /// What the exit code says.
    pub failed: bool,
}

/// Carries out one invocation.
pub fn run(lookup: Lookup<'_>, input: impl Read) -> Outcome {
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
    let done = |()| String::new();
    match environment::command(lookup)?.as_str() {
        "VERSION" => Ok(versions(&answer_version(input))),
        "ADD" => add(environment::attachment(lookup)?, &Config::parse(input)?),
        "DEL" => delete(environment::attachment(lookup)?, &Config::parse(input)?).map(done),
        "CHECK" => check(environment::attachment(lookup)?, &Config::parse(input)?).map(done),
        "STATUS" => status(&Config::parse(input)?).map(done),
        "GC" => collect_garbage(&Config::parse(input)?, input).map(done),
        other => Err(CniError::new(
            Code::InvalidEnvironment,
            "unsupported CNI_COMMAND",
            format!("{other:?} is not one of ADD, DEL, CHECK, STATUS, GC and VERSION"),
        )),
    }
}

fn add(attachment: Attachment, config: &Config) -> Result<String, CniError> {
    wishes::refuse_mac(config, &attachment)?;
    // Judged before anything is made, like every wish.
    let previous = CniResult::previous(config)?.unwrap_or_default();
    let request = AttachRequest {
        address: wishes::address(config, &attachment)?,
        routes: wishes::routes(config)?,
        netns: attachment.netns.ok_or_else(missing_netns)?,
        sandbox: attachment.container,
        interface: attachment.interface,
        pod: PodIdentity { labels: config.arguments.labels(), ..attachment.pod },
        mtu: config.mtu(),
        network: Some(config.name.clone()),
        masquerade: config.masquerade(),
    };
    if config.duty == Duty::Addresses {
        return add_address(&request, config);
    }
    let attachment = meshwork_attach::attach(&client(config), &request)?;
    for remark in &attachment.remarks {
        eprintln!("mesh-cni: {remark}");
    }
    previous.with_link(config, &attachment).to_json()
}

/// The plugin that makes the link also makes the routes: everything, unless the configuration says what.
fn add_address(request: &AttachRequest, config: &Config) -> Result<String, CniError> {
    let leased = meshwork_attach::lease_address(&client(config), request)?;
    let everything = || [IpNet::from(Ipv4Net::default()), IpNet::from(Ipv6Net::default())];
    let routes = match config.own.routes {
        Some(_) => request.routes.clone(),
        None => everything().into_iter().chain(request.routes.iter().copied()).collect(),
    };
    CniResult::of_addresses(config, &leased, &routes).to_json()
}

/// Succeeds where there is nothing to delete. While the daemon is down the link goes, but the runtime has to come back
/// for the lease.
fn delete(attachment: Attachment, config: &Config) -> Result<(), CniError> {
    let netns = attachment.netns.filter(|_| config.duty == Duty::Link);
    let request = DetachRequest { sandbox: attachment.container, interface: Some(attachment.interface), netns };
    Ok(meshwork_attach::detach(&client(config), &request)?)
}

fn check(attachment: Attachment, config: &Config) -> Result<(), CniError> {
    config.require("0.4.0", "CHECK")?;
    let Some(previous) = CniResult::previous(config)? else {
        let details = "CHECK needs the prevResult of ADD, which the runtime has to keep";
        return Err(CniError::new(Code::InvalidConfig, "missing prevResult", details));
    };
    let netns = attachment.netns.ok_or_else(missing_netns)?;
    let (client, sandbox, interface) = (client(config), &attachment.container, &attachment.interface);
    let expected = previous.expected(interface);
    let known = match config.duty {
        Duty::Addresses => check_address(&client, sandbox, interface, &previous.addresses(interface))?,
        Duty::Link => {
            meshwork_attach::check(&client, sandbox, interface, &netns, &expected.clone().unwrap_or_default())?
        }
    };
    match (known, expected) {
        (false, _) => {
            let details = format!("meshd holds no lease of {sandbox} on {interface}: delete and add it");
            Err(CniError::new(Code::UnknownContainer, "unknown container", details))
        }
        (true, None) if config.duty == Duty::Link => {
            let details = format!("it names no interface {interface} of a sandbox: give the whole result of ADD");
            Err(CniError::new(Code::InvalidConfig, "invalid prevResult", details))
        }
        _ => Ok(()),
    }
}

fn status(config: &Config) -> Result<(), CniError> {
    config.require("1.1.0", "STATUS")?;
    upkeep::status(&client(config))
}

fn collect_garbage(config: &Config, input: &[u8]) -> Result<(), CniError> {
    config.require("1.1.0", "GC")?;
    upkeep::collect_garbage(&client(config), config, input)
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
