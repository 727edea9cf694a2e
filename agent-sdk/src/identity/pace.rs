//! When to renew, and when to try again.

use std::time::Duration;

/// The first pause after a failure, which doubles.
const FIRST: Duration = Duration::from_millis(200);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(30);

/// How long after its issuance a certificate of this life is renewed: around its half, between three and seven tenths.
///
/// Agents that begin together are spread over two fifths of a life, so that the first wave of renewals is a quarter above
/// the mean rate, and each later one flatter. Three tenths of the life are left for trying again. `chance` is in 0..=1.
pub(super) fn renewal(life: Duration, chance: f64) -> Duration {
    life.mul_f64(0.3 + 0.4 * chance)
}

/// The pause after so many failures in a row. Never longer than an eighth of the certificate's life, so that an issuer that
/// is back is found in time.
pub(super) fn pause(failures: u32, life: Duration, chance: f64) -> Duration {
    let doubled = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(LONGEST).min(life / 8).mul_f64(0.5 + 0.5 * chance)
}

/// A number in 0..=1. Without chance everybody comes in the middle, and nothing else is lost.
pub(super) fn chance() -> f64 {
    let mut random = [0u8; 2];
    match aws_lc_rs::rand::fill(&mut random) {
        Ok(()) => f64::from(u16::from_be_bytes(random)) / f64::from(u16::MAX),
        Err(_) => 0.5,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::indexing_slicing, reason = "tests")]
    use super::*;

    #[test]
    fn many_that_begin_together_never_renew_at_twice_the_mean_rate() {
        let (agents, life, waves) = (1000u32, Duration::from_secs(20), 6);
        // In 500 ms; the mean is a renewal per agent and half a life.
        let mut rate = vec![0u32; 200];
        for _ in 0..agents {
            let mut at = Duration::ZERO;
            for _ in 0..waves {
                at += renewal(life, chance());
                rate[usize::try_from(at.as_millis() / 500).unwrap_or(usize::MAX)] += 1;
            }
        }
        // Ten seconds are twenty of these windows: the mean is 50 in each.
        let most = rate.iter().max().copied().unwrap_or(0);
        assert!(most < 100, "{most}");
    }

    #[test]
    fn a_renewal_leaves_time_to_try_again() {
        for life in [Duration::from_secs(20), Duration::from_secs(900)] {
            assert!(renewal(life, 0.0) >= life.mul_f64(0.29) && renewal(life, 1.0) <= life.mul_f64(0.71));
            let mut left = life.mul_f64(0.3);
            let tries = (1..).take_while(|n| {
                left = left.saturating_sub(pause(*n, life, 1.0));
                !left.is_zero()
            });
            assert!(tries.count() >= 3);
        }
        assert!(pause(u32::MAX, Duration::from_secs(86400), 1.0) <= LONGEST);
        assert!(pause(1, Duration::from_secs(900), 0.0) >= FIRST / 2);
    }
}
