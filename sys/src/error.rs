//! The one error of this crate: what was tried, who refused it, why, and what to look at next.
//!
//! The helpers ask what a caller decides on (is it absent, is it there already, may we do this at all) so that nobody
//! outside this crate matches on errno values.

use std::io;

/// The result of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something the kernel was asked for did not happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel said no. `detail` is the kernel's own sentence, where it gave one (netlink's extended acknowledgement).
    #[error("the kernel refused to {operation}: {source}{}{}", clause(detail.as_deref()), clause(advice(source)))]
    Refused {
        /// What was tried, as it reads after "refused to".
        operation: String,
        /// The errno.
        source: io::Error,
        /// The kernel's explanation beyond the errno.
        detail: Option<String>,
    },
    /// The kernel did not answer a request in time.
    #[error(
        "the kernel did not answer within {seconds} s when asked to {operation}; it is overloaded or a lock hangs, see dmesg"
    )]
    NoAnswer {
        /// What was tried.
        operation: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The kernel's answer does not follow its own format.
    #[error(
        "the kernel's answer to the request to {operation} cannot be read ({reason}); report it with the kernel's version"
    )]
    Malformed {
        /// What was tried.
        operation: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The caller's argument can never work.
    #[error("{value:?} is no usable {what}: {reason}")]
    Invalid {
        /// What the value stands for.
        what: &'static str,
        /// The value.
        value: String,
        /// The rule it breaks.
        reason: &'static str,
    },
    /// The `nft` program is not there.
    #[error(
        "the program `nft` could not be started ({source}); install nftables 1.0 or newer, or put `nft` on the PATH"
    )]
    NftMissing {
        /// Why it did not start.
        source: io::Error,
    },
    /// The `nft` program rejected what it was given; nothing of it has been applied.
    #[error("nft refused to {operation}, nothing was changed: {stderr}")]
    NftRefused {
        /// What was tried.
        operation: String,
        /// What nft wrote, at most a few lines.
        stderr: String,
    },
}

impl Error {
    /// The kernel's refusal of `operation` ("open /dev/net/tun").
    pub fn refused(operation: impl Into<String>, source: io::Error) -> Self {
        Self::Refused { operation: operation.into(), source, detail: None }
    }

    /// The refusal that the last system call of this thread left in errno.
    pub fn last_os_error(operation: impl Into<String>) -> Self {
        Self::refused(operation, io::Error::last_os_error())
    }

    /// An argument that breaks a rule.
    pub fn invalid(what: &'static str, value: impl Into<String>, reason: &'static str) -> Self {
        Self::Invalid { what, value: value.into(), reason }
    }

    /// The errno of the kernel's refusal, also of one that came through `nft`.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } => source.raw_os_error(),
            Self::NftRefused { stderr, .. } => errno_in(stderr),
            _ => None,
        }
    }

    /// What was named does not exist: an object, an interface, an address or a process.
    pub fn is_not_found(&self) -> bool {
        matches!(self.errno(), Some(libc::ENOENT | libc::ESRCH | libc::ENODEV | libc::ENXIO | libc::EADDRNOTAVAIL))
    }

    /// What was to be made exists already.
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }

    /// The privilege is missing.
    pub fn is_permission(&self) -> bool {
        matches!(self.errno(), Some(libc::EPERM | libc::EACCES))
    }

    /// The kernel was built without this, or the device cannot do it.
    pub fn is_unsupported(&self) -> bool {
        matches!(self.errno(), Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT | libc::ENOSYS))
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Refused { source, .. } | Error::NftMissing { source } => source.kind(),
            Error::NoAnswer { .. } => io::ErrorKind::TimedOut,
            Error::Malformed { .. } => io::ErrorKind::InvalidData,
            Error::Invalid { .. } => io::ErrorKind::InvalidInput,
            Error::NftRefused { .. } => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

fn clause(text: Option<&str>) -> String {
    text.map_or_else(String::new, |text| format!("; {text}"))
}

/// nft prints the errno's text, in English because we start it so.
fn errno_in(complaint: &str) -> Option<i32> {
    let texts = [
        ("No such file or directory", libc::ENOENT),
        ("File exists", libc::EEXIST),
        ("Operation not permitted", libc::EPERM),
        ("Operation not supported", libc::EOPNOTSUPP),
    ];
    texts.into_iter().find(|(text, _)| complaint.contains(text)).map(|(_, errno)| errno)
}

/// What an operator should look at, for the refusals whose errno text alone misleads.
fn advice(source: &io::Error) -> Option<&'static str> {
    Some(match source.raw_os_error()? {
        libc::EPERM | libc::EACCES => "run as root, or with CAP_NET_ADMIN, and CAP_SYS_ADMIN for namespaces",
        libc::ENODEV | libc::ENXIO => "the interface is gone or is in another network namespace",
        libc::ENETDOWN => "the interface is down or has no carrier",
        libc::ENETUNREACH => "the gateway cannot be reached through any route of this network namespace",
        libc::EOPNOTSUPP | libc::EAFNOSUPPORT => "this kernel lacks the feature or its module, or IPv6 is disabled",
        libc::EROFS => "/proc/sys is mounted read-only in this container",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(errno: i32, detail: Option<&str>) -> Error {
        let source = io::Error::from_raw_os_error(errno);
        Error::Refused { operation: "add route 10.0.0.0/8".into(), source, detail: detail.map(Into::into) }
    }

    #[test]
    fn a_refusal_tells_what_why_and_what_to_check() {
        let text = refusal(libc::ENETDOWN, Some("Nexthop device is not up")).to_string();
        assert_eq!(
            text,
            "the kernel refused to add route 10.0.0.0/8: Network is down (os error 100); Nexthop device is not up; \
             the interface is down or has no carrier"
        );
    }

    #[test]
    fn questions_answer_by_errno() {
        assert!(refusal(libc::ESRCH, None).is_not_found());
        assert!(refusal(libc::EEXIST, None).is_exists());
        assert!(refusal(libc::EPERM, None).is_permission());
        assert!(refusal(libc::EOPNOTSUPP, None).is_unsupported());
        assert!(!Error::invalid("interface name", "", "it is empty").is_not_found());
        assert!(!Error::NftMissing { source: io::ErrorKind::NotFound.into() }.is_not_found());
        let stderr = "Error: No such file or directory\nlist table inet x".into();
        assert!(Error::NftRefused { operation: "list table inet x".into(), stderr }.is_not_found());
    }

    #[test]
    fn an_io_error_keeps_kind_and_text() {
        let error = io::Error::from(refusal(libc::EPERM, None));
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("add route"));
    }
}
