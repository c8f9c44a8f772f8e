//! One function per kind of verb; true is exit code 0.

use std::io;

use clap::CommandFactory as _;
use meshwork_api::client::{Client, ClientError};
use meshwork_api::model::{Done, Exposure, LogFilter, Seal, Target, VersionInfo};
use serde::Serialize;

use crate::answer::{self, Answer};
use crate::cli::{Cli, Global, SecretVerb, Verb};
use crate::output::{print, text_to_stdout};
use crate::table::{self, Width};
use crate::{connect, events, pods, secret};

/// Carries out one command line.
pub(crate) fn run(cli: &Cli) -> anyhow::Result<bool> {
    let global = &cli.global;
    let client = Client::new(&global.socket).with_timeout(global.timeout());
    match &cli.verb {
        Verb::Status => show(global, &client, table::status),
        Verb::Peers => show(global, &client, table::peers),
        Verb::Connections => show(global, &client, table::connections),
        Verb::Paths => show(global, &client, table::paths),
        Verb::Ipam { .. } => show(global, &client, table::ipam),
        Verb::Events { watch: true } => events::watch(&client, global.output),
        Verb::Events { watch: false } => done(events::list(&client, global.output)),
        Verb::Attach(arguments) => {
            let lease = pods::link(&client, arguments)?;
            done(print(global.output, &lease, |lease, _| table::addresses(&lease.addresses)))
        }
        Verb::Detach { netns, interface } => {
            let detached = pods::unlink(&client, netns, interface.as_deref())?;
            done(print(global.output, &detached, |detached, _| table::addresses(&detached.addresses)))
        }
        Verb::Connect { address } => connect::connect(global, &client, address),
        Verb::Forget { address } => tell(global, &client, "/v1/forget", &Target { address: address.clone() }),
        Verb::Seal { peer } => tell(global, &client, "/v1/seal", &Seal { peer: peer.clone(), sealed: true }),
        Verb::Unseal { peer } => tell(global, &client, "/v1/seal", &Seal { peer: peer.clone(), sealed: false }),
        Verb::Expose => expose(global, &client, "/v1/expose"),
        Verb::Hide => expose(global, &client, "/v1/hide"),
        Verb::Log { filter } => tell(global, &client, "/v1/log", &LogFilter { filter: filter.clone() }),
        Verb::Secret { verb: SecretVerb::Generate { file } } => done(secret::generate(file.as_deref())),
        Verb::Version => version(global, &client),
        Verb::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "meshctl", &mut script);
            done(text_to_stdout(&String::from_utf8(script).map_err(io::Error::other)?))
        }
    }
}

fn show<A: Answer>(global: &Global, client: &Client, table: impl FnOnce(&A, Width) -> String) -> anyhow::Result<bool> {
    let answer: A = answer::read(client, global.wait.then(|| global.timeout()))?;
    print(global.output, &answer, table)?;
    Ok(answer.is_yes() && (answer.is_complete() || !global.wait))
}

/// People need no word where all went well; programs get the answer, which carries nothing.
fn tell(global: &Global, client: &Client, route: &str, request: &impl Serialize) -> anyhow::Result<bool> {
    let answer: Done = client.post(route, request)?;
    done(print(global.output, &answer, |_, _| String::new()))
}

/// Prints the addresses, as `weave expose` did.
fn expose(global: &Global, client: &Client, route: &str) -> anyhow::Result<bool> {
    let exposure: Exposure = client.post(route, &Done {})?;
    done(print(global.output, &exposure, |exposure, _| table::addresses(&exposure.addresses)))
}

/// Versions of both sides; the daemon's is empty where it cannot be asked.
#[derive(Debug, Serialize)]
struct Versions {
    client: &'static str,
    daemon: Option<VersionInfo>,
    /// Why there is none of the daemon.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

fn version(global: &Global, client: &Client) -> anyhow::Result<bool> {
    let (daemon, reason) = match client.get("/v1/version") {
        Ok(version) => (Some(version), None),
        Err(error @ ClientError::Unreachable { .. }) => (None, Some(error.to_string())),
        Err(error) => return Err(error.into()),
    };
    let versions = Versions { client: env!("CARGO_PKG_VERSION"), daemon, reason };
    done(print(global.output, &versions, |versions, _| versions.table()))
}

impl Versions {
    fn table(&self) -> String {
        let daemon = match &self.daemon {
            Some(daemon) => format!("{} (control protocol {})", daemon.version, daemon.protocol),
            None => format!("unknown: {}", self.reason.as_deref().unwrap_or_default()),
        };
        format!("client: {}\ndaemon: {daemon}\n", self.client)
    }
}

fn done(result: anyhow::Result<()>) -> anyhow::Result<bool> {
    result.map(|()| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_name_both_sides_or_say_why_not() {
        let daemon = Some(VersionInfo { api: 1, version: "0.2.0".to_owned(), protocol: 1 });
        let both = Versions { client: "0.1.0", daemon, reason: None };
        assert_eq!(both.table(), "client: 0.1.0\ndaemon: 0.2.0 (control protocol 1)\n");
        let one = Versions { client: "0.1.0", daemon: None, reason: Some("cannot reach meshd".to_owned()) };
        assert_eq!(one.table(), "client: 0.1.0\ndaemon: unknown: cannot reach meshd\n");
    }
}
