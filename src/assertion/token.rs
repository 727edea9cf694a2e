//! One user token: parsed once, strictly; every wrong type is a refusal, never "absent" (T47 to T53).

use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::jwks::Key;
use super::{AudienceSettings, IssuerSettings};

/// Longest token that is looked at, in bytes.
const MAX: usize = 16 * 1024;
/// How far clocks may differ, in seconds.
const LEEWAY: u64 = 5;

/// Why a user token does not count. [`Refusal::code`] is its stable label.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Over 16 KiB.
    #[error("the user token is over 16 KiB")]
    TooLarge,
    /// Not three base64url parts of JSON.
    #[error("the user token is no signed JWT in compact form")]
    Malformed,
    /// A header that changes how the token is read, or where its key comes from.
    #[error("the user token's header holds `{0}`, which is never accepted")]
    Header(String),
    /// Neither an ID token nor an access token.
    #[error("the user token is of type `{0}`: bring an ID token or an at+jwt access token")]
    Type(String),
    /// `none`, a shared secret, or something that does not fit the key.
    #[error("the user token's algorithm is not accepted")]
    Algorithm,
    /// Of nobody we know.
    #[error("the user token is of an issuer that is not configured")]
    IssuerUnknown,
    /// No key of that id at the issuer.
    #[error("the user token's key is unknown to its issuer")]
    KeyUnknown,
    /// Somebody changed it, or made it.
    #[error("the user token's signature does not hold")]
    Signature,
    /// A claim is missing or of a wrong type.
    #[error("the user token's claim `{0}` is missing or of a wrong type")]
    Claim(&'static str),
    /// Its time is over.
    #[error("the user token has expired: bring a fresh one")]
    Expired,
    /// Its time has not come.
    #[error("the user token is not valid yet: check the clocks")]
    NotYetValid,
    /// Issued too long ago.
    #[error("the user token was issued too long ago: bring a fresh one")]
    TooOld,
    /// For nobody who may present it here.
    #[error("the user token is for an audience that is not configured")]
    Audience,
    /// Somebody acts in it already.
    #[error("the user token has an `act` claim: only the user's own tokens are a proof")]
    Actor,
    /// Its issuer does not answer.
    #[error("the user token's issuer cannot be reached: ask again in a moment ({0})")]
    IssuerUnavailable(String),
}

impl Refusal {
    /// A stable label, in upper case.
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::TooLarge => "USER_TOKEN_TOO_LARGE",
            Refusal::Malformed => "USER_TOKEN_MALFORMED",
            Refusal::Header(_) => "USER_TOKEN_HEADER",
            Refusal::Type(_) => "USER_TOKEN_TYPE",
            Refusal::Algorithm => "USER_TOKEN_ALGORITHM",
            Refusal::IssuerUnknown => "USER_TOKEN_ISSUER_UNKNOWN",
            Refusal::KeyUnknown => "USER_TOKEN_KEY_UNKNOWN",
            Refusal::Signature => "USER_TOKEN_SIGNATURE",
            Refusal::Claim(_) => "USER_TOKEN_CLAIM",
            Refusal::Expired => "USER_TOKEN_EXPIRED",
            Refusal::NotYetValid => "USER_TOKEN_NOT_YET_VALID",
            Refusal::TooOld => "USER_TOKEN_TOO_OLD",
            Refusal::Audience => "USER_TOKEN_AUDIENCE",
            Refusal::Actor => "USER_TOKEN_ACTOR",
            Refusal::IssuerUnavailable(_) => "USER_ISSUER_UNAVAILABLE",
        }
    }

    /// Whether asking again may help.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Refusal::IssuerUnavailable(_))
    }
}

/// A token that parsed. Nothing of it is believed yet.
pub(super) struct Parsed<'a> {
    message: &'a str,
    signature: &'a str,
    alg: Algorithm,
    pub(super) kid: Option<String>,
    access: bool,
    pub(super) claims: Claims,
}

pub(super) struct Claims {
    pub(super) iss: String,
    pub(super) sub: String,
    aud: Vec<String>,
    azp: Option<String>,
    pub(super) exp: u64,
    pub(super) iat: u64,
    nbf: Option<u64>,
    client_id: bool,
    jti: bool,
}

pub(super) fn parse(token: &str) -> Result<Parsed<'_>, Refusal> {
    if token.len() > MAX {
        return Err(Refusal::TooLarge);
    }
    // T58: five parts would be a JWE.
    let (message, signature) = token.rsplit_once('.').ok_or(Refusal::Malformed)?;
    let (header, claims) = message.split_once('.').filter(|(_, c)| !c.contains('.')).ok_or(Refusal::Malformed)?;
    let header = object(header)?;
    // T48, T51: keys that a token brings along, and extensions that change its meaning.
    if let Some(name) = header.keys().find(|k| !matches!(k.as_str(), "alg" | "kid" | "typ" | "x5t" | "x5t#S256")) {
        return Err(Refusal::Header(name.chars().take(32).collect()));
    }
    let text = |name: &str| match header.get(name) {
        None => Ok(None),
        Some(Value::String(s)) => Ok(Some(s.clone())),
        Some(_) => Err(Refusal::Malformed),
    };
    let access = match text("typ")?.map(|t| t.to_ascii_lowercase()).as_deref() {
        None | Some("jwt") => false,
        Some("at+jwt" | "application/at+jwt") => true,
        Some(other) => return Err(Refusal::Type(other.chars().take(32).collect())),
    };
    let alg = text("alg")?.and_then(|alg| Algorithm::from_str(&alg).ok()).ok_or(Refusal::Algorithm)?;
    if matches!(alg, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512) {
        return Err(Refusal::Algorithm);
    }
    let claims = object(claims)?;
    if claims.contains_key("act") || claims.contains_key("may_act") {
        return Err(Refusal::Actor);
    }
    Ok(Parsed { message, signature, alg, kid: text("kid")?, access, claims: read_claims(&claims)? })
}

impl Parsed<'_> {
    pub(super) fn check_signature(&self, keys: &[Key]) -> Result<(), Refusal> {
        if keys.is_empty() {
            return Err(Refusal::KeyUnknown);
        }
        let fitting: Vec<&Key> = keys.iter().filter(|k| k.allows(self.alg)).collect();
        if fitting.is_empty() {
            return Err(Refusal::Algorithm);
        }
        let holds = |key: &&Key| {
            jsonwebtoken::crypto::verify(self.signature, self.message.as_bytes(), &key.key, self.alg).unwrap_or(false)
        };
        if fitting.iter().any(holds) { Ok(()) } else { Err(Refusal::Signature) }
    }

    pub(super) fn check_claims<'s>(&self, settings: &'s IssuerSettings, now: u64) -> Result<&'s AudienceSettings, Refusal> {
        let claims = &self.claims;
        if self.access && !(claims.client_id && claims.jti) {
            // RFC 9068, 2.2.
            return Err(Refusal::Claim(if claims.jti { "client_id" } else { "jti" }));
        }
        if now >= claims.exp {
            return Err(Refusal::Expired);
        }
        if claims.iat > now + LEEWAY || claims.nbf.is_some_and(|nbf| nbf > now + LEEWAY) {
            return Err(Refusal::NotYetValid);
        }
        if now.saturating_sub(claims.iat) > settings.max_age.as_secs() {
            return Err(Refusal::TooOld);
        }
        // T53: an exact element. OIDC Core 3.1.3.7: with several audiences, `azp` says whose token it is.
        let meant = match claims.aud.as_slice() {
            [one] => Some(one),
            many => claims.azp.as_ref().filter(|azp| many.contains(azp)),
        };
        let meant = meant.ok_or(Refusal::Audience)?;
        settings.audiences.iter().find(|a| a.audience == *meant).ok_or(Refusal::Audience)
    }
}

fn read_claims(claims: &Map<String, Value>) -> Result<Claims, Refusal> {
    let text = |name: &'static str, most: usize| {
        let value = claims.get(name).and_then(Value::as_str).ok_or(Refusal::Claim(name))?;
        let ok = !value.is_empty() && value.len() <= most && !value.chars().any(char::is_control);
        ok.then(|| value.to_owned()).ok_or(Refusal::Claim(name))
    };
    let seconds = |name: &'static str| match claims.get(name) {
        None => Ok(None),
        Some(value) => value.as_u64().filter(|s| *s < 1 << 53).map(Some).ok_or(Refusal::Claim(name)),
    };
    let optional = |name: &'static str| if claims.contains_key(name) { text(name, 512).map(Some) } else { Ok(None) };
    let aud = match claims.get("aud") {
        Some(Value::String(one)) if !one.is_empty() => vec![one.clone()],
        Some(Value::Array(many)) if !many.is_empty() && many.len() <= 20 => many
            .iter()
            .map(|a| a.as_str().filter(|a| !a.is_empty()).map(str::to_owned).ok_or(Refusal::Claim("aud")))
            .collect::<Result<_, _>>()?,
        _ => return Err(Refusal::Claim("aud")),
    };
    Ok(Claims {
        iss: text("iss", 512)?,
        sub: text("sub", 255)?,
        aud,
        azp: optional("azp")?,
        exp: seconds("exp")?.ok_or(Refusal::Claim("exp"))?,
        iat: seconds("iat")?.ok_or(Refusal::Claim("iat"))?,
        nbf: seconds("nbf")?,
        client_id: optional("client_id")?.is_some(),
        jti: optional("jti")?.is_some(),
    })
}

fn object(part: &str) -> Result<Map<String, Value>, Refusal> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| Refusal::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| Refusal::Malformed)
}
