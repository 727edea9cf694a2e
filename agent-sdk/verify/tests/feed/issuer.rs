//! A feed that signs: the issuer's side, as plainly as it can be written.

use std::collections::BTreeMap;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use mayfly_verify::feed::{CutDigest, FeedCut, FeedKey, FeedMessage, Follower, Heartbeat, Limits, heartbeat_message};
use mayfly_verify::{Subject, Target, TrustDomain};
use uuid::Uuid;

pub(crate) const START: u64 = 1_800_000_000;

pub(crate) fn td() -> TrustDomain {
    TrustDomain::new("td").unwrap()
}

pub(crate) fn subject(n: u64) -> Subject {
    Target::Agent(Uuid::from_u128(u128::from(n))).unsalted()
}

/// (subject -> before, keep_until), as it stands at one time.
pub(crate) type Model = BTreeMap<Subject, (u64, u64)>;

pub(crate) struct Issuer {
    key: EcdsaKeyPair,
    pub(crate) incarnation: Uuid,
    pub(crate) head: u64,
    /// Unix seconds.
    pub(crate) now: u64,
    pub(crate) model: Model,
    log: Vec<FeedCut>,
    /// Digest of the journal at the head.
    pub(crate) chain: [u8; 32],
}

impl Issuer {
    pub(crate) fn new() -> Issuer {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Issuer { key, incarnation: Uuid::from_u128(1), head: 0, now: START, model: Model::new(), log: Vec::new(), chain: [0; 32] }
    }

    pub(crate) fn key(&self) -> FeedKey {
        FeedKey::from_point(self.key.public_key().as_ref()).unwrap()
    }

    pub(crate) fn follower(&self, limits: Limits) -> Follower {
        Follower::new(self.key(), td(), limits)
    }

    pub(crate) fn cut(&mut self, subject: Subject, before: u64, keep_until: u64) {
        self.head += 1;
        self.chain = mayfly_verify::sha256(&[&self.chain[..], &subject.0[..]].concat());
        let at = self.model.entry(subject).or_default();
        *at = (at.0.max(before), at.1.max(keep_until));
        self.log.push(FeedCut { subject, before: at.0, keep_until: at.1, revision: self.head });
    }

    /// A cut goes because another one kills all that it did.
    pub(crate) fn take_off(&mut self, subject: Subject) {
        let (_, keep_until) = self.model.remove(&subject).unwrap();
        self.log.push(FeedCut { subject, before: 0, keep_until, revision: self.head });
    }

    pub(crate) fn pass(&mut self, seconds: u64) {
        self.now += seconds;
        self.model.retain(|_, (_, keep_until)| *keep_until > self.now);
    }

    /// Another life of the journal.
    pub(crate) fn restore(&mut self) {
        self.incarnation = Uuid::from_u128(self.incarnation.as_u128() + 1);
        self.model.clear();
        self.log.clear();
    }

    pub(crate) fn heartbeat(&self) -> Heartbeat {
        let mut digest = CutDigest::default();
        self.model.iter().for_each(|(subject, (before, _))| digest.add(*subject, *before));
        self.sign(Heartbeat {
            trust_domain: td(),
            incarnation: self.incarnation,
            head: self.head,
            as_of: self.now * 1_000_000,
            count: self.model.len() as u64,
            digest: digest.to_bytes(),
            chain: Some(self.chain),
            signature: [0; 64],
        })
    }

    pub(crate) fn sign(&self, mut heartbeat: Heartbeat) -> Heartbeat {
        let signature = self.key.sign(&SystemRandom::new(), &heartbeat_message(&heartbeat)).unwrap();
        heartbeat.signature.copy_from_slice(signature.as_ref());
        heartbeat
    }

    pub(crate) fn snapshot(&self) -> FeedMessage {
        let cuts = self.model.iter().map(|(subject, (before, keep_until))| FeedCut {
            subject: *subject,
            before: *before,
            keep_until: *keep_until,
            revision: self.head,
        });
        FeedMessage { snapshot: true, cuts: cuts.collect(), heartbeat: Some(self.heartbeat()) }
    }

    /// What came after a revision.
    pub(crate) fn delta(&self, after: u64) -> FeedMessage {
        let cuts = self.log.iter().filter(|c| c.revision > after).copied().collect();
        FeedMessage { snapshot: false, cuts, heartbeat: Some(self.heartbeat()) }
    }
}
