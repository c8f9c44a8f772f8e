//! Carries faults out, each at its time, and says so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::faults::schedule::{Action, Fault};
use crate::faults::whole;
use crate::lab::Lab;
use crate::link::Link;
use crate::pod::Pod;
use crate::say;
use crate::wait::{Look, eventually};

/// Longer than any schedule waits for its next fault.
const PATIENCE: Duration = Duration::from_secs(3600);

/// A lab to which faults happen, with the pods that live in it.
#[derive(Debug)]
pub struct Faults<'a> {
    lab: &'a Lab,
    pods: BTreeMap<(u16, String), Pod>,
    dead: BTreeSet<u16>,
    frozen: BTreeSet<u16>,
    lossy: BTreeSet<u16>,
}

impl<'a> Faults<'a> {
    /// Begins with a mesh that is whole and has no pods.
    #[must_use]
    pub fn new(lab: &'a Lab) -> Self {
        let none = BTreeSet::new;
        Self { lab, pods: BTreeMap::new(), dead: none(), frozen: none(), lossy: none() }
    }

    /// Carries a schedule out, and fails when a daemon ends that nobody killed.
    ///
    /// # Errors
    /// When the lab refuses, or [`crate::Error::DaemonEnded`].
    pub fn carry_out(&mut self, schedule: &[Fault]) -> Result<()> {
        let started = Instant::now();
        for fault in schedule {
            self.wait_until(started + fault.at)?;
            say!("{:8.3} s  {}", started.elapsed().as_secs_f64(), fault.action);
            self.act(&fault.action)?;
        }
        Ok(())
    }

    fn wait_until(&self, time: Instant) -> Result<()> {
        eventually(PATIENCE, "time of the next fault", || {
            self.lab.hosts().iter().try_for_each(|host| host.check_daemon())?;
            Ok(if Instant::now() >= time { Look::Done(()) } else { Look::Missing("time".into()) })
        })
    }

    fn act(&mut self, action: &Action) -> Result<()> {
        match action {
            Action::Cut(one, other) => self.lab.cut(*one, *other),
            Action::CutOneWay(from, to) => self.lab.cut_one_way(*from, *to),
            Action::Partition(left, right) => self.lab.partition(&[left, right]),
            Action::Heal => self.lab.heal(),
            Action::Kill(host) => {
                self.dead.insert(*host);
                self.lab.host(*host).kill()
            }
            Action::Start(host) => {
                self.dead.remove(host);
                self.lab.host(*host).start()
            }
            Action::Pause(host) => {
                self.frozen.insert(*host);
                self.lab.host(*host).pause()
            }
            Action::Resume(host) => {
                self.frozen.remove(host);
                self.lab.host(*host).resume()
            }
            Action::Loss(host, percent) => {
                self.lossy.insert(*host);
                self.lab.link(*host, &Link::default().loss((*percent).into()))
            }
            Action::AddPod(host, name) => self.add_pod(*host, name),
            Action::DeletePod(host, name) => self.delete_pod(*host, name),
        }
    }

    /// A node that is cut off may have no address to give, so a refusal is part of the story. Nothing of the pod may be
    /// left then.
    fn add_pod(&mut self, host: u16, name: &str) -> Result<()> {
        match self.lab.host(host).pod(name) {
            Ok(pod) => drop(self.pods.insert((host, name.to_owned()), pod)),
            Err(error) => say!("            refused: {error}"),
        }
        Ok(())
    }

    /// A pod whose detachment is refused lives on.
    fn delete_pod(&mut self, host: u16, name: &str) -> Result<()> {
        let key = (host, name.to_owned());
        let Some(pod) = self.pods.get(&key) else { return Ok(()) };
        if let Err(error) = self.lab.host(host).cni().delete(pod.sandbox()) {
            say!("            refused: {error}");
            return Ok(());
        }
        self.pods.remove(&key).map_or(Ok(()), Pod::detach)
    }

    /// Mends everything: cuts, links, what is frozen or dead.
    ///
    /// # Errors
    /// When the lab refuses.
    pub fn mend(&mut self) -> Result<()> {
        say!("            mend everything");
        self.lab.heal()?;
        while let Some(host) = self.lossy.pop_first() {
            self.lab.link(host, &Link::default())?;
        }
        while let Some(host) = self.frozen.pop_first() {
            self.lab.host(host).resume()?;
        }
        while let Some(host) = self.dead.pop_first() {
            self.lab.host(host).start()?;
        }
        Ok(())
    }

    /// Waits until the mesh is whole: all hosts are one mesh, all living pods reach each other in both families, no
    /// address is held twice, and every host has links, routes and leases for its living pods and for nothing else. Says
    /// how long it took.
    ///
    /// # Errors
    /// [`crate::Error::TimedOut`] with the first thing that is missing.
    pub fn wait_until_whole(&self, deadline: Duration) -> Result<Duration> {
        let started = Instant::now();
        self.lab.wait_until_ready(deadline)?;
        eventually(deadline.saturating_sub(started.elapsed()), "a whole mesh", || {
            self.lab.hosts().iter().try_for_each(|host| host.check_daemon())?;
            Ok(whole::missing(self.lab, &self.pods)?.map_or(Look::Done(()), Look::Missing))
        })?;
        Ok(started.elapsed())
    }

    /// How many pods live.
    #[must_use]
    pub fn pods(&self) -> usize {
        self.pods.len()
    }
}
