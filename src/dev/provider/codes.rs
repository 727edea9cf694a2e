//! Authorization codes. They are few, expire soon, and can be used once.

use std::collections::HashMap;

use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Most outstanding codes.
pub(super) const MAX_CODES: usize = 100;
/// Lifetime of a code, in seconds.
pub(super) const CODE_LIFE: u64 = 60;

/// The outstanding codes: issued, and not redeemed yet.
#[derive(Default)]
pub(super) struct Codes {
    // By code: its grant, and when it expires in Unix seconds.
    outstanding: HashMap<String, (Grant, u64)>,
}

/// The authorization request behind a code.
pub(super) struct Grant {
    pub(super) user: String,
    /// The client, which is the audience of its tokens too.
    pub(super) client: String,
    pub(super) redirect_uri: String,
    pub(super) nonce: Option<String>,
    /// The S256 challenge (RFC 7636).
    pub(super) challenge: String,
}

impl Codes {
    /// Makes a code. Returns `None` if [`MAX_CODES`] are outstanding, or if there is no randomness. `now` is in Unix seconds.
    pub(super) fn issue(&mut self, grant: Grant, now: u64) -> Option<String> {
        self.outstanding.retain(|_, (_, ends)| *ends > now);
        if self.outstanding.len() >= MAX_CODES {
            return None;
        }
        let mut secret = [0u8; 32];
        rand::fill(&mut secret).ok()?;
        let code = URL_SAFE_NO_PAD.encode(secret);
        self.outstanding.insert(code.clone(), (grant, now.saturating_add(CODE_LIFE)));
        Some(code)
    }

    /// Redeems a code. Returns `None` if it is unknown or expired, or if the rest of the request does not match. The code is used
    /// up in any case. `now` is in Unix seconds.
    pub(super) fn redeem(&mut self, code: &str, redirect_uri: &str, verifier: &str, now: u64) -> Option<Grant> {
        let (grant, ends) = self.outstanding.remove(code)?;
        let good = ends > now && grant.redirect_uri == redirect_uri && challenge_of(verifier) == grant.challenge;
        good.then_some(grant)
    }
}

/// The S256 challenge of a verifier (RFC 7636 4.2).
pub(super) fn challenge_of(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const VERIFIER: &str = "a-verifier-of-at-least-forty-three-characters";

    fn grant() -> Grant {
        let challenge = challenge_of(VERIFIER);
        Grant { user: "demo".into(), client: "c".into(), redirect_uri: "http://127.0.0.1/cb".into(), nonce: None, challenge }
    }

    #[test]
    fn a_code_is_good_once_and_for_a_minute() {
        let mut codes = Codes::default();
        let code = codes.issue(grant(), 100).unwrap();
        assert!(codes.redeem(&code, "http://127.0.0.1/cb", VERIFIER, 159).is_some());
        assert!(codes.redeem(&code, "http://127.0.0.1/cb", VERIFIER, 159).is_none());
        let code = codes.issue(grant(), 100).unwrap();
        assert!(codes.redeem(&code, "http://127.0.0.1/cb", VERIFIER, 160).is_none());
    }

    #[test]
    fn a_code_is_spent_by_a_wrong_verifier_or_address() {
        let mut codes = Codes::default();
        for (uri, verifier) in [("http://127.0.0.1/other", VERIFIER), ("http://127.0.0.1/cb", "wrong")] {
            let code = codes.issue(grant(), 100).unwrap();
            assert!(codes.redeem(&code, uri, verifier, 101).is_none());
            assert!(codes.redeem(&code, "http://127.0.0.1/cb", VERIFIER, 101).is_none());
        }
    }

    #[test]
    fn at_most_a_hundred_codes_are_outstanding() {
        let mut codes = Codes::default();
        assert!((0..MAX_CODES).all(|_| codes.issue(grant(), 100).is_some()));
        assert!(codes.issue(grant(), 159).is_none());
        assert!(codes.issue(grant(), 160).is_some());
    }
}
