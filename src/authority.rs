//! Room 6: who signs. A root, below it X.509 authorities, beside it JWT authorities; both rotate. Heartbeats have a key too.

pub mod jwt;
pub mod keystore;
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
use zeroize::Zeroizing;

use crate::denial::Fault;
use crate::judge::serial_of;
use crate::keys::{LocalKey, Signer};
use crate::state::authority::{Authorities, Kind, Slot, Status};
use crate::svid;
use crate::svid::x509::Name;
use jwt::JwtAuthority;
use keystore::{Keystore, KeystoreError};
use root::Root;
pub use root::RootFiles;
pub use seal::Seal;
use x509::X509Authority;

/// Seconds the server's own certificate lasts at most.
const SERVER_LIFE: u64 = 7 * 86_400;
/// How long before its signature a certificate of an authority or of the server itself begins, in seconds, for peers whose
/// clocks are behind.
const BACKDATE: u64 = 60;

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The keystore refused.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
    /// A file holds something else, or a certificate does not belong to its key.
    #[error("`{0}` cannot be used: {1}")]
    Unusable(String, String),
    /// A root for development under `serve`, or the other way round.
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
    // Guards which authorities have their keys in memory; it is held for a look-up or an insertion, never for a signature.
    x509: RwLock<HashMap<Arc<str>, Arc<X509Authority>>>,
    // The same.
    jwt: RwLock<HashMap<Arc<str>, Arc<JwtAuthority>>>,
}

/// A chain as it leaves: the leaf, and what stands between it and the root.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The leaf.
    pub leaf: CertificateDer<'static>,
    /// The authority's certificate first; never our root.
    pub above: Arc<[CertificateDer<'static>]>,
}

impl Signed {
    /// DER certificates, leaf first.
    pub fn chain(&self) -> Vec<Vec<u8>> {
        std::iter::once(&self.leaf).chain(self.above.iter()).map(|c| c.to_vec()).collect()
    }
}

impl Authority {
    /// Opens the keystore, and makes what is missing. `now` is in unix seconds. Authorities come with [`Authority::load`].
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

    /// Loads the keys of the recorded authorities, and throws away those that no record knows.
    ///
    /// Gives the ids of those that could sign and have no usable key, with the reason.
    pub fn load(&self, authorities: &Authorities) -> Result<Vec<(Arc<str>, String)>, AuthorityError> {
        let mut missing = Vec::new();
        for slot in authorities.slots.iter().filter(|s| matches!(s.status, Status::Prepared | Status::Active)) {
            let loaded = match slot.kind {
                Kind::X509 => X509Authority::load(&self.keystore, &self.root, slot).map(|a| self.hold_x509(a)),
                Kind::Jwt => JwtAuthority::load(&self.keystore, slot).map(|a| self.hold_jwt(a)),
            };
            match loaded {
                Ok(()) => {}
                // Who may read our keys is never passed over.
                Err(AuthorityError::Keystore(e)) => return Err(e.into()),
                Err(e) => missing.push((Arc::clone(&slot.id), e.to_string())),
            }
        }
        // T83: a key whose authority was never recorded.
        for kind in [Kind::X509, Kind::Jwt] {
            for name in self.keystore.names(&format!("{kind}-"))? {
                let known = authorities.of(kind).any(|s| s.status != Status::Tainted && key_name(kind, &s.id) == name);
                if !known {
                    self.keystore.remove(&name)?;
                }
            }
        }
        Ok(missing)
    }

    /// Makes an authority that lasts until `ends_at` (unix seconds) or as long as the root: its key is in the keystore, and
    /// nothing is recorded yet.
    pub fn make(&self, kind: Kind, ends_at: u64, now: u64) -> Result<Slot, AuthorityError> {
        let slot = match kind {
            Kind::X509 => {
                let made = X509Authority::make(&self.keystore, &self.trust_domain, &self.root, ends_at, now)?;
                let slot = made.slot();
                self.hold_x509(made);
                slot
            }
            Kind::Jwt => {
                let made = JwtAuthority::make(&self.keystore)?;
                let slot = made.slot(ends_at);
                self.hold_jwt(made);
                slot
            }
        };
        Ok(slot)
    }

    /// Destroys the key of an authority that signs nothing any more, or was never recorded.
    pub fn destroy(&self, kind: Kind, id: &str) -> Result<(), AuthorityError> {
        match kind {
            Kind::X509 => drop(self.x509.write().remove(id)),
            Kind::Jwt => drop(self.jwt.write().remove(id)),
        }
        Ok(self.keystore.remove(&key_name(kind, id))?)
    }

    /// Signs with an X.509 authority, by the id of its slot.
    fn sign_x509(&self, id: &str, unsigned: &svid::x509::Unsigned) -> Result<Signed, Fault> {
        let authority = self.x509.read().get(id).cloned();
        let authority = authority.ok_or_else(|| Fault::new("sign x509", format!("no key of authority `{id}`")))?;
        authority.sign(unsigned, &self.trust_domain, &self.oid)
    }

    /// Signs with a JWT authority, by the id of its slot.
    fn sign_jwt(&self, id: &str, unsigned: &svid::jwt::Unsigned) -> Result<String, Fault> {
        let authority = self.jwt.read().get(id).cloned();
        let authority = authority.ok_or_else(|| Fault::new("sign jwt", format!("no key of authority `{id}`")))?;
        authority.sign(unsigned)
    }

    /// The root certificate; never one that somebody else signed.
    pub fn root(&self) -> &CertificateDer<'static> {
        self.root.anchor()
    }

    /// Unix seconds at which the root ends.
    pub fn root_ends_at(&self) -> u64 {
        self.root.ends_at()
    }

    /// Under which OID the binding stands.
    pub fn oid(&self) -> &BindingOid {
        &self.oid
    }

    /// SHA-256 of the root's `SubjectPublicKeyInfo`: what a ticket pins.
    pub fn root_pin(&self) -> [u8; 32] {
        self.root.pin()
    }

    /// The public half of what is recorded. `refresh_hint` is in seconds.
    pub fn bundle(&self, authorities: &Authorities, refresh_hint: u64) -> Result<Bundle, BundleError> {
        let published = authorities.of(Kind::Jwt).filter(|s| s.status != Status::Tainted);
        let jwt = published.map(|s| jwt::public(&s.id, &s.public)).collect::<Result<Vec<_>, _>>()?;
        let roots = vec![self.root().to_vec()];
        Ok(Bundle::new(self.trust_domain.clone(), roots, jwt, authorities.revision, refresh_hint))
    }

    /// The secret of a ticket that a request may ask for again.
    pub fn ticket_secret(&self, request: &[u8; 32]) -> Zeroizing<[u8; 32]> {
        let mut secret = Zeroizing::new([0u8; 32]);
        secret.copy_from_slice(hmac::sign(&self.tickets, request).as_ref());
        secret
    }

    /// Signs a heartbeat, with a key of its own.
    pub fn sign_heartbeat(&self, message: &[u8]) -> Result<Vec<u8>, Fault> {
        self.feed.sign(message).map(|signature| signature.to_vec())
    }

    /// The public half of that key: an uncompressed P-256 point.
    pub fn feed_key(&self) -> Vec<u8> {
        self.feed.point().to_vec()
    }

    /// Whether a heartbeat is ours.
    pub fn is_heartbeat(&self, message: &[u8], signature: &[u8]) -> bool {
        let alg = &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED;
        aws_lc_rs::signature::UnparsedPublicKey::new(alg, self.feed.point()).verify(message, signature).is_ok()
    }

    /// A fresh certificate and key for our own server, signed by the X.509 authority in the slot: leaf, authority, root.
    ///
    /// The root goes along so that a ticket's pin is enough to know it.
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

fn key_name(kind: Kind, id: &str) -> String {
    format!("{kind}-{id}.key")
}

// T46: the public half is derived from the private one; a certificate that does not fit it is refused.
fn key(keystore: &Keystore, name: &str) -> Result<KeyPair, AuthorityError> {
    if let Some(text) = keystore.read(name)? {
        return KeyPair::from_pem(&text).map_err(|e| AuthorityError::unusable(name, e));
    }
    let key = KeyPair::generate().map_err(|e| AuthorityError::unusable(name, e))?;
    keystore.write(name, Zeroizing::new(key.serialize_pem()).as_bytes())?;
    Ok(key)
}

/// From it the secrets of tickets are derived that a retry must give again.
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

/// PEM of one DER document.
pub fn pem(tag: &str, der: &[u8]) -> String {
    ::pem::encode_config(&::pem::Pem::new(tag, der), ::pem::EncodeConfig::new().set_line_ending(::pem::LineEnding::LF))
}
