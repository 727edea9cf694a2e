//! Sign-ins that have begun. The browser keeps what belongs to one, sealed by this process, until its provider sends it back: once, and
//! within minutes. So a stranger causes no request to a provider by an answer that nobody asked for.

use std::collections::HashMap;
use std::net::IpAddr;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mayfly_verify::sha256;
use parking_lot::Mutex;

use super::session::random;
use crate::denial::{Denial, Fault, Kind};

/// How long a sign-in may take, in seconds.
pub(super) const LIFE: u64 = 600;
/// Answers that are remembered, of everybody and of one network.
const MOST: usize = 65_536;
const OF_NETWORK: usize = MOST / 64;
/// Longest cookie that is read, in bytes.
const LONGEST: usize = 1024;

/// A sign-in that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Begun {
    /// What the provider's answer repeats.
    pub(super) state: String,
    /// What the ID token repeats.
    pub(super) nonce: String,
    /// What redeems the code.
    pub(super) verifier: String,
    /// The configured name of the provider.
    pub(super) provider: String,
    /// The id of the approval that the person came for, or empty.
    pub(super) approval: String,
}

/// Seals sign-ins, and remembers which were answered.
pub(super) struct Seals {
    key: hmac::Key,
    // Guards the answered ones. Held for one look-up, and for the removal of those that have ended.
    answered: Mutex<Answered>,
}

#[derive(Default)]
struct Answered {
    /// By the SHA-256 of their cookie: when they end in Unix seconds, and the network that they came from.
    ends: HashMap<[u8; 32], (u64, Option<IpAddr>)>,
    networks: HashMap<Option<IpAddr>, usize>,
    // Unix seconds at which those that have ended were last removed.
    tidied: u64,
}

impl Seals {
    /// With a key that lives as long as the process. Fails if the system gives no randomness.
    pub(super) fn new() -> Result<Seals, Fault> {
        let key = random().ok_or_else(|| Fault::new("sign-in", "the system gave no randomness"))?;
        Ok(Seals { key: hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), answered: Mutex::default() })
    }

    /// The cookie of a sign-in that begins at `now` (Unix seconds).
    pub(super) fn seal(&self, begun: &Begun, now: u64) -> String {
        let Begun { state, nonce, verifier, provider, approval } = begun;
        let text = format!("{}:{state}:{nonce}:{verifier}:{provider}:{approval}", now.saturating_add(LIFE));
        format!("{text}:{}", URL_SAFE_NO_PAD.encode(hmac::sign(&self.key, text.as_bytes())))
    }

    /// The sign-in of a cookie, if this process sealed it and it has not ended at `now` (Unix seconds).
    pub(super) fn open(&self, cookie: &str, now: u64) -> Option<Begun> {
        let (text, tag) = cookie.rsplit_once(':').filter(|_| cookie.len() <= LONGEST)?;
        hmac::verify(&self.key, text.as_bytes(), &URL_SAFE_NO_PAD.decode(tag).ok()?).ok()?;
        let parts: Vec<&str> = text.split(':').collect();
        let [ends_at, state, nonce, verifier, provider, approval] = parts.as_slice() else { return None };
        let own = |text: &&str| (*text).to_owned();
        let begun = Begun {
            state: own(state),
            nonce: own(nonce),
            verifier: own(verifier),
            provider: own(provider),
            approval: own(approval),
        };
        ends_at.parse::<u64>().ok().filter(|ends_at| now < *ends_at).map(|_| begun)
    }

    /// Uses up a sign-in that was opened, at `now` (Unix seconds), for a browser in this network. `Ok(false)` if it was used before.
    pub(super) fn answer(&self, cookie: &str, network: Option<IpAddr>, now: u64) -> Result<bool, Denial> {
        let network = network.map(subscriber);
        let mut answered = self.answered.lock();
        let key = sha256(cookie.as_bytes());
        if answered.ends.contains_key(&key) {
            return Ok(false);
        }
        let full = |of: &Answered| of.ends.len() >= MOST || of.networks.get(&network).is_some_and(|count| *count >= OF_NETWORK);
        if full(&answered) && now != answered.tidied {
            answered.forget(now);
        }
        // T330: an answer that cannot be remembered could come again. One network cannot use up the memory of others.
        if full(&answered) {
            let message = "too many people sign in from your network at once: open the page again in some minutes";
            return Err(Denial::new(Kind::Exhausted, "BUSY", message));
        }
        *answered.networks.entry(network).or_default() += 1;
        answered.ends.insert(key, (now.saturating_add(LIFE), network));
        Ok(true)
    }
}

/// The part of a network by which its users are told apart here. One subscriber often has all networks with the same 48 bits of IPv6.
fn subscriber(network: IpAddr) -> IpAddr {
    match network {
        IpAddr::V6(v6) => IpAddr::from((v6.to_bits() >> 80 << 80).to_be_bytes()),
        v4 => v4,
    }
}

impl Answered {
    fn forget(&mut self, now: u64) {
        self.tidied = now;
        self.ends.retain(|_, (ends_at, _)| *ends_at > now);
        self.networks.clear();
        for (_, network) in self.ends.values() {
            *self.networks.entry(*network).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn begun() -> Begun {
        let text = |of: &str| of.to_owned();
        Begun { state: text("s"), nonce: text("n"), verifier: text("v"), provider: text("corp"), approval: String::new() }
    }

    #[test]
    fn t330_only_a_sign_in_of_this_process_is_answered_for_ten_minutes() {
        let (seals, other) = (Seals::new().unwrap(), Seals::new().unwrap());
        let cookie = seals.seal(&begun(), 100);
        assert_eq!(seals.open(&cookie, 100 + LIFE - 1), Some(begun()));
        assert_eq!(seals.open(&cookie, 100 + LIFE), None);
        assert_eq!(other.open(&cookie, 100), None);
        let (text, tag) = cookie.rsplit_once(':').unwrap();
        for made_up in [
            cookie.replacen(":s:", ":t:", 1),
            cookie.replacen("700:", "800:", 1),
            format!("{text}:"),
            format!("{text}:{}", "A".repeat(43)),
            format!("700:s:n:v:corp:x:{tag}"),
            "s:n:v:corp:".to_owned(),
            String::new(),
            "x".repeat(2 * LONGEST),
        ] {
            assert_eq!(seals.open(&made_up, 100), None, "{made_up}");
        }
    }

    #[test]
    fn t330_it_is_answered_once_and_a_network_cannot_use_up_the_memory_of_others() {
        let seals = Seals::new().unwrap();
        let (one, other) = (Some("192.0.2.1".parse().unwrap()), Some("192.0.2.2".parse().unwrap()));
        let answer = |n: usize, network, now| seals.answer(&n.to_string(), network, now).map_err(|denial| denial.code);
        assert_eq!((answer(0, one, 1), answer(0, one, 1), answer(0, other, 1)), (Ok(true), Ok(false), Ok(false)));
        for n in 1..OF_NETWORK {
            assert_eq!(answer(n, one, 1), Ok(true));
        }
        assert_eq!(answer(OF_NETWORK, one, 2), Err("BUSY"));
        // All networks of one subscriber in IPv6 are one.
        let theirs = |n: usize| Some(format!("2001:db8:7:{:x}::", n % 256).parse().unwrap());
        for n in 0..OF_NETWORK {
            assert_eq!(seals.answer(&format!("v6 {n}"), theirs(n), 1).ok(), Some(true));
        }
        assert_eq!(seals.answer("v6 more", theirs(77), 2).map_err(|denial| denial.code), Err("BUSY"));
        assert_eq!(answer(OF_NETWORK, other, 2), Ok(true));
        assert_eq!(answer(OF_NETWORK + 1, one, 1 + LIFE), Ok(true), "those that have ended are forgotten");
        assert_eq!(seals.answered.lock().ends.len(), 2);
    }
}
