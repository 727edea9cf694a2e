//! `/auth`, which a proxy asks before it lets a request pass: nginx (`auth_request`), Traefik (`forwardAuth`), Caddy (`forward_auth`).
//!
//! The rule is in the query of the URL in the proxy's configuration, never in headers: these proxies forward the client's headers,
//! but not the client's query (T114). For the same reason a certificate is read only if the rule says so, and only from the header
//! that the rule names (T111).

use axum::extract::{Query, Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};

use super::Guard;
use super::check::Shown;
use super::decision::{Allowed, Denied};
use super::routes::count;
use super::rule::{Rule, Which};
use super::text::decoded;

const DOOR: &str = "auth";
/// The reason of a denial, as services that use the SDK send it.
const REASON: HeaderName = HeaderName::from_static("mayfly-reason");

/// Answers any method: 200 with the headers for the service, or 401 or 403 with the reason. A malformed rule is 400, which proxies
/// treat as their own failure, so that nothing passes.
pub(super) async fn auth(State(guard): State<Guard>, query: Query<Vec<(String, String)>>, request: Request) -> Response {
    let pairs = query.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let rule = match Rule::read(pairs, Which::Bearer, true) {
        Ok(rule) => rule,
        Err(why) => {
            count(DOOR, "malformed", "");
            return (StatusCode::BAD_REQUEST, format!("the rule of the proxy is malformed: {why}\n")).into_response();
        }
    };
    match decide(&guard, &rule, request.headers()) {
        Ok(allowed) => {
            count(DOOR, "allowed", "");
            let mut response = StatusCode::OK.into_response();
            // All headers are set, even empty ones: a proxy that copies only those present would forward the client's own in place
            // of a missing one.
            for (name, value) in allowed.headers() {
                if let Ok(value) = HeaderValue::from_str(&value) {
                    response.headers_mut().insert(name, value);
                }
            }
            response
        }
        Err(denied) => {
            count(DOOR, "denied", denied.code());
            let mut response = (denied.status(), format!("{}: {}\n", denied.code(), denied.meaning())).into_response();
            response.headers_mut().insert(REASON, HeaderValue::from_static(denied.code()));
            if let Some(challenge) = denied
                .challenge(guard.resource(rule.audience.as_deref()), &rule.scopes)
                .and_then(|challenge| challenge.try_into().ok())
            {
                response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            }
            response
        }
    }
}

fn decide(guard: &Guard, rule: &Rule, headers: &HeaderMap) -> Result<Allowed, Denied> {
    let token = if rule.which.bearer() { bearer(&all(headers, &AUTHORIZATION, "TOKEN_MALFORMED")?)? } else { None };
    let certificate =
        if rule.which.peer() { certificate(&all(headers, &rule.certificate, "CREDENTIAL_MALFORMED")?)? } else { None };
    let shown = Shown { token, certificate: certificate.as_deref(), ..Shown::default() };
    guard.check(shown, rule.audience.as_deref(), &rule.scopes)?.agent()
}

/// The values of a header. Fails with this code if one is not text.
fn all<'a>(headers: &'a HeaderMap, name: &HeaderName, code: &'static str) -> Result<Vec<&'a str>, Denied> {
    let values = headers.get_all(name).iter().map(|value| value.to_str().ok());
    values.collect::<Option<_>>().ok_or_else(|| Denied::of(code))
}

/// Reads a bearer token by RFC 6750 2.1; the scheme is case-insensitive. Two headers would be ambiguous (T24).
pub(super) fn bearer<'a>(values: &[&'a str]) -> Result<Option<&'a str>, Denied> {
    let malformed = || Denied::of("TOKEN_MALFORMED");
    let value = match values {
        [] => return Ok(None),
        [value] => value,
        _ => return Err(malformed()),
    };
    let (scheme, token) = value.split_once(' ').ok_or_else(malformed)?;
    let plain = !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
    if scheme.eq_ignore_ascii_case("bearer") && plain { Ok(Some(token)) } else { Err(malformed()) }
}

/// A certificate in PEM, percent-encoded. Two headers would be ambiguous, and an empty one says that there is no certificate.
pub(super) fn certificate(values: &[&str]) -> Result<Option<String>, Denied> {
    match values {
        [] | [""] => Ok(None),
        [value] => decoded(value).map(Some).ok_or_else(|| Denied::of("CREDENTIAL_MALFORMED")),
        _ => Err(Denied::of("CREDENTIAL_MALFORMED")),
    }
}
