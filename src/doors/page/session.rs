//! Sessions of people at the page: who is signed in in which browser, in memory alone, for minutes. A restart ends them all.

use std::collections::HashMap;
use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::COOKIE;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mayfly_verify::{User, sha256};
use parking_lot::Mutex;

/// How long somebody stays signed in, in seconds.
pub(super) const LIFE: u64 = 900;
/// Sessions at once.
const MOST: usize = 4096;
/// Sessions of one user at once.
const OF_ONE: usize = 8;
/// The cookie of a session. Browsers take this prefix from this host alone, over TLS.
pub(super) const SESSION: &str = "__Host-mayfly";
/// The cookie of a sign-in that has begun.
pub(super) const SIGN_IN: &str = "__Host-mayfly-sign-in";

/// A person who is signed in.
#[derive(Clone)]
pub(super) struct Session {
    /// Their token of the provider. It is verified again with each request.
    pub(super) token: Arc<str>,
    /// Who they are.
    pub(super) user: User,
    /// What a form of theirs repeats, so that no page of somebody else can send it.
    pub(super) form: String,
    // Unix seconds.
    began: u64,
}

/// Those who are signed in.
#[derive(Default)]
pub(super) struct Sessions {
    // Guards the sessions, by the SHA-256 of their cookie. Held for one look-up.
    by_cookie: Mutex<HashMap<[u8; 32], Session>>,
}

impl Sessions {
    /// Begins a session at `now` (Unix seconds). Returns the value of its cookie. `None` if the system gives no randomness.
    pub(super) fn begin(&self, token: &str, user: &User, now: u64) -> Option<String> {
        let cookie = random()?;
        let mut all = self.by_cookie.lock();
        all.retain(|_, session| session.lives(now));
        // T271: one person takes the places of nobody else, and all together take a bounded number.
        let oldest = |all: &HashMap<[u8; 32], Session>, of: Option<&User>| {
            let theirs = all.iter().filter(|(_, session)| of.is_none_or(|user| session.user == *user));
            theirs.min_by_key(|(_, session)| session.began).map(|(key, _)| *key)
        };
        let own = all.values().filter(|session| session.user == *user).count();
        let one_too_many = if own >= OF_ONE { oldest(&all, Some(user)) } else { None };
        let one_too_many = one_too_many.or_else(|| if all.len() >= MOST { oldest(&all, None) } else { None });
        if let Some(key) = one_too_many {
            all.remove(&key);
        }
        // Whoever reads the page learns this, and not the cookie.
        let form = URL_SAFE_NO_PAD.encode(sha256(format!("form of {cookie}").as_bytes()));
        all.insert(sha256(cookie.as_bytes()), Session { token: token.into(), user: user.clone(), form, began: now });
        Some(cookie)
    }

    /// The session of a request at `now` (Unix seconds).
    pub(super) fn of(&self, headers: &HeaderMap, now: u64) -> Option<Session> {
        let key = sha256(cookie(headers, SESSION)?.as_bytes());
        self.by_cookie.lock().get(&key).filter(|session| session.lives(now)).cloned()
    }

    /// Ends the session of a request.
    pub(super) fn end(&self, headers: &HeaderMap) {
        if let Some(cookie) = cookie(headers, SESSION) {
            self.by_cookie.lock().remove(&sha256(cookie.as_bytes()));
        }
    }
}

impl Session {
    fn lives(&self, now: u64) -> bool {
        now < self.began.saturating_add(LIFE)
    }
}

/// The value of a cookie that a request has once. Of two, one is somebody else's.
pub(super) fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let all = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut named = all.flat_map(|value| value.split(';')).filter_map(|pair| {
        let (key, value) = pair.trim().split_once('=')?;
        (key == name).then_some(value)
    });
    named.next().filter(|_| named.next().is_none())
}

/// A cookie as the browser is told to keep it, for so many seconds. 0 forgets it.
///
/// A link from another site brings it (`Lax`), a form or a frame of another site does not.
pub(super) fn kept(name: &str, value: &str, seconds: u64) -> String {
    format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={seconds}")
}

/// 256 bits of randomness, as text.
pub(super) fn random() -> Option<String> {
    let mut bytes = [0u8; 32];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    fn user(sub: &str) -> User {
        User { iss: "https://idp.example".into(), sub: sub.into() }
    }

    fn headers(cookies: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for cookie in cookies {
            headers.append(COOKIE, cookie.parse().unwrap());
        }
        headers
    }

    #[test]
    fn t271_sessions_are_bounded_for_each_person_and_in_all_and_end_by_themselves() {
        let sessions = Sessions::default();
        let mine: Vec<String> = (0..=OF_ONE as u64).map(|n| sessions.begin("t", &user("me"), n).unwrap()).collect();
        let of = |cookie: &str, now| sessions.of(&headers(&[&format!("{SESSION}={cookie}")]), now);
        assert!(of(&mine[0], 10).is_none() && mine[1..].iter().all(|cookie| of(cookie, 10).is_some()), "the oldest went");
        assert!(of(&mine[1], LIFE + 1).is_none(), "it has ended");
        for n in 0..2 * MOST {
            sessions.begin("t", &user(&n.to_string()), 20).unwrap();
        }
        assert_eq!(sessions.by_cookie.lock().len(), MOST);
    }

    #[test]
    fn a_cookie_counts_once_and_names_one_session() {
        let sessions = Sessions::default();
        let (mine, yours) = (sessions.begin("m", &user("me"), 0).unwrap(), sessions.begin("y", &user("you"), 0).unwrap());
        let (mine, yours) = (format!("{SESSION}={mine}"), format!("{SESSION}={yours}"));
        let session = sessions.of(&headers(&["a=b", &format!("x=y; {mine}")]), 1).unwrap();
        assert!(session.user.sub == "me" && &*session.token == "m" && !mine.contains(&session.form));
        assert!(sessions.of(&headers(&[&mine, &yours]), 1).is_none() && sessions.of(&headers(&["__Host-mayfly="]), 1).is_none());
        sessions.end(&headers(&[&mine]));
        assert!(sessions.of(&headers(&[&mine]), 1).is_none() && sessions.of(&headers(&[&yours]), 1).is_some());
    }
}
