//! Turns denials and faults into gRPC statuses. No other place does; the code of each kind is [`Kind::code`].

use std::collections::HashMap;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::IntoResponse;
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

use crate::denial::{Denial, Kind, No};

/// The domain of `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "mayfly.v1";

/// The status of a denial. Its details are `ErrorInfo` with the reason, `RetryInfo` if a retry can help, and `QuotaFailure` for a
/// limit (all of `google.rpc`).
pub fn of_denial(denial: &Denial) -> Status {
    let facts: HashMap<String, String> = denial.facts.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
    let mut details = ErrorDetails::with_error_info(denial.code, DOMAIN, facts);
    if denial.retry.is_some() || matches!(denial.kind, Kind::Exhausted | Kind::Unavailable) {
        details.set_retry_info(Some(denial.retry.map_or(Duration::from_secs(1), Duration::from_micros)));
    }
    let fact = |name| denial.facts.iter().find(|(k, _)| *k == name).map(|(_, v)| v.as_str());
    if let (Some(limit), Some(per)) = (fact("limit"), fact("per")) {
        details.add_quota_failure_violation(format!("{per}:{limit}"), denial.message.clone());
    }
    Status::with_error_details(denial.kind.code(), &denial.message, details)
}

/// A status as a message, for one answer in a batch.
pub fn proto(status: &Status) -> tonic_types::Status {
    use prost::Message;
    let plain = || tonic_types::Status { code: status.code() as i32, message: status.message().to_owned(), details: vec![] };
    // The details of a status are this message in encoded form.
    if status.details().is_empty() { plain() } else { tonic_types::Status::decode(status.details()).unwrap_or_else(|_| plain()) }
}

/// The denial of a request that took too long.
pub fn deadline() -> Denial {
    let message = "the request took too long: try again, with the same request id if you gave one";
    Denial::new(Kind::Deadline, "DEADLINE", message)
}

/// The complete response to a request that is refused outside of its handler. It is counted here, because the handler would have.
pub fn refusal(no: &No, method: &'static str, started: Instant) -> axum::response::Response {
    let (status, outcome) = of(no, method);
    count(method, outcome, started);
    status.into_http()
}

/// The response to a request of plain HTTP that is refused outside its handler.
pub fn plain(denial: &Denial) -> axum::response::Response {
    let status = match denial.kind {
        Kind::Exhausted | Kind::Unavailable | Kind::Deadline => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_REQUEST,
    };
    let retry = denial.retry.map_or(1, |after| after.div_ceil(1_000_000));
    (status, [(RETRY_AFTER, retry.to_string())], format!("{denial}\n")).into_response()
}

/// Counts a response, and the time since `started`. `method` and `outcome` come from fixed sets.
pub fn count(method: &'static str, outcome: &'static str, started: Instant) {
    metrics::counter!("mayfly_requests_total", "method" => method, "outcome" => outcome).increment(1);
    metrics::histogram!("mayfly_request_seconds", "method" => method, "outcome" => outcome).record(started.elapsed());
}

/// The status of a denial or a fault, and its outcome as a label of metrics. Only the log gets the cause of a fault.
pub fn of(no: &No, method: &str) -> (Status, &'static str) {
    match no {
        No::Denial(denial) => {
            tracing::info!(method, reason = denial.code, "denied: {}", denial.message);
            metrics::counter!("mayfly_denials_total", "reason" => denial.code).increment(1);
            let outcome = if denial.kind == Kind::Malformed { "malformed" } else { "denied" };
            (of_denial(denial), outcome)
        }
        No::Fault(fault) => {
            tracing::error!(method, during = fault.during, cause = %fault.cause, "fault");
            (Status::internal("internal"), "fault")
        }
    }
}
