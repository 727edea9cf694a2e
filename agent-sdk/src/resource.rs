//! A resource server of OAuth: what it says of itself (RFC 9728), which access tokens it accepts, and how it refuses a request (RFC
//! 6750, RFC 9449). A server of the Model Context Protocol is one.
//!
//! ```
//! use std::sync::Arc;
//!
//! use mayfly_agent::delegation::{DelegationLayer, Tokens};
//! use mayfly_agent::resource::Resource;
//!
//! # fn example(verifier: mayfly_agent::peers::Verifier) -> Result<(), Box<dyn std::error::Error>> {
//! let resource = Resource::new("https://mail.example/mcp", "https://issuer.example")?.with_scopes(["mail:send"]).with_dpop()?;
//! // Serve this at `resource.metadata_path()`, for everybody.
//! assert_eq!(resource.metadata_path(), "/.well-known/oauth-protected-resource/mcp");
//! let document = resource.metadata();
//! let layer = DelegationLayer::new(verifier).with_tokens(Tokens::Resource(Arc::new(resource)));
//! # let _ = (document, layer);
//! # Ok(())
//! # }
//! ```

use aws_lc_rs::error::Unspecified;
use http::{HeaderMap, HeaderValue, Method};
use mayfly_verify::{AccessToken, Confirmation, DPOP_ALGORITHMS, DpopRequest, Possession, Reject, verify_dpop};
use serde_json::json;

use crate::peers::Verifier;
use crate::proofs::Proofs;

/// Where the metadata of a resource lies (RFC 9728 3).
const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// Our own name, and the issuer whose tokens we accept.
#[derive(Debug)]
pub struct Resource {
    /// Our audience: the URL that clients know us by.
    name: String,
    /// Its scheme and authority.
    origin: String,
    /// Its path, which may be empty.
    path: String,
    issuer: String,
    scopes: Vec<String>,
    proofs: Option<Proofs>,
}

/// The name of a resource is not an `https` URL, or has user information, a query or a fragment. A loopback address may be `http`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a resource is an https URL without user, query and fragment, and without a slash at its end")]
pub struct NotAResource;

/// How a token is presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Bearer,
    Dpop,
}

/// The parts of a request that its token or proof must match.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent<'a> {
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    pub(crate) headers: &'a HeaderMap,
    /// SHA-256 of the client certificate of the connection.
    pub(crate) certificate: Option<[u8; 32]>,
}

impl Resource {
    /// A resource that accepts the access tokens of an issuer, by its `iss`, that are for `name`.
    pub fn new(name: &str, issuer: &str) -> Result<Resource, NotAResource> {
        let (scheme, rest) = name.split_once("://").ok_or(NotAResource)?;
        let (authority, path) = rest.split_at_checked(rest.find('/').unwrap_or(rest.len())).ok_or(NotAResource)?;
        let local = ["localhost", "127.0.0.1", "[::1]"]
            .iter()
            .any(|host| authority.strip_prefix(host).is_some_and(|port| port.is_empty() || port.starts_with(':')));
        let plain = name.bytes().all(|b| b.is_ascii_graphic()) && !name.contains(['?', '#', '@', '"', '\\']);
        if !(scheme == "https" || (scheme == "http" && local)) || authority.is_empty() || !plain || path.ends_with('/') {
            return Err(NotAResource);
        }
        let (origin, path) = (format!("{scheme}://{authority}"), path.to_owned());
        Ok(Resource { name: name.to_owned(), origin, path, issuer: issuer.to_owned(), scopes: Vec::new(), proofs: None })
    }

    /// Says which scopes a client should ask for.
    #[must_use]
    pub fn with_scopes<S: Into<String>>(mut self, scopes: impl IntoIterator<Item = S>) -> Resource {
        self.scopes = scopes.into_iter().map(Into::into).collect();
        self
    }

    /// Accepts tokens that are bound to the key of a DPoP proof. Fails if no random numbers can be had.
    pub fn with_dpop(self) -> Result<Resource, Unspecified> {
        Ok(Resource { proofs: Some(Proofs::new()?), ..self })
    }

    /// The path at which [`metadata`](Self::metadata) is to be served.
    pub fn metadata_path(&self) -> String {
        format!("{WELL_KNOWN}{}", self.path)
    }

    /// The metadata of this resource, as JSON (RFC 9728 2).
    pub fn metadata(&self) -> String {
        let mut said = json!({
            "resource": self.name,
            "authorization_servers": [self.issuer],
            "bearer_methods_supported": ["header"],
            "tls_client_certificate_bound_access_tokens": true,
        });
        let mut say = |name: &str, value| said.as_object_mut().and_then(|said| said.insert(name.to_owned(), value));
        if !self.scopes.is_empty() {
            say("scopes_supported", json!(self.scopes));
        }
        if self.proofs.is_some() {
            say("dpop_signing_alg_values_supported", json!(DPOP_ALGORITHMS));
        }
        said.to_string()
    }

    /// The value of `WWW-Authenticate` beside a 403, for a request whose token lacks a scope (RFC 6750 3.1): what the client should ask
    /// its user for. `None` if the scopes cannot be written there.
    pub fn insufficient_scope(&self, scopes: &[&str]) -> Option<HeaderValue> {
        // RFC 6749 3.3: what a scope may consist of.
        let plain = |scope: &&str| !scope.is_empty() && scope.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
        if !scopes.iter().all(plain) {
            return None;
        }
        let scopes = scopes.join(" ");
        format!("Bearer error=\"insufficient_scope\", scope=\"{scopes}\", {}", self.pointer()).try_into().ok()
    }

    /// Verifies an access token, with the proof that it needs.
    pub(crate) fn accept(
        &self,
        verifier: &Verifier,
        (scheme, token): (Scheme, &str),
        sent: &Sent<'_>,
    ) -> Result<AccessToken, Reject> {
        let now = verifier.clock().seconds();
        let proof = match scheme {
            // RFC 9449 7.1: a bound token is never a bearer token, whatever else is sent with it.
            Scheme::Bearer => None,
            Scheme::Dpop => {
                let mut all = sent.headers.get_all("dpop").iter();
                let text = all.next().and_then(|text| text.to_str().ok()).filter(|_| all.next().is_none());
                let text = text.ok_or_else(|| Reject::Proof("there must be one DPoP header".into()))?;
                let url = format!("{}{}", self.origin, sent.path);
                let request = DpopRequest { method: sent.method.as_str(), urls: &[&url], token: Some(token), now };
                Some(verify_dpop(text, &request)?)
            }
        };
        let proved = Possession { key: proof.as_ref().map(|proof| proof.thumbprint), certificate: sent.certificate };
        let token = verifier.verify_unproved_access_token(token, (&self.issuer, &self.name))?;
        let token = token.prove(&proved)?;
        // ORDER: last, so that only whoever has a good token can fill the memories.
        if let Some(proof) = proof {
            if !matches!(token.confirmation, Some(Confirmation::Key(_))) {
                return Err(Reject::Proof("the token is not bound to a key: send it as a bearer token".into()));
            }
            let proofs = self.proofs.as_ref().ok_or(Reject::Unproved("the key of a DPoP proof, and none is accepted here"))?;
            proofs.accept(&proof, token.binding.root_id(), now)?;
        }
        verifier.use_up(token)?;
        Ok(token.clone())
    }

    /// The headers of a 401. `reject` is `None` where there was no credential at all.
    pub(crate) fn challenge(&self, reject: Option<&Reject>, now: u64, headers: &mut HeaderMap) {
        let scopes = self.scopes.join(" ");
        let mut say =
            |challenge: String| challenge.try_into().map(|value: HeaderValue| headers.append("www-authenticate", value));
        let algorithms = DPOP_ALGORITHMS.join(" ");
        let of_proof = match reject {
            Some(Reject::Nonce) => Some("use_dpop_nonce"),
            Some(Reject::Proof(_) | Reject::ProofUsed) => Some("invalid_dpop_proof"),
            Some(Reject::Unproved(_)) if self.proofs.is_some() => Some("invalid_token"),
            _ => None,
        };
        let _ = match (reject, of_proof) {
            (_, Some(error)) => say(format!("DPoP error=\"{error}\", algs=\"{algorithms}\", {}", self.pointer())),
            // RFC 6750 3.1: the answer to a request without any credential has no error code.
            (None, None) if scopes.is_empty() => say(format!("Bearer {}", self.pointer())),
            (None, None) => say(format!("Bearer {}, scope=\"{scopes}\"", self.pointer())),
            (Some(_), None) => say(format!("Bearer error=\"invalid_token\", {}", self.pointer())),
        };
        if let (Some(proofs), Some(Reject::Nonce)) = (&self.proofs, reject)
            && let Ok(nonce) = proofs.nonce(now).try_into()
        {
            headers.insert("dpop-nonce", nonce);
        }
    }

    /// Where a client finds the metadata, as a parameter of a challenge (RFC 9728 5.1).
    pub fn pointer(&self) -> String {
        format!("resource_metadata=\"{}{}\"", self.origin, self.metadata_path())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_resource_is_an_https_url_and_its_metadata_has_the_address_of_the_standard() {
        for (name, path) in [
            ("https://mail.example", "/.well-known/oauth-protected-resource"),
            ("https://mail.example/mcp", "/.well-known/oauth-protected-resource/mcp"),
            ("http://127.0.0.1:8080/a/b", "/.well-known/oauth-protected-resource/a/b"),
        ] {
            assert_eq!(Resource::new(name, "https://i").unwrap().metadata_path(), path);
        }
        for name in [
            "mail.example",
            "http://mail.example",
            "http://127.0.0.1.example",
            "https://",
            "https:///a",
            "https://mail.example/",
            "https://u@mail.example",
            "https://mail.example?a",
            "https://mail.example#a",
            "https://mail.example/\"",
            "https://mail.example/é",
        ] {
            assert_eq!(Resource::new(name, "https://i").map(drop), Err(NotAResource), "{name}");
        }
        let scoped = Resource::new("https://m.example/mcp", "https://i").unwrap();
        let challenge = scoped.insufficient_scope(&["a:b", "c"]).unwrap();
        let expected = "Bearer error=\"insufficient_scope\", scope=\"a:b c\", \
                        resource_metadata=\"https://m.example/.well-known/oauth-protected-resource/mcp\"";
        assert_eq!(challenge, expected);
        assert_eq!(scoped.insufficient_scope(&["a\"b"]), None);
    }
}
