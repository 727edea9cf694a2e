//! Governance report: entries without an owner, scopes and audiences that nobody was given, and agents that have not used their
//! authority.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mayfly_verify::{ClassName, Target};
use uuid::Uuid;

use super::survey::{Found, survey};
use crate::acts::Issuer;
use crate::caller::Caller;
use crate::clock::SECOND;
use crate::denial::{Fault, No};
use crate::history::entry::Kind;
use crate::history::query::{self, Filter};
use crate::judge::{Section, Source};
use crate::state::{Agent, State};

/// Entries of one page of the history.
const PAGE: usize = 1000;
/// Most pages that a report reads.
const PAGES: usize = 1000;
/// An agent is reported as idle only after this many seconds.
const IDLE: u64 = 3600;

/// A report.
#[derive(Default)]
pub struct Report {
    /// Entries of the configuration that name no owner.
    pub unowned: Vec<Source>,
    /// Entries whose owner is a user who was revoked and is closed.
    pub closed_owners: Vec<Source>,
    /// Scopes and audiences of classes that no agent of the class was given.
    pub unused: Vec<Unused>,
    /// Live agents that have had an identity for an hour, and never used it for a token, a renewal or a child.
    pub idle: Found,
    /// The beginning of the period that was read from the history, Unix microseconds.
    pub since: u64,
    /// Whether the whole period was read.
    pub complete: bool,
    /// Admissions that were read.
    pub admissions: u64,
}

/// The parts of a class that nobody was given.
#[derive(Clone, Debug)]
pub struct Unused {
    /// The class.
    pub class: ClassName,
    /// Scopes that could be removed.
    pub scopes: Vec<String>,
    /// Audiences that could be removed.
    pub audiences: Vec<String>,
    /// Where the class is defined, and who owns it.
    pub source: Source,
}

/// The findings in a period of the history.
#[derive(Default)]
struct Seen {
    /// By class, the scopes and audiences that were given.
    given: BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)>,
    /// Agents that did something.
    active: BTreeSet<Uuid>,
    admissions: u64,
    complete: bool,
}

/// Reports to an operator, with the history since a time (Unix microseconds).
pub async fn governance(issuer: &Arc<Issuer>, caller: &Caller, since: u64) -> Result<Report, No> {
    let place = issuer.counting.place(caller)?;
    issuer.history.flush().await;
    let (asking, awaited) = (Arc::clone(issuer), Arc::new(()));
    let waits = Arc::downgrade(&awaited);
    let report = tokio::task::spawn_blocking(move || {
        let _place = place;
        let seen = seen(&asking, since, || waits.strong_count() > 0)?;
        let now = asking.clock.now();
        let idle = |state: &State, agent: &Agent| {
            let _ = state;
            // Uses from before this period are unknown.
            agent.admitted_at >= since
                && agent.admitted_at + IDLE * SECOND <= now
                && !agent.has_children()
                && !seen.active.contains(&agent.uuid)
        };
        let mut report = Report {
            idle: survey(&asking, idle, || waits.strong_count() > 0)?,
            since,
            complete: seen.complete,
            admissions: seen.admissions,
            ..Report::default()
        };
        owners(&asking, &mut report);
        unused(&asking, &seen, &mut report);
        Ok::<_, Fault>(report)
    });
    let report = report.await.map_err(|e| Fault::new("governance", e))??;
    drop(awaited);
    Ok(report)
}

fn seen(issuer: &Issuer, since: u64, awaited: impl Fn() -> bool) -> Result<Seen, Fault> {
    let kinds = vec![Kind::Admission, Kind::Mint, Kind::Renewal];
    let filter = Filter { since, kinds, ..Filter::default() };
    let (mut seen, mut from) = (Seen::default(), 0);
    for _ in 0..PAGES {
        let page =
            query::page(issuer.history.reader(), &filter, from, PAGE, |_| true).map_err(|e| Fault::new("governance", e))?;
        for (entry, _) in page.entries {
            let uuid = entry.leaf.agent_id.rsplit('/').next().and_then(|uuid| Uuid::try_parse(uuid).ok());
            if entry.leaf.kind == Kind::Admission {
                seen.admissions += 1;
                let (scopes, audiences) = seen.given.entry(entry.leaf.class).or_default();
                scopes.extend(entry.opening.scopes);
                audiences.extend(entry.opening.audiences);
            } else {
                seen.active.extend(uuid);
            }
        }
        match page.next {
            Some(next) if awaited() => from = next,
            next => {
                seen.complete = next.is_none();
                return Ok(seen);
            }
        }
    }
    Ok(seen)
}

/// Finds entries without an owner, or whose owner is a closed user, given by subject or as `<provider>/<subject>`.
fn owners(issuer: &Issuer, report: &mut Report) {
    let places = &issuer.explaining.places;
    let rules = issuer.ledger.rules();
    let closed: BTreeSet<String> = issuer.ledger.read(|state| {
        let users = state.closed().filter_map(|target| if let Target::User(user) = target { Some(user) } else { None });
        let names = users.flat_map(|user| {
            let provider = rules.issuers.get(&user.iss).map_or(user.iss.as_str(), String::as_str);
            [user.sub.clone(), format!("{provider}/{}", user.sub)]
        });
        names.collect()
    });
    for ((section, name), place) in &places.entries {
        let source = places.of(*section, name, None);
        match &place.owner {
            None => report.unowned.push(source),
            Some(owner) if closed.contains(owner) => report.closed_owners.push(source),
            Some(_) => {}
        }
    }
}

fn unused(issuer: &Issuer, seen: &Seen, report: &mut Report) {
    let (none, places) = ((BTreeSet::new(), BTreeSet::new()), &issuer.explaining.places);
    for class in issuer.ledger.rules().classes.values() {
        let (scopes, audiences) = seen.given.get(class.name.as_str()).unwrap_or(&none);
        let left = |ceiling: &BTreeSet<String>, given: &BTreeSet<String>| ceiling.difference(given).cloned().collect::<Vec<_>>();
        let (scopes, audiences) = (left(&class.scopes, scopes), left(&class.audiences, audiences));
        if !scopes.is_empty() || !audiences.is_empty() {
            let source = places.of(Section::Classes, class.name.as_str(), Some("scopes"));
            report.unused.push(Unused { class: class.name.clone(), scopes, audiences, source });
        }
    }
}
