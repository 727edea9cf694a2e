//! Asks a person through their provider, which reaches them on a device of theirs (CIBA Core 1.0, poll mode).

use serde::Deserialize;
use zeroize::Zeroizing;

use super::site::Site;
use super::{LoginError, bounded, json, read, refused, shown};

/// The grant with which a client asks for the answer.
const GRANT: &str = "urn:openid:params:grant-type:ciba";
/// Seconds between two polls, where the provider does not say (CIBA 7.3), and as many more after each `slow_down` (CIBA 11).
pub const INTERVAL: u64 = 5;
/// Longest interval that a provider may ask for, in seconds.
const LONGEST: u64 = 120;
/// Longest id of a request, in bytes. Some providers put a whole JWE into it.
const ID: usize = 8192;

/// What a person is asked.
pub struct Question<'q> {
    /// Whom to ask: the `login_hint`.
    pub hint: &'q str,
    /// What the person compares: the `binding_message`. Providers take different alphabets, so it is a short code.
    pub code: &'q str,
    /// The actions: a JSON array, or empty. It is sent to a provider that lists all of their types.
    pub details: &'q str,
    /// The types of the actions.
    pub types: &'q [String],
    /// For how many seconds an answer counts.
    pub seconds: u64,
}

/// A request that a provider has taken.
pub struct Asked {
    /// Its id, by which the client alone asks for the answer.
    pub id: Zeroizing<String>,
    /// Seconds before the first poll, and between two.
    pub interval: u64,
    /// Seconds after which the provider has forgotten it.
    pub lasts: u64,
}

/// How a request stands.
pub enum Polled {
    /// The person agreed. This is the ID token.
    Agreed(String),
    /// The person refused.
    Refused,
    /// Nobody has answered.
    Pending,
    /// Nobody has answered, and this poll came too early.
    TooEarly,
    /// Nobody answered in time.
    Expired,
}

#[derive(Deserialize)]
struct Acknowledged {
    auth_req_id: String,
    expires_in: u64,
    interval: Option<u64>,
}

impl Site {
    /// Has the provider ask a person.
    pub async fn ask(&self, question: &Question<'_>) -> Result<Asked, LoginError> {
        let found = self.found().await?;
        let none = || LoginError::Answer("it has no `backchannel_authentication_endpoint`".into());
        let endpoint = found.endpoints.backchannel_authentication_endpoint.as_deref().ok_or_else(none)?;
        let seconds = question.seconds.to_string();
        let mut form = vec![
            ("scope", "openid"),
            ("login_hint", question.hint),
            ("binding_message", question.code),
            ("requested_expiry", &seconds),
        ];
        let known = &found.endpoints.authorization_details_types_supported;
        if !question.details.is_empty() && question.types.iter().all(|of| known.contains(of)) {
            form.push(("authorization_details", question.details));
        }
        let answer = found.send(endpoint, form).await?;
        if answer.status().is_client_error() {
            return Err(refused(&bounded(found.provider, answer).await.and_then(|bytes| json(&bytes))?));
        }
        let Acknowledged { auth_req_id: id, expires_in, interval } = read(found.provider, answer).await?;
        if id.is_empty() || id.len() > ID || !id.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(LoginError::Answer(format!("`{}` is no `auth_req_id`", shown(&id))));
        }
        let interval = interval.unwrap_or(INTERVAL).clamp(1, LONGEST);
        Ok(Asked { id: Zeroizing::new(id), interval, lasts: expires_in })
    }

    /// Asks how a request stands. The ID token is for this client and from this provider; its signature is not verified here.
    pub async fn poll(&self, asked: &Asked) -> Result<Polled, LoginError> {
        let found = self.found().await?;
        match found.grant(vec![("grant_type", GRANT), ("auth_req_id", &asked.id)]).await? {
            Ok(granted) => Ok(Polled::Agreed(found.wanted(granted, None)?.token)),
            Err(refusal) => match refusal.error.as_str() {
                "authorization_pending" => Ok(Polled::Pending),
                "slow_down" => Ok(Polled::TooEarly),
                "access_denied" => Ok(Polled::Refused),
                "expired_token" => Ok(Polled::Expired),
                _ => Err(refused(&refusal)),
            },
        }
    }
}

impl Asked {
    /// The provider wants to be asked less often.
    pub fn slow_down(&mut self) {
        self.interval = self.interval.saturating_add(INTERVAL).min(LONGEST);
    }
}
