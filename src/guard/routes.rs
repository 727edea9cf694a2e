//! The routes of a guard, behind one bound for the requests in flight; health and metrics.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;
use tokio::sync::Semaphore;
use tonic::Status;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::{Guard, envoy, forward, grpc, resource, verify};
use crate::sds::{self, Sds};

/// Most requests at once; a body of each may be in memory.
const IN_FLIGHT: usize = 512;
/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often health and metrics are updated.
const LOOK: Duration = Duration::from_millis(500);

/// The routes of a guard, with its own identity if `secrets` is given, and the reporter of its gRPC health: see [`health`].
pub fn routes(guard: &Guard, secrets: Option<Sds>, metrics: &PrometheusHandle) -> (Router, HealthReporter) {
    let (reporter, healthy) = tonic_health::server::health_reporter();
    let mut services = tonic::service::Routes::new(envoy::service(guard)).add_service(grpc::service(guard)).add_service(healthy);
    if let Some(secrets) = secrets {
        services = services.add_service(sds::service(secrets));
    }
    let services = services.into_axum_router();
    let questions = Router::new()
        .route("/verify", post(verify::one).layer(DefaultBodyLimit::max(verify::BODY)))
        .route("/verify/batch", post(verify::many).layer(DefaultBodyLimit::max(verify::BATCH_BODY)))
        .route("/auth", any(forward::auth))
        .route("/.well-known/oauth-protected-resource", get(resource::metadata))
        .route("/.well-known/oauth-protected-resource/{*path}", get(resource::metadata))
        .with_state(guard.clone());
    let room = Arc::new(Semaphore::new(IN_FLIGHT));
    let checks = services.merge(questions).fallback(unknown).layer(middleware::from_fn_with_state(room, bounded));
    // Health checks are outside of the bound, so that a busy guard is not taken for a dead one.
    (checks.merge(metrics_only(guard, metrics)), reporter)
}

/// `/metrics`, `/healthz` and `/readyz` alone, and `/heartbeat`, at which a guard is a witness for its issuer.
pub fn metrics_only(guard: &Guard, metrics: &PrometheusHandle) -> Router {
    let metrics = metrics.clone();
    let render = move || std::future::ready(metrics.render());
    let health = Router::new().route("/healthz", get(|| async { "alive\n" })).route("/readyz", get(ready));
    health.with_state(guard.clone()).route("/metrics", get(render)).merge(crate::witness::route(guard.0.live.clone()))
}

/// Keeps metrics and gRPC health up to date, until it is dropped.
pub async fn health(guard: Guard, metrics: PrometheusHandle, reporter: HealthReporter) {
    for name in ["verify", "batch", "grpc", "auth", "envoy"] {
        for outcome in ["allowed", "malformed"] {
            metrics::counter!("mayfly_guard_checks_total", "door" => name, "outcome" => outcome, "reason" => "").increment(0);
        }
    }
    let started = tokio::time::Instant::now();
    loop {
        let age = guard.staleness().unwrap_or_else(|| started.elapsed());
        metrics::gauge!("mayfly_guard_staleness_seconds").set(age.as_secs_f64());
        metrics::counter!("mayfly_guard_accepted_unknown_total").absolute(guard.accepted_unknown());
        let serves = guard.is_best_effort() || guard.fresh().is_ok();
        let serving = if serves { ServingStatus::Serving } else { ServingStatus::NotServing };
        for name in ["", envoy::SERVICE, grpc::SERVICE] {
            reporter.set_service_status(name, serving).await;
        }
        metrics.run_upkeep();
        tokio::time::sleep(LOOK).await;
    }
}

/// Counts one check.
pub(super) fn count(door: &'static str, outcome: &'static str, reason: &'static str) {
    metrics::counter!("mayfly_guard_checks_total", "door" => door, "outcome" => outcome, "reason" => reason).increment(1);
}

async fn ready(State(guard): State<Guard>) -> Response {
    match guard.fresh() {
        Ok(()) => "ready\n".into_response(),
        // It stays ready, because a guard out of service would refuse what this one still accepts.
        Err(why) if guard.is_best_effort() => format!("ready, and accepting until expiry: {why}\n").into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")).into_response(),
    }
}

async fn unknown(headers: HeaderMap) -> Response {
    let error = "there are POST /verify, POST /verify/batch, /auth, /.well-known/oauth-protected-resource, gRPC Guard and ext_authz, /healthz, /readyz, /heartbeat and /metrics";
    told(&headers, StatusCode::NOT_FOUND, Status::unimplemented(error))
}

/// T115: limits the number of requests at once, and the time of each. A request beyond the limits gets an error, which allows
/// nothing.
async fn bounded(State(room): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    let headers = request.headers().clone();
    let mut response = match room.try_acquire() {
        Ok(_place) => match tokio::time::timeout(PATIENCE, next.run(request)).await {
            Ok(response) => response,
            Err(_) => {
                metrics::counter!("mayfly_guard_refused_total", "reason" => "slow").increment(1);
                told(&headers, StatusCode::REQUEST_TIMEOUT, Status::deadline_exceeded("the request took too long"))
            }
        },
        Err(_) => {
            metrics::counter!("mayfly_guard_refused_total", "reason" => "requests").increment(1);
            told(&headers, StatusCode::SERVICE_UNAVAILABLE, Status::resource_exhausted("too many requests at once: ask again"))
        }
    };
    response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// A refusal in the protocol of the request.
fn told(request: &HeaderMap, status: StatusCode, grpc: Status) -> Response {
    if request.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc")) {
        return grpc.into_http::<axum::body::Body>();
    }
    (status, Json(json!({ "error": grpc.message() }))).into_response()
}
