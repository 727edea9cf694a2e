//! The floor of this machine: a signature, a verification, and an empty RPC of the same size at the same concurrency.

use std::time::Instant;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey};

/// What the parts cost, in microseconds of one core.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Floor {
    /// The signature of a certification request.
    pub(crate) csr_verify: f64,
    /// A certificate's.
    pub(crate) x509_sign: f64,
    /// A token's.
    pub(crate) jwt_sign: f64,
    /// Server CPU of an RPC that does nothing. `None` if the server's CPU cannot be read.
    pub(crate) rpc: Option<f64>,
}

/// The signature operations that a request cannot do without, besides one RPC.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Must {
    /// Verifications.
    pub(crate) verify: f64,
    /// Signatures of certificates, and of handshakes.
    pub(crate) x509: f64,
    /// Signatures of tokens.
    pub(crate) jwt: f64,
}

impl Floor {
    /// Measures the signature operations alone, now.
    pub(crate) fn signatures() -> Result<Floor, String> {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(|e| e.to_string())?;
        // The bytes that are signed in a request, a certificate and a token have about these lengths.
        let (request, certificate, token) = ([7u8; 200], [7u8; 900], [7u8; 1100]);
        let signature = key.sign(&random, &request).map_err(|e| e.to_string())?;
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.public_key().as_ref());
        Ok(Floor {
            csr_verify: time(|| public.verify(&request, signature.as_ref()).is_ok()),
            x509_sign: time(|| key.sign(&random, &certificate).is_ok()),
            jwt_sign: time(|| key.sign(&random, &token).is_ok()),
            rpc: None,
        })
    }

    /// The floor of a request.
    pub(crate) fn of(&self, must: Must) -> Option<f64> {
        let signatures = must.verify * self.csr_verify + must.x509 * self.x509_sign + must.jwt * self.jwt_sign;
        self.rpc.map(|rpc| rpc + signatures)
    }
}

/// Microseconds: the shortest of many short runs, so that the work of other programs does not count.
fn time(work: impl Fn() -> bool) -> f64 {
    let run = |_| {
        let started = Instant::now();
        let done = (0..30).filter(|_| work()).count();
        started.elapsed().as_secs_f64() * 1e6 / f64::from(u32::try_from(done.max(1)).unwrap_or(1))
    };
    (0..60).map(run).fold(f64::INFINITY, f64::min)
}

/// The median; 0 if there are no values.
pub(crate) fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or_default()
}
