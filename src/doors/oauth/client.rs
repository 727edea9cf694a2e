//! Client authentication: by exactly one SVID. There are no client secrets.

use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;

use super::form::Form;
use super::refusal::Refusal;
use crate::acts::{Issuer, client};
use crate::caller::Caller;
use crate::doors::peer::{self, Peer};
use crate::judge::access::Action;

/// Types of assertions: that of the SPIFFE draft, and the one that existing clients send (RFC 7523 2.2).
const ASSERTIONS: [&str; 2] =
    ["urn:ietf:params:oauth:client-assertion-type:jwt-spiffe", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"];

/// The client behind a request: by the certificate of its connection, or by a JWT-SVID in the form.
pub(super) async fn prove(issuer: &Issuer, head: &Parts, form: &Form, action: Action) -> Result<Caller, Refusal> {
    if head.headers.contains_key(AUTHORIZATION) || form.one("client_secret").is_some() {
        return Err(Refusal::client("clients prove themselves by an SVID: there are no client secrets"));
    }
    let peer = head.extensions.get::<Peer>();
    let certified = matches!(peer, Some(Peer::Tls(connection)) if !connection.chain.is_empty());
    let assertion = (form.one("client_assertion_type"), form.one("client_assertion"));
    let caller = match (certified, assertion) {
        // RFC 6749 2.3: one method for each request.
        (true, (_, Some(_))) => return Err(Refusal::request("the connection has a certificate: send no `client_assertion`")),
        (true, (_, None)) => peer::caller(issuer, peer, None, action).await.map_err(|no| Refusal::of(&no))?,
        (false, (Some(of), Some(assertion))) if ASSERTIONS.contains(&of) => {
            client::prove(issuer, assertion).await.map_err(|no| Refusal::of(&no))?
        }
        (false, (Some(_), Some(_))) => return Err(Refusal::client("the value of `client_assertion_type` is not accepted here")),
        (false, (None, Some(_))) => return Err(Refusal::request("`client_assertion_type` is missing")),
        (false, (_, None)) => {
            let message = "prove the client: by a JWT-SVID as `client_assertion`, or by an X.509-SVID at the addresses of \
                           `mtls_endpoint_aliases`";
            return Err(Refusal::client(message));
        }
    };
    let id = caller.spiffe_id(&issuer.trust_domain);
    match form.one("client_id") {
        // The certificate alone would be enough, but the draft requires the client to send its id.
        None if certified => Err(Refusal::client("with a certificate, send its SPIFFE ID as `client_id`")),
        Some(client) if Some(client) != id.as_deref() => Err(Refusal::client("`client_id` is not the SPIFFE ID of the SVID")),
        _ => Ok(caller),
    }
}
