//! A lab: the fabric, its hosts, and their end.
//!
//! A [`Lab`] that goes out of scope is taken away with everything in it, also by a panic or an early return, unless
//! [`Lab::leave_running`] said otherwise. [`Lab::open`] finds a lab that somebody else made; it never ends with the value.

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::thread;
use std::time::{Duration, Instant};

use crate::capture::Capture;
use crate::complain;
use crate::error::{Error, Result};
use crate::fabric::Fabric;
use crate::host::{Host, Settings};
use crate::namespace::Namespace;
use crate::programs::Programs;
use crate::readiness;
use crate::remains;
use crate::topology::{HostNumber, LabName, MAX_HOSTS};

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

/// What a lab is to be.
#[derive(Debug)]
pub struct Builder {
    name: LabName,
    hosts: u16,
    begins: Vec<(u16, Vec<OsString>)>,
    flags: Vec<(u16, Vec<OsString>)>,
    environment: Vec<(u16, OsString, OsString)>,
    secrets: Vec<(u16, String)>,
}

impl Lab {
    /// Begins a lab of one host.
    ///
    /// # Errors
    /// [`Error::BadName`].
    pub fn build(name: &str) -> Result<Builder> {
        let name = LabName::new(name)?;
        Ok(Builder {
            name,
            hosts: 1,
            begins: Vec::new(),
            flags: Vec::new(),
            environment: Vec::new(),
            secrets: Vec::new(),
        })
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

    /// Mends every cut.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn heal(&self) -> Result<()> {
        self.fabric.heal()
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
            for host in &self.hosts {
                complain!("--- log of {} ends with:\n{}", host.number(), host.log_tail());
            }
        }
        if let Err(error) = self.end() {
            complain!("lab {} is not quite gone: {error}", self.name);
        }
    }
}

impl Builder {
    /// Gives it `count` hosts, `h1` to `hN`.
    #[must_use]
    pub fn hosts(mut self, count: u16) -> Self {
        self.hosts = count;
        self
    }

    /// Lets the daemon of host `number` begin in another way than the default: `h1` seeds the ring, the others begin from
    /// `h1`.
    #[must_use]
    pub fn begins(mut self, number: u16, flags: &[&str]) -> Self {
        self.begins.push((number, flags.iter().map(OsString::from).collect()));
        self
    }

    /// Adds flags to the daemon of host `number`.
    #[must_use]
    pub fn flags(mut self, number: u16, flags: &[&str]) -> Self {
        self.flags.push((number, flags.iter().map(OsString::from).collect()));
        self
    }

    /// Sets a variable in the environment of the daemon of host `number`.
    #[must_use]
    pub fn environment(mut self, number: u16, name: &str, value: &str) -> Self {
        self.environment.push((number, name.into(), value.into()));
        self
    }

    /// Gives host `number` another secret than the lab's.
    #[must_use]
    pub fn secret(mut self, number: u16, secret: &str) -> Self {
        self.secrets.push((number, secret.to_owned()));
        self
    }

    /// Makes the lab with all daemons running as one mesh.
    ///
    /// # Errors
    /// When anything of it does not work; nothing is left behind.
    pub fn up(self) -> Result<Lab> {
        let mut lab = self.without_daemons()?;
        lab.start()?;
        Ok(lab)
    }

    /// Makes the lab and starts no daemon. What an interrupted lab of this name left is taken away first.
    ///
    /// # Errors
    /// When anything of it does not work; nothing is left behind.
    pub fn without_daemons(self) -> Result<Lab> {
        let programs = Programs::find()?;
        self.with(&programs)
    }

    fn with(self, programs: &Programs) -> Result<Lab> {
        if self.hosts == 0 || self.hosts > MAX_HOSTS {
            return Err(Error::Unproven(format!("a lab has 1 to {MAX_HOSTS} hosts, not {}", self.hosts)));
        }
        remains::clear(&self.name)?;
        let secret = fresh_secret()?;
        let hosts = (1..=self.hosts).filter_map(HostNumber::new);
        let hosts =
            hosts.map(|number| Host::new(&self.name, number, programs.clone(), self.settings(number))).collect();
        let fabric = Fabric::existing(&self.name);
        // From here on the value takes away what was made so far.
        let lab = Lab { name: self.name.clone(), fabric, hosts, formed_in: Duration::ZERO, ends_with_value: true };
        make_directory(&lab.name)?;
        Fabric::create(&lab.name)?;
        for host in &lab.hosts {
            Namespace::create(host.namespace().name().to_owned())?;
            lab.fabric.attach(host.number(), host.namespace())?;
            let own = self.secrets.iter().find(|(number, _)| *number == host.number().get());
            host.prepare(own.map_or(&secret, |(_, secret)| secret))?;
        }
        Ok(lab)
    }

    fn settings(&self, number: HostNumber) -> Settings {
        let own = self.begins.iter().find(|(host, _)| *host == number.get());
        let begin = own.map_or_else(|| begin(number), |(_, flags)| flags.clone());
        let added = self.flags.iter().filter(|(host, _)| *host == number.get()).flat_map(|(_, flags)| flags.clone());
        let variables = self.environment.iter().filter(|(host, ..)| *host == number.get());
        let environment = variables.map(|(_, name, value)| (name.clone(), value.clone())).collect();
        Settings { flags: begin.into_iter().chain(added).collect(), environment }
    }
}

fn begin(number: HostNumber) -> Vec<OsString> {
    match number {
        HostNumber::FIRST => vec!["--ipam-init".into(), "seed".into()],
        _ => vec!["--peer".into(), HostNumber::FIRST.address4().to_string().into()],
    }
}

/// Secrets lie in it, so it is closed to others.
fn make_directory(lab: &LabName) -> Result<()> {
    let directory = lab.directory();
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
    made.map_err(Error::io(format!("make {}", directory.display())))
}

fn fresh_secret() -> Result<String> {
    let mut bytes = [0; 32];
    let read = fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(Error::io("read /dev/urandom"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
