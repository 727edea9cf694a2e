//! Changes the authorities: each is prepared and published, then active, then retired and removed; or it is tainted.

use std::sync::Arc;

use crate::caller::Caller;
use crate::clock::SECOND;
use crate::denial::{Denial, Kind as DenialKind, No};
use crate::journal::record::{self, record::Body};
use crate::judge::{Act, Chance, Check, Judgement};
use crate::state::authority::{Kind, PUBLISHED, Slot, Status};
use crate::state::{SKEW, seconds};

/// Tainted authorities that are remembered at most.
const TAINTED: usize = 64;

/// A change of the authorities.
#[derive(Clone, Debug)]
pub enum Change {
    /// A new authority, which is published and signs nothing yet. Its times and its status are set when it is recorded.
    Prepare(Slot),
    /// A prepared authority signs from now on, and the one that signed before is retired.
    Activate {
        /// What it signs.
        kind: Kind,
        /// Its id. `None` is the prepared one.
        id: Option<Arc<str>>,
        /// Whether it may sign even if it has not been published for long enough (BU-9).
        early: bool,
    },
    /// A prepared authority is withdrawn.
    Retire {
        /// Its id.
        id: String,
    },
    /// Nothing that an authority ever signed is valid.
    Taint {
        /// Its id; never that of the active one.
        id: String,
    },
    /// No authority of a kind signs any more, because no audience is configured for its signatures.
    Withdraw(Kind),
    /// Removes authorities if nothing that they signed is valid any longer.
    Collect,
}

impl Change {
    /// Its name in logs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Change::Prepare(_) => "prepare",
            Change::Activate { .. } => "activate",
            Change::Retire { .. } => "retire",
            Change::Taint { .. } => "taint",
            Change::Withdraw(_) => "withdraw",
            Change::Collect => "collect",
        }
    }
}

impl Act for Change {
    /// Revision of the record that says how the authorities are now.
    type Permit = u64;

    fn judge(&self, j: &mut Judgement<'_>, caller: &Caller, _: &Chance) -> Result<u64, No> {
        j.checking(Check::AuthorityStatus);
        let mut slots = j.view().authorities().slots.clone();
        let changed = match self {
            Change::Prepare(slot) => prepare(j, &mut slots, slot)?,
            Change::Activate { kind, id, early } => activate(j, &mut slots, *kind, id.as_deref(), *early)?,
            Change::Retire { id } => retire(j, &mut slots, id)?,
            Change::Taint { id } => taint(j, &mut slots, id)?,
            Change::Withdraw(kind) => withdraw(j, &mut slots, *kind),
            Change::Collect => {
                let before = slots.len();
                slots.retain(|slot| !slot.is_over(j.at()));
                slots.len() < before
            }
        };
        if changed {
            let all = record::Authorities { authorities: slots.iter().map(Slot::write).collect() };
            j.push(caller, Body::Authorities(all))?;
        }
        Ok(j.view().authorities().revision)
    }
}

fn prepare(j: &Judgement<'_>, slots: &mut Vec<Slot>, slot: &Slot) -> Result<bool, Denial> {
    if slots.iter().any(|s| s.id == slot.id) {
        return Ok(false);
    }
    if let Some(other) = j.view().authorities().prepared(slot.kind) {
        let message = format!("`{}` is prepared already: activate or retire it first", other.id);
        return Err(not_now(message));
    }
    let published = || slots.iter().filter(|s| s.kind == slot.kind && s.status != Status::Tainted);
    if published().count() >= PUBLISHED {
        let next = published().map(|s| s.keep_until).filter(|until| *until > 0).min();
        let message = format!("{PUBLISHED} {} authorities are published: wait until one of them has gone", slot.kind);
        let denial = Denial::new(DenialKind::Exhausted, "AUTHORITIES_FULL", message);
        return Err(denial.retry_after(next.map(|until| until.saturating_sub(j.at()))));
    }
    slots.push(Slot {
        status: Status::Prepared,
        prepared_at: j.at(),
        activated_at: 0,
        retired_at: 0,
        keep_until: 0,
        ..slot.clone()
    });
    Ok(true)
}

fn activate(j: &Judgement<'_>, slots: &mut [Slot], kind: Kind, id: Option<&str>, early: bool) -> Result<bool, Denial> {
    let wanted = |s: &&Slot| s.kind == kind && id.map_or(s.status == Status::Prepared, |id| &*s.id == id);
    let Some(slot) = slots.iter().find(wanted) else {
        return Err(not_now(format!("no {kind} authority is prepared: prepare one first")));
    };
    match slot.status {
        Status::Active => return Ok(false),
        Status::Prepared => {}
        status => return Err(not_now(format!("`{}` is {}: it never signs again", slot.id, status.as_str()))),
    }
    let published = j.at().saturating_sub(slot.prepared_at);
    let (first, ahead) = (j.view().authorities().active(kind).is_none(), seconds(j.rules().publish_ahead));
    // BU-9: a key of tokens is published before it is used. An X.509 authority comes with every certificate it signed.
    if kind.is_jwt() && !first && !early && published < ahead {
        let left = ahead - published;
        let message = format!(
            "`{}` must be published {} seconds longer before verifiers can be expected to know it",
            slot.id,
            left.div_ceil(SECOND)
        );
        return Err(not_now(message).retry_after(Some(left)));
    }
    let id = slot.id.clone();
    let keep_until = j.last_ends(kind).saturating_add(SKEW);
    for slot in slots.iter_mut().filter(|s| s.kind == kind) {
        if slot.id == id {
            (slot.status, slot.activated_at) = (Status::Active, j.at());
        } else if slot.status == Status::Active {
            (slot.status, slot.retired_at, slot.keep_until) = (Status::Retired, j.at(), keep_until);
        }
    }
    Ok(true)
}

fn retire(j: &Judgement<'_>, slots: &mut [Slot], id: &str) -> Result<bool, Denial> {
    let slot = find(slots, id)?;
    match slot.status {
        Status::Active => Err(not_now(format!("`{id}` signs: activate another, which retires this one"))),
        Status::Prepared => {
            // It signed nothing.
            (slot.status, slot.retired_at, slot.keep_until) = (Status::Retired, j.at(), j.at());
            Ok(true)
        }
        Status::Retired | Status::Tainted => Ok(false),
    }
}

fn withdraw(j: &Judgement<'_>, slots: &mut [Slot], kind: Kind) -> bool {
    let keep_until = j.last_ends(kind).saturating_add(SKEW);
    let mut changed = false;
    for slot in slots.iter_mut().filter(|s| s.kind == kind && matches!(s.status, Status::Prepared | Status::Active)) {
        // A prepared authority has signed nothing, so it need not be kept.
        let until = if slot.status == Status::Active { keep_until } else { j.at() };
        (slot.status, slot.retired_at, slot.keep_until) = (Status::Retired, j.at(), until);
        changed = true;
    }
    changed
}

fn taint(j: &Judgement<'_>, slots: &mut [Slot], id: &str) -> Result<bool, Denial> {
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
            // A thief of its key can sign until the authority expires.
            let keep_until = seconds(slot.ends_at).saturating_add(SKEW);
            (slot.status, slot.retired_at, slot.keep_until) = (Status::Tainted, j.at(), keep_until);
            Ok(true)
        }
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
