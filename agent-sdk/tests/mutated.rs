//! What is read of others, damaged: a flipped bit, an end cut off, two halves that never belonged together. Nothing panics; what
//! is still read is exactly what is written; what is still believed is what was signed. `.fuzz/run` goes on from here.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[path = "../verify/tests/feed/issuer.rs"]
#[expect(dead_code, reason = "each test file uses what it needs")]
mod issuer;
#[path = "support/world.rs"]
#[expect(dead_code, reason = "each test file uses what it needs")]
mod world;

use std::sync::{Arc, LazyLock};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use issuer::{START, subject, td};
use mayfly_agent::api::v1;
use mayfly_agent::revocation::message;
use mayfly_agent::ticket::{Secret, Ticket};
use mayfly_verify::feed::{FeedKey, FeedMessage, Known, Limits, heartbeat_message};
use mayfly_verify::{Binding, BindingOid, Bundle, Subject, inspect_jwt, inspect_x509, verify_jwt, verify_x509};
use proptest::prelude::*;
use prost::Message as _;
use rustls_pki_types::CertificateDer;
use world::World;
use x509_parser::prelude::{FromDer as _, X509Certificate};

const AUDIENCE: &str = "https://search.example";

/// Credentials that hold, and what proves it.
struct Valid {
    bundle: Bundle,
    bindings: Vec<Binding>,
    certificates: Vec<Vec<u8>>,
    tokens: Vec<String>,
}

static VALID: LazyLock<Valid> = LazyLock::new(|| {
    let mut world = World::new();
    let somebody = [world.agent("worker", &["a", "b"]), world.agent("researcher", &[]), world.workload("orchestrator")];
    Valid {
        bundle: world.bundle(),
        bindings: somebody.iter().filter_map(|one| one.binding.clone()).collect(),
        certificates: somebody.iter().flat_map(|one| one.chain.iter().map(|der| der.to_vec())).collect(),
        tokens: somebody.iter().map(|one| world.token(one, AUDIENCE)).collect(),
    }
});

#[derive(Clone, Debug)]
enum Damage {
    Flip(usize, u8),
    Set(usize, u8),
    Insert(usize, u8),
    Truncate(usize),
    Remove(usize, usize),
    Repeat(usize, usize),
    /// From here on what stands there in another one.
    Splice(usize, usize),
}

impl Damage {
    fn on(&self, bytes: &mut Vec<u8>, other: &[u8]) {
        let len = bytes.len();
        let place = |at: usize| if len == 0 { 0 } else { at % len };
        let range = |at: usize, many: usize| place(at)..(place(at) + many).min(len);
        match *self {
            Damage::Flip(at, bit) => bytes.iter_mut().skip(place(at)).take(1).for_each(|b| *b ^= 1 << bit),
            Damage::Set(at, value) => bytes.iter_mut().skip(place(at)).take(1).for_each(|b| *b = value),
            Damage::Insert(at, value) => bytes.insert(place(at), value),
            Damage::Truncate(at) => bytes.truncate(place(at)),
            Damage::Remove(at, many) => drop(bytes.drain(range(at, many))),
            Damage::Repeat(at, many) => bytes.extend_from_within(range(at, many)),
            Damage::Splice(at, from) => {
                bytes.truncate(place(at));
                bytes.extend(other.iter().skip(from % (other.len() + 1)));
            }
        }
    }
}

fn damage() -> impl Strategy<Value = Vec<Damage>> {
    let at = any::<usize>;
    let one = prop_oneof![
        6 => (at(), 0u8..8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        3 => (at(), any::<u8>()).prop_map(|(at, value)| Damage::Set(at, value)),
        1 => (at(), any::<u8>()).prop_map(|(at, value)| Damage::Insert(at, value)),
        1 => at().prop_map(Damage::Truncate),
        1 => (at(), 1usize..40).prop_map(|(at, many)| Damage::Remove(at, many)),
        1 => (at(), 1usize..40).prop_map(|(at, many)| Damage::Repeat(at, many)),
        2 => (at(), at()).prop_map(|(at, from)| Damage::Splice(at, from)),
    ];
    proptest::collection::vec(one, 1..4)
}

fn damaged(bytes: &[u8], other: &[u8], by: &[Damage]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    by.iter().for_each(|damage| damage.on(&mut bytes, other));
    bytes
}

/// One of many, and another.
fn two<T>(of: &[T], n: usize) -> (&T, &T) {
    let at = |n: usize| of.iter().cycle().nth(n % of.len()).unwrap();
    (at(n), at(n + 1))
}

fn to_be_signed(der: &[u8]) -> Vec<u8> {
    X509Certificate::from_der(der).unwrap().1.tbs_certificate.as_ref().to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn t23_a_damaged_binding_is_refused_or_reads_as_it_is_written(n in 0usize..2, by in damage()) {
        let (one, other) = two(&VALID.bindings, n);
        let der = damaged(&one.to_der().unwrap(), &other.to_der().unwrap(), &by);
        if let Ok(binding) = Binding::from_der(&der) {
            prop_assert_eq!(binding.to_der().unwrap(), der);
        }
        let text = |binding: &Binding| binding.to_claim().unwrap().to_string().into_bytes();
        if let Ok(claim) = serde_json::from_slice(&damaged(&text(one), &text(other), &by))
            && let Ok(binding) = Binding::from_claim(&claim)
        {
            prop_assert_eq!(binding.to_claim().unwrap(), claim);
        }
    }

    #[test]
    fn t23_of_a_damaged_certificate_only_what_was_signed_is_believed(n in 0usize..3, by in damage()) {
        let (one, other) = two(&VALID.certificates, n);
        let der = CertificateDer::from(damaged(one, other, &by));
        let _ = inspect_x509(&der, &td(), &BindingOid::default());
        for chain in [vec![der.clone()], vec![one.clone().into(), der.clone()]] {
            let leaf = chain.first().unwrap().to_vec();
            if verify_x509(&chain, &VALID.bundle, &BindingOid::default(), START).is_ok() {
                prop_assert!(VALID.certificates.iter().any(|signed| to_be_signed(signed) == to_be_signed(&leaf)));
            }
        }
    }

    #[test]
    fn t23_of_a_damaged_token_only_what_was_signed_is_believed(n in 0usize..3, by in damage()) {
        let (one, other) = two(&VALID.tokens, n);
        let bytes = damaged(one.as_bytes(), other.as_bytes(), &by);
        let text = String::from_utf8_lossy(&bytes);
        let _ = inspect_jwt(&text);
        if verify_jwt(&text, AUDIENCE, &VALID.bundle, &BindingOid::default(), START).is_ok() {
            let message = |token: &str| token.rsplit_once('.').map(|(message, _)| message.to_owned());
            prop_assert!(VALID.tokens.iter().any(|signed| message(signed) == message(&text)));
        }
    }

    #[test]
    fn a_damaged_bundle_is_refused_or_reads_as_it_is_written(by in damage()) {
        let text = VALID.bundle.to_json().unwrap().to_string();
        if let Ok(bundle) = Bundle::from_json(td(), &damaged(text.as_bytes(), text.as_bytes(), &by))
            && let Ok(document) = bundle.to_json()
        {
            let again = Bundle::from_json(td(), document.to_string().as_bytes()).unwrap();
            prop_assert_eq!(again.x509_authorities(), bundle.x509_authorities());
            prop_assert_eq!(again.oidc_jwks(), bundle.oidc_jwks());
        }
    }

    #[test]
    fn a_damaged_ticket_is_refused_or_reads_as_it_is_written(by in damage()) {
        let of = |address| Ticket::new(address, td(), [7; 32], Secret::new([9; 32])).unwrap().to_string();
        let bytes = damaged(of("localhost:8443").as_bytes(), of("[::1]:1").as_bytes(), &by);
        if let Ok(text) = String::from_utf8(bytes)
            && let Ok(ticket) = Ticket::parse(&text)
        {
            let again = ticket.to_string();
            prop_assert_eq!(again.as_str(), text.as_str());
        }
    }
}

/// Every cut in force, by subject, with its `before`.
type Truth = Vec<(Subject, u64)>;

/// A feed that cuts, waits, and forgets; what is true at each of its heartbeats.
struct Told {
    issuer: issuer::Issuer,
    messages: Vec<(Vec<u8>, Truth)>,
}

static TOLD: LazyLock<Told> = LazyLock::new(|| {
    let mut issuer = issuer::Issuer::new();
    let mut messages = Vec::new();
    let mut tell = |issuer: &issuer::Issuer, message: &FeedMessage| {
        let cuts = issuer.model.iter().map(|(subject, (before, _))| (*subject, *before)).collect();
        messages.push((wire(message).encode_to_vec(), cuts));
    };
    issuer.cut(subject(1), u64::MAX, START + 1000);
    tell(&issuer, &issuer.snapshot());
    issuer.cut(subject(2), 2, START + 5);
    issuer.cut(subject(3), u64::MAX, START + 1000);
    issuer.pass(1);
    tell(&issuer, &issuer.delta(1));
    issuer.pass(10);
    tell(&issuer, &issuer.delta(3));
    issuer.cut(subject(4), u64::MAX, START + 1000);
    tell(&issuer, &issuer.delta(3));
    Told { issuer, messages }
});

fn wire(message: &FeedMessage) -> v1::WatchCutsResponse {
    let cuts = message.cuts.iter().map(|cut| v1::Cut {
        subject: cut.subject.0.to_vec(),
        before: cut.before,
        keep_until: cut.keep_until,
        revision: cut.revision,
    });
    let heartbeat = message.heartbeat.as_ref().map(|beat| v1::Heartbeat {
        trust_domain: beat.trust_domain.to_string(),
        incarnation: beat.incarnation.as_bytes().to_vec(),
        head: beat.head,
        as_of: beat.as_of,
        count: beat.count,
        digest: beat.digest.to_vec(),
        chain: beat.chain.map(Vec::from).unwrap_or_default(),
        signature: beat.signature.to_vec(),
    });
    v1::WatchCutsResponse { snapshot: message.snapshot, cuts: cuts.collect(), heartbeat, ..Default::default() }
}

/// Whether this is what the issuer knew when it signed one of its heartbeats, and which.
fn true_once(known: &Known) -> Option<usize> {
    TOLD.messages.iter().position(|(bytes, cuts)| {
        let beat = v1::WatchCutsResponse::decode(bytes.as_slice()).unwrap().heartbeat.unwrap();
        (known.head, known.as_of) == (beat.head, beat.as_of)
            && known.cuts.incarnation.as_bytes() == beat.incarnation.as_slice()
            && known.cuts.iter().eq(cuts.iter().copied())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// T75, T76: one message of a feed is damaged on its way.
    #[test]
    fn t75_t76_a_damaged_message_changes_nothing_that_was_not_signed(hit in 0usize..4, by in damage()) {
        let mut follower = TOLD.issuer.follower(Limits::default());
        let mut last: Option<(usize, Arc<Known>)> = None;
        for (n, (bytes, _)) in TOLD.messages.iter().enumerate() {
            let bytes = if n == hit { damaged(bytes, &two(&TOLD.messages, n).1.0, &by) } else { bytes.clone() };
            let taken = v1::WatchCutsResponse::decode(bytes.as_slice()).ok().and_then(|wire| message(&wire).ok()).map(|message| {
                let heartbeat = message.heartbeat.clone();
                (heartbeat, follower.take(message))
            });
            match taken {
                Some((heartbeat, Ok(Some(known)))) => {
                    prop_assert!(TOLD.issuer.key().verify(&heartbeat.unwrap()).is_ok());
                    let at = true_once(&known);
                    prop_assert!(at.is_some() && at >= last.as_ref().map(|(at, _)| *at), "what was never true, or is no more");
                    last = at.map(|at| (at, known));
                }
                Some((_, Ok(None))) => {}
                // Over: what was known is known, and the next connection goes on from there or begins anew.
                Some((_, Err(_))) | None => {
                    if let Some(position) = follower.connect() {
                        prop_assert_eq!(Some(position.head), last.as_ref().map(|(_, known)| known.head));
                    }
                }
            }
        }
        follower.connect();
        let known = follower.take(TOLD.issuer.snapshot()).unwrap().unwrap();
        prop_assert_eq!(known.cuts.len(), TOLD.issuer.model.len());
    }

    #[test]
    fn t75_a_damaged_key_is_refused_or_another_key(by in damage()) {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let mut beat = TOLD.issuer.heartbeat();
        let signature = key.sign(&SystemRandom::new(), &heartbeat_message(&beat)).unwrap();
        beat.signature.copy_from_slice(signature.as_ref());
        let point = key.public_key().as_ref();
        let bytes = damaged(point, point, &by);
        if let Ok(read) = FeedKey::from_point(&bytes) {
            prop_assert_eq!(read.verify(&beat).is_ok(), bytes == point);
        }
    }
}
