//! Certification requests, made before the clock starts: keys are the caller's work, not the issuer's.

use mayfly::folder::Key;

/// So many requests, each of a key of its own.
pub(crate) async fn csrs(count: usize) -> Result<Vec<Vec<u8>>, String> {
    let half = count / 2;
    let make = |count: usize| {
        tokio::task::spawn_blocking(move || (0..count).map(|_| Key::new().map(|key| key.csr)).collect::<Result<Vec<_>, _>>())
    };
    let (one, other) = (make(half), make(count - half));
    let mut all = one.await.map_err(|e| e.to_string())??;
    all.extend(other.await.map_err(|e| e.to_string())??);
    Ok(all)
}
