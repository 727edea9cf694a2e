//! A Workload API on a socket of its own that says what a test tells it to, for as long as the test likes.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::IntoResponse as _;
use mayfly_agent::api::workload as api;
use mayfly_agent::workload::{Endpoint, Source, WorkloadError};
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::{UnboundedReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

type Queue<T> = Mutex<VecDeque<T>>;
pub(crate) type Told<T> = UnboundedSender<Result<T, Status>>;
type Stream<T> = Result<UnboundedReceiver<Result<T, Status>>, Status>;

/// A call that was made.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) path: String,
    /// Every value of `workload.spiffe.io`.
    pub(crate) header: Vec<String>,
    pub(crate) at: Instant,
}

#[derive(Default)]
struct Script {
    calls: Mutex<Vec<Call>>,
    svids: Queue<Stream<api::X509svidResponse>>,
    jwt_bundles: Queue<Stream<api::JwtBundlesResponse>>,
    tokens: Queue<Result<api::JwtsvidResponse, Status>>,
    verdicts: Queue<Result<api::ValidateJwtsvidResponse, Status>>,
}

pub(crate) struct Fake {
    dir: tempfile::TempDir,
    script: Arc<Script>,
    server: Option<Runtime>,
}

impl Fake {
    pub(crate) fn start() -> Fake {
        let mut fake = Fake { dir: tempfile::tempdir().unwrap(), script: Arc::default(), server: None };
        fake.listen();
        fake
    }

    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("api.sock")
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::parse(&format!("unix://{}", self.path().display())).unwrap()
    }

    pub(crate) async fn open(&self, patience: Duration) -> Result<Source, WorkloadError> {
        Source::open(&self.endpoint(), patience).await
    }

    /// A source with this as its first message, and the way to the next ones.
    pub(crate) async fn source(&self, first: api::X509svidResponse) -> (Source, Told<api::X509svidResponse>) {
        let told = self.svids();
        told.send(Ok(first)).unwrap();
        (self.open(Duration::from_secs(5)).await.unwrap(), told)
    }

    /// The next stream of SVIDs. It ends with OK when the sender is dropped.
    pub(crate) fn svids(&self) -> Told<api::X509svidResponse> {
        let (told, stream) = unbounded_channel();
        self.script.svids.lock().unwrap().push_back(Ok(stream));
        told
    }

    /// The next call for SVIDs fails.
    pub(crate) fn no_svids(&self, status: Status) {
        self.script.svids.lock().unwrap().push_back(Err(status));
    }

    pub(crate) fn jwt_bundles(&self) -> Told<api::JwtBundlesResponse> {
        let (told, stream) = unbounded_channel();
        self.script.jwt_bundles.lock().unwrap().push_back(Ok(stream));
        told
    }

    pub(crate) fn token(&self, answer: Result<api::JwtsvidResponse, Status>) {
        self.script.tokens.lock().unwrap().push_back(answer);
    }

    pub(crate) fn verdict(&self, answer: Result<api::ValidateJwtsvidResponse, Status>) {
        self.script.verdicts.lock().unwrap().push_back(answer);
    }

    /// The calls of one method, so far.
    pub(crate) fn calls(&self, method: &str) -> Vec<Call> {
        let calls = self.script.calls.lock().unwrap();
        calls.iter().filter(|call| call.path.ends_with(method)).cloned().collect()
    }

    /// Nobody listens any more, and every connection breaks.
    pub(crate) fn stop(&mut self) {
        self.server.take().unwrap().shutdown_background();
        std::fs::remove_file(self.path()).unwrap();
    }

    /// Of its own runtime, so that it breaks whole.
    pub(crate) fn listen(&mut self) {
        let server = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = std::os::unix::net::UnixListener::bind(self.path()).unwrap();
        listener.set_nonblocking(true).unwrap();
        let script = Arc::clone(&self.script);
        server.spawn(async move { serve(UnixListener::from_std(listener).unwrap(), script).await });
        self.server = Some(server);
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown_background();
        }
    }
}

async fn serve(listener: UnixListener, script: Arc<Script>) {
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let script = Arc::clone(&script);
        async move { Ok::<_, Infallible>(answer(&script, request).await) }
    });
    let routes = tonic::service::Routes::from(axum::Router::new().fallback_service(service));
    let server = tonic::transport::Server::builder().add_routes(routes);
    server.serve_with_incoming(UnixListenerStream::new(listener)).await.unwrap();
}

async fn answer(script: &Script, request: http::Request<Body>) -> axum::response::Response {
    let path = request.uri().path().to_owned();
    let header = request.headers().get_all("workload.spiffe.io").iter().map(|v| v.to_str().unwrap().to_owned()).collect();
    script.calls.lock().unwrap().push(Call { path: path.clone(), header, at: Instant::now() });
    match path.as_str() {
        "/SpiffeWorkloadAPI/FetchX509SVID" => streamed::<api::X509svidRequest, _>(pop(&script.svids), request).await,
        "/SpiffeWorkloadAPI/FetchJWTBundles" => streamed::<api::JwtBundlesRequest, _>(pop(&script.jwt_bundles), request).await,
        "/SpiffeWorkloadAPI/FetchJWTSVID" => once::<api::JwtsvidRequest, _>(pop(&script.tokens), request).await,
        "/SpiffeWorkloadAPI/ValidateJWTSVID" => once::<api::ValidateJwtsvidRequest, _>(pop(&script.verdicts), request).await,
        _ => once::<(), ()>(Some(Err(Status::unimplemented("there is no such method"))), request).await,
    }
}

fn pop<T>(queue: &Queue<T>) -> Option<T> {
    queue.lock().unwrap().pop_front()
}

/// Without a script the stream stays open, and says nothing.
async fn streamed<I, O>(stream: Option<Stream<O>>, request: http::Request<Body>) -> axum::response::Response
where
    I: prost::Message + Default + 'static,
    O: prost::Message + Default + 'static,
{
    let stream = Arc::new(Mutex::new(stream));
    let handler = tower::service_fn(move |_: Request<I>| {
        let stream = stream.lock().unwrap().take();
        async move {
            let stream = stream.unwrap_or_else(|| {
                let (told, stream) = unbounded_channel();
                tokio::spawn(async move { told.closed().await });
                Ok(stream)
            });
            stream.map(|stream| Response::new(UnboundedReceiverStream::new(stream)))
        }
    });
    tonic::server::Grpc::new(ProstCodec::<O, I>::default()).server_streaming(handler, request).await.into_response()
}

async fn once<I, O>(answer: Option<Result<O, Status>>, request: http::Request<Body>) -> axum::response::Response
where
    I: prost::Message + Default + 'static,
    O: prost::Message + Default + 'static,
{
    let answer = Arc::new(Mutex::new(answer));
    let handler = tower::service_fn(move |_: Request<I>| {
        let answer = answer.lock().unwrap().take();
        async move { answer.unwrap_or_else(|| Err(Status::unavailable("nothing to say"))).map(Response::new) }
    });
    tonic::server::Grpc::new(ProstCodec::<O, I>::default()).unary(handler, request).await.into_response()
}
