//! What a heartbeat signs, and the digest over a set of cuts.

use mayfly_verify::{Subject, sha256};
use uuid::Uuid;

/// What a heartbeat says.
pub(super) struct HeartbeatFields<'a> {
    pub(super) trust_domain: &'a str,
    pub(super) incarnation: Uuid,
    pub(super) head: u64,
    pub(super) as_of: u64,
    pub(super) count: u64,
    pub(super) digest: [u8; 32],
}

/// The bytes that a heartbeat's signature covers; see `Heartbeat` in the API.
pub(super) fn heartbeat_message(fields: &HeartbeatFields<'_>) -> Vec<u8> {
    let mut message = b"mayfly feed v1\0".to_vec();
    message.extend_from_slice(&u64::try_from(fields.trust_domain.len()).unwrap_or(u64::MAX).to_be_bytes());
    message.extend_from_slice(fields.trust_domain.as_bytes());
    message.extend_from_slice(fields.incarnation.as_bytes());
    for number in [fields.head, fields.as_of, fields.count] {
        message.extend_from_slice(&number.to_be_bytes());
    }
    message.extend_from_slice(&fields.digest);
    message
}

/// The sum modulo 2^256 of the hashes of all cuts, lowest limb first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CutDigest([u64; 4]);

impl CutDigest {
    pub(super) fn add(&mut self, subject: Subject, before: u64) {
        let mut carry = false;
        for (limb, more) in self.0.iter_mut().zip(limbs(subject, before)) {
            let (sum, over) = limb.overflowing_add(more);
            let (sum, again) = sum.overflowing_add(u64::from(carry));
            (*limb, carry) = (sum, over || again);
        }
    }

    pub(super) fn remove(&mut self, subject: Subject, before: u64) {
        let mut borrow = false;
        for (limb, less) in self.0.iter_mut().zip(limbs(subject, before)) {
            let (rest, under) = limb.overflowing_sub(less);
            let (rest, again) = rest.overflowing_sub(u64::from(borrow));
            (*limb, borrow) = (rest, under || again);
        }
    }

    /// Big-endian.
    pub(super) fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0u8; 32];
        for (to, limb) in bytes.chunks_mut(8).zip(self.0.iter().rev()) {
            to.copy_from_slice(&limb.to_be_bytes());
        }
        bytes
    }
}

fn limbs(subject: Subject, before: u64) -> [u64; 4] {
    let hash = sha256(&[&subject.0[..], &before.to_be_bytes()].concat());
    let mut limbs = [0u64; 4];
    for (limb, bytes) in limbs.iter_mut().rev().zip(hash.chunks_exact(8)) {
        *limb = bytes.try_into().map_or(0, u64::from_be_bytes);
    }
    limbs
}
