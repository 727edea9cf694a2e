//! Decodes a message of X.509-SVIDs, completely or not at all.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use mayfly_verify::{Binding, BindingOid, SpiffeId, TrustDomain, inspect_x509, parse_spiffe_id};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::Lost;
use crate::api::workload as api;
use crate::identity::leaf::Leaf;

/// Most SVIDs in one message.
const MAX_SVIDS: usize = 64;
/// Longest hint, in bytes (WA-7).
const MAX_HINT: usize = 1024;
/// Most certificates in one chain or bundle.
const MAX_CERTIFICATES: usize = 1000;

/// DER roots by trust domain.
pub(super) type Roots = BTreeMap<String, Vec<Vec<u8>>>;

/// One X.509-SVID with its key. It can sign, but the key cannot be extracted.
pub struct Svid {
    id: SpiffeId,
    hint: String,
    ends_at: SystemTime,
    certified: Arc<CertifiedKey>,
}

/// The identities that a Workload API provides now.
#[derive(Clone, Debug, Default)]
pub struct Current {
    pub(super) svids: Vec<Arc<Svid>>,
    pub(super) lost: Option<Lost>,
}

impl Svid {
    /// Our SPIFFE ID.
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.id
    }

    /// Distinguishes it from our other identities; empty if the API gives no hint.
    pub fn hint(&self) -> &str {
        &self.hint
    }

    /// When the certificate expires.
    pub fn expires_at(&self) -> SystemTime {
        self.ends_at
    }

    /// The leaf, then its issuing CAs.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// The chain with its key, for a rustls configuration.
    pub fn certified_key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }

    /// The binding of a Mayfly agent. `None` for a workload, and always `None` from a SPIRE.
    pub fn binding(&self, oid: &BindingOid) -> Option<Binding> {
        inspect_x509(self.certified.cert.first()?, self.id.trust_domain(), oid).ok()?.binding
    }
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid").field("id", &self.id.to_string()).field("hint", &self.hint).finish_non_exhaustive()
    }
}

impl Current {
    /// The default identity: the first (CL-6). `None` if there is none now.
    pub fn svid(&self) -> Option<&Arc<Svid>> {
        self.svids.first()
    }

    /// All of them, the default first.
    pub fn svids(&self) -> &[Arc<Svid>] {
        &self.svids
    }

    /// The identity with this hint. `None` if there is none or its certificate has expired.
    pub fn hinted(&self, hint: &str) -> Option<&Arc<Svid>> {
        self.svids.iter().find(|svid| svid.hint == hint && svid.ends_at > SystemTime::now())
    }

    /// Why there is no identity any more. `None` if there is an identity, or if there has not been one yet.
    pub fn lost(&self) -> Option<&Lost> {
        self.lost.as_ref()
    }
}

/// Decodes the SVIDs and every X.509 bundle, or says what is missing in the message (CL-3).
pub(super) fn read(message: api::X509svidResponse) -> Result<(Vec<Arc<Svid>>, Roots), &'static str> {
    if message.svids.is_empty() || message.svids.len() > MAX_SVIDS {
        return Err("there are no SVIDs, or too many");
    }
    let (mut svids, mut roots): (Vec<Arc<Svid>>, _) = (Vec::new(), Roots::new());
    for entry in message.svids {
        let (svid, bundle) = read_one(entry)?;
        roots.entry(svid.id.trust_domain_name().to_owned()).or_insert(bundle);
        // CL-6: of two SVIDs with the same hint the first counts.
        if svid.hint.is_empty() || svids.iter().all(|other| other.hint != svid.hint) {
            svids.push(Arc::new(svid));
        }
    }
    for (name, ders) in message.federated_bundles {
        // FC-6: the bundle of our own trust domain comes with our SVID. A bundle that cannot be read is treated as absent.
        let (Some(name), Some(bundle)) = (trust_domain(&name), certificates(&ders)) else { continue };
        if !bundle.is_empty() {
            roots.entry(name.to_string()).or_insert_with(|| bundle.iter().map(|der| der.to_vec()).collect());
        }
    }
    Ok((svids, roots))
}

/// Parses `spiffe://td`, in its one spelling.
pub(super) fn trust_domain(key: &str) -> Option<TrustDomain> {
    let id = parse_spiffe_id(key).ok().filter(|id| id.path().is_empty())?;
    Some(id.trust_domain().clone())
}

fn read_one(mut entry: api::X509svid) -> Result<(Svid, Vec<Vec<u8>>), &'static str> {
    let key = Zeroizing::new(std::mem::take(&mut entry.x509_svid_key));
    if entry.spiffe_id.is_empty() || entry.x509_svid.is_empty() || key.is_empty() || entry.bundle.is_empty() {
        return Err("a mandatory field is empty");
    }
    let chain = certificates(&entry.x509_svid).ok_or("the certificates cannot be read")?;
    let leaf = chain.first().and_then(|der| Leaf::read(der)).ok_or("the leaf is not an X.509-SVID")?;
    // The SPIFFE ID in the message must be the one in the certificate.
    if leaf.id.to_string() != entry.spiffe_id {
        return Err("the SPIFFE ID differs from the certificate's");
    }
    if entry.hint.len() > MAX_HINT {
        return Err("a hint is too long");
    }
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.as_slice()));
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&der).map_err(|_| "the key cannot be read")?;
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match().map_err(|_| "the key does not belong to the certificate")?;
    let bundle = certificates(&entry.bundle).ok_or("the bundle cannot be read")?;
    let bundle = bundle.iter().map(|der| der.to_vec()).collect();
    Ok((Svid { id: leaf.id, hint: entry.hint, ends_at: leaf.ends_at, certified: Arc::new(certified) }, bundle))
}

/// Splits DER certificates that follow one another. `None` if there is anything else among them.
fn certificates(mut ders: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let mut all = Vec::new();
    while !ders.is_empty() {
        let (left, _) = X509Certificate::from_der(ders).ok().filter(|_| all.len() < MAX_CERTIFICATES)?;
        all.push(CertificateDer::from(ders.get(..ders.len() - left.len())?.to_vec()));
        ders = left;
    }
    Some(all)
}
