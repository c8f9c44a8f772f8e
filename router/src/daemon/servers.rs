//! Control socket and metrics port while the daemon runs.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::api::{self, Services};

/// How long those who wait on the API have for their answer when the daemon ends. A client that only holds its
/// connection open must not hold the daemon.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// The control socket's path, which says nothing any more once the process goes, on whichever way.
pub(super) struct SocketPath(pub(super) PathBuf);

impl Drop for SocketPath {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Control socket and metrics port, being answered.
pub(super) struct Servers {
    stop: watch::Sender<bool>,
    tasks: [JoinHandle<std::io::Result<()>>; 2],
}

impl Servers {
    pub(super) fn start(api: UnixListener, metrics: TcpListener, services: Services) -> Self {
        let (stop, stopped) = watch::channel(false);
        let metrics = api::serve_metrics(metrics, services.node.clone(), stopped.clone());
        Self { stop, tasks: [tokio::spawn(metrics), tokio::spawn(api::serve(api, services, stopped))] }
    }

    /// Lets those who wait have their answer, for a moment.
    pub(super) async fn end(self) {
        // A receiver that is gone has ended already.
        let _ = self.stop.send(true);
        let ended = async {
            for task in self.tasks {
                if let Ok(Err(error)) = task.await {
                    tracing::warn!(%error, "a server ended badly");
                }
            }
        };
        if timeout(LAST_ANSWERS, ended).await.is_err() {
            tracing::warn!("clients of the API are left without an answer");
        }
    }
}
