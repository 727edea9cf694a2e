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

/// How long after a failure a renewal is tried again, when the certificate has so much left: between a fifth and four fifths of
/// that, and rather late than early.
///
/// An issuer that was away is back for everybody at once. Whoever has much time left takes it, whoever has little comes first,
/// and a fifth always remains for one more try: after an outage of up to a fifth of a life the rate stays below twice the
/// mean. Those who have little left crowd the first moments, so the power puts the others somewhat behind them; a square root puts
/// them too close together there. Pauses that double from a start in common bring five times the mean.
pub(super) fn again(left: Duration, chance: f64) -> Duration {
    left.mul_f64(0.2 + 0.6 * chance.powf(0.7)).max(FIRST.mul_f64(0.5 + 0.5 * chance))
}

/// How long after a failure a stream is opened again that nothing urgent waits for, when the certificate has so much left: with
/// its renewal there is another chance. Everybody's breaks at the same moment, and so they come back spread; but within what the
/// bundle says how often it is to be looked for.
pub(super) fn back(left: Duration, refresh: Duration, chance: f64) -> Duration {
    (left / 2).min(refresh).min(LONGEST).max(FIRST).mul_f64(0.5 + 0.5 * chance)
}

/// The pause after so many failures in a row, for what has no end of its own. Never longer than an eighth of `life`.
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
    #![expect(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "tests")]
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

    /// Renewals in each twentieth of a life, of agents that begin together and of an issuer that is away once; and how many
    /// agents expired. Times are in lives.
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
        // Of 4,000: the mean is 400 in each twentieth of a life.
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
        assert!(pause(u32::MAX, Duration::from_secs(86400), 1.0) <= LONGEST);
        assert!(pause(1, Duration::from_secs(900), 0.0) >= FIRST / 2);
    }
}
