//! An identity that was saved in files: the certificates, the key, and the roots of the bundle.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::SystemTime;

use mayfly_verify::{AgentId, TrustDomain};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use super::leaf::Leaf;
use super::{IdentityError, Over};
use crate::channel;
use crate::tls::CurrentIdentity;

/// Largest file that is read, in bytes.
const MAX: u64 = 1 << 20;

/// An agent's identity as files have it. It is looked at once, and holds nothing that does not belong together.
///
/// It has no `Debug`, because of the key.
pub struct Saved {
    agent: AgentId,
    ends_at: SystemTime,
    pub(super) shown: CurrentIdentity,
    pub(super) roots: Vec<CertificateDer<'static>>,
}

impl Saved {
    /// The folder that `mayfly spawn --out DIR`, `redeem --out DIR` and `renew --as DIR` write: `svid.pem`, `key.pem` and
    /// `bundle.pem`. A `key.pem` that others may read is refused (T27).
    pub fn from_folder(dir: &Path) -> Result<Saved, IdentityError> {
        let (chain, roots) = (read(&dir.join("svid.pem"), 0o777)?, read(&dir.join("bundle.pem"), 0o777)?);
        Saved::from_pem(&chain, &read(&dir.join("key.pem"), 0o700)?, &roots)
    }

    /// PEM: the certificates, leaf first; the key, PKCS#8; the roots of the trust domain's bundle.
    pub fn from_pem(chain: &[u8], key: &[u8], roots: &[u8]) -> Result<Saved, IdentityError> {
        let chain = certificates(chain, "the chain")?;
        let roots = certificates(roots, "the bundle")?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(key).map_err(|e| unusable(format!("the key is no PKCS#8 in PEM: {e}")))?;
        let leaf = chain.first().and_then(|der| Leaf::read(der));
        let leaf = leaf.ok_or_else(|| unusable("its first certificate is no X.509-SVID"))?;
        let agent = AgentId::parse(&leaf.id.to_string());
        let agent =
            agent.map_err(|_| unusable(format!("`{}` is no agent: a workload joins with a token of its own", leaf.id)))?;
        let shown = CurrentIdentity::new(channel::Identity { chain, key: key.into() });
        let shown = shown.map_err(|e| unusable(format!("the key is not the certificate's, or is of no use: {e}")))?;
        let saved = Saved { agent, ends_at: leaf.ends_at, shown, roots };
        saved.holds()?;
        Ok(saved)
    }

    /// Whether it has not run out.
    pub(super) fn holds(&self) -> Result<(), Over> {
        let over = || Over::Expired("its certificate has run out: spawn another, or redeem a ticket".into());
        (self.ends_at > SystemTime::now()).then_some(()).ok_or_else(over)
    }

    /// Whose it is.
    pub fn agent(&self) -> &AgentId {
        &self.agent
    }

    /// Of which trust domain its issuer is.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.agent.trust_domain
    }
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(unusable(format!("{what} holds no certificate in PEM"))),
        Err(e) => Err(unusable(format!("{what} cannot be read: {e}"))),
    }
}

/// Reads a file that is no wider than `most`: what was looked at is what is read.
fn read(path: &Path, most: u32) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
    let text = |e: std::io::Error| unusable(format!("`{}`: {e}", path.display()));
    let unfit = || unusable(format!("`{}` is no file of at most {MAX} bytes", path.display()));
    // To open a pipe is to wait for whoever writes to it.
    if !path.metadata().map_err(text)?.is_file() {
        return Err(unfit());
    }
    let file = File::open(path).map_err(text)?;
    let metadata = file.metadata().map_err(text)?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & !most != 0 {
        let path = path.display();
        return Err(unusable(format!("`{path}` has mode {mode:o}, and somebody else may have its key: make it 600")));
    }
    if !metadata.is_file() || metadata.len() > MAX {
        return Err(unfit());
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(MAX).read_to_end(&mut bytes).map_err(text)?;
    Ok(bytes)
}

fn unusable(what: impl Into<String>) -> IdentityError {
    IdentityError::Saved(what.into())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::fs::{self, Permissions};

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
            ("another key", refused(&good, &other.serialize_pem(), &good), "the key is not the certificate's"),
            ("no key", refused(&good, &good, &good), "no PKCS#8"),
            ("no certificate", of(&key.serialize_pem()), "holds no certificate"),
            ("half a file", of(&good[..good.len() / 2]), "cannot be read"),
            ("no bundle", refused(&good, &key.serialize_pem(), ""), "the bundle holds no certificate"),
            ("no name", of(&chain(&[])), "no X.509-SVID"),
            ("two names", of(&chain(&[AGENT, AGENT])), "no X.509-SVID"),
            ("no path", of(&chain(&["spiffe://own.example"])), "no X.509-SVID"),
            ("a workload", of(&chain(&["spiffe://own.example/workload/x"])), "is no agent"),
            ("of a SPIRE", of(&chain(&["spiffe://own.example/ns/x/sa/y"])), "is no agent"),
        ] {
            assert!(found.0 == "saved" && found.1.contains(part), "{what}: {found:?}");
        }
        let (code, told) = of(&pem(&[AGENT], &key, -1));
        assert!(code == "expired" && told.contains("has run out"), "{told}");
    }

    #[test]
    fn t27_a_key_that_others_may_read_is_refused() {
        let (dir, key) = (tempfile::tempdir().unwrap(), KeyPair::generate().unwrap());
        let path = dir.path().join("key.pem");
        for name in ["svid.pem", "bundle.pem"] {
            fs::write(dir.path().join(name), pem(&[AGENT], &key, 1)).unwrap();
        }
        let told = |mode| {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            Saved::from_folder(dir.path()).err().map(|e| e.to_string()).unwrap_or_default()
        };
        assert!(Saved::from_folder(dir.path()).err().unwrap().to_string().contains("key.pem"), "there is none");
        fs::write(&path, key.serialize_pem()).unwrap();
        for mode in [0o640, 0o604, 0o660, 0o644] {
            assert!(told(mode).contains(&format!("key.pem` has mode {mode:o}")), "{mode:o}");
        }
        assert_eq!((told(0o600), told(0o400)), (String::new(), String::new()));
        fs::remove_file(&path).unwrap();
        fs::write(&path, vec![b'x'; usize::try_from(MAX).unwrap() + 1]).unwrap();
        assert!(told(0o600).contains("is no file of at most"));
        fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert!(told(0o600).contains("is no file of at most"), "a pipe");
    }
}
