//! Client: an agent proves itself at an endpoint of OAuth by a JWT-SVID (RFC 7523, draft-ietf-oauth-spiffe-client-auth).
//!
//! The sender is a stranger until the JWT-SVID is verified. So everything that needs no signature is checked first, one key is
//! tried at most, and the number of signatures that are verified at once is bounded.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use mayfly_verify::{AgentId, Possession, Principal, Workload, inspect_jwt, inspect_jwt_end, verify_jwt};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::Issuer;
use crate::caller::{Caller, unauthenticated};
use crate::denial::{Denial, Fault, Kind, No};
use crate::judge::exchange::assertion_used;
use crate::state::Standing;

/// Tokens that are verified at once in one queue, and tokens that wait or are being verified.
const TURNS: usize = 2;
const PLACES: usize = 256;
/// Uses that are remembered in memory, for all agents and for those of one root workload.
const USES: usize = 65_536;
const USES_OF_ROOT: usize = USES / 8;

/// The queues in which tokens are verified, and the uses of JWT-SVIDs for requests that record nothing.
#[derive(Default)]
pub struct Clients {
    // T100: forged JWT-SVIDs of strangers delay only callers who prove themselves by a JWT-SVID.
    proofs: Line,
    tokens: Line,
    // Guards the uses; held for one look-up.
    uses: Mutex<Uses>,
}

/// A queue of tokens whose signature is to be verified.
struct Line {
    turns: Arc<Semaphore>,
    places: Semaphore,
}

#[derive(Default)]
struct Uses {
    /// By `jti`, when the JWT-SVID expires (Unix seconds), and the root of its agent.
    ends: HashMap<[u8; 16], (u64, Workload)>,
    roots: HashMap<Workload, usize>,
    /// Those of requests that are being judged and recorded now, by `jti`: as many as there are such requests.
    held: HashSet<[u8; 16]>,
    // Unix seconds at which expired uses were last removed. That walks over all uses, so it is done rarely.
    tidied: u64,
}

impl Default for Line {
    fn default() -> Line {
        Line { turns: Arc::new(Semaphore::new(TURNS)), places: Semaphore::new(PLACES) }
    }
}

impl Line {
    /// Does `work` on a thread outside of the async runtime when it is its turn. Nothing is done if the caller stops waiting before
    /// that.
    async fn turn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, No> {
        let _place = self.places.try_acquire().map_err(|_| busy("too many tokens wait to be verified: ask again in a moment"))?;
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|e| Fault::new("client", e))?;
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        Ok(done.await.map_err(|e| Fault::new("client", e))?)
    }
}

impl Clients {
    /// Does `work`, the verification of a token that a proved caller presents, in the queue of such callers.
    pub(super) async fn turn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, No> {
        self.tokens.turn(work).await
    }

    /// Remembers that a JWT-SVID was used. Fails if it was used before, or if nothing more can be remembered.
    fn spend(&self, jti: [u8; 16], ends_at: u64, root: Workload, now: u64) -> Result<(), Denial> {
        let mut uses = self.uses.lock();
        if uses.ends.contains_key(&jti) || uses.held.contains(&jti) {
            return Err(assertion_used());
        }
        let full = |uses: &Uses| uses.ends.len() >= USES || uses.roots.get(&root).is_some_and(|count| *count >= USES_OF_ROOT);
        if full(&uses) && now != uses.tidied {
            uses.forget(now);
        }
        // A use that cannot be remembered could be repeated.
        if full(&uses) {
            return Err(busy("too many JWT-SVIDs of this workload's agents were used: ask again when some have expired"));
        }
        *uses.roots.entry(root.clone()).or_default() += 1;
        uses.ends.insert(jti, (ends_at, root));
        Ok(())
    }

    fn is_spent(&self, jti: &[u8; 16]) -> bool {
        self.uses.lock().ends.contains_key(jti)
    }

    /// Holds a JWT-SVID while a request of it is carried. Fails if it was used before, or is being used now.
    fn hold(self: &Arc<Self>, jti: [u8; 16]) -> Result<Held, Denial> {
        let mut uses = self.uses.lock();
        if uses.ends.contains_key(&jti) || !uses.held.insert(jti) {
            return Err(assertion_used());
        }
        Ok(Held { clients: Arc::clone(self), jti })
    }
}

/// A JWT-SVID whose request is being recorded. It is a part of the act, which goes on when its caller gives up. When this is dropped,
/// either the record uses it up, or the request was refused and it can be used again.
pub struct Held {
    clients: Arc<Clients>,
    jti: [u8; 16],
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Held")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.clients.uses.lock().held.remove(&self.jti);
    }
}

impl Uses {
    fn forget(&mut self, now: u64) {
        self.tidied = now;
        self.ends.retain(|_, (ends_at, _)| *ends_at > now);
        self.roots.clear();
        for (_, root) in self.ends.values() {
            *self.roots.entry(root.clone()).or_default() += 1;
        }
    }
}

fn busy(message: &str) -> Denial {
    Denial::new(Kind::Exhausted, "BUSY", message)
}

/// The agent that a JWT-SVID proves. That it has not been used before is decided when the use is recorded, or by [`spend`].
pub async fn prove(issuer: &Issuer, assertion: &str) -> Result<Caller, No> {
    let now = issuer.clock.seconds();
    let refused = |e: mayfly_verify::Reject| unauthenticated(e.code(), e.to_string());
    // 1. Checks that need no signature: the token names a live agent, and has not expired.
    let id = AgentId::parse(&inspect_jwt(assertion).map_err(refused)?.to_string());
    let id = id.ok().filter(|id| id.trust_domain == issuer.trust_domain);
    let id = id.ok_or_else(|| unauthenticated("CALLER_UNKNOWN", "a client is an agent of this trust domain"))?;
    let at = issuer.clock.now();
    let standing = issuer.ledger.read(|state| state.agent(&id.uuid).map(|agent| state.standing(agent, at)));
    match standing.map(Standing::refusal) {
        None => return Err(unauthenticated("AGENT_UNKNOWN", "this issuer does not know the agent").into()),
        Some(Some((code, message))) => return Err(unauthenticated(code, message).into()),
        Some(None) => {}
    }
    if inspect_jwt_end(assertion).map_err(refused)? <= now {
        return Err(unauthenticated("CREDENTIAL_EXPIRED", "the JWT-SVID has expired").into());
    }
    // 2. The signature, by the keys of our own trust domain and no others.
    let (published, oid, aud, token) = (issuer.publisher.now(), issuer.oid().clone(), issuer.iss.clone(), assertion.to_owned());
    let verified = issuer.clients.proofs.turn(move || verify_jwt(&token, &aud, &published.bundle, &oid, now)).await?;
    let svid = verified.map_err(refused)?;
    // 3. T144: the token is for us alone. If it had another audience, that service could send it here and pass for the agent.
    if svid.audience != [issuer.iss.as_str()] {
        let message = format!("the audience of the JWT-SVID must be `{}` alone", issuer.iss);
        return Err(unauthenticated("CREDENTIAL_AUDIENCE", message).into());
    }
    if svid.issuer.as_ref().is_some_and(|iss| *iss != issuer.iss && *iss != svid.id.to_string()) {
        return Err(unauthenticated("CREDENTIAL_UNTRUSTED", "the JWT-SVID names another issuer").into());
    }
    // T256: the parent of an agent without a key asks on its own connection, and a copy of such a token proves nothing.
    if let Some(bound) = &svid.confirmation {
        bound.check(&Possession::default()).map_err(refused)?;
    }
    let (Principal::Agent(id), Some(binding)) = (svid.principal, svid.binding) else {
        return Err(unauthenticated("CALLER_UNKNOWN", "a client is an agent of this trust domain").into());
    };
    let mut jti = [0; 16];
    let named = svid.jti.is_some_and(|text| hex::decode_to_slice(text, &mut jti).is_ok());
    if !named {
        return Err(unauthenticated("CREDENTIAL_PROFILE", "the JWT-SVID has no `jti` of this issuer").into());
    }
    let cut = issuer.ledger.read(|state| state.is_cut(binding.incarnation, &binding.stamps));
    if cut {
        return Err(unauthenticated("CREDENTIAL_REVOKED", "the JWT-SVID was revoked").into());
    }
    if issuer.clients.is_spent(&jti) {
        return Err(assertion_used().into());
    }
    let (incarnation, authority, ends_at) = (binding.incarnation, svid.authority.into_bytes(), svid.expires_at);
    Ok(Caller::Bearer { id, incarnation, authority, jti, ends_at })
}

/// Uses up the JWT-SVID of a caller for a request that records nothing. Callers with a certificate have nothing to use up.
pub fn spend(issuer: &Issuer, caller: &Caller) -> Result<(), Denial> {
    let Caller::Bearer { id, jti, ends_at, .. } = caller else { return Ok(()) };
    let root = issuer.ledger.read(|state| state.agent(&id.uuid).map(|agent| agent.mandate.workload.clone()));
    let root = root.ok_or_else(|| unauthenticated("AGENT_UNKNOWN", "this issuer does not know the agent"))?;
    issuer.clients.spend(*jti, *ends_at, root, issuer.clock.seconds())?;
    // ORDER: last. A request that was recorded meanwhile is in the state before it gives the JWT-SVID up.
    if issuer.ledger.read(|state| state.assertion_used(jti)) { Err(assertion_used()) } else { Ok(()) }
}

/// Holds the JWT-SVID of a caller for a request whose record uses it up. `None` for callers with a certificate.
///
/// T331: the record is in the state only when it is durable, and a request that records nothing could use the same JWT-SVID until then.
pub(super) fn hold(issuer: &Issuer, caller: &Caller) -> Result<Option<Arc<Held>>, Denial> {
    let Caller::Bearer { jti, .. } = caller else { return Ok(None) };
    issuer.clients.hold(*jti).map(|held| Some(Arc::new(held)))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn jti(n: usize) -> [u8; 16] {
        u128::try_from(n).unwrap().to_be_bytes()
    }

    #[tokio::test]
    async fn t149_forged_proofs_of_strangers_take_no_turns_of_those_who_are_proved() {
        let clients = Arc::new(Clients::default());
        let (go_on, waits) = std::sync::mpsc::channel::<()>();
        let waits = Arc::new(Mutex::new(waits));
        let mut slow = tokio::task::JoinSet::new();
        for _ in 0..PLACES + 1 {
            let (clients, waits) = (Arc::clone(&clients), Arc::clone(&waits));
            slow.spawn(async move { clients.proofs.turn(move || waits.lock().recv().is_ok()).await.is_ok() });
        }
        assert!(!slow.join_next().await.unwrap().unwrap(), "there is no place for the last one");
        assert!(clients.turn(|| true).await.unwrap());
        for _ in 0..PLACES {
            go_on.send(()).unwrap();
        }
        assert!(slow.join_all().await.into_iter().all(|done| done));
    }

    #[test]
    fn t331_a_jwt_svid_of_a_request_that_is_being_recorded_is_used_by_no_other() {
        let clients = Arc::new(Clients::default());
        let spend = |n| clients.spend(jti(n), 100, "one".parse().unwrap(), 1).map_err(|denial| denial.code);
        let held = clients.hold(jti(1)).unwrap();
        assert!(clients.hold(jti(1)).is_err() && spend(1) == Err("ASSERTION_USED") && spend(2) == Ok(()));
        assert!(clients.hold(jti(2)).is_err(), "it was used before");
        drop(held);
        assert_eq!(spend(1), Ok(()), "the request was refused, and used up nothing");
        assert!(clients.uses.lock().held.is_empty());
    }

    #[test]
    fn t143_a_jwt_svid_is_used_once_and_a_root_cannot_use_up_the_memory_of_others() {
        let clients = Clients::default();
        let (one, other): (Workload, Workload) = ("one".parse().unwrap(), "other".parse().unwrap());
        let spend = |n, root: &Workload, now| clients.spend(jti(n), 100, root.clone(), now).map_err(|denial| denial.code);
        for n in 0..USES_OF_ROOT {
            spend(n, &one, 1).unwrap();
        }
        assert_eq!(spend(0, &one, 1), Err("ASSERTION_USED"));
        assert_eq!(spend(USES, &one, 1), Err("BUSY"), "what cannot be remembered is not accepted");
        assert_eq!(spend(USES, &other, 1), Ok(()));
        assert_eq!(spend(USES + 1, &one, 100), Ok(()), "those that have expired are forgotten");
        assert_eq!(clients.uses.lock().ends.len(), 1);
    }
}
