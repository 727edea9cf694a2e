//! What one connection proved. Signatures are looked at once; what moves while it stands is looked at for each request.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use mayfly_verify::{Reject, X509Svid};
use rustls_pki_types::CertificateDer;

use super::Verifier;

/// The peer of a connection, for its requests' extensions. It comes from the connection and from nowhere else: headers are
/// never an identity (T19). Clones share it.
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
    /// Of the bundles, when the chain held.
    generation: u64,
}

impl Peer {
    /// Proves a peer by the chain that it presented: leaf first, as `rustls::ServerConnection::peer_certificates` has it.
    pub fn prove(verifier: &Verifier, chain: &[CertificateDer<'_>], address: SocketAddr) -> Result<Peer, Reject> {
        let proved = ArcSwap::from_pointee(prove(verifier, chain)?);
        let chain = chain.iter().map(|cert| cert.clone().into_owned()).collect();
        Ok(Peer(Arc::new(Connection { address, proof: Some(Proof { chain, proved }) })))
    }

    /// A peer that presented no certificate.
    pub fn stranger(address: SocketAddr) -> Peer {
        Peer(Arc::new(Connection { address, proof: None }))
    }

    /// From where it connects. No identity.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// What its certificate proved last; none: it presented none. See [`check`](Self::check).
    pub fn svid(&self) -> Option<Arc<X509Svid>> {
        self.0.proof.as_ref().map(|proof| Arc::clone(&proof.proved.load().svid))
    }

    /// What its certificate proves now; none: it presented none. Where bundles have changed since, the whole chain is
    /// verified again: a root that has left takes its connections along (T40).
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
    // ORDER: before the bundle is read. A change in between is noticed at the next look.
    let generation = verifier.bundles().generation();
    Ok(Proved { svid: Arc::new(verifier.verify_x509(chain)?), generation })
}
