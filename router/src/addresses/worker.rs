//! The thread: decide, make durable, apply, let out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use meshwork_ipam::{Decision, Effect, Input, Ipam, Lease, LeaseError, LeaseRequest};
use meshwork_state::{NodeState, StateError};
use meshwork_wire::Incarnation;
use tokio::sync::{mpsc, oneshot};

use super::{AddressEvent, RememberError, View};

/// Longest sleep without a timer.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

pub(super) enum Request {
    Input(Input),
    Lease { request: LeaseRequest, deadline: Instant, reply: oneshot::Sender<Result<Lease, LeaseError>> },
    Release { sandbox: String, interface: Option<String>, reply: oneshot::Sender<Result<Vec<Lease>, LeaseError>> },
    ReleaseUnchanged { lease: Lease, reply: oneshot::Sender<Result<Vec<Lease>, LeaseError>> },
    CatchUp { incarnation: Incarnation, former: Input },
    Above(Incarnation),
    Target { target: String, remember: bool, reply: oneshot::Sender<Result<(), RememberError>> },
    Exposed { exposed: bool, reply: oneshot::Sender<Result<(), RememberError>> },
}

/// Whoever waits under a token.
enum Reply {
    Lease(oneshot::Sender<Result<Lease, LeaseError>>),
    Release(oneshot::Sender<Result<Vec<Lease>, LeaseError>>),
}

pub(super) struct Worker {
    ipam: Ipam,
    state: NodeState,
    events: mpsc::UnboundedSender<AddressEvent>,
    view: Arc<ArcSwap<View>>,
    replies: BTreeMap<u64, Reply>,
    next_token: u64,
}

/// Ownership and leases as they stand.
pub(super) fn view(ipam: &Ipam) -> View {
    View { status: ipam.status(), ownership: ipam.ownership(), leases: ipam.leases().cloned().collect() }
}

impl Worker {
    pub(super) fn new(
        ipam: Ipam,
        state: NodeState,
        events: mpsc::UnboundedSender<AddressEvent>,
        view: Arc<ArcSwap<View>>,
    ) -> Self {
        Self { ipam, state, events, view, replies: BTreeMap::new(), next_token: 0 }
    }

    /// Runs until every handle is gone.
    pub(super) fn run(mut self, requests: &Receiver<Request>) {
        self.decide(Input::Started);
        self.tell(AddressEvent::Begun);
        loop {
            let now = Instant::now();
            let wake = self.ipam.poll_timeout().unwrap_or(now + LONGEST_SLEEP);
            match requests.recv_timeout(wake.saturating_duration_since(now).min(LONGEST_SLEEP)) {
                Ok(request) => self.request(request),
                Err(RecvTimeoutError::Timeout) => self.decide(Input::Tick),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn request(&mut self, request: Request) {
        match request {
            Request::Input(input) => self.decide(input),
            Request::Lease { request, deadline, reply } => {
                let token = self.token(Reply::Lease(reply));
                self.decide(Input::Lease { token, request, deadline });
            }
            Request::Release { sandbox, interface, reply } => {
                let token = self.token(Reply::Release(reply));
                self.decide(Input::Release { token, sandbox, interface });
            }
            Request::ReleaseUnchanged { lease, reply } => {
                let token = self.token(Reply::Release(reply));
                self.decide(Input::ReleaseUnchanged { token, lease });
            }
            Request::CatchUp { incarnation, former } => self.catch_up(incarnation, former),
            Request::Above(incarnation) => self.go_on_above(incarnation),
            Request::Target { target, remember, reply } => {
                // Whoever asked may have gone away.
                let _ = reply.send(self.remember_target(target, remember).map_err(RememberError::from));
            }
            Request::Exposed { exposed, reply } => {
                let _ = reply.send(self.state.set_exposed(exposed).map_err(RememberError::from));
            }
        }
    }

    /// Makes the disk as late as what others know of this node. Only a run that begins with it may go on.
    fn catch_up(&mut self, incarnation: Incarnation, former: Input) {
        let decision = self.ipam.decide(Instant::now(), &mut crate::random::fill, former);
        match self.state.catch_up(incarnation, &decision.changes) {
            Ok(()) => {
                self.follow(decision, Ok(()));
                self.tell(AddressEvent::CaughtUp(incarnation));
            }
            // The next run is told again.
            Err(error) => self.tell(AddressEvent::Lost(error)),
        }
    }

    /// The next start has to count above this run.
    fn go_on_above(&mut self, incarnation: Incarnation) {
        match self.state.catch_up(incarnation, &[]) {
            Ok(()) => {
                self.decide(Input::Above(incarnation));
                self.tell(AddressEvent::Above(incarnation));
            }
            Err(error) => self.tell(AddressEvent::Lost(error)),
        }
    }

    fn remember_target(&self, target: String, remember: bool) -> Result<(), StateError> {
        let mut targets = self.state.targets()?;
        targets.retain(|known| *known != target);
        targets.extend(remember.then_some(target));
        targets.sort();
        self.state.set_targets(&targets)
    }

    fn token(&mut self, reply: Reply) -> u64 {
        self.next_token += 1;
        self.replies.insert(self.next_token, reply);
        self.next_token
    }

    fn decide(&mut self, input: Input) {
        self.cancel_abandoned();
        let decision = self.ipam.decide(Instant::now(), &mut crate::random::fill, input);
        self.carry_out(decision);
    }

    /// Requests whose caller went away wait for nothing.
    fn cancel_abandoned(&mut self) {
        let gone = |(token, reply): (&u64, &Reply)| {
            matches!(reply, Reply::Lease(reply) if reply.is_closed()).then_some(*token)
        };
        let gone: Vec<u64> = self.replies.iter().filter_map(gone).collect();
        for token in gone {
            self.replies.remove(&token);
            let decision = self.ipam.decide(Instant::now(), &mut crate::random::fill, Input::Cancel { token });
            self.carry_out(decision);
        }
    }

    fn carry_out(&mut self, decision: Decision) {
        let committed = match decision.changes.as_slice() {
            [] => Ok(()),
            changes => self.state.commit(changes),
        };
        self.follow(decision, committed);
    }

    /// Applies what is on disk, or takes back what is not.
    fn follow(&mut self, decision: Decision, committed: Result<(), StateError>) {
        let effects = match committed {
            Ok(()) => {
                self.ipam.apply(&decision.changes);
                decision.effects
            }
            Err(error) => {
                tracing::error!(%error, "a change of addresses could not be recorded");
                let effects = self.ipam.abandon(&decision, &error.to_string());
                if let StateError::Uncertain { .. } = error {
                    self.tell(AddressEvent::Lost(error));
                }
                effects
            }
        };
        self.show();
        for effect in effects {
            self.let_out(effect);
        }
    }

    /// Puts the new view in place before anyone hears of what changed.
    fn show(&self) {
        let (new, old) = (view(&self.ipam), self.view.load());
        if new.status != old.status || new.ownership != old.ownership || new.leases != old.leases {
            self.view.store(Arc::new(new));
            self.tell(AddressEvent::ViewChanged);
        }
    }

    fn let_out(&mut self, effect: Effect) {
        match effect {
            // The view is compared as a whole.
            Effect::OwnershipChanged => {}
            Effect::Granted { token, lease } => self.reply_lease(token, Ok(lease)),
            Effect::Released { token, leases } => self.reply_release(token, Ok(leases)),
            Effect::Refused { token, error } => match self.replies.get(&token) {
                Some(Reply::Release(_)) => self.reply_release(token, Err(error)),
                _ => self.reply_lease(token, Err(error)),
            },
            told => self.tell(AddressEvent::Effect(told)),
        }
    }

    fn reply_lease(&mut self, token: u64, answer: Result<Lease, LeaseError>) {
        if let Some(Reply::Lease(reply)) = self.replies.remove(&token) {
            // Whoever asked may have gone away.
            let _ = reply.send(answer);
        }
    }

    fn reply_release(&mut self, token: u64, answer: Result<Vec<Lease>, LeaseError>) {
        if let Some(Reply::Release(reply)) = self.replies.remove(&token) {
            let _ = reply.send(answer);
        }
    }

    /// The actor is gone only when the process ends.
    fn tell(&self, event: AddressEvent) {
        let _ = self.events.send(event);
    }
}
