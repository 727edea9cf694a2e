//! The SPIFFE Workload API of one identity. Clause numbers are of the standard's lists I and J.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mayfly_agent::api::workload as api;
use mayfly_agent::identity::{Current, Identity, IdentityError};
use mayfly_agent::revocation::{Following, Freshness, Link, follow};
use mayfly_verify::feed::FeedKey;
use mayfly_verify::{BindingOid, Bundle, Reject, TrustDomain, inspect_jwt, verify_jwt};
use tokio::sync::{OnceCell, mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::interceptor::InterceptedService;
use tonic::{Code, Request, Response, Status};

use super::{bundles, claims};

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

/// File descriptors, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/workloadapi.bin"));

/// Tells an agent's own identity from others that it may hold one day (WA-7).
const HINT: &str = "instance";
/// Audiences of one token at most, as the issuer has it.
const MAX_AUDIENCES: usize = 16;
/// Longest audience, in bytes, as the issuer has it.
const MAX_AUDIENCE: usize = 256;
/// Bytes of a request: a token to be validated has 16 KiB at most.
const MESSAGE: usize = 64 * 1024;
/// How long the first word of revocations is waited for.
const FIRST_WORD: Duration = Duration::from_secs(3);

/// Whether the peer of a connection may have the identity: decided by who it is, when it connects (WE-5, WE-6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served(pub bool);

/// The services of one socket: the Workload API, and reflection (WE-9).
pub fn routes(identity: Arc<Identity>, oid: BindingOid, stop: watch::Receiver<bool>) -> Result<axum::Router, String> {
    let door = Door(Arc::new(Inside { identity, oid, stop, feed: OnceCell::new() }));
    let api = SpiffeWorkloadApiServer::new(door).max_decoding_message_size(MESSAGE);
    let reflection = tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(DESCRIPTORS);
    let reflection = reflection.build_v1().map_err(|e| e.to_string())?;
    let routes = tonic::service::Routes::new(InterceptedService::new(api, check_header));
    Ok(routes.add_service(reflection).into_axum_router())
}

// WE-3: a request that somebody made another program send does not carry this.
fn check_header(request: Request<()>) -> Result<Request<()>, Status> {
    let mut values = request.metadata().get_all("workload.spiffe.io").iter();
    match (values.next(), values.next()) {
        (Some(value), None) if value.as_encoded_bytes() == b"true" => Ok(request),
        _ => Err(Status::invalid_argument("every request carries the metadata `workload.spiffe.io: true`, once")),
    }
}

struct Door(Arc<Inside>);

struct Inside {
    identity: Arc<Identity>,
    oid: BindingOid,
    stop: watch::Receiver<bool>,
    /// Followed from the first token on that is to be validated: most agents never ask.
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
                // WA-8: DER one after the other, leaf first; the key as PKCS#8.
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
        // WA-5, WA-13: exactly what is asked for, and nothing is asked twice.
        let mut audiences: Vec<&str> = Vec::new();
        for audience in &asked.audience {
            if audience.is_empty() || audience.len() > MAX_AUDIENCE {
                return Err(Status::invalid_argument(format!("an audience has 1 to {MAX_AUDIENCE} bytes")));
            }
            if !audiences.contains(&audience.as_str()) {
                audiences.push(audience);
            }
        }
        if audiences.is_empty() || audiences.len() > MAX_AUDIENCES {
            return Err(Status::invalid_argument(format!("give 1 to {MAX_AUDIENCES} audiences")));
        }
        let current = self.0.identity.current();
        if !asked.spiffe_id.is_empty() && asked.spiffe_id != current.spiffe_id() {
            mayfly_verify::parse_spiffe_id(&asked.spiffe_id).map_err(|e| Status::invalid_argument(e.to_string()))?;
            return Err(no_identity());
        }
        // Workloads have X.509-SVIDs alone.
        if current.agent().is_none() {
            return Err(no_identity());
        }
        let jwt = self.0.identity.jwt_for(&audiences).await.map_err(|e| status_of(&e))?;
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
        // WA-15, XV-1: by which bundle follows from whose token it says it is, and from nothing else.
        let named = inspect_jwt(&asked.svid).map_err(|e| refused(&e))?;
        let current = self.0.identity.current();
        let ours = named.trust_domain_name() == current.bundle().trust_domain;
        let bundle = if ours {
            Arc::new(Bundle::from_json(trust_domain(&current)?, &current.bundle().spiffe_json).map_err(internal)?)
        } else {
            self.0.foreign_bundle(named.trust_domain_name()).await?
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // ORDER: what is malformed is told before anything is waited for.
        let svid = verify_jwt(&asked.svid, &asked.audience, &bundle, &self.0.oid, now.as_secs()).map_err(|e| refused(&e))?;
        // What a foreign trust domain takes back, nobody tells: its tokens hold until they expire.
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

    /// A stream of full sets: one at once (WA-3), another when what it says has changed (WA-2, WA-4).
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
                    // Waits for a reader that is slow: a stream that ends with OK would end its client for good (WA-18).
                    let _ = answer.send(Err(end)).await;
                }
                () = answer.closed() => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}

impl Inside {
    /// Sends what is, and each change of it, until there is nothing more to send; says why.
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
                    // Of several changes a slow reader gets only the last; the end is told whatever it reads.
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
        // INVALID_ARGUMENT would be for good, and this passes by itself.
        let unknown = || Status::unavailable("whom the issuer trusts beside itself is not known yet");
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

/// The status of what the issuer said, or did not.
fn status_of(error: &IdentityError) -> Status {
    match error {
        IdentityError::Over(_) => no_identity(),
        IdentityError::Denied { .. } => Status::permission_denied(error.to_string()),
        IdentityError::Key | IdentityError::Answer(_) => internal(error),
        // INVALID_ARGUMENT would be for good, and this passes by itself.
        _ => Status::new(Code::Unavailable, error.to_string()),
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
