//! HTTP on loopback: metrics, liveness, readiness.

use axum::Router;
use axum::extract::RawQuery;
use axum::http::StatusCode;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;

/// The readiness of the issuer, part by part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// Each part by its stable name, and what is wrong with it.
    pub parts: Vec<(&'static str, Result<(), String>)>,
    /// Faults that affect only some callers; shown with `verbose`.
    pub warnings: Vec<String>,
}

impl Ready {
    /// Before everything is loaded.
    pub fn starting() -> Ready {
        Ready { parts: vec![("start", Err("still starting".into()))], warnings: Vec::new() }
    }

    /// The readiness of a process that is about to end.
    pub fn stopping() -> Ready {
        Ready { parts: vec![("start", Err("stopping".into()))], warnings: Vec::new() }
    }

    /// Whether nothing is wrong.
    pub fn is_ready(&self) -> bool {
        self.parts.iter().all(|(_, part)| part.is_ok())
    }

    /// The answer of `/readyz`: one line, or with `verbose` a line for each part.
    fn answer(&self, verbose: bool) -> (StatusCode, String) {
        let (status, last) =
            if self.is_ready() { (StatusCode::OK, "ready\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready\n") };
        let part = |(name, part): &(&str, Result<(), String>)| match part {
            Ok(()) => format!("[+] {name}: ok\n"),
            Err(why) => format!("[-] {name}: {why}\n"),
        };
        let parts = self.parts.iter().map(part).chain(self.warnings.iter().map(|warning| format!("[!] {warning}\n")));
        let parts: String = if verbose { parts.collect() } else { String::new() };
        (status, parts + last)
    }
}

/// The routes `/metrics`, `/livez` and `/readyz`. `ready` decides the answer of the last one, and `/readyz?verbose` gives the
/// details.
pub fn router(metrics: PrometheusHandle, ready: watch::Receiver<Ready>) -> Router {
    let render = move || {
        let metrics = metrics.clone();
        async move { metrics.render() }
    };
    let readyz = move |RawQuery(query): RawQuery| {
        let verbose = query.is_some_and(|query| query.split('&').any(|part| part == "verbose" || part.starts_with("verbose=")));
        let answer = ready.borrow().answer(verbose);
        async move { answer }
    };
    Router::new().route("/metrics", get(render)).route("/livez", get(|| async { "alive\n" })).route("/readyz", get(readyz))
}
