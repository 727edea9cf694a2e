//! The service of bundles: our own for anybody, and those of foreign trust domains for callers with a certificate.

use std::pin::Pin;
use std::sync::Arc;

use mayfly_agent::api::v1;
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::message::{self, bundle};
use super::server::bundles_server::Bundles;
use super::{Door, methods};
use crate::acts::Issuer;
use crate::authority::Crl;
use crate::caller::Caller;
use crate::denial::No;
use crate::state::authority::{Kind, Status as Standing};

#[tonic::async_trait]
impl Bundles for Door {
    async fn get_bundle(&self, request: Request<v1::GetBundleRequest>) -> Result<Response<v1::GetBundleResponse>, Status> {
        self.run(methods::GET_BUNDLE, request, |issuer, caller, _| async move {
            Ok(v1::GetBundleResponse { bundle: Some(bundle(&issuer)), foreign: foreign(&issuer, &caller) })
        })
        .await
    }

    async fn get_crls(&self, request: Request<v1::GetCrlsRequest>) -> Result<Response<v1::GetCrlsResponse>, Status> {
        self.run(methods::GET_CRLS, request, |issuer, _, _| async move {
            let lists = issuer.crls.newest().await?;
            let crl = |crl: &Crl| v1::Crl { issuer: crl.issuer.to_string(), der: crl.der.clone() };
            let expires_at = Some(message::timestamp(lists.expires_at));
            Ok(v1::GetCrlsResponse { crls: lists.crls.iter().map(crl).collect(), revision: lists.revision, expires_at })
        })
        .await
    }

    type WatchBundleStream = Pin<Box<dyn Stream<Item = Result<v1::WatchBundleResponse, Status>> + Send>>;

    async fn watch_bundle(&self, request: Request<v1::WatchBundleRequest>) -> Result<Response<Self::WatchBundleStream>, Status> {
        let stop = self.stop.clone();
        self.run(methods::WATCH_BUNDLE, request, |issuer, caller, _| async move {
            let (answer, answers) = mpsc::channel(1);
            tokio::spawn(tell(issuer, caller, answer, stop));
            let stream: Self::WatchBundleStream = Box::pin(ReceiverStream::new(answers));
            Ok::<_, No>(stream)
        })
        .await
    }
}

/// Sends the bundles, and each change of them, until the client hangs up or the issuer stops.
async fn tell(
    issuer: Arc<Issuer>,
    caller: Caller,
    answer: mpsc::Sender<Result<v1::WatchBundleResponse, Status>>,
    mut stop: watch::Receiver<bool>,
) {
    let (mut published, mut changes) = (issuer.publisher.watch(), issuer.foreign.changes());
    loop {
        // ORDER: before the bundles are read, so that a change in between is sent in the next round.
        published.mark_unchanged();
        changes.mark_unchanged();
        let message = v1::WatchBundleResponse {
            bundle: Some(bundle(&issuer)),
            foreign: foreign(&issuer, &caller),
            x509_intermediates: intermediates(&issuer),
        };
        // For a client that does not read, one message is buffered; after that it gets only the latest.
        if answer.send(Ok(message)).await.is_err() {
            return;
        }
        tokio::select! {
            changed = published.changed() => if changed.is_err() { return },
            // Strangers learn nothing of foreign bundles, not even when they change.
            Ok(()) = changes.changed(), if caller != Caller::Stranger => {}
            () = answer.closed() => return,
            () = async { drop(stop.wait_for(|stop| *stop).await) } => {
                // Clients stop for good at CANCELLED and at OK.
                let _ = answer.try_send(Err(Status::unavailable("the issuer is stopping: connect again")));
                return;
            }
        }
    }
}

/// The certificates of the authorities that sign X.509-SVIDs, DER. Nothing that a tainted one signed is valid.
fn intermediates(issuer: &Issuer) -> Vec<Vec<u8>> {
    let published = issuer.publisher.now();
    let valid = published.authorities.of(Kind::X509).filter(|slot| slot.status != Standing::Tainted);
    valid.map(|slot| slot.public.clone()).collect()
}

/// Our own keys are public. Only authenticated callers learn which other trust domains we trust.
fn foreign(issuer: &Issuer, caller: &Caller) -> Vec<v1::ForeignBundle> {
    if *caller == Caller::Stranger {
        return Vec::new();
    }
    let told = issuer.foreign.told().into_iter();
    told.map(|(name, newest)| v1::ForeignBundle { trust_domain: name.to_string(), spiffe_json: newest.text().to_vec() }).collect()
}
