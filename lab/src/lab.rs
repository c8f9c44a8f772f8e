//! A lab: the fabric, its hosts, and their end.
//!
//! A [`Lab`] that goes out of scope is taken away with everything in it, also by a panic or an early return, unless
//! [`Lab::leave_running`] said otherwise. [`Lab::open`] finds a lab that somebody else made; it never ends with the value.

use std::thread;
use std::time::{Duration, Instant};

use crate::builder::Builder;
use crate::capture::Capture;
use crate::conditions::Links;
use crate::error::{Error, Result};
use crate::fabric::Fabric;
use crate::host::{Host, Settings};
use crate::link::Link;
use crate::programs::Programs;
use crate::readiness;
use crate::remains;
use crate::topology::{HostNumber, LabName};
use crate::wire::Splice;
use crate::{complain, say};

/// A mesh of a few hosts forms in about a second; a debug build on a loaded machine takes a multiple.
const FORM_DEADLINE: Duration = Duration::from_secs(20);

/// Hosts on a fabric.
#[derive(Debug)]
pub struct Lab {
    name: LabName,
    fabric: Fabric,
    hosts: Vec<Host>,
    formed_in: Duration,
    ends_with_value: bool,
}

impl Lab {
    /// Begins a lab of one host.
    ///
    /// # Errors
    /// [`Error::BadName`].
    pub fn build(name: &str) -> Result<Builder> {
        Ok(Builder::new(LabName::new(name)?))
    }

    /// A lab that exists. Its daemons are not this process's to stop and start.
    ///
    /// # Errors
    /// [`Error::NoSuchLab`].
    pub fn open(name: &str) -> Result<Self> {
        let name = LabName::new(name)?;
        let namespaces = remains::namespaces(&name)?;
        if !namespaces.contains(&name.fabric()) {
            return Err(Error::NoSuchLab(name.to_string()));
        }
        let programs = Programs::find()?;
        let prefix = name.namespace_prefix();
        let mut numbers: Vec<_> =
            namespaces.iter().filter_map(|namespace| HostNumber::parse(namespace.strip_prefix(&prefix)?)).collect();
        numbers.sort_unstable();
        let host = |&number: &HostNumber| Host::new(&name, number, programs.clone(), Settings::default());
        let hosts = numbers.iter().map(host).collect();
        let fabric = Fabric::existing(&name);
        Ok(Self { name, fabric, hosts, formed_in: Duration::ZERO, ends_with_value: false })
    }

    /// What the builder makes: from here on the value takes away what is there.
    pub(crate) fn of(name: LabName, fabric: Fabric, hosts: Vec<Host>) -> Self {
        Self { name, fabric, hosts, formed_in: Duration::ZERO, ends_with_value: true }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &LabName {
        &self.name
    }

    /// The network between the hosts.
    #[must_use]
    pub fn fabric(&self) -> &Fabric {
        &self.fabric
    }

    /// All hosts, `h1` first.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Host `number`.
    ///
    /// # Panics
    /// When the lab was not built with that many: a mistake in the story that is told.
    #[must_use]
    pub fn host(&self, number: u16) -> &Host {
        let found = self.hosts.iter().find(|host| host.number().get() == number);
        found.unwrap_or_else(|| panic!("lab {} has no host h{number}", self.name))
    }

    /// The host called `name`, such as `h1`.
    ///
    /// # Errors
    /// [`Error::NoSuchHost`].
    pub fn host_named(&self, name: &str) -> Result<&Host> {
        let found = HostNumber::parse(name).and_then(|number| self.hosts.iter().find(|host| host.number() == number));
        found.ok_or_else(|| Error::NoSuchHost { lab: self.name.to_string(), host: name.to_owned() })
    }

    /// Drops everything between two hosts until [`Self::heal`].
    ///
    /// # Errors
    /// When the kernel refuses the rule.
    pub fn cut(&self, one: u16, other: u16) -> Result<()> {
        self.fabric.cut(self.host(one).number(), self.host(other).number())
    }

    /// Drops what host `from` sends to host `to`, and lets pass what comes back, until [`Self::heal`].
    ///
    /// # Errors
    /// When the kernel refuses the rule.
    pub fn cut_one_way(&self, from: u16, to: u16) -> Result<()> {
        self.fabric.cut_one_way(self.host(from).number(), self.host(to).number())
    }

    /// Drops everything between hosts of different groups until [`Self::heal`]. Within a group all passes; a host of no
    /// group still reaches everybody.
    ///
    /// # Errors
    /// When the kernel refuses the rule.
    pub fn partition(&self, groups: &[&[u16]]) -> Result<()> {
        let numbers = |group: &&[u16]| group.iter().map(|&number| self.host(number).number()).collect();
        self.fabric.partition(&groups.iter().map(numbers).collect::<Vec<_>>())
    }

    /// Mends every cut and partition.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn heal(&self) -> Result<()> {
        self.fabric.heal()
    }

    /// Gives the link of host `number` these conditions and no others, now.
    ///
    /// # Errors
    /// When they cannot be, or the kernel refuses them.
    pub fn link(&self, number: u16, link: &Link) -> Result<()> {
        self.links().set(self.host(number).number(), link)
    }

    /// The conditions that the link of host `number` has.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn link_of(&self, number: u16) -> Result<Link> {
        self.links().of(self.host(number).number())
    }

    pub(crate) fn splice(&self, host: &Host) -> Splice<'_> {
        Splice { lab: &self.name, host: host.number(), fabric: self.fabric.namespace() }
    }

    fn links(&self) -> Links<'_> {
        let hosts = self.hosts.iter().map(|host| (host.number(), host.outermost())).collect();
        Links { lab: &self.name, fabric: self.fabric.namespace(), hosts }
    }

    /// Starts the daemons of all hosts and waits until they are one mesh.
    ///
    /// # Errors
    /// When one cannot be started, ends, or something is missing at the deadline.
    pub fn start(&mut self) -> Result<()> {
        let started = Instant::now();
        for host in &self.hosts {
            host.start()?;
        }
        self.wait_until_ready(FORM_DEADLINE)?;
        self.formed_in = started.elapsed();
        Ok(())
    }

    /// How long the mesh took from the start of the first daemon until every path between every pair was up.
    #[must_use]
    pub fn formed_in(&self) -> Duration {
        self.formed_in
    }

    /// Waits until every daemon is ready, knows every other as alive and has a path up to it.
    ///
    /// # Errors
    /// When a daemon ends, or at the deadline, saying what is missing.
    pub fn wait_until_ready(&self, deadline: Duration) -> Result<()> {
        readiness::wait(&self.hosts, deadline)
    }

    /// Captures everything that crosses the fabric and passes `filter`, a `tcpdump` expression (empty: everything).
    ///
    /// # Errors
    /// When `tcpdump` does not run.
    pub fn capture(&self, name: &str, filter: &str) -> Result<Capture> {
        let file = self.name.directory().join(format!("{name}.pcap"));
        Capture::start(self.fabric.namespace(), file, filter)
    }

    /// Lets the lab live on after this value; `meshlab down` ends it.
    pub fn leave_running(mut self) {
        self.ends_with_value = false;
        for host in &self.hosts {
            host.release();
        }
    }

    /// Ends a run: tells how it went and takes the lab away. If it went wrong, the logs are told, and with `keep` the lab
    /// is left running to look around in.
    ///
    /// # Errors
    /// That of the outcome; as [`Self::down`].
    pub fn conclude(self, outcome: Result<String>, keep: bool) -> Result<()> {
        let error = match outcome {
            Ok(told) => {
                say!("{told}");
                return self.down();
            }
            Err(error) => error,
        };
        self.complain_of_logs();
        if keep {
            say!("the lab is left running; take it away with: meshlab down --name {}", self.name);
            self.leave_running();
        }
        Err(error)
    }

    fn complain_of_logs(&self) {
        for host in &self.hosts {
            complain!("--- log of {} ends with:\n{}", host.number(), host.log_tail());
        }
    }

    /// Takes the lab away now, saying what went wrong where dropping it could not.
    ///
    /// # Errors
    /// When something does not let go.
    pub fn down(mut self) -> Result<()> {
        self.ends_with_value = false;
        self.end()
    }

    fn end(&self) -> Result<()> {
        for host in &self.hosts {
            host.end();
        }
        remains::clear(&self.name)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.ends_with_value {
            return;
        }
        if thread::panicking() {
            self.complain_of_logs();
        }
        if let Err(error) = self.end() {
            complain!("lab {} is not quite gone: {error}", self.name);
        }
    }
}
