//! JWT-SVIDs: header, signature, claims, binding.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use spiffe::SpiffeId;

use crate::access::{Confirmation, confirmation};
use crate::bundle::Alg;
use crate::once::single_use;
use crate::x509::check_binding;
use crate::{Binding, BindingOid, Bundle, Principal, Reject, Subject, Target, parse_spiffe_id};

/// Longest token that is accepted, in bytes.
pub(crate) const MAX_TOKEN: usize = 16 * 1024;
/// The values of `typ` of an access token (RFC 9068 2.1).
pub(crate) const ACCESS: &[&str] = &["at+jwt", "application/at+jwt"];
/// How far clocks may differ, in seconds (JWT-SVID appendix A).
pub(crate) const LEEWAY: u64 = 5;

/// The contents of a verified token.
#[derive(Clone, Debug)]
pub struct JwtSvid {
    /// The SPIFFE ID, from `sub`.
    pub id: SpiffeId,
    /// The agent, workload or issuer that the SPIFFE ID names.
    pub principal: Principal,
    /// All audiences of the token.
    pub audience: Vec<String>,
    /// Its `iss`. It chooses no key, and `None` if the token does not say.
    pub issuer: Option<String>,
    /// When it was issued, Unix seconds. `None` if the token does not say.
    pub issued_at: Option<u64>,
    /// When it expires, Unix seconds.
    pub expires_at: u64,
    /// Key id of the authority that signed it.
    pub authority: String,
    /// Unique id of the token. `None` if it has none.
    pub jti: Option<String>,
    /// The binding of an agent; `None` for everybody else.
    pub binding: Option<Binding>,
    /// The certificate that the token is bound to: that of its parent, if the agent has no key. A service that sees the certificate
    /// of the connection [checks](Confirmation::check) it; any other takes the token for a bearer token.
    pub confirmation: Option<Confirmation>,
    /// Whether it may be accepted once and no more: whoever accepts it must remember it ([`Reliance::once`](crate::Reliance::once)).
    pub single_use: bool,
    /// The authority that signed it, as a cut would name it.
    pub(crate) subjects: [Subject; 1],
}

/// Verifies a token for one audience against the bundle of its trust domain, at `now` (Unix seconds).
///
/// This does not check revocation: see [`crate::Live::check`].
pub fn verify_jwt(token: &str, audience: &str, bundle: &Bundle, oid: &BindingOid, now: u64) -> Result<JwtSvid, Reject> {
    let malformed = |what: &str| Reject::Malformed(what.to_owned());
    let (claims, authority) = Parts::of(token)?.verify(bundle, &["JWT", "JOSE"])?;
    let sub = claims.get("sub").and_then(Value::as_str).ok_or_else(|| malformed("`sub` is missing or not a string"))?;
    let id = parse_spiffe_id(sub)?;
    if id.trust_domain_name() != bundle.trust_domain().as_str() {
        return Err(Reject::TrustDomain(id.trust_domain_name().to_owned(), bundle.trust_domain().to_string()));
    }
    let audiences = audiences(&claims)?;
    if audience.is_empty() || !audiences.iter().any(|a| a == audience) {
        return Err(Reject::Audience(audience.to_owned()));
    }
    let expires_at = seconds(&claims, "exp")?.ok_or_else(|| malformed("`exp` is missing"))?;
    if now >= expires_at {
        return Err(Reject::Expired(expires_at));
    }
    let issued_at = seconds(&claims, "iat")?;
    if let Some(from) = seconds(&claims, "nbf")?.max(issued_at).filter(|from| *from > now + LEEWAY) {
        return Err(Reject::NotYetValid(from));
    }
    let principal = Principal::of(&id, bundle.trust_domain());
    let binding = claims.get(&oid.claim()).map(Binding::from_claim).transpose()?;
    if principal == Principal::Other && binding.is_some() {
        // T190: an access token whose subject is a class has a binding, and is no JWT-SVID.
        return Err(Reject::Profile("only agents may carry a binding".into()));
    }
    let binding = check_binding(&principal, binding, oid)?;
    // T16.
    if binding.as_ref().is_some_and(|b| expires_at > b.lease_expires_at) {
        return Err(Reject::Profile("the token expires after the lease of its agent".into()));
    }
    let jti = claims.get("jti").and_then(Value::as_str).map(str::to_owned);
    let issuer = claims.get("iss").and_then(Value::as_str).map(str::to_owned);
    let subjects = [Target::Authority(authority.clone().into_bytes()).unsalted()];
    // In the tokens of others, `cnf` and `single_use` are unknown claims, and those are ignored (JWT-SVID 3).
    let (confirmation, single_use) = match &binding {
        Some(_) => (confirmation(&claims)?, single_use(&claims)?),
        None => (None, false),
    };
    Ok(JwtSvid {
        id,
        principal,
        audience: audiences,
        issuer,
        issued_at,
        expires_at,
        authority,
        jti,
        binding,
        confirmation,
        single_use,
        subjects,
    })
}

/// The expiry that a token claims, Unix seconds, for a holder who knows the token's origin. The token is not verified.
pub fn inspect_jwt_end(token: &str) -> Result<u64, Reject> {
    let end = inspect(token)?.get("exp").and_then(numeric_date);
    end.ok_or_else(|| Reject::Malformed("`exp` is missing or not a time in seconds".into()))
}

/// A NumericDate in whole seconds: it may have a fraction (RFC 7519 2), which is cut off. Returns `None` if it is no such number.
pub(crate) fn numeric_date(value: &Value) -> Option<u64> {
    match (value.as_u64(), value.as_f64()) {
        (Some(seconds), _) => Some(seconds).filter(|s| *s < 1 << 53),
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is positive and below 2^53")]
        (None, Some(seconds)) if (0.0..1e12).contains(&seconds) => Some(seconds as u64),
        _ => None,
    }
}

/// The SPIFFE ID that a token claims, for finding the bundle that verifies it. The token is not verified.
pub fn inspect_jwt(token: &str) -> Result<SpiffeId, Reject> {
    let claims = inspect(token)?;
    let sub = claims.get("sub").and_then(Value::as_str);
    Ok(parse_spiffe_id(sub.ok_or_else(|| Reject::Malformed("`sub` is missing or not a string".into()))?)?)
}

/// The `iss` that a token claims, to choose how to verify it. `None` if it has none. The token is not verified.
pub fn inspect_jwt_issuer(token: &str) -> Result<Option<String>, Reject> {
    Ok(inspect(token)?.get("iss").and_then(Value::as_str).map(str::to_owned))
}

/// The audiences that a token claims, to choose how to verify it. The token is not verified.
pub fn inspect_jwt_audiences(token: &str) -> Result<Vec<String>, Reject> {
    audiences(&inspect(token)?)
}

/// Whether a token claims to be an access token (RFC 9068), to choose how to verify it. The token is not verified.
pub fn is_access_token(token: &str) -> bool {
    let header = Parts::of(token).and_then(|parts| object(parts.header));
    header.is_ok_and(|header| header.get("typ").and_then(Value::as_str).is_some_and(|typ| ACCESS.contains(&typ)))
}

/// Whether a token claims to be one that OAuth issued to a client, in whatever form, to choose how to verify it. JWT-SVIDs do not. The
/// token is not verified.
pub fn is_of_client(token: &str) -> bool {
    inspect(token).is_ok_and(|claims| claims.contains_key("client_id"))
}

/// Whether a token claims to be for a single use, for a holder who would keep it. The token is not verified.
pub fn is_single_use(token: &str) -> bool {
    // What is no boolean is refused by who receives it, so it is not kept either.
    inspect(token).is_ok_and(|claims| single_use(&claims) != Ok(false))
}

fn inspect(token: &str) -> Result<Map<String, Value>, Reject> {
    object(Parts::of(token)?.claims)
}

/// The parts of a token in compact form.
pub(crate) struct Parts<'t> {
    pub(crate) header: &'t str,
    pub(crate) claims: &'t str,
    pub(crate) signature: &'t str,
}

impl<'t> Parts<'t> {
    /// JV-8: compact serialization only. T58: five parts would be a JWE.
    pub(crate) fn of(token: &'t str) -> Result<Parts<'t>, Reject> {
        if token.len() > MAX_TOKEN {
            return Err(Reject::Malformed("the token is over 16 KiB".into()));
        }
        let mut parts = token.split('.');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(header), Some(claims), Some(signature), None) => Ok(Parts { header, claims, signature }),
            _ => Err(Reject::Malformed("a token has three parts".into())),
        }
    }

    /// The claims and the id of the key that signed them, if the token is of one of these types and a key of the bundle verifies
    /// it.
    pub(crate) fn verify(&self, bundle: &Bundle, types: &[&str]) -> Result<(Map<String, Value>, String), Reject> {
        let (kid, alg) = read_header(&object(self.header)?, types)?;
        // T49: the key is found by its exact id, among the keys whose use is jwt-svid. JV-7: without a kid, all of them are tried.
        let mut keys = bundle.jwt_authorities().iter().filter(|a| kid.as_deref().is_none_or(|kid| kid == a.kid()));
        let message = format!("{}.{}", self.header, self.claims);
        let authority = keys
            .find(|a| a.made(alg, &message, self.signature))
            .ok_or_else(|| Reject::Untrusted("no key of the bundle verifies its signature".into()))?;
        Ok((object(self.claims)?, authority.kid().to_owned()))
    }
}

/// `aud`: a string, or a list of strings that is not empty.
pub(crate) fn audiences(claims: &Map<String, Value>) -> Result<Vec<String>, Reject> {
    let audiences = match claims.get("aud") {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(many)) => {
            many.iter().map(|a| a.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>().unwrap_or_default()
        }
        _ => vec![],
    };
    if audiences.is_empty() {
        return Err(Reject::Malformed("`aud` is missing, or neither a string nor a list of strings".into()));
    }
    Ok(audiences)
}

/// A time, in Unix seconds. T50, T52: a value of the wrong type is not an absent one.
pub(crate) fn seconds(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, Reject> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    numeric_date(value).map(Some).ok_or_else(|| Reject::Malformed(format!("`{name}` is not a time in seconds")))
}

// JWT-SVID 2: alg, kid, typ and nothing else. T48, T51: so jwk, jku, x5c, crit and b64 are refused and never read.
fn read_header(header: &Map<String, Value>, types: &[&str]) -> Result<(Option<String>, Alg), Reject> {
    let profile = |what: &str| Reject::Profile(what.to_owned());
    if let Some(extra) = header.keys().find(|k| !matches!(k.as_str(), "alg" | "kid" | "typ")) {
        return Err(profile(&format!(
            "the header has the member `{}`, which a JWT-SVID may not have",
            extra.chars().take(32).collect::<String>()
        )));
    }
    match header.get("typ") {
        // Only a JWT-SVID may leave it out.
        None if types.contains(&"JWT") => {}
        Some(Value::String(typ)) if types.contains(&typ.as_str()) => {}
        _ => return Err(profile(&format!("`typ` must be {}", types.join(" or ")))),
    }
    let alg = header.get("alg").and_then(Value::as_str).and_then(Alg::of);
    let alg = alg.ok_or_else(|| profile("`alg` must be one of the RS, ES and PS algorithms"))?;
    let kid = match header.get("kid") {
        None => None,
        Some(Value::String(kid)) => Some(kid.clone()),
        Some(_) => return Err(profile("`kid` is not a string")),
    };
    Ok((kid, alg))
}

pub(crate) fn object(part: &str) -> Result<Map<String, Value>, Reject> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| Reject::Malformed("a part is not base64url".into()))?;
    serde_json::from_slice(&bytes).map_err(|_| Reject::Malformed("a part is not a JSON object".into()))
}
