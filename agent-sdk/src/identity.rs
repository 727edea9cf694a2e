//! An identity that renews itself, follows the trust bundles, mints JWT-SVIDs, and reports its end.
//!
//! The key is made in this process. The certificate is renewed around half of its life, each time under a new key. A valid
//! certificate is never given up: while the issuer cannot be reached, the last one stays in use. An identity is two small tasks,
//! which end when it is dropped.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use mayfly_agent::identity::Identity;
//! use mayfly_agent::ticket::Ticket;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // From a file, standard input or the environment; never from the command line, which every process can read.
//! let ticket = Ticket::parse(std::env::var("MAYFLY_TICKET")?.trim())?;
//! let identity = Identity::redeem(&ticket, Duration::from_secs(5)).await?;
//! println!("we are {}", identity.current().spiffe_id());
//!
//! // For a call to a service that reads JWT-SVIDs. Ask for it before each call: it is cached for half of its life.
//! let token = identity.jwt("https://search.example").await?;
//! println!("authorization: Bearer {}", token.token.len());
//!
//! tokio::select! {
//!     over = identity.ended() => println!("stop working: {over}"),
//!     () = tokio::time::sleep(Duration::from_secs(60)) => identity.end().await?,
//! }
//! # Ok(())
//! # }
//! ```

mod begin;
mod budget;
mod connection;
mod current;
mod error;
mod kept;
mod key;
mod keyless;
pub(crate) mod leaf;
mod pace;
mod saved;
pub(crate) mod tasks;
pub(crate) mod tokens;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mayfly_verify::TrustDomain;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::api::v1;
use crate::api::v1::identities_client::IdentitiesClient;
use crate::peers::Bundles;
pub use crate::peers::{Foreign, ForeignBundle};
use crate::tls::CurrentIdentity;
use begin::insist;
use connection::Connection;
pub use current::Current;
pub use error::{Exhausted, IdentityError, Over};
pub use key::Key;
pub use keyless::Keyless;
pub use saved::Saved;
use tokens::Tokens;

/// Time limit for a call to the issuer.
const PATIENCE: Duration = Duration::from_secs(10);

/// An issuer's address and trust domain.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// `host:port`, with an IPv6 address in brackets.
    pub address: String,
    /// The server must be `spiffe://<trust domain>/issuer`.
    pub trust_domain: TrustDomain,
    /// Time limit for the TCP connection and the TLS handshake together, at every attempt.
    pub connect_timeout: Duration,
}

/// An identity that renews itself until it is dropped.
pub struct Identity {
    shared: Arc<Shared>,
    tasks: [JoinHandle<()>; 2],
}

struct Shared {
    at: Issuer,
    connection: Connection,
    current: watch::Sender<Arc<Current>>,
    bundles: Bundles,
    over: watch::Sender<Option<Over>>,
    /// The folder that each renewal is written to. `None` if the identity lives in this process alone.
    kept: Option<kept::Kept>,
    /// Notified when the lease was extended: the certificate is renewed at once, because only the next one says so.
    extended: Notify,
    /// Guards the cached tokens, for a look-up or a change; never while a token is minted.
    tokens: Mutex<Tokens>,
}

impl Identity {
    /// The current certificate and bundles.
    pub fn current(&self) -> Arc<Current> {
        Arc::clone(&self.shared.current.borrow())
    }

    /// The current certificate and bundles, and each change. A slow reader sees only the last of several changes.
    pub fn changed(&self) -> watch::Receiver<Arc<Current>> {
        self.shared.current.subscribe()
    }

    /// Waits until the identity has ended: it was revoked by the issuer, ended by us, or it expired. This is final.
    pub async fn ended(&self) -> Over {
        let mut over = self.shared.over.subscribe();
        match over.wait_for(Option::is_some).await.map(|over| over.clone()) {
            Ok(Some(over)) => over,
            // Unreachable: the sender lives as long as `self`.
            _ => std::future::pending().await,
        }
    }

    /// The reason why the identity has ended, or `None`; for a program that watches many identities.
    pub fn over(&self) -> watch::Receiver<Option<Over>> {
        self.shared.over.subscribe()
    }

    /// A channel to the issuer that presents our certificate. Ask for it before each call: a renewal replaces it.
    pub fn channel(&self) -> Channel {
        self.shared.connection.channel()
    }

    /// The certificate for TLS settings, which follows every renewal: see [`tls`](crate::tls).
    pub fn shown(&self) -> CurrentIdentity {
        self.shared.connection.shown()
    }

    /// The bundles of our trust domain and of the foreign ones that the issuer trusts, kept up to date by this identity's own
    /// stream. A [`Verifier`](crate::peers::Verifier) needs them.
    pub fn bundles(&self) -> Bundles {
        self.shared.bundles.clone()
    }

    /// The issuer's address and trust domain.
    pub fn issuer(&self) -> &Issuer {
        &self.shared.at
    }

    /// Returns a JWT-SVID for one audience. A token is cached for half of its life; if no new one can be minted then, the cached
    /// one is returned until shortly before it expires. At most 64 tokens are cached.
    pub async fn jwt(&self, audience: &str) -> Result<v1::JwtSvid, IdentityError> {
        self.jwt_for(&[audience]).await
    }

    /// The same for several audiences at once. Each of them can use the token at the others; JWT-SVID 3.2 recommends one.
    pub async fn jwt_for(&self, audiences: &[&str]) -> Result<v1::JwtSvid, IdentityError> {
        self.holds()?;
        if let Some(fresh) = self.shared.tokens.lock().fresh(audiences, SystemTime::now()) {
            return Ok(fresh);
        }
        let mut all = audiences.iter().map(|audience| (*audience).to_owned());
        let (request_id, audience) = (String::new(), all.next().unwrap_or_default());
        let request = v1::MintJwtRequest { request_id, audience, further_audiences: all.collect(), ..Default::default() };
        let mint = async || timely(IdentitiesClient::new(self.channel()).mint_jwt(request.clone())).await;
        let minted = match mint().await {
            // A renewed certificate was used while this call was under way on an older connection. The second attempt uses the new
            // connection.
            Err(e) if e.is_past() => mint().await,
            minted => minted,
        };
        match minted {
            Ok(got) => {
                let svid = got.svid.ok_or(IdentityError::Answer("there is no token"))?;
                self.shared.tokens.lock().put(audiences, &svid, SystemTime::now());
                // If the identity was revoked in the meantime, the token must not be handed out.
                self.holds()?;
                Ok(svid)
            }
            Err(IdentityError::Over(over)) => Err(self.shared.end(over).into()),
            Err(e) if e.is_transient() => self.shared.tokens.lock().holding(audiences, SystemTime::now()).ok_or(e),
            Err(e) => Err(e),
        }
    }

    /// Extends the lease by a fresh token of the user for whom the agent acts, for `lease` from now, or as long as the token, the class
    /// and the parent allow. The certificate is renewed at once and then until the new end; [`Identity::changed`] tells. Fails if
    /// nothing allows more, and leaves the lease as it is.
    pub async fn extend(&self, user_token: &str, lease: Option<Duration>) -> Result<v1::Agent, IdentityError> {
        self.holds()?;
        let lease_seconds = lease.map_or(0, |lease| lease.as_secs().max(1));
        let request = v1::ExtendRequest { user_token: user_token.to_owned(), lease_seconds };
        let extend = async || timely(IdentitiesClient::new(self.channel()).extend(request.clone())).await;
        let extended = match extend().await {
            Err(e) if e.is_past() => extend().await,
            extended => extended,
        };
        match extended {
            Ok(got) => {
                self.shared.extended.notify_one();
                got.agent.ok_or(IdentityError::Answer("there is no agent"))
            }
            Err(IdentityError::Over(over)) => Err(self.shared.end(over).into()),
            Err(e) => Err(e),
        }
    }

    /// Ends the agent at the issuer, and this identity. A workload cannot be ended: its certificate expires.
    pub async fn end(&self) -> Result<(), IdentityError> {
        let ended = match self.current().agent() {
            Some(_) if self.holds().is_ok() => {
                timely(IdentitiesClient::new(self.channel()).end(v1::EndRequest::default())).await.map(drop)
            }
            _ => Ok(()),
        };
        match ended {
            // Ended for another reason already: the result is the same.
            Ok(()) | Err(IdentityError::Over(_)) => {
                self.shared.end(Over::Ended);
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    fn holds(&self) -> Result<(), IdentityError> {
        let over = self.shared.over.borrow().clone();
        over.map_or(Ok(()), |over| Err(over.into()))
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Shared {
    /// Sets the reason of the end. Only the first reason counts, and is returned.
    fn end(&self, why: Over) -> Over {
        self.over.send_if_modified(|over| over.is_none().then(|| *over = Some(why.clone())).is_some());
        self.tokens.lock().clear();
        self.over.borrow().clone().unwrap_or(why)
    }

    /// Takes note of an error that says that the identity has ended.
    fn told(&self, e: IdentityError) -> IdentityError {
        match e {
            IdentityError::Over(over) => self.end(over).into(),
            e => e,
        }
    }
}

/// Makes one call within its time limit.
async fn timely<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, IdentityError> {
    within_patience(call).await.map_err(|status| IdentityError::of(&status))
}

pub(crate) async fn within_patience<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Status> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(_) => Err(Status::unavailable(format!("no answer within {} seconds", PATIENCE.as_secs()))),
    }
}
