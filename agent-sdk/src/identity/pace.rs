//! When to renew, and when to retry.

use std::time::Duration;

use crate::stream::Backoff;

/// Shortest pause before any retry.
const FIRST: Duration = Duration::from_millis(200);
/// Longest pause before the stream of bundles is opened again.
const LONGEST: Duration = Duration::from_secs(30);
/// Pauses between attempts of a call that has no deadline of its own.
pub(super) const CALLS: Backoff = Backoff { first: FIRST, longest: Duration::from_millis(1250) };

/// How long after its issuance a certificate of this life is renewed: between three and seven tenths of the life.
///
/// Agents that begin together are thereby spread over two fifths of a life: the first wave of renewals has a rate a quarter above
/// the mean, and later waves are flatter. Three tenths of the life remain for retries. `chance` is in 0..=1.
pub(super) fn renewal(life: Duration, chance: f64) -> Duration {
    life.mul_f64(0.3 + 0.4 * chance)
}

/// How long after a failure a renewal is retried, when the certificate is valid for `left`: between a fifth and four fifths of
/// that time, later rather than sooner.
///
/// When an issuer returns, it returns for all agents at once. Those with much time left wait longer, those with little come
/// first, and at least a fifth of the time remains for one more attempt. After an outage of up to a fifth of a life, the rate
/// stays below twice the mean. Agents with little time left fill the first moments, so the exponent moves the others somewhat
/// behind them; a square root would leave them too close together. Pauses that double from a common start lead to five times the
/// mean.
pub(super) fn again(left: Duration, chance: f64) -> Duration {
    left.mul_f64(0.2 + 0.6 * chance.powf(0.7)).max(FIRST.mul_f64(0.5 + 0.5 * chance))
}

/// How long after a failure the stream of bundles is opened again, when the certificate is valid for `left`. It is not urgent,
/// because the renewal brings the bundle too. All streams break at the same moment, so their return is spread out, but no longer
/// than the bundle's refresh hint allows.
pub(super) fn back(left: Duration, refresh: Duration, chance: f64) -> Duration {
    (left / 2).min(refresh).min(LONGEST).max(FIRST).mul_f64(0.5 + 0.5 * chance)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "tests")]
    use super::*;
    use crate::random::chance;

    #[test]
    fn many_that_begin_together_never_renew_at_twice_the_mean_rate() {
        let (agents, life, waves) = (1000u32, Duration::from_secs(20), 6);
        // In windows of 500 ms. The mean is one renewal per agent and half a life.
        let mut rate = vec![0u32; 200];
        for _ in 0..agents {
            let mut at = Duration::ZERO;
            for _ in 0..waves {
                at += renewal(life, chance());
                rate[usize::try_from(at.as_millis() / 500).unwrap_or(usize::MAX)] += 1;
            }
        }
        // Ten seconds are twenty windows, so the mean is 50 in each.
        let most = rate.iter().max().copied().unwrap_or(0);
        assert!(most < 100, "{most}");
    }

    /// The number of renewals in each twentieth of a life, for agents that begin together and one outage of the issuer; and the
    /// number of agents that expired. Times are in lives.
    fn outage(agents: u32, from: f64, until: f64) -> (Vec<u32>, u32) {
        let life = Duration::from_secs(1000);
        let (mut rate, mut expired) = (vec![0u32; 200], 0);
        for _ in 0..agents {
            let (mut ends_at, mut at) = (1.0, renewal(life, chance()).as_secs_f64() / 1000.0);
            while at < 10.0 {
                if at >= ends_at {
                    expired += 1;
                    break;
                }
                at += if (from..until).contains(&at) {
                    again(life.mul_f64(ends_at - at), chance()).as_secs_f64() / 1000.0
                } else {
                    rate[(at * 20.0).floor().max(0.0) as usize] += 1;
                    ends_at = at + 1.0;
                    renewal(life, chance()).as_secs_f64() / 1000.0
                };
            }
        }
        (rate, expired)
    }

    #[test]
    fn many_that_wait_for_an_issuer_never_come_at_twice_the_mean_rate() {
        // With 4,000 agents the mean is 400 in each twentieth of a life.
        for away in [0.01, 0.05, 0.1, 0.2] {
            let (rate, expired) = outage(4000, 4.0, 4.0 + away);
            let most = rate.iter().max().copied().unwrap_or(0);
            assert!(most < 760 && expired == 0, "away for {away}: {most}, {expired} expired");
        }
        let (_, expired) = outage(4000, 4.0, 4.29);
        assert_eq!(expired, 0, "three tenths of a life are left to everybody");
    }

    #[test]
    fn a_renewal_leaves_time_to_try_again() {
        for life in [Duration::from_secs(20), Duration::from_secs(900)] {
            assert!(renewal(life, 0.0) >= life.mul_f64(0.29) && renewal(life, 1.0) <= life.mul_f64(0.71));
            let mut left = life.mul_f64(0.3);
            let tries = (1..).take_while(|_| {
                left = left.saturating_sub(again(left, 1.0));
                !left.is_zero()
            });
            assert!(tries.count() >= 3);
        }
        assert!(again(Duration::ZERO, 0.0) >= FIRST / 2 && back(Duration::ZERO, LONGEST, 0.0) >= FIRST / 2, "nothing spins");
        assert!(back(Duration::from_secs(86400), 2 * LONGEST, 1.0) <= LONGEST);
        assert!(CALLS.pause(0, 0.0) >= FIRST / 2);
    }
}
