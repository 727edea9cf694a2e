//! The HTTPS listener, for everybody: documents with which relying parties of OIDC and OAuth find the issuer and its keys.
//!
//! An issuer's URL may have a path. Its documents are then served at every address that a client may build from it: OpenID Connect
//! Discovery 1.0 section 4 appends to the path, RFC 8414 section 3 inserts before it.

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};

use super::{oauth, status};
use crate::authority::pem;
use crate::denial::No;
use crate::publish::crl::Crls;
use crate::publish::{Published, Publisher};

const OPENID: &str = "/.well-known/openid-configuration";
const OAUTH: &str = "/.well-known/oauth-authorization-server";

/// What the documents say.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// The `iss` of tokens, an https URL without a slash at its end, query or fragment.
    pub url: String,
    /// Name of the claim that holds the binding.
    pub binding_claim: String,
    /// Where the endpoints of OAuth ask for client certificates: an https URL.
    pub certified: String,
    /// How long clients may keep a document, in seconds.
    pub refresh: u64,
}

impl Issuer {
    /// The path of the URL; empty if it has none.
    pub fn path(&self) -> &str {
        path_of(&self.url)
    }
}

/// The path of an https URL; empty if it has none.
pub fn path_of(url: &str) -> &str {
    let after = url.strip_prefix("https://").unwrap_or_default();
    after.find('/').and_then(|at| after.get(at..)).unwrap_or_default()
}

/// The routes of discovery, the JWK set, the SPIFFE bundle and the CRLs.
pub fn router(issuer: &Issuer, publisher: &Publisher, crls: &Crls) -> Router {
    let path = issuer.path().to_owned();
    let mut router = Router::new();
    let mut discovery = vec![format!("{path}{OPENID}"), format!("{path}{OAUTH}")];
    if !path.is_empty() {
        discovery.extend([format!("{OPENID}{path}"), format!("{OAUTH}{path}")]);
    }
    for at in discovery {
        router = router.route(&at, document(issuer, publisher, metadata));
    }
    let (all, one) = (crls.clone(), crls.clone());
    router
        .route(&format!("{path}/crl.pem"), get(move || async move { pem_lists(&all).await }))
        .route(
            &format!("{path}/crl/{{issuer}}"),
            get(move |Path(issuer): Path<String>| async move { der_list(&one, &issuer).await }),
        )
        .route(&format!("{path}/oauth/jwks"), document(issuer, publisher, |_, now| now.bundle.oidc_jwks()))
        // The bundle is stored as a document, so it is sent as it is. FE-4: a client may not keep it for longer than its refresh
        // hint.
        .route(&format!("{path}/bundle"), document(issuer, publisher, |_, now| json_of(&now.document)))
}

fn document(issuer: &Issuer, publisher: &Publisher, write: fn(&Issuer, &Published) -> Value) -> axum::routing::MethodRouter {
    let (issuer, publisher) = (issuer.clone(), publisher.clone());
    get(move || {
        let body = write(&issuer, &publisher.now()).to_string();
        let kept = format!("public, max-age={}", issuer.refresh);
        // Pages in browsers may read these documents from any origin, because they are public.
        let headers = [(CONTENT_TYPE, "application/json"), (ACCESS_CONTROL_ALLOW_ORIGIN, "*")];
        async move { (headers, [(CACHE_CONTROL, kept)], body).into_response() }
    })
}

/// Every list in one file, as nginx, Envoy and PostgreSQL read it.
async fn pem_lists(crls: &Crls) -> Response {
    match crls.newest().await {
        Ok(lists) => {
            let text: String = lists.crls.iter().map(|crl| pem("X509 CRL", &crl.der)).collect();
            ([(CONTENT_TYPE, "application/x-pem-file"), (CACHE_CONTROL, "no-store")], text).into_response()
        }
        Err(no) => refused(&no),
    }
}

/// The list of one CA (RFC 5280 4.2.1.13): `<subject key id in hex>.crl`.
async fn der_list(crls: &Crls, name: &str) -> Response {
    let lists = match crls.newest().await {
        Ok(lists) => lists,
        Err(no) => return refused(&no),
    };
    match lists.crls.iter().find(|crl| name.strip_suffix(".crl") == Some(&*crl.issuer)) {
        Some(crl) => ([(CONTENT_TYPE, "application/pkix-crl"), (CACHE_CONTROL, "no-store")], crl.der.clone()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn refused(no: &No) -> Response {
    match no {
        No::Denial(denial) => status::plain(denial),
        No::Fault(fault) => {
            tracing::error!(during = fault.during, cause = %fault.cause, "fault");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn json_of(document: &[u8]) -> Value {
    serde_json::from_slice(document).unwrap_or_default()
}

/// The metadata of OpenID Connect Discovery 1.0 and of RFC 8414 in one document. It names only what is served.
fn metadata(issuer: &Issuer, now: &Published) -> Value {
    let url = &issuer.url;
    let mut algorithms: Vec<Value> = Vec::new();
    for key in now.bundle.jwt_authorities() {
        let algorithm = key.oidc_jwk().get("alg").cloned().unwrap_or_default();
        if !algorithms.contains(&algorithm) {
            algorithms.push(algorithm);
        }
    }
    let mut said = json!({
        "issuer": url,
        "jwks_uri": format!("{url}/oauth/jwks"),
        // OpenID Connect requires these three members. Nobody signs in here, and the endpoint answers so. SPIRE's discovery provider omits
        // it, but clients of MCP cannot read the metadata without it.
        "authorization_endpoint": format!("{url}/oauth/authorize"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": algorithms,
        "claims_supported": ["iss", "sub", "aud", "exp", "iat", "jti", "act", "client_id", "scope", issuer.binding_claim],
    });
    for (name, value) in oauth::metadata(url, &issuer.certified, &algorithms) {
        said.as_object_mut().and_then(|said| said.insert(name.to_owned(), value));
    }
    said
}
