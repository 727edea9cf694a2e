//! The keys that a client proves to hold: that of the certificate of its connection, and that of a DPoP proof (RFC 9449 5).

use axum::http::request::Parts;

use super::Served;
use super::refusal::Refusal;
use crate::acts::dpop;
use crate::caller::Caller;
use crate::denial::Denial;
use crate::doors::peer::Peer;
use crate::judge::bound::Proved;

/// The name of the header with a proof.
const DPOP: &str = "dpop";

/// The keys that an authenticated client has proved. A DPoP proof in the request is verified and used up.
pub(super) async fn prove(served: &Served, head: &Parts, caller: &Caller) -> Result<Proved, Refusal> {
    let mut proved = Peer::proved(head.extensions.get::<Peer>());
    let mut proofs = head.headers.get_all(DPOP).iter();
    let Some(proof) = proofs.next() else { return Ok(proved) };
    let unreadable = || Refusal::of(&Denial::malformed("DPOP_PROOF_INVALID", "send one DPoP header, with one proof").into());
    let proof = proof.to_str().ok().filter(|_| proofs.next().is_none()).ok_or_else(unreadable)?;
    let thumbprint = dpop::prove(&served.issuer, caller, proof, served.urls("token")).await;
    proved.held.key = Some(thumbprint.map_err(|no| Refusal::of(&no))?);
    Ok(proved)
}
