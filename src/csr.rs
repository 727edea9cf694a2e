//! Room 1: the key that is to be certified. A certification request proves that its sender holds the key; nothing else of it is
//! used.

use mayfly_verify::sha256;
use x509_parser::prelude::{FromDer, X509CertificationRequest};
use x509_parser::public_key::PublicKey as Parsed;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::denial::{Denial, Fault};

/// A key that is to be certified.
#[derive(Clone, Debug)]
pub enum Key {
    /// A PKCS#10 request in DER as it was received, whose signature is not verified yet.
    Request(Vec<u8>),
    /// A key whose holder has signed the request with it.
    Proved(PublicKey),
}

impl Key {
    /// Proves that the sender holds the key.
    pub fn prove(&mut self) -> Result<(), Denial> {
        if let Key::Request(der) = self {
            *self = Key::Proved(verify(der)?);
        }
        Ok(())
    }

    /// SHA-256 of the key that a request names. The request has the right form, and nothing proves yet that its sender holds the
    /// key: enough for a look-up, not for a decision to issue.
    pub fn claimed(&self) -> Result<[u8; 32], Denial> {
        match self {
            Key::Request(der) => Ok(sha256(parse(der)?.certification_request_info.subject_pki.raw)),
            Key::Proved(key) => Ok(key.digest),
        }
    }

    /// The key, once it is proved.
    pub fn proved(&self) -> Result<&PublicKey, Fault> {
        match self {
            Key::Proved(key) => Ok(key),
            Key::Request(_) => Err(Fault::new("certify", "a key that was not proved")),
        }
    }

    /// A key of which only the SHA-256 is known, for judging without a request. Nothing can be signed for it.
    pub fn known_by_digest(digest: [u8; 32]) -> Key {
        Key::Proved(PublicKey { spki: Vec::new(), digest })
    }
}

/// Largest request that is read, in bytes.
pub const MAX: usize = 4096;

/// A public key whose holder has signed with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    spki: Vec<u8>,
    digest: [u8; 32],
}

impl PublicKey {
    /// DER `SubjectPublicKeyInfo`.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// SHA-256 of its `SubjectPublicKeyInfo`.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }
}

/// Verifies a PKCS#10 request in DER (RFC 2986). T02: subject and requested extensions are ignored, whatever they say.
pub fn verify(der: &[u8]) -> Result<PublicKey, Denial> {
    let csr = parse(der)?;
    csr.verify_signature()
        .map_err(|_| Denial::malformed("CSR_SIGNATURE", "the certification request is not signed by its own key"))?;
    let spki = csr.certification_request_info.subject_pki.raw;
    Ok(PublicKey { spki: spki.to_vec(), digest: sha256(spki) })
}

/// Everything about a request but its signature, which costs a hundred times as much.
fn parse(der: &[u8]) -> Result<X509CertificationRequest<'_>, Denial> {
    let bad = |what: &str| Denial::malformed("CSR_MALFORMED", format!("the certification request {what}"));
    if der.is_empty() || der.len() > MAX {
        return Err(bad("is missing or over 4 KiB: send PKCS#10 in DER"));
    }
    let (rest, csr) = X509CertificationRequest::from_der(der).map_err(|_| bad("is not PKCS#10 in DER"))?;
    if !rest.is_empty() {
        return Err(bad("is followed by other bytes"));
    }
    let spki = &csr.certification_request_info.subject_pki;
    match spki.parsed() {
        Ok(Parsed::EC(point)) if matches!(point.key_size(), 256 | 384) => {}
        Ok(Parsed::RSA(rsa)) if (2048..=4096).contains(&rsa.key_size()) => {}
        // Ed25519 is refused, because Envoy does not accept such leaves. All clients accept P-256.
        _ => return Err(bad("holds a key that is neither P-256, P-384 nor RSA of 2048 to 4096 bits")),
    }
    // Only the canonical encoding is accepted, so that one key has one digest. The bytes that are hashed are the bytes that are
    // signed.
    if canonical(spki).as_deref() != Some(spki.raw) {
        return Err(bad("holds a key that is not in its one DER form: uncompressed points, shortest lengths, nothing after it"));
    }
    Ok(csr)
}

/// Algorithm and curve of a P-256 key (RFC 5480 2.1.1).
const P256: &[u8] = &[
    0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07,
];
/// Algorithm and curve of a P-384 key.
const P384: &[u8] = &[0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
/// rsaEncryption with NULL parameters (RFC 3279 2.3.1).
const RSA: &[u8] = &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

/// The one DER form of a public key. `None` for a key of another kind, or a compressed point.
fn canonical(spki: &SubjectPublicKeyInfo<'_>) -> Option<Vec<u8>> {
    let (algorithm, key) = match spki.parsed().ok()? {
        Parsed::EC(point) => {
            let point = point.data();
            match (point.first(), point.len()) {
                (Some(4), 65) => (P256, point.to_vec()),
                (Some(4), 97) => (P384, point.to_vec()),
                _ => return None,
            }
        }
        Parsed::RSA(rsa) => (RSA, tlv(0x30, &[integer(rsa.modulus), integer(rsa.exponent)].concat())),
        _ => return None,
    };
    let bits = tlv(0x03, &[&[0], key.as_slice()].concat());
    Some(tlv(0x30, &[algorithm, bits.as_slice()].concat()))
}

/// A positive integer in DER, from big-endian bytes.
fn integer(bytes: &[u8]) -> Vec<u8> {
    let significant: Vec<u8> = bytes.iter().copied().skip_while(|byte| *byte == 0).collect();
    let sign = significant.first().is_none_or(|first| *first > 0x7f).then_some(0);
    tlv(0x02, &sign.into_iter().chain(significant).collect::<Vec<u8>>())
}

/// A value with its tag and the shortest form of its length.
fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let bytes = value.len().to_be_bytes();
    let length = bytes.iter().copied().skip_while(|byte| *byte == 0);
    let long = (value.len() > 0x7f).then(|| 0x80 | u8::try_from(length.clone().count()).unwrap_or(0x7f));
    let short = value.is_empty().then_some(0);
    std::iter::once(tag).chain(long).chain(short).chain(length).chain(value.iter().copied()).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    fn is_canonical(raw: &[u8]) -> bool {
        let (_, spki) = SubjectPublicKeyInfo::from_der(raw).unwrap();
        canonical(&spki).as_deref() == Some(raw)
    }

    #[test]
    fn t88_one_key_has_one_spelling() {
        for alg in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384] {
            let key = rcgen::KeyPair::generate_for(alg).unwrap();
            let good = rcgen::PublicKeyData::subject_public_key_info(&key);
            assert!(is_canonical(&good));
            // A length in two bytes where one is enough.
            let long = [&[0x30, 0x81, good[1]], &good[2..]].concat();
            assert!(!is_canonical(&long));
            // The compressed form of the same point.
            let at = good.len() - if good.len() == 91 { 65 } else { 97 };
            let half = (good.len() - at - 1) / 2;
            let parity = 2 + (good[good.len() - 1] & 1);
            let bits = tlv(0x03, &[&[0, parity], &good[at + 1..at + 1 + half]].concat());
            let algorithm = if half == 32 { P256 } else { P384 };
            assert!(!is_canonical(&tlv(0x30, &[algorithm, bits.as_slice()].concat())));
            // Bytes after the key, inside its sequence.
            let trailing = tlv(0x30, &[&good[2..], &[0x05, 0x00]].concat());
            let (_, spki) = SubjectPublicKeyInfo::from_der(&trailing).unwrap();
            assert!(canonical(&spki).as_deref() != Some(spki.raw));
        }
    }

    /// `openssl req -new -newkey rsa:2048 -nodes -keyout /dev/null -subj /CN=ignored -outform DER | base64`
    const RSA_REQUEST: &str = "\
        MIICVzCCAT8CAQAwEjEQMA4GA1UEAwwHaWdub3JlZDCCASIwDQYJKoZIhvcNAQEBBQADggEPADCCAQoCggEBANBW79YAU5KaXlO0QE/Uq6IHbB\
        fjX0pRHnG2i+Wt2sLAUQTxdDzg/oGPI/ecCSZcbULHQ9TVClAW7em/d6LNqgywVNwLl6uBRxwJKRxqCJxvDqTRHzsITkvdnOuI/gzU7vg4J8T6\
        t08yBd9AxC1yT4FHwZHh7i7k+9+1A51v2uzp+JBXBWlu2DfWBGtP+E9upB1PqnzCRn76LkSqtscdSvKYL5aL+VJclbUfGeZ+ukVWD87agCXXJp\
        9aRbOETT2lJ4O0F4LKX0Wx/TKuDx/MH5zqf4LBj7dZuifPGoLgvQS/tQrXibcZ4Hl7HHubTXTSDJ6ibNwA6ZD8IzMw/UPzD7UCAwEAAaAAMA0G\
        CSqGSIb3DQEBCwUAA4IBAQDCILZiooJ9I01Hd1T5hd3mry1RMddg80VmdWIaMEzxUVDN8e3y47M2lZVkBaB9vDE1smcjy+lNgYpii3qxJ+62fQ\
        AJs/mWopXLVIK0cMJ5WX111UAuY8F0lAEHONRg3PxhgRO50P65t1ihAuvaaJ7q5yxNDzZJdqN9s0weEKdqmpSLCmqqVTMn2/dZAvQqMeT/iw4+\
        nJj1QDlmFO+hjXUU6xjIcLf8PR8TcSq7oLec06G7uQ9O/+VQ7J4NI7mAiyj77J+dHXJkjfnMeu42DEFQVpAX0fesTt45hjpq7mMmjWrf0QV7d2\
        gJSR2xnqRe8wTd3PoNUfp3Mg5+tvfxilKk";

    #[test]
    fn an_rsa_key_of_openssl_is_in_its_one_form() {
        use base64::Engine as _;
        let der = base64::engine::general_purpose::STANDARD.decode(RSA_REQUEST).unwrap();
        let key = verify(&der).unwrap();
        assert!(is_canonical(key.spki()));
        assert_eq!(key.digest(), sha256(key.spki()));
    }

    #[test]
    fn lengths_and_numbers_are_the_shortest() {
        assert_eq!(tlv(0x30, &[]), [0x30, 0]);
        assert_eq!(tlv(0x30, &[7; 127])[..3], [0x30, 0x7f, 7]);
        assert_eq!(tlv(0x30, &[7; 128])[..4], [0x30, 0x81, 0x80, 7]);
        assert_eq!(tlv(0x30, &[7; 300])[..5], [0x30, 0x82, 0x01, 0x2c, 7]);
        assert_eq!(integer(&[0, 0, 0x80]), [0x02, 2, 0, 0x80]);
        assert_eq!(integer(&[0, 1]), [0x02, 1, 1]);
        assert_eq!(integer(&[]), [0x02, 1, 0]);
    }
}
