//! Secret files: made or read at start, read again at SIGHUP.

use std::sync::Arc;

use meshwork_identity::Secrets;
use meshwork_state::{create_secret, load_secret_files};
use tokio::signal::unix::Signal;

use super::StartError;
use crate::config::Config;
use crate::node::NodeHandle;

/// The secrets to use. A node that begins a mesh makes one; a node that joins must have been given it.
pub(super) fn make_or_read(config: &Config) -> Result<Secrets, StartError> {
    let default = config.state_dir.join("secret");
    if config.secret_files.is_empty() && !default.exists() {
        if !config.peers.is_empty() {
            return Err(StartError::NoSecret(default));
        }
        let mut random = [0; 32];
        crate::random::fill(&mut random);
        create_secret(&default, random)?;
        tracing::info!(path = %default.display(), "made a new mesh secret; copy it to the nodes that shall join");
    }
    read(config)
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
            Err(error) => tracing::error!(%error, "the secrets stay as they were"),
        }
    }
}
