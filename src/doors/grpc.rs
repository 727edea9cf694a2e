//! The gRPC services, over TLS and over the operator socket: parse, call a story, answer.

mod authorities;
mod bundles;
pub(super) mod revocations;
mod targets;

use std::sync::Arc;
use std::time::{Duration, Instant};

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::spawn_batch_response as batch_response;
use mayfly_verify::Mode;
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::listen::{Connection, Peer, Watch};
use super::{access, status};
use crate::authority::Signed;
use crate::caller::Caller;
use crate::clock::SECOND;
use crate::denial::{Denial, Fault, No};
use crate::policy::Asked;
use crate::publish::Published;
use crate::registry::state::{Agent, Standing};
use crate::registry::{Mint, Outcome};
use crate::stories::{Issuer, inspect, issue, revoke};

/// The server traits, generated onto the messages of `mayfly-agent`.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    reason = "generated"
)]
pub(super) mod server {
    include!(concat!(env!("OUT_DIR"), "/mayfly.v1.rs"));
}

use server::authorities_server::AuthoritiesServer;
use server::batches_server::{Batches, BatchesServer};
use server::bundles_server::BundlesServer;
use server::identities_server::{Identities, IdentitiesServer};
use server::inspection_server::{Inspection, InspectionServer};
use server::operations_server::{Operations, OperationsServer};
use server::revocations_server::RevocationsServer;

/// File descriptors of the API, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/mayfly.bin"));

/// Every service as one router. `message` bounds a request in bytes, `patience` how long the reader of a batch may take
/// for one answer. Streams end when `stop` says so.
pub fn routes(issuer: Arc<Issuer>, message: usize, patience: Duration, stop: watch::Receiver<bool>) -> tonic::service::Routes {
    let door = Arc::new(Door { issuer, patience, stop });
    tonic::service::Routes::new(IdentitiesServer::from_arc(Arc::clone(&door)).max_decoding_message_size(message))
        .add_service(BatchesServer::from_arc(Arc::clone(&door)).max_decoding_message_size(message.max(BATCH_MESSAGE)))
        .add_service(OperationsServer::from_arc(Arc::clone(&door)).max_decoding_message_size(message))
        .add_service(InspectionServer::from_arc(Arc::clone(&door)).max_decoding_message_size(message))
        .add_service(BundlesServer::from_arc(Arc::clone(&door)).max_decoding_message_size(message))
        .add_service(RevocationsServer::from_arc(Arc::clone(&door)).max_decoding_message_size(message))
        .add_service(AuthoritiesServer::from_arc(door).max_decoding_message_size(message))
}

/// Ends the connections of those who are cut.
#[derive(Clone)]
pub struct Peers(pub Arc<Issuer>);

impl Watch for Peers {
    fn head(&self) -> u64 {
        self.0.registry.read(|state| state.revision)
    }

    // Without a cut nobody is looked at; whoever has not called yet is judged when they do.
    async fn over(&self, peer: &Connection) {
        let mut cuts = self.0.feed.cuts();
        while cuts.changed().await.is_ok() {
            if peer.proved.get().is_some_and(|proved| self.0.is_over(proved)) {
                return;
            }
        }
        std::future::pending::<()>().await;
    }
}

/// Bytes of a request for a batch: a thousand certification requests.
const BATCH_MESSAGE: usize = 1 << 20;

struct Door {
    issuer: Arc<Issuer>,
    patience: Duration,
    stop: watch::Receiver<bool>,
}

impl Door {
    /// What every method does: who calls, may they, run, count, answer.
    async fn run<T, R, F>(
        &self,
        method: &'static str,
        request: Request<T>,
        story: impl FnOnce(Arc<Issuer>, Caller, T) -> F,
    ) -> Result<Response<R>, Status>
    where
        R: Send + 'static,
        F: Future<Output = Result<R, No>> + Send + 'static,
    {
        let caller = self.caller(&request).await;
        self.run_as(method, caller, request, story).await
    }

    async fn run_as<T, R, F>(
        &self,
        method: &'static str,
        caller: Result<Caller, No>,
        request: Request<T>,
        story: impl FnOnce(Arc<Issuer>, Caller, T) -> F,
    ) -> Result<Response<R>, Status>
    where
        R: Send + 'static,
        F: Future<Output = Result<R, No>> + Send + 'static,
    {
        let started = Instant::now();
        let result = match caller.and_then(|caller| self.may(method, caller)) {
            Ok(caller) => {
                // From here on in a task of its own: a client that hangs up, or an answer that is late, changes nothing.
                let task = tokio::spawn(story(Arc::clone(&self.issuer), caller, request.into_inner()));
                task.await.unwrap_or_else(|panic| Err(Fault::new("request", panic).into()))
            }
            Err(no) => Err(no),
        };
        answer(method, started, result)
    }

    /// The same for what hands one request to the desk and does nothing beside that: the desk takes it to its end, whether or
    /// not somebody waits, and a task of its own would only cost.
    async fn hand_in<T, R, F>(
        &self,
        method: &'static str,
        request: Request<T>,
        story: impl FnOnce(Arc<Issuer>, Caller, T) -> F,
    ) -> Result<Response<R>, Status>
    where
        F: Future<Output = Result<R, No>> + Send,
    {
        let started = Instant::now();
        let result = match self.caller(&request).await.and_then(|caller| self.may(method, caller)) {
            Ok(caller) => story(Arc::clone(&self.issuer), caller, request.into_inner()).await,
            Err(no) => Err(no),
        };
        answer(method, started, result)
    }

    fn may(&self, method: &'static str, caller: Caller) -> Result<Caller, No> {
        let caller = access::acting(method, caller, &self.issuer.operators);
        access::check(method, &caller)?;
        Ok(caller)
    }

    // T21: no peer is no caller, and no caller is a stranger.
    async fn caller<T>(&self, request: &Request<T>) -> Result<Caller, No> {
        match request.extensions().get::<Peer>() {
            Some(Peer::Tls(connection)) if connection.chain.is_empty() => Ok(Caller::Stranger),
            Some(Peer::Tls(connection)) => {
                let peer = match connection.proved.get() {
                    Some(peer) => peer,
                    None => {
                        // Only what holds is remembered: a chain that does not is looked at again.
                        let peer = self.issuer.prove(&connection.chain, connection.opened)?;
                        connection.proved.get_or_init(|| peer)
                    }
                };
                self.issuer.prove_again(peer, &connection.chain)?;
                self.issuer.caller(peer).await
            }
            Some(Peer::Operator(uid)) => Ok(Caller::Operator { name: format!("uid:{uid}") }),
            None => Ok(Caller::Stranger),
        }
    }
}

fn answer<R>(method: &'static str, started: Instant, result: Result<R, No>) -> Result<Response<R>, Status> {
    let (result, outcome) = match result {
        Ok(answer) => (Ok(Response::new(answer)), "ok"),
        Err(no) => {
            let (status, outcome) = status::of(&no, method);
            (Err(status), outcome)
        }
    };
    status::count(method, outcome, started);
    result
}

#[tonic::async_trait]
impl Identities for Door {
    async fn redeem(&self, request: Request<v1::RedeemRequest>) -> Result<Response<v1::RedeemResponse>, Status> {
        self.hand_in("Identities/Redeem", request, |issuer, _, r| async move {
            let (svid, agent, revision) = certified(&issuer, &issue::redeem(&issuer, &r.secret, r.csr).await?);
            Ok(v1::RedeemResponse { svid: Some(svid), bundle: Some(bundle(&issuer)), revision, agent })
        })
        .await
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        self.hand_in("Identities/Renew", request, |issuer, caller, r| async move {
            let (svid, agent, revision) = certified(&issuer, &issue::renew(&issuer, caller, r.csr).await?);
            Ok(v1::RenewResponse { svid: Some(svid), bundle: Some(bundle(&issuer)), revision, agent })
        })
        .await
    }

    async fn spawn(&self, request: Request<v1::SpawnRequest>) -> Result<Response<v1::SpawnResponse>, Status> {
        self.hand_in("Identities/Spawn", request, |issuer, caller, r| async move {
            let (spawn, keys) = spawn_request(r)?;
            let spawned = issue::spawn(&issuer, caller, spawn, keys).await?;
            Ok(v1::SpawnResponse { bundle: Some(bundle(&issuer)), ..spawn_response(&issuer, spawned) })
        })
        .await
    }

    async fn mint_jwt(&self, request: Request<v1::MintJwtRequest>) -> Result<Response<v1::MintJwtResponse>, Status> {
        self.hand_in("Identities/MintJwt", request, |issuer, caller, r| async move {
            let audiences = std::iter::once(r.audience).chain(r.further_audiences).collect();
            let (mint, token) = issue::mint(&issuer, caller, &r.request_id, audiences).await?;
            let revision = mint.token().revision;
            Ok(v1::MintJwtResponse { svid: Some(jwt_svid(&mint, token)), revision })
        })
        .await
    }

    async fn end(&self, request: Request<v1::EndRequest>) -> Result<Response<v1::EndResponse>, Status> {
        self.hand_in("Identities/End", request, |issuer, caller, r| async move {
            let agent = if r.agent.is_empty() { None } else { Some(issue::agent_id(&issuer, &r.agent)?) };
            match revoke::end(&issuer, caller, agent).await? {
                Outcome::Ended { agent, revision } => Ok(v1::EndResponse { agent_id: agent.to_string(), revision }),
                _ => Err(other_outcome()),
            }
        })
        .await
    }
}

#[tonic::async_trait]
impl Batches for Door {
    type SpawnStream = tokio_stream::wrappers::ReceiverStream<Result<v1::SpawnBatchResponse, Status>>;

    async fn spawn(&self, request: Request<v1::SpawnBatchRequest>) -> Result<Response<Self::SpawnStream>, Status> {
        const METHOD: &str = "Batches/Spawn";
        let patience = self.patience;
        self.run(METHOD, request, move |issuer, caller, r| async move {
            let mut template = r.template.ok_or_else(|| Denial::malformed("BATCH_MALFORMED", "give a template"))?;
            if !template.csr.is_empty() || (r.count > 0) != template.ticket || template.ticket != r.csrs.is_empty() {
                let message =
                    "give either `csrs`, or a template that asks for tickets with their `count`; never a csr in the template";
                return Err(Denial::malformed("BATCH_MALFORMED", message).into());
            }
            // One stands for the rest where the template is read; the rest follow below.
            template.csr = r.csrs.first().cloned().unwrap_or_default();
            let (spawn, _) = spawn_request(template)?;
            let keys = match r.count {
                0 => issue::Keys::Csrs(r.csrs),
                count => issue::Keys::Tickets(usize::try_from(count).unwrap_or(usize::MAX)),
            };
            let mut many = issue::spawn_many(&issuer, caller, spawn, keys).await?;
            let (answer, answers) = tokio::sync::mpsc::channel(64);
            let mut shared = Some(bundle(&issuer));
            tokio::spawn(async move {
                while let Some((index, spawned)) = many.next(&issuer).await {
                    let result = match spawned {
                        Ok(spawned) => {
                            let bundle = shared.take();
                            batch_response::Result::Spawned(v1::SpawnResponse { bundle, ..spawn_response(&issuer, spawned) })
                        }
                        Err(no) => batch_response::Result::Denied(status::proto(&status::of(&no, METHOD).0)),
                    };
                    let index = u32::try_from(index).unwrap_or(u32::MAX);
                    // Whoever has gone, or does not read, finds everything recorded.
                    let sent = answer.send(Ok(v1::SpawnBatchResponse { index, result: Some(result) }));
                    if !matches!(tokio::time::timeout(patience, sent).await, Ok(Ok(()))) {
                        return;
                    }
                }
            });
            Ok(tokio_stream::wrappers::ReceiverStream::new(answers))
        })
        .await
    }
}

#[tonic::async_trait]
impl Operations for Door {
    async fn create_join_token(
        &self,
        request: Request<v1::CreateJoinTokenRequest>,
    ) -> Result<Response<v1::CreateJoinTokenResponse>, Status> {
        self.run("Operations/CreateJoinToken", request, |issuer, caller, r| async move {
            let workload: mayfly_verify::WorkloadName = r
                .workload
                .parse()
                .map_err(|e: mayfly_verify::NameError| Denial::malformed("WORKLOAD_MALFORMED", e.to_string()))?;
            let id = mayfly_verify::workload_id(&issuer.trust_domain, &workload);
            let (ticket, ends_at, revision) = revoke::join_token(&issuer, caller, workload, r.ttl_seconds).await?;
            let (token, expires_at) = (ticket.to_string().to_string(), Some(timestamp(ends_at / SECOND)));
            Ok(v1::CreateJoinTokenResponse { token, workload_id: id, expires_at, revision })
        })
        .await
    }

    async fn revoke(&self, request: Request<v1::RevokeRequest>) -> Result<Response<v1::RevokeResponse>, Status> {
        let caller = match request.get_ref().user_token.as_str() {
            "" => self.caller(&request).await,
            token => match self.caller(&request).await {
                Ok(Caller::Stranger) => revoke::person(&self.issuer, token).await.map_err(No::from),
                Ok(_) => Err(targets::two_callers().into()),
                Err(no) => Err(no),
            },
        };
        self.run_as("Operations/Revoke", caller, request, |issuer, caller, r| async move {
            let (what, how) = (targets::revoked(&issuer, r.target)?, revoke::How { reason: r.reason, allow_new: r.allow_new });
            if r.dry_run {
                let (outcome, reach) = revoke::would_end(&issuer, caller, what, how).await?;
                return targets::would_end(&outcome, reach);
            }
            targets::receipt(&revoke::cut(&issuer, caller, what, how).await?)
        })
        .await
    }

    async fn reopen(&self, request: Request<v1::ReopenRequest>) -> Result<Response<v1::ReopenResponse>, Status> {
        self.run("Operations/Reopen", request, |issuer, caller, r| async move {
            match revoke::reopen(&issuer, caller, targets::reopened(r.target)?).await? {
                Outcome::Reopened { revision, at } => {
                    Ok(v1::ReopenResponse { revision, recorded_at: Some(timestamp(at / SECOND)) })
                }
                _ => Err(other_outcome()),
            }
        })
        .await
    }

    async fn backup(&self, request: Request<v1::BackupRequest>) -> Result<Response<v1::BackupResponse>, Status> {
        self.run("Operations/Backup", request, |issuer, _, r| async move {
            let path = std::path::PathBuf::from(&r.path);
            if !path.is_absolute() || path.exists() {
                let message = "give an absolute path on the issuer's machine that does not exist yet";
                return Err(Denial::malformed("PATH_UNUSABLE", message).into());
            }
            let registry = issuer.registry.clone();
            let done = tokio::task::spawn_blocking(move || registry.backup(path)).await;
            let (revision, bytes) = done.map_err(|e| Fault::new("backup", e))??;
            Ok(v1::BackupResponse { revision, bytes })
        })
        .await
    }
}

#[tonic::async_trait]
impl Inspection for Door {
    async fn list_agents(&self, request: Request<v1::ListAgentsRequest>) -> Result<Response<v1::ListAgentsResponse>, Status> {
        self.run("Inspection/ListAgents", request, |issuer, caller, r| async move {
            let after = match r.page_token.as_str() {
                "" => None,
                token => Some(Uuid::try_parse(token).map_err(|_| Denial::malformed("PAGE_TOKEN", "the page token is not ours"))?),
            };
            let size = usize::try_from(r.page_size).unwrap_or(usize::MAX);
            let (agents, next, revision) = inspect::list(&issuer, &caller, after, size, r.all);
            let agents = agents.iter().map(|(agent, standing)| agent_message(&issuer, agent, *standing)).collect();
            Ok(v1::ListAgentsResponse { agents, next_page_token: next.map(|n| n.to_string()).unwrap_or_default(), revision })
        })
        .await
    }

    async fn get_agent(&self, request: Request<v1::GetAgentRequest>) -> Result<Response<v1::GetAgentResponse>, Status> {
        self.run("Inspection/GetAgent", request, |issuer, caller, r| async move {
            let (agent, standing) = inspect::get(&issuer, &caller, issue::agent_id(&issuer, &r.agent)?)?;
            Ok(v1::GetAgentResponse { agent: Some(agent_message(&issuer, &agent, standing)) })
        })
        .await
    }
}

fn spawn_request(r: v1::SpawnRequest) -> Result<(issue::SpawnRequest, issue::Keys), Denial> {
    let malformed = |e: &dyn std::fmt::Display| Denial::malformed("CLASS_MALFORMED", e.to_string());
    let class = r.class.parse().map_err(|e: mayfly_verify::NameError| malformed(&e))?;
    // T11: an enum value of a later version is refused, not taken for a default.
    let mode =
        v1::Mode::try_from(r.mode).map_err(|_| Denial::malformed("MODE_UNKNOWN", "the mode is unknown to this version"))?;
    let excess = v1::Excess::try_from(r.excess)
        .map_err(|_| Denial::malformed("EXCESS_UNKNOWN", "the value of `excess` is unknown to this version"))?;
    let mode = match mode {
        v1::Mode::Autonomous => Some(Mode::Autonomous),
        v1::Mode::Delegated => Some(Mode::Delegated),
        v1::Mode::Unspecified => None,
    };
    if mode == Some(Mode::Autonomous) && !(r.user_token.is_empty() && r.delegation.is_empty()) {
        return Err(Denial::malformed("MODE_CONTRADICTION", "an autonomous agent has neither user token nor delegation"));
    }
    if !r.user_token.is_empty() && !r.delegation.is_empty() {
        return Err(Denial::malformed("TOKEN_OR_DELEGATION", "give a user token or a delegation: one of the two"));
    }
    let delegation = match r.delegation.as_str() {
        "" => None,
        id => Some(targets::delegation(id)?),
    };
    if r.ticket != r.csr.is_empty() {
        return Err(Denial::malformed("CSR_OR_TICKET", "give a certification request, or ask for a ticket: one of the two"));
    }
    let too_many = |what| Denial::malformed("LIST_TOO_LONG", format!("at most 64 {what}, of at most 256 bytes each"));
    for (what, list) in [("scopes", &r.scopes), ("audiences", &r.audiences)] {
        if list.len() > 64 || list.iter().any(|s| s.is_empty() || s.len() > 256) {
            return Err(too_many(what));
        }
    }
    let clip = excess == v1::Excess::Clip;
    let asked = Asked { scopes: r.scopes, audiences: r.audiences, lease: r.lease_seconds, depth: r.max_depth, clip, mode };
    let keys = if r.ticket { issue::Keys::Tickets(1) } else { issue::Keys::Csrs(vec![r.csr]) };
    let (request_id, user_token, audience) = (r.request_id, r.user_token, r.jwt_audience);
    Ok((issue::SpawnRequest { request_id, class, user_token, delegation, asked, audience }, keys))
}

/// All but the bundle.
fn spawn_response(issuer: &Issuer, spawned: issue::Spawned) -> v1::SpawnResponse {
    let issue::Spawned { admission, holds, jwt } = spawned;
    let agent = admission.agent();
    let (svid, ticket) = match holds {
        issue::Holds::Certificate(leaf) => {
            (Some(x509_svid(admission.id().to_string(), &leaf, agent.svid_ends_at)), String::new())
        }
        issue::Holds::Ticket(ticket) => (None, ticket.to_string().to_string()),
    };
    v1::SpawnResponse {
        agent: Some(agent_message(issuer, agent, Standing::Live)),
        svid,
        bundle: None,
        revision: agent.revision,
        clipped: agent.rare.clipped.clone(),
        jwt: jwt.map(|(mint, token)| jwt_svid(&mint, token)),
        ticket,
    }
}

/// The certificate, its agent unless it is a workload's, and the revision of its record.
fn certified(issuer: &Issuer, certified: &issue::Certified) -> (v1::X509Svid, Option<v1::Agent>, u64) {
    match certified {
        issue::Certified::Workload(permit, leaf) => {
            let id = mayfly_verify::workload_id(&issuer.trust_domain, permit.workload());
            let certificate = permit.certificate();
            (x509_svid(id, leaf, certificate.ends_at), None, certificate.revision)
        }
        issue::Certified::Agent(admission, leaf) => {
            let agent = agent_message(issuer, admission.agent(), Standing::Live);
            let (ends_at, revision) = admission.certificate().map_or((0, 0), |c| (c.ends_at, c.revision));
            (x509_svid(admission.id().to_string(), leaf, ends_at), Some(agent), revision)
        }
    }
}

fn x509_svid(spiffe_id: String, signed: &Signed, ends_at: u64) -> v1::X509Svid {
    v1::X509Svid { spiffe_id, certificates: signed.chain(), expires_at: Some(timestamp(ends_at)) }
}

fn jwt_svid(mint: &Mint, token: String) -> v1::JwtSvid {
    v1::JwtSvid { spiffe_id: mint.id().to_string(), token, expires_at: Some(timestamp(mint.token().ends_at)) }
}

fn bundle(issuer: &Issuer) -> v1::Bundle {
    bundle_message(&issuer.publisher.now())
}

/// What is published, as a message.
pub fn bundle_message(published: &Published) -> v1::Bundle {
    v1::Bundle {
        trust_domain: published.bundle.trust_domain().to_string(),
        spiffe_json: published.document.clone(),
        x509_authorities: published.bundle.x509_authorities().to_vec(),
        feed_key: published.feed_key.clone(),
    }
}

fn agent_message(issuer: &Issuer, agent: &Agent, standing: Standing) -> v1::Agent {
    let chain = agent.chain(&issuer.trust_domain);
    let delegation = agent.delegation.as_ref();
    let state = match standing {
        Standing::Live => v1::AgentState::Live,
        Standing::Expired => v1::AgentState::Expired,
        Standing::Ended => v1::AgentState::Ended,
        Standing::Cut => v1::AgentState::Cut,
        Standing::Orphaned => v1::AgentState::Orphaned,
    };
    v1::Agent {
        agent_id: agent.id(&issuer.trust_domain).to_string(),
        root_id: chain.last().cloned().unwrap_or_default(),
        parent_id: chain.first().cloned().unwrap_or_default(),
        class: agent.mandate.class.to_string(),
        delegation_id: delegation.map(|d| d.id.to_string()).unwrap_or_default(),
        user: delegation.map(|d| v1::User { iss: d.user.iss.clone(), sub: d.user.sub.clone() }),
        mode: if delegation.is_some() { v1::Mode::Delegated } else { v1::Mode::Autonomous }.into(),
        depth: agent.depth(),
        scopes: agent.mandate.scopes.clone(),
        audiences: agent.mandate.audiences.clone(),
        admitted_at: Some(timestamp(agent.admitted_at / SECOND)),
        lease_expires_at: Some(timestamp(agent.lease_ends_at)),
        svid_expires_at: Some(timestamp(agent.svid_ends_at)),
        revision: agent.revision,
        state: state.into(),
    }
}

fn timestamp(seconds: u64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: i64::try_from(seconds).unwrap_or(i64::MAX), nanos: 0 }
}

fn other_outcome() -> No {
    Fault::new("request", "another outcome").into()
}
