//! How people sign in at the page: at their provider, as `mayfly login` does, and back to an address of the issuer.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, Request, State};
use axum::http::header::{HeaderValue, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::begun::{self, Begun};
use super::session::{LIFE, SIGN_IN, cookie, kept};
use super::{Refused, Served, answer, html, see_other};
use crate::acts::{approvals, user};
use crate::denial::{Denial, Kind};
use crate::doors::peer::{Peer, network};
use crate::judge::access::Action;
use crate::login::Provider;
use crate::login::code::Answer;
use crate::login::site::Site;

/// Codes that are redeemed at providers at once.
const AT_ONCE: usize = 16;
/// How long one more waits for its turn.
const TURN: Duration = Duration::from_secs(5);

/// The providers at which people sign in, each with what is known of it.
pub(super) struct Sites {
    // Guards the sites that were used, by the name of their provider. Held for one look-up.
    used: Mutex<Vec<(String, Arc<Site>)>>,
    // T330: strangers who have really begun sign-ins cause a bounded number of requests to a provider.
    turns: Semaphore,
}

impl Default for Sites {
    fn default() -> Sites {
        Sites { used: Mutex::default(), turns: Semaphore::new(AT_ONCE) }
    }
}

impl Sites {
    /// The providers as they are configured now, in the order of the file.
    pub(super) fn all(&self, issuer: &crate::acts::Issuer) -> Vec<(String, Arc<Site>)> {
        let providers = issuer.providers.load();
        let configured = providers.assertions.sign_ins().map(|(settings, client)| {
            let provider = Provider {
                secret_file: None,
                issuer: settings.issuer.clone(),
                client: client.to_owned(),
                ca_file: settings.ca_file.clone(),
                // The session ends with the token, so nothing is refreshed.
                scope: Some("openid".into()),
                resource: None,
            };
            (settings.name.clone(), provider)
        });
        let mut used = self.used.lock();
        let known = |(name, provider): (String, Provider)| {
            let site = used.iter().find(|(_, site)| *site.provider() == provider).map(|(_, site)| Arc::clone(site));
            (name, site.unwrap_or_else(|| Arc::new(Site::new(provider))))
        };
        let all: Vec<_> = configured.map(known).collect();
        used.clone_from(&all);
        all
    }
}

#[derive(Deserialize)]
pub(super) struct Wanted {
    provider: Option<String>,
    approval: Option<String>,
}

/// Sends the browser to the provider; if there are several, the person chooses first.
pub(super) async fn sign_in(State(served): State<Arc<Served>>, Query(wanted): Query<Wanted>, request: Request) -> Response {
    answer("Page/SignIn", &served, request, async |_| {
        // T273: the way back is an approval of ours or nothing, and never an address.
        let approval = wanted.approval.filter(|id| approvals::id(id).is_ok()).unwrap_or_default();
        let sites = served.sites.all(&served.issuer);
        let site = match (&wanted.provider, sites.as_slice()) {
            (None, [one]) => Some(one),
            (None, _) => None,
            (Some(name), all) => all.iter().find(|(known, _)| known == name),
        };
        let Some((name, site)) = site else {
            let link = |(name, _): &(String, _)| {
                let query = if approval.is_empty() { String::new() } else { format!("&amp;approval={approval}") };
                format!(
                    "<li><a href=\"{}/sign-in?provider={}{query}\">{}</a></li>",
                    served.base,
                    html::text(name),
                    html::text(name)
                )
            };
            let body = format!("<ul>{}</ul>", sites.iter().map(link).collect::<String>());
            return Ok(html::page(StatusCode::OK, &served.base, "Sign in", None, &body));
        };
        let begun = site.begin(&served.back()).await.map_err(|e| unreachable(name, &e))?;
        let mut response = see_other(&begun.page);
        let (state, nonce, verifier) = (begun.state, begun.nonce, begun.verifier);
        let begun = Begun { state, nonce, verifier, provider: name.clone(), approval };
        set(&mut response, &kept(SIGN_IN, &served.seals.seal(&begun, served.issuer.clock.seconds()), begun::LIFE));
        Ok(response)
    })
    .await
}

/// The provider's answer: a session begins, and the person sees what they came for.
pub(super) async fn signed_in(State(served): State<Arc<Served>>, Query(answered): Query<Answer>, request: Request) -> Response {
    answer("Page/SignedIn", &served, request, async |request| {
        let headers = request.headers();
        // 1. The sign-in that this browser began here, and no other (T243). It is answered once.
        let cookie = cookie(headers, SIGN_IN).ok_or_else(no_sign_in)?;
        let now = served.issuer.clock.seconds();
        let begun = served.seals.open(cookie, now).filter(|begun| answered.is_to(&begun.state)).ok_or_else(no_sign_in)?;
        let sites = served.sites.all(&served.issuer);
        let (name, site) = sites.iter().find(|(known, _)| *known == begun.provider).ok_or_else(no_sign_in)?;
        // ORDER: before the provider is asked for anything (T330).
        if !served.seals.answer(cookie, from(&request), now)? {
            return Err(no_sign_in());
        }
        // 2. The token, which is verified as whatever comes from outside.
        let _turn = tokio::time::timeout(TURN, served.sites.turns.acquire()).await.map_err(|_| busy())?;
        let token = site.finish(&served.back(), answered, &begun.nonce, &begun.verifier).await;
        let token = token.map_err(|e| unreachable(name, &e))?;
        let caller = user::themself(&served.issuer, &token, Action::SeeApprovals).await?;
        let caller = served.may(Action::SeeApprovals, caller)?;
        let crate::caller::Caller::User { user, .. } = &caller else { return Err(no_sign_in()) };
        // 3. The session. One that this browser had before ends.
        served.sessions.end(headers);
        let session = served.sessions.begin(&token, user, served.issuer.clock.seconds());
        let session = session.ok_or_else(|| crate::denial::Fault::new("session", "the system gave no randomness"))?;
        let to = match approvals::id(&begun.approval) {
            Ok(_) => format!("{}/approvals/{}", served.base, begun.approval),
            Err(_) => served.base.clone(),
        };
        let mut response = see_other(&to);
        set(&mut response, &kept(super::session::SESSION, &session, LIFE));
        set(&mut response, &kept(SIGN_IN, "", 0));
        Ok(response)
    })
    .await
}

/// Sends the browser to sign in, and back to an approval.
pub(super) fn first(base: &str, headers: &HeaderMap, approval: Option<&str>) -> Response {
    let query = approval.map(|id| format!("?approval={id}")).unwrap_or_default();
    let mut response = see_other(&format!("{base}/sign-in{query}"));
    if cookie(headers, super::session::SESSION).is_some() {
        set(&mut response, &kept(super::session::SESSION, "", 0));
    }
    response
}

/// Adds a cookie to a response.
pub(super) fn set(response: &mut Response, cookie: &str) {
    if let Ok(value) = HeaderValue::from_str(cookie) {
        response.headers_mut().append(SET_COOKIE, value);
    }
}

/// The network of a browser.
fn from(request: &Request) -> Option<IpAddr> {
    let Some(Peer::Tls(connection)) = request.extensions().get::<Peer>() else { return None };
    connection.address.map(network)
}

fn busy() -> Denial {
    Denial::new(Kind::Exhausted, "BUSY", "too many people sign in at once: open the page again in a moment")
}

fn no_sign_in() -> Refused {
    Refused::Told(StatusCode::BAD_REQUEST, "This is not the answer to a sign-in that this browser began. Open the page again.")
}

/// Strangers hear no more than that it did not work.
fn unreachable(name: &str, cause: &crate::login::LoginError) -> Refused {
    tracing::warn!(provider = name, %cause, "nobody was signed in at the page");
    Refused::Told(
        StatusCode::BAD_GATEWAY,
        "You are not signed in: your provider refused, or could not be asked. Open the page again.",
    )
}
