//! A small OIDC provider for development. It listens on loopback only, over HTTPS, and is verified like any other provider.
//!
//! The provider has two users, `demo` and `guest`, and no passwords: everybody who can reach it can be either of them.

mod codes;
mod flow;
mod keys;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::https::{ClientError, https_client};
use crate::process::sparing::cannot_accept;

use flow::Shared;
use keys::{Ca, Signer};

/// The audience of its tokens, and the id of a client. The other audiences are clients too.
pub const AUDIENCE: &str = "mayfly-dev";
/// The audience of tokens with which users revoke their own access.
pub const REVOKES: &str = "mayfly-dev-revoke";
/// The audience of tokens that speak for the users themselves: with them users see and stop what acts for them.
pub const USER: &str = "mayfly-dev-user";
/// The users of the provider.
pub const USERS: [&str; 2] = ["demo", "guest"];
/// The grant type with which a script gets a token without a browser.
pub const DEV_GRANT: &str = "urn:mayfly:dev:user";

/// Most connections at a time.
const MAX_CONNECTIONS: usize = 64;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest response that [`fetch_token`] reads, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// A running provider, which stops when this is dropped.
pub struct Provider {
    issuer: String,
    ca_file: PathBuf,
    stop: CancellationToken,
    running: Option<JoinHandle<()>>,
}

impl Provider {
    /// Starts a provider on `listener`. The CA and the keys are kept in `dir`. Fails if the listener is not on loopback, or if
    /// the files in `dir` are unusable.
    pub async fn start(dir: &Path, listener: TcpListener) -> io::Result<Provider> {
        let address = listener.local_addr()?;
        require_loopback(address)?;
        let dir = dir.to_owned();
        let opened = tokio::task::spawn_blocking(move || {
            let ca = Ca::open(&dir)?;
            let tls = ca.server_config(address.ip())?;
            Ok::<_, io::Error>((ca.file().to_owned(), tls, Signer::open(&dir)?))
        });
        let (ca_file, tls, signer) = opened.await.map_err(io::Error::other)??;
        let issuer = format!("https://{address}");
        let router = flow::router(Arc::new(Shared { issuer: issuer.clone(), signer, codes: Default::default() }));
        let stop = CancellationToken::new();
        let running = tokio::spawn(serve(listener, tls, router, stop.clone()));
        Ok(Provider { issuer, ca_file, stop, running: Some(running) })
    }

    /// Its `iss`: `https://` and the address of the listener.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The PEM file of the CA that signs its TLS certificate.
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// Stops the provider, and waits until every connection is closed.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        if let Some(running) = self.running.take() {
            let _ = running.await;
        }
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn require_loopback(address: SocketAddr) -> io::Result<()> {
    if address.ip().is_loopback() {
        return Ok(());
    }
    let why = format!("`{address}` is not a loopback address: the development provider lets everybody be any user");
    Err(io::Error::new(io::ErrorKind::InvalidInput, why))
}

async fn serve(listener: TcpListener, tls: Arc<ServerConfig>, router: Router, stop: CancellationToken) {
    let acceptor = TlsAcceptor::from(tls);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = accept(&listener, &places) => {
                if let Some((stream, place)) = accepted {
                    let acceptor = acceptor.clone();
                    let router = router.clone();
                    connections.spawn(async move {
                        connection(stream, acceptor, router).await;
                        drop(place);
                    });
                }
            }
        }
    }
    connections.shutdown().await;
}

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, place)),
        Err(error) => {
            cannot_accept(&error);
            // The usual cause is a lack of file descriptors. Without a pause the loop would spin.
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, router: Router) {
    let Ok(Ok(stream)) = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await else { return };
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).await {
        tracing::debug!(error, "a connection of the development provider ended early");
    }
}

/// Why a token cannot be obtained from a development provider.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The HTTPS client cannot be made.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The provider cannot be reached, or the CA in the file did not sign its certificate.
    #[error("the development provider at `{0}` cannot be reached: check that `mayfly dev` is running")]
    Unreachable(String, #[source] reqwest::Error),
    /// The provider's response is not a token.
    #[error("the development provider refused: {0}")]
    Refused(String),
}

impl FetchError {
    /// The stable label of this error.
    pub fn code(&self) -> &'static str {
        match self {
            FetchError::Client(cause) => cause.code(),
            FetchError::Unreachable(..) => "PROVIDER_UNREACHABLE",
            FetchError::Refused(_) => "PROVIDER_REFUSED",
        }
    }
}

/// Obtains an ID token of `user` for `audience` from the development provider with the issuer `url`; or an ID-JAG with the claims
/// `client_id`, `scope` and `resource` that `id_jag` names.
pub async fn fetch_token(
    url: &str,
    ca_file: &Path,
    user: &str,
    audience: &str,
    id_jag: &[(&str, &str)],
) -> Result<String, FetchError> {
    #[derive(Deserialize)]
    struct Answer {
        id_token: Option<String>,
        access_token: Option<String>,
        error_description: Option<String>,
    }
    let client = https_client(Some(ca_file))?;
    let unreachable = |e: reqwest::Error| FetchError::Unreachable(url.to_owned(), e);
    let mut form = vec![("grant_type", DEV_GRANT), ("user", user), ("audience", audience)];
    if !id_jag.is_empty() {
        form.push(("token_type", "id-jag"));
        form.extend(id_jag);
    }
    let endpoint = format!("{}/token", url.trim_end_matches('/'));
    let mut answer = client.post(endpoint).form(&form).send().await.map_err(unreachable)?;
    let status = answer.status();
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(FetchError::Refused(format!("the response has more than {MAX_ANSWER} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    match serde_json::from_slice(&body) {
        Ok(Answer { id_token: Some(token), .. } | Answer { access_token: Some(token), .. }) if status.is_success() => Ok(token),
        Ok(Answer { error_description: Some(why), .. }) => Err(FetchError::Refused(why.chars().take(256).collect())),
        _ => Err(FetchError::Refused(format!("it answered {status}"))),
    }
}
