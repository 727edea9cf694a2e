//! The acts: one file for each thing that may be asked. An act's file holds its evidence, its judgement, its records, its
//! signature and its answer, in numbered steps; the rooms below have the parts.

pub mod answer;
pub mod approvals;
pub mod ask;
pub mod asking;
pub mod attest;
pub mod authorities;
pub mod backup;
pub mod budget;
pub mod client;
pub mod configure;
pub mod dpop;
pub mod end;
pub mod exchange;
pub mod extend;
pub mod history;
pub mod inspect;
pub mod introspect;
pub mod join;
pub mod mint;
pub mod ping;
pub mod poll;
pub mod present;
pub mod reach;
pub mod redeem;
pub mod renew;
pub mod reopen;
pub mod revoke;
pub mod revoke_token;
pub mod rotate;
pub mod spawn;
pub mod status;
mod throttle;
pub mod user;
pub mod webhook;
pub mod whoami;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use mayfly_agent::proofs::Proofs;
use mayfly_agent::ticket::{Secret, Ticket};
use mayfly_verify::{AgentId, BindingOid, TrustDomain, WorkloadName, inspect_x509, sha256};
use rustls_pki_types::CertificateDer;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::assertion::{Assertions, Attestations};
use crate::authority::{Authority, Signed};
use crate::caller::{Caller, Origin, Proved, authenticate, prove, prove_foreign, unauthenticated};
use crate::clock::{Clock, SECOND};
use crate::denial::{Denial, Fault, Kind as DenialKind, No};
use crate::foreign::{Foreign, Newest};
use crate::history::History;
use crate::history::audit::Audit;
use crate::history::witness::Witnesses;
use crate::judge::access::{self, Action};
use crate::judge::{Admission, Certification, RequestId, unknown_agent, who};
use crate::ledger::Ledger;
use crate::notify::{Endpoint, Notifier};
use crate::pipeline::Pipeline;
pub use crate::policies::Kept as KeptPolicies;
use crate::publish::Publisher;
use crate::publish::crl::Crls;
use crate::publish::feed::Feed;
use crate::state::{Generation, State};
pub use configure::Configuration;
use rotate::Rotator;
pub use throttle::Throttle;

/// Everything that the acts need, built once.
pub struct Issuer {
    /// The trust domain of this issuer.
    pub trust_domain: TrustDomain,
    /// The state, and the one writer that changes it.
    pub ledger: Ledger,
    /// The signing keys.
    pub authority: Arc<Authority>,
    /// The configured foreign trust domains: their bundles, and which of their workloads may spawn.
    pub foreign: Arc<Foreign>,
    /// The verifiers of user tokens and of workloads' platform tokens, as they are configured now.
    pub providers: ArcSwap<Providers>,
    /// Reads the configuration again.
    pub configuration: Configuration,
    /// The folder for copies of the journal, below the home.
    pub backups: PathBuf,
    /// Carries acts in groups.
    pub pipeline: Pipeline,
    /// The public half of the authorities.
    pub publisher: Publisher,
    /// CRLs, for verifiers that read nothing else.
    pub crls: Crls,
    /// Tells verifiers of cuts.
    pub feed: Arc<Feed>,
    /// Rotates the authorities.
    pub rotator: Rotator,
    /// Limits dry runs of revocations, each of which looks at every agent.
    pub counting: revoke::Counting,
    /// What explanations need.
    pub explaining: asking::Explaining,
    /// Verifies the JWT-SVIDs of clients, and remembers which were used.
    pub clients: Arc<client::Clients>,
    /// Remembers the DPoP proofs of clients, and makes their nonces.
    pub proofs: Proofs,
    /// The `iss` of every token: the URL of the HTTPS listener, if there is one.
    pub iss: String,
    /// Remembers when each approval was polled.
    pub polls: poll::Polls,
    /// Tells those who wait for approvals.
    pub pings: ping::Pings,
    /// Asks people at their providers.
    pub reach: reach::Reach,
    /// Tells a program of questions to people.
    pub hooks: Notifier,
    /// Limits how fast callers may make requests that are recorded.
    pub throttle: Throttle,
    /// In development: lets the development workload join again, and answers when it has. `None` under `serve`.
    pub rejoin: Option<mpsc::Sender<oneshot::Sender<()>>>,
    /// Keeps an entry for each record, denial and read.
    pub history: Arc<History>,
    /// Keeps every set of policies that was in force, for as long as the history.
    pub sets: KeptPolicies,
    /// Have its checkpoints cosigned.
    pub witnesses: Arc<Witnesses>,
    /// Sends the entries of the history to a collector. `None` if none is configured.
    pub audit: Option<Audit>,
    /// Seals the page tokens of lists.
    pub pages: inspect::Pages,
    /// Its readiness.
    pub health: status::Health,
    /// Tells the time.
    pub clock: Clock,
    /// The address in tickets: `host:port`.
    pub address: String,
}

/// The verifiers of user tokens and of workloads' platform tokens. A reload swaps them as a whole.
pub struct Providers {
    /// The number of the rules ([`Rules::number`](crate::judge::Rules)) that belong to it.
    pub number: u64,
    /// Verifies user tokens.
    pub assertions: Assertions,
    /// Verifies the tokens of workloads' platforms.
    pub attestations: Attestations,
    /// The URLs of the configured providers, by the names that people write.
    pub urls: BTreeMap<String, String>,
    /// Where the agents of a workload hear of answers.
    pub notified: BTreeMap<WorkloadName, Endpoint>,
    /// Who is told of questions to people. `None` if nobody is.
    pub webhook: Option<webhook::Webhook>,
}

/// A certificate of a workload or an agent, with the permit that it was signed for.
pub enum Certified {
    /// A workload's.
    Workload(Certification, Signed),
    /// An agent's.
    Agent(Box<Admission>, Signed),
}

impl Issuer {
    /// Verifies the certificates of a peer; once for a connection, which was accepted when the journal's head was `opened`.
    pub fn prove(&self, chain: &[CertificateDer<'_>], opened: u64) -> Result<Proved, Denial> {
        let now = self.clock.seconds();
        match self.foreign_bundle(chain) {
            Some(newest) => prove_foreign(chain, (newest.bundle(), newest.generation()), self.oid(), opened, now),
            None => prove(chain, &self.publisher.now().bundle, self.oid(), opened, now),
        }
    }

    /// Verifies a foreign peer's certificates again if the bundle of its trust domain has changed since.
    pub fn prove_again(&self, peer: &Proved, chain: &[CertificateDer<'_>]) -> Result<(), Denial> {
        let Some(id) = peer.foreign() else { return Ok(()) };
        let gone = || unauthenticated("CREDENTIAL_UNTRUSTED", "there is no bundle of the caller's trust domain any more");
        let newest = self.foreign.newest(id.trust_domain()).ok_or_else(gone)?;
        peer.prove_again(chain, (newest.bundle(), newest.generation()), self.oid(), self.clock.seconds())
    }

    /// XV-1: the bundle that judges a chain follows from the trust domain that its leaf names, and from nothing else. `None` means
    /// our own bundle, which refuses every other trust domain.
    fn foreign_bundle(&self, chain: &[CertificateDer<'_>]) -> Option<Arc<Newest>> {
        if self.foreign.is_empty() {
            return None;
        }
        let claimed = inspect_x509(chain.first()?, &self.trust_domain, self.oid()).ok()?;
        self.foreign.newest(claimed.id.trust_domain())
    }

    /// The caller behind a verified peer at this call, in the role in which it asks.
    pub async fn caller(&self, peer: &Proved, action: Action) -> Result<Caller, No> {
        let rules = self.ledger.rules();
        let (caller, generation) = self.ledger.read(|state| {
            let (caller, generation) = self.now(state, peer)?;
            Ok::<_, Denial>((access::acting(action, caller, state, &rules), generation))
        })?;
        // The ledger decides on any certificate but the current one: it records the first use of a renewed one, refuses a
        // replaced one, and revokes the agent if a past one is used on a new connection.
        if generation != Generation::Current {
            Box::pin(present::present(self, caller.clone(), action)).await?;
        }
        Ok(caller)
    }

    /// A person with a token for operators, in the role in which they ask. The token was verified a moment ago; whether it still counts,
    /// and what it makes of them, is judged now.
    pub fn person(&self, person: Caller, action: Action) -> Result<Caller, Denial> {
        let rules = self.ledger.rules();
        self.ledger.read(|state| {
            who(state, &rules, &person, self.clock.now())?;
            Ok(access::acting(action, person, state, &rules))
        })
    }

    /// Whether a caller may ask for an action, and has not asked too often. Every door asks this before it acts.
    pub fn may(&self, action: Action, caller: Caller) -> Result<Caller, No> {
        access::check(action, &caller)?;
        if access::issues(action) && self.audit.as_ref().is_some_and(Audit::refuses) {
            let message = "the entries of the audit cannot be written, and nothing is issued without them: ask again";
            return Err(Denial::new(DenialKind::Unavailable, "AUDIT_UNWRITABLE", message).into());
        }
        self.throttle(&caller, action)?;
        Ok(caller)
    }

    /// Whether everything that a connection's peer could ask for would be refused.
    pub fn is_over(&self, peer: &Proved) -> bool {
        self.ledger.read(|state| self.now(state, peer).is_err())
    }

    /// The caller behind a verified peer now, and which of its certificates it uses. Nothing is recorded.
    pub(crate) fn now(&self, state: &State, peer: &Proved) -> Result<(Caller, Generation), Denial> {
        let now = self.clock.now();
        // If the agent is in the state, the state says why it may not act. Otherwise only the stamps of its certificate can be
        // checked.
        let cut = |id: &AgentId, incarnation, stamps: &[_]| {
            let known = incarnation == state.incarnation && state.agent(&id.uuid).is_some();
            !known && state.is_cut(incarnation, stamps)
        };
        let caller = authenticate(peer, |id| self.foreign.spawner(id), cut, now / SECOND)?;
        let generation = who(state, &self.ledger.rules(), &caller, now)?;
        Ok((caller, generation))
    }

    /// The SPIFFE ID of the root workload of a known agent. `None` for anybody else.
    pub fn root_of(&self, id: &mayfly_verify::SpiffeId) -> Option<String> {
        let agent = AgentId::parse(&id.to_string()).ok()?;
        let workload = self.ledger.read(|state| state.agent(&agent.uuid).map(|agent| agent.mandate.workload.clone()))?;
        Some(workload.id(&self.trust_domain))
    }

    /// OID of the certificate extension that carries an agent's binding.
    pub fn oid(&self) -> &BindingOid {
        self.authority.oid()
    }

    /// The UUID of an agent from its SPIFFE ID, its class and UUID, or its UUID. T01: nothing is normalised, and every part of the id
    /// must be the agent's.
    pub fn agent_id(&self, text: &str) -> Result<Uuid, Denial> {
        if let Ok(uuid) = Uuid::try_parse(text) {
            let message = "write the UUID in lower case with hyphens, or the whole SPIFFE ID";
            return if uuid.to_string() == text { Ok(uuid) } else { Err(Denial::malformed("AGENT_MALFORMED", message)) };
        }
        let is_short = !text.contains("://") && text.matches('/').count() == 1;
        let whole = if is_short { format!("spiffe://{}/agent/{text}", self.trust_domain) } else { text.to_owned() };
        let id = AgentId::parse(&whole).map_err(|e| Denial::malformed("AGENT_MALFORMED", e.to_string()))?;
        let class = |state: &State| state.agent(&id.uuid).map(|agent| agent.mandate.class.clone());
        let class = self.ledger.read(class);
        if id.trust_domain == self.trust_domain && class.is_none_or(|class| class == id.class) {
            Ok(id.uuid)
        } else {
            Err(unknown_agent())
        }
    }

    /// The ticket string: the address, trust domain and root pin of the issuer, and the secret. A process needs nothing else to
    /// connect.
    fn ticket(&self, secret: &[u8; 32]) -> Result<Ticket, Fault> {
        let pin = self.authority.root_pin();
        Ticket::new(&self.address, self.trust_domain.clone(), pin, Secret::new(*secret)).map_err(|e| Fault::new("ticket", e))
    }
}

/// A request id of one caller and method, with a digest of what is asked. `None` if the client gave none.
fn request_id(caller: &Caller, method: &str, id: &str, asked: &[&[u8]]) -> Result<Option<RequestId>, Denial> {
    if id.is_empty() {
        return Ok(None);
    }
    if id.len() > 64 || !id.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Denial::malformed("REQUEST_ID_MALFORMED", "the request id has 1 to 64 visible ASCII characters"));
    }
    Origin::note(|origin| drop(origin.request_id.set(id.into())));
    let key = digest(&[caller.scope().as_bytes(), method.as_bytes(), id.as_bytes()]);
    Ok(Some(RequestId { key, digest: digest(asked) }))
}

/// SHA-256 over parts, each with its length before it.
fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    sha256(&bytes)
}
