//! An entry as it is stored: a leaf that everybody may see, and an opening for auditors, which the leaf commits to.
//!
//! Both are JSON in the canonical form of RFC 8785: keys in order, no spaces. The tree holds the leaf. The leaf contains
//! HMAC-SHA-256 over the opening under a salt of 32 random bytes. A holder of salt and opening can check them against the leaf, and
//! nobody else learns anything about the user, the delegation, the caller or the reason.

use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::entry::{Draft, Leaf, Opening};

/// Longest leaf, in bytes: a bundle of entries has two bytes for its length.
pub(super) const LONGEST: usize = 65_535;

/// An entry as it is kept: the bytes of both parts, and the salt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The journal's revision up to which the history holds every record, this entry included.
    pub head: u64,
    /// The canonical bytes of the leaf.
    pub leaf: String,
    /// The canonical bytes of the opening.
    pub opening: String,
    /// 32 random bytes.
    pub salt: [u8; 32],
}

/// A line of a segment.
#[derive(Serialize, Deserialize)]
struct Line<'a> {
    head: u64,
    #[serde(borrow)]
    leaf: &'a RawValue,
    #[serde(borrow)]
    opening: &'a RawValue,
    salt: String,
}

impl Sealed {
    /// Gives a draft its index, and commits its leaf to its opening.
    pub fn seal(mut draft: Draft, index: u64, head: u64, salt: [u8; 32]) -> Result<Sealed, String> {
        let opening = serde_json::to_string(&draft.opening).map_err(|e| e.to_string())?;
        draft.leaf.index = index;
        draft.leaf.commitment = hex::encode(commitment(&salt, opening.as_bytes()));
        let leaf = serde_json::to_string(&draft.leaf).map_err(|e| e.to_string())?;
        if leaf.len() > LONGEST {
            return Err(format!("entry {index} has {} bytes", leaf.len()));
        }
        Ok(Sealed { head, leaf, opening, salt })
    }

    /// Appends its line of a segment, with a line feed.
    pub fn line(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(b"{\"head\":");
        to.extend_from_slice(self.head.to_string().as_bytes());
        to.extend_from_slice(b",\"leaf\":");
        to.extend_from_slice(self.leaf.as_bytes());
        to.extend_from_slice(b",\"opening\":");
        to.extend_from_slice(self.opening.as_bytes());
        to.extend_from_slice(b",\"salt\":\"");
        to.extend_from_slice(hex::encode(self.salt).as_bytes());
        to.extend_from_slice(b"\"}\n");
    }

    /// Reads a line.
    pub fn read(line: &[u8]) -> Result<Sealed, String> {
        let line: Line<'_> = serde_json::from_slice(line).map_err(|e| e.to_string())?;
        let mut salt = [0u8; 32];
        hex::decode_to_slice(&line.salt, &mut salt).map_err(|e| e.to_string())?;
        Ok(Sealed { head: line.head, leaf: line.leaf.get().to_owned(), opening: line.opening.get().to_owned(), salt })
    }

    /// Both parts, and whether the leaf commits to the opening.
    pub fn open(&self) -> Result<Draft, String> {
        let leaf: Leaf = serde_json::from_str(&self.leaf).map_err(|e| e.to_string())?;
        let opening: Opening = serde_json::from_str(&self.opening).map_err(|e| e.to_string())?;
        Ok(Draft { leaf, opening })
    }

    /// Whether the leaf commits to this opening under this salt.
    pub fn is_committed(&self) -> bool {
        let leaf: Result<Leaf, _> = serde_json::from_str(&self.leaf);
        leaf.is_ok_and(|leaf| leaf.commitment == hex::encode(commitment(&self.salt, self.opening.as_bytes())))
    }
}

/// HMAC-SHA-256 of an opening under a salt.
pub(super) fn commitment(salt: &[u8; 32], opening: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, salt), opening);
    let mut bytes = [0u8; 32];
    bytes.copy_from_slice(tag.as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::super::entry::{Kind, Outcome, Person};
    use super::*;

    fn draft() -> Draft {
        let mut draft = Draft::new(Kind::Revocation, 1_800_000_000_000_000, Outcome::Recorded);
        draft.leaf.revision = 7;
        draft.opening.reason = "line\nend \u{1b}[31m \"quoted\"".into();
        draft.opening.user = Some(Person { iss: "https://login.example".into(), sub: "alice".into() });
        draft
    }

    #[test]
    fn a_line_gives_back_the_very_bytes_of_both_parts() {
        let sealed = Sealed::seal(draft(), 3, 7, [9; 32]).unwrap();
        let mut line = Vec::new();
        sealed.line(&mut line);
        assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1, "whatever callers wrote, an entry is one line");
        assert_eq!(Sealed::read(&line).unwrap(), sealed);
        assert_eq!(sealed.open().unwrap().opening, draft().opening);
    }

    #[test]
    fn t126_a_leaf_names_no_user_and_no_reason_and_commits_to_both() {
        let sealed = Sealed::seal(draft(), 3, 7, [9; 32]).unwrap();
        assert!(!sealed.leaf.contains("alice") && !sealed.leaf.contains("quoted"), "{}", sealed.leaf);
        assert!(sealed.is_committed());
        let other = |change: fn(&mut Sealed)| {
            let mut other = sealed.clone();
            change(&mut other);
            !other.is_committed()
        };
        assert!(other(|s| s.opening = s.opening.replace("alice", "mallo")));
        assert!(other(|s| s.salt = [8; 32]));
        // The same opening under another salt has another commitment, so nobody finds a user by trying names.
        let again = Sealed::seal(draft(), 3, 7, [8; 32]).unwrap();
        assert_ne!(again.open().unwrap().leaf.commitment, sealed.open().unwrap().leaf.commitment);
    }

    #[test]
    fn both_parts_are_canonical_json() {
        let mut full = draft();
        full.leaf.agent_id = "a".into();
        full.opening.scopes = vec!["x".into()];
        let sealed = Sealed::seal(full, 3, 7, [9; 32]).unwrap();
        for part in [&sealed.leaf, &sealed.opening] {
            let value: serde_json::Value = serde_json::from_str(part).unwrap();
            let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
            let mut sorted = keys.clone();
            sorted.sort();
            let at: Vec<usize> = sorted.iter().map(|key| part.find(&format!("\"{key}\":")).unwrap()).collect();
            assert!(at.windows(2).all(|w| w.first() < w.last()), "{part}");
            assert!(!part.contains(": ") || part.contains("line"), "{part}");
        }
    }
}
