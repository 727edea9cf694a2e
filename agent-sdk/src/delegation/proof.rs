//! Which credential of a request counts, and the delegation that follows from it.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{Extensions, HeaderMap, Method};
use mayfly_verify::{AccessToken, AgentId, Binding, JwtSvid, Possession, Principal, Reject, X509Svid, parse_spiffe_id};

use super::refusal::Refusal;
use super::{Credential, Delegation, Proved};
use crate::peers::{Authorize, Peer, Shown, Verifier};
use crate::resource::{Resource, Scheme, Sent};

/// Whether bearer tokens (`Authorization: Bearer`, a JWT-SVID) are accepted.
#[derive(Clone, Debug, Default)]
pub enum Tokens {
    /// A request with a bearer token is refused, because its sender expects to be identified by the token.
    #[default]
    Refused,
    /// The header is ignored, and left to the service.
    Ignored,
    /// A token identifies the agent if the connection has no certificate, or one of the same agent. In the second case the agent
    /// has the scopes that both have. So does the token of an agent without a key on a connection of its parent, if it is bound to
    /// that certificate.
    Accepted {
        /// Our audience, which the token must be for.
        audience: String,
    },
    /// A token identifies the agent, whoever the connection belongs to: for a service behind a gateway that passes tokens on.
    Preferred {
        /// Our audience, which the token must be for.
        audience: String,
    },
    /// An access token identifies the agent if the connection has no certificate, or one of the same agent: for a resource server of
    /// OAuth. JWT-SVIDs are refused.
    Resource(Arc<Resource>),
}

/// The request that is proved.
pub(super) struct Asked<'a> {
    pub(super) extensions: &'a Extensions,
    pub(super) headers: &'a HeaderMap,
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
}

/// Verifies the credentials of one request. An open connection alone proves nothing.
pub(super) fn prove(
    verifier: &Verifier,
    authorize: &Authorize,
    tokens: &Tokens,
    asked: &Asked<'_>,
) -> Result<Delegation, Refusal> {
    let headers = asked.headers;
    // T40: the certificate is checked even if a token will count, because a revoked peer may not send requests at all.
    let connection = asked.extensions.get::<Peer>();
    let peer = connection.map(|peer| peer.check(verifier)).transpose()?.flatten();
    if let Tokens::Resource(resource) = tokens
        && let Some(shown) = authorization(headers)?
    {
        let certificate = connection.and_then(Peer::certificate);
        let sent = Sent { method: asked.method, path: asked.path, headers, certificate };
        let token = Arc::new(resource.accept(verifier, shown, &sent)?);
        return of_access_token(verifier, authorize, token, peer);
    }
    let token = match tokens {
        Tokens::Ignored | Tokens::Resource(_) => None,
        Tokens::Refused if headers.contains_key(AUTHORIZATION) => return Err(Refusal::TokenNotAccepted),
        Tokens::Refused => None,
        Tokens::Accepted { audience } | Tokens::Preferred { audience } => bearer(headers)?.map(|token| (token, audience)),
    };
    let token = token.map(|(token, audience)| verifier.verify_unused_jwt(token, audience)).transpose()?.map(Arc::new);
    match (peer, token) {
        (None, None) => Err(Refusal::Missing),
        (Some(svid), None) => {
            let (agent, binding) = agent(&svid.principal, svid.binding.as_ref())?;
            allowed(authorize.allows(&*svid))?;
            Ok(delegation(verifier, agent, binding, svid.not_after, vec![Credential::X509(Arc::clone(&svid))]))
        }
        (peer, Some(token)) => {
            let (agent, mut binding) = agent(&token.principal, token.binding.as_ref())?;
            allowed(authorize.allows(&*token))?;
            let mut relies_on = vec![Credential::Jwt(Arc::clone(&token))];
            let mut ends_at = token.expires_at;
            match peer {
                Some(svid) if svid.id == token.id => {
                    // Both are the same agent's, perhaps issued at different times: only scopes that both have count.
                    narrow(&mut binding, svid.binding.as_ref());
                    ends_at = ends_at.min(svid.not_after);
                    relies_on.push(Credential::X509(svid));
                }
                // T294: the certificate is that of the parent, to which the token of an agent without a key is bound. It acts, and its
                // parent presents, which must not be revoked either.
                Some(svid) if is_bound(&token, connection) => relies_on.push(Credential::X509(svid)),
                Some(svid) if matches!(tokens, Tokens::Preferred { .. }) => drop(svid),
                Some(_) => return Err(Refusal::Differ),
                None => {}
            }
            // ORDER: last, so that a request that is refused for something else uses up nothing.
            verifier.use_up(&*token)?;
            Ok(delegation(verifier, agent, binding, ends_at, relies_on))
        }
    }
}

/// Whether a token is bound to the certificate of the connection.
fn is_bound(token: &JwtSvid, connection: Option<&Peer>) -> bool {
    let proved = Possession { key: None, certificate: connection.and_then(Peer::certificate) };
    token.confirmation.as_ref().is_some_and(|confirmation| confirmation.check(&proved).is_ok())
}

/// The delegation of an access token, with the certificate of the same agent if there is one.
fn of_access_token(
    verifier: &Verifier,
    authorize: &Authorize,
    token: Arc<AccessToken>,
    peer: Option<Arc<X509Svid>>,
) -> Result<Delegation, Refusal> {
    let (agent, mut binding, mut ends_at) = (token.client.clone(), token.binding.clone(), token.expires_at);
    let id = parse_spiffe_id(&agent.to_string()).map_err(Reject::from)?;
    let principal = Principal::Agent(agent.clone());
    allowed(authorize.allows(Shown { id: &id, principal: &principal, binding: Some(&token.binding) }))?;
    let mut relies_on = vec![Credential::Access(token)];
    if let Some(svid) = peer {
        if svid.id != id {
            return Err(Refusal::Differ);
        }
        narrow(&mut binding, svid.binding.as_ref());
        ends_at = ends_at.min(svid.not_after);
        relies_on.push(Credential::X509(svid));
    }
    Ok(delegation(verifier, agent, binding, ends_at, relies_on))
}

fn delegation(verifier: &Verifier, agent: AgentId, binding: Binding, ends_at: u64, relies_on: Vec<Credential>) -> Delegation {
    let expires_at = ends_at.min(binding.lease_expires_at);
    Delegation(Arc::new(Proved { agent, binding, expires_at, relies_on, verifier: verifier.clone() }))
}

fn agent(principal: &Principal, binding: Option<&Binding>) -> Result<(AgentId, Binding), Refusal> {
    match (principal, binding) {
        (Principal::Agent(agent), Some(binding)) => Ok((agent.clone(), binding.clone())),
        _ => Err(Refusal::NotAnAgent),
    }
}

fn allowed(yes: bool) -> Result<(), Refusal> {
    if yes { Ok(()) } else { Err(Refusal::NotAuthorized) }
}

fn narrow(binding: &mut Binding, other: Option<&Binding>) {
    let scopes = other.map(|b| b.scopes.as_slice()).unwrap_or_default();
    binding.scopes.retain(|scope| scopes.contains(scope));
    binding.lease_expires_at = binding.lease_expires_at.min(other.map_or(0, |b| b.lease_expires_at));
}

/// Reads a bearer token by RFC 6750 2.1.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    match authorization(headers)? {
        None => Ok(None),
        Some((Scheme::Bearer, token)) => Ok(Some(token)),
        Some((Scheme::Dpop, _)) => Err(Refusal::TokenMalformed),
    }
}

/// Reads a token with its scheme, which is case-insensitive (RFC 9110 11.1). Two headers would be ambiguous (T24).
fn authorization(headers: &HeaderMap) -> Result<Option<(Scheme, &str)>, Refusal> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (first, second) = (all.next(), all.next());
    let Some(value) = first else { return Ok(None) };
    let text = value.to_str().ok().filter(|_| second.is_none()).ok_or(Refusal::TokenMalformed)?;
    let (scheme, token) = text.split_once(' ').ok_or(Refusal::TokenMalformed)?;
    let plain = !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" if plain => Ok(Some((Scheme::Bearer, token))),
        "dpop" if plain => Ok(Some((Scheme::Dpop, token))),
        _ => Err(Refusal::TokenMalformed),
    }
}
