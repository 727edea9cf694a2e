//! An identity that rotates itself: it renews, follows the bundles, mints, and says when it is over.
//!
//! The key is made in this process, and the certificate is renewed around half of its life, each time under a fresh key.
//! A certificate that still holds is never given up: while the issuer is away, the last one goes on. There is no thread and
//! no lock to care for: an identity is two small tasks, and it ends with its last owner.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use mayfly_agent::identity::Identity;
//! use mayfly_agent::ticket::Ticket;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // From a file, standard input or the environment; never from the command line, which everybody can read.
//! let ticket = Ticket::parse(std::env::var("MAYFLY_TICKET")?.trim())?;
//! let identity = Identity::redeem(&ticket, Duration::from_secs(5)).await?;
//! println!("we are {}", identity.current().spiffe_id());
//!
//! // For a call to a service that reads JWT-SVIDs. Ask each time: it is remembered until it is half over.
//! let token = identity.jwt("https://search.example").await?;
//! println!("authorization: Bearer {}", token.token.len());
//!
//! tokio::select! {
//!     over = identity.revoked() => println!("stop what you do: {over}"),
//!     () = tokio::time::sleep(Duration::from_secs(60)) => identity.end().await?,
//! }
//! # Ok(())
//! # }
//! ```

mod begin;
mod current;
mod error;
mod foreign;
pub(crate) mod keep;
mod key;
pub(crate) mod leaf;
mod line;
mod pace;
mod saved;
pub(crate) mod tokens;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mayfly_verify::TrustDomain;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use crate::api::v1;
use crate::api::v1::identities_client::IdentitiesClient;
use crate::tls::CurrentIdentity;
pub use current::Current;
pub use error::{IdentityError, Over};
pub use foreign::{Foreign, ForeignBundle};
use line::Line;
pub use saved::Saved;
use tokens::Tokens;

/// How long a call to the issuer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the issuer is.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// `host:port`; an IPv6 address stands in brackets.
    pub address: String,
    /// It must be `spiffe://<trust domain>/issuer`.
    pub trust_domain: TrustDomain,
    /// For the TCP connection and the TLS handshake together, at every attempt.
    pub connect_timeout: Duration,
}

/// An identity that rotates itself for as long as this lives.
pub struct Identity {
    shared: Arc<Shared>,
    tasks: [JoinHandle<()>; 2],
}

struct Shared {
    at: Issuer,
    line: Line,
    current: watch::Sender<Arc<Current>>,
    over: watch::Sender<Option<Over>>,
    /// Guards the tokens alone, for a look or a change; never while one is minted.
    tokens: Mutex<Tokens>,
}

impl Identity {
    /// The newest certificate and bundles.
    pub fn current(&self) -> Arc<Current> {
        Arc::clone(&self.shared.current.borrow())
    }

    /// The newest certificate and bundles, and each change of one of them; of several only the last.
    pub fn changed(&self) -> watch::Receiver<Arc<Current>> {
        self.shared.current.subscribe()
    }

    /// Waits until the identity is over: taken back by the issuer, ended, or expired. It never comes back.
    pub async fn revoked(&self) -> Over {
        let mut over = self.shared.over.subscribe();
        match over.wait_for(Option::is_some).await.map(|over| over.clone()) {
            Ok(Some(over)) => over,
            // The sender lives as long as we do.
            _ => std::future::pending().await,
        }
    }

    /// Whether it is over, and why, for whoever watches many.
    pub fn over(&self) -> watch::Receiver<Option<Over>> {
        self.shared.over.subscribe()
    }

    /// A channel to the issuer that shows our certificate. Ask for it at each use: after a renewal there is another.
    pub fn channel(&self) -> Channel {
        self.shared.line.channel()
    }

    /// What TLS settings show that follow us: see [`tls`](crate::tls).
    pub fn shown(&self) -> CurrentIdentity {
        self.shared.line.shown()
    }

    /// Where the issuer is.
    pub fn issuer(&self) -> &Issuer {
        &self.shared.at
    }

    /// A JWT-SVID for one audience. It is remembered until it is half over; while no fresh one can be had, it is given out
    /// until shortly before its end. At most 64 tokens are remembered.
    pub async fn jwt(&self, audience: &str) -> Result<v1::JwtSvid, IdentityError> {
        self.jwt_for(&[audience]).await
    }

    /// The same for several audiences at once. Each of them can use the token at all the others: JWT-SVID 3.2 recommends one.
    pub async fn jwt_for(&self, audiences: &[&str]) -> Result<v1::JwtSvid, IdentityError> {
        self.holds()?;
        if let Some(fresh) = self.shared.tokens.lock().fresh(audiences, SystemTime::now()) {
            return Ok(fresh);
        }
        let mut all = audiences.iter().map(|audience| (*audience).to_owned());
        let (request_id, audience) = (String::new(), all.next().unwrap_or_default());
        let request = v1::MintJwtRequest { request_id, audience, further_audiences: all.collect() };
        match timely(IdentitiesClient::new(self.channel()).mint_jwt(request)).await {
            Ok(got) => {
                let svid = got.svid.ok_or(IdentityError::Answer("no token"))?;
                self.shared.tokens.lock().put(audiences, &svid, SystemTime::now());
                // What was cut in between must not be handed on.
                self.holds()?;
                Ok(svid)
            }
            Err(IdentityError::Over(over)) => Err(self.shared.end(over).into()),
            Err(e) if e.is_transient() => self.shared.tokens.lock().holding(audiences, SystemTime::now()).ok_or(e),
            Err(e) => Err(e),
        }
    }

    /// Ends the agent at the issuer, and the identity here. A workload has no end of its own: its certificate runs out.
    pub async fn end(&self) -> Result<(), IdentityError> {
        let ended = match self.current().agent() {
            Some(_) if self.holds().is_ok() => {
                timely(IdentitiesClient::new(self.channel()).end(v1::EndRequest::default())).await.map(drop)
            }
            _ => Ok(()),
        };
        match ended {
            // Over is over, whoever came first.
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
    /// The first reason stays.
    fn end(&self, why: Over) -> Over {
        self.over.send_if_modified(|over| over.is_none().then(|| *over = Some(why.clone())).is_some());
        self.tokens.lock().clear();
        self.over.borrow().clone().unwrap_or(why)
    }
}

/// One call within its time.
async fn timely<T>(call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>) -> Result<T, IdentityError> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(IdentityError::of(&status)),
        Err(_) => Err(IdentityError::Unavailable(format!("no answer within {} seconds", PATIENCE.as_secs()))),
    }
}
