//! A cache of JWT-SVIDs, one for each set of audiences.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mayfly_verify::{inspect_jwt_issuer, is_single_use};
use zeroize::Zeroize;

use crate::api::v1;

/// Most cached tokens. When it is full, the token that expires first is removed.
const MAX: usize = 64;
/// A token that expires within this time is not returned, because the receiver's clock may be ahead.
const LAST: Duration = Duration::from_secs(5);

struct Token {
    audiences: Vec<String>,
    svid: v1::JwtSvid,
    /// After half of its life a new token is minted.
    half: SystemTime,
    ends_at: SystemTime,
}

impl Drop for Token {
    fn drop(&mut self) {
        self.svid.token.zeroize();
    }
}

#[derive(Default)]
pub(crate) struct Tokens(Vec<Token>);

impl Tokens {
    /// A token with at least half of its life left.
    pub(crate) fn fresh(&self, audiences: &[&str], now: SystemTime) -> Option<v1::JwtSvid> {
        self.0.iter().find(|t| t.audiences == audiences && now < t.half).map(|t| t.svid.clone())
    }

    /// A token that is still valid, for when no new one can be minted.
    pub(crate) fn holding(&self, audiences: &[&str], now: SystemTime) -> Option<v1::JwtSvid> {
        self.0.iter().find(|t| t.audiences == audiences && now + LAST < t.ends_at).map(|t| t.svid.clone())
    }

    pub(crate) fn put(&mut self, audiences: &[&str], svid: &v1::JwtSvid, now: SystemTime) {
        let seconds = svid.expires_at.as_ref().and_then(|at| u64::try_from(at.seconds).ok()).unwrap_or(0);
        let ends_at = UNIX_EPOCH + Duration::from_secs(seconds);
        self.0.retain(|t| t.audiences != audiences && now < t.ends_at);
        // T219: a JWT-SVID for the issuer itself proves its agent once, so whoever got it from here would be refused there.
        if matches!(audiences, [one] if inspect_jwt_issuer(&svid.token).is_ok_and(|iss| iss.as_deref() == Some(*one))) {
            return;
        }
        // T293: whoever got it from here again would be refused.
        if is_single_use(&svid.token) {
            return;
        }
        if self.0.len() >= MAX
            && let Some(first) = self.0.iter().enumerate().min_by_key(|(_, t)| t.ends_at).map(|(n, _)| n)
        {
            self.0.swap_remove(first);
        }
        let half = now + ends_at.duration_since(now).unwrap_or_default() / 2;
        let audiences = audiences.iter().map(|a| (*a).to_owned()).collect();
        self.0.push(Token { audiences, svid: svid.clone(), half, ends_at });
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_given_out_until_half_and_kept_for_need_until_its_end() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let svid = |token: &str, life: i64| v1::JwtSvid {
            token: token.into(),
            expires_at: Some(prost_types::Timestamp { seconds: 1_000_000 + life, nanos: 0 }),
            ..Default::default()
        };
        let mut tokens = Tokens::default();
        tokens.put(&["a"], &svid("one", 300), now);
        let at = |seconds| now + Duration::from_secs(seconds);
        let given = |t: Option<v1::JwtSvid>| t.map(|t| t.token);
        assert_eq!(given(tokens.fresh(&["a"], at(149))), Some("one".into()));
        assert_eq!(given(tokens.fresh(&["a"], at(150))), None);
        assert_eq!(given(tokens.holding(&["a"], at(294))), Some("one".into()));
        assert_eq!(given(tokens.holding(&["a"], at(295))), None);
        assert_eq!(given(tokens.fresh(&["b"], now)), None);
        tokens.put(&["a"], &svid("two", 300), now);
        assert_eq!(given(tokens.fresh(&["a"], now)), Some("two".into()));
    }

    #[test]
    fn t219_a_token_that_proves_its_agent_to_the_issuer_once_is_not_kept() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        // {"alg":"ES256"}.{"iss":"https://issuer.example"}
        let token = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIn0.c2ln";
        let expires_at = Some(prost_types::Timestamp { seconds: 1_000_300, nanos: 0 });
        let svid = v1::JwtSvid { token: token.into(), expires_at, ..Default::default() };
        let mut tokens = Tokens::default();
        let us = ["https://issuer.example"];
        tokens.put(&us, &svid, now);
        assert!(tokens.fresh(&us, now).is_none() && tokens.holding(&us, now).is_none());
        for others in [&["https://search.example"][..], &["https://issuer.example", "https://search.example"]] {
            tokens.put(others, &svid, now);
            assert!(tokens.fresh(others, now).is_some());
        }
    }

    #[test]
    fn t293_a_token_for_a_single_use_is_not_kept() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let expires_at = Some(prost_types::Timestamp { seconds: 1_000_300, nanos: 0 });
        let mut tokens = Tokens::default();
        // {"jti":"1","iat":1,"single_use":true}, the same with false, and with a text, which nobody accepts.
        for (claims, kept) in [
            ("eyJqdGkiOiIxIiwiaWF0IjoxLCJzaW5nbGVfdXNlIjp0cnVlfQ", false),
            ("eyJqdGkiOiIxIiwiaWF0IjoxLCJzaW5nbGVfdXNlIjpmYWxzZX0", true),
            ("eyJzaW5nbGVfdXNlIjoieWVzIn0", false),
        ] {
            let token = format!("eyJhbGciOiJFUzI1NiJ9.{claims}.c2ln");
            tokens.put(&["a"], &v1::JwtSvid { token, expires_at, ..Default::default() }, now);
            assert_eq!(tokens.fresh(&["a"], now).is_some(), kept, "{claims}");
        }
    }

    #[test]
    fn the_cache_is_bounded_and_the_nearest_end_makes_room() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let mut tokens = Tokens::default();
        for n in 0..200i64 {
            let expires_at = Some(prost_types::Timestamp { seconds: 1_000_100 + n, nanos: 0 });
            tokens.put(&[&n.to_string()], &v1::JwtSvid { expires_at, ..Default::default() }, now);
        }
        assert_eq!(tokens.0.len(), MAX);
        assert!(tokens.fresh(&["199"], now).is_some() && tokens.fresh(&["0"], now).is_none());
    }
}
