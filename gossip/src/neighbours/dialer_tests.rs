//! Schedules, one promise per test.

use super::*;

const PEER: PeerId = PeerId([7; 16]);

type Dialer = super::Dialer<String>;
type TargetKey = super::TargetKey<String>;

fn target(text: &str) -> String {
    text.to_owned()
}

fn named(text: &str) -> TargetKey {
    TargetKey::Named(target(text))
}

fn endpoint() -> SocketAddr {
    "192.0.2.1:6783".parse().expect("an address")
}

fn nobody(_: PeerId) -> bool {
    false
}

fn due(dialer: &mut Dialer, now: Instant, linked: impl Fn(PeerId) -> bool) -> Vec<TargetKey> {
    dialer.due(now, linked).into_iter().map(|due| due.key).collect()
}

#[test]
fn a_new_target_is_dialled_at_once_and_once() {
    let (now, mut dialer) = (Instant::now(), Dialer::default());
    dialer.connect(now, target("a"));
    assert_eq!(due(&mut dialer, now, nobody), [named("a")]);
    assert_eq!(due(&mut dialer, now, nobody), []);
}

#[test]
fn failures_back_off_up_to_the_longest_wait() {
    let (mut now, mut dialer) = (Instant::now(), Dialer::default());
    dialer.connect(now, target("a"));
    let mut waits = Vec::new();
    for _ in 0..12 {
        assert_eq!(due(&mut dialer, now, nobody), [named("a")]);
        dialer.failed(now, &named("a"), "no answer", false, 0.5);
        let next = dialer.poll_timeout().expect("another attempt");
        waits.push(next - now);
        now = next;
    }
    assert_eq!(waits.first(), Some(&FIRST_BACKOFF));
    assert_eq!(waits.last(), Some(&LONGEST_BACKOFF));
    assert!(waits.is_sorted());
}

#[test]
fn who_is_alone_goes_on_trying_more_often() {
    let (mut now, mut dialer) = (Instant::now(), Dialer::default());
    dialer.connect(now, target("a"));
    for _ in 0..12 {
        assert_eq!(due(&mut dialer, now, nobody), [named("a")]);
        dialer.failed(now, &named("a"), "no answer", true, 1.0);
        let next = dialer.poll_timeout().expect("another attempt");
        assert!(next - now <= LONGEST_BACKOFF_ALONE.mul_f64(1.5));
        now = next;
    }
}

#[test]
fn a_linked_target_rests_until_the_link_is_gone() {
    let (now, mut dialer) = (Instant::now(), Dialer::default());
    dialer.connect(now, target("a"));
    due(&mut dialer, now, nobody);
    dialer.linked(now, Some(&named("a")), PEER);
    assert_eq!(dialer.poll_timeout(), None);
    let later = now + LASTING;
    dialer.unlinked(later, PEER, "reset", 0.5);
    assert_eq!(due(&mut dialer, later, nobody), [named("a")]);
}

#[test]
fn a_link_that_hardly_lasted_counts_as_a_failure() {
    let (mut now, mut dialer) = (Instant::now(), Dialer::default());
    dialer.connect(now, target("a"));
    let mut waits = Vec::new();
    for _ in 0..12 {
        assert_eq!(due(&mut dialer, now, nobody), [named("a")]);
        dialer.linked(now, Some(&named("a")), PEER);
        dialer.unlinked(now, PEER, "closed by the other side", 0.5);
        let next = dialer.poll_timeout().expect("another attempt");
        waits.push(next - now);
        now = next;
    }
    assert_eq!((waits.first(), waits.last()), (Some(&FIRST_BACKOFF), Some(&LONGEST_BACKOFF)));
}

#[test]
fn a_member_that_tells_of_anothers_address_keeps_nobody_from_dialling_it() {
    let (now, mut dialer) = (Instant::now(), Dialer::default());
    let liar = PeerId([0xff; 16]);
    let told = (now, vec![endpoint()]);
    dialer.discover(&BTreeMap::from([(PEER, told.clone()), (liar, told)]));
    dialer.linked(now, None, liar);
    assert_eq!(due(&mut dialer, now, |peer| peer == liar), [TargetKey::Endpoint(PEER, endpoint())]);
}

#[test]
fn members_are_dialled_only_while_wanted_and_without_a_link() {
    let (now, mut dialer) = (Instant::now(), Dialer::default());
    let wanted = BTreeMap::from([(PEER, (now, vec![endpoint()]))]);
    dialer.discover(&wanted);
    assert_eq!(due(&mut dialer, now, |peer| peer == PEER), []);
    let later = now + LASTING;
    dialer.unlinked(later, PEER, "gone", 0.5);
    assert_eq!(due(&mut dialer, later, nobody), [TargetKey::Endpoint(PEER, endpoint())]);
    dialer.discover(&BTreeMap::new());
    assert_eq!(dialer.status().count(), 0);
}

#[test]
fn a_crowd_of_members_is_dialled_a_few_at_a_time() {
    let (now, mut dialer) = (Instant::now(), Dialer::default());
    let crowd = (0..200).map(|number| (PeerId([number; 16]), (now, vec![endpoint()])));
    dialer.discover(&crowd.collect());
    let first = due(&mut dialer, now, nobody);
    assert_eq!((first.len(), dialer.poll_timeout()), (MOST_DIALLED, None));
    let later = now + LONGEST_BACKOFF;
    dialer.failed(now, &first[0], "no answer", false, 0.5);
    let next = due(&mut dialer, later, nobody);
    assert!(next.len() == 1 && !first.contains(&next[0]), "one that failed waits for the others");
}

#[test]
fn a_forgotten_target_and_oneself_are_never_dialled_again() {
    let (now, mut dialer) = (Instant::now(), Dialer::default());
    dialer.connect(now, target("a"));
    assert!(dialer.forget(&target("a")));
    assert!(!dialer.forget(&target("a")));
    dialer.connect(now, target("b"));
    due(&mut dialer, now, nobody);
    dialer.ourselves(now, &named("b"));
    assert_eq!(dialer.poll_timeout(), None);
}

#[test]
fn who_is_sent_elsewhere_is_no_failure_and_calls_again_much_later() {
    let (mut now, mut dialer) = (Instant::now(), Dialer::default());
    dialer.connect(now, target("a"));
    let mut waits = Vec::new();
    for round in 0..8 {
        assert_eq!(dialer.due(now, nobody), [Due { key: named("a"), insists: round > 0 }]);
        dialer.elsewhere(now, &named("a"), PEER, "full", false, 0.5);
        let next = dialer.poll_timeout().expect("another attempt");
        waits.push(next - now);
        now = next;
    }
    assert_eq!((waits.first(), waits.last()), (Some(&ELSEWHERE), Some(&LONGEST_ELSEWHERE)));
    assert!(dialer.names(PEER));
    dialer.linked(now, None, PEER);
    assert_eq!(dialer.poll_timeout(), None, "the link came about from the other side");
}

#[test]
fn whom_a_full_node_names_is_dialled_once_and_no_more_than_a_few_are() {
    let (now, mut dialer) = (Instant::now(), Dialer::default());
    let members = |from: u8, to: u8| (from..to).map(|number| (PeerId([number; 16]), vec![endpoint()])).collect();
    dialer.refer(now, members(0, 4));
    let named = due(&mut dialer, now, nobody);
    assert_eq!(named.len(), 4);
    assert!(!dialer.failed(now, &named[0], "no answer", false, 0.5));
    dialer.elsewhere(now, &named[1], PEER, "full", true, 0.5);
    dialer.refer(now, members(0, 4));
    assert_eq!(due(&mut dialer, now, nobody), []);
    dialer.refer(now, members(4, 200));
    assert_eq!(due(&mut dialer, now, nobody).len(), MOST_REFERRED - 4);
    dialer.linked(now, Some(&named[2]), PeerId([2; 16]));
    assert_eq!(dialer.status().count(), 1, "with a link the mesh tells of its members");
    dialer.discover(&BTreeMap::new());
}

#[test]
fn a_member_that_can_be_reached_again_is_dialled_at_once() {
    let (now, mut dialer) = (Instant::now(), Dialer::default());
    dialer.discover(&BTreeMap::from([(PEER, (now, vec![endpoint()]))]));
    for _ in 0..8 {
        let at = dialer.poll_timeout().expect("another attempt");
        due(&mut dialer, at, nobody);
        dialer.failed(at, &TargetKey::Endpoint(PEER, endpoint()), "no answer", false, 0.5);
    }
    dialer.revive(now, PEER);
    assert_eq!(due(&mut dialer, now, nobody).len(), 1);
}

#[test]
fn a_target_whose_link_was_given_up_is_called_again_much_later() {
    let (now, mut dialer, full) = (Instant::now(), Dialer::default(), PEER);
    dialer.connect(now, target("a"));
    assert_eq!(dialer.due(now, nobody).len(), 1);
    dialer.linked(now, Some(&named("a")), full);
    dialer.given_up(now, PeerId([8; 16]), 0.5);
    assert_eq!(dialer.poll_timeout(), None, "another peer's link");
    dialer.given_up(now, full, 0.5);
    assert_eq!(dialer.leads_to(&named("a")), Some(full));
    let again = dialer.poll_timeout().expect("it is not forgotten");
    assert!(again >= now + Duration::from_secs(60));
    assert_eq!(dialer.due(again, nobody), [Due { key: named("a"), insists: true }]);
}
