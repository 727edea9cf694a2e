//! The SPIFFE Workload API for one identity. Clause numbers are those of the table in [`run`](super).

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mayfly_agent::api::workload as api;
use mayfly_agent::identity::{Current, Identity, IdentityError};
use mayfly_agent::revocation::{Following, Freshness, Link, follow};
use mayfly_verify::feed::FeedKey;
use mayfly_verify::{AgentId, BindingOid, Bundle, Reject, TrustDomain, inspect_jwt, verify_jwt};
use tokio::sync::{OnceCell, mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::interceptor::InterceptedService;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::{bundles, claims, secrets};
use crate::sds;

/// The server trait, generated onto the messages of `mayfly-agent`.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    reason = "generated"
)]
mod server {
    include!(concat!(env!("OUT_DIR"), "/_.rs"));
}

use server::spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer};

/// File descriptors for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/workloadapi.bin"));

/// Distinguishes an agent's own identity from others that later versions may add (WA-7).
const HINT: &str = "instance";
/// Most audiences of one token, as at the issuer.
const MAX_AUDIENCES: usize = 16;
/// Longest audience, in bytes, as at the issuer.
const MAX_AUDIENCE: usize = 256;
/// Largest request, in bytes: a token to validate has at most 16 KiB.
const MESSAGE: usize = 64 * 1024;
/// How long to wait for the first heartbeat of the feed, or for the foreign bundles.
const FIRST_WORD: Duration = Duration::from_secs(3);

/// Whether the peer of a connection may use the identity. It is decided when the peer connects, by its process (WE-5, WE-6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served(pub bool);

/// The services on the socket: the Workload API, secret discovery for an Envoy of the tree, and reflection (WE-9).
pub fn routes(identity: Arc<Identity>, oid: BindingOid, stop: watch::Receiver<bool>) -> Result<axum::Router, String> {
    let secrets = secrets::tell(&identity, stop.clone())?;
    let door = Door(Arc::new(Inside { identity, oid, stop, feed: OnceCell::new() }));
    let api = SpiffeWorkloadApiServer::new(door).max_decoding_message_size(MESSAGE);
    let reflection = tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(DESCRIPTORS);
    let reflection = reflection.register_encoded_file_descriptor_set(sds::DESCRIPTORS);
    // Only the services of Envoy's API that are served here. If one service is named, reflection lists only those that are named.
    let services = ["SpiffeWorkloadAPI", sds::SERVICE, "grpc.reflection.v1.ServerReflection"];
    let reflection = services.into_iter().fold(reflection, tonic_reflection::server::Builder::with_service_name);
    let reflection = reflection.build_v1().map_err(|e| e.to_string())?;
    let routes = tonic::service::Routes::new(InterceptedService::new(api, check_header));
    Ok(routes.add_service(sds::service(secrets)).add_service(reflection).into_axum_router())
}

// WE-3: a program that was tricked into sending a request does not send this header.
fn check_header(request: Request<()>) -> Result<Request<()>, Status> {
    let mut values = request.metadata().get_all("workload.spiffe.io").iter();
    match (values.next(), values.next()) {
        (Some(value), None) if value.as_encoded_bytes() == b"true" => Ok(request),
        _ => Err(Status::invalid_argument("every request must carry the metadata `workload.spiffe.io: true` exactly once")),
    }
}

struct Door(Arc<Inside>);

struct Inside {
    identity: Arc<Identity>,
    oid: BindingOid,
    stop: watch::Receiver<bool>,
    /// The feed is followed from the first token that is validated, because most agents never validate one.
    feed: OnceCell<Following>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl SpiffeWorkloadApi for Door {
    type FetchX509SVIDStream = Answers<api::X509svidResponse>;
    type FetchX509BundlesStream = Answers<api::X509BundlesResponse>;
    type FetchJWTBundlesStream = Answers<api::JwtBundlesResponse>;
    type FetchWITSVIDStream = Answers<api::WitsvidResponse>;
    type FetchWITBundlesStream = Answers<api::WitBundlesResponse>;

    async fn fetch_x509svid(
        &self,
        request: Request<api::X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        self.stream(&request, |current| {
            let svid = api::X509svid {
                spiffe_id: current.spiffe_id().to_owned(),
                // WA-8: DER certificates that follow one another, leaf first; the key as PKCS#8.
                x509_svid: current.chain().iter().flat_map(|der| der.iter().copied()).collect(),
                x509_svid_key: current.expose_pkcs8().map_err(|e| status_of(&e))?.to_vec(),
                bundle: current.bundle().x509_authorities.concat(),
                hint: HINT.to_owned(),
            };
            let federated_bundles = bundles::x509_foreign(current);
            Ok(api::X509svidResponse { svids: vec![svid], crl: Vec::new(), federated_bundles })
        })
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<api::X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        self.stream(&request, |current| Ok(api::X509BundlesResponse { crl: Vec::new(), bundles: bundles::x509(current) }))
    }

    async fn fetch_jwtsvid(&self, request: Request<api::JwtsvidRequest>) -> Result<Response<api::JwtsvidResponse>, Status> {
        self.admit(&request)?;
        let asked = request.into_inner();
        // WA-5, WA-13: exactly the requested audiences, without duplicates.
        let mut audiences: Vec<&str> = Vec::new();
        for audience in &asked.audience {
            if audience.is_empty() || audience.len() > MAX_AUDIENCE {
                return Err(Status::invalid_argument(format!("an audience must have 1 to {MAX_AUDIENCE} bytes")));
            }
            if !audiences.contains(&audience.as_str()) {
                audiences.push(audience);
            }
        }
        if audiences.is_empty() || audiences.len() > MAX_AUDIENCES {
            return Err(Status::invalid_argument(format!("give 1 to {MAX_AUDIENCES} audiences")));
        }
        let current = self.0.identity.current();
        // Workloads have X.509-SVIDs only.
        if current.agent().is_none() {
            return Err(no_identity());
        }
        let jwt = if asked.spiffe_id.is_empty() || asked.spiffe_id == current.spiffe_id() {
            self.0.identity.jwt_for(&audiences).await.map_err(|e| status_of(&e))?
        } else {
            // The issuer decides about an agent without a key that the command spawned, because it knows the agent's parent (T256).
            let named = mayfly_verify::parse_spiffe_id(&asked.spiffe_id).map_err(|e| Status::invalid_argument(e.to_string()))?;
            if named.trust_domain_name() != current.bundle().trust_domain || AgentId::parse(&asked.spiffe_id).is_err() {
                return Err(no_identity());
            }
            self.0.identity.jwt_of(&asked.spiffe_id, &audiences).await.map_err(|e| of_child(&e))?
        };
        let svid = api::Jwtsvid { spiffe_id: jwt.spiffe_id.clone(), svid: jwt.token, hint: HINT.to_owned() };
        Ok(Response::new(api::JwtsvidResponse { svids: vec![svid] }))
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<api::JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        self.stream(&request, |current| Ok(api::JwtBundlesResponse { bundles: bundles::jwt(current) }))
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<api::ValidateJwtsvidRequest>,
    ) -> Result<Response<api::ValidateJwtsvidResponse>, Status> {
        self.admit(&request)?;
        let asked = request.into_inner();
        if asked.audience.is_empty() || asked.svid.is_empty() {
            return Err(Status::invalid_argument("give an audience and a token"));
        }
        // WA-15, XV-1: the bundle is that of the trust domain in the token, and nothing else selects it.
        let named = inspect_jwt(&asked.svid).map_err(|e| refused(&e))?;
        let current = self.0.identity.current();
        let ours = named.trust_domain_name() == current.bundle().trust_domain;
        let bundle = if ours {
            Arc::new(Bundle::from_json(trust_domain(&current)?, &current.bundle().spiffe_json).map_err(internal)?)
        } else {
            self.0.foreign_bundle(named.trust_domain_name()).await?
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // ORDER: a malformed token is refused before anything is waited for.
        let svid = verify_jwt(&asked.svid, &asked.audience, &bundle, &self.0.oid, now.as_secs()).map_err(|e| refused(&e))?;
        // A foreign trust domain has no feed of revocations here, so its tokens are valid until they expire.
        if ours {
            let feed = self.0.feed.get_or_try_init(|| self.0.begin_feed()).await?;
            let mut link = feed.link();
            let _ = tokio::time::timeout(FIRST_WORD, link.wait_for(|link| *link == Link::Open)).await;
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            feed.live().check(now, &svid).map_err(|e| refused(&e))?;
        }
        let claims = Some(claims::of(&asked.svid).ok_or_else(|| internal("claims"))?);
        Ok(Response::new(api::ValidateJwtsvidResponse { spiffe_id: svid.id.to_string(), claims }))
    }

    // WA-16: incubating.
    async fn fetch_witsvid(&self, _: Request<api::WitsvidRequest>) -> Result<Response<Self::FetchWITSVIDStream>, Status> {
        Err(Status::unimplemented("WIT-SVIDs are not served"))
    }

    async fn fetch_wit_bundles(
        &self,
        _: Request<api::WitBundlesRequest>,
    ) -> Result<Response<Self::FetchWITBundlesStream>, Status> {
        Err(Status::unimplemented("WIT-SVIDs are not served"))
    }
}

impl Door {
    fn admit<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let served = request.extensions().get() == Some(&Served(true));
        if served && self.0.identity.over().borrow().is_none() { Ok(()) } else { Err(no_identity()) }
    }

    /// A stream of complete sets: one at once (WA-3), and another whenever the content changes (WA-2, WA-4).
    fn stream<R, T: Clone + PartialEq + Send + Sync + 'static>(
        &self,
        request: &Request<R>,
        make: impl Fn(&Current) -> Result<T, Status> + Send + 'static,
    ) -> Result<Response<Answers<T>>, Status> {
        self.admit(request)?;
        let (answer, answers) = mpsc::channel(1);
        let inside = Arc::clone(&self.0);
        tokio::spawn(async move {
            tokio::select! {
                end = inside.tell(&answer, make) => {
                    // Waits for a slow reader, because a stream that ended with OK would end its client for good (WA-18).
                    let _ = answer.send(Err(end)).await;
                }
                () = answer.closed() => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}

impl Inside {
    /// Sends the current state and each change of it, and returns why it stopped.
    async fn tell<T: Clone + PartialEq>(
        &self,
        answer: &mpsc::Sender<Result<T, Status>>,
        make: impl Fn(&Current) -> Result<T, Status>,
    ) -> Status {
        let (mut changed, mut over, mut stop) = (self.identity.changed(), self.identity.over(), self.stop.clone());
        let mut last = None;
        loop {
            let current = Arc::clone(&changed.borrow_and_update());
            match make(&current) {
                // An unchanged set is not sent again.
                Ok(message) if last.as_ref() == Some(&message) => {}
                Ok(message) => {
                    last = Some(message.clone());
                    // A slow reader gets only the last of several changes, but always the end of the identity.
                    tokio::select! {
                        biased;
                        _ = over.wait_for(Option::is_some) => return no_identity(),
                        _ = answer.send(Ok(message)) => {}
                    }
                }
                Err(status) => return status,
            }
            tokio::select! {
                biased;
                // WA-10, WA-11.
                _ = over.wait_for(Option::is_some) => return no_identity(),
                _ = stop.wait_for(|stop| *stop) => return Status::unavailable("the Workload API is stopping: connect again"),
                _ = changed.changed() => {}
            }
        }
    }

    /// JV-6: the bundle of a token's own trust domain.
    async fn foreign_bundle(&self, trust_domain: &str) -> Result<Arc<Bundle>, Status> {
        let mut changed = self.identity.changed();
        let told = tokio::time::timeout(FIRST_WORD, changed.wait_for(|current| current.foreign().is_some())).await;
        // Not INVALID_ARGUMENT, after which clients do not retry, because this fault is temporary.
        let unknown = || Status::unavailable("the bundles of foreign trust domains are not known yet");
        let current = told.map_err(|_| unknown())?.map_err(internal)?.clone();
        let bundle = current.foreign().and_then(|foreign| foreign.get(trust_domain)).map(|one| Arc::clone(one.bundle()));
        bundle.ok_or_else(|| refused(&Reject::Untrusted(format!("there is no bundle of `{trust_domain}`"))))
    }

    async fn begin_feed(&self) -> Result<Following, Status> {
        let current = self.identity.current();
        let key = FeedKey::from_point(&current.bundle().feed_key).map_err(internal)?;
        Ok(follow(self.identity.channel(), key, trust_domain(&current)?, Freshness::default()))
    }
}

// WA-10: clients look for exactly this text.
fn no_identity() -> Status {
    Status::permission_denied("no identity issued")
}

/// The status for an error of the identity.
fn status_of(error: &IdentityError) -> Status {
    match error {
        IdentityError::Over(_) => no_identity(),
        IdentityError::Denied { .. } => Status::permission_denied(error.to_string()),
        IdentityError::Key | IdentityError::Answer(_) => internal(error),
        // Not INVALID_ARGUMENT, after which clients do not retry, because this fault is temporary.
        _ => Status::new(Code::Unavailable, error.to_string()),
    }
}

/// The error for the token of another agent. It includes the reason, because it does not mean the end of the identity that is
/// served.
fn of_child(error: &IdentityError) -> Status {
    match error {
        IdentityError::Denied { reason, message } => {
            let details = ErrorDetails::with_error_info(reason, "mayfly.v1", []);
            Status::with_error_details(Code::PermissionDenied, message, details)
        }
        other => status_of(other),
    }
}

fn refused(reject: &Reject) -> Status {
    match reject {
        Reject::Stale(_) => Status::unavailable(format!("{}: {reject}", reject.code())),
        _ => Status::invalid_argument(format!("{}: {reject}", reject.code())),
    }
}

fn internal(cause: impl std::fmt::Display) -> Status {
    tracing::error!(%cause, "the Workload API has a fault");
    Status::internal("internal")
}

fn trust_domain(current: &Current) -> Result<TrustDomain, Status> {
    TrustDomain::new(&current.bundle().trust_domain).map_err(internal)
}
