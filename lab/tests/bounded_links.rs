//! In a mesh of twenty-one hosts no node has a link to everyone, and nobody notices. Witness is `ping`; links are asked of
//! the daemons.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails at that line")]

use std::thread;
use std::time::{Duration, Instant};

use meshwork_api::model::{Connection, ConnectionState, Connections, PeerState, Peers};
use meshwork_lab::{Builder, Host, Lab, Look, Pod, eventually};

const HOSTS: u16 = 21;
/// Links that a node takes unless an operator asked for more.
const MOST_LINKS: usize = 16;
/// They begin from h1, and fill it.
const FILLING: std::ops::RangeInclusive<u16> = 2..=17;
/// They begin from others.
const MORE: std::ops::RangeInclusive<u16> = 18..=20;
const NEWCOMER: u16 = 21;
const KILLED: [u16; 5] = [3, 7, 11, 15, 19];

const DEADLINE: Duration = Duration::from_secs(30);

#[test]
fn a_mesh_of_bounded_links_carries_everyone_through_failures_and_full_nodes() {
    let lab = builder().without_daemons().unwrap();
    let begun = Instant::now();
    let told = |what: &str| println!("{:5.1} s  {what}", begun.elapsed().as_secs_f64());

    (1..=1).chain(FILLING).for_each(|host| lab.host(host).start().unwrap());
    sees(&lab, lab.host(1), FILLING.count());
    MORE.for_each(|host| lab.host(host).start().unwrap());
    lab.hosts()[..20].iter().for_each(|host| sees(&lab, host, 19));
    told("twenty hosts are one mesh");
    assert_eq!(links(lab.host(1)).len(), MOST_LINKS, "h1 is full of those who begin from it");

    a_newcomer_is_sent_elsewhere_and_gets_in(&lab);
    told("the newcomer got in");
    lab.wait_until_ready(DEADLINE).unwrap();
    lab.hosts().iter().for_each(comes_to_have_room);

    let pods: Vec<Pod> = lab.hosts().iter().map(|host| host.pod("p").unwrap()).collect();
    all_reach_all(&pods);
    told("all pods reach each other");

    KILLED.iter().for_each(|host| lab.host(*host).kill().unwrap());
    let rest: Vec<&Host> = lab.hosts().iter().filter(|host| !KILLED.contains(&host.number().get())).collect();
    rest.iter().for_each(|host| sees(&lab, host, rest.len() - 1));
    told("five are gone, and everyone knows");
    KILLED.iter().for_each(|host| lab.host(*host).start().unwrap());
    lab.wait_until_ready(DEADLINE).unwrap();
    told("five are back");
    lab.hosts().iter().for_each(|host| sees_run(host, 2, KILLED.len()));
    told("everyone knows");
    lab.hosts().iter().for_each(comes_to_have_room);
    all_reach_all(&pods);
    told("all pods reach each other again");
}

fn builder() -> Builder {
    let mut builder = Lab::build("boundedlinks").unwrap().hosts(HOSTS);
    for (host, from) in MORE.zip(2..) {
        builder = builder.begins(host, &["--peer", &format!("198.18.0.{}", from * 4 + 2)]);
    }
    builder
}

fn connections(host: &Host) -> Vec<Connection> {
    host.get::<Connections>("/v1/connections").unwrap().connections
}

fn links(host: &Host) -> Vec<Connection> {
    connections(host).into_iter().filter(|link| link.state == ConnectionState::Established).collect()
}

/// Waits until a host sees so many others alive, and no more.
fn sees(lab: &Lab, host: &Host, others: usize) {
    eventually(DEADLINE, &format!("{} of {} to see {others} others", host.number(), lab.name()), || {
        let peers = host.get::<Peers>("/v1/peers").map(|peers| peers.peers).unwrap_or_default();
        let alive = peers.iter().filter(|peer| !peer.is_self && peer.state == PeerState::Alive).count();
        Ok(if alive == others { Look::Done(()) } else { Look::Missing(format!("it sees {alive}")) })
    })
    .unwrap();
}

/// Waits until a host knows of so many members that they are in this run of theirs: what is said of a member before that
/// is of an earlier one, to which its packets still go.
fn sees_run(host: &Host, run: u64, members: usize) {
    eventually(DEADLINE, &format!("{} to know who began anew", host.number()), || {
        let peers = host.get::<Peers>("/v1/peers").map(|peers| peers.peers).unwrap_or_default();
        let known = peers.iter().filter(|peer| peer.incarnation == run && peer.state == PeerState::Alive).count();
        Ok(if known == members { Look::Done(()) } else { Look::Missing(format!("it knows {known}")) })
    })
    .unwrap();
}

fn a_newcomer_is_sent_elsewhere_and_gets_in(lab: &Lab) {
    let newcomer = lab.host(NEWCOMER);
    newcomer.start().unwrap();
    sees(lab, newcomer, 20);
    eventually(DEADLINE, "enough links of the newcomer", || {
        let count = links(newcomer).len();
        Ok(if count >= 6 { Look::Done(()) } else { Look::Missing(format!("it has {count}")) })
    })
    .unwrap();
    let sent: Vec<Connection> =
        connections(newcomer).into_iter().filter(|link| link.state == ConnectionState::Redirected).collect();
    assert!(
        sent.len() == 1 && sent[0].reason.contains("has as many links as it carries") && sent[0].retry_in_s.is_some(),
        "{sent:?}"
    );
    assert_eq!(links(lab.host(1)).len(), MOST_LINKS);
}

/// Links that no operator asked for are at most as many as a node takes, at every moment, and soon there are enough: fewer
/// are made while a mesh grows.
fn comes_to_have_room(host: &Host) {
    eventually(DEADLINE, &format!("enough links of {}", host.number()), || {
        let links = links(host);
        let asked = |link: &&Connection| !link.targets.is_empty() || link.reason.contains("told to");
        let unasked = links.iter().filter(|link| !asked(link)).count();
        assert!(links.len() < HOSTS as usize - 1 && unasked <= MOST_LINKS, "{}: {links:?}", host.number());
        Ok(if links.len() >= 6 { Look::Done(()) } else { Look::Missing(format!("it has {}", links.len())) })
    })
    .unwrap();
}

/// Both families.
fn all_reach_all(pods: &[Pod]) {
    let silent: Vec<String> = thread::scope(|scope| {
        let askers: Vec<_> = pods.iter().map(|from| scope.spawn(|| unreached(from, pods))).collect();
        askers.into_iter().flat_map(|asker| asker.join().unwrap()).collect()
    });
    assert!(silent.is_empty(), "no answer: {silent:?}");
}

fn unreached(from: &Pod, pods: &[Pod]) -> Vec<String> {
    let others = pods.iter().filter(|to| to.sandbox() != from.sandbox());
    let addresses = others.flat_map(|to| to.addresses().to_vec());
    let silent = addresses.filter(|address| from.ping(*address).unwrap().received == 0);
    silent.map(|address| format!("{} to {address}", from.sandbox().id)).collect()
}
