//! A pod: a namespace that the CNI plugin attached to its host.

use std::ffi::OsStr;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use meshwork_sys::netns;

use crate::cni::{Cni, Sandbox};
use crate::error::{Error, Result};
use crate::namespace::Namespace;
use crate::ping::{Answers, Ping};
use crate::topology::{HostNumber, LabName, check_pod_name};

/// A pod of the lab. It lives until [`Pod::detach`] or the end of the lab.
#[derive(Debug)]
pub struct Pod {
    namespace: Namespace,
    cni: Cni,
    sandbox: Sandbox,
    addresses: Vec<IpAddr>,
    attached_in: Duration,
}

impl Pod {
    /// Makes the namespace and has the plugin attach it; leaves no namespace behind when the plugin refuses.
    pub(crate) fn attach(lab: &LabName, host: HostNumber, name: &str, cni: Cni) -> Result<Self> {
        check_pod_name(name)?;
        let namespace = Namespace::create(lab.pod(host, name))?;
        let sandbox = sandbox(lab, host, name);
        let started = Instant::now();
        match cni.add(&sandbox) {
            Ok(addresses) => Ok(Self { namespace, cni, sandbox, addresses, attached_in: started.elapsed() }),
            Err(error) => {
                // The refusal is what the caller needs to know.
                let _ = netns::remove(namespace.name());
                Err(error)
            }
        }
    }

    /// Name of the pod.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.sandbox.name
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// What the plugin was called for.
    #[must_use]
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// Its overlay addresses, as the plugin told them.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Its IPv4 address.
    ///
    /// # Errors
    /// When it has none.
    pub fn ipv4(&self) -> Result<IpAddr> {
        self.address(IpAddr::is_ipv4, "IPv4")
    }

    /// Its IPv6 address.
    ///
    /// # Errors
    /// When it has none.
    pub fn ipv6(&self) -> Result<IpAddr> {
        self.address(IpAddr::is_ipv6, "IPv6")
    }

    fn address(&self, family: impl Fn(&IpAddr) -> bool, name: &str) -> Result<IpAddr> {
        let found = self.addresses.iter().copied().find(family);
        found.ok_or_else(|| Error::Unproven(format!("pod {} got no {name} address: {:?}", self.name(), self.addresses)))
    }

    /// How long the plugin took to attach it.
    #[must_use]
    pub fn attached_in(&self) -> Duration {
        self.attached_in
    }

    /// Sends one echo request.
    ///
    /// # Errors
    /// When `ping` cannot run.
    pub fn ping(&self, address: IpAddr) -> Result<Answers> {
        Ping::to(address).run(&self.namespace)
    }

    /// Runs a command that has to succeed in the pod.
    ///
    /// # Errors
    /// When it fails.
    pub fn exec<A: AsRef<OsStr>>(&self, line: impl IntoIterator<Item = A>) -> Result<String> {
        self.namespace.exec(line)
    }

    /// Has the plugin detach it, then removes its namespace.
    ///
    /// # Errors
    /// When the plugin refuses; the namespace is kept then.
    pub fn detach(self) -> Result<()> {
        self.cni.delete(&self.sandbox)?;
        Ok(netns::remove(self.namespace.name())?)
    }
}

/// The sandbox that stands for a pod of the lab.
pub(crate) fn sandbox(lab: &LabName, host: HostNumber, pod: &str) -> Sandbox {
    let id = format!("{lab}-{host}-{pod}");
    Sandbox { id, name: pod.to_owned(), netns: netns::path(&lab.pod(host, pod)) }
}
