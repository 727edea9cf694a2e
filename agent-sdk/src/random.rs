//! Random numbers, from the cryptographic library: the one place of this crate that draws them.

use aws_lc_rs::error::Unspecified;

/// `N` random bytes.
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], Unspecified> {
    let mut bytes = [0u8; N];
    aws_lc_rs::rand::fill(&mut bytes)?;
    Ok(bytes)
}

/// A number in 0..=1, to spread out what many processes would otherwise do at the same moment. It is 0.5 if no random number
/// can be had: then nothing is spread out, and nothing else is lost.
pub(crate) fn chance() -> f64 {
    bytes::<2>().map_or(0.5, |random| f64::from(u16::from_be_bytes(random)) / f64::from(u16::MAX))
}
