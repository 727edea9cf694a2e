//! The identity and bundles to serve, and the secrets that a request names.

use std::collections::BTreeMap;

use mayfly_verify::sha256;
use prost::Message as _;
use prost_types::Any;
use rustls_pki_types::CertificateDer;
use tonic::Status;
use zeroize::Zeroizing;

use crate::envoy::config::core::v3::data_source::Specifier;
use crate::envoy::config::core::v3::{DataSource, Node, TypedExtensionConfig, node};
use crate::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use crate::envoy::extensions::transport_sockets::tls::v3::spiffe_cert_validator_config::TrustDomain;
use crate::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, SpiffeCertValidatorConfig, TlsCertificate,
};

/// The type of every resource.
pub(super) const TYPE_URL: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
/// Most names of one request.
const NAMES: usize = 64;
/// Longest name, in bytes: that of a SPIFFE ID.
const NAME: usize = 2048;
/// The name of the identity.
const IDENTITY: &str = "default";
/// The name of the bundle of our own trust domain.
const ROOTS: &str = "ROOTCA";
/// The name of every bundle.
const EVERY: &str = "ALL";

/// An identity with the bundles that go with it, at one moment.
pub struct Material {
    spiffe_id: String,
    trust_domain: String,
    chain: String,
    key: Zeroizing<String>,
    /// The roots in PEM, by trust domain; none is empty.
    bundles: BTreeMap<String, String>,
    version: String,
}

impl Material {
    /// The identity `spiffe_id` with its chain, leaf first, and its key as PKCS#8 in DER. `bundles` are the roots, DER, of each
    /// trust domain, its own among them; one without roots is left out, so that its identities are not trusted.
    pub fn new<'a>(
        spiffe_id: &str,
        chain: &[CertificateDer<'_>],
        pkcs8: &[u8],
        trust_domain: &str,
        bundles: impl IntoIterator<Item = (&'a str, &'a [Vec<u8>])>,
    ) -> Material {
        let certificates = |all: &mut dyn Iterator<Item = &[u8]>| all.map(|der| pem("CERTIFICATE", der)).collect::<String>();
        let chain = certificates(&mut chain.iter().map(AsRef::as_ref));
        let bundles = bundles.into_iter().filter(|(_, roots)| !roots.is_empty());
        let bundles: BTreeMap<_, _> =
            bundles.map(|(name, roots)| (name.to_owned(), certificates(&mut roots.iter().map(Vec::as_slice)))).collect();
        let content = bundles.iter().fold(chain.clone(), |all, (name, roots)| all + name + roots);
        // The version covers only public parts, because a new key comes with a new certificate.
        let version = hex::encode(sha256(content.as_bytes()).get(..16).unwrap_or_default());
        let key = Zeroizing::new(pem("PRIVATE KEY", pkcs8));
        Material { spiffe_id: spiffe_id.to_owned(), trust_domain: trust_domain.to_owned(), chain, key, bundles, version }
    }

    /// Whether each secret is the same.
    pub fn same(&self, other: &Material) -> bool {
        self.version == other.version && self.key == other.key
    }

    /// A version, which changes if any secret does.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// The secrets of these names, or all of them if `names` is empty. With `spiffe`, peers are verified by Envoy's SPIFFE
    /// validator, and otherwise by roots alone.
    pub(super) fn secrets(&self, names: &[String], spiffe: bool) -> Result<Vec<Any>, Status> {
        if names.len() > NAMES || names.iter().any(|name| name.len() > NAME) {
            return Err(Status::invalid_argument(format!(
                "at most {NAMES} secrets may be named, each with at most {NAME} bytes"
            )));
        }
        let mut names: Vec<&str> = names.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
        let every: Vec<String> = self.bundles.keys().map(|name| format!("spiffe://{name}")).collect();
        if names.is_empty() {
            names = every.iter().map(String::as_str).chain([self.spiffe_id.as_str()]).collect();
        }
        names.sort_unstable();
        names.dedup();
        names
            .into_iter()
            .map(|name| Ok(any(&Secret { name: name.to_owned(), r#type: Some(self.secret(name, spiffe)?) })))
            .collect()
    }

    fn secret(&self, name: &str, spiffe: bool) -> Result<Type, Status> {
        if name == IDENTITY || name == self.spiffe_id {
            let (certificate_chain, private_key) = (Some(inline(&self.chain)), Some(inline(&self.key)));
            return Ok(Type::TlsCertificate(TlsCertificate { certificate_chain, private_key }));
        }
        let of = |name: &str| {
            let roots = self.bundles.get(name).map(|roots| vec![(name.to_owned(), roots.clone())]);
            roots.ok_or_else(|| Status::invalid_argument("there is no such secret here, or no bundle of this trust domain"))
        };
        let bundles = match name {
            ROOTS => of(&self.trust_domain)?,
            EVERY if spiffe => self.bundles.clone().into_iter().collect(),
            EVERY => return Err(Status::invalid_argument("`ALL` is for Envoy's SPIFFE validator, which Envoy has since 1.18")),
            name => of(name.strip_prefix("spiffe://").unwrap_or_default())?,
        };
        Ok(Type::ValidationContext(if spiffe { validator(bundles) } else { roots(bundles) }))
    }
}

/// Whether an Envoy has the SPIFFE validator.
pub(super) fn has_validator(node: &Node) -> bool {
    let Some(node::UserAgentVersionType::UserAgentBuildVersion(build)) = &node.user_agent_version_type else { return false };
    build.version.as_ref().is_some_and(|version| (version.major_number, version.minor_number) >= (1, 18))
}

fn validator(bundles: Vec<(String, String)>) -> CertificateValidationContext {
    let domain = |(name, roots): (String, String)| TrustDomain { name, trust_bundle: Some(inline(&roots)) };
    let config = SpiffeCertValidatorConfig { trust_domains: bundles.into_iter().map(domain).collect() };
    let typed_config = Any {
        type_url: "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig".into(),
        value: config.encode_to_vec(),
    };
    let custom = TypedExtensionConfig { name: "envoy.tls.cert_validator.spiffe".into(), typed_config: Some(typed_config) };
    CertificateValidationContext { trusted_ca: None, custom_validator_config: Some(custom) }
}

fn roots(bundles: Vec<(String, String)>) -> CertificateValidationContext {
    let all: String = bundles.into_iter().map(|(_, roots)| roots).collect();
    CertificateValidationContext { trusted_ca: Some(inline(&all)), custom_validator_config: None }
}

fn inline(text: &str) -> DataSource {
    DataSource { specifier: Some(Specifier::InlineBytes(text.as_bytes().to_vec())) }
}

fn any(secret: &Secret) -> Any {
    Any { type_url: TYPE_URL.into(), value: secret.encode_to_vec() }
}

fn pem(tag: &str, der: &[u8]) -> String {
    pem::encode_config(&pem::Pem::new(tag, der), pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::panic, clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use crate::envoy::config::core::v3::BuildVersion;
    use crate::envoy::r#type::v3::SemanticVersion;

    fn material() -> Material {
        let (own, other, none) = (vec![vec![1]], vec![vec![2], vec![3]], Vec::new());
        let bundles = [("td.example", own.as_slice()), ("other.example", &other), ("empty.example", &none)];
        Material::new("spiffe://td.example/agent/a/1", &[vec![9].into()], b"key", "td.example", bundles)
    }

    fn names(spiffe: bool, names: &[&str]) -> Result<Vec<Secret>, Status> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let all = material().secrets(&names, spiffe)?;
        Ok(all.iter().map(|any| Secret::decode(any.value.as_slice()).unwrap()).collect())
    }

    #[test]
    fn every_name_that_spires_agents_know_has_its_secret() {
        let found = names(true, &["default"]).unwrap();
        assert!(matches!(&found[0].r#type, Some(Type::TlsCertificate(one)) if one.private_key.is_some()));
        assert_eq!(found[0].name, "default");
        for name in ["ROOTCA", "spiffe://td.example", "spiffe://other.example", "ALL"] {
            let Some(Type::ValidationContext(context)) = names(true, &[name]).unwrap()[0].r#type.clone() else {
                panic!("{name}")
            };
            let config = context.custom_validator_config.unwrap().typed_config.unwrap();
            let config = SpiffeCertValidatorConfig::decode(config.value.as_slice()).unwrap();
            assert_eq!(config.trust_domains.len(), if name == "ALL" { 2 } else { 1 }, "{name}");
        }
        assert_eq!(names(true, &[]).unwrap().len(), 3, "the identity and two bundles");
        assert_eq!(names(true, &["default", "default", ""]).unwrap().len(), 1);
    }

    #[test]
    fn t198_a_name_that_is_not_ours_is_refused_and_not_left_out() {
        let (many, long) = (vec!["ROOTCA"; 65], "x".repeat(2049));
        for bad in
            ["Default", "spiffe://td.example/agent/a/2", "spiffe://empty.example", "td.example", "spiffe://", long.as_str()]
        {
            assert_eq!(names(true, &["default", bad]).unwrap_err().code(), tonic::Code::InvalidArgument, "{bad}");
        }
        assert!(names(true, &many).is_err());
        assert!(names(false, &["ALL"]).is_err());
        let Some(Type::ValidationContext(context)) = names(false, &["ROOTCA"]).unwrap()[0].r#type.clone() else { panic!() };
        assert!(context.trusted_ca.is_some() && context.custom_validator_config.is_none());
    }

    #[test]
    fn the_validator_is_for_envoys_that_have_it() {
        let node = |major_number, minor_number| {
            let version = Some(SemanticVersion { major_number, minor_number, patch: 0 });
            let build = node::UserAgentVersionType::UserAgentBuildVersion(BuildVersion { version });
            Node { id: String::new(), user_agent_version_type: Some(build) }
        };
        assert!(has_validator(&node(1, 40)) && has_validator(&node(1, 18)) && has_validator(&node(2, 0)));
        assert!(!has_validator(&node(1, 17)) && !has_validator(&Node::default()));
    }
}
