//! A spawn request as it comes from the wire, and its answer.

use mayfly_agent::ticket::Ticket;
use mayfly_verify::{ClassName, DelegationId, sha256};
use zeroize::Zeroizing;

use super::{AskedSpawn, Credential, Signatures, Spawn};
use crate::acts::{Issuer, digest, request_id, user};
use crate::authority::Signed;
use crate::caller::{Caller, Origin};
use crate::csr::Key;
use crate::denial::{Denial, Fault, No};
use crate::judge::bound::Proved;
use crate::judge::policy::{Asked, token_of_agent};
use crate::judge::{Admission, Mint, Proof, RequestId};

/// Lifetime of an agent's ticket, in seconds.
pub const TICKET_LIFE: u64 = 60;

/// Agents in one batch at most.
pub const BATCH: usize = 1000;

/// A spawn as the wire brought it.
#[derive(Clone)]
pub struct SpawnRequest {
    /// Makes a retry the same record. If it is empty, every call is a new request.
    pub request_id: String,
    /// The class.
    pub class: ClassName,
    /// A user's token of a configured issuer. Empty if the agent is autonomous, or the spawner is an agent.
    pub user_token: String,
    /// In place of a token, a delegation that was recorded before.
    pub delegation: Option<DelegationId>,
    /// The authority that is asked for.
    pub asked: Asked,
    /// Audience of a first JWT-SVID. Empty if no token is asked for.
    pub audience: String,
    /// Set for agents without keys, whose tokens the spawner mints on the connection that proves this.
    pub keyless: Option<Proved>,
}

/// How the agents of a spawn get their first certificates.
pub enum Keys {
    /// At once, for these certification requests (PKCS#10 in DER).
    Csrs(Vec<Vec<u8>>),
    /// This number of agents have no certification request: they get tickets, unless the request asks for agents without keys.
    Without(usize),
}

/// What a spawn became.
pub struct Spawned {
    /// The agent.
    pub admission: Admission,
    /// Its certificate or ticket.
    pub holds: Holds,
    /// Its first token, if one was asked for.
    pub jwt: Option<(Mint, String)>,
}

/// What the spawner gets for a new agent.
pub enum Holds {
    /// The agent's certificate.
    Certificate(Signed),
    /// A ticket with which the agent fetches its certificate.
    Ticket(Ticket),
    /// Nothing: the agent has no key, and the spawner mints its tokens.
    Nothing,
}

/// The secret of a ticket, with what it was derived from.
pub(super) struct Secret {
    secret: Zeroizing<[u8; 32]>,
    nonce: [u8; 16],
    /// The request id. `None` if the client gave none; then the secret is derived from the nonce alone.
    request: Option<RequestId>,
}

/// Spawns an agent. The caller is proved already.
pub async fn spawn(issuer: &Issuer, caller: Caller, request: SpawnRequest, keys: Keys) -> Result<Spawned, No> {
    let mut acts = acts(issuer, &caller, request, keys).await?;
    let Some((act, secret)) = acts.pop() else { return Err(batch_size().into()) };
    answer(issuer, issuer.pipeline.issue(caller, act).await?, secret)
}

/// A spawn for a dry run: it has no key, and a ticket hash without a secret.
pub(crate) async fn question(issuer: &Issuer, caller: &Caller, request: &SpawnRequest) -> Result<Spawn, No> {
    let proof = proof(issuer, caller, request).await?;
    Ok(asked(request.clone(), proof))
}

/// The same with a proof that is known already.
pub(crate) fn asked(request: SpawnRequest, proof: Option<Proof>) -> Spawn {
    Spawn {
        class: request.class,
        credential: match request.keyless {
            Some(proved) => Credential::Keyless(proved),
            None => Credential::Ticket { nonce: [0; 16], hash: [0; 32], life: TICKET_LIFE },
        },
        proof,
        asked: request.asked,
        audience: Some(request.audience).filter(|audience| !audience.is_empty()),
        request: None,
    }
}

/// One act for each key or ticket, each with the secret of its ticket.
pub(super) async fn acts(
    issuer: &Issuer,
    caller: &Caller,
    request: SpawnRequest,
    keys: Keys,
) -> Result<Vec<(Spawn, Option<Secret>)>, No> {
    let (csrs, tickets) = match keys {
        Keys::Csrs(csrs) => (csrs, false),
        Keys::Without(count) if count > BATCH => return Err(batch_size().into()),
        Keys::Without(count) => (vec![Vec::new(); count], request.keyless.is_none()),
    };
    if tickets && !request.audience.is_empty() {
        let message = "a first JWT-SVID is for whoever holds the certificate: mint it after the ticket is redeemed";
        return Err(Denial::malformed("TICKET_WITH_JWT", message).into());
    }
    let proof = proof(issuer, caller, &request).await?;
    let head = issuer.ledger.read(|state| state.revision);
    // For the history of a denial: with this it can be decided again.
    Origin::note(|origin| {
        if let Some(asked) = AskedSpawn::new(&request, proof.as_ref(), (head, issuer.clock.now())) {
            let _ = origin.question.set(Box::new(asked));
        }
    });
    let single = csrs.len() == 1;
    if !single && proof.as_ref().is_some_and(|proof| proof.id_jag().is_some()) {
        let message = "an ID-JAG is used once: spawn one agent with it, and the others by the delegation that it makes";
        return Err(Denial::denied("USER_TOKEN_USED", message).into());
    }
    let mut acts = Vec::with_capacity(csrs.len());
    for (n, csr) in csrs.into_iter().enumerate() {
        let mut id = identify(caller, &request, &csr, tickets)?;
        if let Some(id) = id.as_mut().filter(|_| !single) {
            // The request id of each agent is derived from that of the batch.
            id.key = digest(&[&id.key, &n.to_be_bytes()]);
        }
        let secret = if tickets { Some(secret(issuer, id.clone())?) } else { None };
        let credential = match (&secret, request.keyless) {
            (Some(made), _) => Credential::Ticket { nonce: made.nonce, hash: sha256(made.secret.as_slice()), life: TICKET_LIFE },
            (None, Some(proved)) => Credential::Keyless(proved),
            (None, None) => Credential::Key(Key::Request(csr)),
        };
        let act = Spawn {
            class: request.class.clone(),
            credential,
            proof: proof.clone(),
            asked: request.asked.clone(),
            audience: Some(request.audience.clone()).filter(|audience| !audience.is_empty()),
            request: id,
        };
        acts.push((act, secret));
    }
    Ok(acts)
}

/// The proof of the user, once for all agents of a batch. Whether it lets the caller act is judged later.
async fn proof(issuer: &Issuer, caller: &Caller, request: &SpawnRequest) -> Result<Option<Proof>, No> {
    if request.user_token.is_empty() && request.delegation.is_none() {
        return Ok(None);
    }
    // An agent's own record says for whom it acts; its token is not even looked at.
    if matches!(caller, Caller::Agent { .. }) {
        return Err(token_of_agent().into());
    }
    match request.delegation {
        Some(id) => Ok(Some(Proof::Delegation(id))),
        None => Ok(Some(user::prove(issuer, &request.user_token).await?)),
    }
}

/// The request id of one agent, with a digest of everything that is asked.
fn identify(caller: &Caller, request: &SpawnRequest, csr: &[u8], ticket: bool) -> Result<Option<RequestId>, Denial> {
    let asked = &request.asked;
    let delegation = request.delegation.map(|id| id.0);
    let (scopes, audiences) = (asked.scopes.join(" "), asked.audiences.join(" "));
    let what: [&[u8]; 12] = [
        request.class.as_str().as_bytes(),
        &sha256(csr),
        request.user_token.as_bytes(),
        scopes.as_bytes(),
        audiences.as_bytes(),
        &asked.lease.to_be_bytes(),
        &asked.depth.map_or(u64::MAX, u64::from).to_be_bytes(),
        &[u8::from(asked.clip)],
        asked.mode.map_or("", |mode| mode.as_str()).as_bytes(),
        request.audience.as_bytes(),
        &[u8::from(ticket) | u8::from(request.keyless.is_some()) << 1],
        delegation.as_ref().map_or(&[], |id| id.as_slice()),
    ];
    request_id(caller, "spawn", &request.request_id, &what)
}

/// The secret of a ticket. For a retry of a known request it is derived from the recorded nonce, so it is the same secret. In
/// another epoch of the journal, or after the request was forgotten, the same request gets another secret.
fn secret(issuer: &Issuer, request: Option<RequestId>) -> Result<Secret, Fault> {
    let recorded = request.as_ref().and_then(|request| {
        issuer.ledger.read(|state| state.agent_of_request(&request.key).map(|agent| agent.rare.ticket_nonce))
    });
    let nonce = match recorded {
        Some(nonce) => nonce,
        None => {
            let mut nonce = [0u8; 16];
            aws_lc_rs::rand::fill(&mut nonce).map_err(|e| Fault::new("ticket", e))?;
            nonce
        }
    };
    Ok(derive(issuer, nonce, request))
}

fn derive(issuer: &Issuer, nonce: [u8; 16], request: Option<RequestId>) -> Secret {
    let incarnation = issuer.ledger.read(|state| state.incarnation);
    let (key, asked) = request.as_ref().map_or((&[][..], &[][..]), |request| (&request.key, &request.digest));
    let secret = issuer.authority.ticket_secret(&digest(&[incarnation.as_bytes(), &nonce, key, asked]));
    Secret { secret, nonce, request }
}

/// The answer for one agent.
pub(super) fn answer(issuer: &Issuer, signed: Signatures, secret: Option<Secret>) -> Result<Spawned, No> {
    let Signatures { admission, certificate, jwt } = signed;
    let holds = match (certificate, secret) {
        (Some(certificate), None) => Holds::Certificate(certificate),
        (None, Some(made)) => {
            // Two requests with one id may have come at once: the nonce of the one that was recorded counts.
            let recorded = admission.agent().rare.ticket_nonce;
            let made = if recorded == made.nonce { made } else { derive(issuer, recorded, made.request) };
            Holds::Ticket(issuer.ticket(&made.secret)?)
        }
        (None, None) if admission.agent().is_keyless() => Holds::Nothing,
        _ => return Err(Fault::new("spawn", "neither a certificate nor a ticket").into()),
    };
    Ok(Spawned { admission, holds, jwt })
}

pub(super) fn batch_size() -> Denial {
    Denial::malformed("BATCH_SIZE", format!("a batch has 1 to {BATCH} agents"))
}
