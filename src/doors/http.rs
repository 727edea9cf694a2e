//! HTTP on loopback: metrics, liveness, readiness.

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;

/// The routes `/metrics`, `/livez` and `/readyz`. `ready` decides the answer of the last.
pub fn router(metrics: PrometheusHandle, ready: watch::Receiver<bool>) -> Router {
    let render = move || {
        let metrics = metrics.clone();
        async move { metrics.render() }
    };
    let readyz = move || {
        let ready = *ready.borrow();
        async move { if ready { (StatusCode::OK, "ready\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready\n") } }
    };
    Router::new().route("/metrics", get(render)).route("/livez", get(|| async { "alive\n" })).route("/readyz", get(readyz))
}
