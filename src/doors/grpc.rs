//! The gRPC services, over TLS and over the operator socket: each method decodes its request, calls an act and encodes the answer.

mod approvals;
mod authorities;
mod batches;
mod budgets;
mod bundles;
mod decisions;
mod history;
mod identities;
mod inspection;
pub mod message;
mod methods;
mod operations;
mod policies;
pub(super) mod revocations;
mod targets;
mod tokens;
mod until;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status};

use super::peer::{self, Peer, Person};
use super::{status, told};
use crate::acts::{Issuer, user};
use crate::caller::{Caller, Origin};
use crate::denial::{Fault, No};
pub use methods::{METHODS, Method, OTHER, find};
use until::Until;

/// The server traits, generated onto the messages of `mayfly-agent`.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    reason = "generated"
)]
pub(super) mod server {
    include!(concat!(env!("OUT_DIR"), "/mayfly.v1.rs"));
}

use server::approvals_server::ApprovalsServer;
use server::authorities_server::AuthoritiesServer;
use server::batches_server::BatchesServer;
use server::budgets_server::BudgetsServer;
use server::bundles_server::BundlesServer;
use server::decisions_server::DecisionsServer;
use server::history_server::HistoryServer;
use server::identities_server::IdentitiesServer;
use server::inspection_server::InspectionServer;
use server::operations_server::OperationsServer;
use server::policies_server::PoliciesServer;
use server::revocations_server::RevocationsServer;
use server::tokens_server::TokensServer;

/// File descriptors of the API, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/mayfly.bin"));

/// Every service as one router. `message` bounds a request in bytes, `patience` how long the reader of a batch may take
/// for one answer. Streams end when `stop` says so.
pub fn routes(issuer: Arc<Issuer>, message: usize, patience: Duration, stop: watch::Receiver<bool>) -> tonic::service::Routes {
    let door = Arc::new(Door { issuer, patience, stop });
    tonic::service::Routes::new(IdentitiesServer::from_arc(Arc::clone(&door)).max_decoding_message_size(message))
        .add_service(TokensServer::from_arc(Arc::clone(&door)).max_decoding_message_size(message))
        .add_service(ApprovalsServer::from_arc(Arc::clone(&door)).max_decoding_message_size(message))
        .add_service(BatchesServer::from_arc(Arc::clone(&door)).max_decoding_message_size(methods::SPAWN_BATCH.longest(message)))
        .add_service(
            OperationsServer::from_arc(Arc::clone(&door))
                .max_decoding_message_size(methods::COMPARE_CONFIGURATION.longest(message)),
        )
        .add_service(InspectionServer::from_arc(Arc::clone(&door)).max_decoding_message_size(message))
        .add_service(HistoryServer::from_arc(Arc::clone(&door)).max_decoding_message_size(message))
        .add_service(DecisionsServer::from_arc(Arc::clone(&door)).max_decoding_message_size(methods::WHAT_IF.longest(message)))
        .add_service(BundlesServer::from_arc(Arc::clone(&door)).max_decoding_message_size(message))
        .add_service(RevocationsServer::from_arc(Arc::clone(&door)).max_decoding_message_size(message))
        .add_service(BudgetsServer::from_arc(Arc::clone(&door)).max_decoding_message_size(message))
        .add_service(PoliciesServer::from_arc(Arc::clone(&door)).max_decoding_message_size(message))
        .add_service(AuthoritiesServer::from_arc(door).max_decoding_message_size(message))
}

struct Door {
    issuer: Arc<Issuer>,
    patience: Duration,
    stop: watch::Receiver<bool>,
}

impl Door {
    /// The steps of every method: authenticate the caller, check access, act, count, answer.
    async fn run<T, R, F>(
        &self,
        method: Method,
        request: Request<T>,
        act: impl FnOnce(Arc<Issuer>, Caller, T) -> F,
    ) -> Result<Response<R>, Status>
    where
        R: Send + 'static,
        F: Future<Output = Result<R, No>> + Send + 'static,
    {
        let until = Until::of(request.metadata());
        let caller = until.wait(self.caller(method, &request)).await;
        self.run_as(method, until, caller, request, act).await
    }

    /// The same for a method that users call too: their token is in the message.
    async fn run_for<T, R, F>(
        &self,
        method: Method,
        request: Request<T>,
        token: impl Fn(&T) -> &str,
        act: impl FnOnce(Arc<Issuer>, Caller, T) -> F,
    ) -> Result<Response<R>, Status>
    where
        R: Send + 'static,
        F: Future<Output = Result<R, No>> + Send + 'static,
    {
        let until = Until::of(request.metadata());
        let token = token(request.get_ref()).to_owned();
        let caller = async {
            match (self.caller(method, &request).await?, token.as_str()) {
                (caller, "") => Ok(caller),
                (Caller::Stranger, token) => user::themself(&self.issuer, token, method.action).await.map_err(No::from),
                _ => Err(peer::two_callers().into()),
            }
        };
        let caller = until.wait(caller).await;
        self.run_as(method, until, caller, request, act).await
    }

    async fn run_as<T, R, F>(
        &self,
        method: Method,
        until: Until,
        caller: Result<Caller, No>,
        request: Request<T>,
        act: impl FnOnce(Arc<Issuer>, Caller, T) -> F,
    ) -> Result<Response<R>, Status>
    where
        R: Send + 'static,
        F: Future<Output = Result<R, No>> + Send + 'static,
    {
        let started = Instant::now();
        let (peer, origin) = whence(method, &request);
        let result = match caller.and_then(|caller| self.may(method, caller, &origin)) {
            Ok(caller) => {
                // The work runs in a task of its own, so that a panic ends nothing else. It is dropped when the client hangs up;
                // acts that are in a commit by then are completed by the pipeline.
                let work = act(Arc::clone(&self.issuer), caller, request.into_inner());
                let task = AbortOnDropHandle::new(tokio::spawn(Arc::clone(&origin).scope(work)));
                until.wait(async { task.await.unwrap_or_else(|panic| Err(Fault::new("request", panic).into())) }).await
            }
            Err(no) => Err(no),
        };
        self.answer(method, started, (peer.as_ref(), &origin), result)
    }

    /// The same for an act that only enters the pipeline, so it needs no task of its own.
    async fn hand_in<T, R, F>(
        &self,
        method: Method,
        request: Request<T>,
        act: impl FnOnce(Arc<Issuer>, Caller, T) -> F,
    ) -> Result<Response<R>, Status>
    where
        F: Future<Output = Result<R, No>> + Send,
    {
        let started = Instant::now();
        let until = Until::of(request.metadata());
        let (peer, origin) = whence(method, &request);
        let work = async {
            let caller = self.may(method, self.caller(method, &request).await?, &origin)?;
            act(Arc::clone(&self.issuer), caller, request.into_inner()).await
        };
        let result = until.wait(Arc::clone(&origin).scope(work)).await;
        self.answer(method, started, (peer.as_ref(), &origin), result)
    }

    /// Checks that a caller may use a method. The caller is noted for the history in any case.
    fn may(&self, method: Method, caller: Caller, origin: &Origin) -> Result<Caller, No> {
        let _ = origin.caller.set(caller.clone());
        self.issuer.may(method.action, caller)
    }

    async fn caller<T>(&self, method: Method, request: &Request<T>) -> Result<Caller, No> {
        let extensions = request.extensions();
        let person = extensions.get::<Person>().map(|person| &*person.0);
        peer::caller(&self.issuer, extensions.get::<Peer>(), person, method.action).await
    }

    /// Encodes the answer and counts it. Denials, and reads of an operator, are put into the history.
    fn answer<R>(
        &self,
        method: Method,
        started: Instant,
        (peer, origin): (Option<&Peer>, &Origin),
        result: Result<R, No>,
    ) -> Result<Response<R>, Status> {
        let (result, outcome) = match result {
            Ok(answer) => {
                told::answered(&self.issuer, method.action, origin);
                (Ok(Response::new(answer)), "ok")
            }
            Err(no) => {
                told::denied(&self.issuer, peer, origin, &no);
                let (status, outcome) = status::of(&no, method.name);
                (Err(status), outcome)
            }
        };
        status::count(method.name, outcome, started);
        result
    }
}

/// The peer of a request, and the origin that was made when its headers were read.
fn whence<T>(method: Method, request: &Request<T>) -> (Option<Peer>, Arc<Origin>) {
    let peer = request.extensions().get::<Peer>().cloned();
    let made = request.extensions().get::<Arc<Origin>>().cloned();
    let origin = made.unwrap_or_else(|| Peer::origin(peer.as_ref(), method.name));
    (peer, origin)
}
