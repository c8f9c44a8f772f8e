//! Error answers: a stable code, what happened, what to do next.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use meshwork_api::model::{ErrorBody, ErrorDetail};
use meshwork_ipam::LeaseError;

use crate::kernel::driver::KernelError;
use crate::node::{NameError, NodeGone};

/// An error on its way to the client.
pub(super) struct ApiError {
    status: StatusCode,
    detail: ErrorDetail,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, code: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { status, detail: ErrorDetail { code: code.to_owned(), message: message.into(), hint: hint.into() } }
    }

    pub(super) fn bad_request(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message, hint)
    }

    pub(super) fn not_found(code: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message, hint)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(ErrorBody { error: self.detail })).into_response()
    }
}

impl From<NodeGone> for ApiError {
    fn from(NodeGone: NodeGone) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "shutting_down",
            "the daemon is shutting down",
            "try again when it is back",
        )
    }
}

impl From<NameError> for ApiError {
    fn from(error: NameError) -> Self {
        const HINT: &str = "give a name or an id of `meshctl peers`";
        match error {
            NameError::Unknown(_) => Self::not_found("unknown_peer", error.to_string(), HINT),
            NameError::Ambiguous { .. } => Self::new(StatusCode::CONFLICT, "ambiguous_peer", error.to_string(), HINT),
        }
    }
}

impl From<KernelError> for ApiError {
    fn from(error: KernelError) -> Self {
        let (status, code, hint) = match &error {
            KernelError::NoLink(_) => (
                StatusCode::CONFLICT,
                "no_link",
                "run this in the network namespace of meshd, where the link has to be made before the lease is confirmed",
            ),
            KernelError::Kernel(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "kernel", "see the daemon's log and the kernel's (dmesg)")
            }
            KernelError::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "shutting_down", "try again when it is back"),
        };
        Self::new(status, code, error.to_string(), hint)
    }
}

impl From<LeaseError> for ApiError {
    fn from(error: LeaseError) -> Self {
        let status = match &error {
            LeaseError::AddressInUse { .. }
            | LeaseError::SandboxHoldsOther { .. }
            | LeaseError::OwnedElsewhere { .. } => StatusCode::CONFLICT,
            LeaseError::Reserved { .. } => StatusCode::BAD_REQUEST,
            LeaseError::Storage(_) => StatusCode::INSUFFICIENT_STORAGE,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        let hint = "see `meshctl ipam` on this node";
        Self::new(status, error.code(), error.to_string(), hint)
    }
}
