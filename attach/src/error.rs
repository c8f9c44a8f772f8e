//! Why a link was not made.

use std::path::PathBuf;

use meshwork_api::client::ClientError;

/// Why a link was not made, or is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The daemon could not be asked, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The namespace given by the caller cannot be used.
    #[error("the pod's network namespace {} cannot be used: {why}", path.display())]
    Namespace {
        /// As given.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The pod has another link of the wished name.
    #[error("the pod has an interface {interface} already, which is not ours: choose another name")]
    Taken {
        /// The name.
        interface: String,
    },
    /// The daemon gave a lease that no link can be made of.
    #[error("meshd gave an unusable lease ({0}); are both sides of one version?")]
    BadLease(String),
    /// The kernel refused.
    #[error("cannot {what}: {source}")]
    Kernel {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: meshwork_sys::Error,
    },
    /// An existing link is not as its lease says.
    #[error("the pod's link is not as it was made: {0}; detach and attach it again")]
    Wrong(String),
    /// The daemon cannot be asked for an address alone.
    #[error("{0}")]
    NotReady(&'static str),
    /// Some leases could not be released.
    #[error("not everything could be released: {}", .0.join(", "))]
    Garbage(Vec<String>),
    /// The link was not made, and not everything made on the way could be removed.
    #[error("{cause}; left behind: {}", left.join(", "))]
    Undone {
        /// The first error.
        cause: Box<Self>,
        /// What could not be undone, and why.
        left: Vec<String>,
    },
}

/// Names what was tried when the kernel refuses.
pub(crate) trait Tried<T> {
    fn tried(self, what: &'static str) -> Result<T, AttachError>;
}

impl<T> Tried<T> for Result<T, meshwork_sys::Error> {
    fn tried(self, what: &'static str) -> Result<T, AttachError> {
        self.map_err(|source| AttachError::Kernel { what, source })
    }
}
