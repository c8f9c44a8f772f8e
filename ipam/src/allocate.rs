//! Leasing and releasing addresses, and the requests that wait.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use meshwork_wire::record::PodKey;

use crate::decide::{Decision, Effect, Ipam, number_of};
use crate::durable::Change;
use crate::lease::{Lease, LeaseError, LeaseRequest};

/// Most requests that wait at once: several times the pods of the largest node. More are refused, not kept.
const MAX_WAITING: usize = 4096;

/// A request that could not be served yet.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) token: u64,
    pub(crate) request: LeaseRequest,
    pub(crate) deadline: Instant,
}

/// What can be done about a request now.
enum Attempt {
    /// This lease, recorded already.
    Known(Lease),
    /// This lease, to be recorded.
    Grant(Lease),
    /// Nothing yet.
    Wait,
    Refuse(LeaseError),
}

impl Ipam {
    pub(crate) fn request_lease(
        &mut self,
        token: u64,
        request: LeaseRequest,
        deadline: Instant,
        decision: &mut Decision,
    ) {
        match self.attempt(&request) {
            Attempt::Wait if self.waiting.len() >= MAX_WAITING => {
                let error = self.waiting_reason();
                decision.effects.push(Effect::Refused { token, error });
            }
            Attempt::Wait => {
                self.arrivals += 1;
                self.waiting.insert(self.arrivals, Waiting { token, request, deadline });
            }
            attempt => self.answer(token, attempt, decision),
        }
    }

    /// Serves the first waiting request that can be.
    pub(crate) fn serve_waiting(&mut self, decision: &mut Decision) {
        if !self.is_proven() || self.heard.current().is_none() {
            return;
        }
        let arrivals: Vec<u64> = self.waiting.keys().copied().collect();
        for arrival in arrivals {
            let attempt = self.waiting.get(&arrival).map(|waiting| (waiting.token, self.attempt(&waiting.request)));
            match attempt {
                None | Some((_, Attempt::Wait)) => {}
                Some((token, attempt)) => {
                    self.waiting.remove(&arrival);
                    self.answer(token, attempt, decision);
                }
            }
            if decision.is_durable() {
                return;
            }
        }
    }

    /// Refuses what waited too long.
    pub(crate) fn end_waiting(&mut self, decision: &mut Decision) {
        if self.waiting.values().all(|waiting| waiting.deadline > self.now) {
            return;
        }
        let error = self.waiting_reason();
        let now = self.now;
        self.waiting.retain(|_, waiting| {
            let ended = waiting.deadline <= now;
            if ended {
                decision.effects.push(Effect::Refused { token: waiting.token, error: error.clone() });
            }
            !ended
        });
    }

    pub(crate) fn release(&mut self, token: u64, sandbox: &str, interface: Option<&str>, decision: &mut Decision) {
        let named = |name: &PodKey| name.sandbox == sandbox && interface.is_none_or(|only| name.interface == only);
        self.waiting.retain(|_, waiting| {
            let released = named(&waiting.request.name());
            if released {
                decision.effects.push(Effect::Refused { token: waiting.token, error: LeaseError::Released });
            }
            !released
        });
        let from = PodKey { sandbox: sandbox.to_owned(), interface: String::new() };
        let of_sandbox = self.durable.leases.range(from..).take_while(|(name, _)| name.sandbox == sandbox);
        let leases: Vec<Lease> = of_sandbox.filter(|(name, _)| named(name)).map(|(_, lease)| lease.clone()).collect();
        self.free(&leases, decision);
        decision.effects.push(Effect::Released { token, leases });
    }

    pub(crate) fn release_unchanged(&self, token: u64, lease: Lease, decision: &mut Decision) {
        let stands = self.durable.leases.get(&lease.name) == Some(&lease);
        let leases = if stands { vec![lease] } else { Vec::new() };
        self.free(&leases, decision);
        decision.effects.push(Effect::Released { token, leases });
    }

    fn free(&self, leases: &[Lease], decision: &mut Decision) {
        let freed: Vec<IpAddr> = leases.iter().flat_map(|lease| lease.pod.addresses.iter().copied()).collect();
        for lease in leases {
            decision.changes.push(Change::DropLease(lease.name.clone()));
            if !lease.is_node() {
                decision.effects.push(Effect::WithdrawPod(lease.name.clone()));
            }
        }
        let (of4, of6) = freed.iter().copied().partition::<Vec<_>, _>(IpAddr::is_ipv4);
        let of4 = of4.into_iter().filter(|address| self.mine.owner(number_of(*address)) == Some(self.me));
        let mut sequence = self.durable.freed.keys().next_back().map_or(0, |last| last + 1);
        for (pool, addresses) in [(&self.pool4, of4.collect::<Vec<_>>()), (&self.pool6, of6)] {
            let overdue = pool.overdue(addresses.len());
            decision.changes.extend(overdue.into_iter().map(|sequence| Change::DropFreed { sequence }));
            for address in addresses {
                decision.changes.push(Change::PutFreed { sequence, address });
                sequence += 1;
            }
        }
    }

    fn answer(&self, token: u64, attempt: Attempt, decision: &mut Decision) {
        match attempt {
            Attempt::Wait => {}
            Attempt::Refuse(error) => decision.effects.push(Effect::Refused { token, error }),
            Attempt::Known(lease) => decision.effects.push(Effect::Granted { token, lease }),
            Attempt::Grant(lease) => self.grant(token, lease, decision),
        }
    }

    fn grant(&self, token: u64, lease: Lease, decision: &mut Decision) {
        for address in &lease.pod.addresses {
            let pool = if address.is_ipv4() { &self.pool4 } else { &self.pool6 };
            let place = pool.place(number_of(*address));
            decision.changes.extend(place.map(|sequence| Change::DropFreed { sequence }));
        }
        if self.is_pristine() {
            self.mark_used(decision);
        }
        decision.changes.push(Change::PutLease(lease.clone()));
        if !lease.is_node() {
            decision.effects.push(Effect::PublishPod(lease.name.clone(), lease.pod.clone()));
        }
        decision.effects.push(Effect::Granted { token, lease });
    }

    fn attempt(&self, request: &LeaseRequest) -> Attempt {
        if let Some(lease) = self.durable.leases.get(&request.name()) {
            return Self::attempt_again(request, lease);
        }
        if let Some(error) = request.wished.and_then(|address| self.objection(address)) {
            return Attempt::Refuse(error);
        }
        if !self.is_proven() || self.unsettled {
            return Attempt::Wait;
        }
        let free = request.wished.map_or_else(|| self.pool4.next().map(Ipv4Addr::from), |wished| self.if_free(wished));
        match (free, self.pool6.next()) {
            (None, _) => Attempt::Wait,
            (Some(_), None) => Attempt::Refuse(LeaseError::RangeExhausted {
                range: self.prefix6.to_string(),
                reason: "every IPv6 address of this node is in use".to_owned(),
            }),
            (Some(address4), Some(number6)) => {
                let address6 = Ipv6Addr::from(u128::from(self.prefix6.network()) | u128::from(number6));
                Attempt::Grant(request.lease(vec![address4.into(), address6.into()]))
            }
        }
    }

    /// The same sandbox and interface get the same lease; what is said of the pod may have changed.
    fn attempt_again(request: &LeaseRequest, lease: &Lease) -> Attempt {
        match (request.wished, lease.ipv4()) {
            (Some(address), Some(held)) if address != held => {
                let sandbox = request.sandbox.clone();
                Attempt::Refuse(LeaseError::SandboxHoldsOther { address, sandbox, held })
            }
            _ => {
                let again = request.lease(lease.pod.addresses.clone());
                if again == *lease { Attempt::Known(again) } else { Attempt::Grant(again) }
            }
        }
    }

    fn if_free(&self, address: Ipv4Addr) -> Option<Ipv4Addr> {
        self.pool4.is_free(address.into()).then_some(address)
    }

    /// Why a wished address can never be had here, however long one waits.
    fn objection(&self, address: Ipv4Addr) -> Option<LeaseError> {
        if self.is_reserved(address) {
            return Some(LeaseError::Reserved { address, range: self.config.range4 });
        }
        if let Some(PodKey { sandbox, interface }) = self.holders.get(&IpAddr::V4(address)).cloned() {
            return Some(LeaseError::AddressInUse { address, sandbox, interface });
        }
        let owner = self.view.owner(address.into()).filter(|owner| *owner != self.me)?;
        Some(LeaseError::OwnedElsewhere { address, owner })
    }
}
