//! Authority: the signing keys. The root certifies X.509 authorities, JWT authorities have keys of their own, and both kinds
//! rotate. Heartbeats are signed with a separate key.

mod crl;
pub mod jwt;
mod root;
pub mod schedule;
mod seal;
pub mod x509;

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::hmac;
use mayfly_verify::{BindingOid, Bundle, BundleError, TrustDomain};
use parking_lot::RwLock;
use rcgen::KeyPair;
use rustls_pki_types::CertificateDer;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::denial::Fault;
use crate::judge::serial_of;
use crate::keys::keystore::{Keystore, KeystoreError};
use crate::keys::{LocalKey, Signer};
use crate::state::authority::{Authorities, Kind, Slot, Status};
use crate::svid;
use crate::svid::x509::Name;
pub use crl::{Crl, Span};
use jwt::JwtAuthority;
use root::Root;
pub use root::RootFiles;
pub use seal::Seal;
use x509::X509Authority;

/// Longest lifetime of the server's own certificate, in seconds.
const SERVER_LIFE: u64 = 7 * 86_400;
/// Seconds between the start of validity and the signing of a certificate for an authority or for the server itself, for peers
/// whose clocks are behind.
const BACKDATE: u64 = 60;

/// Why the signing keys cannot be opened, loaded or made.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file of keys cannot be read or written, or its mode is too open.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
    /// A file has other contents than expected, or a certificate does not belong to its key. The first field names the file or
    /// the key.
    #[error("`{0}` cannot be used: {1}")]
    Unusable(String, String),
    /// The root is for development and the issuer is not, or the other way round.
    #[error("the root of this home is {0}: use another `home`")]
    WrongKind(&'static str),
}

impl AuthorityError {
    fn unusable(name: &str, why: impl std::fmt::Display) -> AuthorityError {
        AuthorityError::Unusable(name.to_owned(), why.to_string())
    }
}

/// Every signing key of this issuer.
pub struct Authority {
    trust_domain: TrustDomain,
    keystore: Keystore,
    root: Root,
    feed: Box<dyn Signer>,
    tickets: hmac::Key,
    oid: BindingOid,
    // Guards the X.509 authorities whose keys are in memory, by id. It is held for a look-up or an insertion, never for a
    // signature.
    x509: RwLock<HashMap<Arc<str>, Arc<X509Authority>>>,
    // Guards the JWT authorities whose keys are in memory, by id. It is held for a look-up or an insertion, never for a
    // signature.
    jwt: RwLock<HashMap<Arc<str>, Arc<JwtAuthority>>>,
}

/// A signed certificate with its intermediates.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The leaf certificate.
    pub leaf: CertificateDer<'static>,
    /// The intermediates: the authority's certificate, then those above it. The root of our bundle is not among them.
    pub above: Arc<[CertificateDer<'static>]>,
}

impl Signed {
    /// The chain as DER certificates, leaf first.
    pub fn chain(&self) -> Vec<Vec<u8>> {
        std::iter::once(&self.leaf).chain(self.above.iter()).map(|c| c.to_vec()).collect()
    }
}

impl Authority {
    /// Opens the root, the key of heartbeats and the key of tickets, and makes those that are missing. `files` is the root that
    /// the operator brings; `None` means a root in the keystore. `now` is in Unix seconds. [`Authority::load`] loads the
    /// authorities.
    pub fn open(
        keystore: Keystore,
        td: &TrustDomain,
        oid: &BindingOid,
        files: Option<&RootFiles>,
        development: bool,
        now: u64,
    ) -> Result<Authority, AuthorityError> {
        let root = Root::open(&keystore, td, files, development, now)?;
        let feed = LocalKey::from_pkcs8(key(&keystore, "feed.key")?.serialized_der());
        let feed = Box::new(feed.map_err(|e| AuthorityError::unusable("feed.key", e))?);
        Ok(Authority {
            trust_domain: td.clone(),
            root,
            feed,
            tickets: ticket_key(&keystore)?,
            keystore,
            oid: oid.clone(),
            x509: RwLock::default(),
            jwt: RwLock::default(),
        })
    }

    /// Loads the keys of the recorded authorities, and deletes keys that belong to no recorded authority. A retired X.509 authority signs
    /// CRLs as long as one of its certificates may be valid.
    ///
    /// Returns the ids of those authorities that should sign and whose key is missing or unusable, each with the reason. Fails if the keystore cannot
    /// be read, or is too open.
    pub fn load(&self, authorities: &Authorities) -> Result<Vec<(Arc<str>, String)>, AuthorityError> {
        let mut missing = Vec::new();
        let signs = |s: &&Slot| match s.status {
            Status::Prepared | Status::Active => true,
            Status::Retired => s.kind == Kind::X509,
            Status::Tainted => false,
        };
        for slot in authorities.slots.iter().filter(signs) {
            let loaded = match slot.kind {
                Kind::X509 => X509Authority::load(&self.keystore, &self.root, slot).map(|a| self.hold_x509(a)),
                Kind::Jwt | Kind::Rs256 => JwtAuthority::load(&self.keystore, slot).map(|a| self.hold_jwt(a)),
            };
            match loaded {
                Ok(()) => {}
                // A keystore that is too open, or unreadable, is never ignored.
                Err(AuthorityError::Keystore(e)) => return Err(e.into()),
                Err(e) if slot.status == Status::Retired => tracing::warn!(authority = %slot.id, %e, "no CRL can be signed"),
                Err(e) => missing.push((Arc::clone(&slot.id), e.to_string())),
            }
        }
        // T83: a key whose authority was never recorded, or was tainted, is deleted.
        for kind in Kind::ALL {
            for name in self.keystore.names(&format!("{kind}-"))? {
                let known = authorities.of(kind).any(|s| s.status != Status::Tainted && key_name(kind, &s.id) == name);
                if !known {
                    self.keystore.remove(&name)?;
                }
            }
        }
        Ok(missing)
    }

    /// Makes an authority that expires at `ends_at`, or with the root if that is earlier and the authority is an X.509 one. Its
    /// key is in the keystore; the caller records the slot. `ends_at` and `now` are in Unix seconds.
    pub fn make(&self, kind: Kind, ends_at: u64, now: u64) -> Result<Slot, AuthorityError> {
        let slot = match kind {
            Kind::X509 => {
                let made = X509Authority::make(&self.keystore, &self.trust_domain, &self.root, ends_at, now)?;
                let slot = made.slot();
                self.hold_x509(made);
                slot
            }
            Kind::Jwt | Kind::Rs256 => {
                let made = JwtAuthority::make(&self.keystore, kind)?;
                let slot = made.slot(ends_at);
                self.hold_jwt(made);
                slot
            }
        };
        Ok(slot)
    }

    /// Deletes the key of an authority that no longer signs, or was never recorded.
    pub fn destroy(&self, kind: Kind, id: &str) -> Result<(), AuthorityError> {
        match kind {
            Kind::X509 => drop(self.x509.write().remove(id)),
            Kind::Jwt | Kind::Rs256 => drop(self.jwt.write().remove(id)),
        }
        Ok(self.keystore.remove(&key_name(kind, id))?)
    }

    /// Signs with the X.509 authority `id`. Fails if its key is not loaded, or if the certificate is not what was to be signed.
    fn sign_x509(&self, id: &str, unsigned: &svid::x509::Unsigned) -> Result<Signed, Fault> {
        let authority = self.x509.read().get(id).cloned();
        let authority = authority.ok_or_else(|| Fault::new("sign x509", format!("no key of authority `{id}`")))?;
        authority.sign(unsigned, &self.trust_domain, &self.oid)
    }

    /// Signs with the JWT authority `id`. Fails if its key is not loaded, or if the claims are not what was to be signed.
    fn sign_jwt<C: svid::jwt::Claims>(&self, id: &str, unsigned: &C) -> Result<String, Fault> {
        let authority = self.jwt.read().get(id).cloned();
        let authority = authority.ok_or_else(|| Fault::new("sign jwt", format!("no key of authority `{id}`")))?;
        authority.sign(unsigned)
    }

    /// Signs an introspection response of `issuer` for `audience` at `now` (Unix seconds), with the JWT authority `id`. It grants
    /// nothing, so it is not recorded.
    pub fn sign_introspection(&self, id: &str, issuer: &str, audience: &str, now: u64, said: Value) -> Result<String, Fault> {
        self.sign_jwt(id, &svid::introspection::response(issuer, audience, now, said))
    }

    /// The root certificate in our bundle, which is self-signed.
    pub fn root(&self) -> &CertificateDer<'static> {
        self.root.anchor()
    }

    /// When the CA that signs X.509 authorities expires, in Unix seconds.
    pub fn root_ends_at(&self) -> u64 {
        self.root.ends_at()
    }

    /// OID of the binding.
    pub fn oid(&self) -> &BindingOid {
        &self.oid
    }

    /// SHA-256 of the root's `SubjectPublicKeyInfo`, which tickets pin.
    pub fn root_pin(&self) -> [u8; 32] {
        self.root.pin()
    }

    /// The bundle of the root and the recorded JWT authorities, except tainted ones. Its sequence is the revision of
    /// `authorities`. `refresh_hint` is in seconds. Fails if a recorded public key is malformed.
    pub fn bundle(&self, authorities: &Authorities, refresh_hint: u64) -> Result<Bundle, BundleError> {
        let jwt = authorities.slots.iter().filter(|s| s.kind.is_jwt() && s.status != Status::Tainted);
        let jwt = jwt.map(jwt::public).collect::<Result<Vec<_>, _>>()?;
        let roots = vec![self.root().to_vec()];
        Ok(Bundle::new(self.trust_domain.clone(), roots, jwt, authorities.revision, refresh_hint))
    }

    /// The secret of the ticket for a request. It is derived from the digest `request`, so that a retry gets the same secret.
    pub fn ticket_secret(&self, request: &[u8; 32]) -> Zeroizing<[u8; 32]> {
        let mut secret = Zeroizing::new([0u8; 32]);
        secret.copy_from_slice(hmac::sign(&self.tickets, request).as_ref());
        secret
    }

    /// Signs a heartbeat with the feed's key. The signature has 64 bytes.
    pub fn sign_heartbeat(&self, message: &[u8]) -> Result<Vec<u8>, Fault> {
        self.feed.sign(message).map(|signature| signature.to_vec())
    }

    /// The feed's public key: an uncompressed P-256 point, 65 bytes.
    pub fn feed_key(&self) -> Vec<u8> {
        self.feed.point().to_vec()
    }

    /// Whether the feed's key signed a heartbeat.
    pub fn is_heartbeat(&self, message: &[u8], signature: &[u8]) -> bool {
        let alg = &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED;
        aws_lc_rs::signature::UnparsedPublicKey::new(alg, self.feed.point()).verify(message, signature).is_ok()
    }

    /// Makes a key and a certificate for our own server, signed by the X.509 authority `by`. Returns the chain of leaf,
    /// intermediates and root, and the key in PKCS#8 DER. `now` is in Unix seconds.
    ///
    /// The chain includes the root, so that a client that has only a ticket's pin can verify it.
    pub fn server_certificate(
        &self,
        by: &Slot,
        names: &[String],
        now: u64,
    ) -> Result<(Vec<CertificateDer<'static>>, Zeroizing<Vec<u8>>), Fault> {
        let fault = |e: &dyn std::fmt::Display| Fault::new("server certificate", e);
        let key = KeyPair::generate().map_err(|e| fault(&e))?;
        let names = names.iter().map(|name| name.parse().map_or_else(|_| Name::Dns(name.clone()), Name::Ip)).collect();
        let spki = rcgen::PublicKeyData::subject_public_key_info(&key);
        let ends_at = (now + SERVER_LIFE).min(by.ends_at);
        let serial = serial().map_err(|e| fault(&e))?.to_vec();
        let unsigned = svid::x509::server(&self.trust_domain, names, &spki, serial, now.saturating_sub(BACKDATE), ends_at);
        let signed = self.sign_x509(&by.id, &unsigned)?;
        let chain = std::iter::once(signed.leaf).chain(signed.above.iter().cloned());
        Ok((chain.chain([self.root().clone()]).collect(), Zeroizing::new(key.serialize_der())))
    }

    fn hold_x509(&self, authority: X509Authority) {
        self.x509.write().insert(Arc::clone(authority.id()), Arc::new(authority));
    }

    fn hold_jwt(&self, authority: JwtAuthority) {
        self.jwt.write().insert(Arc::clone(authority.id()), Arc::new(authority));
    }
}

/// File name of an authority's key in the keystore.
fn key_name(kind: Kind, id: &str) -> String {
    format!("{kind}-{id}.key")
}

/// Reads the key `name`, or makes it.
// T46: the public key is always derived from the private one.
fn key(keystore: &Keystore, name: &str) -> Result<KeyPair, AuthorityError> {
    if let Some(text) = keystore.read(name)? {
        return KeyPair::from_pem(&text).map_err(|e| AuthorityError::unusable(name, e));
    }
    let key = KeyPair::generate().map_err(|e| AuthorityError::unusable(name, e))?;
    keystore.write(name, Zeroizing::new(key.serialize_pem()).as_bytes())?;
    Ok(key)
}

/// Reads or makes the key from which [`Authority::ticket_secret`] derives secrets.
fn ticket_key(keystore: &Keystore) -> Result<hmac::Key, AuthorityError> {
    const NAME: &str = "tickets.key";
    let unusable = |e: &dyn std::fmt::Display| AuthorityError::unusable(NAME, e);
    let mut bytes = Zeroizing::new([0u8; 32]);
    match keystore.read(NAME)? {
        Some(text) => hex::decode_to_slice(text.trim(), bytes.as_mut_slice()).map_err(|e| unusable(&e))?,
        None => {
            aws_lc_rs::rand::fill(bytes.as_mut_slice()).map_err(|e| unusable(&e))?;
            keystore.write(NAME, Zeroizing::new(hex::encode(bytes.as_slice())).as_bytes())?;
        }
    }
    Ok(hmac::Key::new(hmac::HMAC_SHA256, bytes.as_slice()))
}

/// A random serial number.
fn serial() -> Result<[u8; 16], aws_lc_rs::error::Unspecified> {
    let mut random = [0u8; 16];
    aws_lc_rs::rand::fill(&mut random)?;
    Ok(serial_of(random))
}

/// The PEM text of one DER document.
pub fn pem(tag: &str, der: &[u8]) -> String {
    ::pem::encode_config(&::pem::Pem::new(tag, der), ::pem::EncodeConfig::new().set_line_ending(::pem::LineEnding::LF))
}
