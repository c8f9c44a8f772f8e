//! Sandbox ids for namespaces that no container runtime named.

use std::path::Path;

use meshwork_sys::netns::NetNs;

use crate::error::AttachError;

/// Every id of [`sandbox_of`] begins with it, so that leases made by hand are told from those of a runtime.
pub const SANDBOX_PREFIX: &str = "netns-";

/// The id of a namespace itself: `netns-DEVICE-INODE`, both decimal. It is the same whatever path leads to the
/// namespace, and the kernel may use it again once the namespace is gone.
///
/// # Errors
/// [`AttachError::Namespace`] where there is no network namespace.
pub fn sandbox_of(netns: &Path) -> Result<String, AttachError> {
    let identity = open(netns)?.identity().map_err(|error| refused(netns, error.to_string()))?;
    Ok(format!("{SANDBOX_PREFIX}{}-{}", identity.dev, identity.inode))
}

/// Opens the namespace of a pod: any but the one we are in, whose links are the node's own.
pub(crate) fn open_pod(netns: &Path) -> Result<NetNs, AttachError> {
    let pod = open(netns)?;
    let same = NetNs::current().and_then(|own| Ok(own.identity()? == pod.identity()?));
    match same {
        Ok(false) => Ok(pod),
        Ok(true) => Err(refused(netns, "it is the node's own, not a pod's".to_owned())),
        Err(error) => Err(refused(netns, error.to_string())),
    }
}

fn open(netns: &Path) -> Result<NetNs, AttachError> {
    NetNs::open(netns).map_err(|error| refused(netns, error.to_string()))
}

fn refused(path: &Path, why: String) -> AttachError {
    AttachError::Namespace { path: path.to_owned(), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_namespace_has_one_id_by_every_path() {
        let id = sandbox_of(Path::new("/proc/self/ns/net")).unwrap();
        assert_eq!(sandbox_of(Path::new("/proc/thread-self/ns/net")).unwrap(), id);
        assert!(id.starts_with(SANDBOX_PREFIX));
    }

    #[test]
    fn the_nodes_own_namespace_and_plain_files_are_no_pods() {
        assert!(matches!(open_pod(Path::new("/proc/self/ns/net")), Err(AttachError::Namespace { .. })));
        assert!(matches!(sandbox_of(Path::new("/etc/passwd")), Err(AttachError::Namespace { .. })));
        assert!(matches!(sandbox_of(Path::new("/nonexistent")), Err(AttachError::Namespace { .. })));
    }
}
