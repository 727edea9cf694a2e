//! DPoP proofs (RFC 9449): whoever sends a request holds a key, and made the proof for this request.
//!
//! A proof is for one use. Whoever receives it has to remember that it was used, for as long as it is accepted ([`DPOP_WINDOW`]).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde_json::{Map, Value};

use crate::jwt::{Parts, numeric_date, object};
use crate::{Reject, sha256};

/// Longest proof that is accepted, in bytes.
const MAX_PROOF: usize = 4 * 1024;
/// Longest `jti` and `nonce`, in bytes.
const MAX_TEXT: usize = 256;
/// How far the `iat` of a proof may lie before or after now, in seconds.
pub const DPOP_WINDOW: u64 = 60;
/// The algorithms of the keys that may make a proof.
pub const DPOP_ALGORITHMS: [&str; 3] = ["ES256", "ES384", "EdDSA"];
/// Members of a JWK that are secret. A proof that shows one of them shows a key that is not its sender's alone.
const SECRET: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// The request that a proof must be for.
#[derive(Clone, Copy, Debug)]
pub struct DpopRequest<'a> {
    /// Its method, such as `POST`.
    pub method: &'a str,
    /// Its URLs: every name under which the receiver knows itself. Query and fragment do not count.
    pub urls: &'a [&'a str],
    /// The access token that is sent with it. `None` at a token endpoint.
    pub token: Option<&'a str>,
    /// Unix seconds.
    pub now: u64,
}

/// A proof whose signature, request and time are right. That it is new is not checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DpopProof {
    /// SHA-256 thumbprint of the key (RFC 7638).
    pub thumbprint: [u8; 32],
    /// Unique id of the proof.
    pub jti: String,
    /// When it was made, Unix seconds.
    pub issued_at: u64,
    /// The nonce of the receiver that it was made with. `None` if it has none.
    pub nonce: Option<String>,
}

impl DpopProof {
    /// The thumbprint as the claim `jkt` has it, in base64url.
    pub fn jkt(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.thumbprint)
    }
}

/// Verifies a proof: the value of the one `DPoP` header of a request (RFC 9449 4.3).
pub fn verify_dpop(proof: &str, request: &DpopRequest<'_>) -> Result<DpopProof, Reject> {
    if proof.len() > MAX_PROOF {
        return Err(refused("it is over 4 KiB"));
    }
    let parts = Parts::of(proof).map_err(|_| refused("it has not three parts"))?;
    let header = object(parts.header).map_err(|_| refused("its header is not a JSON object"))?;
    // RFC 8725 3.11: a token of another type that this key signed is no proof.
    if header.get("typ").and_then(Value::as_str) != Some("dpop+jwt") {
        return Err(refused("`typ` must be `dpop+jwt`"));
    }
    if header.contains_key("crit") {
        return Err(refused("`crit` is not understood"));
    }
    let jwk = header.get("jwk").and_then(Value::as_object).ok_or_else(|| refused("its header has no `jwk`"))?;
    let (algorithm, members) = kind(jwk)?;
    // The key decides the algorithm; a proof that names another one is refused, so none is symmetric.
    let named = match header.get("alg").and_then(Value::as_str) {
        Some("Ed25519") => Some("EdDSA"),
        other => other,
    };
    if named != Some(name_of(algorithm)) {
        return Err(refused("`alg` must be ES256, ES384 or EdDSA, and fit the key"));
    }
    let member = |name: &&str| Some(((*name).to_owned(), jwk.get(*name)?.clone()));
    let mut public: Map<String, Value> = members.iter().filter_map(member).collect();
    // RFC 7638 3: the required members alone, sorted and without white space.
    public.sort_keys();
    let thumbprint = sha256(Value::Object(public.clone()).to_string().as_bytes());
    let key: Jwk = serde_json::from_value(Value::Object(public)).map_err(|_| refused("`jwk` cannot be read"))?;
    let key = DecodingKey::from_jwk(&key).map_err(|_| refused("`jwk` cannot be used"))?;
    let signed = format!("{}.{}", parts.header, parts.claims);
    if !crypto::verify(parts.signature, signed.as_bytes(), &key, algorithm).unwrap_or(false) {
        return Err(refused("its signature does not verify"));
    }

    let claims = object(parts.claims).map_err(|_| refused("its claims are not a JSON object"))?;
    let text = |name: &str| claims.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let jti = text("jti").filter(|jti| jti.len() <= MAX_TEXT).ok_or_else(|| refused("`jti` must have 1 to 256 bytes"))?;
    if text("htm") != Some(request.method) {
        return Err(refused("`htm` is not the method of the request"));
    }
    let url = text("htu").and_then(normalized).ok_or_else(|| refused("`htu` is not a URL"))?;
    if !request.urls.iter().any(|own| normalized(own).as_ref() == Some(&url)) {
        return Err(refused("`htu` is not the URL of the request"));
    }
    let issued_at = claims.get("iat").and_then(numeric_date).ok_or_else(|| refused("`iat` is missing or not a time"))?;
    if issued_at.abs_diff(request.now) > DPOP_WINDOW {
        return Err(refused("`iat` is more than 60 seconds from now: compare the clocks"));
    }
    if let Some(token) = request.token
        && text("ath") != Some(&URL_SAFE_NO_PAD.encode(sha256(token.as_bytes())))
    {
        return Err(refused("`ath` is not the hash of the access token"));
    }
    let nonce = match claims.get("nonce") {
        None => None,
        Some(Value::String(nonce)) if nonce.len() <= MAX_TEXT => Some(nonce.clone()),
        Some(_) => return Err(refused("`nonce` is not a string of at most 256 bytes")),
    };
    Ok(DpopProof { thumbprint, jti: jti.to_owned(), issued_at, nonce })
}

fn refused(what: &str) -> Reject {
    Reject::Proof(what.to_owned())
}

fn name_of(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::ES256 => "ES256",
        Algorithm::ES384 => "ES384",
        _ => "EdDSA",
    }
}

/// The algorithm of a public key, and the members that make it one.
fn kind(jwk: &Map<String, Value>) -> Result<(Algorithm, &'static [&'static str]), Reject> {
    if SECRET.iter().any(|name| jwk.contains_key(*name)) {
        return Err(refused("`jwk` is not a public key"));
    }
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let (algorithm, length, members): (_, _, &'static [&'static str]) = match (text("kty"), text("crv")) {
        (Some("EC"), Some("P-256")) => (Algorithm::ES256, 32, &["crv", "kty", "x", "y"]),
        (Some("EC"), Some("P-384")) => (Algorithm::ES384, 48, &["crv", "kty", "x", "y"]),
        (Some("OKP"), Some("Ed25519")) => (Algorithm::EdDSA, 32, &["crv", "kty", "x"]),
        _ => return Err(refused("`jwk` must be a key on P-256, P-384 or Ed25519")),
    };
    let sound = |name: &str| {
        let coordinate = matches!(name, "x" | "y");
        // One key has one thumbprint: the decoder takes one spelling of its coordinates alone.
        let bytes = text(name).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        !coordinate || bytes.is_some_and(|bytes| bytes.len() == length)
    };
    if members.iter().all(|name| sound(name)) {
        Ok((algorithm, members))
    } else {
        Err(refused("`jwk` has a malformed coordinate"))
    }
}

/// A URL without query and fragment, in the one form of RFC 3986 6.2.2 and 6.2.3. `None` if it is not one of https or http, or has
/// user information.
fn normalized(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let default = match scheme.as_str() {
        "https" => ":443",
        "http" => ":80",
        _ => return None,
    };
    let end = rest.find(['?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.get(..end)?.split_at_checked(rest.find(['/', '?', '#']).unwrap_or(rest.len()))?;
    let authority = authority.to_ascii_lowercase();
    let authority = authority.strip_suffix(default).or_else(|| authority.strip_suffix(':')).unwrap_or(&authority);
    if authority.is_empty() || authority.contains(['@', '\\']) || !url.bytes().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    let mut segments: Vec<String> = Vec::new();
    let mut parts = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(part) = parts.next() {
        let (part, last) = (unescaped(part)?, parts.peek().is_none());
        match part.as_str() {
            "." | ".." => {
                if part == ".." {
                    segments.pop();
                }
                if last {
                    segments.push(String::new());
                }
            }
            _ => segments.push(part),
        }
    }
    Some(format!("{scheme}://{authority}/{}", segments.join("/")))
}

/// A segment of a path in which unreserved characters are not escaped, and all other escapes are in upper case.
fn unescaped(segment: &str) -> Option<String> {
    let mut parts = segment.split('%');
    let mut written = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        let byte = u8::from_str_radix(digits, 16).ok().filter(|_| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            written.push(char::from(byte));
        } else {
            written.push('%');
            written.push_str(&digits.to_ascii_uppercase());
        }
        written.push_str(rest);
    }
    Some(written)
}

#[cfg(test)]
mod tests;
