//! A trust domain in one value: who signs, what is revoked, what time it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mayfly_agent::channel::Identity;
use mayfly_agent::peers::{Bundles, Clock, Verifier};
use mayfly_agent::tls::CurrentIdentity;
use mayfly_verify::feed::{Follower, Limits};
use mayfly_verify::{
    AgentId, Binding, BindingOid, Bundle, DelegationId, Freshness, JwtAuthority, Live, Mode, Stamp, Target, TrustDomain, User,
};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose as Eku, IsCa, Issuer, KeyPair,
    KeyUsagePurpose as Ku, SanType,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use uuid::Uuid;

use super::issuer::{self, START, td};

const KID: &str = "jwt-1";
/// The `iss` of access tokens.
pub(crate) const ISSUER: &str = "https://issuer.example";

/// Somebody with a certificate.
pub(crate) struct Somebody {
    pub(crate) id: String,
    pub(crate) binding: Option<Binding>,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
}

impl Somebody {
    pub(crate) fn identity(&self) -> Identity {
        Identity { chain: self.chain.clone(), key: PrivateKeyDer::try_from(self.key.clone()).unwrap() }
    }

    pub(crate) fn current(&self) -> CurrentIdentity {
        CurrentIdentity::new(self.identity()).unwrap()
    }

    pub(crate) fn target(&self) -> Target {
        Target::Agent(AgentId::parse(&self.id).unwrap().uuid)
    }
}

pub(crate) struct World {
    trust_domain: TrustDomain,
    root: CertificateDer<'static>,
    signer: Issuer<'static, KeyPair>,
    jwt: EcdsaKeyPair,
    feed: issuer::Issuer,
    follower: Follower,
    clock: Arc<AtomicU64>,
    agents: u128,
    pub(crate) live: Live,
    pub(crate) bundles: Bundles,
}

impl World {
    /// Trust domain `td`. Nothing is revoked, and that is known.
    pub(crate) fn new() -> World {
        let mut world = World::silent(td());
        world.publish();
        world
    }

    /// A trust domain whose feed says nothing.
    pub(crate) fn silent(trust_domain: TrustDomain) -> World {
        let (root_key, feed) = (KeyPair::generate().unwrap(), issuer::Issuer::new());
        let root_params = params(&format!("spiffe://{trust_domain}"), true);
        let root = root_params.self_signed(&root_key).unwrap().der().clone();
        let bundles = Bundles::default();
        let world = World {
            live: Live::new(trust_domain.clone(), Freshness::default()),
            follower: feed.follower(Limits::default()),
            clock: Arc::new(AtomicU64::new(START * 1_000_000)),
            jwt: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
            signer: Issuer::new(root_params, root_key),
            agents: 0,
            trust_domain,
            root,
            feed,
            bundles,
        };
        world.bundles.set(world.bundle());
        world
    }

    pub(crate) fn bundle(&self) -> Bundle {
        let point = self.jwt.public_key().as_ref();
        let key = JwtAuthority::es256(KID, &point[1..33], &point[33..]).unwrap();
        Bundle::new(self.trust_domain.clone(), vec![self.root.to_vec()], vec![key], 1, 1)
    }

    pub(crate) fn verifier(&self) -> Verifier {
        let at = Arc::clone(&self.clock);
        let clock = Clock::new(move || Duration::from_micros(at.load(Ordering::SeqCst)));
        Verifier::new(self.bundles.clone(), self.live.clone()).with_clock(clock)
    }

    /// Unix seconds.
    pub(crate) fn now(&self) -> u64 {
        self.clock.load(Ordering::SeqCst) / 1_000_000
    }

    /// Time goes on, and nothing is heard.
    pub(crate) fn pass(&self, seconds: u64) {
        self.clock.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
    }

    /// A heartbeat of now.
    pub(crate) fn publish(&mut self) {
        self.feed.now = self.now();
        self.live.publish(self.follower.take(self.feed.snapshot()).unwrap().unwrap());
    }

    pub(crate) fn cut(&mut self, target: &Target) {
        self.feed.cut(target.unsalted(), u64::MAX, START + 100_000);
        self.publish();
    }

    /// Of a class, below a researcher of the workload `orchestrator`; its certificate holds for a quarter of an hour.
    pub(crate) fn agent(&mut self, class: &str, scopes: &[&str]) -> Somebody {
        self.agents += 1;
        let uuid = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + self.agents);
        let parent = Uuid::from_u128(0x0190_0000_0000_7000_8000_ffff_ffff_ffff);
        let (td, user) = (&self.trust_domain, User { iss: "https://idp".into(), sub: "demo".into() });
        let stamp = |target: Target, since| Stamp { subject: target.unsalted(), since };
        let binding = Binding {
            incarnation: self.feed.incarnation,
            revision: 9,
            stamps: vec![
                stamp(Target::TrustDomain, 1),
                stamp(Target::User(user.clone()), 2),
                stamp(Target::Agent(parent), 3),
                stamp(Target::Agent(uuid), 4),
            ],
            delegation: Some(DelegationId([1; 32])),
            user: Some(user),
            chain: vec![format!("spiffe://{td}/agent/researcher/{parent}"), format!("spiffe://{td}/workload/orchestrator")],
            mode: Mode::Delegated,
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            lease_expires_at: START + 3600,
        };
        self.certify(&format!("spiffe://{td}/agent/{class}/{uuid}"), Some(binding))
    }

    pub(crate) fn workload(&self, name: &str) -> Somebody {
        self.certify(&format!("spiffe://{}/workload/{name}", self.trust_domain), None)
    }

    pub(crate) fn certify(&self, id: &str, binding: Option<Binding>) -> Somebody {
        let mut leaf = params(id, false);
        leaf.not_after = at(self.now() + 900);
        leaf.serial_number = Some(vec![0x42; 16].into());
        leaf.custom_extensions = binding
            .iter()
            .map(|b| CustomExtension::from_oid_content(BindingOid::default().arcs(), b.to_der().unwrap()))
            .collect();
        let key = KeyPair::generate().unwrap();
        let signed = leaf.signed_by(&key, &self.signer).unwrap().der().clone();
        Somebody { id: id.to_owned(), binding, chain: vec![signed], key: key.serialize_der() }
    }

    /// An access token of five minutes, as of now, with a `cnf` if one is given.
    pub(crate) fn access_token(&self, of: &Somebody, audience: &str, cnf: Option<&str>) -> String {
        let (now, binding) = (self.now(), of.binding.as_ref().unwrap());
        let actor = |id: &str, above: String| format!(r#"{{"iss":"{ISSUER}","sub":"{id}"{above}}}"#);
        let act = binding.chain.iter().rev().fold(String::new(), |above, id| format!(r#","act":{}"#, actor(id, above)));
        let claims = format!(
            r#"{{"iss":"{ISSUER}","sub":"idp|demo","aud":"{audience}","client_id":"{id}","act":{act},"scope":"{scope}","jti":"j{now}",
            "iat":{now},"exp":{end},"{claim}":{binding}{cnf}}}"#,
            id = of.id,
            act = actor(&of.id, act),
            scope = binding.scopes.join(" "),
            end = now + 300,
            claim = BindingOid::default().claim(),
            binding = binding.to_claim().unwrap(),
            cnf = cnf.map(|cnf| format!(r#","cnf":{cnf}"#)).unwrap_or_default(),
        );
        self.sign("at+jwt", &claims)
    }

    fn sign(&self, typ: &str, claims: &str) -> String {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let message = format!("{}.{}", encode(&format!(r#"{{"alg":"ES256","kid":"{KID}","typ":"{typ}"}}"#)), encode(claims));
        let signature = self.jwt.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }

    /// A JWT-SVID of five minutes, as of now.
    pub(crate) fn token(&self, of: &Somebody, audience: &str) -> String {
        self.token_with(of, audience, "")
    }

    /// The same with further claims, each with a comma before it.
    pub(crate) fn token_with(&self, of: &Somebody, audience: &str, further: &str) -> String {
        let now = self.now();
        let mut claims = format!(r#"{{"sub":"{}","aud":"{audience}","iat":{now},"exp":{}"#, of.id, now + 300);
        if let Some(binding) = &of.binding {
            claims += &format!(r#","{}":{}"#, BindingOid::default().claim(), binding.to_claim().unwrap());
        }
        self.sign("JWT", &(claims + further + "}"))
    }
}

fn at(seconds: u64) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).unwrap()).unwrap()
}

fn params(id: &str, ca: bool) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
    params.is_ca = if ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
    params.key_usages = vec![if ca { Ku::KeyCertSign } else { Ku::DigitalSignature }];
    if !ca {
        params.extended_key_usages = vec![Eku::ServerAuth, Eku::ClientAuth];
    }
    (params.not_before, params.not_after) = (at(START - 1000), at(START + 1_000_000));
    params
}
