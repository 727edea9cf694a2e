//! Opens what an issuer would open at its start, and changes nothing.

use crate::assertion::{Assertions, Attestations};
use crate::clock::Clock;
use crate::config::Config;
use crate::foreign::usable;
use crate::keys::keystore::read_private;
use crate::telemetry;

/// The parts of a configuration that cannot be used on this machine now, a sentence for each: files that cannot be read or do not
/// belong together, and a malformed log filter. This makes nothing, opens no connection, binds no address and reads no home, so an
/// issuer may run at the same time. Blocks while files are read.
pub fn unusable(config: &Config) -> Vec<String> {
    let mut found = Vec::new();
    let mut add = |what: &str, outcome: Result<(), String>| found.extend(outcome.err().map(|why| format!("{what}: {why}")));
    // Each issuer is checked by itself, so that all faults are reported.
    for issuer in &config.issuers {
        add("issuers", Assertions::new(vec![issuer.clone()]).map(drop).map_err(|e| e.to_string()));
    }
    for file in config.issuers.iter().flat_map(|issuer| &issuer.audiences).filter_map(|audience| audience.asks.as_ref()) {
        let read = match read_private(file) {
            Ok(Some(secret)) if !secret.trim().is_empty() => Ok(()),
            Ok(_) => Err(format!("`{}` does not exist, or is empty", file.display())),
            Err(e) => Err(e.to_string()),
        };
        add("issuers.audiences.secret_file", read);
    }
    add("approvals.webhook", super::reload::webhook(config).map(drop));
    for issuer in &config.workload_issuers {
        let opened = Attestations::new(vec![issuer.clone()], Vec::new());
        add("workload_issuers", opened.map(drop).map_err(|e| e.to_string()));
    }
    for settings in &config.foreign {
        add("foreign", usable(settings, &Clock::system()));
    }
    add("log.filter", telemetry::filter(&config.log_filter).map(drop));
    let web =
        [("https", config.https.web.as_ref()), ("bundle_endpoint", config.bundle_endpoint.as_ref().and_then(|e| e.web.as_ref()))];
    for (section, (certificate, key)) in web.into_iter().filter_map(|(section, web)| Some((section, web?))) {
        add(section, super::tls::readable(certificate, key));
    }
    if let Some(root) = &config.root {
        add("authorities", root.check(&config.trust_domain, Clock::system().seconds()).map_err(|e| e.to_string()));
    }
    if let Some(audit) = config.audit.as_ref().filter(|audit| audit.refuse) {
        add("audit", audit.sink.check());
    }
    found
}
