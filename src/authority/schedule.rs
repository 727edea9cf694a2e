//! When authorities rotate. The schedule is pure: the recorded authorities and the time decide the next step.

use crate::clock::SECOND;
use crate::state::authority::{Authorities, Kind};

/// How often authorities rotate. All fields are in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// How long an X.509 authority signs.
    pub x509: u64,
    /// How long a JWT authority signs.
    pub jwt: u64,
    /// Whether an audience asks for RS256. Without one there is no such authority.
    pub rs256: bool,
    /// How long an authority is published before it signs (BU-9: three to five times the refresh hint).
    pub ahead: u64,
    /// Longest lifetime of a certificate.
    pub x509_life: u64,
    /// Longest lifetime of a token.
    pub jwt_life: u64,
    /// When the root expires, and with it every X.509 authority, in Unix seconds.
    pub root_ends_at: u64,
}

/// The next step of the rotation of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make and publish the next authority.
    Prepare,
    /// Let the prepared authority sign.
    Activate,
}

impl Schedule {
    /// The kinds of authorities that this issuer needs.
    pub fn kinds(&self) -> impl Iterator<Item = Kind> + use<> {
        let rs256 = self.rs256;
        Kind::ALL.into_iter().filter(move |kind| rs256 || *kind != Kind::Rs256)
    }

    /// How long an authority of a kind signs, and the longest lifetime of what it signs.
    fn of(&self, kind: Kind) -> (u64, u64) {
        match kind {
            Kind::X509 => (self.x509, self.x509_life),
            Kind::Jwt | Kind::Rs256 => (self.jwt, self.jwt_life),
        }
    }

    /// Lifetime of a new authority of a kind, in seconds. It is twice the time of publication and signing, plus the longest
    /// credential, so an authority whose successor is late still outlives what it signs.
    pub fn life(&self, kind: Kind) -> u64 {
        let (period, longest) = self.of(kind);
        longest.saturating_add(period.saturating_add(self.ahead).saturating_mul(2))
    }

    /// The step that is due at `now`, in Unix microseconds. Returns `None` if none is due.
    pub fn step(&self, kind: Kind, all: &Authorities, now: u64) -> Option<Step> {
        let (period, longest) = self.of(kind);
        let since = |at: u64| now.saturating_sub(at) / SECOND;
        match (all.active(kind), all.prepared(kind)) {
            (None, None) => Some(Step::Prepare),
            (None, Some(_)) => Some(Step::Activate),
            (Some(_), Some(prepared)) => (since(prepared.prepared_at) >= self.ahead).then_some(Step::Activate),
            (Some(active), None) => {
                let old = since(active.activated_at).saturating_add(self.ahead) >= period;
                // T17: a successor is also due if a credential that is signed when the successor takes over would outlive the
                // active authority. The configured times may have changed since that was made.
                let short = (now / SECOND).saturating_add(longest).saturating_add(self.ahead) >= active.ends_at
                    && (kind.is_jwt() || active.ends_at < self.root_ends_at);
                (old || short).then_some(Step::Prepare)
            }
        }
    }

    /// BU-9: whether verifiers may not have the prepared key of this kind of tokens yet. They could not fetch it while the issuer
    /// was down, so for two refreshes after the process `began` the prepared key does not sign, unless tokens of the active one
    /// would be shortened by its expiry. Returns `false` if no key is active. `began` and `now` are in Unix microseconds.
    pub fn is_news(&self, kind: Kind, all: &Authorities, began: u64, now: u64) -> bool {
        let fits = (now / SECOND).saturating_add(self.jwt_life);
        let signs = kind.is_jwt() && all.active(kind).is_some_and(|active| fits < active.ends_at);
        signs && now < began.saturating_add(self.ahead.saturating_mul(SECOND) / 2)
    }

    /// Most keys of a kind that this schedule publishes at once.
    pub fn published(&self, kind: Kind) -> u64 {
        let (period, longest) = self.of(kind);
        // The active one, a prepared one, and the retired ones whose last credential has not expired, with 2 minutes of skew.
        2 + (longest + 120).div_ceil(period.max(self.ahead).max(1))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use super::*;
    use crate::state::authority::PUBLISHED;
    use crate::state::authority::{Slot, Status};
    use proptest::prelude::*;

    /// Applies a step to the slots as the writer would.
    fn take(step: Step, kind: Kind, slots: &mut Vec<Slot>, schedule: &Schedule, now: u64) {
        match step {
            Step::Prepare => {
                let id = slots.len().to_string().into();
                let made = Slot::new(kind, id, vec![], now / SECOND + schedule.life(kind));
                slots.push(Slot { prepared_at: now, ..made });
            }
            Step::Activate => {
                for slot in slots.iter_mut() {
                    match slot.status {
                        Status::Prepared => (slot.status, slot.activated_at) = (Status::Active, now),
                        Status::Active => {
                            let (_, longest) = schedule.of(kind);
                            (slot.status, slot.keep_until) = (Status::Retired, now + (longest + 120) * SECOND);
                        }
                        Status::Retired | Status::Tainted => {}
                    }
                }
            }
        }
    }

    #[test]
    fn bu9_a_key_from_before_an_outage_waits_until_verifiers_are_back() {
        let schedule =
            Schedule { x509: 60, jwt: 60, rs256: false, ahead: 40, x509_life: 10, jwt_life: 10, root_ends_at: u64::MAX };
        let start = 1_000_000;
        let at = |seconds: u64| seconds * SECOND;
        let mut slots = Vec::new();
        take(Step::Prepare, Kind::Jwt, &mut slots, &schedule, at(start));
        take(Step::Activate, Kind::Jwt, &mut slots, &schedule, at(start));
        // The key is published, and then the issuer is down for a minute.
        take(Step::Prepare, Kind::Jwt, &mut slots, &schedule, at(start + 20));
        let all = Authorities::new(1, slots);
        let back = start + 80;
        assert_eq!(schedule.step(Kind::Jwt, &all, at(back)), Some(Step::Activate));
        let news = |now| schedule.is_news(Kind::Jwt, &all, at(back), at(now));
        assert_eq!([back, back + 19, back + 20].map(news), [true, true, false]);
        // The active key is close to its expiry, which would shorten its tokens.
        let ends_at = all.active(Kind::Jwt).unwrap().ends_at;
        assert!(!schedule.is_news(Kind::Jwt, &all, at(ends_at - 9), at(ends_at - 9)));
        assert!(
            !schedule.is_news(Kind::Jwt, &Authorities::new(1, Vec::new()), at(back), at(back)),
            "without an active key the prepared one signs"
        );
    }

    proptest! {
        /// T17, T57, BU-9 over thirty rotations: no credential outlives its authority, no authority signs before it was published
        /// for long enough, and no more keys are published than relying parties read.
        #[test]
        fn t17_t57_bu9_a_schedule_never_cuts_short_and_never_publishes_too_many(
            refresh in 1u64..600, times in 1u64..20, longest in 10u64..7200, tick in 1u64..30,
        ) {
            let ahead = 4 * refresh;
            // The shortest period that the configuration allows: see `published`.
            let period = (ahead * times).max((longest + 120).div_ceil(16)).max(tick);
            let schedule = Schedule { x509: period, jwt: period, rs256: true, ahead, x509_life: longest, jwt_life: longest, root_ends_at: u64::MAX };
            prop_assert!(schedule.published(Kind::Jwt) <= PUBLISHED as u64);
            for kind in Kind::ALL {
                let mut slots = Vec::new();
                let mut now = 1_000_000 * SECOND;
                let mut rotated = 0;
                while rotated < 30 {
                    now += tick * SECOND;
                    slots.retain(|s: &Slot| s.status != Status::Retired || s.keep_until > now);
                    while let Some(step) = schedule.step(kind, &Authorities::new(1, slots.clone()), now) {
                        if step == Step::Activate {
                            let first = slots.iter().all(|s| s.status != Status::Active);
                            let prepared = slots.iter().find(|s| s.status == Status::Prepared).unwrap();
                            prop_assert!(first || now - prepared.prepared_at >= ahead * SECOND);
                            rotated += 1;
                        }
                        take(step, kind, &mut slots, &schedule, now);
                    }
                    let all = Authorities::new(1, slots.clone());
                    let Some(active) = all.active(kind) else { panic!("no authority is active") };
                    prop_assert!(now / SECOND + longest <= active.ends_at, "T17");
                    prop_assert!(slots.len() <= PUBLISHED, "T57: {} published", slots.len());
                }
            }
        }
    }
}
