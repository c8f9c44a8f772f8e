//! The thread that watches what others change in the kernel, and tells the worker and the actor. It ends when it is rung,
//! or when the worker is gone.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use meshwork_sys::netlink::Watch;
use meshwork_sys::wake::{Ready, Wake};
use tokio::sync::Notify;

use super::driver::Request;

/// Notices come in bursts, some of our own making: one look answers all that came within this time.
const SETTLING: Duration = Duration::from_millis(100);

/// How long the watch waits when nothing happens.
const WATCH_INTERVAL: Duration = Duration::from_secs(60);

/// Tells the worker what others change.
pub(super) struct Watcher {
    pub(super) watch: Watch,
    pub(super) ending: Arc<Wake>,
    pub(super) changed: Arc<Notify>,
    pub(super) requests: Sender<Request>,
}

impl Watcher {
    pub(super) fn run(mut self) {
        loop {
            let told = match self.watch.wait(&self.ending, WATCH_INTERVAL) {
                Ok(Ready::Rung) => return,
                Ok(Ready::TimedOut) => continue,
                Ok(Ready::Readable) => {
                    thread::sleep(SETTLING);
                    self.watch.changes()
                }
                Err(error) => Err(error),
            };
            let Ok(changes) = told.inspect_err(|error| tracing::error!(%error, "changes by others are seen late"))
            else {
                return;
            };
            if changes.routing || !changes.settings.is_empty() {
                self.changed.notify_one();
            }
            if self.requests.send(Request::Changed(changes)).is_err() {
                return;
            }
        }
    }
}
