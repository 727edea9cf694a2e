//! The provider's keys on disk: a CA that can certify only loopback, and the key that signs tokens.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

const CA_FILE: &str = "oidc-ca.crt";
const CA_KEY: &str = "oidc-ca.key";
const SIGNING_KEY: &str = "oidc-signing.key";
const CA_LIFE: Duration = Duration::days(3650);
const LEAF_LIFE: Duration = Duration::days(90);
/// Longest file that is read, in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// The provider's CA, which is kept in a directory.
pub(super) struct Ca {
    file: PathBuf,
    pem: String,
    key: KeyPair,
}

impl Ca {
    /// Reads the CA in `dir`, or makes one there.
    pub(super) fn open(dir: &Path) -> io::Result<Ca> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let file = dir.join(CA_FILE);
        let key = key_in(&dir.join(CA_KEY))?;
        let pem = match read(&file)? {
            Some(pem) => pem.to_string(),
            None => {
                let pem = new_ca(&key)?;
                write(&file, &pem)?;
                pem
            }
        };
        Ok(Ca { file, pem, key })
    }

    /// Path of the certificate.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// A TLS configuration with a new leaf for `address`, `localhost` and 127.0.0.1.
    pub(super) fn server_config(&self, address: IpAddr) -> io::Result<Arc<ServerConfig>> {
        let issuer = Issuer::from_ca_cert_pem(&self.pem, &self.key).map_err(|_| spoilt(&self.file))?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(io::Error::other)?;
        let mut leaf = params("mayfly development provider", LEAF_LIFE)?;
        leaf.is_ca = IsCa::ExplicitNoCa;
        leaf.use_authority_key_identifier_extension = true;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let localhost = "localhost".try_into().map_err(io::Error::other)?;
        leaf.subject_alt_names = vec![SanType::DnsName(localhost), SanType::IpAddress(Ipv4Addr::LOCALHOST.into())];
        if address != IpAddr::V4(Ipv4Addr::LOCALHOST) {
            leaf.subject_alt_names.push(SanType::IpAddress(address));
        }
        let cert = leaf.signed_by(&key, &issuer).map_err(io::Error::other)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key))
            .map_err(io::Error::other)?;
        Ok(Arc::new(config))
    }
}

/// The key that signs tokens (ES256).
pub(super) struct Signer {
    key: EcdsaKeyPair,
    kid: String,
    jwk: Value,
}

impl Signer {
    /// Reads the key in `dir`, or makes one there.
    pub(super) fn open(dir: &Path) -> io::Result<Signer> {
        let file = dir.join(SIGNING_KEY);
        let der = Zeroizing::new(key_in(&file)?.serialize_der());
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).map_err(|_| spoilt(&file))?;
        // SEC 1: the byte 04, then x and y of 32 bytes each.
        let point = key.public_key().as_ref().strip_prefix(&[4]).and_then(|xy| xy.split_at_checked(32));
        let (x, y) = point.ok_or_else(|| spoilt(&file))?;
        let x = URL_SAFE_NO_PAD.encode(x);
        let y = URL_SAFE_NO_PAD.encode(y);
        // RFC 7638: the thumbprint covers exactly these members in this order.
        let thumbprint = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        let kid = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, thumbprint.as_bytes()));
        let jwk = json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": kid, "alg": "ES256", "use": "sig" });
        Ok(Signer { key, kid, jwk })
    }

    /// The public key as a JWK.
    pub(super) fn jwk(&self) -> &Value {
        &self.jwk
    }

    /// Signs claims. Returns a compact JWS whose header has the type `typ`.
    pub(super) fn sign(&self, typ: &str, claims: &Value) -> io::Result<String> {
        let header = json!({ "alg": "ES256", "kid": self.kid, "typ": typ });
        let encode = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
        let signed = format!("{}.{}", encode(&header), encode(claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).map_err(|_| io::Error::other("cannot sign"))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

fn new_ca(key: &KeyPair) -> io::Result<String> {
    let mut ca = params("mayfly development provider CA", CA_LIFE)?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // A certificate of this CA is valid only on loopback, even if the CA's key is stolen.
    ca.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![
            GeneralSubtree::DnsName("localhost".into()),
            GeneralSubtree::IpAddress(CidrSubnet::V4([127, 0, 0, 0], [255, 0, 0, 0])),
            GeneralSubtree::IpAddress(CidrSubnet::V6(Ipv6Addr::LOCALHOST.octets(), [255; 16])),
        ],
        excluded_subtrees: Vec::new(),
    });
    Ok(ca.self_signed(key).map_err(io::Error::other)?.pem())
}

fn params(name: &str, life: Duration) -> io::Result<CertificateParams> {
    let mut serial = [0u8; 16];
    rand::fill(&mut serial).map_err(|_| io::Error::other("no randomness"))?;
    // The first bits are 01, so that the serial number is positive and always has 16 bytes.
    if let Some(first) = serial.first_mut() {
        *first = *first & 0x3f | 0x40;
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::minutes(5);
    params.not_after = now + life;
    Ok(params)
}

/// Reads the P-256 key in `file`, or makes one there.
fn key_in(file: &Path) -> io::Result<KeyPair> {
    if let Some(pem) = read(file)? {
        let key = KeyPair::from_pem(&pem).map_err(|_| spoilt(file))?;
        return if key.is_compatible(&PKCS_ECDSA_P256_SHA256) { Ok(key) } else { Err(spoilt(file)) };
    }
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(io::Error::other)?;
    write(file, &Zeroizing::new(key.serialize_pem()))?;
    Ok(key)
}

/// The text of a file. Returns `None` if it does not exist. Fails if it is a link, or if other users have access to it.
fn read(file: &Path) -> io::Result<Option<Zeroizing<String>>> {
    match fs::symlink_metadata(file) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
        Ok(meta) if !meta.is_file() || meta.mode() & 0o077 != 0 => {
            return Err(refused(format!("`{}` must be a plain file of mode 0600", file.display())));
        }
        Ok(_) => {}
    }
    let mut text = Zeroizing::new(String::new());
    fs::File::open(file)?.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(Some(text))
}

/// Writes a file with mode 0600, as a whole or not at all.
fn write(file: &Path, text: &str) -> io::Result<()> {
    let draft = file.with_extension("new");
    match fs::remove_file(&draft) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    out.write_all(text.as_bytes())?;
    out.sync_all()?;
    fs::rename(&draft, file)
}

fn spoilt(file: &Path) -> io::Error {
    refused(format!("`{}` was not written by the provider: delete its directory to start again", file.display()))
}

fn refused(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
