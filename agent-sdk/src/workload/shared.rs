//! The shared state of a source: two streams and a clock change it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use mayfly_verify::TrustDomain;
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::metadata::MetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

use super::svid::{self, Roots};
use super::trust::{self, Trust};
use super::{Current, Endpoint, Link, Lost, WorkloadError};
use crate::api::workload as api;
use crate::api::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use crate::identity::tasks::until;
use crate::identity::tokens::Tokens;
use crate::peers::Bundles;
use crate::stream::{self, End, Subscription};
use crate::tls::CurrentIdentity;

type Header = fn(Request<()>) -> Result<Request<()>, Status>;
pub(super) type Client = SpiffeWorkloadApiClient<InterceptedService<Channel, Header>>;

/// Messages that could not be used. They were discarded as a whole (CL-3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Discarded {
    /// Their number.
    pub count: u64,
    /// What was wrong with the last one.
    pub why: &'static str,
}

pub(super) struct Shared {
    pub(super) client: Client,
    pub(super) current: watch::Sender<Arc<Current>>,
    pub(super) link: watch::Sender<Link>,
    pub(super) discarded: watch::Sender<Discarded>,
    pub(super) shown: CurrentIdentity,
    pub(super) bundles: Bundles,
    /// Guards the authorities of both kinds, for a change by one of the two streams.
    trust: Mutex<Trust>,
    /// Guards the cached tokens, for a look-up or a change; never while one is fetched.
    pub(super) tokens: Mutex<Tokens>,
    /// Whether the API validates tokens. True until it says that it does not.
    pub(super) validates: AtomicBool,
}

impl Shared {
    pub(super) fn new(endpoint: &Endpoint) -> Shared {
        Shared {
            // tonic limits an answer to 4 MiB.
            client: Client::new(InterceptedService::new(endpoint.channel(), with_header as Header)),
            current: watch::Sender::default(),
            link: watch::Sender::new(Link::Connecting),
            discarded: watch::Sender::default(),
            shown: CurrentIdentity::empty(),
            bundles: Bundles::default(),
            trust: Mutex::default(),
            tokens: Mutex::default(),
            validates: AtomicBool::new(true),
        }
    }

    /// Waits for the first identity, and returns its trust domain.
    pub(super) async fn first(&self) -> Result<TrustDomain, WorkloadError> {
        let (mut current, mut link) = (self.current.subscribe(), self.link.subscribe());
        loop {
            let of = current.borrow_and_update().svid().map(|svid| svid.spiffe_id().trust_domain().clone());
            let refused = if let Link::Refused(why) = &*link.borrow_and_update() { Some(why.clone()) } else { None };
            match (of, refused) {
                (Some(of), _) => return Ok(of),
                (None, Some(why)) => return Err(WorkloadError::Refused(why)),
                (None, None) => {}
            }
            tokio::select! {
                _ = current.changed() => {}
                _ = link.changed() => {}
            }
        }
    }

    /// The reason why there is no identity yet.
    pub(super) fn why_not(&self) -> WorkloadError {
        if let Some(Lost::Redacted(why)) = &self.current.borrow().lost {
            return WorkloadError::Denied(why.clone());
        }
        match (*self.discarded.borrow(), &*self.link.borrow()) {
            (Discarded { count: 1.., why }, _) => WorkloadError::Answer(why),
            (_, Link::Broken(why)) => WorkloadError::Unavailable(why.clone()),
            _ => WorkloadError::Unavailable("no identity arrived in time".into()),
        }
    }

    pub(super) async fn follow_svids(self: Arc<Self>) {
        stream::follow(&mut Svids(self)).await;
    }

    pub(super) async fn follow_jwt_bundles(self: Arc<Self>) {
        stream::follow(&mut JwtBundles(self)).await;
    }

    /// Stops using each certificate when it expires.
    pub(super) async fn expire(self: Arc<Self>) {
        let mut current = self.current.subscribe();
        loop {
            let ends_at = current.borrow_and_update().svid().map(|svid| svid.expires_at());
            let over = async {
                match ends_at {
                    Some(ends_at) => until(ends_at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = over => self.lose(&Lost::Expired, |ends_at| ends_at.is_some_and(|at| at <= SystemTime::now())),
                changed = current.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Drops the identity, if the predicate holds for the expiry of the current certificate (`None` if there is none).
    fn lose(&self, lost: &Lost, so: impl Fn(Option<SystemTime>) -> bool) {
        self.current.send_if_modified(|current| {
            let ends_at = current.svid().map(|svid| svid.expires_at());
            if !so(ends_at) || current.lost.as_ref() == Some(lost) {
                return false;
            }
            // ORDER: before anybody is notified, so that whoever is notified finds no certificate.
            self.shown.hide();
            *current = Arc::new(Current { svids: Vec::new(), lost: Some(lost.clone()) });
            true
        });
        self.tokens.lock().clear();
    }

    fn discard(&self, why: &'static str) -> bool {
        self.discarded.send_modify(|discarded| *discarded = Discarded { count: discarded.count + 1, why });
        false
    }
}

/// The stream of X.509-SVIDs.
struct Svids(Arc<Shared>);

impl Subscription for Svids {
    type Message = api::X509svidResponse;
    type Why = Status;

    async fn open(&mut self) -> Result<Streaming<Self::Message>, Status> {
        Ok(self.0.client.clone().fetch_x509svid(api::X509svidRequest {}).await?.into_inner())
    }

    async fn take(&mut self, message: Self::Message) -> Result<bool, Status> {
        let (svids, roots) = match svid::read(message) {
            Ok(read) => read,
            Err(why) => return Ok(self.0.discard(why)),
        };
        let Some(first) = svids.first().filter(|first| first.expires_at() > SystemTime::now()) else {
            return Ok(self.0.discard("the certificate has expired"));
        };
        // ORDER: the bundles first, then the certificates: whoever is notified of a certificate finds its bundle.
        self.0.trust.lock().set_x509(roots, &self.0.bundles);
        let (certified, id) = (first.certified_key(), first.spiffe_id().clone());
        self.0.link.send_if_modified(|link| std::mem::replace(link, Link::Open) != Link::Open);
        self.0.current.send_modify(|current| {
            let other = current.svid().is_none_or(|before| *before.spiffe_id() != id);
            self.0.shown.show(certified);
            if other {
                // CL-5: these tokens belong to an identity that is no longer ours.
                self.0.tokens.lock().clear();
            }
            *current = Arc::new(Current { svids, lost: None });
        });
        Ok(true)
    }

    fn why(&self, status: Status) -> Status {
        status
    }

    fn ended(&mut self, end: End<Status>) -> Option<Duration> {
        if end.why.code() == Code::PermissionDenied {
            self.0.trust.lock().set_x509(Roots::new(), &self.0.bundles);
            self.0.lose(&Lost::Redacted(end.why.message().to_owned()), |_| true);
        }
        let why = format!("{:?}: {}", end.why.code(), end.why.message());
        let pause = pause(&end);
        self.0.link.send_replace(if pause.is_some() { Link::Broken(why) } else { Link::Refused(why) });
        pause
    }
}

/// The stream of JWT bundles. Not every API implements it; only programs that verify tokens need it.
struct JwtBundles(Arc<Shared>);

impl Subscription for JwtBundles {
    type Message = api::JwtBundlesResponse;
    type Why = Status;

    async fn open(&mut self) -> Result<Streaming<Self::Message>, Status> {
        Ok(self.0.client.clone().fetch_jwt_bundles(api::JwtBundlesRequest {}).await?.into_inner())
    }

    async fn take(&mut self, message: Self::Message) -> Result<bool, Status> {
        Ok(match trust::read(message) {
            Ok(keys) => {
                self.0.trust.lock().set_jwt(keys, &self.0.bundles);
                true
            }
            Err(why) => self.0.discard(why),
        })
    }

    fn why(&self, status: Status) -> Status {
        status
    }

    fn ended(&mut self, end: End<Status>) -> Option<Duration> {
        if end.why.code() == Code::PermissionDenied {
            self.0.trust.lock().set_jwt(BTreeMap::new(), &self.0.bundles);
        }
        pause(&end)
    }
}

/// The pause before a stream is opened again. `None`: the API will never answer this request (CL-4).
fn pause(end: &End<Status>) -> Option<Duration> {
    match end.why.code() {
        Code::InvalidArgument | Code::Unimplemented => None,
        // CL-2: a stream that went well is opened again at once.
        _ if end.heard && end.failures == 0 => Some(Duration::ZERO),
        _ => Some(end.backoff()),
    }
}

// CL-1: on every call.
fn with_header(mut request: Request<()>) -> Result<Request<()>, Status> {
    request.metadata_mut().insert("workload.spiffe.io", MetadataValue::from_static("true"));
    Ok(request)
}
