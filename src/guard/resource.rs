//! The OAuth metadata of the service behind a proxy (RFC 9728), which tells clients where to get tokens for it.
//!
//! The proxy forwards requests for `/.well-known/oauth-protected-resource` of the service to the guard, with the audience and
//! scopes of its own configuration in the query.

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};

use super::Guard;
use super::rule::{Rule, Which};

/// The metadata of the audience in the query. 404 if the guard accepts no access tokens, 400 if the audience is no URL of a resource.
pub(super) async fn metadata(State(guard): State<Guard>, query: Query<Vec<(String, String)>>) -> Response {
    let pairs = query.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let rule = match Rule::read(pairs, Which::Bearer, true) {
        Ok(rule) => rule,
        Err(why) => return (StatusCode::BAD_REQUEST, format!("the rule of the proxy is malformed: {why}\n")).into_response(),
    };
    if guard.0.issuer.is_none() {
        return (StatusCode::NOT_FOUND, "this guard accepts no access tokens: start it with --issuer\n").into_response();
    }
    let Some(resource) = guard.resource(rule.audience.as_deref()) else {
        let why = "`audience` is no https URL without user, query, fragment and a slash at its end\n";
        return (StatusCode::BAD_REQUEST, why).into_response();
    };
    let said = resource.with_scopes(rule.scopes).metadata();
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "max-age=300")], said).into_response()
}
