//! HTTPS clients for everything that this issuer fetches: keys of OIDC providers, and bundles of foreign trust domains. They follow
//! no redirect, use no proxy, and have bounds.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::{Client, ClientBuilder, redirect};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Bound of one request.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);

/// Why an HTTPS client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The CA file cannot be read.
    #[error("the CA file `{0}` cannot be read: {1}")]
    Read(PathBuf, std::io::Error),
    /// The CA file has no certificate that can be used.
    #[error("the CA file `{0}` has no usable certificate: put the provider's root there, as PEM")]
    NoRoots(PathBuf),
    /// TLS cannot be set up, for instance because the system has no root certificates.
    #[error("the TLS client cannot be set up: {0}")]
    Tls(String),
}

impl ClientError {
    /// The stable label of this error.
    pub fn code(&self) -> &'static str {
        match self {
            ClientError::Read(..) => "CA_FILE_UNREADABLE",
            ClientError::NoRoots(_) => "CA_FILE_EMPTY",
            ClientError::Tls(_) => "TLS_CLIENT",
        }
    }
}

/// Makes an HTTPS client that follows no redirect and uses no proxy. It trusts only the roots in `ca_file`; `None` means the
/// roots of the system.
pub(crate) fn https_client(ca_file: Option<&Path>) -> Result<Client, ClientError> {
    if let Some(file) = ca_file {
        return https_client_over(tls_with_roots(file)?);
    }
    // The system verifier uses the default provider of the process, and would panic without one. A provider that is already
    // installed stays.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    built(bounds())
}

/// A client whose CA file is read again before it is used, so that another root needs no restart.
pub(crate) struct Renewing {
    ca_file: Option<PathBuf>,
    // Guards the client with the SHA-256 of the file that it was made from. Held for a copy.
    made: Mutex<([u8; 32], Client)>,
}

impl Renewing {
    /// Makes the first client, as [`https_client`] does.
    pub(crate) fn new(ca_file: Option<&Path>) -> Result<Renewing, ClientError> {
        let digest = digest_of(ca_file);
        Ok(Renewing { ca_file: ca_file.map(Path::to_owned), made: Mutex::new((digest, https_client(ca_file)?)) })
    }

    /// A client with the roots that are in the file now. If they cannot be used, the previous client.
    pub(crate) async fn client(self: &Arc<Self>) -> Client {
        let this = Arc::clone(self);
        let _ = tokio::task::spawn_blocking(move || this.look()).await;
        self.made.lock().1.clone()
    }

    fn look(&self) {
        let Some(file) = self.ca_file.as_deref() else { return };
        let digest = digest_of(Some(file));
        if self.made.lock().0 == digest {
            return;
        }
        match https_client(Some(file)) {
            Ok(client) => {
                tracing::info!(file = %file.display(), "the CA file has changed and is used");
                *self.made.lock() = (digest, client);
            }
            Err(cause) => tracing::warn!(%cause, "the CA file has changed and cannot be used: the roots from before are"),
        }
    }
}

fn digest_of(file: Option<&Path>) -> [u8; 32] {
    file.and_then(|file| std::fs::read(file).ok()).map_or([0; 32], |bytes| mayfly_verify::sha256(&bytes))
}

/// The same for what is signed by itself: it may also ask without TLS.
pub(crate) fn open_client(ca_file: Option<&Path>) -> Result<Client, ClientError> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let builder = match ca_file {
        Some(file) => bounds().tls_backend_preconfigured(tls_with_roots(file)?),
        None => bounds(),
    };
    built(builder.https_only(false))
}

/// Makes an HTTPS client with the same bounds, over the caller's TLS configuration.
pub(crate) fn https_client_over(tls: rustls::ClientConfig) -> Result<Client, ClientError> {
    built(bounds().tls_backend_preconfigured(tls))
}

fn bounds() -> ClientBuilder {
    Client::builder()
        .https_only(true)
        .no_proxy()
        .redirect(redirect::Policy::none())
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(TIMEOUT)
}

fn built(builder: ClientBuilder) -> Result<Client, ClientError> {
    builder.build().map_err(|e| ClientError::Tls(with_causes(&e)))
}

fn tls_with_roots(file: &Path) -> Result<rustls::ClientConfig, ClientError> {
    let pem = std::fs::read(file).map_err(|e| ClientError::Read(file.to_owned(), e))?;
    let mut roots = rustls::RootCertStore::empty();
    for (at, cert) in CertificateDer::pem_slice_iter(&pem).enumerate() {
        // Bundles of corporate CAs may contain unusable certificates. Leaving one out only trusts less.
        let added = cert.map_err(|e| e.to_string()).and_then(|cert| roots.add(cert).map_err(|e| e.to_string()));
        if let Err(cause) = added {
            let (file, number) = (file.display().to_string(), at + 1);
            tracing::warn!(file, number, cause, "a certificate of the CA file cannot be used, and is left out");
        }
    }
    if roots.is_empty() {
        return Err(ClientError::NoRoots(file.to_owned()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| ClientError::Tls(e.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// The text of an error and of all its causes.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text = format!("{text}: {e}");
        cause = e.source();
    }
    text
}
