//! Logs and metrics. The labels of metrics come from fixed or configured sets, and never identify an agent or a user.

mod escape;
mod stderr;

use std::fmt;
use std::io::IsTerminal as _;
use std::sync::OnceLock;

use mayfly_agent::reason::REASONS;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::debug_fn;

use crate::config::LogFormat;
pub use escape::{Escaping, escaped, escaped_lines};

/// Every metric: its name, kind, labels and meaning. `src/docs/operate.md` has the same list.
pub const CATALOGUE: &[(&str, &str, &str, &str)] = &[
    ("mayfly_requests_total", "counter", "method, outcome", "requests by outcome: ok, denied, malformed, fault"),
    ("mayfly_request_seconds", "histogram", "method, outcome", "time from request to answer"),
    ("mayfly_denials_total", "counter", "reason", "denials by reason code"),
    ("mayfly_oidc_fetches_total", "counter", "issuer, outcome", "fetches of an issuer's keys, by its configured name"),
    (
        "mayfly_foreign_fetches_total",
        "counter",
        "trust_domain, outcome",
        "looks at a foreign bundle by its configured trust domain: ok, failed, refused",
    ),
    ("mayfly_foreign_bundles_untold", "gauge", "", "foreign bundles that agents are not told because all are too large together"),
    ("mayfly_journal_batch_records", "histogram", "", "records in one commit"),
    ("mayfly_journal_commit_seconds", "histogram", "", "admit, sync and apply of one batch"),
    ("mayfly_journal_sync_seconds", "histogram", "", "the durable append alone, of one batch"),
    ("mayfly_journal_records_total", "counter", "", "records that became durable"),
    ("mayfly_journal_bytes", "gauge", "", "bytes of the journal's records, without the room that is free inside of its file"),
    ("mayfly_journal_free_bytes", "gauge", "", "bytes that are free on the journal's disk, as the system tells them"),
    ("mayfly_journal_reserve_bytes", "gauge", "", "bytes that are kept for revocations, ends and authorities and are not in use"),
    ("mayfly_journal_waiting", "gauge", "", "groups of requests that wait for the writer of the journal"),
    ("mayfly_journal_held_seconds", "gauge", "", "age of a commit that has not returned, or of a revocation that found no room"),
    ("mayfly_journal_full_total", "counter", "", "commits that found no room for some of their records"),
    ("mayfly_heartbeat_failures_total", "counter", "what", "heartbeats that could not be signed (feed) or written down (file)"),
    ("mayfly_journal_queue_full_total", "counter", "", "requests refused because too many waited, of all or of one caller"),
    ("mayfly_history_entries_total", "counter", "", "entries that became durable in the history"),
    (
        "mayfly_history_unwritten_total",
        "counter",
        "",
        "denials and looks that were counted in a gap instead of written, because there were too many",
    ),
    ("mayfly_history_records_behind", "gauge", "", "records of the journal that the history does not hold yet"),
    ("mayfly_history_cosigned_entries", "gauge", "", "entries that every witness has cosigned"),
    (
        "mayfly_history_witness_failures_total",
        "counter",
        "",
        "questions to witnesses that they did not answer with their signature",
    ),
    ("mayfly_history_bytes", "gauge", "", "bytes of the entries that are kept"),
    ("mayfly_audit_entries_total", "counter", "", "entries that were handed on (`[audit]`)"),
    ("mayfly_audit_failures_total", "counter", "", "attempts to hand entries on that failed and are made again"),
    (
        "mayfly_audit_entries_lost_total",
        "counter",
        "",
        "entries that the history dropped before they could be handed on, because they were too old",
    ),
    ("mayfly_audit_entries_behind", "gauge", "", "entries that were not handed on yet"),
    ("mayfly_history_failures_total", "counter", "", "writes of the history that failed and are tried again"),
    (
        "mayfly_requests_refused_early_total",
        "counter",
        "",
        "requests that were refused because the journal is slow, and that would have been answered too late",
    ),
    ("mayfly_requests_abandoned_total", "counter", "", "requests dropped before their commit because nobody waited any more"),
    (
        "mayfly_throttled_total",
        "counter",
        "verb, per",
        "requests refused because a caller, or a root with all of its agents, asked too often (`[writes]`)",
    ),
    (
        "mayfly_policy_shadow_differs_total",
        "counter",
        "action, outcome",
        "decisions that the shadow policies would have made otherwise: allowed, denied",
    ),
    (
        "mayfly_log_lines_dropped_total",
        "counter",
        "",
        "lines of the log that standard error did not take at once, or not any more",
    ),
    ("mayfly_panics_total", "counter", "", "panics of this process, each a fault of ours; in a vital part one ends the process"),
    ("mayfly_pipeline_panics_total", "counter", "", "groups of requests that were dropped because a thread panicked"),
    ("mayfly_rotation_failures_total", "counter", "", "rotations of authorities that failed and are tried again"),
    ("mayfly_cuts_published_total", "counter", "", "cuts that were sent to verifiers"),
    ("mayfly_feed_queue_full_total", "counter", "", "commits that waited because the feed had too many cuts to publish"),
    (
        "mayfly_feed_resumed_total",
        "counter",
        "from",
        "subscribers that were sent what they missed: from the ring, or from the journal",
    ),
    ("mayfly_feed_snapshots_total", "counter", "", "subscribers that were sent everything, because they are new or too slow"),
    ("mayfly_feed_subscribers", "gauge", "", "subscribers of the feed"),
    (
        "mayfly_clock_lead_seconds",
        "gauge",
        "",
        "lead of the machine's clock, where it leapt and is not followed; 0 while it is right",
    ),
    ("mayfly_agents_live", "gauge", "class", "live agents of each configured class"),
    ("mayfly_authority_ends_at_seconds", "gauge", "kind", "when the active authority ends: x509, jwt, root; Unix seconds"),
    ("mayfly_server_certificate_ends_at_seconds", "gauge", "listener", "when the certificate of a listener ends; Unix seconds"),
    ("mayfly_oidc_reachable", "gauge", "issuer", "whether the last fetch of an issuer's keys succeeded: 1 or 0"),
    ("mayfly_notifications_total", "counter", "outcome", "answers that waiting agents were told of: ok, failed, dropped"),
    ("mayfly_webhooks_total", "counter", "outcome", "questions to people of which a program was told: ok, failed, dropped"),
    (
        "mayfly_asked_at_provider_total",
        "counter",
        "outcome",
        "people who were asked by their own provider: approved, denied, expired, over (answered elsewhere, or revoked), failed, dropped",
    ),
    ("mayfly_reloads_total", "counter", "outcome", "reloads of the configuration: ok, refused"),
    ("mayfly_build_info", "gauge", "version, commit", "1, with what was built"),
    ("process_cpu_seconds_total", "counter", "", "CPU of this process, in whole seconds"),
    ("process_resident_memory_bytes", "gauge", "", "memory of this process that is not swapped"),
    ("process_open_fds", "gauge", "", "open file descriptors of this process"),
    ("process_max_fds", "gauge", "", "file descriptors that this process may open"),
    ("process_start_time_seconds", "gauge", "", "when this process started; Unix seconds"),
    ("mayfly_agents_known", "gauge", "", "agents in state, ended ones until they are forgotten"),
    (
        "mayfly_connections",
        "gauge",
        "kind",
        "open connections: handshake, stranger, certified, operator; bundle and http are those of their listeners",
    ),
    ("mayfly_connection_places", "gauge", "kind", "places left: handshake, stranger, certified"),
    (
        "mayfly_connections_refused_total",
        "counter",
        "reason",
        "connections refused before their first request: full, identity (it has as many as one may), tls, slow",
    ),
    (
        "mayfly_connections_ended_total",
        "counter",
        "reason",
        "connections ended: silent, idle, unread, old, full (another needed the place), flood, revoked",
    ),
    (
        "mayfly_guard_checks_total",
        "counter",
        "door, outcome, reason",
        "from `mayfly guard`: checks by outcome: allowed, denied with its reason code, malformed",
    ),
    (
        "mayfly_guard_verifications_total",
        "counter",
        "",
        "from `mayfly guard`: credentials whose signatures were verified; for the other checks that was done before",
    ),
    ("mayfly_guard_staleness_seconds", "gauge", "", "from `mayfly guard`: age of what it knows of revocations"),
    (
        "mayfly_guard_accepted_unknown_total",
        "counter",
        "",
        "from `mayfly guard --best-effort`: credentials accepted while it was unknown whether they are revoked",
    ),
    ("mayfly_guard_connections", "gauge", "", "from `mayfly guard`: open connections"),
    (
        "mayfly_guard_crl_revision",
        "gauge",
        "",
        "from `mayfly guard --crl`: revision up to which every revocation is in the lists that were fetched last",
    ),
    (
        "mayfly_guard_crl_expires_timestamp_seconds",
        "gauge",
        "",
        "from `mayfly guard --crl`: when the lists in the folder expire, in Unix seconds: from then on the server refuses everybody",
    ),
    (
        "mayfly_guard_crl_failures_total",
        "counter",
        "what",
        "from `mayfly guard --crl`: lists that could not be had (fetch) or written (write), and reload commands that failed or took too long (reload)",
    ),
    ("mayfly_sds_rejected_total", "counter", "", "from `mayfly guard` and `mayfly run`: secrets that an Envoy could not use"),
    (
        "mayfly_guard_refused_total",
        "counter",
        "reason",
        "from `mayfly guard`: what it had no room or time for: connections, requests, slow",
    ),
];

/// Values of labels that are known in advance, so that their series start at zero. Then the first event is visible as an increase.
const KNOWN: &[(&str, &str, &[&str])] = &[
    ("mayfly_heartbeat_failures_total", "what", &["feed", "file"]),
    ("mayfly_connections_refused_total", "reason", &["full", "identity", "tls", "slow"]),
    ("mayfly_notifications_total", "outcome", &["ok", "failed", "dropped"]),
    ("mayfly_webhooks_total", "outcome", &["ok", "failed", "dropped"]),
    ("mayfly_asked_at_provider_total", "outcome", &["approved", "denied", "expired", "over", "failed", "dropped"]),
    ("mayfly_reloads_total", "outcome", &["ok", "refused"]),
    ("mayfly_connections_ended_total", "reason", &["silent", "idle", "unread", "old", "full", "flood", "revoked"]),
];

/// Starts the log, which goes to stderr. Fails if `filter` is malformed.
pub fn logs(format: LogFormat, filter: &str) -> Result<(), String> {
    let filter = self::filter(filter)?;
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_target(false).log_internal_errors(false);
    let lines = stderr::Lines::stderr(matches!(format, LogFormat::Json));
    let builder = builder.with_writer(lines);
    // An error means that the log has been started already, as in tests.
    match format {
        LogFormat::Text => {
            let builder = builder.with_ansi(colours).fmt_fields(fields()).with_filter_reloading();
            let handle = builder.reload_handle();
            let _ = REFILTER.set(Box::new(move |filter| drop(handle.reload(filter))));
            let _ = builder.try_init();
        }
        LogFormat::Json => {
            let builder = builder.json().with_filter_reloading();
            let handle = builder.reload_handle();
            let _ = REFILTER.set(Box::new(move |filter| drop(handle.reload(filter))));
            let _ = builder.try_init();
        }
    }
    Ok(())
}

type Refilter = Box<dyn Fn(EnvFilter) + Send + Sync>;

/// Replaces the filter of the log, once that has been started.
static REFILTER: OnceLock<Refilter> = OnceLock::new();

/// Parses a filter for [`refilter`].
pub fn filter(text: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(text).map_err(|e| format!("log filter `{text}`: {e}"))
}

/// Uses another filter for the log from now on.
pub fn refilter(filter: EnvFilter) {
    if let Some(refilter) = REFILTER.get() {
        refilter(filter);
    }
}

/// The fields of an event as text: each event is one line, whatever callers sent. JSON escapes by itself.
fn fields() -> impl for<'writer> FormatFields<'writer> + Send + Sync + 'static {
    let each =
        |writer: &mut tracing_subscriber::fmt::format::Writer<'_>, field: &tracing::field::Field, value: &dyn fmt::Debug| {
            let mut escaping = Escaping(writer);
            match field.name() {
                "message" => fmt::Write::write_fmt(&mut escaping, format_args!("{value:?}")),
                name => fmt::Write::write_fmt(&mut escaping, format_args!("{name}={value:?}")),
            }
        };
    debug_fn(each).delimited(" ")
}

/// Installs the recorder of metrics. The caller must call [`PrometheusHandle::run_upkeep`] every few seconds.
pub fn metrics() -> Result<PrometheusHandle, String> {
    let seconds = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
    let records = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &seconds)
        .and_then(|b| b.set_buckets_for_metric(Matcher::Suffix("_records".into()), &records))
        .map_err(|e| e.to_string())?;
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    if let Err(e) = ::metrics::set_global_recorder(recorder) {
        tracing::debug!(error = %e, "metrics are recorded elsewhere");
    }
    for (name, kind, labels, help) in CATALOGUE {
        match *kind {
            "counter" => {
                ::metrics::describe_counter!(*name, *help);
                if labels.is_empty() {
                    ::metrics::counter!(*name).absolute(0);
                }
            }
            "gauge" => ::metrics::describe_gauge!(*name, *help),
            _ => ::metrics::describe_histogram!(*name, *help),
        }
    }
    for (name, label, values) in KNOWN {
        for value in *values {
            ::metrics::counter!(*name, *label => *value).absolute(0);
        }
    }
    for reason in REASONS {
        ::metrics::counter!("mayfly_denials_total", "reason" => reason.code).absolute(0);
    }
    Ok(handle)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::io;
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn t93_an_event_is_one_line_whatever_callers_sent() {
        let written = Written::default();
        let writer = written.clone();
        let builder = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).with_target(false);
        tracing::subscriber::with_default(builder.fmt_fields(fields()).without_time().finish(), || {
            let sent = "x\n2026-11-27T07:00:00Z ERROR forged \u{1b}[2J\u{9b}";
            let error = io::Error::other(sent);
            tracing::info!(method = "Spawn", reason = "SCOPE", "denied: `{sent}`");
            tracing::warn!(%error, debug = ?sent, shown = %sent, text = sent, boxed = &error as &dyn std::error::Error, count = 7, "sent");
        });
        let text = String::from_utf8(written.0.lock().clone()).unwrap();
        let lines: Vec<_> = text.lines().collect();
        let sent = "x\\n2026-11-27T07:00:00Z ERROR forged \\u{1b}[2J\\u{9b}";
        assert_eq!(lines.first().unwrap().trim_start(), format!("INFO denied: `{sent}` method=\"Spawn\" reason=\"SCOPE\""));
        let second = lines.get(1).unwrap();
        assert!(second.contains(&format!("shown={sent}")) && second.contains("count=7"), "{second}");
        assert_eq!(lines.len(), 2, "{text}");
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    }
}
