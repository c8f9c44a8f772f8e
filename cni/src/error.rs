//! Errors as the specification wants them: JSON on standard output, exit code 1.

use meshwork_api::client::ClientError;
use meshwork_attach::AttachError;
use serde::Serialize;

/// Codes of the specification, and those of our own from 100 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    IncompatibleVersion = 1,
    UnsupportedField = 2,
    UnknownContainer = 3,
    InvalidEnvironment = 4,
    Io = 5,
    Decode = 6,
    InvalidConfig = 7,
    TryAgainLater = 11,
    /// STATUS: ADD cannot be served.
    Unavailable = 50,
    /// STATUS: ADD cannot be served, and pods that run already reach less than they should.
    LimitedConnectivity = 51,
    /// `meshd` refused for good.
    Refused = 100,
    /// The kernel refused, or the pod's link is not as it should be.
    Link = 101,
    /// Some garbage could not be collected.
    Garbage = 102,
}

/// What went wrong: `msg` in a few words, `details` with what to do.
#[derive(Debug, thiserror::Error)]
#[error("{msg}: {details}")]
pub(crate) struct CniError {
    pub(crate) code: Code,
    pub(crate) msg: &'static str,
    pub(crate) details: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    cni_version: &'a str,
    code: u32,
    msg: &'a str,
    details: &'a str,
}

impl CniError {
    pub(crate) fn new(code: Code, msg: &'static str, details: impl Into<String>) -> Self {
        Self { code, msg, details: details.into() }
    }

    /// The JSON for standard output.
    pub(crate) fn to_json(&self, version: &str) -> String {
        let body = Body { cni_version: version, code: self.code as u32, msg: self.msg, details: &self.details };
        serde_json::to_string(&body).unwrap_or_else(|_| format!(r#"{{"code":{}}}"#, self.code as u32))
    }
}

impl From<ClientError> for CniError {
    fn from(error: ClientError) -> Self {
        let details = error.to_string();
        match error {
            ClientError::Unreachable { .. } => Self::new(Code::TryAgainLater, "meshd is not reachable", details),
            // 5xx: it waits for its ring, for space or for the kernel.
            ClientError::Api { status: 500.., .. } => Self::new(Code::TryAgainLater, "meshd is not ready", details),
            ClientError::Api { .. } => Self::new(Code::Refused, "meshd refused", details),
            ClientError::Protocol { .. } => Self::new(Code::Refused, "meshd is not understood", details),
        }
    }
}

impl From<AttachError> for CniError {
    fn from(error: AttachError) -> Self {
        let details = error.to_string();
        match error {
            AttachError::Client(error) => Self::from(error),
            AttachError::Namespace { .. } => Self::new(Code::InvalidEnvironment, "CNI_NETNS cannot be used", details),
            AttachError::Taken { .. } => Self::new(Code::InvalidEnvironment, "CNI_IFNAME is taken", details),
            AttachError::Undone { cause, .. } => Self { details, ..Self::from(*cause) },
            AttachError::NotReady(_) => Self::new(Code::TryAgainLater, "meshd is not ready", details),
            AttachError::Garbage(_) => Self::new(Code::Garbage, "garbage is left", details),
            AttachError::BadLease(_) => Self::new(Code::Refused, "meshd is not understood", details),
            AttachError::Kernel { .. } | AttachError::Wrong(_) => {
                Self::new(Code::Link, "the pod's link failed", details)
            }
        }
    }
}
