//! Frees the leases of sandboxes that are gone: a runtime that crashed, or a machine that booted, sends no DEL.
//!
//! [`judge`] decides from what one look at the system found; here is the looking, at start and every [`LOOK_EVERY`],
//! and the freeing. A lease that changed since it was looked at is left alone.

mod judge;

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use meshwork_ipam::{BootId, Lease, LeaseError, SeenNamespace};
use meshwork_sys::netlink::Netlink;
use meshwork_sys::netns::{NetNs, NetNsId};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use self::judge::{Found, Judge, Reason, Seen};
use crate::addresses::{Allocator, View};
use crate::node::{NodeHandle, host_interface};

/// Between two looks: one list of links and one open file per lease. Addresses are not scarce within seconds, and three
/// looks still free a crashed runtime's pods before it is back.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Looks for as long as the daemon runs.
pub async fn reconcile(allocator: Allocator, node: NodeHandle) {
    let mut judge = Judge::new(boot());
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let view = allocator.view();
        let seen = match spawn_blocking(move || look(&view)).await {
            Ok(Ok(seen)) => seen,
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot look for sandboxes that are gone");
                continue;
            }
            // The runtime ends.
            Err(_) => return,
        };
        for (lease, reason) in judge.look(seen) {
            free(&allocator, &node, lease, reason).await;
        }
    }
}

/// The namespace at `path`, as this node sees it now.
pub async fn see(path: String) -> Option<SeenNamespace> {
    let look = move || match (find(&path), boot()) {
        (Found::Namespace(NetNsId { dev: device, inode }), Some(boot)) => Some(SeenNamespace { device, inode, boot }),
        _ => None,
    };
    spawn_blocking(look).await.ok().flatten()
}

fn look(view: &Arc<View>) -> meshwork_sys::Result<Vec<Seen>> {
    let links: BTreeSet<String> = Netlink::connect()?.links()?.into_iter().map(|link| link.name).collect();
    let seen = |lease: &Lease| Seen {
        found: find(&lease.netns),
        linked: links.contains(&host_interface(lease)),
        lease: lease.clone(),
    };
    Ok(view.leases.iter().filter(|lease| !lease.is_node()).map(seen).collect())
}

fn find(path: &str) -> Found {
    match NetNs::open(path).and_then(|namespace| namespace.identity()) {
        Ok(identity) => Found::Namespace(identity),
        Err(error) if error.is_not_found() || matches!(error, meshwork_sys::Error::Invalid { .. }) => Found::Nothing,
        Err(_) => Found::Unclear,
    }
}

/// This boot of the machine: a UUID in hex digits and dashes.
fn boot() -> Option<BootId> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    u128::from_str_radix(&text.trim().replace('-', ""), 16).ok().map(u128::to_be_bytes)
}

async fn free(allocator: &Allocator, node: &NodeHandle, lease: Lease, reason: Reason) {
    let (judged, name) = (lease.clone(), lease.name.clone());
    if node.ask(move |node| node.retire_unchanged(&judged, reason.to_string())).await.is_err() {
        return;
    }
    match allocator.release_unchanged(lease).await {
        Ok(freed) => freed.iter().for_each(|lease| tell(lease, reason)),
        // The next look finds it gone again.
        Err(error @ LeaseError::Storage(_)) => tracing::warn!(%error, "the lease of a sandbox that is gone stays"),
        Err(error) => tracing::error!(%error, "the lease of a sandbox that is gone stays"),
    }
    // The actor is gone only when the process ends.
    let _ = node.ask(move |node| node.retired(&name)).await;
}

fn tell(lease: &Lease, reason: Reason) {
    let (name, addresses) = (&lease.name, &lease.pod.addresses);
    tracing::info!(sandbox = name.sandbox, interface = name.interface, ?addresses, %reason, "freed a lease whose sandbox is gone");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_to_a_namespace_or_to_nothing() {
        assert!(matches!(find("/proc/self/ns/net"), Found::Namespace(_)));
        for path in ["/nonexistent", "/etc/passwd", "", "/etc/passwd/x"] {
            let found = find(path);
            assert!(matches!(found, Found::Nothing | Found::Unclear), "{path}: {found:?}");
        }
        assert_eq!(find("/nonexistent"), Found::Nothing);
    }

    #[test]
    fn this_boot_has_a_name() {
        assert!(boot().is_some_and(|boot| boot != [0; 16]));
    }
}
