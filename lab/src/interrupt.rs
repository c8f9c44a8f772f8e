//! SIGINT and SIGTERM end a lab in order: what waits fails with [`Error::Interrupted`], and unwinding takes the lab down.
//!
//! A thread notes the signal and ends the commands in the lab's namespaces, so that no wait outlives it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tokio::signal::unix::{SignalKind, signal};

use crate::complain;
use crate::error::{Error, Result};
use crate::remains;
use crate::topology::LabName;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Fails once a signal has arrived.
///
/// # Errors
/// [`Error::Interrupted`].
pub fn check() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
}

/// Makes [`check`] fail from now on.
pub(crate) fn note() {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// From now on a signal ends `lab` in order: its processes at once, so that nothing waits for them, the rest by unwinding.
///
/// # Errors
/// When the process may not have a thread or handlers.
pub fn end_lab_on_signal(lab: &LabName) -> Result<()> {
    let lab = lab.clone();
    on_signal(move || {
        if let Err(error) = remains::end_processes(&lab) {
            complain!("{error}");
        }
    })
}

/// Notes SIGINT, SIGTERM and SIGHUP from now on in place of dying from them, and calls `unblock` for each.
///
/// # Errors
/// When the process may not have a thread or handlers.
fn on_signal(unblock: impl Fn() + Send + 'static) -> Result<()> {
    let install = || -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let (mut interrupt, mut terminate, mut hangup) = {
            let _entered = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?)
        };
        thread::Builder::new().name("signals".into()).spawn(move || {
            runtime.block_on(async {
                loop {
                    tokio::select! { _ = interrupt.recv() => (), _ = terminate.recv() => (), _ = hangup.recv() => () }
                    note();
                    unblock();
                }
            });
        })?;
        Ok(())
    };
    install().map_err(Error::io("watch for signals"))
}
