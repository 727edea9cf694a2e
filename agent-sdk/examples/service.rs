//! A service whose callers are agents. It learns from each request what the agent may do and for which user, and stops serving an
//! agent as soon as it is revoked.
//!
//! Run the issuer in a terminal of its own, in the folder of this repository. PORT is that of `gRPC`, which `mayfly dev` prints:
//!
//! ```text
//! mayfly dev
//! mayfly token demo > demo.jwt
//! mayfly spawn --class worker --user-token demo.jwt --audience https://search.example --out a1
//! cargo run -p mayfly-agent --example service -- 127.0.0.1:PORT .mayfly/workloads/orchestrator 127.0.0.1:8500
//! curl -k --cert a1/svid.pem --key a1/key.pem https://127.0.0.1:8500/search
//! curl -k -H "Authorization: Bearer $(cat a1/svid.jwt)" https://127.0.0.1:8500/search
//! curl -k --cert a1/svid.pem --key a1/key.pem -X POST https://127.0.0.1:8500/mail          # 403: a worker sends no mail
//! curl -k -N --cert a1/svid.pem --key a1/key.pem https://127.0.0.1:8500/events            # until somebody runs
//! mayfly revoke --user dev/demo
//! ```
//!
//! curl needs `-k`, because it compares host names and an SVID has a SPIFFE ID; a Rust client uses
//! `mayfly_agent::tls::client_config`. The service's own certificate is valid for a quarter of an hour, and
//! `mayfly renew --as .mayfly/workloads/orchestrator` renews it.
#![expect(clippy::print_stdout, reason = "an example")]

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Extension, Router};
use mayfly_agent::api::v1::GetBundleRequest;
use mayfly_agent::api::v1::bundles_client::BundlesClient;
use mayfly_agent::channel::{ChannelSettings, Trust, connect_as};
use mayfly_agent::delegation::{Delegation, DelegationLayer, Tokens};
use mayfly_agent::folder::identity;
use mayfly_agent::listen::{Bounds, accept};
use mayfly_agent::peers::{Authorize, Bundles, Verifier};
use mayfly_agent::revocation::{Freshness, follow};
use mayfly_agent::tls::{CurrentIdentity, server_config_optional};
use mayfly_verify::feed::FeedKey;
use mayfly_verify::{Bundle, TrustDomain};
use tokio::net::TcpListener;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::IntervalStream;

type Error = Box<dyn std::error::Error + Send + Sync>;

const AUDIENCE: &str = "https://search.example";

#[tokio::main]
async fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [issuer, folder, listen] = args.as_slice() else { return Err("give: issuer's address, folder, own address".into()) };
    let listener = TcpListener::bind(listen).await?;
    println!("listening on {}", listener.local_addr()?);
    serve(issuer, Path::new(folder), listener).await
}

/// Serves with the identity in a folder, in the trust domain of `mayfly dev`.
pub(crate) async fn serve(issuer: &str, folder: &Path, listener: TcpListener) -> Result<(), Error> {
    // 1. Our identity, and a channel to the issuer on which both ends are verified.
    let trust_domain = TrustDomain::new("dev.mayfly.test")?;
    let settings = ChannelSettings {
        address: issuer.into(),
        trust_domain: trust_domain.clone(),
        trust: Trust::Roots(mayfly_agent::folder::roots(folder)?),
        identity: None,
        connect_timeout: Duration::from_secs(5),
    };
    let own = CurrentIdentity::new(identity(folder)?)?;
    let channel = connect_as(settings, own.clone()).await?;
    tokio::spawn(renewed(own.clone(), folder.into()));

    // 2. The trust bundles and the revocations, both followed from here on.
    let got = BundlesClient::new(channel.clone()).get_bundle(GetBundleRequest {}).await?.into_inner();
    let bundle = got.bundle.ok_or("there is no bundle in the answer")?;
    let bundles = Bundles::default();
    bundles.set(Bundle::from_json(trust_domain.clone(), &bundle.spiffe_json)?);
    let _bundle = bundles.follow(channel.clone(), trust_domain.clone());
    let key = FeedKey::from_point(&bundle.feed_key)?;
    let feed = follow(channel, key, trust_domain.clone(), Freshness::default());

    // 3. Agents connect, or gateways with an agent's token; each request carries its delegation.
    let verifier = Verifier::new(bundles, feed.live().clone());
    let config = server_config_optional(&own, &verifier, Authorize::agents(trust_domain))?;
    let incoming = accept(listener, config, verifier.clone(), Bounds::default());
    let layer = DelegationLayer::new(verifier).with_tokens(Tokens::Accepted { audience: AUDIENCE.into() });
    let routes = Router::new().route("/search", get(search)).route("/mail", post(mail)).route("/events", get(events));
    let mut server = tonic::transport::Server::builder().accept_http1(true).layer(layer);
    server.add_routes(routes.into()).serve_with_incoming(incoming).await?;
    Ok(())
}

async fn search(Extension(agent): Extension<Delegation>) -> Result<String, StatusCode> {
    allowed(&agent, "search:read")?;
    let user = agent.user().map_or("nobody", |user| &user.sub);
    Ok(format!("{} found nothing for {user}\n", agent.agent()))
}

async fn mail(Extension(agent): Extension<Delegation>) -> Result<&'static str, StatusCode> {
    allowed(&agent, "mail:send").map(|()| "sent\n")
}

/// Goes on until the client closes it, or until the layer ends it because the agent is revoked or expires.
async fn events(Extension(agent): Extension<Delegation>) -> Result<Body, StatusCode> {
    allowed(&agent, "search:read")?;
    let every = IntervalStream::new(tokio::time::interval(Duration::from_millis(100)));
    Ok(Body::from_stream(every.map(|_| Ok::<_, Infallible>("tick\n"))))
}

fn allowed(agent: &Delegation, scope: &str) -> Result<(), StatusCode> {
    if agent.has_scope(scope) { Ok(()) } else { Err(StatusCode::FORBIDDEN) }
}

/// `mayfly renew` writes into the folder. The next handshake presents the new certificate.
async fn renewed(own: CurrentIdentity, folder: PathBuf) {
    loop {
        tokio::time::sleep(Duration::from_secs(10)).await;
        let _ = identity(&folder).map(|identity| own.replace(identity));
    }
}
