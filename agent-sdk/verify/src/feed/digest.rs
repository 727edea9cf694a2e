//! A digest of a set of cuts that can be updated for each added or removed cut, in any order.

use aws_lc_rs::digest::{Context, SHA256};

use crate::Subject;

/// The sum modulo 2^256 of SHA-256(subject, before as 8 bytes big-endian) over all cuts, each hash read as a big-endian number.
///
/// Such sums are not collision-resistant against an attacker who chooses both sets. Here only the issuer chooses the set, and
/// signs the result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CutDigest {
    /// The least significant first.
    limbs: [u64; 4],
}

impl CutDigest {
    /// Adds one cut.
    pub fn add(&mut self, subject: Subject, before: u64) {
        self.add_all(CutDigest { limbs: term(subject, before) });
    }

    /// Removes one cut.
    pub fn remove(&mut self, subject: Subject, before: u64) {
        self.remove_all(CutDigest { limbs: term(subject, before) });
    }

    /// Adds all cuts of another digest.
    pub fn add_all(&mut self, other: CutDigest) {
        let mut carry = 0u128;
        for (limb, term) in self.limbs.iter_mut().zip(other.limbs) {
            let sum = u128::from(*limb) + u128::from(term) + carry;
            *limb = low(sum);
            carry = sum >> 64;
        }
    }

    /// Removes all cuts of another digest.
    pub fn remove_all(&mut self, other: CutDigest) {
        let mut borrow = false;
        for (limb, term) in self.limbs.iter_mut().zip(other.limbs) {
            let (less, first) = limb.overflowing_sub(term);
            let (less, second) = less.overflowing_sub(u64::from(borrow));
            (*limb, borrow) = (less, first || second);
        }
    }

    /// The digest as a heartbeat has it: big-endian.
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (to, limb) in bytes.rchunks_exact_mut(8).zip(self.limbs) {
            to.copy_from_slice(&limb.to_be_bytes());
        }
        bytes
    }
}

/// The number of one cut, the least significant limb first.
fn term(subject: Subject, before: u64) -> [u64; 4] {
    let mut hash = Context::new(&SHA256);
    hash.update(&subject.0);
    hash.update(&before.to_be_bytes());
    let mut limbs = [0; 4];
    for (limb, bytes) in limbs.iter_mut().zip(hash.finish().as_ref().rchunks_exact(8)) {
        *limb = bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
    }
    limbs
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
fn low(sum: u128) -> u64 {
    sum as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same sum computed byte by byte from the right, as the proto describes it.
    fn by_bytes(cuts: &[(Subject, u64)]) -> [u8; 32] {
        let mut sum = [0u8; 32];
        for (subject, before) in cuts {
            let hashed = crate::sha256(&[&subject.0[..], &before.to_be_bytes()[..]].concat());
            let mut carry = 0u16;
            for (to, from) in sum.iter_mut().zip(hashed).rev() {
                let n = u16::from(*to) + u16::from(from) + carry;
                (*to, carry) = (n.to_be_bytes()[1], n >> 8);
            }
        }
        sum
    }

    proptest! {
        #[test]
        fn the_digest_is_the_sum_of_what_is_in_whatever_came_and_went(
            cuts in proptest::collection::vec((any::<[u8; 16]>(), any::<u64>()), 0..20), gone in 0usize..20,
        ) {
            let cuts: Vec<_> = cuts.into_iter().map(|(s, b)| (Subject(s), b)).collect();
            let mut digest = CutDigest::default();
            cuts.iter().for_each(|(s, b)| digest.add(*s, *b));
            prop_assert_eq!(digest.to_bytes(), by_bytes(&cuts));
            let (out, left) = cuts.split_at(gone.min(cuts.len()));
            out.iter().for_each(|(s, b)| digest.remove(*s, *b));
            prop_assert_eq!(digest.to_bytes(), by_bytes(left));
        }
    }
}
