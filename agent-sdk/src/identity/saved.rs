//! An agent's identity that was saved in files: its certificates, its key, and the roots of the bundle.

use std::path::Path;

use mayfly_verify::{AgentId, TrustDomain};
use rustls_pki_types::CertificateDer;

use super::leaf::Leaf;
use super::{IdentityError, Over};
use crate::folder::{self, certificates_from_pem, key_from_pem};
use crate::tls::{self, CurrentIdentity};
use crate::validity::{self, OutOfTime};

/// An agent's identity as it was saved. It was checked: its parts belong together.
///
/// It has no `Debug`, because of the key.
pub struct Saved {
    agent: AgentId,
    pub(super) shown: CurrentIdentity,
    pub(super) roots: Vec<CertificateDer<'static>>,
}

impl Saved {
    /// Reads the folder that `mayfly spawn --out DIR`, `redeem --out DIR` and `renew --as DIR` write: `svid.pem`, `key.pem` and
    /// `bundle.pem`. A `key.pem` that others may read is refused (T27).
    pub fn from_folder(dir: &Path) -> Result<Saved, IdentityError> {
        let unusable = |e: folder::FolderError| unusable(e.to_string());
        Saved::of(folder::identity(dir).map_err(unusable)?, folder::roots(dir).map_err(unusable)?)
    }

    /// Reads PEM: the certificates, leaf first; the key, PKCS#8; the roots of the trust domain's bundle.
    pub fn from_pem(chain: &[u8], key: &[u8], roots: &[u8]) -> Result<Saved, IdentityError> {
        let of = |what: &str, e: folder::PemError| unusable(format!("{what}: {e}"));
        let chain = certificates_from_pem(chain).map_err(|e| of("the chain", e))?;
        let roots = certificates_from_pem(roots).map_err(|e| of("the bundle", e))?;
        let key = key_from_pem(key).map_err(|e| of("the key", e))?;
        Saved::of(tls::Identity { chain, key: key.into() }, roots)
    }

    fn of(identity: tls::Identity, roots: Vec<CertificateDer<'static>>) -> Result<Saved, IdentityError> {
        let leaf = identity.chain.first().and_then(|der| Leaf::read(der));
        let leaf = leaf.ok_or_else(|| unusable("its first certificate is not an X.509-SVID"))?;
        let agent = AgentId::parse(&leaf.id.to_string());
        let agent = agent.map_err(|_| unusable(format!("`{}` is not an agent: a workload joins with a join token", leaf.id)))?;
        let shown = CurrentIdentity::new(identity);
        let shown = shown.map_err(|e| unusable(format!("the key does not belong to the certificate, or cannot be used: {e}")))?;
        let saved = Saved { agent, shown, roots };
        saved.holds()?;
        Ok(saved)
    }

    /// Whether it has not expired.
    pub(super) fn holds(&self) -> Result<(), Over> {
        let Some(Err(e)) = self.shown.validity().map(|validity| validity.check(validity::now())) else { return Ok(()) };
        Err(Over::Expired(match e {
            OutOfTime::Expired { .. } => format!("its certificate {e}: spawn another agent, or redeem a ticket"),
            OutOfTime::ClockBehind { .. } => format!("its certificate {e}"),
        }))
    }

    /// The agent.
    pub fn agent(&self) -> &AgentId {
        &self.agent
    }

    /// The trust domain of the agent and its issuer.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.agent.trust_domain
    }
}

fn unusable(what: impl Into<String>) -> IdentityError {
    IdentityError::Saved(what.into())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    const AGENT: &str = "spiffe://own.example/agent/researcher/0190aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee";

    fn pem(names: &[&str], key: &KeyPair, hours: i64) -> String {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.iter().map(|name| SanType::URI((*name).try_into().unwrap())).collect();
        params.not_after = time::OffsetDateTime::now_utc() + time::Duration::hours(hours);
        params.self_signed(key).unwrap().pem()
    }

    fn refused(chain: &str, key: &str, roots: &str) -> (&'static str, String) {
        let error = Saved::from_pem(chain.as_bytes(), key.as_bytes(), roots.as_bytes()).err().unwrap();
        (error.code(), error.to_string())
    }

    #[test]
    fn only_what_is_an_agents_in_time_and_belongs_together_is_an_identity() {
        let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let good = pem(&[AGENT], &key, 1);
        let saved = Saved::from_pem(good.as_bytes(), key.serialize_pem().as_bytes(), good.as_bytes()).unwrap();
        assert_eq!((saved.agent().to_string().as_str(), saved.trust_domain().as_str()), (AGENT, "own.example"));
        let chain = |names: &[&str]| pem(names, &key, 1);
        let of = |chain: &str| refused(chain, &key.serialize_pem(), &good);
        for (what, found, part) in [
            ("another key", refused(&good, &other.serialize_pem(), &good), "the key does not belong to the certificate"),
            ("no key", refused(&good, &good, &good), "no PKCS#8 key"),
            ("no certificate", of(&key.serialize_pem()), "the chain: there is no certificate"),
            ("half a file", of(&good[..good.len() / 2]), "cannot be read"),
            ("no bundle", refused(&good, &key.serialize_pem(), ""), "the bundle: there is no certificate"),
            ("no name", of(&chain(&[])), "not an X.509-SVID"),
            ("two names", of(&chain(&[AGENT, AGENT])), "not an X.509-SVID"),
            ("no path", of(&chain(&["spiffe://own.example"])), "not an X.509-SVID"),
            ("a workload", of(&chain(&["spiffe://own.example/workload/x"])), "is not an agent"),
            ("of a SPIRE", of(&chain(&["spiffe://own.example/ns/x/sa/y"])), "is not an agent"),
        ] {
            assert!(found.0 == "saved" && found.1.contains(part), "{what}: {found:?}");
        }
        let (code, told) = of(&pem(&[AGENT], &key, -1));
        assert!(code == "expired" && told.contains("its certificate expired 1 hour ago, at "), "{told}");
    }
}
