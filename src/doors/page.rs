//! The page on which people answer what agents ask, and stop agents that act for them: in a browser, signed in at their provider.
//!
//! It needs no script. Whoever opens it is a stranger until their provider says who they are; the token that it gave is verified again with
//! each request, and what they do is judged as if they had sent it with `mayfly approve` or `mayfly my`.

mod begun;
mod form;
mod html;
mod session;
mod shown;
mod signing;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::http::header::{CONTENT_TYPE, HeaderValue, LOCATION};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::map_response;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use mayfly_verify::Target;
use serde::Deserialize;

use super::peer::Peer;
use super::{https, status, told};
use crate::acts::answer::{self, Says};
use crate::acts::{Issuer, approvals, inspect, revoke, user, webhook};
use crate::caller::{Caller, Origin};
use crate::denial::{Denial, Fault, Kind, No};
use crate::judge::access::Action;
use begun::Seals;
use form::Form;
use session::{Session, Sessions};
use signing::Sites;

/// Agents on one page.
const AGENTS: usize = 100;

/// What the page needs.
struct Served {
    issuer: Arc<Issuer>,
    /// The path of the page.
    base: String,
    /// Scheme, host and port of the issuer's URL, as browsers send them.
    origin: String,
    sessions: Sessions,
    sites: Sites,
    seals: Seals,
}

/// The routes of the page, below the path of the issuer's URL. Fails if the system gives no randomness.
pub fn router(issuer: &Arc<Issuer>, about: &https::Issuer) -> Result<Router, Fault> {
    let base = format!("{}/me", about.path());
    let origin = about.url.strip_suffix(about.path()).unwrap_or(&about.url).to_owned();
    let (sessions, sites, seals) = (Sessions::default(), Sites::default(), Seals::new()?);
    let served = Served { issuer: Arc::clone(issuer), base: base.clone(), origin, sessions, sites, seals };
    Ok(Router::new()
        .route(&base, get(home))
        .route(&format!("{base}/approvals/{{id}}"), get(approval).post(answered))
        .route(&format!("{base}/stop"), post(stopped))
        .route(&format!("{base}/sign-in"), get(signing::sign_in))
        .route(&format!("{base}/signed-in"), get(signing::signed_in))
        .route(&format!("{base}/sign-out"), post(signed_out))
        .route(&format!("{base}/style.css"), get(style))
        .layer(map_response(html::guard))
        .with_state(Arc::new(served)))
}

/// Why a page is not shown.
enum Refused {
    /// A denial or a fault.
    No(No),
    /// Nobody is signed in. The approval is what they came for.
    SignIn(Option<String>),
    /// It follows from the request alone.
    Told(StatusCode, &'static str),
}

impl From<No> for Refused {
    fn from(no: No) -> Refused {
        Refused::No(no)
    }
}

impl From<Denial> for Refused {
    fn from(denial: Denial) -> Refused {
        Refused::No(denial.into())
    }
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Refused {
        Refused::No(fault.into())
    }
}

impl Served {
    /// Where providers send the browser back to.
    fn back(&self) -> String {
        format!("{}{}/signed-in", self.origin, self.base)
    }

    /// The person of a request, who may ask for this. `approval` is what they came for.
    async fn person(&self, headers: &HeaderMap, action: Action, approval: Option<&str>) -> Result<(Session, Caller), Refused> {
        let session = self.session(headers, approval)?;
        let caller = self.caller(headers, &session, action, approval).await?;
        Ok((session, caller))
    }

    fn session(&self, headers: &HeaderMap, approval: Option<&str>) -> Result<Session, Refused> {
        let session = self.sessions.of(headers, self.issuer.clock.seconds());
        session.ok_or_else(|| Refused::SignIn(approval.map(str::to_owned)))
    }

    async fn caller(
        &self,
        headers: &HeaderMap,
        session: &Session,
        action: Action,
        approval: Option<&str>,
    ) -> Result<Caller, Refused> {
        // Each time: it may have expired, and they or their provider may have been revoked since.
        let caller = match user::themself(&self.issuer, &session.token, action).await {
            Err(denial) if denial.kind == Kind::Denied => {
                self.sessions.end(headers);
                return Err(Refused::SignIn(approval.map(str::to_owned)));
            }
            caller => caller?,
        };
        Ok(self.may(action, caller)?)
    }

    /// Whether a caller may ask for this. The history hears who it was in any case.
    fn may(&self, action: Action, caller: Caller) -> Result<Caller, No> {
        Origin::note(|origin| drop(origin.caller.set(caller.clone())));
        self.issuer.may(action, caller)
    }

    /// The form of a signed-in person, who may ask for this.
    async fn form(&self, request: Request, action: Action, approval: Option<&str>) -> Result<(Session, Caller, Form), Refused> {
        let (head, body) = request.into_parts();
        let session = self.session(&head.headers, approval)?;
        // ORDER: before anything is counted for the person, whom another site may send here.
        let form = Form::read(&head.headers, body, &session, &self.origin).await;
        let not_ours = "This form is not from this page, or from before you signed in. Open the page again.";
        let form = form.ok_or(Refused::Told(StatusCode::FORBIDDEN, not_ours))?;
        let caller = self.caller(&head.headers, &session, action, approval).await?;
        Ok((session, caller, form))
    }
}

#[derive(Deserialize)]
struct Paged {
    page: Option<String>,
}

/// What waits for the person, and the agents that act for them.
async fn home(State(served): State<Arc<Served>>, Query(paged): Query<Paged>, request: Request) -> Response {
    answer("Page/Home", &served, request, async |request| {
        let issuer = &served.issuer;
        let (session, caller) = served.person(request.headers(), Action::ListAgents, None).await?;
        let (waiting, _) = approvals::list(issuer, &caller, false);
        let after = issuer.pages.open(&caller, &paged.page.unwrap_or_default())?;
        let (agents, next, _) = inspect::list(issuer, &caller, after, AGENTS, false);
        let next = next.map(|next| issuer.pages.seal(&caller, next)).transpose()?;
        let body = shown::home(&served, &session, &waiting, &agents, next.as_deref());
        Ok(html::page(StatusCode::OK, &served.base, "Your agents", Some(&session), &body))
    })
    .await
}

#[derive(Deserialize)]
struct Linked {
    link: Option<String>,
}

/// One approval. T274: whoever may not see it hears that there is none.
async fn approval(
    State(served): State<Arc<Served>>,
    Path(id): Path<String>,
    Query(linked): Query<Linked>,
    request: Request,
) -> Response {
    answer("Page/Approval", &served, request, async |request| {
        // T335: a link that was changed or has ended leads nowhere, also not to a provider.
        if linked.link.is_some_and(|link| !webhook::is_link(&served.issuer, &id, &link)) {
            let text = "This link is not from here, was changed, or has ended with its question.";
            return Err(Refused::Told(StatusCode::FORBIDDEN, text));
        }
        let wanted = approvals::id(&id).is_ok().then_some(&*id);
        let (session, caller) = served.person(request.headers(), Action::SeeApprovals, wanted).await?;
        let known = approvals::get(&served.issuer, &caller, &id)?;
        let body = shown::approval(&served, &session, &known);
        Ok(html::page(StatusCode::OK, &served.base, "An agent asks you", Some(&session), &body))
    })
    .await
}

/// The answer of a person: yes, a part of it, or no.
async fn answered(State(served): State<Arc<Served>>, Path(id): Path<String>, request: Request) -> Response {
    answer("Page/Answer", &served, request, async |request| {
        let issuer = &served.issuer;
        let wanted = approvals::id(&id).is_ok().then_some(&*id);
        let (session, caller, form) = served.form(request, Action::AnswerApproval, wanted).await?;
        let known = approvals::get(issuer, &caller, &id)?;
        // T183: what the page showed, whatever stands there by now.
        let shown = || answer::digest(form.one("digest").unwrap_or_default());
        let says = match form.one("answer") {
            Some("no") => Says::No,
            Some("yes") => Says::Yes { shown: shown()? },
            Some("part") => {
                let (details, scopes) = form.part(&known.approval);
                Says::Part { shown: shown()?, details, scopes }
            }
            _ => return Err(Refused::Told(StatusCode::BAD_REQUEST, "Say yes or no: open the page again.")),
        };
        answer::answer(issuer, caller, &id, &session.token, says).await?;
        Ok(see_other(&format!("{}/approvals/{id}", served.base)))
    })
    .await
}

/// Stops one agent with everything below it, or everything that acts for the person.
async fn stopped(State(served): State<Arc<Served>>, request: Request) -> Response {
    answer("Page/Stop", &served, request, async |request| {
        let issuer = &served.issuer;
        let headers = request.headers().clone();
        let (session, caller, form) = served.form(request, Action::Revoke, None).await?;
        let how = || revoke::How { reason: String::new(), allow_new: false };
        if let Some(agent) = form.one("agent") {
            let target = Target::Agent(issuer.agent_id(agent)?);
            revoke::revoke(issuer, caller, revoke::What::Target(target), how()).await?;
            return Ok(see_other(&served.base));
        }
        if form.one("all") != Some("yes") {
            return Err(Refused::Told(StatusCode::BAD_REQUEST, "Say what is to be stopped: open the page again."));
        }
        let target = Target::User(session.user.clone());
        revoke::revoke(issuer, caller, revoke::What::Target(target), how()).await?;
        served.sessions.end(&headers);
        let body = "<p>Nothing acts for you any more, and nothing new does until you say so with <code>mayfly my reopen</code>, or \
                    an operator does. You are signed out.</p>";
        Ok(html::page(StatusCode::OK, &served.base, "Everything is stopped", None, body))
    })
    .await
}

async fn signed_out(State(served): State<Arc<Served>>, request: Request) -> Response {
    answer("Page/SignOut", &served, request, async |request| {
        let (head, body) = request.into_parts();
        let session = served.sessions.of(&head.headers, served.issuer.clock.seconds());
        if let Some(session) = session
            && Form::read(&head.headers, body, &session, &served.origin).await.is_some()
        {
            served.sessions.end(&head.headers);
        }
        let body = format!("<p><a href=\"{}\">Sign in again</a></p>", html::text(&served.base));
        let mut response = html::page(StatusCode::OK, &served.base, "You are signed out", None, &body);
        signing::set(&mut response, &session::kept(session::SESSION, "", 0));
        Ok(response)
    })
    .await
}

async fn style() -> Response {
    ([(CONTENT_TYPE, "text/css")], html::STYLE).into_response()
}

/// Answers a request, counts it, and shows why it is refused. The history hears of each denial and fault.
async fn answer(
    name: &'static str,
    served: &Served,
    request: Request,
    work: impl AsyncFnOnce(Request) -> Result<Response, Refused>,
) -> Response {
    let started = Instant::now();
    let peer = request.extensions().get::<Peer>().cloned();
    let headers = request.headers().clone();
    let origin = Peer::origin(peer.as_ref(), name);
    let (response, outcome) = match Arc::clone(&origin).scope(work(request)).await {
        Ok(response) => (response, "ok"),
        Err(Refused::SignIn(approval)) => (signing::first(&served.base, &headers, approval.as_deref()), "ok"),
        Err(Refused::Told(code, text)) => {
            (html::page(code, &served.base, "This did not work", None, &format!("<p>{text}</p>")), "malformed")
        }
        Err(Refused::No(no)) => {
            told::denied(&served.issuer, peer.as_ref(), &origin, &no);
            let (_, outcome) = status::of(&no, name);
            let session = served.sessions.of(&headers, served.issuer.clock.seconds());
            (refused(served, session.as_ref(), &no), outcome)
        }
    };
    status::count(name, outcome, started);
    response
}

fn refused(served: &Served, session: Option<&Session>, no: &No) -> Response {
    let (code, why) = match no {
        No::Fault(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal".to_owned()),
        No::Denial(denial) => {
            let code = match denial.kind {
                Kind::NotFound => StatusCode::NOT_FOUND,
                Kind::Malformed => StatusCode::BAD_REQUEST,
                Kind::Exhausted => StatusCode::TOO_MANY_REQUESTS,
                Kind::Unavailable | Kind::Deadline => StatusCode::SERVICE_UNAVAILABLE,
                Kind::Conflict | Kind::Precondition => StatusCode::CONFLICT,
                _ => StatusCode::FORBIDDEN,
            };
            (code, denial.to_string())
        }
    };
    html::page(code, &served.base, "This did not work", session, &format!("<p>{}</p>", html::text(&why)))
}

fn see_other(to: &str) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    if let Ok(to) = HeaderValue::from_str(to) {
        response.headers_mut().insert(LOCATION, to);
    }
    response
}
