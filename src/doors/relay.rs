//! The feed of a relay: it forwards the issuer's verified feed to verifiers. It signs nothing, and knows no names of agents or
//! users.

use std::pin::Pin;
use std::sync::Arc;

use mayfly_agent::api::v1;
use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::grpc::revocations::{Answer, Who, resume, subscribe};
use super::grpc::server::revocations_server::{Revocations, RevocationsServer};
use super::status;
use crate::publish::feed::{Feed, Resumed};

/// The method's label in metrics.
const METHOD: &str = "Revocations/WatchCuts";

struct Door {
    feed: Arc<Feed>,
    stop: watch::Receiver<bool>,
}

/// The service over a forwarded feed. Streams end at `stop`.
pub fn routes(feed: Arc<Feed>, stop: watch::Receiver<bool>) -> tonic::service::Routes {
    tonic::service::Routes::new(RevocationsServer::new(Door { feed, stop }))
}

#[tonic::async_trait]
impl Revocations for Door {
    type WatchCutsStream = Pin<Box<dyn Stream<Item = Answer> + Send>>;

    async fn watch_cuts(&self, request: Request<v1::WatchCutsRequest>) -> Result<Response<Self::WatchCutsStream>, Status> {
        // T69: the relay answers only after it has a heartbeat of the issuer.
        if !self.feed.has_heartbeat() {
            return Err(Status::unavailable("the relay has no heartbeat of the issuer yet: try again"));
        }
        let from = match resume(&self.feed, request.get_ref()).map_err(|denial| status::of(&denial.into(), METHOD).0)? {
            Resumed::After(cursor) => Some(cursor),
            // A verifier that was connected to another relay may know more than this relay.
            Resumed::Snapshot | Resumed::Unknown(_) => None,
        };
        let stream =
            subscribe(&self.feed, Who::default(), request.into_inner(), from, (self.stop.clone(), std::future::pending()));
        Ok(Response::new(Box::pin(stream)))
    }

    async fn list_cuts(&self, _: Request<v1::ListCutsRequest>) -> Result<Response<v1::ListCutsResponse>, Status> {
        Err(Status::unimplemented("a relay does not have the names of revoked subjects: ask the issuer"))
    }

    async fn confirm_cuts(&self, _: Request<v1::ConfirmCutsRequest>) -> Result<Response<v1::ConfirmCutsResponse>, Status> {
        Err(Status::unimplemented("a relay asks nobody to confirm: the issuer does"))
    }

    async fn list_subscribers(
        &self,
        _: Request<v1::ListSubscribersRequest>,
    ) -> Result<Response<v1::ListSubscribersResponse>, Status> {
        Err(Status::unimplemented("a relay tells nobody who follows it: ask the issuer about its own"))
    }
}
