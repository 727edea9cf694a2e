//! An identity from any SPIFFE Workload API: that of `mayfly run`, of a SPIRE agent, or of any other implementation.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use mayfly_agent::peers::Authorize;
//! use mayfly_agent::workload::{Endpoint, Source};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // The address is in `SPIFFE_ENDPOINT_SOCKET`. An identity may take a while to arrive.
//! let source = Source::open(&Endpoint::from_env()?, Duration::from_secs(10)).await?;
//! println!("we are {}", source.trust_domain());
//!
//! // TLS settings made from it follow its certificates and bundles.
//! let server = source.server_config(Authorize::trust_domain(source.trust_domain().clone()))?;
//! let token = source.jwt("https://search.example").await?;
//! println!("authorization: Bearer {}", token.token.len());
//! println!("the identity is lost: {}", source.lost().await);
//! # let _ = server;
//! # Ok(())
//! # }
//! ```
//!
//! # What it provides, and what it does not
//!
//! The Workload API provides identities and nothing else. A source renews nothing itself, spawns no agents, and cannot end its
//! identity; the server of the API does all that. The binding of its certificate ([`Svid::binding`]) says whether it is an agent,
//! for which user, and who its ancestors are: under `mayfly run` there is one, from a SPIRE never. To spawn children from within
//! `mayfly run`, connect to the issuer with this identity: [`connect_as`](crate::channel::connect_as) and [`Source::shown`].
//!
//! The API does not say what is revoked. [`Source::verifier`] accepts credentials until they expire or their authority leaves the
//! bundle; a SPIRE offers no more. A Mayfly does: follow its feed ([`revocation`](crate::revocation)) and make a
//! [`Verifier::new`] from its `Live` and from [`Source::bundles`]. Credentials of a federated trust domain are refused until the
//! verifier is told to accept them ([`Verifier::without_revocation`]).
//!
//! A revoked identity may come back: unlike the end of an [`Identity`](crate::identity::Identity), [`Source::lost`] reports the
//! current state. While there is no identity, no certificate is presented, and no token is fetched or cached. While the stream
//! is broken, everything stays, until the certificate expires.
//!
//! CRLs in messages are ignored. Open connections are not closed when an identity is lost; see [`listen`](crate::listen) for
//! that.
//!
//! # Clauses
//!
//! From the SPIFFE Workload Endpoint, Workload API and JWT-SVID specifications, with the test of each: `s` is
//! `agent-sdk/tests/source.rs`, with a server that behaves as each clause needs; `w` is `tests/workload/source.rs`, against the
//! Workload API of `mayfly run`; `r` is `tests/run.rs`, in its process tree.
//!
//! | clause | what | test |
//! |---|---|---|
//! | CL-1 | the header on every call, `SPIFFE_ENDPOINT_SOCKET`, gRPC | s `cl1_cl9_…`, unit `cl1_we10_…`, w `cl1_…`, r |
//! | CL-2 | the stream stays open, and is opened again at once when it ends, with OK or UNAVAILABLE | s `cl2_…`, `cl4_cl2_…`, w `cl1_cl2_…` |
//! | CL-3 | absent is cleared, an absent bundle is unloaded; a message without a mandatory field is reported and discarded | s `cl3_…`, w `cl3_…` |
//! | CL-4 | no retry after InvalidArgument and Unimplemented; with backoff after Unavailable, PermissionDenied, or unreachable | s `cl4_…`, w `cl1_cl2_cl4_…` |
//! | CL-5 | an identity or bundle that was redacted, by PermissionDenied or by omission, is no longer used | s `cl5_…`, w `cl1_cl2_cl4_cl5_…`, r |
//! | CL-6 | the first SVID is the default; of two SVIDs with the same hint the first counts | s `cl6_…` |
//! | CL-7 | X.509 bundles only for X.509, JWT bundles only for JWT; no WIT | s `cl7_…`, w `cl3_cl7_…` |
//! | CL-8 | ValidateJWTSVID if the API implements it, otherwise the bundles | s `cl8_…` |
//! | CL-9 | nothing but SpiffeWorkloadAPI is called | s `cl1_cl9_…` |
//! | CL-10 | tokens as `Authorization: Bearer`, or metadata `authorization` | [`bearer`](crate::bearer), unit `cl10_…` |

mod endpoint;
mod error;
mod jwt;
mod shared;
mod svid;
mod trust;

use std::sync::Arc;
use std::time::Duration;

use mayfly_verify::TrustDomain;
use rustls::{ClientConfig, ServerConfig};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use crate::channel::{ConnectError, connect_peer};
use crate::peers::{Authorize, Bundles, Verifier};
use crate::tls::{CurrentIdentity, client_config, server_config};
pub use endpoint::{ENDPOINT, Endpoint};
pub use error::{Link, Lost, WorkloadError};
pub use shared::Discarded;
use shared::Shared;
pub use svid::{Current, Svid};

/// The identity that a Workload API provides, followed until this is dropped.
pub struct Source {
    shared: Arc<Shared>,
    own: TrustDomain,
    _tasks: Tasks,
}

struct Tasks([JoinHandle<()>; 3]);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

impl Source {
    /// Follows a Workload API, and waits up to `patience` for an identity. Must be called within a tokio runtime.
    ///
    /// [`WorkloadError::Denied`] means that this process has no identity there yet. If the API does not implement this, or
    /// considers our requests malformed, it fails without waiting.
    pub async fn open(endpoint: &Endpoint, patience: Duration) -> Result<Source, WorkloadError> {
        let shared = Arc::new(Shared::new(endpoint));
        let tasks = Tasks([
            tokio::spawn(Arc::clone(&shared).follow_svids()),
            tokio::spawn(Arc::clone(&shared).follow_jwt_bundles()),
            tokio::spawn(Arc::clone(&shared).expire()),
        ]);
        match tokio::time::timeout(patience, shared.first()).await {
            Ok(Ok(own)) => Ok(Source { shared, own, _tasks: tasks }),
            Ok(Err(e)) => Err(e),
            Err(_) => Err(shared.why_not()),
        }
    }

    /// The current identities.
    pub fn current(&self) -> Arc<Current> {
        Arc::clone(&self.shared.current.borrow())
    }

    /// The current identities, and each change. A slow reader sees only the last of several changes.
    pub fn changed(&self) -> watch::Receiver<Arc<Current>> {
        self.shared.current.subscribe()
    }

    /// Waits until there is no identity, because it was revoked or expired. It may come back.
    pub async fn lost(&self) -> Lost {
        let mut current = self.shared.current.subscribe();
        loop {
            let lost = current.borrow_and_update().lost.clone();
            match lost {
                Some(lost) => return lost,
                // Never an error: the sender lives as long as `self`.
                None => drop(current.changed().await),
            }
        }
    }

    /// State of the stream of certificates.
    pub fn link(&self) -> watch::Receiver<Link> {
        self.shared.link.subscribe()
    }

    /// Messages that could not be used (CL-3).
    pub fn discarded(&self) -> watch::Receiver<Discarded> {
        self.shared.discarded.subscribe()
    }

    /// Our trust domain: that of the first identity.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.own
    }

    /// The certificate for TLS settings, which follows every change: see [`tls`](crate::tls). There is none while there is no
    /// identity.
    pub fn shown(&self) -> CurrentIdentity {
        self.shared.shown.clone()
    }

    /// The bundles of our trust domain and of those federated with it, kept up to date.
    pub fn bundles(&self) -> Bundles {
        self.shared.bundles.clone()
    }

    /// Verifies peers of our trust domain by its bundle alone: the API does not say what is revoked.
    pub fn verifier(&self) -> Verifier {
        Verifier::without_feed(self.bundles(), self.own.clone())
    }

    /// Settings of a server with this identity: see [`tls::server_config`](crate::tls::server_config).
    pub fn server_config(&self, authorize: Authorize) -> Result<ServerConfig, rustls::Error> {
        server_config(&self.shared.shown, &self.verifier(), authorize)
    }

    /// Settings of a client with this identity: see [`tls::client_config`](crate::tls::client_config).
    pub fn client_config(&self, authorize: Authorize) -> Result<ClientConfig, rustls::Error> {
        client_config(&self.shared.shown, &self.verifier(), authorize)
    }

    /// A channel to a peer that presents our current certificate whenever it connects. `patience` is the limit for TCP and TLS
    /// together.
    pub async fn channel(&self, address: &str, authorize: Authorize, patience: Duration) -> Result<Channel, ConnectError> {
        let tls = self.client_config(authorize).map_err(|e| ConnectError::Handshake(e.to_string()))?;
        connect_peer(address, tls, patience).await
    }
}
