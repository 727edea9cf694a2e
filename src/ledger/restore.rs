//! Restore: begins a new epoch in a copy of a journal. Everything issued before is revoked, and closed targets stay closed.

use std::collections::HashSet;

use mayfly_verify::{Target, TrustDomain};
use prost::Message as _;
use uuid::Uuid;

use super::{OpenError, opened, replay};
use crate::clock::SECOND;
use crate::journal::record::{self, Record, record::Body};
use crate::journal::{Journal as _, sqlite::Sqlite};
use crate::state::authority::{Kind, Slot, Status};
use crate::state::{CUT_KEEP, before, cut_target, seconds};

/// The new incarnation.
pub struct Restored {
    /// Its id.
    pub incarnation: Uuid,
    /// Its head.
    pub head: u64,
    /// The time of its records, in Unix microseconds.
    pub at: u64,
    /// What was closed after the copy was made, as far as `Closing::since` knew it. It stays closed.
    pub closed: Vec<Target>,
    /// The time of the last record in the copy, in Unix microseconds.
    pub copied: u64,
}

/// What is closed after a restore although it was open in the copy.
#[derive(Default)]
pub struct Closing {
    /// What the journal that is replaced has closed. A copy is older, so it may not know all of it.
    pub since: Vec<Target>,
    /// What an operator wants closed until she has looked.
    pub too: Vec<Target>,
}

/// Begins a new epoch in a copy of a journal. `last_head` is the last head that this issuer has signed, `now` is in Unix
/// microseconds. Offline: no ledger may have the journal open.
pub fn restore(
    journal: &mut Sqlite,
    trust_domain: &TrustDomain,
    last_head: u64,
    now: u64,
    closing: Closing,
) -> Result<Restored, OpenError> {
    let state = replay(journal)?;
    let copied = state.at;
    let known: HashSet<&Target> = state.closed().collect();
    let mut closed = closing.since;
    closed.retain(|target| !known.contains(target));
    let too = closing.too.iter().filter(|target| !known.contains(target) && !closed.contains(target));
    // Higher than every revision that was ever used, because revisions order issuance and revocation for good.
    let first = state.revision.max(last_head) + 1;
    // Nothing in the copy stays valid, so its time does not matter. A copy that was made under a clock that was ahead can be
    // restored too.
    let at = now;
    let begin = opened(trust_domain, at)?;
    let incarnation = match &begin.body {
        Some(Body::Opened(opened)) => Uuid::from_slice(&opened.incarnation).map_err(|e| OpenError::Replay(e.to_string()))?,
        _ => return Err(OpenError::Replay("the first record of the journal names no incarnation".into())),
    };
    let mut records = vec![begin.encode_to_vec()];
    let mut cut = |target: &Target, closes, time, keep_until, reason: &str| {
        let body = record::Cut {
            before: before(target, first + u64::try_from(records.len()).unwrap_or(0)),
            closes,
            keep_until,
            // Verifiers need not keep it, because they refuse credentials of another epoch.
            verifiers_until: at / SECOND,
            reason: reason.to_owned(),
            by: String::new(),
            time,
            target: cut_target(target),
        };
        records.push(Record { at, operator: "restore".into(), body: Some(Body::Cut(body)) }.encode_to_vec());
    };
    // The lost part of the journal may hold revocations of users, so no user token from before now is accepted.
    cut(&Target::TrustDomain, false, at, u64::MAX, "restored from a backup");
    // Closed targets stay closed, and revoked keys stay revoked.
    for target in state.closed().chain(&closed) {
        cut(target, true, 0, at + CUT_KEEP, "closed before the restore");
    }
    for target in too {
        cut(target, true, 0, at + CUT_KEEP, "closed by the restore");
    }
    // Workloads' own certificates do not name an epoch. The authorities that signed them are tainted, so that verifiers refuse them
    // too.
    let lost = state.authorities.slots.iter().filter(|slot| slot.kind == Kind::X509);
    let lost = lost.map(|slot| {
        let keep_until = slot.keep_until.max(seconds(slot.ends_at));
        Slot { status: Status::Tainted, retired_at: at, keep_until, ..slot.clone() }.write()
    });
    let lost: Vec<_> = lost.collect();
    if !lost.is_empty() {
        let body = Body::Authorities(record::Authorities { authorities: lost });
        records.push(Record { at, operator: "restore".into(), body: Some(body) }.encode_to_vec());
    }
    journal.append(first, &records, &[])?;
    journal.drop_below(first).map_err(OpenError::Replay)?;
    Ok(Restored { incarnation, head: first + u64::try_from(records.len()).unwrap_or(1) - 1, at, closed, copied })
}
