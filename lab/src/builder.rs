//! What a lab is to be, said before it is made.

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;

use crate::error::{Error, Result};
use crate::fabric::Fabric;
use crate::host::{Host, Settings};
use crate::lab::Lab;
use crate::link::Link;
use crate::namespace::Namespace;
use crate::nat::{self, Nat};
use crate::programs::Programs;
use crate::remains;
use crate::topology::{HostNumber, LabName, MAX_HOSTS};

/// What a lab is to be.
#[derive(Debug)]
pub struct Builder {
    name: LabName,
    hosts: u16,
    begins: Vec<(u16, Vec<OsString>)>,
    flags: Vec<(u16, Vec<OsString>)>,
    environment: Vec<(u16, OsString, OsString)>,
    secrets: Vec<(u16, String)>,
    links: Vec<(u16, Link)>,
    translators: Vec<(u16, Nat)>,
}

impl Builder {
    pub(crate) fn new(name: LabName) -> Self {
        Self {
            name,
            hosts: 1,
            begins: Vec::new(),
            flags: Vec::new(),
            environment: Vec::new(),
            secrets: Vec::new(),
            links: Vec::new(),
            translators: Vec::new(),
        }
    }

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

    /// Gives the link of host `number` conditions from the beginning.
    #[must_use]
    pub fn link(mut self, number: u16, link: Link) -> Self {
        self.links.push((number, link));
        self
    }

    /// Puts an address translator in front of host `number`.
    #[must_use]
    pub fn nat(mut self, number: u16, kind: Nat) -> Self {
        self.translators.push((number, kind));
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
        let lab = Lab::of(self.name.clone(), fabric, hosts);
        make_directory(&self.name)?;
        Fabric::create(&self.name)?;
        for host in lab.hosts() {
            Namespace::create(host.namespace().name().to_owned())?;
            let nat = self.translators.iter().find(|(number, _)| *number == host.number().get());
            if let Some((_, kind)) = nat {
                nat::create(&self.name, host.number(), *kind)?;
            }
            host.attach(lab.fabric())?;
            let own = self.secrets.iter().find(|(number, _)| *number == host.number().get());
            host.prepare(own.map_or(&secret, |(_, secret)| secret))?;
        }
        for (number, link) in &self.links {
            lab.link(*number, link)?;
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
