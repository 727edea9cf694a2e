//! The peer of one connection. Its signatures are verified once; expiry and revocation are checked again for each request.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use mayfly_verify::{Reject, X509Svid, sha256};
use rustls_pki_types::CertificateDer;

use super::Verifier;

/// The peer of a connection, for the extensions of its requests. It comes from the connection alone: a header is never an
/// identity (T19). Clones share it.
#[derive(Clone, Debug)]
pub struct Peer(Arc<Connection>);

#[derive(Debug)]
struct Connection {
    address: SocketAddr,
    proof: Option<Proof>,
}

#[derive(Debug)]
struct Proof {
    chain: Vec<CertificateDer<'static>>,
    proved: ArcSwap<Proved>,
}

#[derive(Debug)]
struct Proved {
    svid: Arc<X509Svid>,
    /// Generation of the bundles under which the chain was verified.
    generation: u64,
}

impl Peer {
    /// Verifies the chain that a peer presented, leaf first, as `rustls::ServerConnection::peer_certificates` returns it.
    pub fn prove(verifier: &Verifier, chain: &[CertificateDer<'_>], address: SocketAddr) -> Result<Peer, Reject> {
        let proved = ArcSwap::from_pointee(prove(verifier, chain)?);
        let chain = chain.iter().map(|cert| cert.clone().into_owned()).collect();
        Ok(Peer(Arc::new(Connection { address, proof: Some(Proof { chain, proved }) })))
    }

    /// A peer that presented no certificate.
    pub fn stranger(address: SocketAddr) -> Peer {
        Peer(Arc::new(Connection { address, proof: None }))
    }

    /// The address it connects from. This is not an identity.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// SHA-256 of the certificate that it presented, to which an access token may be bound.
    pub(crate) fn certificate(&self) -> Option<[u8; 32]> {
        self.0.proof.as_ref().and_then(|proof| proof.chain.first()).map(|leaf| sha256(leaf))
    }

    /// The certificate as last verified; `None` if it presented none. See [`check`](Self::check).
    pub fn svid(&self) -> Option<Arc<X509Svid>> {
        self.0.proof.as_ref().map(|proof| Arc::clone(&proof.proved.load().svid))
    }

    /// Checks the certificate now; `Ok(None)` if the peer presented none. If bundles have changed since, the whole chain is
    /// verified again, so a root that was removed also ends its connections (T40).
    pub fn check(&self, verifier: &Verifier) -> Result<Option<Arc<X509Svid>>, Reject> {
        let Some(proof) = &self.0.proof else { return Ok(None) };
        let proved = proof.proved.load_full();
        if proved.generation == verifier.bundles().generation() {
            verifier.check(&*proved.svid)?;
            return Ok(Some(Arc::clone(&proved.svid)));
        }
        let fresh = Arc::new(prove(verifier, &proof.chain)?);
        proof.proved.store(Arc::clone(&fresh));
        Ok(Some(Arc::clone(&fresh.svid)))
    }
}

fn prove(verifier: &Verifier, chain: &[CertificateDer<'_>]) -> Result<Proved, Reject> {
    // ORDER: read before the bundle. A change in between is then noticed at the next check.
    let generation = verifier.bundles().generation();
    Ok(Proved { svid: Arc::new(verifier.verify_x509(chain)?), generation })
}
