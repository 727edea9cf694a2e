//! What the targets have in common: seeds, and an issuer that signs what was mutated, so that what lies behind a signature is
//! reached too.

#[path = "../../agent-sdk/verify/tests/feed/issuer.rs"]
#[allow(dead_code)]
pub(crate) mod issuer;

mod feed;
#[path = "../../tests/fuzzed/targets.rs"]
pub mod targets;
mod x509;

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mayfly_verify::{Binding, BindingOid, Bundle, JwtAuthority, TrustDomain};
use serde_json::{Value, json};

pub use feed::{Line, feeds};
pub use x509::Ca;

/// Unix seconds, when everything is judged.
pub const NOW: u64 = issuer::START;

/// Of every signed thing here.
pub fn td() -> TrustDomain {
    issuer::td()
}

/// Writes what a target starts from. Nothing in it depends on a key: a finding of one run is one of the next.
pub fn seed(target: &str, seeds: impl IntoIterator<Item = Vec<u8>>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder).unwrap();
    for (n, bytes) in seeds.into_iter().enumerate() {
        fs::write(folder.join(format!("seed-{n:03}")), bytes).unwrap();
    }
}

/// Chooses one of [`targets`], and writes what it starts from.
pub fn begin(name: &'static str) {
    let target = targets::ALL.iter().find(|target| target.name == name).unwrap();
    seed(name, (target.seeds)().into_iter().chain(targets::kept(name)));
    assert!(CHOSEN.set(target).is_ok());
}

/// Reads bytes by the chosen target. Returns whether they were accepted.
pub fn take(bytes: &[u8]) -> bool {
    CHOSEN.get().is_some_and(|target| (target.take)(bytes))
}

static CHOSEN: OnceLock<&targets::Target> = OnceLock::new();

/// The field of every vector that has it.
pub fn vectors(field: &str) -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent-sdk/verify/tests/vectors");
    let read = |file: &str| serde_json::from_slice::<Vec<Value>>(&fs::read(folder.join(file)).unwrap()).unwrap();
    let all = ["accepted.json", "refused.json"].map(read).concat();
    all.iter().filter_map(|vector| vector.get(field)).cloned().collect()
}

/// The accepted vectors that live at [`NOW`].
pub fn bindings() -> Vec<Binding> {
    let read = vectors("claim").into_iter().filter_map(|claim| Binding::from_claim(&claim).ok());
    read.map(|binding| Binding { lease_expires_at: NOW + 900, ..binding }).collect()
}

/// Signs tokens.
pub struct Signer(EcdsaKeyPair);

impl Default for Signer {
    fn default() -> Signer {
        Signer(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }
}

impl Signer {
    pub fn bundle(&self) -> Bundle {
        let point = self.0.public_key().as_ref();
        Bundle::new(td(), vec![], vec![JwtAuthority::es256("k", &point[1..33], &point[33..]).unwrap()], 1, 1)
    }

    /// The token of a header and claims, whatever they are.
    pub fn token(&self, header: &[u8], claims: &[u8]) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.0.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

/// Header, a zero octet, claims.
pub fn tokens() -> Vec<Vec<u8>> {
    let id = "spiffe://td/agent/worker/0190aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee";
    let claims = bindings().into_iter().map(|binding| {
        let mut claims = json!({ "sub": id, "aud": "https://a.example", "iat": NOW, "exp": NOW + 300, "jti": "j" });
        claims[BindingOid::default().claim()] = binding.to_claim().unwrap();
        claims
    });
    let workload = json!({ "sub": "spiffe://td/workload/w", "aud": ["https://a.example", "b"], "nbf": NOW, "exp": NOW + 300 });
    let with = |claims: Value| format!("{}\0{claims}", r#"{"alg":"ES256","kid":"k","typ":"JWT"}"#).into_bytes();
    claims.chain([workload]).map(with).collect()
}
