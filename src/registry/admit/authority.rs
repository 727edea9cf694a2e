//! Admit changes of authorities: prepared, published, active, retired, gone; or tainted.

use super::{Batch, State};
use crate::caller::Caller;
use crate::clock::SECOND;
use crate::denial::{Denial, Kind as DenialKind, No};
use crate::journal::record::{self, record::Body};
use crate::registry::proposal::{Change, Outcome};
pub(super) use crate::registry::state::authority::Kind;
use crate::registry::state::authority::{Authorities, Slot, Status};
use crate::registry::state::{SKEW, seconds};

/// Authorities of a kind that are prepared, active or retired (T57: relying parties read no more keys than this).
pub const PUBLISHED: usize = 20;
/// Tainted authorities that are remembered.
const TAINTED: usize = 64;

impl Batch<'_> {
    /// Who signs, signed and will sign, with the batch so far.
    pub(super) fn authorities(&self) -> &Authorities {
        if self.top.authorities.revision > 0 { &self.top.authorities } else { &self.base.authorities }
    }

    /// Who signs what is admitted now.
    pub(super) fn signer(&self, kind: Kind) -> Result<&Slot, Denial> {
        self.authorities().active(kind).filter(|slot| slot.ends_at > self.at / SECOND).ok_or_else(|| {
            let message = format!("no {kind} authority is active: an operator prepares and activates one");
            Denial::new(DenialKind::Unavailable, "AUTHORITY_MISSING", message)
        })
    }

    pub(super) fn change_authorities(&mut self, caller: &Caller, change: &Change) -> Result<Outcome, No> {
        let mut slots = self.authorities().slots.clone();
        let changed = match change {
            Change::Prepare(slot) => self.prepare(&mut slots, slot)?,
            Change::Activate { kind, id, early } => self.activate(&mut slots, *kind, id.as_deref(), *early)?,
            Change::Retire { id } => self.retire(&mut slots, id)?,
            Change::Taint { id } => self.taint(&mut slots, id)?,
            Change::Collect => {
                let before = slots.len();
                slots.retain(|slot| !over(slot, self.at));
                slots.len() < before
            }
        };
        if changed {
            let all = record::Authorities { authorities: slots.iter().map(Slot::write).collect() };
            self.push(caller, Body::Authorities(all))?;
        }
        Ok(Outcome::Authorities { revision: self.authorities().revision })
    }

    fn prepare(&self, slots: &mut Vec<Slot>, slot: &Slot) -> Result<bool, Denial> {
        if slots.iter().any(|s| s.id == slot.id) {
            return Ok(false);
        }
        if let Some(other) = self.authorities().prepared(slot.kind) {
            let message = format!("`{}` is prepared already: activate or retire it first", other.id);
            return Err(not_now(message));
        }
        let published = || slots.iter().filter(|s| s.kind == slot.kind && s.status != Status::Tainted);
        if published().count() >= PUBLISHED {
            let next = published().map(|s| s.keep_until).filter(|until| *until > 0).min();
            let message = format!("{PUBLISHED} {} authorities are published: wait until one of them has gone", slot.kind);
            let denial = Denial::new(DenialKind::Exhausted, "AUTHORITIES_FULL", message);
            return Err(denial.retry_after(next.map(|until| until.saturating_sub(self.at))));
        }
        slots.push(Slot {
            status: Status::Prepared,
            prepared_at: self.at,
            activated_at: 0,
            retired_at: 0,
            keep_until: 0,
            ..slot.clone()
        });
        Ok(true)
    }

    fn activate(&self, slots: &mut [Slot], kind: Kind, id: Option<&str>, early: bool) -> Result<bool, Denial> {
        let wanted = |s: &&Slot| s.kind == kind && id.map_or(s.status == Status::Prepared, |id| &*s.id == id);
        let Some(slot) = slots.iter().find(wanted) else {
            return Err(not_now(format!("no {kind} authority is prepared: prepare one first")));
        };
        match slot.status {
            Status::Active => return Ok(false),
            Status::Prepared => {}
            status => return Err(not_now(format!("`{}` is {}: it never signs again", slot.id, status.as_str()))),
        }
        let published = self.at.saturating_sub(slot.prepared_at);
        let (first, ahead) = (self.authorities().active(kind).is_none(), seconds(self.rules.publish_ahead));
        // BU-9: a JWT key is published before it is used. An X.509 authority comes with every certificate it signed.
        if kind == Kind::Jwt && !first && !early && published < ahead {
            let left = ahead - published;
            let message = format!(
                "`{}` must be published {} seconds longer before verifiers can be expected to know it",
                slot.id,
                left.div_ceil(SECOND)
            );
            return Err(not_now(message).retry_after(Some(left)));
        }
        let id = slot.id.clone();
        let keep_until = self.last_ends(kind).saturating_add(SKEW);
        for slot in slots.iter_mut().filter(|s| s.kind == kind) {
            if slot.id == id {
                (slot.status, slot.activated_at) = (Status::Active, self.at);
            } else if slot.status == Status::Active {
                (slot.status, slot.retired_at, slot.keep_until) = (Status::Retired, self.at, keep_until);
            }
        }
        Ok(true)
    }

    fn retire(&self, slots: &mut [Slot], id: &str) -> Result<bool, Denial> {
        let slot = find(slots, id)?;
        match slot.status {
            Status::Active => Err(not_now(format!("`{id}` signs: activate another, which retires this one"))),
            Status::Prepared => {
                // It signed nothing.
                (slot.status, slot.retired_at, slot.keep_until) = (Status::Retired, self.at, self.at);
                Ok(true)
            }
            Status::Retired | Status::Tainted => Ok(false),
        }
    }

    fn taint(&self, slots: &mut [Slot], id: &str) -> Result<bool, Denial> {
        if slots.iter().filter(|s| s.status == Status::Tainted).count() >= TAINTED {
            let message = format!("{TAINTED} authorities are tainted: this trust domain needs another root");
            return Err(Denial::new(DenialKind::Exhausted, "AUTHORITIES_FULL", message));
        }
        let slot = find(slots, id)?;
        match slot.status {
            Status::Active => {
                let how = format!("`mayfly authority rotate {} --now`", slot.kind);
                Err(not_now(format!("`{id}` signs: activate another first, with {how}")))
            }
            Status::Tainted => Ok(false),
            Status::Prepared | Status::Retired => {
                // Who has its key can sign until it ends.
                let keep_until = seconds(slot.ends_at).saturating_add(SKEW);
                (slot.status, slot.retired_at, slot.keep_until) = (Status::Tainted, self.at, keep_until);
                Ok(true)
            }
        }
    }

    /// Unix microseconds at which the last that was signed before now has run out.
    fn last_ends(&self, kind: Kind) -> u64 {
        let configured = if self.top.configured.is_some() { &self.top.configured } else { &self.base.configured };
        let (life, until) = match (configured, kind) {
            (Some(c), Kind::X509) => (c.x509_life, c.x509_until),
            (Some(c), Kind::Jwt) => (c.jwt_life, c.jwt_until),
            (None, _) => (0, 0),
        };
        self.at.saturating_add(seconds(life)).max(seconds(until))
    }

    /// What the journal keeps of the configuration.
    pub(super) fn configure(&mut self, caller: &Caller, classes: [u8; 32]) -> Result<Outcome, No> {
        let x509_life = self.rules.x509_life();
        let body = record::Configured {
            classes: classes.to_vec(),
            x509_life,
            jwt_life: self.rules.jwt_ttl,
            // Under a shorter life from now on, what is out still lasts as long as it was signed for.
            x509_until: self.last_ends(Kind::X509) / SECOND,
            jwt_until: self.last_ends(Kind::Jwt) / SECOND,
        };
        let same =
            |c: &record::Configured| (&c.classes, c.x509_life, c.jwt_life) == (&body.classes, body.x509_life, body.jwt_life);
        if self.base.configured.as_ref().is_some_and(same) {
            return Ok(Outcome::Configured { revision: State::configured_at(self.base) });
        }
        let revision = self.push(caller, Body::Configured(body))?;
        Ok(Outcome::Configured { revision })
    }
}

/// Whether nothing is about any more that an authority signed or may sign.
pub fn over(slot: &Slot, now: u64) -> bool {
    match slot.status {
        Status::Retired | Status::Tainted => slot.keep_until <= now,
        Status::Prepared => seconds(slot.ends_at) <= now,
        Status::Active => false,
    }
}

fn find<'a>(slots: &'a mut [Slot], id: &str) -> Result<&'a mut Slot, Denial> {
    slots.iter_mut().find(|s| &*s.id == id).ok_or_else(|| {
        let message =
            format!("there is no authority `{}`: see `mayfly authority list`", id.chars().take(128).collect::<String>());
        Denial::new(DenialKind::NotFound, "AUTHORITY_UNKNOWN", message)
    })
}

fn not_now(message: String) -> Denial {
    Denial::new(DenialKind::Precondition, "AUTHORITY_STATE", message)
}
