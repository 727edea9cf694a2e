//! Sign-in of a person at their provider for a page of ours: the authorization code flow with PKCE, back to an address of the issuer.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::code::{self, Answer};
use super::{Found, LoginError, Provider, random, refused};

/// For how long a discovery document is used.
const KNOWN: Duration = Duration::from_secs(300);
/// For how long a provider that could not be reached is not asked again.
const FAILED: Duration = Duration::from_secs(3);

/// A provider with a client of ours, at which people sign in for a page or are asked.
pub struct Site {
    provider: Provider,
    // The last discovery, and when it was. Held while the provider is asked, so that many strangers cause one request.
    last: Mutex<Option<(Instant, Result<super::Discovered, String>)>>,
}

/// A sign-in that has begun. The browser keeps everything but the page in a cookie.
pub struct Begun {
    /// The provider's page.
    pub page: String,
    /// What the provider's answer repeats.
    pub state: String,
    /// What the ID token repeats.
    pub nonce: String,
    /// What redeems the code. Whoever sees the address of the page learns a digest of it.
    pub verifier: String,
}

impl Site {
    /// A client at this provider. It opens no connection.
    pub fn new(provider: Provider) -> Site {
        Site { provider, last: Mutex::new(None) }
    }

    /// The provider.
    pub fn provider(&self) -> &Provider {
        &self.provider
    }

    /// Begins a sign-in that comes back to `back`.
    pub async fn begin(&self, back: &str) -> Result<Begun, LoginError> {
        let found = self.found().await?;
        let (state, nonce, verifier) = (random()?, random()?, random()?);
        let page = code::page(&found, back, [&state, &nonce, &code::challenge(&verifier)])?;
        Ok(Begun { page: page.into(), state, nonce, verifier })
    }

    /// Ends it: the token that the provider gives for its answer. The state of the answer was compared before.
    pub async fn finish(&self, back: &str, answer: Answer, nonce: &str, verifier: &str) -> Result<String, LoginError> {
        let found = self.found().await?;
        let code = answer.code(&found.expected())?;
        let granted = found.grant(code::form(&code, back, verifier)).await?.map_err(|refusal| refused(&refusal))?;
        Ok(found.wanted(granted, Some(nonce))?.token)
    }

    pub(super) async fn found(&self) -> Result<Found<'_>, LoginError> {
        let mut last = self.last.lock().await;
        let fresh = last.as_ref().filter(|(at, found)| at.elapsed() < if found.is_ok() { KNOWN } else { FAILED });
        let discovered = match fresh {
            Some((_, found)) => found.clone(),
            None => {
                let found = Found::of(&self.provider).await.map(Found::discovered).map_err(|e| e.to_string());
                *last = Some((Instant::now(), found.clone()));
                found
            }
        };
        discovered.map(|discovered| Found::again(&self.provider, discovered)).map_err(LoginError::Machine)
    }
}
