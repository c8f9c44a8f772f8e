//! What is on the wire, as `tcpdump` sees it: the witness that is not ours.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use meshwork_sys::process::{self, Signal};

use crate::error::{Error, Result};
use crate::namespace::{Namespace, Running};
use crate::pcap::{self, Packet};
use crate::wait::{Look, eventually};

/// tcpdump opens its socket in milliseconds; a loaded machine may take seconds.
const START_DEADLINE: Duration = Duration::from_secs(10);
/// KiB that the kernel holds for us while the disk is slow.
const BUFFER: &str = "32768";

/// tcpdump will not run as root without setting its groups, and a user namespace of an unprivileged user forbids that.
const NO_GROUPS: &str = "tcpdump cannot capture in a rootless lab, where groups are fixed; run as root";

/// A capture of every interface of a namespace. Each forwarded packet is in it twice: coming and going.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Running,
    file: PathBuf,
}

impl Capture {
    /// Begins to capture into `file`; when this returns, every later packet is seen.
    ///
    /// # Errors
    /// When `tcpdump` does not run.
    pub(crate) fn start(namespace: &Namespace, file: PathBuf, filter: &str) -> Result<Self> {
        // Each packet is written at once, and by root, since the file lies where others may not write.
        let line = ["tcpdump", "-i", "any", "-n", "-U", "--immediate-mode", "-B", BUFFER, "-Z", "root", "-w"];
        let line = line.map(str::to_owned).into_iter().chain([file.display().to_string(), filter.to_owned()]);
        let mut tcpdump = namespace.spawn(line, &file.with_extension("log"))?;
        match tcpdump.wait_for("listening on", START_DEADLINE) {
            Err(_) if tcpdump.printed().contains("Couldn't change to") => Err(Error::Unproven(NO_GROUPS.into())),
            outcome => outcome.map(|()| Self { tcpdump, file }),
        }
    }

    /// Everything captured so far.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn packets(&self) -> Result<Vec<Packet>> {
        let file = fs::read(&self.file).map_err(Error::io(format!("read {}", self.file.display())))?;
        Ok(pcap::packets(&file))
    }

    /// Waits until a packet with `marker` is in the capture: then everything sent before it is, too, because one socket
    /// sees all interfaces in order.
    ///
    /// # Errors
    /// When it does not come in time.
    pub fn wait_for(&self, marker: &[u8], deadline: Duration) -> Result<()> {
        eventually(deadline, &format!("marker {:?} in the capture", String::from_utf8_lossy(marker)), || {
            let packets = self.packets()?;
            let seen = packets.iter().any(|packet| packet.contains(marker));
            Ok(if seen { Look::Done(()) } else { Look::Missing(format!("{} other packets came", packets.len())) })
        })
    }

    /// Ends the capture in order, so that nothing is left in a buffer, and hands it over.
    ///
    /// # Errors
    /// When `tcpdump` does not end or the file cannot be read.
    pub fn stop(mut self) -> Result<Vec<Packet>> {
        process::signal(self.tcpdump.id(), Signal::Interrupt)?;
        self.tcpdump.wait_for_end(START_DEADLINE)?;
        self.packets()
    }
}
