//! Gauges that are set every few seconds: those of the process, live agents by class, and when signing keys and certificates
//! expire.

use std::sync::Arc;

use mayfly_verify::Target;
use metrics::{counter, gauge};

use crate::acts::Issuer;
use crate::authority::Authority;
use crate::process::usage;
use crate::state::authority::Kind;
use crate::state::{Count, Seat};

/// Sets the gauges of the build and of the start of this process (Unix seconds), once.
pub(super) fn begin(now: u64) {
    gauge!("mayfly_build_info", "version" => env!("CARGO_PKG_VERSION"), "commit" => env!("MAYFLY_COMMIT")).set(1.0);
    set("process_start_time_seconds", now);
}

/// Sets all other gauges. `files` is the number of files that this process may open.
pub(super) fn look(issuer: &Issuer, authority: &Arc<Authority>, files: usize) {
    let usage = usage::now();
    counter!("process_cpu_seconds_total").absolute(usage.cpu_seconds);
    if let Some(bytes) = usage.resident_bytes {
        set("process_resident_memory_bytes", bytes);
    }
    if let Some(open) = usage.open_files {
        set("process_open_fds", open);
    }
    set("process_max_fds", u64::try_from(files).unwrap_or(u64::MAX));
    let rules = issuer.ledger.rules();
    let (classes, until) = issuer.ledger.read(|state| {
        let of = |name: &mayfly_verify::ClassName| state.seats(Seat(Count::OfClass, state.subject(&Target::Class(name.clone()))));
        let classes: Vec<_> = rules.classes.keys().map(|name| (name.to_string(), of(name))).collect();
        let until = [Kind::X509, Kind::Jwt].map(|kind| (kind, state.authorities.active(kind).map(|slot| slot.ends_at)));
        (classes, until)
    });
    for (class, live) in classes {
        #[expect(clippy::cast_precision_loss, reason = "for a gauge")]
        gauge!("mayfly_agents_live", "class" => class).set(live as f64);
    }
    for (kind, ends_at) in until {
        if let Some(ends_at) = ends_at {
            ends("mayfly_authority_ends_at_seconds", kind.as_str(), ends_at);
        }
    }
    ends("mayfly_authority_ends_at_seconds", "root", authority.root_ends_at());
    let providers = issuer.providers.load();
    for (name, reachable) in providers.assertions.reachable().into_iter().chain(providers.attestations.reachable()) {
        gauge!("mayfly_oidc_reachable", "issuer" => name).set(if reachable.is_ok() { 1.0 } else { 0.0 });
    }
}

/// When the certificate of a listener ends, in Unix seconds.
pub(super) fn certificate(listener: &'static str, ends_at: u64) {
    #[expect(clippy::cast_precision_loss, reason = "for a gauge")]
    gauge!("mayfly_server_certificate_ends_at_seconds", "listener" => listener).set(ends_at as f64);
}

fn ends(name: &'static str, kind: &'static str, ends_at: u64) {
    #[expect(clippy::cast_precision_loss, reason = "for a gauge")]
    gauge!(name, "kind" => kind).set(ends_at as f64);
}

fn set(name: &'static str, value: u64) {
    #[expect(clippy::cast_precision_loss, reason = "for a gauge")]
    gauge!(name).set(value as f64);
}
