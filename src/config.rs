//! The configuration: one TOML file, read once into types that are valid by construction. Every fault of a file is reported, not
//! only the first.

mod actions;
mod attest;
mod audiences;
mod audit;
pub(crate) mod budget;
mod classes;
mod diff;
mod digest;
mod foreign;
mod https;
mod issuers;
mod limits;
mod notes;
mod operators;
mod places;
mod policy;
mod reader;
mod rules;
mod sections;
mod source;
mod writes;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mayfly_verify::{BindingOid, ClassName, TrustDomain, WorkloadName};

use crate::assertion::{IssuerSettings, Rule};
use crate::authority::RootFiles;
use crate::authority::schedule::Schedule;
use crate::foreign::Settings;
use crate::history::Keep;
use crate::history::audit::Settings as Audited;
use crate::history::witness::Settings as Witness;
use crate::judge::Places;
use crate::judge::action::Catalogue;
use crate::judge::approval::Waiting;
use crate::judge::assignment::Assignment;
use crate::judge::audience::Audience;
use crate::judge::limits::Limit;
use crate::judge::pace::{Paces, Verb};
use crate::judge::policy::Class;
use crate::listen::Bounds;
use crate::notify::Endpoint;
use crate::policies::Policies;
use crate::state::authority::{Kind, PUBLISHED};
pub use diff::{Difference, differences};
use reader::Reader;
pub use source::Source;

/// A complete file that explains each key.
pub const EXAMPLE: &str = include_str!("config/example.toml");

/// The trust domain of development.
pub const DEV_TRUST_DOMAIN: &str = "dev.mayfly.test";

const DEV: &str = include_str!("config/dev.toml");

/// Every fault of a file, one sentence each, with the file's name and the key. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Faults(pub Vec<String>);

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Everything that the issuer is configured with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our trust domain. An attacker who controls it names every identity.
    pub trust_domain: TrustDomain,
    /// Folder of all state. An attacker who can write there is the issuer.
    pub home: PathBuf,
    /// Address of the gRPC listener.
    pub listen: SocketAddr,
    /// DNS names and IP addresses in our server certificate, at least one. Join tokens contain the first.
    pub names: Vec<String>,
    /// Bounds of the gRPC listener. An attacker who raises them can exhaust the machine.
    pub bounds: Bounds,
    /// Whether gRPC reflection is served.
    pub reflection: bool,
    /// Address of the listener for metrics and health. It is a loopback address, unless the file says that the network may ask.
    pub http: SocketAddr,
    /// Path of the operator socket. `None` means `operator.sock` in the home.
    pub socket: Option<PathBuf>,
    /// Uids of operators. `None` means the uid that the issuer runs as. A listed uid can revoke, and can let workloads join.
    pub uids: Option<Vec<u32>>,
    /// Workloads that are operators too, over mTLS. A listed workload can do everything that an operator can, from any machine.
    pub operators: Vec<WorkloadName>,
    /// Uids of auditors. A listed uid reads everything over the operator socket, and changes nothing.
    pub auditor_uids: Vec<u32>,
    /// Workloads that are auditors too, over mTLS.
    pub auditors: Vec<WorkloadName>,
    /// People who are operators or auditors by a token of a provider of users. An attacker who controls the provider, or the claims that
    /// are asked for, is an operator.
    pub assignments: Vec<Assignment>,
    /// How the log is written.
    pub log: LogFormat,
    /// A filter of `tracing` that chooses what is logged.
    pub log_filter: String,
    /// Most requests in one commit.
    pub batch: usize,
    /// Most requests that wait or are carried, in each lane.
    pub queue: usize,
    /// Most bytes of the journal. `None` means that only the disk bounds it.
    pub journal_max: Option<u64>,
    /// Relays and guards that are asked at the start for the last heartbeat that they saw. An attacker who removes them can put an
    /// older home in the place of this one.
    pub witnesses: Vec<SocketAddr>,
    /// How many of them must answer.
    pub witnesses_needed: usize,
    /// How long the history is kept, and how much of it. An attacker who shortens it can have the traces of their acts deleted.
    pub history: Keep,
    /// Those who cosign its checkpoints. An attacker who removes them can tell different people different pasts.
    pub history_witnesses: Vec<Witness>,
    /// The collector to which the entries of the history are sent. An attacker who controls it reads for whom agents act.
    pub audit: Option<Audited>,
    /// How far the clock may be ahead of the last record at a start. An attacker who controls it and the clock can end every agent.
    pub max_downtime: Duration,
    /// OID of the binding: an extension in certificates, a claim in tokens.
    pub oid: BindingOid,
    /// Lifetime of a JWT-SVID, in seconds.
    pub jwt_ttl: u64,
    /// Lifetime of a workload's certificate, in seconds.
    pub workload_ttl: u64,
    /// Files of a root that the operator brings. `None` means that a root is made in the home.
    pub root: Option<RootFiles>,
    /// How long an X.509 authority signs, in seconds.
    pub rotate_x509: u64,
    /// How long a JWT authority signs, in seconds.
    pub rotate_jwt: u64,
    /// Seconds between two fetches of the bundle by a verifier. A new key is published for four times as long before its first
    /// use.
    pub refresh: u64,
    /// The HTTPS listener, and the `iss` of tokens.
    pub https: Https,
    /// Where the bundle is served over HTTPS. `None` means that it is not.
    pub bundle_endpoint: Option<BundleEndpoint>,
    /// Workloads that may join, and spawn agents.
    pub workloads: Vec<WorkloadName>,
    /// OIDC issuers whose tokens prove workloads. An attacker who controls one is each workload that attests by it.
    pub workload_issuers: Vec<IssuerSettings>,
    /// Which of their tokens prove which workload.
    pub attest: Vec<Rule>,
    /// The audiences that each workload serves, and so may introspect access tokens for. An attacker who controls this can
    /// introspect tokens that they have, and learn for whom they are.
    pub serves: BTreeMap<WorkloadName, BTreeSet<String>>,
    /// Where the agents of a workload hear that a person has answered. An attacker who controls it hears when, by ids that say nothing.
    pub notified: BTreeMap<WorkloadName, Endpoint>,
    /// Workloads that may spend the budgets of any agent. An attacker who controls one can use up every budget.
    pub gateways: Vec<WorkloadName>,
    /// Foreign trust domains whose listed workloads may spawn. An attacker who controls one is each of its listed workloads.
    pub foreign: Vec<Settings>,
    /// OIDC providers whose tokens prove a user. An attacker who controls one can act for each of its users.
    pub issuers: Vec<IssuerSettings>,
    /// Kinds of agents. An attacker who controls them decides what agents may do.
    pub classes: BTreeMap<ClassName, Class>,
    /// Types of actions. An attacker who controls them decides which fields of an action may still change after it was approved.
    pub actions: Catalogue,
    /// How many questions to people may wait. An attacker who raises the numbers can flood people, and fill memory.
    pub waiting: Waiting,
    /// Who is told of questions to people. An attacker who controls it learns what agents ask for, and can make links to the page for answers.
    pub webhook: Option<Webhook>,
    /// Settings of audiences. An attacker who controls them decides how long tokens live, and what they contain.
    pub audiences: BTreeMap<String, Audience>,
    /// How many agents there may be, and how fast they are spawned. An attacker who controls the limits can let a tree grow, or
    /// stop it.
    pub limits: Vec<Limit>,
    /// Rate limits of requests that are recorded. An attacker who controls them can fill the journal, or stop agents from renewing.
    pub writes: Vec<(Verb, Paces)>,
    /// File and line of each of these, and its owner.
    pub places: Places,
    /// Number of agents below one agent that may be ended or revoked one by one before that agent is revoked itself.
    pub taken_back: usize,
    /// Policies besides classes and limits. `None` means that there are none. An attacker who controls them can stop every agent,
    /// and remove what policies forbid.
    pub policies: Option<Arc<Policies>>,
    /// A candidate set of policies. It is evaluated too, but decides nothing.
    pub shadow: Option<Arc<Policies>>,
    /// The configuration as it is written, for comparing it with another.
    pub written: toml::Table,
}

/// A program that is told of questions to people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Where it is.
    pub to: Endpoint,
    /// The file with the secret that it has too.
    pub secret_file: PathBuf,
}

/// The listener for relying parties that speak OIDC and OAuth (RFC 8414, OpenID Connect Discovery 1.0).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Https {
    /// Its address. `None` means that nothing is served; another server may publish the documents.
    pub listen: Option<SocketAddr>,
    /// The `iss` of tokens, an https URL without a slash at its end. `None` means the listener's own address, or the SPIFFE ID of the
    /// trust domain if there is no listener.
    pub issuer: Option<String>,
    /// PEM files of the certificate's chain and its key. `None` means our own SVID, which relying parties verify with our root.
    pub web: Option<(PathBuf, PathBuf)>,
}

/// Where the SPIFFE bundle is served to anybody (SPIFFE Federation 5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleEndpoint {
    /// Address of the listener.
    pub listen: SocketAddr,
    /// PEM files of the certificate and its key, for the profile `https_web`. `None` means the profile `https_spiffe`, with our
    /// own SVID.
    pub web: Option<(PathBuf, PathBuf)>,
}

impl Config {
    /// Reads the configuration file for `mayfly serve`. Returns all errors in it, or why it cannot be read.
    pub fn load(path: &Path) -> Result<Config, Faults> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|e| Faults(vec![format!("{name}: {e}")]))?;
        Config::parse(&text, &name)
    }

    /// Reads the text of a file. Each fault begins with `name`.
    pub fn parse(text: &str, name: &str) -> Result<Config, Faults> {
        Config::read(&[(text, name)])
    }

    /// The configuration of development. `extra` is the text and the name of a file that adds classes, workloads and limits, or
    /// replaces those with the same name.
    pub fn dev(home: &Path, listen: SocketAddr, extra: Option<(&str, &str)>) -> Result<Config, Faults> {
        let mut texts = vec![(DEV, "built-in dev.toml")];
        texts.extend(extra);
        let mut config = Config::read(&texts)?;
        config.home = home.to_owned();
        config.listen = listen;
        Ok(config)
    }

    /// How often authorities rotate below a root that expires at `root_ends_at`, in Unix seconds.
    pub fn schedule(&self, root_ends_at: u64) -> Schedule {
        Schedule {
            x509: self.rotate_x509,
            jwt: self.rotate_jwt,
            rs256: self.audiences.values().any(|audience| audience.rs256),
            ahead: self.refresh.saturating_mul(4),
            x509_life: self.classes.values().map(|c| c.svid_ttl).max().unwrap_or(0).max(self.workload_ttl),
            jwt_life: self.audiences.values().filter_map(|a| a.lifetime).fold(self.jwt_ttl, u64::max),
            root_ends_at,
        }
    }

    /// Why the parts of this configuration contradict each other, although each file is valid by itself. `None` if they do.
    pub fn misfit(&self) -> Option<String> {
        let faults = check_schedule(&self.schedule(u64::MAX));
        faults.first().map(|(key, fault)| format!("{key}: {fault}"))
    }

    /// SHA-256 of classes, limits and audiences in a canonical form, as the journal records it. It changes if and only if one of their
    /// values does.
    pub fn digest(&self) -> [u8; 32] {
        digest::digest(&self.classes, &self.limits, &self.audiences, &self.actions)
    }

    /// Notes for an operator about this configuration that are no faults, a sentence for each.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = audiences::notes(&self.audiences, self.jwt_ttl);
        notes.extend(notes::scopes(self));
        notes
    }

    /// Reads texts that are merged; a later one replaces values of an earlier one. Faults begin with the name of the last one.
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
        let mut top = Reader::new(merged.clone(), String::new());
        let mut config = sections::read(&mut top).map(|config| Config { written: merged, ..config });
        if let Some(config) = &mut config {
            config.places = places::places(texts);
            check_schedule(&config.schedule(u64::MAX)).into_iter().for_each(|(key, fault)| top.fault(key, &fault));
        }
        top.finish();
        let faults: Vec<String> = top.faults.into_iter().map(|f| format!("{name}: {f}")).collect();
        if faults.is_empty() { config.ok_or_else(|| Faults(vec![format!("{name}: unreadable")])) } else { Err(Faults(faults)) }
    }
}

/// T57: a bundle has at most [`PUBLISHED`] keys of each kind, because relying parties read no more. Returns the keys of the
/// configuration that ask for more, each with what is wrong.
fn check_schedule(schedule: &Schedule) -> Vec<(&'static str, String)> {
    let kinds = [(Kind::X509, "authorities.rotate_x509"), (Kind::Jwt, "authorities.rotate_jwt")];
    let published = kinds.map(|(kind, key)| (key, schedule.published(kind)));
    let many = published.into_iter().filter(|(_, published)| *published > u64::try_from(PUBLISHED).unwrap_or(0));
    many.map(|(key, published)| {
        let message = format!(
            "{published} keys would be published at once, and {PUBLISHED} are allowed: rotate less often, or shorten the lifetime of credentials"
        );
        (key, message)
    })
    .collect()
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
