//! What befalls a mesh, and when: drawn from a seed, without a clock or a lab, so that a run can be told again.
//!
//! A schedule makes sense as it goes on: what was killed is started later and not killed twice, pods come and go where a
//! daemon answers, and at least half of the hosts always live and move.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use crate::random::Random;

/// Between two faults: time for some of them to be noticed (within 3 s), too little for most to be over.
const SHORTEST_PAUSE: Duration = Duration::from_millis(300);
const LONGEST_PAUSE: Duration = Duration::from_millis(1500);
/// Pods of one host at most: enough to tell addresses apart, few enough to ask all pairs at the end.
const PODS_PER_HOST: usize = 3;
/// Percent of packets that a bad link loses: noticeable and worse.
const LOSSES: [u8; 3] = [2, 10, 40];

/// One thing that is done to a mesh. Hosts are numbered from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Drops everything between two hosts.
    Cut(u16, u16),
    /// Drops what the first sends to the second.
    CutOneWay(u16, u16),
    /// Drops everything between two groups.
    Partition(Vec<u16>, Vec<u16>),
    /// Mends cuts and partitions.
    Heal,
    /// Kills a host's daemon.
    Kill(u16),
    /// Starts it again.
    Start(u16),
    /// Freezes a host's daemon.
    Pause(u16),
    /// Lets it go on.
    Resume(u16),
    /// Lets a host's link lose so many percent.
    Loss(u16, u8),
    /// Attaches a pod of this name.
    AddPod(u16, String),
    /// Detaches it.
    DeletePod(u16, String),
}

/// An action with its time since the beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// When it is due.
    pub at: Duration,
    /// What is done.
    pub action: Action,
}

/// The faults that belong to `seed`, for a mesh of `hosts`, all within `duration`.
#[must_use]
pub fn schedule(seed: u64, hosts: u16, duration: Duration) -> Vec<Fault> {
    let mut scene = Scene::new(seed, hosts);
    let mut faults = Vec::new();
    let mut at = scene.pause();
    while at < duration {
        if let Some(action) = scene.next() {
            faults.push(Fault { at, action });
        }
        at += scene.pause();
    }
    faults
}

/// What a schedule has done so far.
struct Scene {
    random: Random,
    hosts: Vec<u16>,
    dead: BTreeSet<u16>,
    frozen: BTreeSet<u16>,
    lossy: BTreeSet<u16>,
    parted: bool,
    pods: BTreeSet<(u16, String)>,
    named: u32,
}

impl Scene {
    fn new(seed: u64, hosts: u16) -> Self {
        Self {
            random: Random::new(seed),
            hosts: (1..=hosts).collect(),
            dead: BTreeSet::new(),
            frozen: BTreeSet::new(),
            lossy: BTreeSet::new(),
            parted: false,
            pods: BTreeSet::new(),
            named: 0,
        }
    }

    fn pause(&mut self) -> Duration {
        let range = (LONGEST_PAUSE - SHORTEST_PAUSE).as_millis() as u64;
        SHORTEST_PAUSE + Duration::from_millis(self.random.below(range))
    }

    /// One of the actions that make sense now.
    fn next(&mut self) -> Option<Action> {
        let candidates = self.candidates();
        let action = self.random.one_of(&candidates)?.clone();
        self.note(&action);
        Some(action)
    }

    fn candidates(&mut self) -> Vec<Action> {
        let moving: Vec<u16> = self.hosts.iter().copied().filter(|host| self.moves(*host)).collect();
        let (dead, frozen): (Vec<_>, Vec<_>) =
            (self.dead.iter().copied().collect(), self.frozen.iter().copied().collect());
        let mut candidates = self.on_the_fabric();
        candidates.extend(self.random.one_of(&dead).copied().map(Action::Start));
        candidates.extend(self.random.one_of(&frozen).copied().map(Action::Resume));
        if (moving.len() - 1) * 2 >= self.hosts.len() {
            candidates.extend(self.random.one_of(&moving).copied().map(Action::Kill));
            candidates.extend(self.random.one_of(&moving).copied().map(Action::Pause));
        }
        candidates.extend(self.with_pods(&moving));
        candidates
    }

    fn on_the_fabric(&mut self) -> Vec<Action> {
        let hosts = self.hosts.clone();
        let mut shuffled = hosts.clone();
        shuffled.sort_by_cached_key(|_| self.random.number());
        let mut candidates = Vec::new();
        if let [one, other, ..] = shuffled[..] {
            let middle = 1 + self.random.below(hosts.len() as u64 - 1) as usize;
            let (left, right) = shuffled.split_at(middle);
            candidates.extend([
                Action::Cut(one, other),
                Action::CutOneWay(one, other),
                Action::Partition(left.to_vec(), right.to_vec()),
            ]);
        }
        // As likely as all that parts, so that a mesh is whole about half of the time.
        candidates.extend(self.parted.then(|| vec![Action::Heal; 3]).into_iter().flatten());
        let loss = self.random.one_of(&LOSSES).copied().unwrap_or_default();
        let host = self.random.one_of(&hosts).copied();
        candidates.extend(host.map(|host| Action::Loss(host, if self.lossy.contains(&host) { 0 } else { loss })));
        candidates
    }

    fn with_pods(&mut self, moving: &[u16]) -> Vec<Action> {
        let room = |host: &u16| self.pods.iter().filter(|(at, _)| at == host).count() < PODS_PER_HOST;
        let roomy: Vec<u16> = moving.iter().copied().filter(room).collect();
        let living: Vec<_> = self.pods.iter().filter(|(host, _)| moving.contains(host)).cloned().collect();
        let name = format!("f{}", self.named + 1);
        let add = self.random.one_of(&roomy).map(|&host| Action::AddPod(host, name));
        let delete = self.random.one_of(&living).cloned().map(|(host, name)| Action::DeletePod(host, name));
        // More come than go, else there would be none to watch.
        std::iter::repeat_n(add, 4).flatten().chain(delete).collect()
    }

    fn moves(&self, host: u16) -> bool {
        !self.dead.contains(&host) && !self.frozen.contains(&host)
    }

    fn note(&mut self, action: &Action) {
        match action {
            Action::Cut(..) | Action::CutOneWay(..) | Action::Partition(..) => self.parted = true,
            Action::Heal => self.parted = false,
            Action::Kill(host) => drop(self.dead.insert(*host)),
            Action::Start(host) => drop(self.dead.remove(host)),
            Action::Pause(host) => drop(self.frozen.insert(*host)),
            Action::Resume(host) => drop(self.frozen.remove(host)),
            Action::Loss(host, 0) => drop(self.lossy.remove(host)),
            Action::Loss(host, _) => drop(self.lossy.insert(*host)),
            Action::AddPod(host, name) => {
                self.named += 1;
                self.pods.insert((*host, name.clone()));
            }
            Action::DeletePod(host, name) => drop(self.pods.remove(&(*host, name.clone()))),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group = |hosts: &[u16]| hosts.iter().map(|host| format!("h{host}")).collect::<Vec<_>>().join(",");
        match self {
            Self::Cut(one, other) => write!(formatter, "cut h{one} h{other}"),
            Self::CutOneWay(from, to) => write!(formatter, "cut what h{from} sends to h{to}"),
            Self::Partition(left, right) => write!(formatter, "partition {} {}", group(left), group(right)),
            Self::Heal => formatter.write_str("heal"),
            Self::Kill(host) => write!(formatter, "kill h{host}"),
            Self::Start(host) => write!(formatter, "start h{host}"),
            Self::Pause(host) => write!(formatter, "pause h{host}"),
            Self::Resume(host) => write!(formatter, "resume h{host}"),
            Self::Loss(host, percent) => write!(formatter, "lose {percent} % on the link of h{host}"),
            Self::AddPod(host, name) => write!(formatter, "add pod h{host}/{name}"),
            Self::DeletePod(host, name) => write!(formatter, "delete pod h{host}/{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn one_seed_is_one_schedule() {
        assert_eq!(schedule(7, 4, HOUR), schedule(7, 4, HOUR));
        assert_ne!(schedule(7, 4, HOUR), schedule(8, 4, HOUR));
    }

    #[test]
    fn faults_come_in_order_and_in_time_and_in_every_kind() {
        let faults = schedule(1, 4, HOUR);
        assert!(faults.is_sorted_by_key(|fault| fault.at) && faults.iter().all(|fault| fault.at < HOUR));
        let kinds: BTreeSet<_> = faults.iter().map(|fault| fault.action.to_string()[..3].to_owned()).collect();
        let expected = ["add", "cut", "del", "hea", "kil", "los", "par", "pau", "res", "sta"];
        assert!(kinds.iter().eq(expected), "{kinds:?}");
    }

    #[test]
    fn half_of_the_hosts_live_and_move_and_only_these_are_asked_for_pods() {
        for seed in 0..50 {
            let mut scene = Scene::new(seed, 4);
            for fault in schedule(seed, 4, HOUR / 20) {
                match &fault.action {
                    Action::Kill(host) | Action::Pause(host) => assert!(scene.moves(*host), "{fault:?}"),
                    Action::Start(host) => assert!(scene.dead.contains(host), "{fault:?}"),
                    Action::Resume(host) => assert!(scene.frozen.contains(host), "{fault:?}"),
                    Action::AddPod(host, name) => {
                        assert!(scene.moves(*host) && !scene.pods.iter().any(|(_, pod)| pod == name), "{fault:?}");
                    }
                    Action::DeletePod(host, name) => {
                        assert!(scene.moves(*host) && scene.pods.contains(&(*host, name.clone())), "{fault:?}");
                    }
                    _ => {}
                }
                scene.note(&fault.action);
                assert!(scene.dead.len() + scene.frozen.len() <= 2, "{fault:?}");
            }
        }
    }

    #[test]
    fn a_host_alone_is_left_in_peace() {
        assert!(
            schedule(1, 1, HOUR)
                .iter()
                .all(|fault| { matches!(fault.action, Action::Loss(..) | Action::AddPod(..) | Action::DeletePod(..)) })
        );
    }
}
