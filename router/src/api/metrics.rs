//! Metrics for Prometheus, and health for whoever restarts us.

use std::fmt::Write;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use meshwork_api::model::{Path, Paths, Status};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::slots::Slots;
use crate::node::{NodeGone, NodeHandle};

/// Scrapers and probes at once: a few of each, and room for people.
const CONNECTIONS: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PathLabel {
    kind: &'static str,
    direction: &'static str,
}

/// Answers `/metrics`, `/healthz` and `/readyz` until told to stop.
pub async fn serve(listener: TcpListener, node: NodeHandle, mut stop: watch::Receiver<bool>) -> std::io::Result<()> {
    let stopped = async move {
        // An error means that whoever would stop us is gone.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(node);
    axum::serve(Slots::new(listener, CONNECTIONS), router).with_graceful_shutdown(stopped).await
}

/// Binds the address, saying which setting it is when it is taken.
///
/// # Errors
/// What the system says.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// The actor answers: the process lives.
async fn healthz(State(node): State<NodeHandle>) -> Response {
    match node.ask(|_| ()).await {
        Ok(()) => (StatusCode::OK, "alive\n").into_response(),
        Err(gone) => (StatusCode::SERVICE_UNAVAILABLE, format!("{gone}\n")).into_response(),
    }
}

/// Kernel objects are in place and addresses can be handed out; the body says what is missing.
async fn readyz(State(node): State<NodeHandle>) -> Response {
    match node.ask(|node| node.status()).await {
        Ok(Status { ready: true, .. }) => (StatusCode::OK, "ready\n").into_response(),
        Ok(status) => {
            let mut body = String::from("not ready\n");
            for reason in status.reasons {
                writeln!(body, "{reason}").expect("writing to a string cannot fail");
            }
            (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
        }
        Err(gone) => (StatusCode::SERVICE_UNAVAILABLE, format!("{gone}\n")).into_response(),
    }
}

async fn metrics(State(node): State<NodeHandle>) -> Response {
    let gathered: Result<(Status, Paths), NodeGone> = node.ask(|node| (node.status(), node.paths())).await;
    let Ok((status, paths)) = gathered else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let mut text = String::new();
    match encode(&mut text, &registry(&status, &paths)) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// One moment as metrics. The node counts for itself; this only gives the counts their names.
fn registry(status: &Status, paths: &Paths) -> Registry {
    let mut registry = Registry::with_prefix("meshwork");

    let build: Family<[(&str, String); 1], Gauge> = Family::default();
    build.get_or_create(&[("version", status.version.clone())]).set(1);
    registry.register("build_info", "The build, as a label", build);

    let peers = Family::<StateLabel, Gauge>::default();
    for (state, count) in &status.peers {
        peers.get_or_create(&StateLabel { state: word(state) }).set(gauge(*count as u64));
    }
    registry.register("peers", "Members of the mesh by state, this node included", peers);

    let connections = Family::<StateLabel, Gauge>::default();
    for (state, count) in &status.connections {
        connections.get_or_create(&StateLabel { state: word(state) }).set(gauge(*count as u64));
    }
    registry.register("connections", "Control links, and targets without one, by state", connections);

    let drops = Family::<ReasonLabel, Counter>::default();
    for (reason, count) in &status.drops {
        drops.get_or_create(&ReasonLabel { reason: reason.clone() }).inc_by(*count);
    }
    registry.register("drops", "Packets, frames and links refused, by reason", drops);

    let bytes = Family::<PathLabel, Counter>::default();
    let total = |bytes: fn(&Path) -> u64| paths.paths.iter().map(bytes).sum::<u64>();
    for (kind, direction, count) in [
        ("direct", "sent", total(|path| path.sent_bytes)),
        ("direct", "received", total(|path| path.received_bytes)),
        ("vxlan", "sent", paths.clear.sent_bytes),
        ("vxlan", "received", paths.clear.received_bytes),
    ] {
        bytes.get_or_create(&PathLabel { kind, direction }).inc_by(count);
    }
    registry.register("path_bytes", "Bytes of pod packets carried, by kind of path", bytes);

    let blocked: Counter = Counter::default();
    blocked.inc_by(status.clear_blocked_packets);
    registry.register("clear_blocked_packets", "Overlay packets kept from travelling in clear", blocked);

    let addresses = Family::<StateLabel, Gauge>::default();
    for (state, count) in [("owned", status.ipam.owned), ("allocated", status.ipam.allocated)] {
        addresses.get_or_create(&StateLabel { state: state.to_owned() }).set(gauge(count));
    }
    registry.register("ipam_addresses", "IPv4 addresses of this node by state", addresses);
    registry
}

fn gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A state as the API writes it.
fn word<T: serde::Serialize>(state: &T) -> String {
    match serde_json::to_value(state) {
        Ok(serde_json::Value::String(word)) => word,
        _ => "unknown".to_owned(),
    }
}
