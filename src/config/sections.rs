//! The sections that a file has once, and the complete configuration.
//!
//! Every section is read before a missing value ends the reading, so that each fault of a file is reported.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use mayfly_verify::{BindingOid, TrustDomain, WorkloadName};

use super::actions::{check_people, read_actions, read_approvals};
use super::attest::{check_rules, read_rules, read_workload_issuers};
use super::audiences::{check_audiences, read_audiences};
use super::audit::read_audit;
use super::classes::read_classes;
use super::foreign::{Known, read_foreign};
use super::https::read_https;
use super::issuers::{https, read_issuers};
use super::limits::read_limits;
use super::operators::{add_audiences, check_offices, read_assignments, read_auditor, read_operator};
use super::places::read_owner;
use super::policy::read_policy;
use super::reader::Reader;
use super::writes::read_writes;
use super::{BundleEndpoint, Config, LogFormat};
use crate::assertion::Rule;
use crate::authority::RootFiles;
use crate::history::Keep;
use crate::history::witness::{Cosigner, Settings as Witness};
use crate::judge::Places;
use crate::listen::Bounds;
use crate::notify::Endpoint;

/// Reads a whole file. Returns `None` if a value is missing or malformed; `top` then holds the fault.
pub(super) fn read(top: &mut Reader) -> Option<Config> {
    let trust_domain = top.parsed("trust_domain", None, |s: &str| match TrustDomain::new(s) {
        Ok(td) if td.as_str() == s => Ok(td),
        Ok(_) => Err("write it in lower case, without a scheme".into()),
        Err(e) => Err(e.to_string()),
    });
    let home = top.parsed("home", Some(".mayfly"), |s| Ok(PathBuf::from(s)));
    read_owner(top);
    let server = within(top, "server", read_server);
    let http = within(top, "http", read_http);
    let operator = within(top, "operator", read_operator);
    let auditor = within(top, "auditor", read_auditor);
    let log = within(top, "log", read_log);
    let journal = within(top, "journal", read_journal);
    let history = within(top, "history", read_history);
    let audit = within(top, "audit", read_audit);
    let credentials = within(top, "credentials", read_credentials);
    let authorities = within(top, "authorities", read_authorities);
    let https = within(top, "https", read_https);
    let bundle_endpoint = within(top, "bundle_endpoint", read_bundle_endpoint);
    let writes = within(top, "writes", read_writes);
    let policy = within(top, "policy", read_policy);

    let Workloads { workloads, attest, serves, gateways, notified } = read_workloads(top);
    check_offices(top, &operator, &auditor, &workloads);
    let (foreign, domains) = read_foreign(top, trust_domain.as_ref());
    let known = Known { own: &workloads, foreign: &domains };
    let actions = read_actions(top);
    let (waiting, webhook) = within(top, "approvals", read_approvals);
    let classes = read_classes(top, &known, &actions);
    let limits = read_limits(top);
    let audiences = read_audiences(top, credentials.oid.as_ref());
    check_audiences(top, &audiences, &classes, trust_domain.as_ref());
    let mut issuers = read_issuers(top, &known);
    let assignments = read_assignments(top);
    add_audiences(top, &assignments, &mut issuers);
    let providers: Vec<&str> = issuers.iter().map(|issuer| issuer.name.as_str()).collect();
    check_people(top, classes.values().flat_map(|class| &class.approve), &providers);
    let workload_issuers = read_workload_issuers(top, &issuers);
    if let Some(own) = issuers.iter().chain(&workload_issuers).find(|i| Some(&i.issuer) == https.issuer.as_ref()) {
        // A token of ours never proves a user or a workload.
        top.fault("https.issuer", &format!("`{}` is the issuer of users or workloads too: it cannot be ours", own.issuer));
    }
    check_rules(top, &attest, &workload_issuers);
    Some(Config {
        trust_domain: trust_domain?,
        home: home?,
        listen: server.listen?,
        names: server.names,
        bounds: server.bounds,
        reflection: server.reflection,
        http: http?,
        socket: operator.socket,
        uids: operator.uids,
        operators: operator.workloads,
        auditor_uids: auditor.uids,
        auditors: auditor.workloads,
        assignments,
        log: log.format?,
        log_filter: log.filter?,
        batch: journal.batch,
        queue: journal.queue,
        journal_max: journal.max_bytes,
        witnesses_needed: journal.needed.min(journal.witnesses.len()),
        witnesses: journal.witnesses,
        history: history.0,
        history_witnesses: history.1,
        audit,
        max_downtime: journal.max_downtime,
        oid: credentials.oid?,
        jwt_ttl: credentials.jwt_ttl,
        workload_ttl: credentials.workload_ttl,
        root: authorities.root,
        rotate_x509: authorities.rotate_x509,
        rotate_jwt: authorities.rotate_jwt,
        refresh: authorities.refresh,
        https,
        bundle_endpoint,
        workloads,
        workload_issuers,
        attest,
        serves,
        notified,
        gateways,
        foreign,
        issuers,
        classes,
        actions,
        waiting,
        webhook,
        limits,
        audiences,
        writes: writes.paces,
        places: Places::default(),
        taken_back: writes.taken_back,
        policies: policy.in_force,
        shadow: policy.shadow,
        written: toml::Table::new(),
    })
}

/// Reads the section `key`, and takes over the faults found in it.
fn within<T>(top: &mut Reader, key: &str, read: fn(&mut Reader) -> T) -> T {
    let mut section = top.section(key);
    let value = read(&mut section);
    top.close(section);
    value
}

struct Server {
    listen: Option<SocketAddr>,
    names: Vec<String>,
    bounds: Bounds,
    reflection: bool,
}

fn read_server(s: &mut Reader) -> Server {
    let listen = s.parsed("listen", Some("127.0.0.1:8443"), |s| s.parse::<SocketAddr>().map_err(|e| e.to_string()));
    let names = s.list("names", Some(&["localhost", "127.0.0.1"]), |s| {
        // `_` is allowed, because service names of Docker Compose have it.
        let of_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        let dns = !s.is_empty() && s.len() <= 253 && s.bytes().all(of_name);
        // T34: a wildcard is never accepted.
        if dns || s.parse::<IpAddr>().is_ok() { Ok(s.to_owned()) } else { Err("write a DNS name or an IP address".into()) }
    });
    if names.is_empty() {
        s.fault("names", "give at least one name");
    }
    let bounds = Bounds {
        handshake: s.duration("handshake_timeout", "5s", 1, 60),
        request: s.duration("request_timeout", "10s", 1, 300),
        drain: s.duration("drain_timeout", "10s", 1, 600),
        connections: s.size("max_connections", 16_384, 4, 1_000_000),
        per_address: places(s, "max_connections_per_address"),
        per_identity: places(s, "max_connections_per_identity"),
        first: s.duration("first_request_timeout", "10s", 1, 300),
        idle: s.duration("stranger_idle_timeout", "60s", 1, 3600),
        unread: s.duration("stranger_unread_timeout", "30s", 1, 3600),
        age: s.duration("stranger_max_age", "10m", 1, 86_400),
        headers: s.small("max_header_bytes", 16 * 1024, 4096, 1 << 20),
        streams: s.small("max_concurrent_streams", 256, 1, 10_000),
        message: s.size("max_message_bytes", 64 * 1024, 16 * 1024, 4 << 20),
        bodies: s.size("max_inflight_bytes", 32 << 20, 4 << 20, 1 << 30),
    };
    let reflection = s.boolean("reflection", false);
    Server { listen, names, bounds, reflection }
}

/// A number of connections. `None` if the key is absent.
fn places(s: &mut Reader, key: &str) -> Option<usize> {
    // 0 connections would make no sense, so 0 counts as absent.
    Some(s.size(key, 0, 0, 1_000_000)).filter(|n| *n > 0)
}

fn read_http(h: &mut Reader) -> Option<SocketAddr> {
    let network = h.boolean("network", false);
    h.parsed("listen", Some("127.0.0.1:9464"), |s| match s.parse::<SocketAddr>() {
        Ok(a) if network || a.ip().is_loopback() => Ok(a),
        Ok(_) => Err("metrics and health are served on loopback only, or with `network = true` to whoever reaches them".into()),
        Err(e) => Err(e.to_string()),
    })
}

struct Log {
    format: Option<LogFormat>,
    filter: Option<String>,
}

fn read_log(l: &mut Reader) -> Log {
    let format = l.parsed("format", Some("text"), |s| match s {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("write `text` or `json`".into()),
    });
    let filter = l.parsed("filter", Some("info"), |s| Ok(s.to_owned()));
    Log { format, filter }
}

struct Journal {
    batch: usize,
    queue: usize,
    max_bytes: Option<u64>,
    max_downtime: Duration,
    witnesses: Vec<SocketAddr>,
    needed: usize,
}

fn read_journal(j: &mut Reader) -> Journal {
    Journal {
        batch: j.size("batch_max", 256, 1, 10_000),
        queue: j.size("queue_max", 4096, 1, 1_000_000),
        // In a file 0 means no bound.
        max_downtime: j.duration("max_downtime", "7d", 60, 3650 * 86_400),
        max_bytes: Some(j.integer("max_bytes", 0, 0, u64::MAX >> 1)).filter(|m| *m > 0),
        witnesses: j.list("witnesses", Some(&[]), |s| {
            s.parse::<SocketAddr>().map_err(|_| "write an IP address and a port, such as 10.0.0.7:9192".into())
        }),
        needed: j.size("witnesses_needed", 1, 0, 1000),
    }
}

fn read_history(h: &mut Reader) -> (Keep, Vec<Witness>) {
    let time = h.duration("keep", "90d", 3600, 3650 * 86_400).as_micros();
    let mut witnesses: Vec<Witness> = Vec::new();
    for mut w in h.sections("witnesses") {
        let url = w.parsed("url", None, |s| match reqwest::Url::parse(s) {
            Ok(url) if matches!(url.scheme(), "https" | "http") && url.query().is_none() && url.fragment().is_none() => {
                Ok(s.to_owned())
            }
            _ => Err("write the URL of a witness, without a query".into()),
        });
        let key = w.parsed("vkey", None, Cosigner::read);
        let ca_file = w.optional("ca_file", |s| Ok(PathBuf::from(s)));
        if let Some((url, key)) = url.zip(key) {
            if witnesses.iter().any(|known| known.key.name == key.name) {
                w.fault("vkey", "another witness has this name");
            }
            witnesses.push(Witness { url, key, ca_file });
        }
        h.close(w);
    }
    let keep = Keep {
        time: u64::try_from(time).unwrap_or(u64::MAX),
        // In a file 0 means no bound.
        bytes: Some(h.integer("max_bytes", 0, 0, u64::MAX >> 1)).filter(|most| *most > 0),
    };
    (keep, witnesses)
}

struct Credentials {
    oid: Option<BindingOid>,
    jwt_ttl: u64,
    workload_ttl: u64,
}

fn read_credentials(c: &mut Reader) -> Credentials {
    Credentials {
        oid: c.parsed("binding_oid", Some("1.3.6.1.4.1.32473.1"), str::parse::<BindingOid>),
        jwt_ttl: c.duration("jwt_ttl", "5m", 10, 3600).as_secs(),
        workload_ttl: c.duration("workload_ttl", "1h", 60, 7 * 86_400).as_secs(),
    }
}

struct Authorities {
    root: Option<RootFiles>,
    rotate_x509: u64,
    rotate_jwt: u64,
    refresh: u64,
}

fn read_authorities(a: &mut Reader) -> Authorities {
    let certificate = a.optional("root_certificate", |s| Ok(PathBuf::from(s)));
    let key = a.optional("root_key", |s| Ok(PathBuf::from(s)));
    if certificate.is_some() != key.is_some() {
        a.fault("root_certificate", "give both `root_certificate` and `root_key`, or neither");
    }
    Authorities {
        root: certificate.zip(key).map(|(certificate, key)| RootFiles { certificate, key }),
        rotate_x509: a.duration("rotate_x509", "30d", 1, 365 * 86_400).as_secs(),
        rotate_jwt: a.duration("rotate_jwt", "30d", 1, 365 * 86_400).as_secs(),
        refresh: a.duration("bundle_refresh", "5m", 1, 86_400).as_secs(),
    }
}

/// Returns `None` if the bundle is not served, or if the section has a fault.
fn read_bundle_endpoint(e: &mut Reader) -> Option<BundleEndpoint> {
    let listen = e.optional("listen", |s| s.parse::<SocketAddr>().map_err(|e| e.to_string()));
    let web = e.parsed("profile", Some("https_spiffe"), |s| match s {
        "https_spiffe" => Ok(false),
        "https_web" => Ok(true),
        _ => Err("write `https_spiffe` or `https_web`".to_owned()),
    })?;
    let certificate = e.optional("certificate", |s| Ok(PathBuf::from(s)));
    let key = e.optional("key", |s| Ok(PathBuf::from(s)));
    match (web, certificate.zip(key)) {
        (true, Some(files)) => Some(BundleEndpoint { listen: listen?, web: Some(files) }),
        (false, None) => Some(BundleEndpoint { listen: listen?, web: None }),
        (true, None) => {
            e.fault("certificate", "`https_web` needs `certificate` and `key`");
            None
        }
        (false, Some(_)) => {
            e.fault("certificate", "`https_spiffe` is served with our own SVID: leave `certificate` and `key` out");
            None
        }
    }
}

/// Every `[[workloads]]`.
#[derive(Default)]
struct Workloads {
    workloads: Vec<WorkloadName>,
    attest: Vec<Rule>,
    serves: BTreeMap<WorkloadName, BTreeSet<String>>,
    gateways: Vec<WorkloadName>,
    notified: BTreeMap<WorkloadName, Endpoint>,
}

/// The workloads, the rules by which they attest, the audiences that each of them serves, and those that are gateways.
fn read_workloads(top: &mut Reader) -> Workloads {
    let mut all = Workloads::default();
    for mut w in top.sections("workloads") {
        let name = w.parsed("name", None, |s| s.parse::<WorkloadName>().map_err(|e| e.to_string()));
        read_owner(&mut w);
        read_rules(&mut w, name.as_ref(), &mut all.attest);
        let gateway = w.boolean("gateway", false);
        let notify = w.optional("notify", https);
        let ca_file = w.optional("notify_ca_file", |s| Ok(PathBuf::from(s)));
        if ca_file.is_some() && notify.is_none() {
            w.fault("notify_ca_file", "give `notify` too: the address whose certificate this file verifies");
        }
        if let Some(name) = name {
            if all.workloads.contains(&name) {
                w.fault("name", &format!("`{name}` is already the name of another workload"));
            }
            let audiences = w.list("serves", Some(&[]), |s| {
                let ok = (1..=256).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_graphic());
                if ok { Ok(s.to_owned()) } else { Err("an audience has 1 to 256 visible ASCII characters".into()) }
            });
            all.serves.insert(name.clone(), audiences.into_iter().collect());
            if let Some(url) = notify {
                all.notified.insert(name.clone(), Endpoint { url, ca_file });
            }
            if gateway {
                all.gateways.push(name.clone());
            }
            all.workloads.push(name);
        }
        top.close(w);
    }
    all
}
