//! The node's own overlay address, and what the operator or a pod's link changes at run time.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use meshwork_api::event::{Happening, LeaseRef};
use meshwork_identity::Secrets;
use meshwork_ipam::{Lease, LeaseRequest, NODE_SANDBOX};
use meshwork_wire::PeerId;
use meshwork_wire::record::PodKey;

use super::chronicle::shortened;
use super::{Node, NodeHandle, host_interface};
use crate::addresses::Allocator;
use crate::config::Target;
use crate::control::dialer::TargetKey;
use crate::kernel::TUN_NAME;
use crate::kernel::driver::KernelError;

/// How long one request for the node's own address waits before its reason is logged and it is asked again.
const OWN_ADDRESS_DEADLINE: Duration = Duration::from_secs(60);

/// Leases the node's own address, however long that takes: until then the node carries nothing.
pub async fn lease_own_address(allocator: Allocator, node: NodeHandle) {
    let request =
        LeaseRequest { sandbox: NODE_SANDBOX.to_owned(), interface: TUN_NAME.to_owned(), ..LeaseRequest::default() };
    loop {
        match allocator.lease(request.clone(), OWN_ADDRESS_DEADLINE).await {
            Ok(lease) => {
                // The actor is gone only when the process ends.
                let _ = node.ask(move |node| node.own_address(lease.pod.addresses)).await;
                return;
            }
            Err(error) => tracing::warn!(%error, "still without an overlay address of this node's own"),
        }
    }
}

impl Node {
    fn own_address(&mut self, addresses: Vec<IpAddr>) {
        tracing::info!(?addresses, "overlay addresses of this node");
        if self.own != addresses {
            let lease = LeaseRef {
                sandbox: NODE_SANDBOX.to_owned(),
                interface: TUN_NAME.to_owned(),
                addresses: addresses.clone(),
            };
            let listed = addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" ");
            let reason = format!("{listed}: the node's own");
            self.chronicle.record(Happening::LeaseGranted(lease), &self.parts.config.nickname, &reason);
        }
        self.own = addresses;
        self.stale.addresses();
    }

    /// Counts a pod's link as made and asks the kernel to route it. Asked for here, so that two confirmations reach the
    /// kernel in the order in which their states were computed.
    pub fn confirm(&mut self, link: &str) -> impl Future<Output = Result<(), KernelError>> + use<> {
        self.confirmed.insert(link.to_owned());
        self.parts.kernel.route_pod(link.to_owned(), self.overlay())
    }

    /// The kernel routes a link that was confirmed.
    pub fn routed(&mut self) {
        self.chronicle.addresses_changed();
    }

    /// Counts the links of a sandbox, or of one of its interfaces, as gone; answers their names.
    pub fn retire(&mut self, sandbox: &str, interface: Option<&str>) -> Vec<String> {
        let leases = self.leases().into_iter().filter(|lease| lease.sandbox == sandbox);
        let leases = leases.filter(|lease| interface.is_none_or(|interface| lease.interface == interface));
        let links: Vec<String> = leases.map(|lease| lease.host_interface).collect();
        links.iter().for_each(|link| self.unconfirm(link));
        links
    }

    /// Counts the link of a lease as gone for the reason why the lease is about to go, unless the lease changed.
    pub fn retire_unchanged(&mut self, lease: &Lease, reason: String) {
        if self.parts.allocator.view().leases.contains(lease) {
            self.chronicle.going(&lease.name, reason);
            self.unconfirm(&host_interface(lease));
        }
    }

    /// A lease that was about to go has gone, or stays.
    pub fn retired(&mut self, name: &PodKey) {
        self.tell_leases();
        self.chronicle.gone(name);
    }

    /// Counts a pod's link as gone.
    pub fn unconfirm(&mut self, link: &str) {
        if self.confirmed.remove(link) {
            self.stale.addresses();
            self.chronicle.addresses_changed();
        }
    }

    /// Lets others reach the host at the node's own addresses, or no longer. Answers those addresses and what to wait for
    /// until the kernel does so.
    pub fn expose(&mut self, exposed: bool) -> (Vec<IpAddr>, impl Future<Output = Result<(), KernelError>> + use<>) {
        if self.exposed != exposed {
            self.exposed = exposed;
            let (happening, reason) = match exposed {
                true => (Happening::Exposed, "`meshctl expose`: others may reach the host at its overlay addresses"),
                false => {
                    (Happening::Hidden, "`meshctl hide`: new connections from the overlay to the host are refused")
                }
            };
            self.chronicle.record(happening, &self.parts.config.nickname, reason);
        }
        (self.own.clone(), self.parts.kernel.put(self.overlay()))
    }

    /// Adds a target.
    pub fn connect(&mut self, target: Target) {
        let (name, key) = (shortened(&target.to_string()), TargetKey::Named(target.clone()));
        if self.dialer.status().all(|known| known.key != key) {
            let reason = "`meshctl connect`: it is dialled from now on, after a restart as well";
            self.chronicle.record(Happening::TargetAdded { target: name.clone() }, &name, reason);
        }
        self.dialer.connect(Instant::now(), target);
    }

    /// Takes a target away; false where there was none.
    pub fn forget(&mut self, target: &Target) -> bool {
        let known = self.dialer.forget(target);
        if known {
            let name = shortened(&target.to_string());
            let reason = "`meshctl forget`: it is no longer dialled; a link that it led to stays";
            self.chronicle.record(Happening::TargetForgotten { target: name.clone() }, &name, reason);
        }
        known
    }

    /// Tells that the operator had packets to a peer sealed, or no longer has.
    pub(super) fn record_seal(&self, peer: PeerId, sealed: bool) {
        let (happening, reason) = match sealed {
            true => (Happening::Sealed { peer }, "`meshctl seal`: packets to it are sealed, whatever both sides allow"),
            false => (Happening::Unsealed { peer }, "`meshctl unseal`: what both sides allow decides again"),
        };
        self.record_of(peer, happening, reason);
    }

    /// Remembers that the secret files are of no use.
    pub fn secrets_refused(&self, reason: &str) {
        self.chronicle.record(Happening::SecretsRefused, "secrets", reason);
    }

    /// Puts other secrets in force. Links admitted under one that is no longer accepted end.
    pub fn set_secrets(&mut self, secrets: Secrets) {
        self.parts.control.set_secrets(secrets.clone());
        self.clear.set_secrets(&secrets);
        self.parts.tunnel.set_secrets(secrets);
        self.chronicle.record(Happening::SecretsReread, "secrets", "told to by SIGHUP; the files are in force");
        for link in self.links.values().map(|link| &link.sender).chain(self.newcomers.links()) {
            if !self.parts.control.accepts(link.key_id) {
                link.close(0);
            }
        }
    }
}
