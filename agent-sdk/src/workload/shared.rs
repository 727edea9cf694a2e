//! What the two streams and the clock change, and everybody reads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use mayfly_verify::TrustDomain;
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::metadata::MetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use super::follow::{Told, follow};
use super::svid::{self, Roots};
use super::trust::{self, Trust};
use super::{Current, Endpoint, Link, Lost, WorkloadError};
use crate::api::workload as api;
use crate::api::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use crate::identity::keep::until;
use crate::identity::tokens::Tokens;
use crate::peers::Bundles;
use crate::tls::CurrentIdentity;

type Header = fn(Request<()>) -> Result<Request<()>, Status>;
pub(super) type Client = SpiffeWorkloadApiClient<InterceptedService<Channel, Header>>;

/// Messages that could not be used: they were discarded whole (CL-3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Discarded {
    /// How many.
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
    /// Guards whom to believe, for a change by one of two streams.
    trust: Mutex<Trust>,
    /// Guards the tokens alone, for a look or a change; never while one is fetched.
    pub(super) tokens: Mutex<Tokens>,
    /// Whether the API validates tokens; believed until it says no.
    pub(super) validates: AtomicBool,
}

impl Shared {
    pub(super) fn new(endpoint: &Endpoint) -> Shared {
        Shared {
            // Answers have at most 4 MiB, as tonic has it.
            client: Client::new(InterceptedService::new(endpoint.channel(), with_header as Header)),
            current: watch::Sender::default(),
            link: watch::Sender::new(Link::Connecting),
            discarded: watch::Sender::default(),
            shown: CurrentIdentity::nobody(),
            bundles: Bundles::default(),
            trust: Mutex::default(),
            tokens: Mutex::default(),
            validates: AtomicBool::new(true),
        }
    }

    /// Waits for the first identity; its trust domain.
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

    /// Why there is no identity yet.
    pub(super) fn why_not(&self) -> WorkloadError {
        if let Some(Lost::Redacted(why)) = &self.current.borrow().lost {
            return WorkloadError::Denied(why.clone());
        }
        match (*self.discarded.borrow(), &*self.link.borrow()) {
            (Discarded { count: 1.., why }, _) => WorkloadError::Answer(why),
            (_, Link::Broken(why)) => WorkloadError::Unavailable(why.clone()),
            _ => WorkloadError::Unavailable("nothing came in time".into()),
        }
    }

    pub(super) async fn follow_svids(self: Arc<Self>) {
        follow(&Svids(self)).await;
    }

    pub(super) async fn follow_jwt_bundles(self: Arc<Self>) {
        follow(&JwtBundles(self)).await;
    }

    /// Uses no certificate beyond its end.
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

    /// Nothing is ours any more, if that is so of the end of what we have.
    fn lose(&self, lost: &Lost, so: impl Fn(Option<SystemTime>) -> bool) {
        self.current.send_if_modified(|current| {
            let ends_at = current.svid().map(|svid| svid.expires_at());
            if !so(ends_at) || current.lost.as_ref() == Some(lost) {
                return false;
            }
            // ORDER: before anybody is told, so that whoever is finds nothing left.
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

impl Told for Svids {
    type Message = api::X509svidResponse;

    async fn open(&self) -> Result<Streaming<Self::Message>, Status> {
        Ok(self.0.client.clone().fetch_x509svid(api::X509svidRequest {}).await?.into_inner())
    }

    fn take(&self, message: Self::Message) -> bool {
        let (svids, roots) = match svid::read(message) {
            Ok(read) => read,
            Err(why) => return self.0.discard(why),
        };
        let Some(first) = svids.first().filter(|first| first.expires_at() > SystemTime::now()) else {
            return self.0.discard("the certificate has run out");
        };
        // ORDER: whom to believe, then who we are: whoever is told of the one has the other.
        self.0.trust.lock().set_x509(roots, &self.0.bundles);
        let (certified, id) = (first.certified_key(), first.spiffe_id().clone());
        self.0.link.send_if_modified(|link| std::mem::replace(link, Link::Open) != Link::Open);
        self.0.current.send_modify(|current| {
            let other = current.svid().is_none_or(|before| *before.spiffe_id() != id);
            self.0.shown.show(certified);
            if other {
                // CL-5: of whom we are no more.
                self.0.tokens.lock().clear();
            }
            *current = Arc::new(Current { svids, lost: None });
        });
        true
    }

    fn redacted(&self, why: &str) {
        self.0.trust.lock().set_x509(Roots::new(), &self.0.bundles);
        self.0.lose(&Lost::Redacted(why.to_owned()), |_| true);
    }

    fn broken(&self, why: String, good: bool) {
        self.0.link.send_replace(if good { Link::Refused(why) } else { Link::Broken(why) });
    }
}

/// The stream of JWT bundles. Not every API has one, and whoever verifies no tokens needs none.
struct JwtBundles(Arc<Shared>);

impl Told for JwtBundles {
    type Message = api::JwtBundlesResponse;

    async fn open(&self) -> Result<Streaming<Self::Message>, Status> {
        Ok(self.0.client.clone().fetch_jwt_bundles(api::JwtBundlesRequest {}).await?.into_inner())
    }

    fn take(&self, message: Self::Message) -> bool {
        match trust::read(message) {
            Ok(keys) => {
                self.0.trust.lock().set_jwt(keys, &self.0.bundles);
                true
            }
            Err(why) => self.0.discard(why),
        }
    }

    fn redacted(&self, _: &str) {
        self.0.trust.lock().set_jwt(BTreeMap::new(), &self.0.bundles);
    }

    fn broken(&self, _: String, _: bool) {}
}

// CL-1: on every call.
fn with_header(mut request: Request<()>) -> Result<Request<()>, Status> {
    request.metadata_mut().insert("workload.spiffe.io", MetadataValue::from_static("true"));
    Ok(request)
}
