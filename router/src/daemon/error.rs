//! Why the daemon does not run, and with which exit code it says so.

use std::net::SocketAddr;
use std::path::PathBuf;

use meshwork_state::{SecretFileError, StateError};
use meshwork_sys::tun::TunError;
use meshwork_sys::udp::BindError;

use crate::api::socket::SocketError;
use crate::config::ConfigError;
use crate::node::Lost;

/// Why the daemon does not run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The operator's settings.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The log filter.
    #[error("--log: {0}; use error, warn, info, debug, trace or module=level,…")]
    Log(String),
    /// Secret files.
    #[error(transparent)]
    Secret(#[from] SecretFileError),
    /// A node that is to join has nothing to join with.
    #[error(
        "--peer is given but there is no secret at {0}: copy the file from a node of the mesh, or name one with --secret-file"
    )]
    NoSecret(PathBuf),
    /// The overlay would cut off what the host uses.
    #[error("{0}: choose another --ipam-range, the same on every node, or take away what is there")]
    Overlap(String),
    /// Privileges.
    #[error("missing capability {}: run as root, or grant it", .0.join(", "))]
    Capability(Vec<String>),
    /// A feature of the kernel.
    #[error("{0}")]
    Kernel(#[from] meshwork_sys::Error),
    /// The TUN device.
    #[error(transparent)]
    Tun(#[from] TunError),
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The node ran, and cannot go on.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// What the state directory holds does not fit the settings.
    #[error(transparent)]
    Restore(#[from] meshwork_ipam::RestoreError),
    /// The UDP port.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The metrics port.
    #[error("cannot listen at {address} for metrics: {source}; free it or give another --metrics-listen")]
    Metrics {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The control socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// QUIC.
    #[error(transparent)]
    Control(#[from] crate::control::EndpointError),
    /// The tunnel's threads.
    #[error(transparent)]
    Tunnel(#[from] meshwork_tunnel::TunnelError),
    /// Threads, descriptors, signals.
    #[error("the system refuses a thread, descriptor or signal: {0}; check its limits")]
    System(#[from] std::io::Error),
}

impl StartError {
    /// 2 for settings, 3 for privileges and kernel features, 4 for an identity in use elsewhere, 1 for the rest.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Tun(TunError::Busy(_)) => 1,
            Self::Config(_)
            | Self::Log(_)
            | Self::Secret(_)
            | Self::NoSecret(_)
            | Self::Overlap(_)
            | Self::Restore(_) => 2,
            Self::Capability(_) | Self::Kernel(_) | Self::Tun(_) => 3,
            Self::Lost(Lost::IdentityInUse(_)) => 4,
            _ => 1,
        }
    }
}
