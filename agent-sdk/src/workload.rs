//! An identity from any SPIFFE Workload API: that of `mayfly run`, of a SPIRE agent, of whoever else serves the standard.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use mayfly_agent::peers::Authorize;
//! use mayfly_agent::workload::{Endpoint, Source};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // Where `SPIFFE_ENDPOINT_SOCKET` says. An identity may take a while to be there.
//! let source = Source::open(&Endpoint::from_env()?, Duration::from_secs(10)).await?;
//! println!("we are {}", source.trust_domain());
//!
//! // Whatever is built from it follows it: certificates and bundles, as they rotate.
//! let server = source.server_config(Authorize::trust_domain(source.trust_domain().clone()))?;
//! let token = source.jwt("https://search.example").await?;
//! println!("authorization: Bearer {}", token.token.len());
//! println!("not us any more: {}", source.revoked().await);
//! # let _ = server;
//! # Ok(())
//! # }
//! ```
//!
//! # What it is, and what it is not
//!
//! The Workload API knows identities and nothing else. So a source is a *workload* identity: it renews nothing itself, spawns
//! nobody, and has no end of its own; whoever serves the API does all of that. Whether it is an agent, for whom and below whom
//! stands in the binding of its certificate ([`Svid::binding`]): under `mayfly run` there is one, and of a SPIRE never. To spawn
//! children from within `mayfly run`, connect to the issuer with what it shows: [`connect_as`](crate::channel::connect_as) and
//! [`Source::shown`].
//!
//! Nor does the API tell what is revoked. [`Source::verifier`] believes credentials until they expire or their authority leaves
//! the bundle, which is all that a SPIRE has. Of a Mayfly's agents more is known: follow the feed
//! ([`revocation`](crate::revocation)) and make [`Verifier::new`] of its `Live` and of [`Source::bundles`]. Of a federated trust
//! domain nothing holds before the verifier is told so ([`Verifier::without_revocation`]).
//!
//! An identity that was taken back may come back: unlike that of [`Identity`](crate::identity::Identity), the word of
//! [`Source::revoked`] is of this moment. While there is none nothing is shown, minted or remembered. Through a break of the stream
//! everything stays, until the certificate runs out.
//!
//! CRLs in messages are not looked at. Connections that stand are not ended when an identity goes; see
//! [`listen`](crate::listen) for those.
//!
//! # Clauses
//!
//! Of the SPIFFE Workload Endpoint, Workload API and JWT-SVID, with the test of each: `s` is `agent-sdk/tests/source.rs`, with a
//! server that does what each clause needs; `w` is `tests/workload/source.rs`, against the
//! Workload API of `mayfly run`, and `r` `tests/run.rs`, in its process tree.
//!
//! | clause | what | test |
//! |---|---|---|
//! | CL-1 | the header on every call, `SPIFFE_ENDPOINT_SOCKET`, gRPC | s `cl1_cl9_…`, unit `cl1_we10_…`, w `cl1_…`, r |
//! | CL-2 | the stream stays open, and is opened again at once when it ends, with OK or UNAVAILABLE | s `cl2_…`, `cl4_cl2_…`, w `cl1_cl2_…` |
//! | CL-3 | absent is cleared, an absent bundle is unloaded; a message without a mandatory field is reported and discarded | s `cl3_…`, w `cl3_…` |
//! | CL-4 | no retry after InvalidArgument and Unimplemented; with backoff after Unavailable, PermissionDenied, or unreachable | s `cl4_…`, w `cl1_cl2_cl4_…` |
//! | CL-5 | what was redacted, by PermissionDenied or by omission, is used no more | s `cl5_…`, w `cl1_cl2_cl4_cl5_…`, r |
//! | CL-6 | the first is the default; of two with one hint the first counts | s `cl6_…` |
//! | CL-7 | X.509 bundles only for X.509, JWT bundles only for JWT; no WIT | s `cl7_…`, w `cl3_cl7_…` |
//! | CL-8 | ValidateJWTSVID where there is one, else the bundles | s `cl8_…` |
//! | CL-9 | nothing but SpiffeWorkloadAPI is called | s `cl1_cl9_…` |
//! | CL-10 | tokens as `Authorization: Bearer`, or metadata `authorization` | [`bearer`](crate::bearer), unit `cl10_…` |

mod endpoint;
mod error;
mod follow;
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

/// What a Workload API gives us, for as long as this lives.
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
    /// Follows a Workload API, and waits for an identity at most so long. Must be called within a tokio runtime.
    ///
    /// [`WorkloadError::Denied`]: this process has no identity there, yet. Where the API does not serve this, or takes our
    /// requests for malformed, nothing is waited for.
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

    /// What there is right now.
    pub fn current(&self) -> Arc<Current> {
        Arc::clone(&self.shared.current.borrow())
    }

    /// What there is, and each change of it; of several only the last.
    pub fn changed(&self) -> watch::Receiver<Arc<Current>> {
        self.shared.current.subscribe()
    }

    /// Waits until there is no identity: taken back, or run out. It may come back.
    pub async fn revoked(&self) -> Lost {
        let mut current = self.shared.current.subscribe();
        loop {
            let lost = current.borrow_and_update().lost.clone();
            match lost {
                Some(lost) => return lost,
                // The sender lives as long as we do.
                None => drop(current.changed().await),
            }
        }
    }

    /// How the stream stands.
    pub fn link(&self) -> watch::Receiver<Link> {
        self.shared.link.subscribe()
    }

    /// Messages that could not be used (CL-3).
    pub fn discarded(&self) -> watch::Receiver<Discarded> {
        self.shared.discarded.subscribe()
    }

    /// Of which trust domain we are: that of the first identity that came.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.own
    }

    /// What TLS settings show that follow us: see [`tls`](crate::tls). Nothing, while there is no identity.
    pub fn shown(&self) -> CurrentIdentity {
        self.shared.shown.clone()
    }

    /// Whom the API says to believe, in our trust domain and in those that are federated with it; followed.
    pub fn bundles(&self) -> Bundles {
        self.shared.bundles.clone()
    }

    /// Verifies peers of our trust domain by its bundle alone: nobody tells here what is revoked.
    pub fn verifier(&self) -> Verifier {
        Verifier::without_feed(self.bundles(), self.own.clone())
    }

    /// A server's settings that follow us: see [`tls::server_config`](crate::tls::server_config).
    pub fn server_config(&self, authorize: Authorize) -> Result<ServerConfig, rustls::Error> {
        server_config(&self.shared.shown, &self.verifier(), authorize)
    }

    /// A client's settings that follow us: see [`tls::client_config`](crate::tls::client_config).
    pub fn client_config(&self, authorize: Authorize) -> Result<ClientConfig, rustls::Error> {
        client_config(&self.shared.shown, &self.verifier(), authorize)
    }

    /// A channel to a peer that shows who we are whenever it connects. `patience` is for TCP and TLS together.
    pub async fn channel(&self, address: &str, authorize: Authorize, patience: Duration) -> Result<Channel, ConnectError> {
        let tls = self.client_config(authorize).map_err(|e| ConnectError::Handshake(e.to_string()))?;
        connect_peer(address, tls, patience).await
    }
}
