//! A container runtime that attaches and detaches pods as fast as it is answered, and does not give up: what failed to
//! attach is detached, and detaching is repeated until it succeeds.

use std::thread;
use std::time::{Duration, Instant};

use meshwork_sys::netns;

use crate::cni::{POD_LINK, Sandbox};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::interrupt;
use crate::kills::Turns;
use crate::kills::ledger::Ledger;
use crate::namespace::Namespace;
use crate::random::Random;

/// Living pods of one runtime at most: some are to live over many kills, and all are pinged at each rest.
const ROOM: usize = 3;
/// From a failure to the next attempt: shorter than any runtime's, but it leaves the machine to a daemon that begins.
const BACK_OFF: Duration = Duration::from_millis(50);
/// Until a daemon that is killed again and again lets a pod go.
const PATIENCE: Duration = Duration::from_secs(60);

/// One of several on a host.
pub(super) struct Runtime<'a> {
    host: &'a Host,
    number: u64,
    random: Random,
    ledger: &'a Ledger,
    turns: &'a Turns,
    made: u32,
    pods: Vec<Sandbox>,
}

impl<'a> Runtime<'a> {
    pub(super) fn new(host: &'a Host, number: u64, seed: u64, ledger: &'a Ledger, turns: &'a Turns) -> Self {
        Self { host, number, random: Random::new(seed ^ number), ledger, turns, made: 0, pods: Vec::new() }
    }

    pub(super) fn run(mut self) -> Result<()> {
        let turns = self.turns;
        while !turns.are_over() {
            interrupt::check()?;
            turns.take(|| self.turn())?;
        }
        Ok(())
    }

    fn turn(&mut self) -> Result<()> {
        let place = usize::try_from(self.random.below(ROOM as u64)).unwrap_or_default();
        if place < self.pods.len() {
            let sandbox = self.pods.remove(place);
            self.ledger.leaving(&sandbox);
            return self.remove(&sandbox);
        }
        self.add()
    }

    fn add(&mut self) -> Result<()> {
        self.made += 1;
        let sandbox = self.host.sandbox(&format!("k{}x{}", self.number, self.made));
        Namespace::create(namespace(&sandbox))?;
        match self.host.cni().add(&sandbox) {
            Ok(addresses) => {
                self.ledger.added(&sandbox, addresses)?;
                self.pods.push(sandbox);
                Ok(())
            }
            Err(Error::Cni { .. }) => {
                self.ledger.refused();
                thread::sleep(BACK_OFF);
                self.remove(&sandbox)
            }
            Err(other) => Err(other),
        }
    }

    /// Detaches until it is told that nothing is left, which has to be so.
    fn remove(&self, sandbox: &Sandbox) -> Result<()> {
        let started = Instant::now();
        loop {
            match self.host.cni().delete(sandbox) {
                Ok(()) => break,
                // Nobody starts the daemon any more, and whoever ended it says why.
                Err(Error::Cni { .. }) if self.turns.are_over() => return Ok(()),
                Err(Error::Cni { .. }) if started.elapsed() < PATIENCE => self.ledger.repeated(),
                Err(error) => return Err(error),
            }
            interrupt::check()?;
            thread::sleep(BACK_OFF);
        }
        self.ledger.deleted();
        let namespace = Namespace::existing(namespace(sandbox));
        if namespace.netlink()?.link(POD_LINK)?.is_some() {
            return Err(Error::Unproven(format!("{} was detached with success and has its link", sandbox.id)));
        }
        Ok(netns::remove(namespace.name())?)
    }
}

fn namespace(sandbox: &Sandbox) -> String {
    sandbox.netns.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
