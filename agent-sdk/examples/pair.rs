//! A service and an agent that calls it, over tonic and mTLS, each with an identity that renews itself. The service learns from a
//! layer which agent calls, what it may do, and for which user.
//!
//! Run the issuer in a terminal of its own, in the folder of this repository:
//!
//! ```text
//! mayfly dev
//! mayfly token demo > demo.jwt
//! mayfly join orchestrator | cargo run -p mayfly-agent --example pair -- serve 127.0.0.1:8500
//! mayfly spawn --class worker --user-token demo.jwt --ticket --out a1
//! cargo run -p mayfly-agent --example pair -- call 127.0.0.1:8500 < a1/ticket      # until somebody runs
//! mayfly revoke --user dev/demo
//! ```
#![expect(clippy::print_stdout, reason = "an example")]

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use mayfly_agent::channel::connect_peer;
use mayfly_agent::delegation::{Delegation, DelegationLayer};
use mayfly_agent::identity::{Current, Identity};
use mayfly_agent::listen::{Bounds, accept};
use mayfly_agent::peers::{Authorize, Verifier};
use mayfly_agent::revocation::{Following, Freshness, Link, follow};
use mayfly_agent::ticket::Ticket;
use mayfly_agent::tls::{client_config, server_config};
use mayfly_verify::SpiffeId;
use mayfly_verify::feed::FeedKey;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::body::Body;
use tonic::server::{NamedService, UnaryService};
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

type Error = Box<dyn std::error::Error + Send + Sync>;

const PATIENCE: Duration = Duration::from_secs(5);
/// The SPIFFE ID that callers expect. Host names and addresses prove nothing.
const SERVICE: &str = "spiffe://dev.mayfly.test/workload/orchestrator";

#[tokio::main]
async fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let member = Member::new(&Ticket::parse(std::io::read_to_string(std::io::stdin())?.trim())?).await?;
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["serve", address] => serve(member, TcpListener::bind(address).await?).await,
        ["call", address] => {
            let mut caller = Caller::new(member, (*address).to_owned()).await?;
            loop {
                println!("{}", caller.search("rust").await?);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        _ => Err("give: serve or call, and the service's address".into()),
    }
}

/// An identity with the trust bundles and the revocations, all followed until this is dropped.
pub(crate) struct Member {
    pub(crate) identity: Identity,
    verifier: Verifier,
    _feed: Following,
}

impl Member {
    pub(crate) async fn new(ticket: &Ticket) -> Result<Member, Error> {
        let identity = Identity::redeem(ticket, PATIENCE).await?;
        let (channel, trust_domain) = (identity.channel(), ticket.trust_domain().clone());
        let key = FeedKey::from_point(&identity.current().bundle().feed_key)?;
        let feed = follow(channel, key, trust_domain, Freshness::default());
        // Until the revocations are known, every credential is refused.
        feed.link().wait_for(|link| *link == Link::Open).await?;
        let verifier = Verifier::new(identity.bundles(), feed.live().clone());
        Ok(Member { identity, verifier, _feed: feed })
    }
}

/// Serves agents. Each of their requests carries its delegation.
pub(crate) async fn serve(member: Member, listener: TcpListener) -> Result<(), Error> {
    let verifier = member.verifier.clone();
    let config = server_config(&member.identity.shown(), &verifier, Authorize::agents(verifier.own().clone()))?;
    let incoming = accept(listener, config, verifier.clone(), Bounds::default());
    let mut server = Server::builder().layer(DelegationLayer::new(verifier));
    let served = server.add_service(SearchServer).serve_with_incoming(incoming);
    tokio::select! {
        served = served => Ok(served?),
        over = member.identity.ended() => Err(over.into()),
    }
}

/// Handles one request.
async fn search(request: Request<String>) -> Result<Response<String>, Status> {
    let agent = Delegation::of(request.extensions())?;
    agent.require_scope("search:read")?;
    let user = agent.user().map_or("nobody", |user| &user.sub);
    Ok(Response::new(format!("{} found nothing about {} for {user}", agent.agent(), request.get_ref())))
}

/// An agent that calls the service.
pub(crate) struct Caller {
    pub(crate) member: Member,
    address: String,
    channel: Channel,
    changed: watch::Receiver<Arc<Current>>,
}

impl Caller {
    pub(crate) async fn new(member: Member, address: String) -> Result<Caller, Error> {
        let changed = member.identity.changed();
        let channel = connect(&member, &address).await?;
        Ok(Caller { member, address, channel, changed })
    }

    pub(crate) async fn search(&mut self, what: &str) -> Result<String, Error> {
        // A connection ends when the certificate that it was opened with expires, so a new one is opened after each renewal.
        if self.changed.has_changed()? {
            self.changed.mark_unchanged();
            self.channel = connect(&self.member, &self.address).await?;
        }
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        client.ready().await?;
        let request = Request::new(what.to_owned());
        let answer = client.unary(request, SEARCH.parse()?, ProstCodec::<String, String>::default()).await?;
        Ok(answer.into_inner())
    }
}

async fn connect(member: &Member, address: &str) -> Result<Channel, Error> {
    let service = Authorize::ids([SpiffeId::new(SERVICE)?]);
    let config = client_config(&member.identity.shown(), &member.verifier, service)?;
    Ok(connect_peer(address, config, PATIENCE).await?)
}

// This is what `tonic-prost-build` generates for a service with
// `rpc Search(google.protobuf.StringValue) returns (google.protobuf.StringValue)`.

const SEARCH: &str = "/example.Searches/Search";

#[derive(Clone)]
struct SearchServer;

impl NamedService for SearchServer {
    const NAME: &'static str = "example.Searches";
}

type Boxed<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl tower::Service<http::Request<Body>> for SearchServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Boxed<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            if request.uri().path() != SEARCH {
                return Ok(Status::unimplemented("there is no such method").into_http());
            }
            Ok(tonic::server::Grpc::new(ProstCodec::default()).unary(Search, request).await)
        })
    }
}

struct Search;

impl UnaryService<String> for Search {
    type Response = String;
    type Future = Boxed<Response<String>, Status>;

    fn call(&mut self, request: Request<String>) -> Self::Future {
        Box::pin(search(request))
    }
}
