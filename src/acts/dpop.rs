//! DPoP: the key that a client holds, by a proof for this one request (RFC 9449).

use mayfly_verify::{DpopRequest, Reject, verify_dpop};

use super::Issuer;
use crate::caller::{Caller, unauthenticated};
use crate::denial::{Denial, No};

/// The SHA-256 thumbprint of the key of a proof. This uses up the proof. It is called after the client is proved, so that the cost
/// counts against that client. `urls` are the names of the endpoint.
pub async fn prove(issuer: &Issuer, caller: &Caller, proof: &str, urls: [String; 2]) -> Result<[u8; 32], No> {
    let now = issuer.clock.seconds();
    let text = proof.to_owned();
    let verified = issuer.clients.turn(move || {
        let urls = urls.each_ref().map(String::as_str);
        verify_dpop(&text, &DpopRequest { method: "POST", urls: &urls, token: None, now })
    });
    let proof = verified.await?.map_err(|reject| refused(issuer, &reject))?;
    let root = match caller {
        Caller::Agent { id, .. } | Caller::Bearer { id, .. } => {
            issuer.ledger.read(|state| state.agent(&id.uuid).map(|agent| agent.mandate.workload.id(&issuer.trust_domain)))
        }
        _ => None,
    };
    let owner = root.unwrap_or_else(|| caller.scope());
    issuer.proofs.accept(&proof, &owner, now).map_err(|reject| refused(issuer, &reject))?;
    Ok(proof.thumbprint)
}

/// The denial for a refused proof. If a nonce is missing, the denial brings one.
fn refused(issuer: &Issuer, reject: &Reject) -> Denial {
    let denial = unauthenticated(reject.code(), reject.to_string());
    if *reject == Reject::Nonce { denial.with("nonce", nonce(issuer)) } else { denial }
}

/// The nonce for the next proof.
pub fn nonce(issuer: &Issuer) -> String {
    issuer.proofs.nonce(issuer.clock.seconds())
}
