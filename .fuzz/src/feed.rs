//! One connection of a feed: messages as they came, and a follower that takes them.

use std::sync::Arc;

use mayfly_agent::api::v1;
use mayfly_agent::revocation::message;
use mayfly_verify::feed::{CutDigest, FeedKey, FeedMessage, Follower, Known, Limits};
use prost::Message as _;

use crate::issuer::{Issuer, START, subject};

/// Takes messages, and holds the follower to its rule.
pub struct Line {
    issuer: Issuer,
    key: FeedKey,
    follower: Follower,
    known: Option<Arc<Known>>,
}

impl Default for Line {
    fn default() -> Line {
        let issuer = Issuer::new();
        let (key, follower) = (issuer.key(), issuer.follower(Limits { cuts: 64, pending: 64 }));
        Line { issuer, key, follower, known: None }
    }
}

impl Line {
    /// Takes a message as it stands, or under a signature of the issuer. False when the connection is over.
    pub fn take(&mut self, wire: &[u8], sign: bool) -> bool {
        let Ok(wire) = v1::WatchCutsResponse::decode(wire) else { return false };
        let Ok(mut message) = message(&wire) else { return false };
        if sign {
            message.heartbeat = message.heartbeat.map(|heartbeat| self.issuer.sign(heartbeat));
        }
        let heartbeat = message.heartbeat.clone();
        let taken = self.follower.take(message);
        if let Ok(Some(known)) = &taken {
            let heartbeat = heartbeat.expect("nothing is known without a heartbeat");
            self.key.verify(&heartbeat).expect("nothing is known without a signature");
            let mut digest = CutDigest::default();
            known.cuts.iter().for_each(|(subject, before)| digest.add(subject, before));
            assert_eq!(
                (known.cuts.incarnation, known.head, known.as_of, known.cuts.len() as u64, digest.to_bytes()),
                (heartbeat.incarnation, heartbeat.head, heartbeat.as_of, heartbeat.count, heartbeat.digest)
            );
            if let Some(before) = &self.known {
                let same = before.cuts.incarnation == known.cuts.incarnation;
                assert!(known.as_of >= before.as_of && (!same || known.head >= before.head), "it went back");
            }
            self.known = Some(Arc::clone(known));
        }
        taken.is_ok()
    }

    /// The head of what is known.
    pub fn head(&self) -> Option<u64> {
        self.known.as_ref().map(|known| known.head)
    }

    /// The connection broke. What was known is known.
    pub fn reconnect(&mut self) {
        let position = self.follower.connect();
        assert!(position.is_none_or(|at| self.known.as_ref().is_some_and(|known| known.head == at.head)));
    }
}

/// Connections, each message with a byte before it that says whether it is signed, and its length in two. The signed ones first.
pub fn feeds() -> Vec<Vec<u8>> {
    let mut issuer = Issuer::new();
    let empty = issuer.snapshot();
    issuer.cut(subject(1), u64::MAX, START + 60);
    issuer.cut(subject(2), 2, START + 5);
    let two = issuer.delta(0);
    let whole = issuer.snapshot();
    issuer.pass(10);
    let quiet = issuer.delta(issuer.head);
    let feeds = [vec![&empty], vec![&empty, &two], vec![&empty, &two, &quiet], vec![&whole, &quiet]];
    let put = |signed: u8, message: &&FeedMessage| {
        let bytes = wire(message).encode_to_vec();
        [&[signed][..], &u16::try_from(bytes.len()).unwrap().to_be_bytes(), &bytes].concat()
    };
    let each = |signed| feeds.iter().map(move |feed| feed.iter().flat_map(|m| put(signed, m)).collect());
    each(1).chain(each(0)).collect()
}

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
        // Another key signs it in each run.
        signature: vec![7; 64],
    });
    v1::WatchCutsResponse { snapshot: message.snapshot, cuts: cuts.collect(), heartbeat }
}
