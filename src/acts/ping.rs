//! Pings: an agent that asked with a notification token hears that the approval was answered (CIBA Core 1.0, 10.2). It may poll as well,
//! and has to after a restart, which forgets the tokens.

use std::collections::HashMap;

use mayfly_verify::Workload;
use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::Issuer;
use crate::caller::Caller;
pub use crate::notify::Endpoint;
use crate::notify::{Notice, Notifier, Proof};
use crate::state::Approval;

/// Longest token, in characters.
const TOKEN: usize = 1024;
/// Approvals that are waited for; more cannot wait at once in the default configuration.
const MOST: usize = 16_384;

/// Who waits for which approval, in memory alone.
pub struct Pings {
    notifier: Notifier,
    // Guards who waits for which approval, by its id. Held for one look-up.
    waiting: Mutex<HashMap<[u8; 16], Waiting>>,
}

/// Where to tell of an answer, by which token, and the Unix microseconds until which somebody can answer.
type Waiting = (Endpoint, Zeroizing<String>, u64);

/// Where the agents of a caller's workload are told of answers. `None` if the configuration does not say.
pub fn endpoint(issuer: &Issuer, caller: &Caller) -> Option<Endpoint> {
    let (Caller::Agent { id, .. } | Caller::Bearer { id, .. }) = caller else { return None };
    match issuer.ledger.read(|state| state.agent(&id.uuid).map(|agent| agent.mandate.workload.clone()))? {
        // T275: an address that a request brings is never asked for anything.
        Workload::Own(name) => issuer.providers.load().notified.get(&name).cloned(),
        Workload::Foreign(_) => None,
    }
}

/// Whether a text can be a notification token: it becomes a header.
pub fn is_token(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'=');
    (1..=TOKEN).contains(&text.len()) && text.bytes().all(plain)
}

/// Remembers where to tell of an answer. The last token for an approval counts. Nobody is told if too many are waited for.
pub fn expect(issuer: &Issuer, approval: &Approval, to: Endpoint, token: &str) {
    issuer.pings.remember(approval, to, token, issuer.clock.now());
    // Somebody may have answered before this was remembered.
    if issuer.ledger.read(|state| state.approval(&approval.id).is_some_and(|approval| approval.answer.is_some())) {
        issuer.pings.answered(&approval.id);
    }
}

impl Pings {
    /// Tells by this notifier.
    pub fn new(notifier: Notifier) -> Pings {
        Pings { notifier, waiting: Mutex::default() }
    }

    fn remember(&self, approval: &Approval, to: Endpoint, token: &str, now: u64) {
        let mut waiting = self.waiting.lock();
        if waiting.len() >= MOST {
            waiting.retain(|_, (.., until)| *until > now);
        }
        if waiting.len() < MOST || waiting.contains_key(&approval.id) {
            waiting.insert(approval.id, (to, Zeroizing::new(token.to_owned()), approval.ends_at));
        }
    }

    /// Tells whoever waits for an approval that it was answered.
    pub(super) fn answered(&self, id: &[u8; 16]) {
        let Some((to, token, _)) = self.waiting.lock().remove(id) else { return };
        let body = serde_json::json!({ "auth_req_id": hex::encode(id) }).to_string();
        self.notifier.send(Notice { to, proof: Proof::Bearer(token), body });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t275_a_token_fits_a_header() {
        assert!(is_token("aZ0-._~+/=") && is_token(&"x".repeat(TOKEN)));
        for bad in ["", "a b", "a\r\nx: y", "é", &"x".repeat(TOKEN + 1)] {
            assert!(!is_token(bad), "{bad:?}");
        }
    }
}
