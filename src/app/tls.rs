//! The TLS configurations of listeners. A server certificate is replaced when the bundle changes, and well before it expires.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;

use super::gauges;
use crate::authority::Authority;
use crate::clock::Clock;
use crate::foreign::Foreign;
use crate::listen;
use crate::process;
use crate::publish::Publisher;
use crate::state::authority::Kind;

/// How often a server certificate is replaced although nothing has changed.
const RENEW: Duration = Duration::from_secs(600);

/// The server certificate of a listener.
#[derive(Clone)]
pub(super) enum Shows {
    /// Our own SVID with these DNS names and IP addresses. The listener asks for client certificates, and does not require them.
    Mutual(Vec<String>),
    /// Our own SVID with these DNS names and IP addresses. The listener asks for no client certificates.
    Svid(Vec<String>),
    /// The certificate of a public CA: the PEM files of its chain and its key.
    Web(std::path::PathBuf, std::path::PathBuf),
}

/// Makes the configurations of a listener.
pub(super) struct Tls {
    /// Signs server certificates.
    pub(super) authority: Arc<Authority>,
    /// Notifies when the authorities change.
    pub(super) publisher: Publisher,
    /// The foreign trust domains whose peers may complete the handshake.
    pub(super) foreign: Arc<Foreign>,
    /// The listener's name in metrics.
    pub(super) listener: &'static str,
    /// Notifies when files are to be read again.
    pub(super) reloads: watch::Receiver<u64>,
    /// The clock of certificates.
    pub(super) clock: Clock,
}

impl Tls {
    /// Makes the configuration, and a task that replaces it until `stop`. Fails if the first one cannot be made.
    pub(super) fn keep(
        self,
        shows: Shows,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(watch::Receiver<Arc<ServerConfig>>, tokio::task::JoinHandle<()>), String> {
        let (sender, receiver) = watch::channel(self.make(&shows)?);
        let mut published = self.publisher.watch();
        let (mut foreign, mut reloads) = (self.foreign.changes(), self.reloads.clone());
        let task = process::task("server certificate", async move {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(RENEW) => {}
                    Ok(()) = published.changed() => {}
                    Ok(()) = foreign.changed() => {}
                    Ok(()) = reloads.changed() => {}
                    _ = stop.wait_for(|s| *s) => return,
                }
                match self.make(&shows) {
                    Ok(fresh) => drop(sender.send(fresh)),
                    Err(cause) => tracing::error!(%cause, "cannot renew the server certificate"),
                }
            }
        });
        Ok((receiver, task))
    }

    fn make(&self, shows: &Shows) -> Result<Arc<ServerConfig>, String> {
        let own = |names: &[String]| {
            let published = self.publisher.now();
            let by = published.authorities.active(Kind::X509).ok_or("no X.509 authority is active")?;
            self.authority.server_certificate(by, names, self.clock.seconds()).map_err(|e| e.to_string())
        };
        let config = match shows {
            Shows::Mutual(names) => {
                let (chain, key) = own(names)?;
                let mut roots = rustls::RootCertStore::empty();
                roots.add(self.authority.root().clone()).map_err(|e| e.to_string())?;
                // T33: with the foreign roots a foreign peer completes the handshake. Only after it the peer is verified with the
                // bundle of its own trust domain; our bundle has only our own CAs.
                roots.add_parsable_certificates(self.foreign.roots());
                self.told(&chain);
                listen::tls(chain, &key, Some(roots), Some(self.clock.clone()))
            }
            Shows::Svid(names) => {
                let (mut chain, key) = own(names)?;
                // FE-6: the root is left out, because a SPIFFE client has it.
                chain.pop();
                self.told(&chain);
                listen::tls(chain, &key, None, Some(self.clock.clone()))
            }
            Shows::Web(certificate, key) => {
                let chain = read_chain(certificate)?;
                self.told(&chain);
                listen::tls_with(chain, read_key(key)?, None, None)
            }
        };
        Ok(Arc::new(config.map_err(|e| e.to_string())?))
    }
}

impl Tls {
    fn told(&self, chain: &[CertificateDer<'_>]) {
        let Some(Ok((_, leaf))) = chain.first().map(|leaf| x509_parser::parse_x509_certificate(leaf)) else { return };
        gauges::certificate(self.listener, u64::try_from(leaf.validity().not_after.timestamp()).unwrap_or(0));
    }
}

/// Whether a certificate and its key can be read and belong together.
pub(super) fn readable(certificate: &Path, key: &Path) -> Result<(), String> {
    listen::tls_with(read_chain(certificate)?, read_key(key)?, None, None).map(drop).map_err(|e| e.to_string())
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = |e: &dyn std::fmt::Display| format!("`{}`: {e}", path.display());
    let chain = CertificateDer::pem_file_iter(path).map_err(|e| text(&e))?.collect::<Result<Vec<_>, _>>();
    chain.map_err(|e| text(&e))
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path).map_err(|e| format!("`{}`: {e}", path.display()))
}
