//! Control links between two endpoints on loopback.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use meshwork_gossip::neighbours::Caller;
use meshwork_identity::admission::Refused;
use meshwork_identity::{Identity, Secret, Secrets};
use meshwork_router::config::Target;
use meshwork_router::control::dialer::TargetKey;
use meshwork_router::control::{
    Answer, ControlEndpoint, ControlQueue, LinkError, LinkEvent, LinkSender, Outgoing, QueueSink, Referral, Run,
};
use meshwork_sys::udp::{ReceiveBatch, UdpSocket};
use meshwork_tunnel::ControlSink;
use meshwork_wire::{Incarnation, PeerId};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

struct Side {
    identity: Identity,
    endpoint: ControlEndpoint,
    events: mpsc::Receiver<LinkEvent>,
    host: Host,
}

/// What outlives a daemon: its port, and whoever reads from it.
#[derive(Clone)]
struct Host {
    socket: Arc<UdpSocket>,
    reader: Arc<Mutex<Arc<ControlQueue>>>,
}

impl Side {
    fn new(seed: u8, secret: u8) -> Self {
        Self::on(Host::new(), seed, secret)
    }

    fn on(host: Host, seed: u8, secret: u8) -> Self {
        Self::run(host, seed, secret, Run::begin(Incarnation(1)))
    }

    fn run(host: Host, seed: u8, secret: u8, run: Run) -> Self {
        Self::answering(host, seed, secret, run, || Answer::Welcome)
    }

    fn answering(host: Host, seed: u8, secret: u8, run: Run, answer: fn() -> Answer) -> Self {
        let identity = Identity::from_seed([seed; 32]);
        let (socket, queue) = (Arc::clone(&host.socket), Arc::new(ControlQueue::default()));
        *host.reader.lock().expect("no reader panicked") = Arc::clone(&queue);
        let (sender, raw) = mpsc::channel(16);
        let events = Self::doorman(raw, answer);
        let endpoint = ControlEndpoint::start(&identity, run, secrets(secret), &[seed; 32], socket, queue, sender)
            .expect("started");
        Self { identity, endpoint, events, host }
    }

    fn dial(&self, other: &Self) {
        let address = other.host.socket.local_address();
        let target = Target { host: address.ip().to_string(), port: address.port() };
        self.endpoint.dial(TargetKey::Named(target), Caller::default());
    }

    async fn event(&mut self) -> LinkEvent {
        timeout(PATIENCE, self.events.recv()).await.expect("in time").expect("an event")
    }

    /// Answers callers like a node's actor, and passes on everything else.
    fn doorman(mut raw: mpsc::Receiver<LinkEvent>, answer: fn() -> Answer) -> mpsc::Receiver<LinkEvent> {
        let (sender, events) = mpsc::channel(16);
        tokio::spawn(async move {
            while let Some(event) = raw.recv().await {
                match event {
                    LinkEvent::Knock(knock) => drop(knock.reply.send(answer())),
                    other => sender.send(other).await.expect("the test goes on"),
                }
            }
        });
        events
    }

    async fn link(&mut self) -> LinkSender {
        match self.event().await {
            LinkEvent::Up(link) => *link,
            other => panic!("{other:?}"),
        }
    }
}

fn secrets(byte: u8) -> Secrets {
    Secrets::new(vec![Secret::generate([byte; 32])]).expect("one secret")
}

impl Host {
    /// Reading stands in for the tunnel's inbound thread: it looks again after a moment, and lives as long as the
    /// process.
    fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
        let host = Self { socket: Arc::new(socket), reader: Arc::default() };
        let reading = host.clone();
        std::thread::spawn(move || reading.feed());
        host
    }

    fn feed(&self) {
        let mut batch = ReceiveBatch::new(8);
        while let Ok(arrived) = self.socket.receive(&mut batch) {
            if arrived == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            let mut sink = QueueSink(Arc::clone(&self.reader.lock().expect("nobody panicked")));
            for arrival in batch.arrivals() {
                let (from, to) = (arrival.from, arrival.to);
                arrival.bytes.chunks(arrival.segment_size).for_each(|datagram| sink.datagram(datagram, from, to));
            }
        }
    }
}

#[tokio::test]
async fn who_dials_with_another_secret_learns_why_it_is_refused() {
    let (mut one, other) = (Side::new(1, 1), Side::new(2, 9));
    one.dial(&other);
    let LinkEvent::DialFailed(_, error) = one.event().await else { panic!("a stranger was admitted") };
    assert!(error.to_string().contains("does not know our secret"), "{error}");
    assert_eq!((one.endpoint.refused(), other.endpoint.refused()), ((1, 0), (1, 0)));
    let callers = other.endpoint.refused_callers();
    assert!(callers.len() == 1 && callers[0].reason.contains("secret"), "{callers:?}");
    assert_eq!(callers[0].address, one.host.socket.local_address());
}

#[tokio::test]
async fn both_ends_keep_the_same_of_two_links_dialled_from_one_side() {
    let (mut one, mut other) = (Side::new(1, 1), Side::new(2, 1));
    for _ in 0..4 {
        one.dial(&other);
        one.dial(&other);
        let ours = (one.link().await, one.link().await);
        let theirs = (other.link().await, other.link().await);
        let drops = |(first, second): &(LinkSender, LinkSender), me: &Side| {
            let me = me.identity.peer_id();
            assert_ne!(first.outranks(second, me), second.outranks(first, me));
            if first.outranks(second, me) { second.id } else { first.id }
        };
        let (dropped_here, dropped_there) = (drops(&ours, &one), drops(&theirs, &other));
        let loser = if ours.0.id == dropped_here { &ours.0 } else { &ours.1 };
        loser.close(0);
        let LinkEvent::Down(id, _) = other.event().await else { panic!("no other link ends") };
        assert_eq!(id, dropped_there);
        assert!(matches!(one.event().await, LinkEvent::Down(id, _) if id == dropped_here));
        ours.0.close(0);
        ours.1.close(0);
        one.event().await;
        other.event().await;
    }
}

#[tokio::test]
async fn changed_secrets_disown_links_of_the_old_ones() {
    let (mut one, other) = (Side::new(1, 1), Side::new(2, 1));
    one.dial(&other);
    let link = one.link().await;
    assert!(one.endpoint.accepts(link.key_id));
    one.endpoint.set_secrets(secrets(2));
    assert!(!one.endpoint.accepts(link.key_id));
}

/// Kills one side without a word, starts it anew under another secret, and tells how the other side's link ended.
async fn end_of_link_to_a_killed_side(killed_dials: bool) -> (String, Duration) {
    let killed_runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (host, mut survivor) = (Host::new(), Side::new(2, 1));
    let mut killed = {
        let _inside = killed_runtime.enter();
        Side::on(host.clone(), 1, 1)
    };
    if killed_dials {
        killed.dial(&survivor);
    } else {
        survivor.dial(&killed);
    }
    let (_theirs, link) = (killed.link().await, survivor.link().await);
    killed_runtime.shutdown_background();

    let _next = Side::on(host, 1, 9);
    let started = std::time::Instant::now();
    assert!(link.send(Outgoing { frame: vec![7; 64], reliable: true }));
    match survivor.event().await {
        LinkEvent::Down(_, reason) => (reason.to_string(), started.elapsed()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_node_that_was_killed_and_started_anew_ends_the_links_of_its_former_self_at_once() {
    for killed_dials in [false, true] {
        let (reason, took) = end_of_link_to_a_killed_side(killed_dials).await;
        assert_eq!(reason, "the other side restarted");
        assert!(took < Duration::from_secs(3), "it took {took:?}");
    }
}

#[tokio::test]
async fn of_two_processes_of_one_identity_the_later_one_learns_that_it_has_to_end() {
    let begun = Run::begin(Incarnation(1));
    let earlier = Run { started: begun.started - Duration::from_secs(1), number: begun.number ^ 1, ..begun };
    for later_dials in [true, false] {
        let mut one = Side::run(Host::new(), 1, 1, earlier);
        let mut other = Side::run(Host::new(), 1, 1, begun);
        let address = one.host.socket.local_address();
        if later_dials {
            other.dial(&one);
            let LinkEvent::DialFailed(_, error) = other.event().await else { panic!("a copy was admitted") };
            assert_eq!(error.to_string(), format!("identity in use at {address}"));
        } else {
            one.dial(&other);
            assert!(matches!(other.event().await, LinkEvent::IdentityInUse(found) if found == address));
            assert!(matches!(one.event().await, LinkEvent::DialFailed(_, LinkError::Copied(_))));
        }
    }
}

#[tokio::test]
async fn a_node_that_dials_itself_is_no_copy_of_itself() {
    let mut one = Side::new(1, 1);
    let target = one.host.socket.local_address();
    one.endpoint
        .dial(TargetKey::Named(Target { host: target.ip().to_string(), port: target.port() }), Caller::default());
    assert!(matches!(one.event().await, LinkEvent::DialFailed(_, LinkError::Refused(Refused::OwnIdentity))));
    assert_eq!(one.endpoint.refused_callers(), []);
}

#[tokio::test]
async fn a_full_node_names_others_and_neither_side_takes_that_for_a_failure() {
    let referral = || Referral(vec![(PeerId([7; 16]), vec!["192.0.2.1:6783".parse().expect("an address")])]);
    let full = || Answer::Elsewhere(Referral(vec![(PeerId([7; 16]), vec![([192, 0, 2, 1], 6783).into()])]));
    let (mut one, other) = (Side::new(1, 1), Side::answering(Host::new(), 2, 1, Run::begin(Incarnation(1)), full));
    one.dial(&other);
    let LinkEvent::DialFailed(_, LinkError::Elsewhere { by, referral: named }) = one.event().await else {
        panic!("it was let in")
    };
    assert_eq!((by, named), (other.identity.peer_id(), referral()));
    assert_eq!((one.endpoint.refused(), other.endpoint.refused()), ((0, 0), (0, 0)));
    assert_eq!(other.endpoint.refused_callers(), []);
}
