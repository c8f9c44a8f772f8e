//! Routes of the control API.

use std::time::Instant;

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use meshwork_api::model::{
    API_VERSION, Connections, Done, Exposure, Ipam, LogFilter, Paths, Peers, Seal, Status, Target as TargetModel,
    VersionInfo,
};
use meshwork_identity::admission;
use tokio::net::UnixListener;
use tokio::sync::watch;

use super::errors::ApiError;
use super::{Services, pods, streams};
use crate::addresses::RememberError;
use crate::config::Target;

/// A request's body as JSON, or an error in our own form.
pub(super) type Body<T> = Result<Json<T>, JsonRejection>;

/// Largest request body: a pod with all the labels that Kubernetes allows.
const BODY_LIMIT: usize = 256 * 1024;

/// Answers on the socket until told to stop.
pub async fn serve(listener: UnixListener, services: Services, mut stop: watch::Receiver<bool>) -> std::io::Result<()> {
    let stopped = async move {
        // An error means that whoever would stop us is gone.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    axum::serve(listener, router(services)).with_graceful_shutdown(stopped).await
}

fn router(services: Services) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/peers", get(peers))
        .route("/v1/connections", get(connections))
        .route("/v1/paths", get(paths))
        .route("/v1/ipam", get(ipam))
        .route("/v1/version", get(version))
        .route("/v1/events", get(streams::events))
        .route("/v1/connect", post(connect))
        .route("/v1/forget", post(forget))
        .route("/v1/seal", post(seal))
        .route("/v1/log", post(log))
        .route("/v1/expose", post(expose))
        .route("/v1/hide", post(hide))
        .route("/v1/pods", get(streams::pods).post(pods::lease))
        .route("/v1/pods/confirm", post(pods::confirm))
        .route("/v1/pods/release", post(pods::release))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(axum::extract::DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(services)
}

async fn status(State(services): State<Services>) -> Result<Json<Status>, ApiError> {
    Ok(Json(services.node.ask(|node| node.status()).await?))
}

async fn peers(State(services): State<Services>) -> Result<Json<Peers>, ApiError> {
    Ok(Json(services.node.ask(|node| node.peers()).await?))
}

async fn connections(State(services): State<Services>) -> Result<Json<Connections>, ApiError> {
    Ok(Json(services.node.ask(|node| node.connections()).await?))
}

async fn paths(State(services): State<Services>) -> Result<Json<Paths>, ApiError> {
    Ok(Json(services.node.ask(|node| node.paths()).await?))
}

async fn ipam(State(services): State<Services>) -> Result<Json<Ipam>, ApiError> {
    Ok(Json(services.node.ask(|node| node.ipam()).await?))
}

async fn version() -> Json<VersionInfo> {
    Json(VersionInfo {
        api: API_VERSION,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        protocol: u32::from(admission::PROTOCOL),
    })
}

async fn connect(State(services): State<Services>, body: Body<TargetModel>) -> Result<Json<TargetModel>, ApiError> {
    let target = target(body)?;
    let address = target.to_string();
    services.node.ask(|node| node.connect(target)).await?;
    let remembered = services.allocator.remember_target(address.clone(), true).await;
    remembered.map_err(|error| unrecorded(&error, "the target is tried, but a restart forgets it"))?;
    Ok(Json(TargetModel { address }))
}

fn unrecorded(error: &RememberError, consequence: &str) -> ApiError {
    ApiError::new(StatusCode::INSUFFICIENT_STORAGE, "storage", error.to_string(), consequence)
}

async fn forget(State(services): State<Services>, body: Body<TargetModel>) -> Result<Json<Done>, ApiError> {
    let target = target(body)?;
    let name = target.to_string();
    let known = services.node.ask(move |node| node.forget(&target)).await?;
    let forgotten = services.allocator.remember_target(name.clone(), false).await;
    forgotten.map_err(|error| unrecorded(&error, "a restart may remember the target"))?;
    if known {
        Ok(Json(Done {}))
    } else {
        Err(ApiError::not_found(
            "unknown_target",
            format!("{name} is no target"),
            "see `meshctl connections` for what is",
        ))
    }
}

async fn seal(State(services): State<Services>, body: Body<Seal>) -> Result<Json<Done>, ApiError> {
    let Json(Seal { peer, sealed }) = read(body)?;
    services.node.ask(move |node| node.seal(Instant::now(), &peer, sealed)).await??;
    Ok(Json(Done {}))
}

async fn expose(State(services): State<Services>) -> Result<Json<Exposure>, ApiError> {
    set_exposed(&services, true).await
}

async fn hide(State(services): State<Services>) -> Result<Json<Exposure>, ApiError> {
    set_exposed(&services, false).await
}

/// Answers once the kernel does as it was told: whoever asked may go on to connect.
async fn set_exposed(services: &Services, exposed: bool) -> Result<Json<Exposure>, ApiError> {
    // Recorded first, since a restart would undo unseen what is not.
    let remembered = services.allocator.remember_exposed(exposed).await;
    remembered.map_err(|error| unrecorded(&error, "nothing was changed; try again"))?;
    let (addresses, in_place) = services.node.ask(move |node| node.expose(exposed)).await?;
    in_place.await?;
    Ok(Json(Exposure { exposed, addresses }))
}

async fn log(State(services): State<Services>, body: Body<LogFilter>) -> Result<Json<Done>, ApiError> {
    let Json(LogFilter { filter }) = read(body)?;
    services
        .log
        .set(&filter)
        .map_err(|message| ApiError::bad_request(message, "use error, warn, info, debug, trace or module=level,…"))?;
    tracing::info!(filter, "log filter changed");
    Ok(Json(Done {}))
}

fn target(body: Body<TargetModel>) -> Result<Target, ApiError> {
    let Json(target) = read(body)?;
    Target::parse(&target.address)
        .map_err(|message| ApiError::bad_request(message, "give HOST, HOST:PORT or [IPV6]:PORT"))
}

/// The body, or what is wrong with it.
pub(super) fn read<T>(body: Body<T>) -> Result<Json<T>, ApiError> {
    body.map_err(|rejection| ApiError::bad_request(rejection.body_text(), "see the API's documentation for the fields"))
}

async fn unknown() -> ApiError {
    ApiError::not_found("unknown_noun", "there is no such noun", "the nouns are those of `meshctl help`")
}

async fn wrong_method() -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "wrong_method",
        "this noun does not take that method",
        "GET reads, POST changes",
    )
}
