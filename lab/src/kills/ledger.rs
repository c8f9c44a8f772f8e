//! What runtimes were told: the model that everything is compared with.
//!
//! A sandbox is noted before anything is asked for it and forgotten after the last answer, and no sandbox comes twice. So
//! one that lives at the beginning and at the end of a look lived all through it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::cni::Sandbox;
use crate::error::{Error, Result};
use crate::kills::Figures;

/// A pod whose attachment was answered with success, and for which nothing was asked since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Living {
    pub(super) sandbox: Sandbox,
    pub(super) addresses: Vec<IpAddr>,
}

/// Living pods by sandbox.
pub(super) type Pods = BTreeMap<String, Living>;

/// Shared by all who ask.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    living: Pods,
    figures: Figures,
}

impl Ledger {
    /// An attachment succeeded. Nobody else who lives may have its addresses.
    pub(super) fn added(&self, sandbox: &Sandbox, addresses: Vec<IpAddr>) -> Result<()> {
        let mut book = self.book();
        book.figures.added += 1;
        let holder = |living: &&Living| living.addresses.iter().any(|address| addresses.contains(address));
        if let Some(other) = book.living.values().find(holder) {
            let (one, other) = (&sandbox.id, &other.sandbox.id);
            return Err(Error::Unproven(format!("{one} was given {addresses:?}, of which {other} has some")));
        }
        book.living.insert(sandbox.id.clone(), Living { sandbox: sandbox.clone(), addresses });
        Ok(())
    }

    /// An attachment failed: nothing was promised.
    pub(super) fn refused(&self) {
        self.book().figures.refused += 1;
    }

    /// From now on a sandbox is being detached: nothing of it has to be there any more.
    pub(super) fn leaving(&self, sandbox: &Sandbox) {
        self.book().living.remove(&sandbox.id);
    }

    /// A detachment succeeded.
    pub(super) fn deleted(&self) {
        self.book().figures.deleted += 1;
    }

    /// A detachment failed and will be asked for again.
    pub(super) fn repeated(&self) {
        self.book().figures.repeated += 1;
    }

    /// The living were looked after.
    pub(super) fn audited(&self) {
        self.book().figures.audits += 1;
    }

    /// Who lives now.
    pub(super) fn living(&self) -> Pods {
        self.book().living.clone()
    }

    /// Everything counted here and elsewhere.
    pub(super) fn count(&self, elsewhere: Figures) -> Figures {
        let Figures { kills, longest_silence, .. } = elsewhere;
        Figures { kills, longest_silence, ..self.book().figures }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Every entry is whole by itself.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(id: &str) -> Sandbox {
        Sandbox { id: id.to_owned(), name: id.to_owned(), netns: "/run/netns/none".into() }
    }

    #[test]
    fn an_address_is_free_once_its_pod_is_leaving() {
        let (ledger, address) = (Ledger::default(), vec![IpAddr::from([10, 32, 0, 2])]);
        ledger.added(&sandbox("one"), address.clone()).unwrap();
        let twice = ledger.added(&sandbox("two"), address.clone()).unwrap_err().to_string();
        assert!(twice.contains("of which one has some"), "{twice}");
        ledger.leaving(&sandbox("one"));
        ledger.added(&sandbox("three"), address).unwrap();
        assert!(ledger.living().keys().eq(["three"]));
    }
}
