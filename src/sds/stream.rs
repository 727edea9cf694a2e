//! The service: a single answer, and a stream that sends secrets again when they change.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Extensions, Request, Response, Status, Streaming};

use super::secrets::{Material, TYPE_URL, has_validator};
use crate::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use crate::envoy::service::secret::v3::secret_discovery_service_server::{SecretDiscoveryService, SecretDiscoveryServiceServer};

/// Largest request, in bytes: an Envoy lists all of its extensions in each.
const MESSAGE: usize = 1024 * 1024;
/// Most streams at once: an Envoy has one for each secret of its configuration.
const STREAMS: usize = 256;
/// How long a stream may be open before its first request.
const FIRST: Duration = Duration::from_secs(10);

/// Whether the client of a request may have the private key, from the extensions that the listener has set.
pub type Admit = fn(&Extensions) -> bool;

/// The secrets as they are now. `None` means that there is no identity any more; when the sender is dropped, streams end.
#[derive(Clone)]
pub struct Sds {
    told: watch::Receiver<Option<Arc<Material>>>,
    admit: Admit,
    room: Arc<Semaphore>,
}

impl Sds {
    /// Serves the clients that `admit` accepts.
    pub fn new(told: watch::Receiver<Option<Arc<Material>>>, admit: Admit) -> Sds {
        Sds { told, admit, room: Arc::new(Semaphore::new(STREAMS)) }
    }

    fn admit<T>(&self, request: &Request<T>) -> Result<(), Status> {
        if (self.admit)(request.extensions()) { Ok(()) } else { Err(no_identity()) }
    }
}

/// The service for a router.
pub fn service(sds: Sds) -> SecretDiscoveryServiceServer<impl SecretDiscoveryService> {
    SecretDiscoveryServiceServer::new(sds).max_decoding_message_size(MESSAGE)
}

#[tonic::async_trait]
impl SecretDiscoveryService for Sds {
    type StreamSecretsStream = Pin<Box<dyn Stream<Item = Result<DiscoveryResponse, Status>> + Send>>;

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        self.admit(&request)?;
        let full = || Status::resource_exhausted(format!("{STREAMS} streams of secrets are open"));
        let place = Arc::clone(&self.room).try_acquire_owned().map_err(|_| full())?;
        let (answer, answers) = mpsc::channel(1);
        let (told, asks) = (self.told.clone(), request.into_inner());
        tokio::spawn(async move {
            tokio::select! {
                end = tell(told, asks, &answer) => {
                    if let Err(end) = end {
                        let _ = answer.send(Err(end)).await;
                    }
                }
                () = answer.closed() => {}
            }
            drop(place);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn fetch_secrets(&self, request: Request<DiscoveryRequest>) -> Result<Response<DiscoveryResponse>, Status> {
        self.admit(&request)?;
        let request = request.into_inner();
        let material = self.told.borrow().clone().ok_or_else(no_identity)?;
        let mut asked = Asked::default();
        asked.take(request)?;
        Ok(Response::new(asked.answer(&material, String::new())?))
    }
}

/// The names that a client has asked for so far.
#[derive(Default)]
struct Asked {
    names: Vec<String>,
    /// Whether it has the SPIFFE validator. Later requests need not repeat it.
    spiffe: bool,
}

impl Asked {
    fn take(&mut self, request: DiscoveryRequest) -> Result<(), Status> {
        if !request.type_url.is_empty() && request.type_url != TYPE_URL {
            return Err(Status::invalid_argument(format!("only `{TYPE_URL}` is served here")));
        }
        if let Some(node) = &request.node {
            self.spiffe = has_validator(node);
        }
        self.names = request.resource_names;
        Ok(())
    }

    fn answer(&self, material: &Material, nonce: String) -> Result<DiscoveryResponse, Status> {
        let resources = material.secrets(&self.names, self.spiffe)?;
        Ok(DiscoveryResponse { version_info: material.version().to_owned(), resources, type_url: TYPE_URL.into(), nonce })
    }
}

/// Answers the requests of one stream, and sends every change of the secrets that it asked for, until one of the ends closes it.
async fn tell(
    mut told: watch::Receiver<Option<Arc<Material>>>,
    mut asks: Streaming<DiscoveryRequest>,
    answer: &mpsc::Sender<Result<DiscoveryResponse, Status>>,
) -> Result<(), Status> {
    let first = tokio::time::timeout(FIRST, asks.message()).await;
    let Some(first) = first.map_err(|_| Status::deadline_exceeded("no secret was asked for"))?? else { return Ok(()) };
    let mut asked = Asked::default();
    asked.take(first)?;
    let mut sent = 0u64;
    loop {
        let material = told.borrow_and_update().clone().ok_or_else(no_identity)?;
        sent += 1;
        let next = asked.answer(&material, sent.to_string())?;
        drop(material);
        // A slow reader gets only the last of several changes.
        if answer.send(Ok(next)).await.is_err() {
            return Ok(());
        }
        loop {
            tokio::select! {
                biased;
                changed = told.changed() => {
                    changed.map_err(|_| Status::unavailable("the secrets are told no longer: connect again"))?;
                    break;
                }
                request = asks.message() => {
                    let Some(request) = request? else { return Ok(()) };
                    // The client acknowledges an outdated answer.
                    if request.response_nonce != sent.to_string() {
                        continue;
                    }
                    if let Some(error) = &request.error_detail {
                        let why: String = error.message.chars().take(300).flat_map(char::escape_debug).collect();
                        metrics::counter!("mayfly_sds_rejected_total").increment(1);
                        tracing::error!(%why, "an Envoy could not use a secret, and goes on with the one before");
                    }
                    let same = request.resource_names == asked.names;
                    asked.take(request)?;
                    if !same {
                        break;
                    }
                }
            }
        }
    }
}

// The text that the Workload API uses for this.
fn no_identity() -> Status {
    Status::permission_denied("no identity issued")
}
