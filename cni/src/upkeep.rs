//! The verbs about the network as a whole: STATUS and GC, both of 1.1.0.

use std::collections::BTreeSet;

use meshwork_api::client::{Client, ClientError};
use meshwork_api::model::{ConnectionState, PeerState, Status};
use serde::Deserialize;
use serde_json::Value;

use crate::config::{Config, read};
use crate::error::{CniError, Code};

/// The attachments that the runtime still knows, under the specification's key and under the one of its first draft,
/// which runtimes send beside it.
#[derive(Debug, Deserialize)]
struct Known {
    #[serde(default, rename = "cni.dev/valid-attachments")]
    valid: Option<Vec<StillKnown>>,
    #[serde(default, rename = "cni.dev/attachments")]
    drafted: Option<Vec<StillKnown>>,
}

#[derive(Debug, Deserialize)]
struct StillKnown {
    #[serde(rename = "containerID")]
    container: String,
    #[serde(rename = "ifname")]
    interface: String,
}

/// Fails where ADD could not be served now. A node that serves ADD is available however few others it reaches: the mesh
/// promises that each part of it goes on alone.
pub(crate) fn status(client: &Client) -> Result<(), CniError> {
    let status: Status = client.get("/v1/status").map_err(unavailable)?;
    if status.ready {
        return Ok(());
    }
    let details = match status.reasons.as_slice() {
        [] => "meshd is not ready yet; see `meshctl status`".to_owned(),
        reasons => reasons.join("; "),
    };
    match cut_off(&status) {
        true => Err(CniError::new(Code::LimitedConnectivity, "meshd is not ready, and linked to nobody", details)),
        false => Err(CniError::new(Code::Unavailable, "meshd is not ready", details)),
    }
}

/// Whether there are others and none of them is linked.
fn cut_off(status: &Status) -> bool {
    let others = status.peers.iter().map(|(state, count)| if *state == PeerState::Removed { 0 } else { *count });
    let linked = status.connections.get(&ConnectionState::Established).copied().unwrap_or_default();
    others.sum::<usize>() > 1 && linked == 0
}

fn unavailable(error: ClientError) -> CniError {
    let msg = match error {
        ClientError::Unreachable { .. } => "meshd is not reachable",
        ClientError::Api { .. } => "meshd is not ready",
        ClientError::Protocol { .. } => "meshd is not understood",
    };
    CniError::new(Code::Unavailable, msg, error.to_string())
}

/// Releases what the network holds beyond the attachments that the runtime names. Naming none means that there are
/// none: that is what runtimes send that have no container left, as an empty list, as `null`, or not at all.
pub(crate) fn collect_garbage(client: &Client, config: &Config, input: &[u8]) -> Result<(), CniError> {
    let known = known(input)?;
    let keeps = |sandbox: &str, interface: &str| known.contains(&(sandbox.to_owned(), interface.to_owned()));
    Ok(meshwork_attach::collect_garbage(client, &config.name, keeps)?)
}

/// What the runtime says is still there.
pub(crate) fn known(input: &[u8]) -> Result<BTreeSet<(String, String)>, CniError> {
    let whole: Value = serde_json::from_slice(input).unwrap_or_default();
    let Known { valid, drafted } = read(whole)?;
    let attachments = valid.or(drafted).into_iter().flatten();
    Ok(attachments.map(|attachment| (attachment.container, attachment.interface)).collect())
}
