//! A SPIRE server and its agent, as far as the load tester sees them: they sign nothing, and refuse some.
#![expect(unreachable_pub, reason = "a module of tests")]

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};

#[rustfmt::skip]
#[allow(dead_code, clippy::all, clippy::pedantic, clippy::restriction, unreachable_pub, unused_qualifications, reason = "generated")]
mod api {
    include!(concat!(env!("OUT_DIR"), "/server/api.rs"));
}

use api::spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer};
use api::spire::api::server::agent::v1::agent_server::{Agent, AgentServer};
use api::spire::api::server::agent::v1::{ListAgentsRequest, ListAgentsResponse};
use api::spire::api::server::bundle::v1::GetBundleRequest;
use api::spire::api::server::bundle::v1::bundle_server::{Bundle, BundleServer};
use api::spire::api::server::entry::v1::entry_server::{Entry, EntryServer};
use api::spire::api::server::entry::v1::{
    BatchCreateEntryRequest, BatchCreateEntryResponse, BatchDeleteEntryRequest, BatchDeleteEntryResponse,
    batch_create_entry_response, batch_delete_entry_response,
};
use api::spire::api::server::logger::v1::GetLoggerRequest;
use api::spire::api::server::logger::v1::logger_server::{Logger, LoggerServer};
use api::spire::api::server::svid::v1::svid_server::{Svid, SvidServer};
use api::spire::api::server::svid::v1::{MintJwtsvidRequest, MintJwtsvidResponse, MintX509svidRequest, MintX509svidResponse};
use api::spire::api::types;

/// How long after the server its agent knows.
pub const LATE: Duration = Duration::from_millis(80);
/// Of so many calls that are refused now and then, one is.
const REFUSED: u64 = 5;

const TRUST_DOMAIN: &str = "fake.example";
const AGENT: &str = "/spire/agent/fake";

/// As the load tester is to count a refusal of a method.
pub fn outcome(method: &str) -> &'static str {
    // Told as an internal error, and as a lack of resources.
    if method == "Entry/BatchCreateEntry" { "fault" } else { "denied" }
}

/// Both, on sockets in a folder of their own; they end with the test.
pub struct Spire {
    fake: Fake,
    dir: tempfile::TempDir,
    // Held as long as they are to run.
    _runtime: tokio::runtime::Runtime,
}

#[derive(Clone, Default)]
struct Fake(Arc<Shared>);

#[derive(Default)]
struct Shared {
    calls: Mutex<BTreeMap<(String, String), u64>>,
    entries: Mutex<BTreeMap<String, types::Entry>>,
    next: AtomicU64,
    // SPIFFE IDs that the agent's workload has.
    held: watch::Sender<Vec<String>>,
}

impl Spire {
    pub fn start() -> Spire {
        let (fake, dir) = (Fake::default(), tempfile::tempdir().unwrap());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _inside = runtime.enter();
        let listen = |name: &str| UnixListenerStream::new(UnixListener::bind(dir.path().join(name)).unwrap());
        let server = Server::builder()
            .add_service(SvidServer::new(fake.clone()))
            .add_service(EntryServer::new(fake.clone()))
            .add_service(AgentServer::new(fake.clone()))
            .add_service(BundleServer::new(fake.clone()))
            .add_service(LoggerServer::new(fake.clone()));
        tokio::spawn(server.serve_with_incoming(listen("server.sock")));
        let agent = Server::builder().add_service(SpiffeWorkloadApiServer::new(fake.clone()));
        tokio::spawn(agent.serve_with_incoming(listen("agent.sock")));
        Spire { fake, dir, _runtime: runtime }
    }

    pub fn socket(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// By method and outcome.
    pub fn calls(&self) -> BTreeMap<(String, String), u64> {
        self.fake.0.calls.lock().unwrap().clone()
    }

    pub fn entries(&self) -> usize {
        self.fake.0.entries.lock().unwrap().len()
    }
}

impl Fake {
    fn count(&self, method: &str, outcome: &str) {
        *self.0.calls.lock().unwrap().entry((method.to_owned(), outcome.to_owned())).or_default() += 1;
    }

    /// Counts a call that is refused now and then: whether this one is.
    fn refuses(&self, method: &str) -> bool {
        let mut calls = self.0.calls.lock().unwrap();
        let before: u64 = calls.iter().filter(|((name, _), _)| name == method).map(|(_, count)| count).sum();
        let refused = before % REFUSED == REFUSED - 1;
        let outcome = if refused { outcome(method) } else { "ok" };
        *calls.entry((method.to_owned(), outcome.to_owned())).or_default() += 1;
        refused
    }

    /// The agent knows a little later.
    fn tell(&self) {
        let text = |id: &types::Spiffeid| format!("spiffe://{}{}", id.trust_domain, id.path);
        let of_agent = |entry: &&types::Entry| entry.parent_id.as_ref().is_some_and(|parent| parent.path == AGENT);
        let entries = self.0.entries.lock().unwrap();
        let held = entries.values().filter(of_agent).filter_map(|entry| Some(text(entry.spiffe_id.as_ref()?))).collect();
        let shared = Arc::clone(&self.0);
        tokio::spawn(async move {
            tokio::time::sleep(LATE).await;
            shared.held.send_if_modified(|now| {
                let differs = *now != held;
                *now = held;
                differs
            });
        });
    }
}

#[tonic::async_trait]
impl Svid for Fake {
    async fn mint_x509svid(&self, request: Request<MintX509svidRequest>) -> Result<Response<MintX509svidResponse>, Status> {
        self.count("SVID/MintX509SVID", "ok");
        // What a real one demands: a request with the SPIFFE ID as a URI.
        let uri = format!("spiffe://{TRUST_DOMAIN}/mayfly-loadtest");
        let named = request.into_inner().csr.windows(uri.len()).any(|part| part == uri.as_bytes());
        let cert_chain = if named { vec![b"certificate".to_vec()] } else { vec![] };
        Ok(Response::new(MintX509svidResponse { svid: Some(types::X509svid { cert_chain, ..Default::default() }) }))
    }

    async fn mint_jwtsvid(&self, request: Request<MintJwtsvidRequest>) -> Result<Response<MintJwtsvidResponse>, Status> {
        if self.refuses("SVID/MintJWTSVID") {
            return Err(Status::resource_exhausted("enough"));
        }
        let token = request.into_inner().audience.concat();
        Ok(Response::new(MintJwtsvidResponse { svid: Some(types::Jwtsvid { token, ..Default::default() }) }))
    }
}

#[tonic::async_trait]
impl Entry for Fake {
    async fn batch_create_entry(
        &self,
        request: Request<BatchCreateEntryRequest>,
    ) -> Result<Response<BatchCreateEntryResponse>, Status> {
        let entries = request.into_inner().entries;
        // Neither the load tester's preparations nor its turns with the agent go wrong.
        let single = entries.len() == 1 && entries[0].selectors[0].r#type == "mayfly";
        let refused = single && self.refuses("Entry/BatchCreateEntry");
        if !single {
            self.count("Entry/BatchCreateEntry", "ok");
        }
        let create = |mut entry: types::Entry| {
            if refused {
                let status = types::Status { code: Code::Internal.into(), message: "the store is full".into() };
                return batch_create_entry_response::Result { status: Some(status), entry: None };
            }
            let mut all = self.0.entries.lock().unwrap();
            entry.id = format!("entry-{}", self.0.next.fetch_add(1, Ordering::Relaxed));
            all.insert(entry.id.clone(), entry.clone());
            batch_create_entry_response::Result { status: Some(types::Status::default()), entry: Some(entry) }
        };
        let results = entries.into_iter().map(create).collect();
        self.tell();
        Ok(Response::new(BatchCreateEntryResponse { results }))
    }

    async fn batch_delete_entry(
        &self,
        request: Request<BatchDeleteEntryRequest>,
    ) -> Result<Response<BatchDeleteEntryResponse>, Status> {
        self.count("Entry/BatchDeleteEntry", "ok");
        let delete = |id: String| {
            let gone = self.0.entries.lock().unwrap().remove(&id);
            let code = if gone.is_some() { Code::Ok } else { Code::NotFound };
            let status = types::Status { code: code.into(), message: String::new() };
            batch_delete_entry_response::Result { status: Some(status), id }
        };
        let results = request.into_inner().ids.into_iter().map(delete).collect();
        self.tell();
        Ok(Response::new(BatchDeleteEntryResponse { results }))
    }
}

#[tonic::async_trait]
impl Agent for Fake {
    async fn list_agents(&self, _: Request<ListAgentsRequest>) -> Result<Response<ListAgentsResponse>, Status> {
        self.count("Agent/ListAgents", "ok");
        let agent = |path: &str, banned| {
            let id = types::Spiffeid { trust_domain: TRUST_DOMAIN.into(), path: path.into() };
            types::Agent { id: Some(id), banned, ..Default::default() }
        };
        Ok(Response::new(ListAgentsResponse { agents: vec![agent("/spire/agent/banned", true), agent(AGENT, false)] }))
    }
}

#[tonic::async_trait]
impl Bundle for Fake {
    async fn get_bundle(&self, _: Request<GetBundleRequest>) -> Result<Response<types::Bundle>, Status> {
        self.count("Bundle/GetBundle", "ok");
        Ok(Response::new(types::Bundle { trust_domain: TRUST_DOMAIN.into() }))
    }
}

#[tonic::async_trait]
impl Logger for Fake {
    async fn get_logger(&self, _: Request<GetLoggerRequest>) -> Result<Response<types::Logger>, Status> {
        Ok(Response::new(types::Logger { current_level: 1 }))
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl SpiffeWorkloadApi for Fake {
    type FetchX509SVIDStream = Answers<api::X509svidResponse>;
    type FetchX509BundlesStream = Answers<api::X509BundlesResponse>;
    type FetchJWTBundlesStream = Answers<api::JwtBundlesResponse>;
    type FetchWITSVIDStream = Answers<api::WitsvidResponse>;
    type FetchWITBundlesStream = Answers<api::WitBundlesResponse>;

    /// What the workload has, at once and after each change; when it has nothing any more that is the end.
    async fn fetch_x509svid(
        &self,
        request: Request<api::X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        if request.metadata().get("workload.spiffe.io").is_none_or(|value| value != "true") {
            return Err(Status::invalid_argument("not a workload"));
        }
        let mut held = self.0.held.subscribe();
        let (answers, stream) = mpsc::channel(1);
        tokio::spawn(async move {
            loop {
                let ids = held.borrow_and_update().clone();
                let svid = |spiffe_id| api::X509svid { spiffe_id, ..Default::default() };
                let answer = match ids.is_empty() {
                    true => Err(Status::permission_denied("no identity issued")),
                    false => Ok(api::X509svidResponse { svids: ids.into_iter().map(svid).collect(), ..Default::default() }),
                };
                let end = answer.is_err();
                if answers.send(answer).await.is_err() || end || held.changed().await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn fetch_x509_bundles(
        &self,
        _: Request<api::X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn fetch_jwtsvid(&self, _: Request<api::JwtsvidRequest>) -> Result<Response<api::JwtsvidResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn fetch_jwt_bundles(
        &self,
        _: Request<api::JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn validate_jwtsvid(
        &self,
        _: Request<api::ValidateJwtsvidRequest>,
    ) -> Result<Response<api::ValidateJwtsvidResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn fetch_witsvid(&self, _: Request<api::WitsvidRequest>) -> Result<Response<Self::FetchWITSVIDStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn fetch_wit_bundles(
        &self,
        _: Request<api::WitBundlesRequest>,
    ) -> Result<Response<Self::FetchWITBundlesStream>, Status> {
        Err(Status::unimplemented("not here"))
    }
}
