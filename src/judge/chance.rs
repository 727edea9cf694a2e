//! Chance: all random bytes that one act may need, drawn before it is judged.

/// Random bytes for one act. Judging again with the same bytes gives the same verdict.
#[derive(Clone)]
pub struct Chance([u8; Chance::LEN]);

impl Chance {
    /// Bytes of randomness for one act.
    pub const LEN: usize = 58;

    /// Chance from random bytes.
    pub fn new(random: [u8; Chance::LEN]) -> Chance {
        Chance(random)
    }

    /// The random part of an agent's UUIDv7.
    pub fn agent(&self) -> [u8; 10] {
        self.part(0)
    }

    /// A certificate's serial number: positive, with 126 random bits (T29).
    pub fn serial(&self) -> [u8; 16] {
        serial_of(self.part(10))
    }

    /// A delegation's nonce.
    pub fn nonce(&self) -> [u8; 16] {
        self.part(26)
    }

    /// A token's `jti`.
    pub fn jti(&self) -> [u8; 16] {
        self.part(42)
    }

    fn part<const N: usize>(&self, from: usize) -> [u8; N] {
        let mut part = [0; N];
        part.iter_mut().zip(self.0.iter().skip(from)).for_each(|(to, byte)| *to = *byte);
        part
    }
}

/// A serial number from random bytes. The first octet is never zero and never negative, so that there is one encoding, always of
/// 16 octets (T29).
pub(crate) fn serial_of(mut random: [u8; 16]) -> [u8; 16] {
    let [first, ..] = &mut random;
    *first = (*first & 0x7f) | 0x40;
    random
}
