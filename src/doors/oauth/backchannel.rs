//! The backchannel endpoint (CIBA Core 1.0, poll mode): an agent asks for an approval, and polls the token endpoint until it is given.
//!
//! There are no ID tokens here: `openid` in the scope is accepted and gives nothing.
use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::form::Form;
use super::refusal::Refusal;
use super::{Served, answer, audience, client, fresh, may};
use crate::acts::poll::{self, INTERVAL, Polled};
use crate::acts::{Issuer, ask, exchange};
use crate::caller::Caller;
use crate::clock::SECOND;
use crate::denial::No;
use crate::judge::access::Action;

/// The grant with which an agent polls.
pub(super) const CIBA: &str = "urn:openid:params:grant-type:ciba";

/// Parameters that are not supported here, and what to send instead.
const UNSERVED: [(&str, &str); 4] = [
    ("request", "signed requests are not read here: send the parameters"),
    ("user_code", "there are no user codes here"),
    ("login_hint_token", "name the person by `login_hint`"),
    ("id_token_hint", "name the person by `login_hint`"),
];

pub(super) async fn backchannel(State(served): State<Served>, request: Request) -> Response {
    let issuer = &served.issuer;
    answer("oauth/backchannel", issuer, request, async |request| {
        let (head, form) = Form::read(request).await?;
        let caller = client::prove(issuer, &head, &form, Action::Ask).await?;
        let caller = may(issuer, Action::Ask, caller).map_err(|no| Refusal::of(&no))?;
        if let Some((_, message)) = UNSERVED.iter().find(|(name, _)| form.one(name).is_some()) {
            return Err(Refusal::request(message));
        }
        // CIBA 7.1: the request must name a user. The class decides who answers, so the hint only has to match.
        let hint =
            form.one("login_hint").ok_or_else(|| Refusal::request("`login_hint` is missing: name the person who is asked"))?;
        if !poll::is_known(issuer, &caller, hint) {
            let message = "`login_hint` names neither the user for whom this agent acts nor somebody who approves for its class";
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "unknown_user_id", message));
        }
        let expires = match form.one("requested_expiry").map(str::parse::<u64>) {
            None => 0,
            Some(Ok(expires)) if expires > 0 => expires,
            Some(_) => return Err(Refusal::request("`requested_expiry` is a positive number of seconds")),
        };
        let scopes = form.one("scope").unwrap_or_default().split(' ').filter(|scope| !matches!(*scope, "" | "openid"));
        let asked = ask::Asked {
            audience: audience(issuer, &caller, &form, &exchange::Asked::default())?,
            scopes: scopes.map(str::to_owned).collect(),
            details: form.one("authorization_details").unwrap_or_default().to_owned(),
            reason: form.one("binding_message").unwrap_or_default().to_owned(),
            expires,
        };
        let (approval, _) = ask::ask(issuer, caller, asked).await.map_err(|no| refused(&no))?;
        let left = (approval.ends_at / SECOND).saturating_sub(issuer.clock.seconds());
        Ok(fresh(Json(json!({ "auth_req_id": hex::encode(approval.id), "expires_in": left, "interval": INTERVAL }))))
    })
    .await
}

/// The id of the approval, once it was given. Before that the refusal says what to do.
pub(super) fn polled(issuer: &Issuer, caller: &Caller, form: &Form) -> Result<String, Refusal> {
    let id = form.one("auth_req_id").ok_or_else(|| Refusal::request("`auth_req_id` is missing"))?;
    // A pending approval is no denial, so it is not put into the history.
    let wait = |error, message| Err(Refusal::new(StatusCode::BAD_REQUEST, error, message));
    match poll::poll(issuer, caller, id).map_err(|denial| Refusal::of(&denial.into()))? {
        Polled::Approved => Ok(id.to_owned()),
        Polled::Pending => wait("authorization_pending", "nobody has answered yet"),
        Polled::TooEarly => wait("slow_down", "nobody has answered yet: wait five seconds longer between two polls"),
    }
}

fn refused(no: &No) -> Refusal {
    match no {
        No::Denial(denial) if denial.code == "REASON_TOO_LONG" => {
            let message = "`binding_message` has at most 256 bytes, in one line, without control characters";
            Refusal::new(StatusCode::BAD_REQUEST, "invalid_binding_message", message)
        }
        no => Refusal::of(no),
    }
}

/// The members of the metadata about this endpoint.
pub(super) fn metadata() -> [(&'static str, Value); 2] {
    [("backchannel_token_delivery_modes_supported", json!(["poll"])), ("backchannel_user_code_parameter_supported", json!(false))]
}
