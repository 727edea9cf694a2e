//! An agent without a key: a part of this process that acts under its own name, over connections on which the identity that spawned
//! it presents its certificate.
//!
//! It costs the issuer no certificate and this process no key and no connection: one process, one key, many agents. Its tokens are minted
//! on the connection of its parent and bound to the certificate of that (`cnf`, RFC 8705), so a copy is of no use to a service that
//! sees the certificate. It has its own id, scopes, lease and end. It spawns nothing, and acts only while its parent does.

use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use super::tokens::Tokens;
use super::{Current, Identity, IdentityError, Over, Shared, begin, timely};
use crate::api::v1;
use crate::api::v1::identities_client::IdentitiesClient;
use crate::random;
use crate::reason::Entry;

/// An agent without a key of its own. Nothing is renewed for it; it ends with [`Keyless::end`], with its lease, or with its parent.
pub struct Keyless {
    parent: Arc<Shared>,
    agent: v1::Agent,
    /// Guards the end and the cached tokens, for a look-up or a change; never while a token is minted.
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    over: Option<Over>,
    tokens: Tokens,
    /// The certificate of the parent that the cached tokens are bound to.
    under: Option<Arc<Current>>,
}

impl Identity {
    /// Spawns a child of this identity without a key. The request's `csr` stays empty, and its `keyless` is set. So is its `request_id`
    /// if it is empty, so that a lost answer can be asked for again without spawning a second agent.
    pub async fn spawn_keyless(&self, mut request: v1::SpawnRequest) -> Result<Keyless, IdentityError> {
        self.holds()?;
        request.keyless = true;
        if request.request_id.is_empty() {
            request.request_id = uuid::Uuid::from_bytes(random::bytes().map_err(|_| IdentityError::Key)?).to_string();
        }
        let request = &request;
        let ask = move || async move { timely(IdentitiesClient::new(self.channel()).spawn(request.clone())).await };
        let spawned = match begin::insist(ask).await {
            // A renewed certificate was used while this call was under way on an older connection. The second attempt uses the new
            // connection.
            Err(e) if e.is_past() => begin::insist(ask).await,
            spawned => spawned,
        };
        let got = spawned.map_err(|e| self.shared.told(e))?;
        let agent = got.agent.ok_or(IdentityError::Answer("there is no agent"))?;
        Ok(Keyless { parent: Arc::clone(&self.shared), agent, held: Mutex::default() })
    }
}

impl Identity {
    /// A JWT-SVID of an agent without a key that this identity spawned, by its SPIFFE ID, for these audiences. Nothing is cached:
    /// use [`Keyless::jwt`] if you hold the [`Keyless`], and this if you have only its name.
    pub async fn jwt_of(&self, agent: &str, audiences: &[&str]) -> Result<v1::JwtSvid, IdentityError> {
        self.holds()?;
        let minted = self.shared.mint_for(agent, audiences).await.map_err(|e| self.shared.told(e))?;
        self.holds()?;
        Ok(minted)
    }
}

impl Shared {
    async fn mint_for(&self, agent: &str, audiences: &[&str]) -> Result<v1::JwtSvid, IdentityError> {
        let mut all = audiences.iter().map(|audience| (*audience).to_owned());
        let (audience, for_agent) = (all.next().unwrap_or_default(), agent.to_owned());
        let further_audiences = all.collect();
        let request = v1::MintJwtRequest { request_id: String::new(), audience, further_audiences, for_agent };
        let mint = async || timely(IdentitiesClient::new(self.connection.channel()).mint_jwt(request.clone())).await;
        let minted = match mint().await {
            Err(e) if e.is_past() => mint().await,
            minted => minted,
        };
        minted?.svid.ok_or(IdentityError::Answer("there is no token"))
    }
}

impl Keyless {
    /// The agent as it was spawned.
    pub fn agent(&self) -> &v1::Agent {
        &self.agent
    }

    /// Why it or its parent has ended; `None` while neither has, as far as this process knows.
    pub fn over(&self) -> Option<Over> {
        self.held.lock().over.clone().or_else(|| self.parent.over.borrow().clone())
    }

    /// Returns a JWT-SVID of this agent for one audience, cached as [`Identity::jwt`] does it, and anew after each renewal of its parent.
    pub async fn jwt(&self, audience: &str) -> Result<v1::JwtSvid, IdentityError> {
        self.holds()?;
        let under = Arc::clone(&self.parent.current.borrow());
        {
            let mut held = self.held.lock();
            // A token that is bound to the certificate before is of no use on a connection with the next one.
            if !held.under.as_ref().is_some_and(|known| Arc::ptr_eq(known, &under)) {
                held.tokens.clear();
                held.under = Some(Arc::clone(&under));
            }
            if let Some(fresh) = held.tokens.fresh(&[audience], SystemTime::now()) {
                return Ok(fresh);
            }
        }
        match self.parent.mint_for(&self.agent.agent_id, &[audience]).await {
            Ok(svid) => {
                let mut held = self.held.lock();
                if held.under.as_ref().is_some_and(|known| Arc::ptr_eq(known, &under)) {
                    held.tokens.put(&[audience], &svid, SystemTime::now());
                }
                drop(held);
                // If it ended in the meantime, the token must not be handed out.
                self.holds()?;
                Ok(svid)
            }
            Err(e) if e.is_transient() => self.held.lock().tokens.holding(&[audience], SystemTime::now()).ok_or(e),
            Err(e) => Err(self.told(e)),
        }
    }

    /// Ends the agent at the issuer, and its tokens with it.
    pub async fn end(&self) -> Result<(), IdentityError> {
        if self.holds().is_err() {
            return Ok(());
        }
        let request = v1::EndRequest { agent: self.agent.agent_id.clone() };
        let end = async || timely(IdentitiesClient::new(self.parent.connection.channel()).end(request.clone())).await;
        let ended = match end().await {
            Err(e) if e.is_past() => end().await,
            ended => ended,
        };
        match ended.map_err(|e| self.told(e)) {
            Ok(_) => {
                self.close(Over::Ended);
                Ok(())
            }
            Err(IdentityError::Over(_)) => Ok(()),
            Err(e) => Err(e),
        }
    }

    fn holds(&self) -> Result<(), IdentityError> {
        self.over().map_or(Ok(()), |over| Err(over.into()))
    }

    /// The first reason counts.
    fn close(&self, why: Over) -> Over {
        let mut held = self.held.lock();
        held.tokens.clear();
        held.over.get_or_insert(why).clone()
    }

    /// What an answer means: a final reason that is not about the caller is about this agent.
    fn told(&self, e: IdentityError) -> IdentityError {
        match e {
            IdentityError::Denied { reason, message } if is_end_of_an_agent(&reason) => {
                self.close(Over::Revoked { reason, message }).into()
            }
            e => self.parent.told(e),
        }
    }
}

/// Other final reasons are about keys and authorities, so another call may succeed.
fn is_end_of_an_agent(reason: &str) -> bool {
    reason.starts_with("AGENT_") && Entry::of(reason).is_some_and(|entry| entry.is_final)
}
