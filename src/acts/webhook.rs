//! Webhook: a program of the operator's is told of each question to a person, with what is asked and a link to the page for the answer. It
//! can pass that on, to a chat or by mail. Nobody answers by it: whoever opens the link signs in first.
//!
//! The body is signed as Standard Webhooks 1.0 have it. The link is signed too, names one question and ends with it: a link that was
//! changed leads nowhere. It opens nothing that the address of the page alone would not open. A caller that gives up while its question
//! is recorded may leave it untold; it waits at the page all the same.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use mayfly_verify::approval::binding_code;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{Issuer, approvals};
use crate::clock::{SECOND, rfc3339};
pub use crate::notify::Endpoint;
use crate::notify::{Notice, Proof};
use crate::state::{Agent, Approval};

/// What a secret begins with.
const PREFIX: &str = "whsec_";
/// Shortest and longest key, in bytes.
const KEY: std::ops::RangeInclusive<usize> = 24..=64;
/// Sets the key of links apart from that of bodies.
const LINKS: &[u8] = b"mayfly: links to approvals";

/// Who is told.
pub struct Webhook {
    to: Endpoint,
    key: Zeroizing<Vec<u8>>,
    links: hmac::Key,
}

impl Webhook {
    /// Needs the secret that the receiver has too: `whsec_` and 24 to 64 bytes in base64.
    pub fn new(to: Endpoint, secret: &str) -> Result<Webhook, String> {
        let key = secret.trim().strip_prefix(PREFIX).and_then(|key| STANDARD.decode(key).ok()).map(Zeroizing::new);
        let key = key.filter(|key| KEY.contains(&key.len()));
        let key = key.ok_or_else(|| format!("write `{PREFIX}` and 24 to 64 bytes in base64"))?;
        let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), LINKS);
        Ok(Webhook { to, key, links: hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()) })
    }

    /// What proves a link: the end of its question in Unix seconds, and a signature over that and what a person is shown.
    fn proof_of_link(&self, approval: &Approval) -> String {
        let until = approval.ends_at / SECOND;
        format!("{until}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&self.links, &signed(approval, until))))
    }

    fn is_link(&self, approval: &Approval, proof: &str, now: u64) -> bool {
        let read = || {
            let (until, tag) = proof.split_once('.')?;
            Some((until.parse::<u64>().ok()?, URL_SAFE_NO_PAD.decode(tag).ok()?))
        };
        let Some((until, tag)) = read() else { return false };
        now < until && hmac::verify(&self.links, &signed(approval, until), &tag).is_ok()
    }
}

/// Both of a fixed length, so that no two approvals are signed by the same bytes.
fn signed(approval: &Approval, until: u64) -> Vec<u8> {
    [&approval.id[..], &approval.digest, &until.to_be_bytes()].concat()
}

/// Tells of a new question, if somebody is to be told.
pub(super) fn tell(issuer: &Issuer, approval: &Approval) {
    let providers = issuer.providers.load();
    let Some(webhook) = &providers.webhook else { return };
    let Some(agent) = issuer.ledger.read(|state| state.agent(&approval.agent).cloned()) else { return };
    let link = approvals::page(issuer, approval.id).map(|page| format!("{page}?link={}", webhook.proof_of_link(approval)));
    let id = hex::encode(approval.id);
    let body = told(issuer, approval, &agent, link.as_deref()).to_string();
    let proof = Proof::Signed { id: format!("approval_{id}"), key: webhook.key.clone() };
    issuer.hooks.send(Notice { to: webhook.to.clone(), proof, body });
}

fn told(issuer: &Issuer, approval: &Approval, agent: &Agent, link: Option<&str>) -> Value {
    let td = &issuer.trust_domain;
    let time = |micros: u64| rfc3339(micros / SECOND);
    json!({
        "type": "approval.asked",
        "timestamp": time(approval.asked_at),
        "data": {
            "approval_id": hex::encode(approval.id),
            "agent_id": agent.id(td).to_string(),
            "chain": agent.chain(td),
            "user": approval.user.as_ref().map(|user| json!({ "iss": user.iss, "sub": user.sub })),
            "audience": approval.audience,
            "authorization_details": serde_json::from_str::<Value>(&approval.details).ok(),
            "scopes": approval.scopes,
            "reason": approval.reason,
            "digest": hex::encode(approval.digest),
            "binding_code": binding_code(&approval.id, &approval.digest),
            "expires_at": time(approval.ends_at),
            "link": link,
        },
    })
}

/// Whether a link to an approval is one that this issuer made for exactly that, and has not ended. T335: for one that was made up it makes no
/// difference whether there is such an approval.
pub fn is_link(issuer: &Issuer, id: &str, proof: &str) -> bool {
    let Ok(id) = approvals::id(id) else { return false };
    let approval = issuer.ledger.read(|state| state.approval(&id).cloned());
    let providers = issuer.providers.load();
    let made = providers.webhook.as_ref().zip(approval.as_ref());
    made.is_some_and(|(webhook, approval)| webhook.is_link(approval, proof, issuer.clock.seconds()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_one_form() {
        let made = |secret: &str| Webhook::new(Endpoint { url: "https://x.example".into(), ca_file: None }, secret).is_ok();
        assert!(made("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw") && made("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n"));
        for bad in [
            "",
            "whsec_",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_c2hvcnQ=",
            "whsec_***",
            &format!("whsec_{}", STANDARD.encode([1; 65])),
        ] {
            assert!(!made(bad), "{bad}");
        }
    }
}
