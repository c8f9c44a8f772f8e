//! Puts the wire into a host's link, and takes it out again, while the host notices nothing.
//!
//! ```text
//! plain:    fabric, hN (veth) ─────────────────────────────────────── eth0, host
//! spliced:  fabric, hN (TAP) ── wire ── tN (TAP) ══ vN (veth) ─────── eth0, host
//! ```
//!
//! All but the last end are in the fabric's namespace. The TAP takes over name, Ethernet address and IP addresses of the
//! veth's end, so that cuts, captures and the host's neighbour entries hold on. `══` is a table that forwards each
//! frame from one device to the other before anything else sees it.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::time::Duration;

use meshwork_sys::netlink::Netlink;
use meshwork_sys::nft;
use meshwork_sys::process::{self, Signal};
use meshwork_sys::tun::Tun;

use crate::error::{Error, Result};
use crate::fabric;
use crate::link;
use crate::namespace::Namespace;
use crate::programs::Programs;
use crate::remains;
use crate::topology::{HostNumber, LabName};
use crate::wait::{Look, eventually};
use crate::wire::TAP;

/// What the wire says once it carries frames.
pub(super) const READY: &str = "carrying frames";
/// Name of the file with the wire's process id, in its host's directory.
const PID_FILE: &str = "wire.pid";
const LOG_FILE: &str = "wire.log";
const DEADLINE: Duration = Duration::from_secs(10);
/// Packets that a TAP holds for the wire: a tenth of a second at 1 Gbit/s in single packets.
const QUEUE_LENGTH: u32 = 8_000;

/// One host's place for a wire.
pub(crate) struct Splice<'a> {
    pub(crate) lab: &'a LabName,
    pub(crate) host: HostNumber,
    pub(crate) fabric: &'a Namespace,
}

/// The wire's own end towards the host.
fn far_end(host: HostNumber) -> String {
    format!("t{}", host.get())
}

/// What the veth's end is called while the wire stands in for it.
fn veth_end(host: HostNumber) -> String {
    format!("v{}", host.get())
}

fn table(host: HostNumber) -> String {
    format!("meshlab-{host}")
}

impl Splice<'_> {
    /// Whether a wire is in the link.
    pub(crate) fn stands(&self) -> Result<bool> {
        Ok(self.fabric.netlink()?.link(&veth_end(self.host))?.is_some())
    }

    /// Devices of this link in the fabric, all of which a change of the MTU concerns.
    pub(crate) fn devices(&self) -> Result<Vec<String>> {
        let near = self.host.to_string();
        Ok(if self.stands()? { vec![near, far_end(self.host), veth_end(self.host)] } else { vec![near] })
    }

    /// Puts the wire in, or lets one that stands begin anew with the conditions that are written down now. What is on its
    /// way then is lost.
    pub(crate) fn splice(&self) -> Result<()> {
        self.end_program()?;
        if !self.stands()? {
            self.take_over()?;
        }
        self.start_program()
    }

    /// Takes the wire out, if there is one.
    pub(crate) fn unsplice(&self) -> Result<()> {
        if !self.stands()? {
            return Ok(());
        }
        self.clear()?;
        let (near, veth) = (self.host.to_string(), veth_end(self.host));
        let mut netlink = self.fabric.netlink()?;
        let index = index(&mut netlink, &veth)?;
        netlink.rename(index, &near)?;
        self.fabric.sysctl(&format!("net/ipv6/conf/{near}/disable_ipv6"), "0")?;
        fabric::configure(&mut netlink, &near, self.host.gateway4(), self.host.gateway6())
    }

    /// Deletes what a wire consists of, whether its veth is still there or not.
    fn clear(&self) -> Result<()> {
        self.end_program()?;
        self.fabric.run(|| nft::delete_table("netdev", &table(self.host)))??;
        let mut netlink = self.fabric.netlink()?;
        if netlink.link(&far_end(self.host))?.is_some() {
            netlink.delete_link(&self.host.to_string())?;
        }
        Ok(netlink.delete_link(&far_end(self.host))?)
    }

    /// Takes the whole link away from the fabric, with the wire if there is one.
    pub(crate) fn remove_link(&self) -> Result<()> {
        self.clear()?;
        let mut netlink = self.fabric.netlink()?;
        netlink.delete_link(&veth_end(self.host))?;
        Ok(netlink.delete_link(&self.host.to_string())?)
    }

    fn take_over(&self) -> Result<()> {
        let (near, far, veth) = (self.host.to_string(), far_end(self.host), veth_end(self.host));
        let mut netlink = self.fabric.netlink()?;
        let link = netlink.link(&near)?;
        let link = link.ok_or_else(|| Error::Unproven(format!("{} has no link to put a wire into", self.host)))?;
        // First, since without a TUN driver the link stays as it was.
        self.open(&mut netlink, &far, link.mtu)?;
        netlink.rename(link.index, &veth)?;
        for address in netlink.addresses(link.index)? {
            netlink.delete_address(link.index, address.net)?;
        }
        let near_index = self.open(&mut netlink, &near, link.mtu)?;
        link.mac.map_or(Ok(()), |mac| netlink.set_mac(near_index, mac))?;
        // Only the near end has something to say on the link.
        for silent in [&far, &veth] {
            self.fabric.sysctl(&format!("net/ipv6/conf/{silent}/disable_ipv6"), "1")?;
        }
        self.fabric.run(|| nft::apply(&forward(self.host)))??;
        let far_index = index(&mut netlink, &far)?;
        netlink.set_up(far_index)?;
        fabric::configure(&mut netlink, &near, self.host.gateway4(), self.host.gateway6())
    }

    /// Makes a TAP, and tells its index.
    fn open(&self, netlink: &mut Netlink, name: &str, mtu: u32) -> Result<u32> {
        let made = self.fabric.run(|| Tun::open(name, TAP).map(drop))?;
        made.map_err(|error| Error::Unproven(error.to_string()))?;
        let index = index(netlink, name)?;
        netlink.set_queue_length(index, QUEUE_LENGTH)?;
        netlink.set_mtu(index, mtu)?;
        Ok(index)
    }

    fn start_program(&self) -> Result<()> {
        let meshlab = Programs::find()?.meshlab;
        let (directory, log) = (self.directory(), self.directory().join(LOG_FILE));
        let file = File::create(&log).map_err(Error::io(format!("make {}", log.display())))?;
        let again = file.try_clone().map_err(Error::io("share the wire's log"))?;
        let mut command = self.fabric.command(meshlab)?;
        command.args(["wire", &self.host.to_string(), &far_end(self.host)]).arg(link::file(&directory));
        let child = command.stdout(file).stderr(again).process_group(0).spawn().map_err(Error::io("start the wire"))?;
        fs::write(directory.join(PID_FILE), child.id().to_string()).map_err(Error::io("write a pid file"))?;
        eventually(DEADLINE, &format!("a wire in the link of {}", self.host), || {
            let said = fs::read_to_string(&log).unwrap_or_default();
            Ok(if said.contains(READY) { Look::Done(()) } else { Look::Missing(said) })
        })
    }

    fn end_program(&self) -> Result<()> {
        let running = || remains::recorded_process(&self.directory(), PID_FILE, self.lab);
        if let Some(pid) = running() {
            process::signal(pid, Signal::Kill)?;
        }
        eventually(DEADLINE, &format!("end of the wire of {}", self.host), || {
            Ok(running().map_or(Look::Done(()), |pid| Look::Missing(format!("process {pid} still runs"))))
        })
    }

    fn directory(&self) -> PathBuf {
        self.lab.directory().join(self.host.to_string())
    }
}

fn index(netlink: &mut Netlink, name: &str) -> Result<u32> {
    let found = netlink.link(name)?.map(|link| link.index);
    found.ok_or_else(|| Error::Unproven(format!("device {name} vanished while a wire was being put in")))
}

fn forward(host: HostNumber) -> String {
    let (far, veth) = (far_end(host), veth_end(host));
    format!(
        "table netdev {} {{
    chain from-host {{
        type filter hook ingress device \"{veth}\" priority 0
        fwd to \"{far}\"
    }}
    chain to-host {{
        type filter hook ingress device \"{far}\" priority 0
        fwd to \"{veth}\"
    }}
}}
",
        table(host)
    )
}
