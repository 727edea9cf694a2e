//! The gate before the router: from the headers and the peer it decides whether a request may begin, before the body is read.

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

/// The gate of a router. Clones share its budget.
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

/// A peer without an identity.
pub(super) struct Stranger {
    /// The activity on its connection.
    pub(super) activity: Arc<Activity>,
}

/// The format of a refusal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wire {
    /// As a gRPC status.
    Grpc,
    /// As a status of HTTP.
    Http,
    /// As the errors of RFC 6749, on any listener.
    Oauth,
    /// As the errors of the access endpoints, on any listener.
    Access,
}

/// Methods for strangers whose responses are streams without an end.
const STREAMS: [&str; 4] = [
    "/mayfly.v1.Bundles/WatchBundle",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

type Request = http::Request<Incoming>;

impl Gate {
    /// A gate for `router`, with a budget of its own. Strangers may keep `streams` streams open. `issuer` is `None` if everybody
    /// may use the router.
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
                // The timeout includes reading the body, so that a body that never arrives does not hold the stream for longer.
                let answer = async {
                    // The charge for a stranger's request is held until its response has been read.
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
        // T94: the caller and the method are known from the headers, so a caller without access is refused before any of the body
        // is read. The same is checked again when the body has arrived, because time has passed.
        if let (Some(issuer), Some(method)) = (&self.issuer, method) {
            let person = peer::person(issuer, peer, request.headers()).await?;
            let caller = peer::caller(issuer, Some(peer), person.as_ref(), method.action).await?;
            // The token is verified once for a request. The door judges again which role it gives.
            if let Some(person) = person {
                request.extensions_mut().insert(Person(Arc::new(person)));
            }
            let begins = may_begin(method.action, &caller);
            if begins.is_err() {
                // Noted for the history. The door determines the caller again, and notes that one.
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
            // The endpoint could not read the body, and its response says so.
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

/// Checks that the body of a caller's request may be read.
fn may_begin(action: Action, caller: &Caller) -> Result<(), Denial> {
    // A user's token may be in the body, so a stranger may begin a request that users may make.
    if matches!(caller, Caller::Stranger) && access::roles(action).contains(&Role::User) {
        return Ok(());
    }
    access::check(action, caller)
}

fn busy() -> Denial {
    Denial::new(Kind::Exhausted, "BUSY", "too many requests are being read, or too many streams are open: ask again in a moment")
}
