//! The generations of an agent's certificates: the current one, the renewed one that was not used yet, and the replaced ones.

use super::{Agent, Certificate, seconds};

/// The generation of a certificate of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// The one in use.
    Current,
    /// The renewed certificate, which was not used before.
    Next,
    /// A renewed certificate that was replaced before it was used.
    Replaced,
    /// A certificate from before the current one.
    Past,
}

/// An earlier certificate of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Past {
    serial: [u8; 16],
    /// Unix seconds at which it expires.
    ends_at: u64,
    /// Revision of the record of its successor's first use.
    replaced: u64,
}

impl Agent {
    /// The generation of the certificate with this serial number. The caller has verified the chain, so it is a certificate of this
    /// agent.
    pub fn generation(&self, serial: &[u8]) -> Generation {
        let is = |certificate: &Option<Certificate>| certificate.as_ref().is_some_and(|c| c.serial == serial);
        if is(&self.current) {
            Generation::Current
        } else if is(&self.rare.next) {
            Generation::Next
        } else if self.rare.replaced.iter().any(|replaced| replaced == serial) {
            Generation::Replaced
        } else {
            Generation::Past
        }
    }

    /// Adds a renewed certificate, which waits for its first use.
    pub(super) fn renewed(&mut self, certificate: Certificate) {
        if let Some(unused) = self.rare.next.replace(certificate) {
            self.rare.replaced.push(unused.serial);
            self.rare.keys.push(unused.key);
        }
    }

    /// Its certificates that have not expired at `at` (Unix microseconds) and whose keys are known: the current one and the next.
    pub(super) fn certificates(&self, at: u64) -> impl Iterator<Item = &Certificate> {
        self.current.iter().chain(&self.rare.next).filter(move |c| seconds(c.ends_at) > at)
    }

    /// Serial numbers of its certificates that have not expired at `at` (Unix microseconds).
    pub(super) fn serials(&self, at: u64) -> impl Iterator<Item = [u8; 16]> {
        let whole = self.certificates(at).map(|c| c.serial);
        let past = self.rare.past.iter().filter(move |past| seconds(past.ends_at) > at).map(|past| past.serial);
        // The expiry of certificates that were replaced before their use is unknown, but none expires later than the last one.
        let replaced = self.rare.replaced.iter().filter(move |_| seconds(self.svid_ends_at) > at).copied();
        whole.chain(past).chain(replaced)
    }

    /// The revision at which the certificate with this serial number was replaced. `None` if it is the current one, or has expired.
    pub fn replaced_at(&self, serial: &[u8]) -> Option<u64> {
        self.rare.past.iter().find(|past| past.serial == serial).map(|past| past.replaced)
    }

    /// Makes the renewed certificate the current one, as of the record at `revision` and its time `at` (Unix microseconds).
    pub(super) fn used(&mut self, revision: u64, at: u64) {
        if let Some(next) = self.rare.next.take() {
            self.rare.past.retain(|past| seconds(past.ends_at) > at);
            if let Some(past) = self.current.replace(next) {
                self.rare.past.push(Past { serial: past.serial, ends_at: past.ends_at, replaced: revision });
                self.rare.keys.push(past.key);
            }
        }
        self.used_since = revision;
        self.rare.rows.push(revision);
    }
}
