//! TCP throughput between two namespaces, as iperf3 measures it.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::namespace::{Namespace, Running};

const START_DEADLINE: Duration = Duration::from_secs(10);

/// A listening iperf3.
#[derive(Debug)]
pub struct Iperf {
    _server: Running,
}

/// What arrived.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Throughput {
    /// Bits per second at the receiver.
    pub bits_per_second: f64,
    /// Bytes that arrived.
    pub bytes: f64,
}

#[derive(Deserialize)]
struct Report {
    end: End,
}

#[derive(Deserialize)]
struct End {
    sum_received: Sum,
}

#[derive(Deserialize)]
struct Sum {
    bits_per_second: f64,
    bytes: f64,
}

impl Iperf {
    /// Listens inside `namespace` until dropped.
    ///
    /// # Errors
    /// When iperf3 does not run.
    pub fn serve(namespace: &Namespace, log: &Path) -> Result<Self> {
        let mut server = namespace.spawn(["iperf3", "-s", "--forceflush"], log)?;
        server.wait_for("Server listening", START_DEADLINE)?;
        Ok(Self { _server: server })
    }

    /// Sends one TCP stream from inside `from` to a listener at `to` for `seconds`.
    ///
    /// # Errors
    /// When iperf3 fails or is not understood.
    pub fn send(from: &Namespace, to: IpAddr, seconds: u32) -> Result<Throughput> {
        let mut line: Vec<String> = ["iperf3", "-J", "--connect-timeout", "5000", "-c"].map(str::to_owned).into();
        line.extend([to.to_string(), "-t".into(), seconds.to_string()]);
        let printed = from.exec(line)?;
        let report: Report = serde_json::from_str(&printed).map_err(|error| Error::Unreadable {
            program: "iperf3",
            why: error.to_string(),
            output: printed,
        })?;
        let Sum { bits_per_second, bytes } = report.end.sum_received;
        Ok(Throughput { bits_per_second, bytes })
    }
}
