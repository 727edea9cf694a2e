//! Sign-in from a machine without a browser: the device authorization grant (RFC 8628).

use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

use super::{Found, LoginError, Provider, Tokens, read, refused, shown};

/// The longest that a person may take, whatever the provider says.
const PATIENCE: u64 = 1800;
/// Seconds between two polls: the default (RFC 8628 3.2), and the least and the most that a provider may set.
const INTERVAL: (u64, u64, u64) = (5, 1, 60);
/// The grant type.
const DEVICE: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// The instructions for a person with another machine.
#[derive(Clone, Debug)]
pub struct Invitation {
    /// The page to visit.
    pub page: String,
    /// The code to enter there.
    pub code: String,
    /// The address of the page that includes the code, if the provider has one.
    pub complete: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    device_code: String,
    user_code: String,
    verification_uri: String,
    verification_uri_complete: Option<String>,
    expires_in: u64,
    interval: Option<u64>,
}

/// Signs a person in. `invite` gets the instructions for them.
pub async fn sign_in(provider: &Provider, invite: impl FnOnce(&Invitation)) -> Result<Tokens, LoginError> {
    let found = Found::of(provider).await?;
    let none =
        || LoginError::Answer("it has no `device_authorization_endpoint`: sign in with a browser, without --device".into());
    let endpoint = found.endpoints.device_authorization_endpoint.as_deref().ok_or_else(none)?;
    let scope = found.scope();
    let mut form = vec![("scope", scope.as_str())];
    form.extend(provider.resource.as_deref().map(|resource| ("resource", resource)));
    let answer: Answer = read(provider, found.send(endpoint, form).await?).await?;
    // T243: a person is shown one page and one code, each in one line, whatever the provider sends.
    let page = |url: &str| if url.starts_with("https://") { Ok(shown(url)) } else { Err(no_page(url)) };
    let complete = answer.verification_uri_complete.as_deref().map(page).transpose()?;
    invite(&Invitation { page: page(&answer.verification_uri)?, code: shown(&answer.user_code), complete });
    let (usual, least, most) = INTERVAL;
    let mut interval = answer.interval.unwrap_or(usual).clamp(least, most);
    let patience = answer.expires_in.min(PATIENCE);
    let until = Instant::now() + Duration::from_secs(patience);
    loop {
        tokio::time::sleep(Duration::from_secs(interval)).await;
        if Instant::now() >= until {
            return Err(LoginError::Late(patience));
        }
        let granted = match found.grant(vec![("grant_type", DEVICE), ("device_code", &answer.device_code)]).await {
            Ok(granted) => granted,
            // RFC 8628 3.5: a connection that fails is tried again, more slowly.
            Err(LoginError::Unreachable(..)) => {
                interval = (interval * 2).min(most);
                continue;
            }
            Err(other) => return Err(other),
        };
        match granted {
            Ok(granted) => return found.wanted(granted, None),
            Err(refusal) if refusal.error == "authorization_pending" => {}
            Err(refusal) if refusal.error == "slow_down" => interval = (interval + usual).min(most),
            Err(refusal) => return Err(refused(&refusal)),
        }
    }
}

fn no_page(url: &str) -> LoginError {
    LoginError::Answer(format!("`{}` is no page for a sign-in", shown(url)))
}
