//! What tests need that feed the control API with foreign requests; nothing else does.

use meshwork_api::model::LeaseRequest;

use super::{pods, streams};

/// The request that `body` is, if it may be carried out.
#[must_use]
pub fn lease_request(body: &[u8]) -> Option<LeaseRequest> {
    let request = serde_json::from_slice(body).ok()?;
    pods::check(&request).ok()?;
    Some(request)
}

/// Whether a query asks for a stream.
#[must_use]
pub fn watches(query: &str) -> bool {
    streams::watches(Some(query))
}
