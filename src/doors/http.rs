//! HTTP on loopback: metrics, liveness, readiness.

use axum::Router;
use axum::extract::RawQuery;
use axum::http::StatusCode;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;

use crate::acts::status::Ready;

/// The routes `/metrics`, `/livez` and `/readyz`. `ready` decides the answer of the last one, and `/readyz?verbose` gives the
/// details.
pub fn router(metrics: PrometheusHandle, ready: watch::Receiver<Ready>) -> Router {
    let render = move || {
        let metrics = metrics.clone();
        async move { metrics.render() }
    };
    let readyz = move |RawQuery(query): RawQuery| {
        let verbose = query.is_some_and(|query| query.split('&').any(|part| part == "verbose" || part.starts_with("verbose=")));
        let answer = answer(&ready.borrow(), verbose);
        async move { answer }
    };
    Router::new().route("/metrics", get(render)).route("/livez", get(|| async { "alive\n" })).route("/readyz", get(readyz))
}

/// The answer of `/readyz`: one line, or with `verbose` a line for each part.
fn answer(ready: &Ready, verbose: bool) -> (StatusCode, String) {
    let (status, last) =
        if ready.is_ready() { (StatusCode::OK, "ready\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready\n") };
    let part = |(name, part): &(&str, Result<(), String>)| match part {
        Ok(()) => format!("[+] {name}: ok\n"),
        Err(why) => format!("[-] {name}: {why}\n"),
    };
    let parts = ready.parts.iter().map(part).chain(ready.warnings.iter().map(|warning| format!("[!] {warning}\n")));
    let parts: String = if verbose { parts.collect() } else { String::new() };
    (status, parts + last)
}
