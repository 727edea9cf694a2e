//! Parses a user token once, from its exact bytes, and checks its claims.

use std::fmt;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::id_jag;
use super::{AudienceSettings, IssuerSettings, MAX_TOKEN, Refusal};
use crate::claims::Grant;

/// How far the provider's clock may be ahead of ours, in seconds. Expiry has no such tolerance.
const LEEWAY: u64 = 5;
/// Longest `sub`, in bytes (OIDC Core 2).
const MAX_SUB: usize = 255;
/// Longest `kid`, in bytes.
const MAX_KID: usize = 512;
/// Groups of one user at most.
const MAX_GROUPS: usize = 100;
/// Last second of the year 9999. A later time is a mistake or an attack.
const MAX_TIME: u64 = 253_402_300_799;
/// Header members that bring a key or change how the token is checked. Attackers rely on verifiers that ignore them, so they are
/// refused.
const FORBIDDEN_HEADERS: [&str; 5] = ["crit", "b64", "jwk", "zip", "enc"];
/// Header members that say where the key could be had. Some providers send one with every token. They are ignored, and the token
/// must have a `kid` that names a published key.
const POINTERS: [&str; 3] = ["jku", "x5u", "x5c"];

/// A token with the right shape. Its signature is not checked yet, so it proves nothing.
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
    /// An ID token.
    Id,
    /// An RFC 9068 access token.
    Access,
    /// An ID-JAG.
    Grant,
}

/// The `typ` of an ID-JAG.
pub(super) const ID_JAG: &str = "oauth-id-jag+jwt";

/// A token whose signature was verified with a key of its issuer. Only [`Parsed::signed_by`] makes one.
pub(super) struct Signed {
    kind: Kind,
    claims: Map<String, Value>,
    proof: [u8; 32],
}

/// The claims of a verified token. Times are in Unix seconds.
pub(super) struct Statement<'i> {
    pub(super) sub: String,
    pub(super) issued_at: u64,
    pub(super) expires_at: u64,
    pub(super) proof: [u8; 32],
    pub(super) audience: &'i AudienceSettings,
    pub(super) claims: Map<String, Value>,
    /// The grant. `None` unless the token is an ID-JAG.
    pub(super) id_jag: Option<Grant>,
}

impl<'t> Parsed<'t> {
    /// Parses a compact JWS. A JWE has five parts and is refused here, so nothing is ever decompressed.
    pub(super) fn of(token: &'t str) -> Result<Self, Refusal> {
        if token.len() > MAX_TOKEN {
            return Err(Refusal::TooLarge);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Refusal::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(Refusal::Malformed)?;
        let mut header = object(header)?;
        let claims = object(payload)?;
        // The decoder accepts only one encoding of a signature: no padding, no stray bits, no fourth part.
        URL_SAFE_NO_PAD.decode(signature).map_err(|_| Refusal::Malformed)?;

        if FORBIDDEN_HEADERS.iter().any(|name| header.contains_key(*name)) {
            return Err(Refusal::Header);
        }
        let alg = match header.get("alg") {
            // RFC 9864 names the curve of EdDSA.
            Some(Value::String(alg)) if alg == "Ed25519" => Algorithm::EdDSA,
            Some(Value::String(alg)) => alg.parse().map_err(|_| Refusal::Algorithm)?,
            _ => return Err(Refusal::Algorithm),
        };
        let kind = match header.get("typ") {
            None => Kind::Id,
            Some(Value::String(typ)) if typ.eq_ignore_ascii_case("JWT") => Kind::Id,
            Some(Value::String(typ)) if typ.eq_ignore_ascii_case("at+jwt") => Kind::Access,
            Some(Value::String(typ)) if typ.eq_ignore_ascii_case("application/at+jwt") => Kind::Access,
            Some(Value::String(typ)) if typ.eq_ignore_ascii_case(ID_JAG) => Kind::Grant,
            Some(_) => return Err(Refusal::Type),
        };
        let kid = match header.remove("kid") {
            None if POINTERS.iter().any(|name| header.contains_key(*name)) => return Err(Refusal::Header),
            None => None,
            Some(Value::String(kid)) if kid.len() <= MAX_KID => Some(kid),
            Some(_) => return Err(Refusal::Header),
        };
        Ok(Parsed { signed, signature, alg, kid, kind, claims })
    }

    /// The unverified `iss`. Until the signature is checked it may only be used to choose the issuer's keys.
    pub(super) fn issuer(&self) -> Result<&str, Refusal> {
        text(&self.claims, "iss")
    }

    /// The algorithm that the header names.
    pub(super) fn alg(&self) -> Algorithm {
        self.alg
    }

    /// The key id that the header names, or `None` if it names none.
    pub(super) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Whether the header says that it is an ID-JAG.
    pub(super) fn is_id_jag(&self) -> bool {
        self.kind == Kind::Grant
    }

    /// The unverified `may_act`.
    pub(super) fn may_act(&self) -> Result<Option<Map<String, Value>>, Refusal> {
        match self.claims.get("may_act") {
            None => Ok(None),
            Some(Value::Object(members)) => Ok(Some(members.clone())),
            Some(_) => Err(Refusal::Claim("may_act")),
        }
    }

    /// The text that the signature covers, and the signature in base64url.
    pub(super) fn signature(&self) -> (&'t str, &'t str) {
        (self.signed, self.signature)
    }

    /// Checks the signature with `holds`. Only a token that passes gives access to its claims.
    pub(super) fn signed_by(self, holds: impl FnOnce(&Self) -> Result<(), Refusal>) -> Result<Signed, Refusal> {
        holds(&self)?;
        // The signature is left out: anybody can turn one valid ECDSA signature into another, and a token that is bound to its
        // first presenter would pass as a new one.
        let digest = digest::digest(&digest::SHA256, self.signed.as_bytes());
        let proof = digest.as_ref().try_into().map_err(|_| Refusal::Malformed)?;
        Ok(Signed { kind: self.kind, claims: self.claims, proof })
    }
}

impl Signed {
    /// Checks every claim against the configuration of `issuer` at `now`, in Unix seconds.
    pub(super) fn check(self, issuer: &IssuerSettings, now: u64) -> Result<Statement<'_>, Refusal> {
        let claims = &self.claims;
        if text(claims, "iss")? != issuer.issuer {
            return Err(Refusal::IssuerUnknown);
        }
        // The JSON type of every claim is checked before any value: a claim of the wrong type never counts as absent
        // (CVE-2026-25537).
        let sub = text(claims, "sub")?;
        let exp = time(claims, "exp")?.ok_or(Refusal::Claim("exp"))?;
        let iat = time(claims, "iat")?.ok_or(Refusal::Claim("iat"))?;
        let nbf = time(claims, "nbf")?;
        let aud = audiences(claims)?;
        let azp = if claims.contains_key("azp") { Some(text(claims, "azp")?) } else { None };
        if self.kind == Kind::Access {
            // RFC 9068 2.2: these are required too.
            text(claims, "client_id")?;
            text(claims, "jti")?;
        }
        if sub.is_empty() || sub.len() > MAX_SUB || sub.chars().any(char::is_control) {
            return Err(Refusal::Claim("sub"));
        }
        // Only an ID-JAG may name an actor, because it is issued to one.
        if self.kind != Kind::Grant && claims.contains_key("act") {
            return Err(Refusal::Actor);
        }
        // A logout or security event token is not an ID token (OIDC Back-Channel Logout 2.4). A token bound to a key of its
        // client proves nothing without that key (RFC 7800 3, RFC 9449 7).
        if claims.contains_key("events") || (self.kind != Kind::Grant && claims.contains_key("cnf")) {
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
        // T245: an ID-JAG is for us and for nobody else, and no token of another kind passes for one.
        if audience.id_jag != (self.kind == Kind::Grant) {
            return Err(Refusal::Type);
        }
        if self.kind == Kind::Grant && aud.len() != 1 {
            return Err(Refusal::Audience);
        }
        let id_jag = if self.kind == Kind::Grant { Some(id_jag::read(claims, now)?) } else { None };
        // OIDC Core 3.1.3.7: a token with several audiences names in `azp` the one that it was issued to.
        if self.kind == Kind::Id && aud.len() > 1 && azp != Some(audience.audience.as_str()) {
            return Err(Refusal::Audience);
        }
        let sub = sub.to_owned();
        Ok(Statement { sub, issued_at: iat, expires_at: exp, proof: self.proof, audience, claims: self.claims, id_jag })
    }
}

/// The configured audience that `aud` names. Fails unless there is exactly one.
fn one_audience<'i>(issuer: &'i IssuerSettings, aud: &[&str]) -> Result<&'i AudienceSettings, Refusal> {
    let mut matching = issuer.audiences.iter().filter(|a| aud.contains(&a.audience.as_str()));
    match (matching.next(), matching.next()) {
        (Some(one), None) => Ok(one),
        _ => Err(Refusal::Audience),
    }
}

/// How and when the user signed in: `acr` and `auth_time` (OIDC Core 2), where they are what the standard says. Only policies look at
/// them, and for those an absent value proves nothing.
pub(super) fn sign_in(claims: &Map<String, Value>) -> (Option<String>, Option<u64>) {
    let acr = claims.get("acr").and_then(Value::as_str).filter(|acr| (1..=MAX_SUB).contains(&acr.len()));
    let at = time(claims, "auth_time").ok().flatten();
    (acr.map(str::to_owned), at)
}

/// The name of the user in a claim, for the `login_hint` of their provider. A claim that is no plain text names nobody: then nobody is
/// asked by it.
pub(super) fn hint(claims: &Map<String, Value>, claim: &str) -> Option<String> {
    let name = claims.get(claim)?.as_str()?;
    let plain = !name.is_empty() && name.len() <= MAX_SUB && !name.chars().any(char::is_control);
    plain.then(|| name.to_owned())
}

/// The groups of the user, sorted: the texts of a claim that is a text or a list of texts. A claim of another form, or with too much in
/// it, is refused: a policy that forbids a group must not be escaped by a long list.
pub(super) fn groups(claims: &Map<String, Value>, claim: Option<&str>) -> Result<Vec<String>, Refusal> {
    let Some(claim) = claim else { return Ok(Vec::new()) };
    let named = |value: &Value| match value.as_str() {
        Some(name) if !name.is_empty() && name.len() <= MAX_SUB && !name.chars().any(char::is_control) => Ok(name.to_owned()),
        _ => Err(Refusal::Claim("groups")),
    };
    let mut groups = match claims.get(claim) {
        None => Vec::new(),
        Some(one @ Value::String(_)) => vec![named(one)?],
        Some(Value::Array(many)) if many.len() <= MAX_GROUPS => many.iter().map(named).collect::<Result<Vec<_>, _>>()?,
        Some(_) => return Err(Refusal::Claim("groups")),
    };
    groups.sort_unstable();
    groups.dedup();
    Ok(groups)
}

/// `aud`, which is a string or an array of strings.
fn audiences(claims: &Map<String, Value>) -> Result<Vec<&str>, Refusal> {
    match claims.get("aud") {
        Some(Value::String(one)) => Ok(vec![one]),
        Some(Value::Array(many)) => many.iter().map(|one| one.as_str().ok_or(Refusal::Claim("aud"))).collect(),
        _ => Err(Refusal::Claim("aud")),
    }
}

/// A required claim that is a string.
fn text<'c>(claims: &'c Map<String, Value>, name: &'static str) -> Result<&'c str, Refusal> {
    claims.get(name).and_then(Value::as_str).ok_or(Refusal::Claim(name))
}

/// A claim in whole Unix seconds. A NumericDate may have a fraction (RFC 7519 2), which is cut off. Returns `None` if the claim is
/// absent.
pub(super) fn time(claims: &Map<String, Value>, name: &'static str) -> Result<Option<u64>, Refusal> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let whole = match (value.as_u64(), value.as_f64()) {
        (Some(seconds), _) => Some(seconds),
        // A double of this size still holds whole seconds exactly.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is positive and below 2^53")]
        (None, Some(seconds)) if (0.0..1e12).contains(&seconds) => Some(seconds as u64),
        _ => None,
    };
    whole.filter(|seconds| *seconds <= MAX_TIME).map(Some).ok_or(Refusal::Claim(name))
}

/// Decodes one base64url part that is a JSON object.
fn object(part: &str) -> Result<Map<String, Value>, Refusal> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| Refusal::Malformed)?;
    serde_json::from_slice::<UniqueNames>(&bytes).map(|o| o.0).map_err(|_| Refusal::Malformed)
}

/// A JSON object in which no member name occurs twice, so that all readers see the same values.
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn t255_a_claim_of_groups_that_cannot_be_read_is_refused_and_never_shortened() {
        let read = |value: Value| groups(&Map::from_iter([("roles".to_owned(), value)]), Some("roles")).ok();
        assert_eq!(read(json!("eng")), Some(vec!["eng".to_owned()]));
        assert_eq!(read(json!(["ops", "eng", "ops"])), Some(vec!["eng".to_owned(), "ops".to_owned()]));
        assert_eq!(read(json!([])), Some(Vec::new()));
        assert_eq!(groups(&Map::new(), Some("roles")).ok(), Some(Vec::new()), "no such claim");
        let many = |n: usize| json!((0..n).map(|n| n.to_string()).collect::<Vec<_>>());
        assert!(read(many(MAX_GROUPS)).is_some());
        for bad in
            [json!(7), json!(null), json!({ "a": 1 }), json!(["eng", 7]), json!([""]), json!(["a\nb"]), many(MAX_GROUPS + 1)]
        {
            assert_eq!(read(bad.clone()), None, "{bad}");
        }
        assert_eq!(read(json!("x".repeat(MAX_SUB + 1))), None);
    }
}
