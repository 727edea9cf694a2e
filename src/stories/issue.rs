//! Issue: redeem and renew for workloads, spawn for agents, mint by agents.

use mayfly_verify::{ClassName, sha256};
use rustls_pki_types::CertificateDer;
use uuid::Uuid;

use super::desk::Done;
use super::{Issuer, request_id};
use crate::assertion::Refusal;
use crate::caller::Caller;
use crate::denial::{Denial, Fault, Kind, No};
use crate::policy::Asked;
use crate::registry::{Admission, Ask, Certification, Mint, Proof, Proposal, Spawn};

/// A spawn, as the wire brought it.
pub struct SpawnRequest {
    /// Makes a retry the same record; empty: none.
    pub request_id: String,
    /// Of which class.
    pub class: ClassName,
    /// PKCS#10, DER.
    pub csr: Vec<u8>,
    /// Of a configured issuer; empty asks for an autonomous agent.
    pub user_token: String,
    /// How much.
    pub asked: Asked,
    /// Audience of a first JWT-SVID; empty: none.
    pub audience: String,
}

/// A workload's first certificate, for a ticket's secret.
pub async fn redeem(issuer: &Issuer, secret: &[u8], csr: Vec<u8>) -> Result<(Certification, CertificateDer<'static>), No> {
    if secret.len() != 32 {
        return Err(Denial::malformed("TICKET_MALFORMED", "the secret of a ticket has 32 bytes").into());
    }
    // T03: found by the hash of its exact bytes; whom it is for stands in the record.
    let proposal = Proposal::Redeem { hash: sha256(secret), key: [0; 32] };
    certified(issuer.desk.run(Ask { caller: Caller::Stranger, proposal }, csr).await?)
}

/// A workload's next certificate.
pub async fn renew(issuer: &Issuer, caller: Caller, csr: Vec<u8>) -> Result<(Certification, CertificateDer<'static>), No> {
    certified(issuer.desk.run(Ask { caller, proposal: Proposal::Renew { key: [0; 32] } }, csr).await?)
}

/// What a spawn became.
pub type Spawned = (Admission, CertificateDer<'static>, Option<(Mint, String)>);

/// A new agent. The caller is proved already; what it asks is proved here, in the order of DESIGN 4.
pub async fn spawn(issuer: &Issuer, caller: Caller, request: SpawnRequest) -> Result<Spawned, No> {
    let asked = &request.asked;
    let csr_digest = sha256(&request.csr);
    let depth = asked.depth.map_or(u64::MAX, u64::from);
    let id = request_id(
        &caller,
        "spawn",
        &request.request_id,
        &[
            request.class.as_str().as_bytes(),
            &csr_digest,
            request.user_token.as_bytes(),
            asked.scopes.join(" ").as_bytes(),
            asked.audiences.join(" ").as_bytes(),
            &asked.lease.to_be_bytes(),
            &depth.to_be_bytes(),
            &[u8::from(asked.clip)],
            request.audience.as_bytes(),
        ],
    )?;
    // 2. The user.
    let proof = if request.user_token.is_empty() { None } else { Some(prove_user(issuer, &request.user_token).await?) };
    // 3. The key, 4. the authority, 5. the limits: at the desk and at commit.
    let spawn = Spawn {
        class: request.class,
        key: [0; 32],
        proof,
        asked: request.asked,
        audience: Some(request.audience).filter(|a| !a.is_empty()),
        request: id,
    };
    match issuer.desk.run(Ask { caller, proposal: Proposal::Spawn(Box::new(spawn)) }, request.csr).await? {
        Done::Spawned(admission, leaf, token) => Ok((admission, leaf, token)),
        _ => Err(Fault::new("spawn", "another outcome").into()),
    }
}

/// A JWT-SVID for one audience.
pub async fn mint(issuer: &Issuer, caller: Caller, id: &str, audience: String) -> Result<(Mint, String), No> {
    if audience.is_empty() || audience.len() > 256 {
        return Err(Denial::malformed("AUDIENCE_MALFORMED", "give exactly one audience of at most 256 bytes").into());
    }
    let request = request_id(&caller, "mint", id, &[audience.as_bytes()])?;
    match issuer.desk.run(Ask { caller, proposal: Proposal::Mint { audience, request } }, Vec::new()).await? {
        Done::Minted(mint, token) => Ok((mint, token)),
        _ => Err(Fault::new("mint", "another outcome").into()),
    }
}

/// An agent from its SPIFFE ID or UUID.
pub fn agent_id(issuer: &Issuer, text: &str) -> Result<Uuid, Denial> {
    if let Ok(uuid) = Uuid::try_parse(text) {
        return Ok(uuid);
    }
    let id = mayfly_verify::AgentId::parse(text).map_err(|e| Denial::malformed("AGENT_MALFORMED", e.to_string()))?;
    if id.trust_domain == issuer.trust_domain {
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
    let delegator = issuer.assertions.verify(token, issuer.clock.seconds()).await.map_err(|refusal| {
        let kind = if refusal == Refusal::IssuerUnavailable { Kind::Unavailable } else { Kind::Denied };
        Denial::new(kind, refusal.code(), refusal.to_string())
    })?;
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

fn certified(done: Done) -> Result<(Certification, CertificateDer<'static>), No> {
    match done {
        Done::Certified(permit, leaf) => Ok((permit, leaf)),
        _ => Err(Fault::new("certify", "another outcome").into()),
    }
}
