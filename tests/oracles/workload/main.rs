//! mTLS with another program: by the stock Rust crates `spiffe` and `spiffe-rustls` under `mayfly run`, or by our own SDK with a
//! ticket on its standard input.
#![expect(clippy::print_stdout, reason = "the other end of a test")]

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use mayfly_agent::api::v1::GetBundleRequest;
use mayfly_agent::api::v1::bundles_client::BundlesClient;
use mayfly_agent::identity::Identity;
use mayfly_agent::peers::{Authorize, Bundles, Verifier};
use mayfly_agent::revocation::{Following, Freshness, Link, follow};
use mayfly_agent::ticket::Ticket;
use mayfly_agent::tls::{client_config, server_config};
use mayfly_verify::feed::FeedKey;
use mayfly_verify::{Bundle, TrustDomain};
use rustls::{ClientConfig, ServerConfig};
use spiffe::X509Source;
use spiffe_rustls::{authorizer, mtls_client, mtls_server};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

type Error = Box<dyn std::error::Error + Send + Sync>;

const DOMAIN: &str = "dev.mayfly.test";

#[tokio::main]
async fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["rust", "serve", address] => {
            let settings = mtls_server(X509Source::new().await?).authorize(authorizer::trust_domains([DOMAIN])?);
            serve("rust", settings.build()?, address).await
        }
        ["rust", "dial", address] => {
            let settings = mtls_client(X509Source::new().await?).authorize(authorizer::trust_domains([DOMAIN])?);
            dial("rust", settings.build()?, address).await
        }
        ["sdk", "serve", address] => {
            let own = Own::new().await?;
            serve("sdk", server_config(&own.identity.shown(), &own.verifier, own.peers)?, address).await
        }
        ["sdk", "dial", address] => {
            let own = Own::new().await?;
            dial("sdk", client_config(&own.identity.shown(), &own.verifier, own.peers)?, address).await
        }
        _ => Err("give: rust or sdk, serve or dial, and an address".into()),
    }
}

struct Own {
    identity: Identity,
    verifier: Verifier,
    peers: Authorize,
    _feed: Following,
}

impl Own {
    async fn new() -> Result<Own, Error> {
        let mut ticket = String::new();
        std::io::stdin().read_to_string(&mut ticket)?;
        let identity = Identity::redeem(&Ticket::parse(ticket.trim())?, Duration::from_secs(10)).await?;
        let trust_domain = TrustDomain::new(DOMAIN)?;
        let got = BundlesClient::new(identity.channel()).get_bundle(GetBundleRequest {}).await?.into_inner();
        let got = got.bundle.ok_or("there is no bundle in the answer")?;
        let bundles = Bundles::default();
        bundles.set(Bundle::from_json(trust_domain.clone(), &got.spiffe_json)?);
        let key = FeedKey::from_point(&got.feed_key)?;
        let feed = follow(identity.channel(), key, trust_domain.clone(), Freshness::default());
        // Before something is known of what is revoked, nobody is believed.
        feed.link().wait_for(|link| *link == Link::Open).await?;
        let verifier = Verifier::new(bundles, feed.live().clone());
        Ok(Own { identity, verifier, peers: Authorize::agents(trust_domain), _feed: feed })
    }
}

async fn serve(name: &str, settings: ServerConfig, address: &str) -> Result<(), Error> {
    let (acceptor, listener) = (TlsAcceptor::from(Arc::new(settings)), TcpListener::bind(address).await?);
    std::fs::write(format!("{name}.serves"), "\n")?;
    loop {
        let (connection, _) = listener.accept().await?;
        if let Err(e) = answer(name, &acceptor, connection).await {
            println!("{name}: {e}");
        }
    }
}

async fn answer(name: &str, acceptor: &TlsAcceptor, connection: TcpStream) -> Result<(), Error> {
    let mut tls = acceptor.accept(connection).await?;
    let heard = line(&mut tls).await?;
    tls.write_all(format!("{name} heard {heard}").as_bytes()).await?;
    Ok(tls.shutdown().await?)
}

async fn dial(name: &str, settings: ClientConfig, address: &str) -> Result<(), Error> {
    let connector = TlsConnector::from(Arc::new(settings));
    let mut tls = connector.connect("localhost".try_into()?, TcpStream::connect(address).await?).await?;
    tls.write_all(format!("{name}\n").as_bytes()).await?;
    let answer = line(&mut tls).await?;
    if !answer.ends_with(&format!("{name}\n")) {
        return Err(answer.into());
    }
    print!("{answer}");
    Ok(())
}

async fn line(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<String, Error> {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await?;
    Ok(line)
}
