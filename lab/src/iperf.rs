//! TCP throughput between two namespaces, as iperf3 measures it.

use std::ffi::OsStr;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::namespace::{Namespace, Running};

/// Payload of a datagram: small, so that their number counts and not their size.
const DATAGRAM: u64 = 64;
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

/// What became of datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Datagrams {
    /// Sent.
    #[serde(rename = "packets")]
    pub sent: u64,
    /// Of those, the ones that never came to their reader; one that came late did come.
    #[serde(rename = "lost_packets")]
    pub lost: u64,
}

#[derive(Deserialize)]
struct Report<E> {
    end: E,
}

#[derive(Deserialize)]
struct DatagramEnd {
    sum: Datagrams,
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
        Self::send_streams(from, to, 1, seconds)
    }

    /// The same with several streams: what arrived in all of them.
    ///
    /// # Errors
    /// When iperf3 fails or is not understood.
    pub fn send_streams(from: &Namespace, to: IpAddr, streams: u32, seconds: u32) -> Result<Throughput> {
        let line = format!("iperf3 -J --connect-timeout 5000 -P {streams} -c {to} -t {seconds}");
        let Sum { bits_per_second, bytes } = report::<End>(from, line.split(' '))?.sum_received;
        Ok(Throughput { bits_per_second, bytes })
    }

    /// Sends datagrams of [`DATAGRAM`] bytes, `rate` a second for `seconds`.
    ///
    /// # Errors
    /// When iperf3 fails or is not understood.
    pub fn send_datagrams(from: &Namespace, to: IpAddr, rate: u64, seconds: u32) -> Result<Datagrams> {
        let bits = rate * DATAGRAM * 8;
        let line = format!("iperf3 -J -u --connect-timeout 5000 -l {DATAGRAM} -b {bits} -c {to} -t {seconds}");
        Ok(report::<DatagramEnd>(from, line.split(' '))?.sum)
    }

    /// Sends datagrams of [`DATAGRAM`] bytes as fast as iperf3 can.
    ///
    /// # Errors
    /// When iperf3 fails or is not understood.
    pub fn flood(from: &Namespace, to: IpAddr, seconds: u32) -> Result<Datagrams> {
        // To iperf3 a rate of 0 is none.
        Self::send_datagrams(from, to, 0, seconds)
    }
}

fn report<E: DeserializeOwned>(from: &Namespace, line: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<E> {
    let printed = from.exec(line)?;
    let report: Report<E> = serde_json::from_str(&printed).map_err(|error| Error::Unreadable {
        program: "iperf3",
        why: error.to_string(),
        output: printed,
    })?;
    Ok(report.end)
}
