//! Governance report: entries without an owner, policies that nobody has reviewed, scopes and audiences that nobody was given, approvals
//! that can still be used, and agents that have not used their authority.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mayfly_verify::{ClassName, Target};
use time::OffsetDateTime;
use uuid::Uuid;

use super::survey::{Found, survey};
use crate::acts::Issuer;
use crate::acts::approvals::{self, Known};
use crate::caller::Caller;
use crate::clock::SECOND;
use crate::denial::{Fault, No};
use crate::history::entry::Kind;
use crate::history::query::{self, Filter};
use crate::judge::{Section, Source};
use crate::policies::Policy;
use crate::state::{Agent, State, Status};

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
    /// Entries and policies whose owner is a user who was revoked and is closed.
    pub closed_owners: Vec<Source>,
    /// Policies in force that have no date of review, or whose date has passed.
    pub reviews: Vec<Review>,
    /// Approvals that were given and can still be used, the newest first.
    pub approvals: Vec<Known>,
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

/// A policy that its owner has not reviewed in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Review {
    /// The id of the policy.
    pub policy: String,
    /// The date by which it was to be reviewed. `None` if it names none.
    pub due: Option<String>,
    /// Where it is, and who owns it.
    pub source: Source,
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
    let (open, _) = approvals::list(issuer, caller, false);
    let (asking, awaited) = (Arc::clone(issuer), Arc::new(()));
    let waits = Arc::downgrade(&awaited);
    let report = tokio::task::spawn_blocking(move || {
        let _place = place;
        let seen = seen(&asking, since, || waits.strong_count() > 0)?;
        let now = asking.clock.now();
        let idle = |_: &State, agent: &Agent| is_idle(agent, &seen.active, since, now);
        let mut report = Report {
            idle: survey(&asking, idle, || waits.strong_count() > 0)?,
            since,
            complete: seen.complete,
            admissions: seen.admissions,
            approvals: open.into_iter().filter(|known| known.status == Status::Approved).collect(),
            ..Report::default()
        };
        owners(&asking, &mut report);
        reviews(&asking, now / SECOND, &mut report);
        unused(&asking, &seen, &mut report);
        Ok::<_, Fault>(report)
    });
    let report = report.await.map_err(|e| Fault::new("governance", e))??;
    drop(awaited);
    Ok(report)
}

/// Whether nobody has used the authority of an agent that is `IDLE` old: it has no children, and is not among those that were active since
/// a time. Uses from before that are unknown. All times are in Unix microseconds.
pub fn is_idle(agent: &Agent, active: &BTreeSet<Uuid>, since: u64, now: u64) -> bool {
    let old = agent.admitted_at >= since && agent.admitted_at.saturating_add(IDLE * SECOND) <= now;
    old && !agent.has_children() && !active.contains(&agent.uuid)
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
    let policies = rules.policies.iter().flat_map(|set| set.all()).filter(|policy| closed.contains(&policy.owner));
    report.closed_owners.extend(policies.map(source));
}

/// Finds the policies in force whose date of review has passed at `now` (Unix seconds), or that have none.
fn reviews(issuer: &Issuer, now: u64, report: &mut Report) {
    let today = i64::try_from(now).ok().and_then(|now| OffsetDateTime::from_unix_timestamp(now).ok());
    let today = today.map(|now| now.date().to_string()).unwrap_or_default();
    let rules = issuer.ledger.rules();
    let due =
        rules.policies.iter().flat_map(|set| set.all()).filter(|policy| policy.review.as_ref().is_none_or(|due| *due <= today));
    report.reviews.extend(due.map(|policy| Review {
        policy: policy.id.clone(),
        due: policy.review.clone(),
        source: source(policy),
    }));
}

fn source(policy: &Policy) -> Source {
    Source { at: policy.place(), key: format!("policy {}", policy.id), owner: policy.owner.clone() }
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
