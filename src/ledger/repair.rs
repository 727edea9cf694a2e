//! Repair of the journal's time: a clock that was ahead at an earlier start has made records whose times lie in the future. These
//! records keep their order and their contents, and get the time of the repair.

use std::collections::BTreeSet;

use mayfly_verify::Target;
use prost::Message as _;
use uuid::Uuid;

use super::replay::replay_repaired;
use super::start::BEHIND;
use super::{OpenError, replay};
use crate::clock::SECOND;
use crate::journal::record::{self, Record, record::Body};
use crate::journal::{self, Journal};
use crate::state::authority::{Kind, Slot, Status};
use crate::state::{CUT_KEEP, Repair, SKEW, State, before, cut_target, fixed, seconds};

/// The result of a repair.
#[derive(Debug, PartialEq, Eq)]
pub struct Repaired {
    /// The incarnation of the journal, which is the same as before.
    pub incarnation: Uuid,
    /// The journal's head after it.
    pub head: u64,
    /// Revision of the first record whose time was ahead.
    pub first: u64,
    /// By how many microseconds the journal was ahead.
    pub lead: u64,
    /// Number of agents and workload keys that were revoked, because their credentials begin in the future.
    pub revoked: usize,
    /// Whether everything was revoked that was issued before the repair, because revocations may have been forgotten while the time
    /// was ahead.
    pub everything: bool,
}

/// Brings the time of a journal back to `now`, in Unix microseconds. Returns `None` if the journal is not ahead. Offline: no ledger
/// may have the journal open.
///
/// Agents, workloads and authorities are live again for as long as their own certificates say. Everything issued while the time was
/// ahead is revoked. Things that were dropped from the state while the time was ahead are restored from their rows. If rows may
/// have been dropped too, everything issued before is revoked, because revocations may be missing. A start prevents such drops for
/// as long as the issuer was away.
pub fn repair(journal: &mut dyn Journal, now: u64) -> Result<Option<Repaired>, OpenError> {
    let ahead = replay(journal)?;
    if ahead.at <= now.saturating_add(BEHIND) {
        return Ok(None);
    }
    let found = look(journal, &ahead, now)?;
    let by = ahead.revision + 1;
    let mut state = replay_repaired(journal, vec![Repair { first: found.first, by, at: now }], &mut ())?;
    let mut records = vec![Record {
        at: now,
        operator: "repair-time".into(),
        body: Some(Body::TimeRepaired(record::TimeRepaired { first: found.first })),
    }];
    // Nothing was dropped if the first record under this clock announced the doubt, and is still there itself.
    let everything = !found.announced;
    let slots: Vec<record::Authority> = mended(&state, &found, now, everything).iter().map(Slot::write).collect();
    if !slots.is_empty() {
        let body = Body::Authorities(record::Authorities { authorities: slots });
        records.push(Record { at: now, operator: "repair-time".into(), body: Some(body) });
    }
    let mut targets: Vec<(Target, u64)> = Vec::new();
    for uuid in found.agents.iter().filter(|_| !everything) {
        if let Some(agent) = state.agent(uuid) {
            targets.push((Target::Agent(*uuid), agent.lease_ends_at));
        }
    }
    targets.extend(found.keys.iter().map(|(key, ends_at)| (Target::Key(*key), *ends_at)));
    let revoked = targets.len();
    if everything {
        targets.push((Target::TrustDomain, state.last_end().max(found.last_end).max(now / SECOND)));
    }
    for (target, ends_at) in targets {
        let revision = by + u64::try_from(records.len()).unwrap_or(0);
        let verifiers_until = ends_at.saturating_add(SKEW / SECOND);
        let body = record::Cut {
            before: before(&target, revision),
            closes: false,
            keep_until: if target == Target::TrustDomain { u64::MAX } else { seconds(verifiers_until).max(now + CUT_KEEP) },
            verifiers_until,
            reason: "issued while the issuer's clock was ahead".into(),
            by: String::new(),
            time: 0,
            target: cut_target(&target),
        };
        records.push(Record { at: now, operator: "repair-time".into(), body: Some(Body::Cut(body)) });
    }
    let encoded: Vec<Vec<u8>> = records.iter().map(Record::encode_to_vec).collect();
    // ORDER: the records are applied before they are written, so that the journal never contains records that cannot be replayed.
    for (revision, record) in (by..).zip(&records) {
        state.apply(revision, record).map_err(|e| OpenError::Replay(e.to_string()))?;
    }
    journal.append(by, &encoded, &[])?;
    let (incarnation, head) = (state.incarnation, state.revision);
    Ok(Some(Repaired { incarnation, head, first: found.first, lead: ahead.at - now, revoked, everything }))
}

/// The findings in the records that were made while the time was ahead.
#[derive(Default)]
struct Found {
    // Revision of the first of them.
    first: u64,
    // Whether the first of them announces that a start doubted its clock.
    announced: bool,
    // Agents that got a credential which begins in the future.
    agents: BTreeSet<Uuid>,
    // Workloads' keys that were certified then, with the end of the certificate in Unix seconds.
    keys: Vec<([u8; 32], u64)>,
    // End of the last workload's certificate of all, in Unix seconds.
    last_end: u64,
    // The authorities before the first of them.
    authorities: Option<Vec<record::Authority>>,
}

fn look(journal: &mut dyn Journal, ahead: &State, now: u64) -> Result<Found, OpenError> {
    let mut found = Found::default();
    let later = |begins_at: u64| seconds(begins_at) > now.saturating_add(BEHIND);
    journal
        .replay(&mut |revision, bytes| {
            let record = journal::decode(bytes).map_err(|e| format!("revision {revision}: {e}"))?;
            let is_ahead = ahead.time_of(revision, record.at) > now.saturating_add(BEHIND);
            if is_ahead && found.first == 0 {
                found.first = revision;
                found.announced = matches!(record.body, Some(Body::Resumed(_)));
            }
            let agent = match &record.body {
                Some(Body::Authorities(all)) if found.first == 0 => {
                    found.authorities = Some(all.authorities.clone());
                    None
                }
                Some(Body::Certified(c)) => {
                    found.last_end = found.last_end.max(c.ends_at);
                    if is_ahead && later(c.begins_at) {
                        found.keys.push((fixed(&c.key).ok_or("a key of another length")?, c.ends_at));
                    }
                    None
                }
                // The lease of an agent that was admitted then ends too late, so the agent is revoked whether it has a certificate
                // or a ticket.
                Some(Body::Admitted(a)) if is_ahead => Some(&a.agent),
                Some(Body::Redeemed(r)) if is_ahead && later(r.begins_at) => Some(&r.agent),
                Some(Body::Renewed(r)) if is_ahead && later(r.begins_at) => Some(&r.agent),
                Some(Body::Minted(m)) if is_ahead && later(m.issued_at) => Some(&m.agent),
                _ => None,
            };
            if let Some(agent) = agent {
                found.agents.insert(Uuid::from_slice(agent).map_err(|e| e.to_string())?);
            }
            Ok(())
        })
        .map_err(OpenError::Replay)?;
    Ok(found)
}

/// The authorities as they were before the time was ahead. Those that were made since are tainted, because their certificates begin
/// in the future; if nothing issued before may be accepted, all X.509 authorities are tainted, because this is the only way to
/// refuse workloads' own certificates.
fn mended(state: &State, found: &Found, now: u64, everything: bool) -> Vec<Slot> {
    let was = |id: &str| found.authorities.iter().flatten().find(|a| a.id == id);
    let taint = |slot: &Slot| {
        let keep_until = slot.keep_until.max(seconds(slot.ends_at));
        Slot { status: Status::Tainted, retired_at: now, keep_until, ..slot.clone() }
    };
    let mut slots: Vec<Slot> = state
        .authorities
        .slots
        .iter()
        .map(|slot| match was(&slot.id).and_then(|before| Slot::read(0, before).ok()) {
            _ if slot.status == Status::Tainted => slot.clone(),
            _ if everything && slot.kind == Kind::X509 => taint(slot),
            Some(before) => before,
            None if everything => slot.clone(),
            None => taint(slot),
        })
        .collect();
    // An authority may have been dropped from the state since, although certificates that it signed are still valid.
    let gone = found.authorities.iter().flatten().filter(|a| slots.iter().all(|slot| *slot.id != *a.id));
    let gone: Vec<Slot> = gone.filter_map(|a| Slot::read(0, a).ok()).collect();
    slots.extend(gone.into_iter().map(|slot| if everything && slot.kind == Kind::X509 { taint(&slot) } else { slot }));
    slots
}
