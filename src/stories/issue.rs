//! Issue: redeem and renew for workloads and agents, spawn by workloads and agents, mint by agents.

use mayfly_agent::ticket::{Secret, Ticket};
use mayfly_verify::{ClassName, DelegationId, sha256};
use tokio::sync::mpsc;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::desk::{Done, Item};
use super::{Issuer, digest, request_id};
use crate::assertion::{Delegator, Refusal};
use crate::authority::Signed;
use crate::caller::Caller;
use crate::denial::{Denial, Fault, Kind, No};
use crate::policy::{Asked, token_of_agent};
use crate::registry::{Admission, Ask, Certification, Credential, Mint, Proof, Proposal, RequestId, Spawn};

/// Seconds an agent's ticket lasts.
pub const TICKET_LIFE: u64 = 60;

/// Audiences of one token at most.
const AUDIENCES: usize = 16;

/// Agents in one batch at most.
pub const BATCH: usize = 1000;

/// A spawn, as the wire brought it.
pub struct SpawnRequest {
    /// Makes a retry the same record; empty: none.
    pub request_id: String,
    /// Of which class.
    pub class: ClassName,
    /// Of a configured issuer; empty asks for an autonomous agent, or comes from an agent.
    pub user_token: String,
    /// In place of a token, a delegation that was recorded before.
    pub delegation: Option<DelegationId>,
    /// How much.
    pub asked: Asked,
    /// Audience of a first JWT-SVID; empty: none.
    pub audience: String,
}

/// How the agents of a spawn get their first certificates.
pub enum Keys {
    /// For these certification requests, PKCS#10 in DER.
    Csrs(Vec<Vec<u8>>),
    /// By so many tickets.
    Tickets(usize),
}

/// Whom something was certified for.
pub enum Certified {
    /// A workload.
    Workload(Certification, Signed),
    /// An agent.
    Agent(Admission, Signed),
}

/// A certificate for a ticket's secret: a workload's, or an agent's first.
pub async fn redeem(issuer: &Issuer, secret: &[u8], csr: Vec<u8>) -> Result<Certified, No> {
    if secret.len() != 32 {
        return Err(Denial::malformed("TICKET_MALFORMED", "the secret of a ticket has 32 bytes").into());
    }
    // T03: found by the hash of its exact bytes; whom it is for stands in the record.
    let proposal = Proposal::Redeem { hash: sha256(secret), key: [0; 32] };
    certified(issuer.desk.run(Ask { caller: Caller::Stranger, proposal }, csr).await?)
}

/// The caller's next certificate.
pub async fn renew(issuer: &Issuer, caller: Caller, csr: Vec<u8>) -> Result<Certified, No> {
    certified(issuer.desk.run(Ask { caller, proposal: Proposal::Renew { key: [0; 32] } }, csr).await?)
}

/// What a spawn became.
pub struct Spawned {
    /// The agent.
    pub admission: Admission,
    /// How it gets its certificate.
    pub holds: Holds,
    /// Its first token, if one was asked for.
    pub jwt: Option<(Mint, String)>,
}

/// What the spawner gets for a new agent.
pub enum Holds {
    /// Its certificate.
    Certificate(Signed),
    /// A ticket with which it fetches that itself.
    Ticket(Ticket),
}

/// A new agent. The caller is proved already; what it asks is proved here, in the order of DESIGN 4.
pub async fn spawn(issuer: &Issuer, caller: Caller, request: SpawnRequest, keys: Keys) -> Result<Spawned, No> {
    let mut orders = orders(issuer, caller, request, keys).await?;
    let Some(Order { ask, csr, secret }) = orders.pop() else { return Err(nothing_asked().into()) };
    // 3. The key, 4. the authority, 5. the limits: at the desk and at commit.
    spawned(issuer, issuer.desk.run(ask, csr).await?, secret)
}

/// Many new agents of one kind, recorded in one commit. The answers come as they are signed, with their numbers.
pub async fn spawn_many(issuer: &Issuer, caller: Caller, request: SpawnRequest, keys: Keys) -> Result<Many, No> {
    let orders = orders(issuer, caller, request, keys).await?;
    if orders.is_empty() || orders.len() > BATCH {
        return Err(Denial::malformed("BATCH_SIZE", format!("a batch has 1 to {BATCH} agents")).into());
    }
    let (asks, secrets) = orders.into_iter().map(|o| ((o.ask, o.csr), o.secret)).unzip();
    Ok(Many { items: issuer.desk.run_many(asks)?, secrets })
}

/// The answers of a batch.
pub struct Many {
    items: mpsc::Receiver<Item>,
    secrets: Vec<Option<Zeroizing<[u8; 32]>>>,
}

impl Many {
    /// The next answer; none: that was all.
    pub async fn next(&mut self, issuer: &Issuer) -> Option<(usize, Result<Spawned, No>)> {
        let (index, done) = self.items.recv().await?;
        let secret = self.secrets.get_mut(index).and_then(Option::take);
        Some((index, done.and_then(|done| spawned(issuer, done, secret))))
    }
}

struct Order {
    ask: Ask,
    csr: Vec<u8>,
    secret: Option<Zeroizing<[u8; 32]>>,
}

async fn orders(issuer: &Issuer, caller: Caller, request: SpawnRequest, keys: Keys) -> Result<Vec<Order>, No> {
    let (csrs, tickets) = match keys {
        Keys::Csrs(csrs) => (csrs, false),
        Keys::Tickets(count) if count > BATCH => return Err(nothing_asked().into()),
        Keys::Tickets(count) => (vec![Vec::new(); count], true),
    };
    if tickets && !request.audience.is_empty() {
        let message = "a first JWT-SVID is for whoever holds the certificate: mint it after the ticket was redeemed";
        return Err(Denial::malformed("TICKET_WITH_JWT", message).into());
    }
    // 2. The user, once for all of them.
    let proof = match &caller {
        _ if request.user_token.is_empty() && request.delegation.is_none() => None,
        // Judged by the record of the agent, whatever the token says: nothing of it is looked at.
        Caller::Agent { .. } => return Err(token_of_agent().into()),
        // Whose it is and whether it holds is judged at commit.
        _ => Some(match request.delegation {
            Some(id) => Proof::Delegation(id),
            None => prove_user(issuer, &request.user_token).await?,
        }),
    };
    let asked = &request.asked;
    let (depth, mode) = (asked.depth.map_or(u64::MAX, u64::from), asked.mode.map_or("", |m| m.as_str()));
    let (lists, single) = ([asked.scopes.join(" "), asked.audiences.join(" ")], csrs.len() == 1);
    let mut orders = Vec::with_capacity(csrs.len());
    for (n, csr) in csrs.into_iter().enumerate() {
        let delegation = request.delegation.map(|id| id.0);
        let what: [&[u8]; 12] = [
            request.class.as_str().as_bytes(),
            &sha256(&csr),
            request.user_token.as_bytes(),
            lists[0].as_bytes(),
            lists[1].as_bytes(),
            &asked.lease.to_be_bytes(),
            &depth.to_be_bytes(),
            &[u8::from(asked.clip)],
            mode.as_bytes(),
            request.audience.as_bytes(),
            &[u8::from(tickets)],
            delegation.as_ref().map_or(&[], |id| id.as_slice()),
        ];
        let mut id = request_id(&caller, "spawn", &request.request_id, &what)?;
        if let Some(id) = id.as_mut().filter(|_| !single) {
            // One id for the batch, one for each of its agents.
            id.key = digest(&[&id.key, &n.to_be_bytes()]);
        }
        let secret = if tickets { Some(secret(issuer, id.as_ref())?) } else { None };
        let spawn = Spawn {
            class: request.class.clone(),
            credential: match &secret {
                Some(secret) => Credential::Ticket(sha256(secret.as_slice()), TICKET_LIFE),
                None => Credential::Key([0; 32]),
            },
            proof: proof.clone(),
            asked: request.asked.clone(),
            audience: Some(request.audience.clone()).filter(|a| !a.is_empty()),
            request: id,
        };
        let ask = Ask { caller: caller.clone(), proposal: Proposal::Spawn(Box::new(spawn)) };
        orders.push(Order { ask, csr, secret });
    }
    Ok(orders)
}

fn nothing_asked() -> Denial {
    Denial::malformed("BATCH_SIZE", format!("a batch has 1 to {BATCH} agents"))
}

fn spawned(issuer: &Issuer, done: Done, secret: Option<Zeroizing<[u8; 32]>>) -> Result<Spawned, No> {
    match (done, secret) {
        (Done::Spawned(admission, Some(leaf), jwt), None) => Ok(Spawned { admission, holds: Holds::Certificate(leaf), jwt }),
        (Done::Spawned(admission, None, jwt), Some(secret)) => {
            Ok(Spawned { admission, holds: Holds::Ticket(ticket(issuer, &secret)?), jwt })
        }
        _ => Err(Fault::new("spawn", "another outcome").into()),
    }
}

/// A ticket's secret: by chance, or the same again for a retry of the same request.
fn secret(issuer: &Issuer, request: Option<&RequestId>) -> Result<Zeroizing<[u8; 32]>, Fault> {
    if let Some(request) = request {
        return Ok(issuer.authority.ticket_secret(&digest(&[&request.key, &request.digest])));
    }
    let mut secret = Zeroizing::new([0u8; 32]);
    aws_lc_rs::rand::fill(secret.as_mut_slice()).map_err(|e| Fault::new("ticket", e))?;
    Ok(secret)
}

/// The one string that is enough to connect from nothing.
pub(super) fn ticket(issuer: &Issuer, secret: &[u8; 32]) -> Result<Ticket, Fault> {
    Ticket::new(&issuer.address, issuer.trust_domain.clone(), issuer.authority.root_pin(), Secret::new(*secret))
        .map_err(|e| Fault::new("ticket", e))
}

/// A JWT-SVID for exactly these audiences (JWT-SVID 3.2 recommends one).
pub async fn mint(issuer: &Issuer, caller: Caller, id: &str, audiences: Vec<String>) -> Result<(Mint, String), No> {
    let sound = audiences.iter().all(|a| !a.is_empty() && a.len() <= 256);
    let twice = audiences.iter().enumerate().any(|(n, a)| audiences.iter().take(n).any(|other| other == a));
    if audiences.is_empty() || audiences.len() > AUDIENCES || !sound || twice {
        let message = format!("give 1 to {AUDIENCES} audiences, each once, of at most 256 bytes");
        return Err(Denial::malformed("AUDIENCE_MALFORMED", message).into());
    }
    let asked: Vec<&[u8]> = audiences.iter().map(String::as_bytes).collect();
    let request = request_id(&caller, "mint", id, &asked)?;
    match issuer.desk.run(Ask { caller, proposal: Proposal::Mint { audiences, request } }, Vec::new()).await? {
        Done::Minted(mint, token) => Ok((mint, token)),
        _ => Err(Fault::new("mint", "another outcome").into()),
    }
}

/// An agent from its SPIFFE ID or UUID. T01: nothing is normalised, and every part of the id must be the agent's.
pub fn agent_id(issuer: &Issuer, text: &str) -> Result<Uuid, Denial> {
    if let Ok(uuid) = Uuid::try_parse(text) {
        let message = "write the UUID in lower case with hyphens, or the whole SPIFFE ID";
        return if uuid.to_string() == text { Ok(uuid) } else { Err(Denial::malformed("AGENT_MALFORMED", message)) };
    }
    let id = mayfly_verify::AgentId::parse(text).map_err(|e| Denial::malformed("AGENT_MALFORMED", e.to_string()))?;
    let class = issuer.registry.read(|state| state.agent(&id.uuid).map(|agent| agent.mandate.class.clone()));
    if id.trust_domain == issuer.trust_domain && class.is_none_or(|class| class == id.class) {
        Ok(id.uuid)
    } else {
        let message = "there is no such agent, or none that you may see";
        Err(Denial::new(Kind::NotFound, "AGENT_UNKNOWN", message))
    }
}

async fn prove_user(issuer: &Issuer, token: &str) -> Result<Proof, Denial> {
    let (digest, now) = (sha256(token.as_bytes()), issuer.clock.now());
    // The very bytes that recorded a delegation were verified then, and it ends with them.
    let signed = sha256(token.rsplit_once('.').map_or(token, |(signed, _)| signed).as_bytes());
    if issuer.registry.read(|state| state.delegation_by_proof(&signed, now).is_some_and(|d| d.token == digest)) {
        return Ok(Proof::Recorded(signed));
    }
    let delegator = verify_user(issuer, token).await?;
    let most = delegator.max_lease().map_or(u64::MAX, |most| issuer.clock.seconds().saturating_add(most.as_secs()));
    Ok(Proof::Token {
        user: delegator.user().clone(),
        proof: *delegator.proof(),
        token: digest,
        issued_at: delegator.issued_at(),
        ends_at: delegator.expires_at().min(most),
        workloads: delegator.workloads().to_vec(),
        scopes: delegator.scopes().map(<[String]>::to_vec),
    })
}

/// The verified user of a token.
pub(super) async fn verify_user(issuer: &Issuer, token: &str) -> Result<Delegator, Denial> {
    issuer.assertions.verify(token, issuer.clock.seconds()).await.map_err(|refusal| {
        let kind = if refusal == Refusal::IssuerUnavailable { Kind::Unavailable } else { Kind::Denied };
        Denial::new(kind, refusal.code(), refusal.to_string())
    })
}

fn certified(done: Done) -> Result<Certified, No> {
    match done {
        Done::Certified(permit, leaf) => Ok(Certified::Workload(permit, leaf)),
        Done::Renewed(admission, leaf) => Ok(Certified::Agent(admission, leaf)),
        _ => Err(Fault::new("certify", "another outcome").into()),
    }
}
