//! The guard: a small program beside a service, which says whether a credential is valid now, whose it is and what it allows. It
//! uses no code of the issuer: it follows the bundle and the feed like every verifier, and decides with `mayfly-verify`.
//!
//! | file | idea |
//! |---|---|
//! | `check` | checks the credentials of one request, for an audience and scopes |
//! | `kept` | a cache of credentials whose signatures were verified; revocation is checked for every answer |
//! | `decision` | the answer, as JSON, as headers, as a challenge |
//! | `rule` | the rule in a proxy's configuration: audience, scopes, which credential |
//! | `verify` | `POST /verify` and `/verify/batch` |
//! | `grpc` | the same over gRPC |
//! | `resource` | the OAuth metadata of the service behind a proxy |
//! | `forward` | `/auth`, for nginx, Traefik and Caddy |
//! | `envoy` | `ext_authz` of Envoy, over gRPC |
//! | `text` | percent encoding, and the times of answers |
//! | `routes` | all of these behind one bound for requests, with health and metrics |
//! | `address` | where it listens: a Unix socket, or loopback |
//! | `serve` | connections, and their end |
//! | `secrets` | the guard's own identity over SDS, for the proxy beside it |
//! | `crl` | the lists of revoked certificates in a folder, kept up to date |
//! | `lists` | writes that folder: each file as a whole, and only if its content is new |
//! | `reload` | the command that makes a server read them again |
//! | `patient` | a connection that may be idle, but not forever |
//!
//! ***Who can ask.** A client of the socket learns the content of a credential that it already has, and nothing else. No answer
//! proves that the sender *holds* a certificate's key. Only the proxy's handshake proves that, so a certificate is accepted only in
//! the header or field that the proxy fills (T111).

pub mod address;
mod check;
pub mod crl;
mod decision;
pub mod envoy;
mod forward;
pub mod grpc;
mod kept;
mod lists;
mod patient;
mod reload;
mod resource;
mod routes;
mod rule;
pub mod secrets;
pub mod serve;
mod text;
mod verify;

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::error::Unspecified;
use mayfly_agent::peers::{Bundles, Verifier};
use mayfly_agent::proofs::Proofs;
use mayfly_agent::resource::Resource;
use mayfly_verify::{BindingOid, Live, Staleness};

pub use routes::{health, metrics_only, routes};

/// What every check shares. Clones share it too.
#[derive(Clone)]
pub struct Guard(Arc<Inside>);

struct Inside {
    verifier: Verifier,
    live: Live,
    kept: kept::Kept,
    best_effort: bool,
    /// The issuer whose access tokens are accepted, by its `iss`.
    issuer: Option<String>,
    proofs: Proofs,
}

impl Guard {
    /// Makes a guard that uses these bundles and revocations. `best_effort` says that `live` accepts credentials until they expire
    /// while no heartbeats arrive; here it affects readiness only. Without `issuer`, the `iss` of access tokens, no access token is
    /// accepted. Fails if there are no random numbers.
    pub fn new(
        bundles: Bundles,
        live: Live,
        oid: BindingOid,
        best_effort: bool,
        issuer: Option<String>,
    ) -> Result<Guard, Unspecified> {
        let verifier = Verifier::new(bundles, live.clone()).with_oid(oid);
        let (kept, proofs) = (kept::Kept::default(), Proofs::new()?);
        Ok(Guard(Arc::new(Inside { verifier, live, kept, best_effort, issuer, proofs })))
    }

    /// The service behind a proxy as a resource of OAuth. `None` if no access tokens are accepted, or the audience is no URL.
    fn resource(&self, audience: Option<&str>) -> Option<Resource> {
        Resource::new(audience?, self.0.issuer.as_deref()?).ok()
    }

    /// The nonce for the next DPoP proof.
    fn nonce(&self) -> String {
        self.0.proofs.nonce(self.0.verifier.clock().seconds())
    }

    /// Fails if no heartbeat has arrived within the bound.
    pub fn fresh(&self) -> Result<(), Staleness> {
        self.0.live.fresh(self.0.verifier.clock().now())
    }

    /// Whether credentials are accepted while no heartbeats arrive.
    pub fn is_best_effort(&self) -> bool {
        self.0.best_effort
    }

    /// Credentials that were accepted while it was unknown whether they are revoked.
    pub fn accepted_unknown(&self) -> u64 {
        self.0.live.accepted_unknown()
    }

    /// The revision up to which every revocation is known; 0 before the first heartbeat.
    fn revision(&self) -> u64 {
        self.0.live.known().map_or(0, |known| known.head)
    }

    /// Age of the knowledge of revocations; `None` before the first heartbeat.
    fn staleness(&self) -> Option<Duration> {
        let known = self.0.live.known()?;
        Some(self.0.verifier.clock().now().saturating_sub(Duration::from_micros(known.as_of)))
    }
}
