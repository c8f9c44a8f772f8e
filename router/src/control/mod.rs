//! Control links: QUIC connections to other routers, admitted by the mutual proof of the mesh secret.
//!
//! [`ControlEndpoint`] dials and accepts; each link becomes a task ([`link`]) that turns frames into [`LinkEvent`]s for
//! the node's one actor and takes frames from it. Nothing received on a connection is believed, and no event is sent,
//! before both sides proved the secret. [`dialer`] decides, without IO, whom to dial and when.

mod callers;
mod carry;
#[doc(hidden)]
pub mod decoders;
pub mod dialer;
mod endpoint;
mod framing;
mod link;
mod pace;
mod referral;
mod reset;
mod socket;
mod tls;
mod twin;

pub use callers::RefusedCaller;
pub use endpoint::{ControlEndpoint, EndpointError};
pub use link::{Answer, Direction, Knock, LinkError, LinkEvent, LinkId, LinkSender, Outgoing};
pub use referral::{MOST_REFERRED_ENDPOINTS, Referral};
pub use socket::{ControlQueue, QueueSink};
pub use tls::TlsError;
pub use twin::{Evidence, Run, Tag};
