//! Builds the HTTPS listener: its address, the issuer's URL, and the certificate.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::net::TcpSocket;

use super::sockets;
use super::tls;
use crate::authority::{Authority, pem};
use crate::config::{Config, Https};
use crate::doors::https::{Issuer, path_of};
use crate::home::Endpoint;
use crate::keys::keystore::write_private;

/// The listener before it is served.
pub(super) struct Bound {
    /// Where it will listen.
    pub(super) socket: TcpSocket,
    /// Its certificate.
    pub(super) shows: tls::Shows,
    /// The port it got.
    pub(super) port: u16,
}

/// Takes the listener's address if there is to be one. Development has one always, and keeps its port.
pub(super) fn reserve(config: &Config, development: bool, before: Option<&Endpoint>) -> Result<Option<Bound>, String> {
    let at = match config.https.listen {
        Some(at) => at,
        None if development => SocketAddr::from(([127, 0, 0, 1], 0)),
        None => return Ok(None),
    };
    let socket = sockets::reserve(at, before.and_then(|e| e.https.as_deref()))?;
    let port = socket.local_addr().map_err(|e| e.to_string())?.port();
    let shows = match config.https.web.clone() {
        Some((certificate, key)) => tls::Shows::Web(certificate, key),
        None => tls::Shows::Svid(config.names.clone()),
    };
    Ok(Some(Bound { socket, shows, port }))
}

/// The `iss` of tokens. `host` is the name that clients know this machine by. Fails if it is the URL of a provider too: a token of ours
/// never proves a user or a workload.
pub(super) fn issuer(config: &Config, bound: Option<&Bound>, host: &str) -> Result<String, String> {
    let own = own_issuer(&config.https, bound, host, config.trust_domain.as_str());
    match config.issuers.iter().chain(&config.workload_issuers).find(|other| other.issuer == own) {
        Some(other) => Err(format!("`{own}` is the URL of the issuer `{}` and our own: set `https.issuer`", other.name)),
        None => Ok(own),
    }
}

fn own_issuer(https: &Https, bound: Option<&Bound>, host: &str, trust_domain: &str) -> String {
    match (&https.issuer, bound) {
        (Some(issuer), _) => issuer.clone(),
        (None, Some(bound)) => {
            let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
            if bound.port == 443 { format!("https://{host}") } else { format!("https://{host}:{}", bound.port) }
        }
        (None, None) => format!("spiffe://{trust_domain}"),
    }
}

/// The content of the discovery documents. `iss` is the issuer's URL, `certified` the `host:port` of the listener that asks for
/// client certificates.
pub(super) fn about(config: &Config, iss: String, certified: &str) -> Issuer {
    let certified = format!("https://{certified}{}", path_of(&iss));
    Issuer { url: iss, certified, binding_claim: config.oid.claim(), refresh: config.refresh }
}

/// Writes the CA that verifies the listener's certificate, for clients on this machine.
pub(super) fn write_ca(home: &Path, authority: &Authority) -> Result<PathBuf, String> {
    let path = home.join("https-ca.pem");
    write_private(&path, pem("CERTIFICATE", authority.root()).as_bytes()).map_err(|e| format!("`{}`: {e}", path.display()))?;
    Ok(path)
}
