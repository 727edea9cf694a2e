//! Certification requests, made before the clock starts: keys are the caller's work, not the issuer's.

use mayfly::folder::Key;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};

/// Makes `count` requests, each with a key of its own.
pub(crate) async fn csrs(count: usize) -> Result<Vec<Vec<u8>>, String> {
    make(count, || Key::new().map(|key| key.csr)).await
}

/// The same with a SPIFFE ID in each, for an issuer that takes it from there; ours reads the key alone.
pub(crate) async fn csrs_for(count: usize, id: &str) -> Result<Vec<Vec<u8>>, String> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(id.try_into().map_err(|e| format!("`{id}`: {e}"))?)];
    let csr = move || params.serialize_request(&KeyPair::generate()?).map(|csr| csr.der().to_vec());
    make(count, move || csr().map_err(|e: rcgen::Error| e.to_string())).await
}

/// On two threads.
async fn make(count: usize, one: impl Fn() -> Result<Vec<u8>, String> + Clone + Send + 'static) -> Result<Vec<Vec<u8>>, String> {
    let half = count / 2;
    let make = |count: usize| {
        let one = one.clone();
        tokio::task::spawn_blocking(move || (0..count).map(|_| one()).collect::<Result<Vec<_>, _>>())
    };
    let (one, other) = (make(half), make(count - half));
    let mut all = one.await.map_err(|e| e.to_string())??;
    all.extend(other.await.map_err(|e| e.to_string())??);
    Ok(all)
}
