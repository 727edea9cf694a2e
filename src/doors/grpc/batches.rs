//! The service of batches: many spawns in one call.

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::spawn_batch_response as batch_response;
use tonic::{Request, Response, Status};

use super::identities::spawn_request;
use super::message::{bundle_unless, spawn_response};
use super::server::batches_server::Batches;
use super::{Door, methods};
use crate::acts::spawn;
use crate::caller::Origin;
use crate::denial::Denial;
use crate::doors::peer::Peer;
use crate::doors::status;

#[tonic::async_trait]
impl Batches for Door {
    type SpawnStream = tokio_stream::wrappers::ReceiverStream<Result<v1::SpawnBatchResponse, Status>>;

    async fn spawn(&self, request: Request<v1::SpawnBatchRequest>) -> Result<Response<Self::SpawnStream>, Status> {
        const METHOD: &str = methods::SPAWN_BATCH.name;
        let (patience, peer) = (self.patience, request.extensions().get::<Peer>().cloned());
        self.run(methods::SPAWN_BATCH, request, move |issuer, caller, r| async move {
            let mut template = r.template.ok_or_else(|| Denial::malformed("BATCH_MALFORMED", "give a template"))?;
            let without = template.ticket || template.keyless;
            if !template.csr.is_empty() || (r.count > 0) != without || without != r.csrs.is_empty() {
                let message =
                    "give either `csrs`, or a template that asks for tickets or for no keys, with a `count`; never a csr in the template";
                return Err(Denial::malformed("BATCH_MALFORMED", message).into());
            }
            // The first request stands for all while the template is read.
            template.csr = r.csrs.first().cloned().unwrap_or_default();
            let known = template.known_bundle;
            let (spawn, keys) = spawn_request(template, Peer::proved(peer.as_ref()))?;
            let count = usize::try_from(r.count).unwrap_or(usize::MAX);
            let keys = match keys {
                spawn::Keys::Csrs(_) => spawn::Keys::Csrs(r.csrs),
                spawn::Keys::Without(_) => spawn::Keys::Without(count),
            };
            let mut many = spawn::spawn_many(&issuer, caller, spawn, keys).await?;
            let (answer, answers) = tokio::sync::mpsc::channel(64);
            // The bundle is sent with the first answer only.
            let mut shared = bundle_unless(&issuer, known);
            let origin = Origin::current();
            tokio::spawn(async move {
                loop {
                    let next = tokio::select! {
                        next = many.next(&issuer) => next,
                        // A hang-up ends the batch at once. Noticing it at the next answer would let more of the batch be recorded.
                        () = answer.closed() => return,
                    };
                    let Some((index, spawned)) = next else { return };
                    let result = match spawned {
                        Ok(spawned) => {
                            let bundle = shared.take();
                            batch_response::Result::Spawned(v1::SpawnResponse { bundle, ..spawn_response(&issuer, spawned) })
                        }
                        Err(no) => {
                            if let Some(origin) = &origin {
                                issuer.history.denied(origin, &no);
                            }
                            batch_response::Result::Denied(status::proto(&status::of(&no, METHOD).0))
                        }
                    };
                    let index = u32::try_from(index).unwrap_or(u32::MAX);
                    // If the client has hung up or does not read, the part of the batch that is not in a commit yet is dropped.
                    let sent = answer.send(Ok(v1::SpawnBatchResponse { index, result: Some(result) }));
                    if !matches!(tokio::time::timeout(patience, sent).await, Ok(Ok(()))) {
                        return;
                    }
                }
            });
            Ok(tokio_stream::wrappers::ReceiverStream::new(answers))
        })
        .await
    }
}
