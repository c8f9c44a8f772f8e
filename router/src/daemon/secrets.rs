//! Secret files: made or read at start, read again at SIGHUP.

use std::path::PathBuf;
use std::sync::Arc;

use meshwork_identity::Secrets;
use meshwork_state::{create_secret, load_secret_files};
use tokio::signal::unix::Signal;

use super::StartError;
use crate::config::Config;
use crate::node::NodeHandle;

/// Judges the secret files without making any: a node that joins must have been given one.
pub(super) fn expect(config: &Config) -> Result<(), StartError> {
    match missing(config) {
        Some(default) if !config.peers.is_empty() => Err(StartError::NoSecret(default)),
        Some(_) => Ok(()),
        None => read(config).map(drop),
    }
}

/// The secrets to use. A node that begins a mesh makes one.
pub(super) fn make_or_read(config: &Config) -> Result<Secrets, StartError> {
    if let Some(default) = missing(config) {
        let mut random = [0; 32];
        crate::random::fill(&mut random);
        create_secret(&default, random)?;
        tracing::info!(path = %default.display(), "made a new mesh secret; copy it to the nodes that shall join");
    }
    read(config)
}

/// The default file, where it is to be used and does not exist.
fn missing(config: &Config) -> Option<PathBuf> {
    let default = config.state_dir.join("secret");
    (config.secret_files.is_empty() && !default.exists()).then_some(default)
}

fn read(config: &Config) -> Result<Secrets, StartError> {
    let files = match config.secret_files.as_slice() {
        [] => vec![config.state_dir.join("secret")],
        files => files.to_vec(),
    };
    let loaded = load_secret_files(&files)?;
    for warning in &loaded.warnings {
        tracing::warn!(%warning, "secret file");
    }
    Ok(loaded.secrets)
}

/// Rereads the secret files at each SIGHUP; what cannot be read changes nothing.
pub(super) async fn reload(config: Arc<Config>, mut hangups: Signal, node: NodeHandle) {
    while hangups.recv().await.is_some() {
        match read(&config) {
            Ok(secrets) => {
                tracing::info!("secret files read again");
                if node.ask(|node| node.set_secrets(secrets)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::error!(%error, "the secrets stay as they were");
                let reason = format!("the secrets stay as they were: {error}");
                if node.ask(move |node| node.secrets_refused(&reason)).await.is_err() {
                    return;
                }
            }
        }
    }
}
