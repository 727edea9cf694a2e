//! Configuration: one TOML file, read once into types that cannot be wrong. Every fault is reported, not the first.

mod foreign;
mod reader;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use mayfly_verify::{BindingOid, ClassName, Mode, TrustDomain, Workload, WorkloadName, sha256};

use crate::assertion::{AudienceSettings, DEFAULT_ALGS, IssuerSettings};
use crate::authority::RootFiles;
use crate::authority::schedule::Schedule;
use crate::doors::listen::Bounds;
use crate::foreign::Settings;
use crate::judge::limits::{Limit, Measure, Per, WINDOW};
use crate::judge::policy::Class;
use crate::state::authority::{Kind, PUBLISHED};
use foreign::{Known, read_foreign};
use reader::Reader;

/// A complete file, with what each key means.
pub const EXAMPLE: &str = include_str!("config/example.toml");

/// The development trust domain.
pub const DEV_TRUST_DOMAIN: &str = "dev.mayfly.test";

const DEV: &str = include_str!("config/dev.toml");

/// Everything that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Faults(pub Vec<String>);

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What the issuer runs with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Ours. Who controls it names every identity.
    pub trust_domain: TrustDomain,
    /// Folder of all state. Who can write there is the issuer.
    pub home: PathBuf,
    /// Where gRPC listens.
    pub listen: SocketAddr,
    /// DNS names and IP addresses of our server certificate; the first is what join tokens tell.
    pub names: Vec<String>,
    /// Bounds of the gRPC listener. Who raises them can exhaust the machine.
    pub bounds: Bounds,
    /// Bytes of one message.
    pub message: usize,
    /// Whether gRPC reflection answers.
    pub reflection: bool,
    /// Where metrics and health listen; loopback.
    pub http: SocketAddr,
    /// The operator socket; none: `operator.sock` in the home.
    pub socket: Option<PathBuf>,
    /// Uids of operators; none: the uid that the issuer runs as. Who is listed can revoke and join.
    pub uids: Option<Vec<u32>>,
    /// Workloads that are operators too, over mTLS. Who is listed can do what an operator can, from anywhere.
    pub operators: Vec<WorkloadName>,
    /// How the log is written.
    pub log: LogFormat,
    /// What is logged, as `tracing` filters have it.
    pub log_filter: String,
    /// Requests in one commit at most.
    pub batch: usize,
    /// Requests that wait at most.
    pub queue: usize,
    /// Bytes of the journal at most; none: as the disk allows.
    pub journal_max: Option<u64>,
    /// Under which OID the binding stands.
    pub oid: BindingOid,
    /// Seconds a JWT-SVID lasts.
    pub jwt_ttl: u64,
    /// The `iss` of JWT-SVIDs, an https URL.
    pub jwt_issuer: Option<String>,
    /// Seconds a workload's certificate lasts.
    pub workload_ttl: u64,
    /// A root that somebody else made; none: one is made in the home.
    pub root: Option<RootFiles>,
    /// Seconds for which an X.509 authority signs.
    pub rotate_x509: u64,
    /// Seconds for which a JWT authority signs.
    pub rotate_jwt: u64,
    /// Seconds after which verifiers look for a newer bundle; new keys are published four times as long before use.
    pub refresh: u64,
    /// Where the bundle is served over HTTPS; none: nowhere.
    pub bundle_endpoint: Option<BundleEndpoint>,
    /// Programs that may spawn agents.
    pub workloads: Vec<WorkloadName>,
    /// Foreign trust domains whose listed workloads may spawn. Who controls one is every workload that is listed of it.
    pub foreign: Vec<Settings>,
    /// OIDC providers whose tokens count. Who controls one acts for every user of it.
    pub issuers: Vec<IssuerSettings>,
    /// Kinds of agents. Who controls them says what agents may do.
    pub classes: BTreeMap<ClassName, Class>,
    /// How many and how fast. Who controls them can let a tree grow, or stop it.
    pub limits: Vec<Limit>,
}

/// Where the SPIFFE bundle is served to anybody (Federation 5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleEndpoint {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The certificate and key of `https_web`, PEM files; none: `https_spiffe`, by our own SVID.
    pub web: Option<(PathBuf, PathBuf)>,
}

impl Config {
    /// How often authorities rotate, below a root that ends at `root_ends_at` (unix seconds).
    pub fn schedule(&self, root_ends_at: u64) -> Schedule {
        Schedule {
            x509: self.rotate_x509,
            jwt: self.rotate_jwt,
            ahead: self.refresh.saturating_mul(4),
            x509_life: self.classes.values().map(|c| c.svid_ttl).max().unwrap_or(0).max(self.workload_ttl),
            jwt_life: self.jwt_ttl,
            root_ends_at,
        }
    }

    /// Reads a file for `serve`.
    pub fn load(path: &Path) -> Result<Config, Faults> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|e| Faults(vec![format!("{name}: {e}")]))?;
        Config::parse(&text, &name)
    }

    /// Reads the text of a file; `name` stands before each fault.
    pub fn parse(text: &str, name: &str) -> Result<Config, Faults> {
        Config::read(&[(text, name)])
    }

    /// The development configuration, with classes, workloads and limits of another file laid over it.
    pub fn dev(home: &Path, listen: SocketAddr, extra: Option<(&str, &str)>) -> Result<Config, Faults> {
        let mut texts = vec![(DEV, "development")];
        texts.extend(extra);
        let mut config = Config::read(&texts)?;
        config.home = home.to_owned();
        config.listen = listen;
        Ok(config)
    }

    fn read(texts: &[(&str, &str)]) -> Result<Config, Faults> {
        let mut faults = Vec::new();
        let mut merged = toml::Table::new();
        let mut name = "";
        for (text, of) in texts {
            name = of;
            match text.parse::<toml::Table>() {
                Ok(table) => reader::lay_over(&mut merged, table),
                Err(e) => faults.push(format!("{of}: {}", e.to_string().trim_end().replace('\n', "\n  "))),
            }
        }
        if !faults.is_empty() {
            return Err(Faults(faults));
        }
        let mut top = Reader::new(merged, String::new());
        let config = read(&mut top);
        if let Some(config) = &config {
            check_schedule(&mut top, &config.schedule(u64::MAX));
        }
        top.finish();
        let faults = top.faults.into_iter().map(|f| format!("{name}: {f}")).collect::<Vec<_>>();
        if faults.is_empty() { config.ok_or_else(|| Faults(vec![format!("{name}: unreadable")])) } else { Err(Faults(faults)) }
    }

    /// SHA-256 over classes and limits, as the journal records it.
    pub fn digest(&self) -> [u8; 32] {
        sha256(format!("{:?} {:?}", self.classes, self.limits).as_bytes())
    }
}

fn read(top: &mut Reader) -> Option<Config> {
    let trust_domain = top.parsed("trust_domain", None, |s: &str| match TrustDomain::new(s) {
        Ok(td) if td.as_str() == s => Ok(td),
        Ok(_) => Err("write it in lower case, without a scheme".into()),
        Err(e) => Err(e.to_string()),
    });
    let home = top.parsed("home", Some(".mayfly"), |s| Ok(PathBuf::from(s)));

    let mut server = top.section("server");
    let listen = server.parsed("listen", Some("127.0.0.1:8443"), |s| s.parse::<SocketAddr>().map_err(|e| e.to_string()));
    let names = server.list("names", Some(&["localhost", "127.0.0.1"]), |s| {
        let dns = !s.is_empty() && s.len() <= 253 && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
        // T34: never a wildcard.
        if dns || s.parse::<std::net::IpAddr>().is_ok() { Ok(s.to_owned()) } else { Err("no DNS name or IP address".into()) }
    });
    if names.is_empty() {
        server.fault("names", "give at least one name");
    }
    let handshake = server.duration("handshake_timeout", "5s", 1, 60);
    let request = server.duration("request_timeout", "10s", 1, 300);
    let drain = server.duration("drain_timeout", "10s", 1, 600);
    let connections = server.integer("max_connections", 1024, 1, 1_000_000);
    let message = server.integer("max_message_bytes", 64 * 1024, 16 * 1024, 4 << 20);
    let headers = server.integer("max_header_bytes", 16 * 1024, 4096, 1 << 20);
    let streams = server.integer("max_concurrent_streams", 256, 1, 10_000);
    let reflection = server.boolean("reflection", false);
    top.close(server);

    let mut section = top.section("http");
    let http = section.parsed("listen", Some("127.0.0.1:9464"), |s| match s.parse::<SocketAddr>() {
        Ok(a) if a.ip().is_loopback() => Ok(a),
        Ok(_) => Err("metrics and health are served on loopback only".into()),
        Err(e) => Err(e.to_string()),
    });
    top.close(section);

    let mut operator = top.section("operator");
    let socket = operator.optional("socket", |s| Ok(PathBuf::from(s)));
    let uids = operator.integers("uids");
    let operators = operator.list("workloads", Some(&[]), |s| s.parse::<WorkloadName>().map_err(|e| e.to_string()));
    top.close(operator);

    let mut log = top.section("log");
    let format = log.parsed("format", Some("text"), |s| match s {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("write `text` or `json`".into()),
    });
    let filter = log.parsed("filter", Some("info"), |s| Ok(s.to_owned()));
    top.close(log);

    let mut journal = top.section("journal");
    let batch = journal.integer("batch_max", 256, 1, 10_000);
    let queue = journal.integer("queue_max", 4096, 1, 1_000_000);
    let journal_max = journal.integer("max_bytes", 0, 0, u64::MAX >> 1);
    top.close(journal);

    let mut credentials = top.section("credentials");
    let oid = credentials.parsed("binding_oid", Some("1.3.6.1.4.1.32473.1"), str::parse::<BindingOid>);
    let jwt_ttl = credentials.duration("jwt_ttl", "5m", 10, 3600);
    let workload_ttl = credentials.duration("workload_ttl", "1h", 60, 7 * 86_400);
    let jwt_issuer = credentials.optional("jwt_issuer", https);
    top.close(credentials);

    let mut authorities = top.section("authorities");
    let certificate = authorities.optional("root_certificate", |s| Ok(PathBuf::from(s)));
    let key = authorities.optional("root_key", |s| Ok(PathBuf::from(s)));
    if certificate.is_some() != key.is_some() {
        authorities.fault("root_certificate", "give both `root_certificate` and `root_key`, or neither");
    }
    let root = certificate.zip(key).map(|(certificate, key)| RootFiles { certificate, key });
    let rotate_x509 = authorities.duration("rotate_x509", "30d", 1, 365 * 86_400).as_secs();
    let rotate_jwt = authorities.duration("rotate_jwt", "30d", 1, 365 * 86_400).as_secs();
    let refresh = authorities.duration("bundle_refresh", "5m", 1, 86_400).as_secs();
    top.close(authorities);

    let mut endpoint = top.section("bundle_endpoint");
    let bundle_endpoint = read_bundle_endpoint(&mut endpoint);
    top.close(endpoint);

    let mut workloads: Vec<WorkloadName> = Vec::new();
    for mut w in top.sections("workloads") {
        if let Some(name) = w.parsed("name", None, |s| s.parse::<WorkloadName>().map_err(|e| e.to_string())) {
            if workloads.contains(&name) {
                w.fault("name", &format!("`{name}` stands here twice"));
            }
            workloads.push(name);
        }
        top.close(w);
    }
    if let Some(unknown) = operators.iter().find(|name| !workloads.contains(name)) {
        top.fault("operator.workloads", &format!("workload `{unknown}` is not configured"));
    }
    let (foreign, domains) = read_foreign(top, trust_domain.as_ref());
    let known = Known { own: &workloads, foreign: &domains };
    let mut classes = BTreeMap::new();
    let mut spawning_classes = Vec::new();
    for mut c in top.sections("classes") {
        if let Some(class) = read_class(&mut c, &known) {
            spawning_classes.extend(class.classes.iter().map(|s| (class.name.clone(), s.clone())));
            let name = class.name.clone();
            if classes.insert(class.name.clone(), class).is_some() {
                c.fault("name", &format!("`{name}` stands here twice"));
            }
        }
        top.close(c);
    }
    for (class, spawner) in spawning_classes {
        if !classes.contains_key(&spawner) {
            top.fault("classes", &format!("`{class}` names the spawner `class/{spawner}`, which is not configured"));
        }
    }
    let mut limits: Vec<Limit> = Vec::new();
    for mut l in top.sections("limits") {
        if let Some(limit) = read_limit(&mut l) {
            if limits.iter().any(|o| o.name == limit.name) {
                l.fault("name", &format!("`{}` stands here twice", limit.name));
            }
            limits.push(limit);
        }
        top.close(l);
    }
    let mut issuers: Vec<IssuerSettings> = Vec::new();
    for mut i in top.sections("issuers") {
        if let Some(issuer) = read_issuer(&mut i, &known) {
            if issuers.iter().any(|o| o.name == issuer.name || o.issuer == issuer.issuer) {
                i.fault("name", "the same name or URL stands here twice");
            }
            issuers.push(issuer);
        }
        top.close(i);
    }
    let bounds = Bounds {
        handshake,
        connections: usize::try_from(connections).unwrap_or(1024),
        streams: u32::try_from(streams).unwrap_or(256),
        headers: u32::try_from(headers).unwrap_or(16 * 1024),
        request,
        drain,
    };
    Some(Config {
        trust_domain: trust_domain?,
        home: home?,
        listen: listen?,
        names,
        bounds,
        message: usize::try_from(message).unwrap_or(64 * 1024),
        reflection,
        http: http?,
        socket,
        uids,
        operators,
        log: format?,
        log_filter: filter?,
        batch: usize::try_from(batch).unwrap_or(256),
        queue: usize::try_from(queue).unwrap_or(4096),
        journal_max: Some(journal_max).filter(|m| *m > 0),
        oid: oid?,
        jwt_ttl: jwt_ttl.as_secs(),
        jwt_issuer,
        workload_ttl: workload_ttl.as_secs(),
        root,
        rotate_x509,
        rotate_jwt,
        refresh,
        bundle_endpoint,
        workloads,
        foreign,
        issuers,
        classes,
        limits,
    })
}

/// T57: relying parties read no more keys than [`PUBLISHED`].
fn check_schedule(top: &mut Reader, schedule: &Schedule) {
    for (kind, key) in [(Kind::X509, "authorities.rotate_x509"), (Kind::Jwt, "authorities.rotate_jwt")] {
        let published = schedule.published(kind);
        if published > u64::try_from(PUBLISHED).unwrap_or(0) {
            let message = format!(
                "{published} keys would be published at once, and {PUBLISHED} are allowed: rotate less often, or let credentials last shorter"
            );
            top.fault(key, &message);
        }
    }
}

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

/// One limit has one measure; what it counts must fit whose it is.
fn read_limit(l: &mut Reader) -> Option<Limit> {
    let name = l.parsed("name", None, |s| s.parse::<ClassName>().map(|n| n.to_string()).map_err(|e| e.to_string()));
    let per = l.parsed("per", None, |s| match s {
        "user" => Ok(Per::User),
        "root" => Ok(Per::Root),
        "workload" => Ok(Per::Workload),
        "parent" => Ok(Per::Parent),
        "class" => Ok(Per::Class),
        _ => Err("write `user`, `root`, `workload`, `parent` or `class`".to_owned()),
    });
    let kinds = ["live", "fan_out", "rate", "total"].into_iter().filter(|k| l.has(k)).collect::<Vec<_>>();
    let measure = match kinds.as_slice() {
        ["live"] => Measure::Live(l.integer("live", 0, 1, u64::from(u32::MAX))),
        ["fan_out"] => {
            if !matches!(per, Some(Per::Parent | Per::Workload)) {
                l.fault("fan_out", "only a `parent` or a `workload` has children");
            }
            Measure::FanOut(l.integer("fan_out", 0, 1, u64::from(u32::MAX)))
        }
        ["rate"] => {
            let period = l.parsed("rate", None, |s| {
                let (count, unit) = s.split_once('/').ok_or("write it as `50/s`, `100/m` or `1000/h`")?;
                let count = count.parse::<u64>().ok().filter(|c| *c > 0).ok_or("begin with a number above 0")?;
                let unit = match unit {
                    "s" => 1_000_000,
                    "m" => 60_000_000,
                    "h" => 3_600_000_000,
                    _ => return Err("end with `/s`, `/m` or `/h`".to_owned()),
                };
                if count > unit { Err("at most a million in a second".to_owned()) } else { Ok(unit / count) }
            })?;
            let burst = l.integer("burst", 1, 1, 1_000_000);
            if period.saturating_mul(burst) > WINDOW {
                l.fault("burst", "a burst must be earned back within an hour: the journal remembers no longer");
            }
            Measure::Rate { period, burst }
        }
        ["total"] => {
            let most = l.integer("total", 0, 1, u64::from(u32::MAX));
            Measure::Total { most, window: u64::try_from(l.duration("window", "1h", 1, 3600).as_micros()).unwrap_or(WINDOW) }
        }
        _ => {
            l.fault("live", "give exactly one of `live`, `fan_out`, `rate` and `total`");
            return None;
        }
    };
    Some(Limit { name: name?, per: per?, measure })
}

fn read_class(c: &mut Reader, known: &Known<'_>) -> Option<Class> {
    let name = c.parsed("name", None, |s| s.parse::<ClassName>().map_err(|e| e.to_string()));
    let owner =
        c.parsed("owner", None, |s| if s.trim().is_empty() { Err("say who answers for it".into()) } else { Ok(s.to_owned()) });
    let scopes = c.list("scopes", None, |s| {
        // RFC 6749, 3.3: scope-token.
        let ok = (1..=128).contains(&s.len()) && s.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e));
        if ok { Ok(s.to_owned()) } else { Err("no scope (RFC 6749, 3.3)".into()) }
    });
    let audiences = c.list("audiences", None, |s| {
        let ok = (1..=256).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_graphic());
        if ok { Ok(s.to_owned()) } else { Err("an audience has 1 to 256 visible ASCII characters".into()) }
    });
    if scopes.len() > 64 || audiences.len() > 64 {
        c.fault("scopes", "at most 64 scopes and 64 audiences");
    }
    let svid_ttl = c.duration("svid_ttl", "15m", 10, 86_400).as_secs();
    let max_lease = c.duration("max_lease", "8h", 60, 30 * 86_400).as_secs();
    if svid_ttl > max_lease {
        c.fault("svid_ttl", "an SVID cannot last longer than `max_lease`");
    }
    let max_depth = c.integer("max_depth", 0, 0, 16);
    let modes =
        c.list("modes", Some(&["delegated"]), |s| s.parse::<Mode>().map_err(|_| "write `delegated` or `autonomous`".into()));
    let mut workloads: Vec<Workload> = Vec::new();
    let mut classes = Vec::new();
    let spawners = c.list("spawners", None, |s| match s.split_once('/') {
        Some(("workload", name)) => known.own(name).map(|w| (Some(w), None)),
        Some(("spiffe:", _)) => known.foreign(s).map(|w| (Some(w), None)),
        Some(("class", name)) => name.parse::<ClassName>().map(|c| (None, Some(c))).map_err(|e| e.to_string()),
        _ => Err("write `workload/<name>`, `class/<name>` or a whole foreign SPIFFE ID".into()),
    });
    for (w, k) in spawners {
        workloads.extend(w);
        classes.extend(k);
    }
    Some(Class {
        name: name?,
        owner: owner?,
        scopes: scopes.into_iter().collect(),
        audiences: audiences.into_iter().collect(),
        svid_ttl,
        max_lease,
        max_depth: u32::try_from(max_depth).ok()?,
        modes,
        workloads,
        classes,
    })
}

fn read_issuer(i: &mut Reader, known: &Known<'_>) -> Option<IssuerSettings> {
    let name = i.parsed("name", None, |s| s.parse::<ClassName>().map(|n| n.to_string()).map_err(|e| e.to_string()));
    let issuer = i.parsed("issuer", None, https);
    let jwks_url = i.optional("jwks_url", https);
    let ca_file = i.optional("ca_file", |s| Ok(PathBuf::from(s)));
    // Not over a day: a cut is kept that long for tokens from before it.
    let max_age = i.duration("max_age", "1h", 60, 86_400);
    let mut audiences = Vec::new();
    for mut a in i.sections("audiences") {
        let audience = a.parsed("audience", None, |s| Ok(s.to_owned()));
        let revokes = a.boolean("revokes", false);
        // Whose tokens only revoke, nobody else may hold.
        let none = revokes.then_some(&[][..]);
        let workloads = a.list("workloads", none, |s| if s.starts_with("spiffe:") { known.foreign(s) } else { known.own(s) });
        let scopes = a.has("scopes").then(|| a.list("scopes", None, |s| Ok(s.to_owned())));
        let max_lease = a.has("max_lease").then(|| a.duration("max_lease", "1h", 60, 30 * 86_400));
        if let Some(audience) = audience {
            audiences.push(AudienceSettings { audience, workloads, scopes, max_lease, revokes });
        }
        i.close(a);
    }
    if audiences.is_empty() {
        i.fault("audiences", "say which audiences count, and which workloads may present them");
    }
    Some(IssuerSettings {
        name: name?,
        issuer: issuer?,
        jwks_url,
        ca_file,
        audiences,
        max_age,
        allowed_algs: DEFAULT_ALGS.to_vec(),
    })
}

fn https(s: &str) -> Result<String, String> {
    let url = reqwest::Url::parse(s).map_err(|e| e.to_string())?;
    let plain = url.scheme() == "https" && url.username().is_empty() && url.password().is_none();
    let bare = url.fragment().is_none() && url.query().is_none();
    if plain && bare { Ok(s.to_owned()) } else { Err("write an https URL without user, query or fragment".into()) }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_example_is_a_configuration() {
        let config = Config::parse(EXAMPLE, "example").unwrap();
        assert!(!config.classes.is_empty() && !config.issuers.is_empty());
        let dev = Config::dev(Path::new("/x"), "127.0.0.1:0".parse().unwrap(), None).unwrap();
        assert_eq!(dev.trust_domain.as_str(), DEV_TRUST_DOMAIN);
    }

    #[test]
    fn every_fault_is_reported_at_once() {
        let text = "trust_domain = \"BAD\"\nsurprise = 1\n[server]\nlisten = \"x\"\nmax_conections = 3\n[http]\nlisten = \"0.0.0.0:1\"\n\
                    [[classes]]\nname = \"A\"\nsvid_ttl = \"0s\"\nspawners = [\"workload/nobody\"]\n";
        let faults = Config::parse(text, "f").unwrap_err().0;
        for part in [
            "trust_domain",
            "surprise",
            "server.listen",
            "max_conections",
            "loopback",
            "classes[0].name",
            "owner",
            "svid_ttl",
            "nobody",
        ] {
            assert!(faults.iter().any(|f| f.contains(part)), "{part} not in {faults:#?}");
        }
        assert!(faults.iter().any(|f| f.contains("max_connections")), "a near miss is named");
    }
}
