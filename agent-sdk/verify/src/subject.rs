//! What a cut can be about, and the rule by which it kills.

use std::collections::HashMap;
use std::fmt;

use aws_lc_rs::digest;
use uuid::Uuid;

use crate::{ClassName, DelegationId, User, Workload};

/// Something a credential relies on, as 16 bytes: a verifier compares subjects and never learns what they name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject(pub [u8; 16]);

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// What a [`Subject`] stands for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A person.
    User(User),
    /// The record of what a user lets a workload do.
    Delegation(DelegationId),
    /// One agent.
    Agent(Uuid),
    /// A class of agents.
    Class(ClassName),
    /// The workload at the top of a tree.
    Workload(Workload),
    /// Everything of this trust domain.
    TrustDomain,
    /// A certified key: SHA-256 of its `SubjectPublicKeyInfo`.
    Key([u8; 32]),
    /// An issuing key, by its key id.
    Authority(Vec<u8>),
}

impl Target {
    /// The first 16 bytes of SHA-256 over a fixed prefix, the kind, and each part with its length before it.
    pub fn subject(&self) -> Subject {
        let workload;
        let (kind, parts): (u8, Vec<&[u8]>) = match self {
            Target::User(user) => (1, vec![user.iss.as_bytes(), user.sub.as_bytes()]),
            Target::Delegation(id) => (2, vec![&id.0]),
            Target::Agent(uuid) => (3, vec![uuid.as_bytes()]),
            Target::Class(name) => (4, vec![name.as_str().as_bytes()]),
            Target::Workload(name) => {
                workload = name.to_string();
                (5, vec![workload.as_bytes()])
            }
            Target::TrustDomain => (6, vec![]),
            Target::Key(key) => (7, vec![key]),
            Target::Authority(key_id) => (8, vec![key_id]),
        };
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(b"mayfly subject v1\0");
        hash.update(&[kind]);
        for part in parts {
            hash.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part);
        }
        let mut subject = [0u8; 16];
        for (to, from) in subject.iter_mut().zip(hash.finish().as_ref()) {
            *to = *from;
        }
        Subject(subject)
    }
}

/// The credential relies on this subject through the record at revision `since`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// On what.
    pub subject: Subject,
    /// Through which record.
    pub since: u64,
}

/// Adds a stamp; of two with one subject the lower `since` stays.
pub fn add_stamp(stamps: &mut Vec<Stamp>, stamp: Stamp) {
    match stamps.iter_mut().find(|s| s.subject == stamp.subject) {
        Some(same) => same.since = same.since.min(stamp.since),
        None => stamps.push(stamp),
    }
}

/// Every revocation in force in one incarnation of the journal.
#[derive(Clone, Debug, Default)]
pub struct Cuts {
    /// Which incarnation of the journal these revisions belong to.
    pub incarnation: Uuid,
    before: HashMap<Subject, u64>,
}

impl Cuts {
    /// No cuts yet, for this incarnation.
    pub fn new(incarnation: Uuid) -> Cuts {
        Cuts { incarnation, before: HashMap::new() }
    }

    /// Kills what relies on `subject` since before `before`. A later cut never moves an earlier one back.
    pub fn cut(&mut self, subject: Subject, before: u64) {
        let at = self.before.entry(subject).or_insert(before);
        *at = (*at).max(before);
    }

    /// The revision before which reliance on `subject` is dead, if it was ever cut.
    pub fn before(&self, subject: Subject) -> Option<u64> {
        self.before.get(&subject).copied()
    }

    /// Takes a cut away that can hit nothing any more.
    pub fn forget(&mut self, subject: Subject) {
        self.before.remove(&subject);
    }

    /// Number of cuts.
    pub fn len(&self) -> usize {
        self.before.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.before.is_empty()
    }

    /// The stamp by which these stamps are dead, if any: `since` < `before`.
    pub fn killing<'a>(&self, stamps: impl IntoIterator<Item = &'a Stamp>) -> Option<Stamp> {
        stamps.into_iter().find(|s| self.before.get(&s.subject).is_some_and(|before| s.since < *before)).copied()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_cut_kills_what_is_older_and_spares_what_is_newer() {
        let subject = Target::TrustDomain.subject();
        let mut cuts = Cuts::new(Uuid::nil());
        cuts.cut(subject, 5);
        assert!(cuts.killing(&[Stamp { subject, since: 4 }]).is_some());
        assert!(cuts.killing(&[Stamp { subject, since: 5 }]).is_none());
        cuts.cut(subject, 3);
        assert_eq!(cuts.before(subject), Some(5), "an earlier cut never weakens a later one");
    }

    #[test]
    fn subjects_of_different_parts_differ() {
        let user = |iss: &str, sub: &str| Target::User(User { iss: iss.into(), sub: sub.into() }).subject();
        assert_ne!(user("a", "bc"), user("ab", "c"));
        assert_ne!(Target::Agent(Uuid::nil()).subject(), Target::TrustDomain.subject());
    }

    #[test]
    fn a_workloads_subject_is_that_of_its_text() {
        // What was cut under an earlier version stays cut.
        let hex = |target: Target| format!("{:?}", target.subject());
        assert_eq!(hex(Target::Workload("orchestrator".parse().unwrap())), "4dc2ada9aced2125a809aa93a1cf7c14");
        assert_eq!(
            hex(Target::Workload("spiffe://spire.example.org/ns/x/sa/y".parse().unwrap())),
            "cb98b9895acb9771f5b021824a51fb58"
        );
    }

    #[test]
    fn of_two_stamps_with_one_subject_the_lower_stays() {
        let subject = Target::TrustDomain.subject();
        let mut stamps = vec![Stamp { subject, since: 7 }];
        add_stamp(&mut stamps, Stamp { subject, since: 9 });
        add_stamp(&mut stamps, Stamp { subject, since: 2 });
        assert_eq!(stamps, vec![Stamp { subject, since: 2 }]);
    }
}
