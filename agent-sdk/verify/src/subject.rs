//! Subjects: what a cut can revoke, and what a credential relies on.

use std::fmt;

use aws_lc_rs::digest;
use uuid::Uuid;

use crate::{ClassName, DelegationId, User, Workload};

/// The user, agent, class or other subject that a credential relies on, as a digest of 16 bytes. Verifiers compare subjects
/// without learning what they name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject(pub [u8; 16]);

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// What a [`Subject`] is the digest of.
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
    /// The root workload of a tree of agents.
    Workload(Workload),
    /// The whole trust domain.
    TrustDomain,
    /// A certified key: SHA-256 of its `SubjectPublicKeyInfo`.
    Key([u8; 32]),
    /// An issuing key, identified by its key id.
    Authority(Vec<u8>),
    /// One access token, by its `jti`.
    Token(String),
    /// An issuer of users, by its URL: everybody whose tokens it signs.
    Issuer(String),
}

/// What the subjects of an incarnation of the journal are salted with, as far as their names could be guessed.
///
/// Only the issuer knows it. Verifiers need it for nothing: the stamps of a credential carry the subjects, and keys, authorities and
/// tokens, which verifiers name by themselves, are not salted.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Salt(Option<[u8; 32]>);

impl Salt {
    /// No salt: subjects are plain digests of their names, as in journals that began before there were salts.
    pub const NONE: Salt = Salt(None);

    /// A salt.
    pub fn new(secret: [u8; 32]) -> Salt {
        Salt(Some(secret))
    }
}

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Salt(..)" } else { "Salt(none)" })
    }
}

impl Target {
    /// Whether this subject can be closed for new credentials and reopened, as a user, an issuer of users, a workload or a class
    /// can.
    pub fn reopens(&self) -> bool {
        matches!(self, Target::User(_) | Target::Issuer(_) | Target::Workload(_) | Target::Class(_))
    }

    /// Whether somebody who may not know it could guess its name: that of a user, an issuer of users, a workload or a class.
    fn is_guessable(&self) -> bool {
        matches!(self, Target::User(_) | Target::Issuer(_) | Target::Workload(_) | Target::Class(_))
    }

    /// Its subject in an incarnation of the journal with this salt: the first 16 bytes of SHA-256 over a fixed prefix, the salt if its
    /// name could be guessed, the kind, and each part preceded by its length.
    pub fn subject(&self, salt: &Salt) -> Subject {
        self.digest(salt.0.as_ref().filter(|_| self.is_guessable()))
    }

    /// Its subject without a salt: what it is for everything but users, issuers of users, workloads and classes.
    pub fn unsalted(&self) -> Subject {
        self.digest(None)
    }

    fn digest(&self, salt: Option<&[u8; 32]>) -> Subject {
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
            Target::Token(jti) => (9, vec![jti.as_bytes()]),
            Target::Issuer(iss) => (10, vec![iss.as_bytes()]),
        };
        let mut hash = digest::Context::new(&digest::SHA256);
        match salt {
            None => hash.update(b"mayfly subject v1\0"),
            Some(salt) => {
                hash.update(b"mayfly subject v2\0");
                hash.update(salt);
            }
        }
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

/// Says that the credential relies on a subject, through the record at revision `since`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// The subject.
    pub subject: Subject,
    /// Revision of the record.
    pub since: u64,
}

/// Adds a stamp. Of two stamps with one subject, the one with the lower `since` stays.
pub fn add_stamp(stamps: &mut Vec<Stamp>, stamp: Stamp) {
    match stamps.iter_mut().find(|s| s.subject == stamp.subject) {
        Some(same) => same.since = same.since.min(stamp.since),
        None => stamps.push(stamp),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn subjects_of_different_parts_differ() {
        let user = |iss: &str, sub: &str| Target::User(User { iss: iss.into(), sub: sub.into() }).unsalted();
        assert_ne!(user("a", "bc"), user("ab", "c"));
        assert_ne!(Target::Agent(Uuid::nil()).unsalted(), Target::TrustDomain.unsalted());
    }

    #[test]
    fn a_workloads_subject_is_that_of_its_text() {
        // If these values changed, everything that earlier versions revoked would be valid again.
        let hex = |target: Target| format!("{:?}", target.unsalted());
        assert_eq!(hex(Target::Workload("orchestrator".parse().unwrap())), "4dc2ada9aced2125a809aa93a1cf7c14");
        assert_eq!(
            hex(Target::Workload("spiffe://spire.example.org/ns/x/sa/y".parse().unwrap())),
            "cb98b9895acb9771f5b021824a51fb58"
        );
    }

    #[test]
    fn t229_a_name_that_could_be_guessed_is_salted_and_no_other_is() {
        let salts = [Salt::NONE, Salt::new([1; 32]), Salt::new([2; 32])];
        let all = |target: Target| salts.map(|salt| target.subject(&salt));
        let user = User { iss: "https://idp.example".into(), sub: "100001".into() };
        for target in [
            Target::User(user.clone()),
            Target::Issuer(user.iss),
            Target::Workload("orchestrator".parse().unwrap()),
            Target::Class("researcher".parse().unwrap()),
        ] {
            let [none, one, two] = all(target.clone());
            assert!(none == target.unsalted() && one != none && two != none && one != two, "{target:?}");
        }
        // Subjects that verifiers compute themselves, or whose names nobody can guess, have no salt.
        for target in [
            Target::Key([7; 32]),
            Target::Authority(vec![8; 20]),
            Target::Token("t-1".into()),
            Target::Agent(Uuid::nil()),
            Target::Delegation(DelegationId([9; 32])),
            Target::TrustDomain,
        ] {
            assert_eq!(all(target.clone()), [target.unsalted(); 3], "{target:?}");
        }
        assert!(!format!("{:?}", salts[1]).contains('1'), "a salt is shown to nobody");
    }

    #[test]
    fn of_two_stamps_with_one_subject_the_lower_stays() {
        let subject = Target::TrustDomain.unsalted();
        let mut stamps = vec![Stamp { subject, since: 7 }];
        add_stamp(&mut stamps, Stamp { subject, since: 9 });
        add_stamp(&mut stamps, Stamp { subject, since: 2 });
        assert_eq!(stamps, vec![Stamp { subject, since: 2 }]);
    }
}
