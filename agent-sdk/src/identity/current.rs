//! The current state of an identity: one certificate with its key, and the bundles.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mayfly_verify::{Bundle, TrustDomain};
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
#[cfg(feature = "workload-api")]
use zeroize::Zeroizing;

use super::{IdentityError, Key};
use crate::api::v1;
use crate::peers::Foreign;

/// One certificate with its key, and the bundles at that time. It has no `Debug`, because of the key.
pub struct Current {
    held: Arc<Held>,
    bundle: Arc<v1::Bundle>,
    /// The same bundle, parsed. Its sequence never decreases (BU-2).
    trust: Arc<Bundle>,
    foreign: Option<Foreign>,
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
    /// Accepts the issuer's answer only if it is complete, and if the certificate belongs to this key.
    #[cfg_attr(not(feature = "workload-api"), expect(clippy::needless_pass_by_value, reason = "kept for a Workload API"))]
    pub(super) fn new(
        key: Key,
        svid: Option<v1::X509Svid>,
        bundle: Option<v1::Bundle>,
        agent: Option<v1::Agent>,
        revision: u64,
    ) -> Result<Current, IdentityError> {
        let svid = svid.filter(|svid| !svid.certificates.is_empty()).ok_or(IdentityError::Answer("there is no certificate"))?;
        let bundle = bundle.filter(|b| !b.x509_authorities.is_empty()).ok_or(IdentityError::Answer("there is no bundle"))?;
        let trust = Arc::new(read(&bundle)?);
        let seconds = svid.expires_at.and_then(|at| u64::try_from(at.seconds).ok());
        let expires_at = UNIX_EPOCH + Duration::from_secs(seconds.ok_or(IdentityError::Answer("the certificate has no expiry"))?);
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
        Ok(Current { held: Arc::new(held), bundle: Arc::new(bundle), trust, foreign: None })
    }

    /// The same certificate with other bundles. `None` if the bundles have not changed.
    pub(super) fn with_bundles(&self, bundle: v1::Bundle, foreign: Foreign) -> Result<Option<Current>, IdentityError> {
        let trust = Arc::new(read(&bundle)?);
        let newer = trust.sequence() > self.trust.sequence();
        let differs = self.foreign.as_ref().is_none_or(|known| !known.same(&foreign));
        let other = Current { held: Arc::clone(&self.held), bundle: Arc::new(bundle), trust, foreign: Some(foreign) };
        Ok((newer || differs).then(|| self.with_bundles_of(&other)))
    }

    /// The same certificate with the bundles of `other`. The newer bundle of our own trust domain counts, because an answer may
    /// arrive late. The foreign bundles come from one stream alone, so its last message counts.
    pub(super) fn with_bundles_of(&self, other: &Current) -> Current {
        let newer = if other.trust.sequence() > self.trust.sequence() { other } else { self };
        Current {
            held: Arc::clone(&self.held),
            bundle: Arc::clone(&newer.bundle),
            trust: Arc::clone(&newer.trust),
            foreign: other.foreign.clone(),
        }
    }

    /// Our SPIFFE ID.
    pub fn spiffe_id(&self) -> &str {
        &self.held.spiffe_id
    }

    /// The leaf, then its issuing CA; never the root.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.held.certified.cert
    }

    /// The chain with its key, for a rustls configuration. It can sign, but the key cannot be extracted.
    pub fn certified_key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.held.certified)
    }

    /// When the certificate expires.
    pub fn expires_at(&self) -> SystemTime {
        self.held.expires_at
    }

    /// The bundle of our trust domain.
    pub fn bundle(&self) -> &Arc<v1::Bundle> {
        &self.bundle
    }

    /// The bundles of the foreign trust domains. `None` until the issuer has sent them.
    pub fn foreign(&self) -> Option<&Foreign> {
        self.foreign.as_ref()
    }

    /// The issuer's description of this agent, as of this certificate. `None` for a workload.
    pub fn agent(&self) -> Option<&v1::Agent> {
        self.held.agent.as_ref()
    }

    /// Revision of the record that allowed this certificate. Each renewal has a higher one.
    pub fn revision(&self) -> u64 {
        self.held.revision
    }

    /// The key, as PKCS#8 in DER. Only for a Workload API, which hands it to the process that the identity belongs to.
    #[cfg(feature = "workload-api")]
    pub fn expose_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
        self.held.key.expose_pkcs8()
    }

    /// When the lease ends, beyond which no renewal is possible. `None` for a workload.
    pub(super) fn lease_ends_at(&self) -> Option<SystemTime> {
        let seconds = u64::try_from(self.agent()?.lease_expires_at.as_ref()?.seconds).ok()?;
        Some(UNIX_EPOCH + Duration::from_secs(seconds))
    }

    /// The bundle of our trust domain, parsed for a verifier.
    pub(super) fn trust(&self) -> &Bundle {
        &self.trust
    }

    /// How often the bundle's publisher wants it to be checked.
    pub(super) fn refresh(&self) -> Duration {
        match self.trust.refresh_hint() {
            0 => Duration::MAX,
            seconds => Duration::from_secs(seconds),
        }
    }

    pub(super) fn left(&self, now: SystemTime) -> Duration {
        self.expires_at().duration_since(now).unwrap_or_default()
    }
}

/// Parses a bundle. One that cannot be parsed never replaces another.
fn read(bundle: &v1::Bundle) -> Result<Bundle, IdentityError> {
    let unreadable = |_| IdentityError::Answer("the bundle cannot be read");
    let trust_domain =
        TrustDomain::new(&bundle.trust_domain).map_err(|_| IdentityError::Answer("the bundle has no valid trust domain"))?;
    Bundle::from_json(trust_domain, &bundle.spiffe_json).map_err(unreadable)
}
