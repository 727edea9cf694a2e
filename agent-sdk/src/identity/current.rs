//! What an identity is right now: one certificate with its key, and the bundles.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mayfly_verify::TrustDomain;
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
#[cfg(feature = "workload-api")]
use zeroize::Zeroizing;

use super::key::Key;
use super::{Foreign, IdentityError};
use crate::api::v1;

/// One certificate with its key, and the bundles as they were then. It has no `Debug`, because of the key.
pub struct Current {
    held: Arc<Held>,
    bundle: Arc<v1::Bundle>,
    /// Of the bundle: it never goes back (BU-2).
    sequence: u64,
    foreign: Option<Foreign>,
    /// How often the bundle is to be looked for.
    refresh: Duration,
}

struct Held {
    spiffe_id: String,
    #[cfg(feature = "workload-api")]
    key: Key,
    certified: Arc<CertifiedKey>,
    expires_at: SystemTime,
    agent: Option<v1::Agent>,
    revision: u64,
}

impl Current {
    /// Takes what the issuer answered only whole, and only if the certificate is this key's.
    #[cfg_attr(not(feature = "workload-api"), expect(clippy::needless_pass_by_value, reason = "kept for a Workload API"))]
    pub(super) fn new(
        key: Key,
        svid: Option<v1::X509Svid>,
        bundle: Option<v1::Bundle>,
        agent: Option<v1::Agent>,
        revision: u64,
    ) -> Result<Current, IdentityError> {
        let svid = svid.filter(|svid| !svid.certificates.is_empty()).ok_or(IdentityError::Answer("no certificate"))?;
        let bundle = bundle.filter(|b| !b.x509_authorities.is_empty()).ok_or(IdentityError::Answer("no bundle"))?;
        let (sequence, refresh) = hints(&bundle)?;
        let seconds = svid.expires_at.and_then(|at| u64::try_from(at.seconds).ok());
        let expires_at = UNIX_EPOCH + Duration::from_secs(seconds.ok_or(IdentityError::Answer("no end"))?);
        let certified = key.certified(svid.certificates.into_iter().map(CertificateDer::from).collect());
        certified.keys_match().map_err(|_| IdentityError::Answer("the certificate is for another key"))?;
        let held = Held {
            spiffe_id: svid.spiffe_id,
            #[cfg(feature = "workload-api")]
            key,
            certified: Arc::new(certified),
            expires_at,
            agent,
            revision,
        };
        Ok(Current { held: Arc::new(held), bundle: Arc::new(bundle), sequence, refresh, foreign: None })
    }

    /// The same with other bundles, if they are news.
    pub(super) fn with_bundles(&self, bundle: v1::Bundle, foreign: Foreign) -> Result<Option<Current>, IdentityError> {
        let (sequence, refresh) = hints(&bundle)?;
        let newer = sequence > self.sequence;
        let other = self.foreign.as_ref().is_none_or(|known| !known.same(&foreign));
        let told = Current { held: Arc::clone(&self.held), bundle: Arc::new(bundle), sequence, refresh, foreign: Some(foreign) };
        Ok((newer || other).then(|| self.hearing(&told)))
    }

    /// The same with what the issuer told of bundles. Of ours the newer counts: an answer may have been overtaken. The foreign
    /// ones come from one stream alone, and what it said last counts.
    pub(super) fn hearing(&self, told: &Current) -> Current {
        let newer = if told.sequence > self.sequence { told } else { self };
        Current {
            held: Arc::clone(&self.held),
            bundle: Arc::clone(&newer.bundle),
            sequence: newer.sequence,
            refresh: newer.refresh,
            foreign: told.foreign.clone(),
        }
    }

    /// Who we are.
    pub fn spiffe_id(&self) -> &str {
        &self.held.spiffe_id
    }

    /// The leaf, then its issuing CA; never the root.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.held.certified.cert
    }

    /// The chain with its key, for a rustls configuration. It signs, and the key cannot be taken from it.
    pub fn certified_key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.held.certified)
    }

    /// When the certificate ends.
    pub fn expires_at(&self) -> SystemTime {
        self.held.expires_at
    }

    /// The bundle of our trust domain.
    pub fn bundle(&self) -> &Arc<v1::Bundle> {
        &self.bundle
    }

    /// The bundles of the trust domains beside ours; none before the issuer has told which.
    pub fn foreign(&self) -> Option<&Foreign> {
        self.foreign.as_ref()
    }

    /// What the issuer said of us with this certificate; none for a workload.
    pub fn agent(&self) -> Option<&v1::Agent> {
        self.held.agent.as_ref()
    }

    /// Revision of the record that allowed this certificate. It moves with each renewal.
    pub fn revision(&self) -> u64 {
        self.held.revision
    }

    /// The key, as PKCS#8 in DER: for a Workload API, which hands it to the process whose key it is, and for nothing else.
    #[cfg(feature = "workload-api")]
    pub fn expose_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
        self.held.key.to_pkcs8()
    }

    /// When the lease ends: no renewal brings more.
    pub(super) fn lease_ends_at(&self) -> Option<SystemTime> {
        let seconds = u64::try_from(self.agent()?.lease_expires_at.as_ref()?.seconds).ok()?;
        Some(UNIX_EPOCH + Duration::from_secs(seconds))
    }

    pub(super) fn refresh(&self) -> Duration {
        self.refresh
    }

    pub(super) fn left(&self, now: SystemTime) -> Duration {
        self.expires_at().duration_since(now).unwrap_or_default()
    }
}

/// Only a bundle that can be read replaces another.
fn hints(bundle: &v1::Bundle) -> Result<(u64, Duration), IdentityError> {
    let unreadable = |_| IdentityError::Answer("the bundle cannot be read");
    let trust_domain = TrustDomain::new(&bundle.trust_domain).map_err(|_| IdentityError::Answer("the bundle is nobody's"))?;
    let read = mayfly_verify::Bundle::from_json(trust_domain, &bundle.spiffe_json).map_err(unreadable)?;
    let refresh = if read.refresh_hint() == 0 { Duration::MAX } else { Duration::from_secs(read.refresh_hint()) };
    Ok((read.sequence(), refresh))
}
