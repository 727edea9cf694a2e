//! The way of a request into the router: whether it may begin is decided from its headers and its peer, before its body is read.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::Response;
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use super::Bounds;
use super::activity::{Activity, Open};
use super::body::{Charged, HEAD, Held, Refused};
use super::budget::{Budget, Charge, Payer};
use crate::acts::Issuer;
use crate::caller::{Caller, Origin, Role};
use crate::denial::{Denial, Kind, No};
use crate::doors::grpc::{self, Method};
use crate::doors::peer::{self, Peer, Person};
use crate::doors::{authzen, oauth};
use crate::doors::{status, told};
use crate::judge::access::{self, Action};

/// The longest message of a stranger, in bytes.
const STRANGER_MESSAGE: usize = 64 * 1024;

/// The way into a router. Clones share the budget.
#[derive(Clone)]
pub(super) struct Gate {
    router: axum::Router,
    issuer: Option<Arc<Issuer>>,
    budget: Budget,
    /// Streams that strangers may still open.
    streams: Arc<Semaphore>,
    message: usize,
    within: Duration,
}

/// A peer that has proved nothing.
pub(super) struct Stranger {
    /// What happens on its connection.
    pub(super) activity: Arc<Activity>,
}

/// How a refusal is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wire {
    /// As a gRPC status.
    Grpc,
    /// As a status of HTTP.
    Http,
    /// As the errors of RFC 6749, on whatever listener.
    Oauth,
    /// As the errors of the access endpoints, on whatever listener.
    Access,
}

/// Methods for strangers whose responses go on for as long as their reader wants.
const STREAMS: [&str; 4] = [
    "/mayfly.v1.Bundles/WatchBundle",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

type Request = http::Request<Incoming>;

impl Gate {
    /// The way into `router`, with a budget of its own. Strangers may keep `streams` streams open. `issuer` is `None` where the router
    /// is for everybody.
    pub(super) fn new(router: axum::Router, issuer: Option<Arc<Issuer>>, bounds: Bounds, streams: usize) -> Gate {
        let (budget, streams) = (Budget::new(bounds.bodies), Arc::new(Semaphore::new(streams)));
        Gate { router, issuer, budget, streams, message: bounds.message, within: bounds.request }
    }

    /// The service of one connection.
    pub(super) fn service(
        self,
        peer: Peer,
        payer: Payer,
        stranger: Option<Stranger>,
    ) -> impl hyper::service::Service<
        Request,
        Response = Response,
        Error = Infallible,
        Future = impl Future<Output = Result<Response, Infallible>> + Send,
    > + Send {
        let shared = Arc::new((self, peer, payer, stranger));
        hyper::service::service_fn(move |request: Request| {
            let shared = Arc::clone(&shared);
            async move {
                let (gate, peer, payer, stranger) = &*shared;
                let method = grpc::find(request.uri().path());
                let wire = gate.wire(request.uri().path());
                let (name, started) = (method.map_or(grpc::OTHER, |method| method.name), Instant::now());
                let origin = Peer::origin(Some(peer), name);
                let refused = |no: No| match (wire, &no) {
                    (Wire::Oauth, No::Denial(denial)) => oauth::unavailable(denial),
                    (Wire::Access, No::Denial(denial)) => authzen::unavailable(denial),
                    (Wire::Http, No::Denial(denial)) => status::plain(denial),
                    _ => {
                        if let Some(issuer) = &gate.issuer {
                            told::denied(issuer, Some(peer), &origin, &no);
                        }
                        status::refusal(&no, name, started)
                    }
                };
                // The timeout covers the request's body too: a body that never arrives holds a stream no longer than any other
                // request.
                let answer = async {
                    // What a stranger's request holds, it holds until its response has been taken.
                    let held = stranger.as_ref().map(|stranger| gate.hold(&request, stranger)).transpose()?;
                    Ok::<_, No>((gate.answer(request, method, peer, payer, (&origin, started)).await?, held))
                };
                Ok(match tokio::time::timeout(gate.within, answer).await {
                    Ok(Ok(((response, charge), Some((open, permit))))) => {
                        response.map(|body| Body::new(Held::new(body, open, (permit, charge))))
                    }
                    Ok(Ok(((response, _), None))) => response,
                    Ok(Err(no)) => refused(no),
                    Err(_) => refused(status::deadline().into()),
                })
            }
        })
    }

    fn wire(&self, path: &str) -> Wire {
        match &self.issuer {
            _ if oauth::is(path) => Wire::Oauth,
            _ if authzen::is(path) => Wire::Access,
            Some(_) => Wire::Grpc,
            None => Wire::Http,
        }
    }

    fn hold(&self, request: &Request, stranger: &Stranger) -> Result<(Open, Option<OwnedSemaphorePermit>), Denial> {
        let stream = STREAMS.contains(&request.uri().path());
        let open = stranger.activity.begin(stream).ok_or_else(busy)?;
        let permit = stream.then(|| Arc::clone(&self.streams).try_acquire_owned().map_err(|_| busy())).transpose()?;
        Ok((open, permit))
    }

    async fn answer(
        &self,
        mut request: Request,
        method: Option<&'static Method>,
        peer: &Peer,
        payer: &Payer,
        (origin, started): (&Arc<Origin>, Instant),
    ) -> Result<(Response, Arc<Charge>), No> {
        // T94: who asks and for what is known from the headers. Whoever may not ask is told so before a byte of the body is read.
        // The same is decided again when the body is there, because time has passed.
        if let (Some(issuer), Some(method)) = (&self.issuer, method) {
            let person = peer::person(issuer, peer, request.headers()).await?;
            let caller = peer::caller(issuer, Some(peer), person.as_ref(), method.action).await?;
            // Verified once for a request. The door judges again what it makes of them.
            if let Some(person) = person {
                request.extensions_mut().insert(Person(Arc::new(person)));
            }
            let begins = may_begin(method.action, &caller);
            if begins.is_err() {
                // The door asks again, and says who it is by then.
                let _ = origin.caller.set(caller);
            }
            begins?;
        }
        let charge = self.budget.begin(payer).ok_or_else(busy)?;
        // T19: the identity of a peer comes from the connection, never from headers.
        request.extensions_mut().insert(peer.clone());
        request.extensions_mut().insert(Arc::clone(origin));
        let wire = self.wire(request.uri().path());
        let message = method.map_or(self.message, |method| method.longest(self.message));
        let message = if payer.is_stranger() { message.min(STRANGER_MESSAGE) } else { message };
        let request = request.map(|body| Charged::new(body, Arc::clone(&charge), message + HEAD));
        let Ok(response) = tower::ServiceExt::oneshot(self.router.clone(), request).await;
        match charge.refused() {
            Some(Refused::Busy) => Err(busy().into()),
            // Its endpoint could not read the body, and has said so.
            Some(Refused::Long) if matches!(wire, Wire::Oauth | Wire::Access) => Ok((response, charge)),
            Some(Refused::Long) => {
                status::count(method.map_or(grpc::OTHER, |method| method.name), "malformed", started);
                let status = Status::out_of_range(format!("the message is too long: it may have {message} bytes"));
                Ok((status.into_http(), charge))
            }
            None => Ok((response, charge)),
        }
    }
}

/// Whether a caller's request may go on to its body.
fn may_begin(action: Action, caller: &Caller) -> Result<(), Denial> {
    // A user's token is in the body: until that is read, a user is a stranger.
    if matches!(caller, Caller::Stranger) && access::roles(action).contains(&Role::User) {
        return Ok(());
    }
    access::check(action, caller)
}

fn busy() -> Denial {
    Denial::new(Kind::Exhausted, "BUSY", "too many requests are being read, or too many streams are open: ask again in a moment")
}
