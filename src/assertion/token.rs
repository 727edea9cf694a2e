//! A user token taken apart, once, from its exact bytes; and what its claims must say.

use std::fmt;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::{AudienceSettings, IssuerSettings, MAX_TOKEN, Refusal};

/// How far the clocks of provider and issuer may differ, in seconds. An expired token gets no such grace.
const LEEWAY: u64 = 5;
/// Longest `sub`, in bytes (OIDC Core 2).
const MAX_SUB: usize = 255;
/// Longest `kid`, in bytes.
const MAX_KID: usize = 512;
/// Last second of the year 9999: a later time is a mistake or an attack.
const MAX_TIME: u64 = 253_402_300_799;
/// Header members that choose the key or change what is checked. Ignoring them is what attackers count on in other verifiers.
const FORBIDDEN_HEADERS: [&str; 8] = ["crit", "b64", "jku", "jwk", "x5u", "x5c", "zip", "enc"];

/// A token that has the right shape and proves nothing yet.
pub(super) struct Parsed<'t> {
    signed: &'t str,
    signature: &'t str,
    alg: Algorithm,
    kid: Option<String>,
    kind: Kind,
    claims: Map<String, Value>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Id,
    /// RFC 9068.
    Access,
}

/// A token whose signature holds under a key of the issuer it was checked for. Made by [`Parsed::signed_by`] only.
pub(super) struct Signed {
    kind: Kind,
    claims: Map<String, Value>,
    proof: [u8; 32],
}

/// What a verified token says.
pub(super) struct Statement<'i> {
    pub(super) sub: String,
    pub(super) issued_at: u64,
    pub(super) expires_at: u64,
    pub(super) proof: [u8; 32],
    pub(super) audience: &'i AudienceSettings,
}

impl<'t> Parsed<'t> {
    /// Takes a compact JWS apart. A JWE has five parts and ends here, so nothing is ever decompressed.
    pub(super) fn of(token: &'t str) -> Result<Self, Refusal> {
        if token.len() > MAX_TOKEN {
            return Err(Refusal::TooLarge);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Refusal::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(Refusal::Malformed)?;
        let mut header = object(header)?;
        let claims = object(payload)?;
        // The decoder takes one spelling of a signature only: no padding, no stray bits, no fourth part.
        URL_SAFE_NO_PAD.decode(signature).map_err(|_| Refusal::Malformed)?;

        if FORBIDDEN_HEADERS.iter().any(|name| header.contains_key(*name)) {
            return Err(Refusal::Header);
        }
        let alg = match header.get("alg") {
            Some(Value::String(alg)) => alg.parse().map_err(|_| Refusal::Algorithm)?,
            _ => return Err(Refusal::Algorithm),
        };
        let kind = match header.get("typ") {
            None => Kind::Id,
            Some(Value::String(typ)) if typ.eq_ignore_ascii_case("JWT") => Kind::Id,
            Some(Value::String(typ)) if typ.eq_ignore_ascii_case("at+jwt") => Kind::Access,
            Some(Value::String(typ)) if typ.eq_ignore_ascii_case("application/at+jwt") => Kind::Access,
            Some(_) => return Err(Refusal::Type),
        };
        let kid = match header.remove("kid") {
            None => None,
            Some(Value::String(kid)) if kid.len() <= MAX_KID => Some(kid),
            Some(_) => return Err(Refusal::Header),
        };
        Ok(Parsed { signed, signature, alg, kid, kind, claims })
    }

    /// Whom the token says it is from; good for choosing keys, and for nothing else before the signature is checked.
    pub(super) fn issuer(&self) -> Result<&str, Refusal> {
        text(&self.claims, "iss")
    }

    /// The algorithm the header names.
    pub(super) fn alg(&self) -> Algorithm {
        self.alg
    }

    /// The key id the header names.
    pub(super) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// What the signature covers, and the signature.
    pub(super) fn signature(&self) -> (&'t str, &'t str) {
        (self.signed, self.signature)
    }

    /// Asks `holds` whether the signature is good; only then the claims count.
    pub(super) fn signed_by(self, holds: impl FnOnce(&Self) -> Result<(), Refusal>) -> Result<Signed, Refusal> {
        holds(&self)?;
        // The signature is left out: ECDSA lets anybody turn one good signature into a second one, and a token that was
        // bound to its first presenter would pass as new.
        let digest = digest::digest(&digest::SHA256, self.signed.as_bytes());
        let proof = digest.as_ref().try_into().map_err(|_| Refusal::Malformed)?;
        Ok(Signed { kind: self.kind, claims: self.claims, proof })
    }
}

impl Signed {
    /// Checks every claim for what `issuer` is configured to accept at `now` (seconds).
    pub(super) fn check(self, issuer: &IssuerSettings, now: u64) -> Result<Statement<'_>, Refusal> {
        let claims = &self.claims;
        if text(claims, "iss")? != issuer.issuer {
            return Err(Refusal::IssuerUnknown);
        }
        // Every claim has its JSON type before any is judged: a wrong type never reads as "absent" (CVE-2026-25537).
        let sub = text(claims, "sub")?;
        let exp = time(claims, "exp")?.ok_or(Refusal::Claim)?;
        let iat = time(claims, "iat")?.ok_or(Refusal::Claim)?;
        let nbf = time(claims, "nbf")?;
        let aud = audiences(claims)?;
        let azp = if claims.contains_key("azp") { Some(text(claims, "azp")?) } else { None };
        if self.kind == Kind::Access {
            // RFC 9068 2.2: required, beside those above.
            text(claims, "client_id")?;
            text(claims, "jti")?;
        }
        if sub.is_empty() || sub.len() > MAX_SUB || sub.chars().any(char::is_control) {
            return Err(Refusal::Claim);
        }
        if claims.contains_key("act") {
            return Err(Refusal::Actor);
        }
        // A logout or security event token is no ID token (OIDC Back-Channel Logout 2.4); a token bound to a key of its
        // client is worth nothing without that key (RFC 7800 3, RFC 9449 7).
        if claims.contains_key("events") || claims.contains_key("cnf") {
            return Err(Refusal::Type);
        }
        if exp <= now {
            return Err(Refusal::Expired);
        }
        if iat > now.saturating_add(LEEWAY) || nbf.is_some_and(|nbf| nbf > now.saturating_add(LEEWAY)) {
            return Err(Refusal::NotYetValid);
        }
        if now.saturating_sub(iat) > issuer.max_age.as_secs() {
            return Err(Refusal::TooOld);
        }
        let audience = one_audience(issuer, &aud)?;
        // OIDC Core 3.1.3.7: with several audiences, the one it was issued to is named by `azp`.
        if self.kind == Kind::Id && aud.len() > 1 && azp != Some(audience.audience.as_str()) {
            return Err(Refusal::Audience);
        }
        Ok(Statement { sub: sub.to_owned(), issued_at: iat, expires_at: exp, proof: self.proof, audience })
    }
}

fn one_audience<'i>(issuer: &'i IssuerSettings, aud: &[&str]) -> Result<&'i AudienceSettings, Refusal> {
    let mut matching = issuer.audiences.iter().filter(|a| aud.contains(&a.audience.as_str()));
    match (matching.next(), matching.next()) {
        (Some(one), None) => Ok(one),
        _ => Err(Refusal::Audience),
    }
}

fn audiences(claims: &Map<String, Value>) -> Result<Vec<&str>, Refusal> {
    match claims.get("aud") {
        Some(Value::String(one)) => Ok(vec![one]),
        Some(Value::Array(many)) => many.iter().map(|one| one.as_str().ok_or(Refusal::Claim)).collect(),
        _ => Err(Refusal::Claim),
    }
}

fn text<'c>(claims: &'c Map<String, Value>, name: &str) -> Result<&'c str, Refusal> {
    claims.get(name).and_then(Value::as_str).ok_or(Refusal::Claim)
}

fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, Refusal> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => value.as_u64().filter(|t| *t <= MAX_TIME).map(Some).ok_or(Refusal::Claim),
    }
}

fn object(part: &str) -> Result<Map<String, Value>, Refusal> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| Refusal::Malformed)?;
    serde_json::from_slice::<UniqueNames>(&bytes).map(|o| o.0).map_err(|_| Refusal::Malformed)
}

/// A JSON object in which no member name occurs twice, so that no two readers can see different values.
pub(super) struct UniqueNames(pub(super) Map<String, Value>);

impl<'de> Deserialize<'de> for UniqueNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = UniqueNames;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<UniqueNames, A::Error> {
                let mut members = Map::new();
                while let Some((name, value)) = access.next_entry::<String, Value>()? {
                    if members.insert(name, value).is_some() {
                        return Err(A::Error::custom("a member name occurs twice"));
                    }
                }
                Ok(UniqueNames(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}
