//! Explains a decision in the history: the request, the outcome, and where that is defined. For operators, an admission that is
//! still in the journal is decided again on the state of its time, to show its checks too.

use std::sync::Arc;

use mayfly_agent::reason::{Actor, Entry};

use super::change::Case;
use super::told::{Explanation, Part, Row};
use crate::acts::{Issuer, history};
use crate::caller::Caller;
use crate::clock::rfc3339;
use crate::denial::{Denial, Fault, Kind, No};
use crate::history::entry::{Draft, Kind as EntryKind, Outcome, Person};
use crate::judge::{Rules, Section, Source};
use crate::why::replay;

/// Explains a decision that the caller may see, by its id in the history.
pub(super) async fn decision(issuer: &Arc<Issuer>, caller: &Caller, id: &str) -> Result<Explanation, No> {
    let (entries, _) = history::decision(issuer, caller, id).await?;
    let is = |kind: EntryKind| entries.iter().find(|entry| entry.leaf.kind == kind);
    let main = is(EntryKind::Admission).or(is(EntryKind::Denial)).or(entries.first());
    let main = main.ok_or_else(|| Fault::new("explain", "a decision without entries"))?;
    if main.leaf.outcome == Outcome::Failed {
        let message = format!("the issuer failed at `{id}`, so nothing was decided: its log has the cause");
        return Err(Denial::new(Kind::NotFound, "DECISION_UNKNOWN", message).into());
    }
    if main.leaf.kind == EntryKind::Admission && caller.reads_everything() {
        match again(issuer, caller, main.leaf.revision).await? {
            Some(explained) if explained.denial.is_none() => {
                let about = format!("{} of {}, decided again as it was then", main.leaf.kind.as_str(), main.leaf.agent_id);
                return Ok(Explanation { about, decision: main.leaf.decision_id.clone(), at: main.leaf.at, ..explained });
            }
            Some(_) | None => {}
        }
    }
    Ok(as_recorded(issuer, &entries, main))
}

/// The admission of a revision with its checks. `None` if it or its spawner is no longer in the journal.
async fn again(issuer: &Arc<Issuer>, caller: &Caller, revision: u64) -> Result<Option<Explanation>, No> {
    let place = issuer.counting.place(caller)?;
    let (asking, awaited) = (Arc::clone(issuer), Arc::new(()));
    let waits = Arc::downgrade(&awaited);
    let explained = tokio::task::spawn_blocking(move || {
        let _place = place;
        let Some((state, admitted, at)) = replay::before(&asking, revision, || waits.strong_count() > 0)? else {
            return Ok(None);
        };
        let rules = asking.ledger.rules();
        let Some((act, spawner)) = replay::request(&state, &rules, &admitted, at) else { return Ok(None) };
        let case = Case::new(act, spawner, &rules, &state, at);
        case.judge_about(&state, |j, verdict| {
            let denial = match &verdict.result {
                Ok(_) => None,
                Err(No::Denial(denial)) => Some(denial.clone()),
                Err(No::Fault(fault)) => return Err(Fault::new("explain", fault)),
            };
            Ok(Some(super::tell(j, &case, &asking.explaining.places, &verdict.checks, denial)))
        })
    });
    let explained = explained.await.map_err(|e| Fault::new("explain", e))??;
    drop(awaited);
    Ok(explained)
}

/// What the entries say.
fn as_recorded(issuer: &Issuer, entries: &[Draft], main: &Draft) -> Explanation {
    let (places, leaf) = (&issuer.explaining.places, &main.leaf);
    let class = |key: Option<&str>| match leaf.class.as_str() {
        "" => places.elsewhere("configuration"),
        class => places.of(Section::Classes, class, key),
    };
    let denial = (leaf.outcome == Outcome::Denied).then(|| {
        // Every code is in the table. A code of a later version is shown without a meaning.
        let entry = Entry::of(&leaf.reason_code);
        let (code, kind) =
            entry.map_or(("DECISION_UNKNOWN", Kind::Denied), |e| (e.code, e.kinds.first().copied().unwrap_or(Kind::Denied)));
        Denial::new(kind, code, main.opening.reason.clone())
    });
    let rules = issuer.ledger.rules();
    let row = |entry: &Draft| {
        let record = match entry.leaf.revision {
            0 => format!("history entry {}", entry.leaf.index),
            revision => format!("record r{revision}"),
        };
        let by = match Entry::of(&entry.leaf.reason_code).map(|e| e.actor) {
            Some(Actor::ClassOwner) => class(None),
            Some(Actor::Operator) => places.elsewhere("configuration"),
            _ => places.record(record, Some(&class(None).owner)),
        };
        let passed = entry.leaf.outcome != Outcome::Denied;
        Row { check: entry.leaf.kind.as_str(), passed, saw: saw(&rules, entry), source: by }
    };
    let given = |key: &str, given: &[String], asked: &[String]| {
        let source = places.record(format!("{} r{}", leaf.kind.as_str(), leaf.revision), Some(&class(None).owner));
        let held =
            given.iter().map(|name| Part { name: name.clone(), from: vec![class(Some(key)), source.clone()], removed_by: None });
        let lost = asked.iter().filter(|name| !given.contains(name));
        let lost = lost.map(|name| Part { name: name.clone(), from: Vec::new(), removed_by: Some(class(Some(key))) });
        held.chain(lost).collect::<Vec<_>>()
    };
    let (scopes, audiences) = if denial.is_some() {
        (given("scopes", &[], &main.opening.asked), Vec::new())
    } else {
        (given("scopes", &main.opening.scopes, &main.opening.asked), given("audiences", &main.opening.audiences, &[]))
    };
    Explanation {
        about: format!("{} {}", leaf.kind.as_str(), if leaf.agent_id.is_empty() { &leaf.root_id } else { &leaf.agent_id }),
        checks: entries.iter().map(row).collect(),
        scopes,
        audiences,
        policies: policies(issuer, &main.opening.reason),
        denial,
        // No changes were tried, because the history does not have the complete request.
        complete: false,
        decision: leaf.decision_id.clone(),
        revision: leaf.revision,
        at: leaf.at,
        ..Explanation::default()
    }
}

/// The decision of an entry, in words.
fn saw(rules: &Rules, entry: &Draft) -> String {
    let (leaf, opening) = (&entry.leaf, &entry.opening);
    let name = |user: &Person| rules.user_name(&mayfly_verify::User { iss: user.iss.clone(), sub: user.sub.clone() });
    let mut parts = Vec::new();
    let mut say = |name: &str, value: String| {
        if !value.is_empty() {
            parts.push(format!("{name} {value}"));
        }
    };
    say("by", opening.caller.clone());
    say("for", opening.user.as_ref().map(|user| format!("user {}", name(user))).unwrap_or_default());
    say("class", leaf.class.clone());
    say("asked", opening.asked.join(" "));
    say("scopes", opening.scopes.join(" "));
    say("audiences", opening.audiences.join(" "));
    say("until", if opening.ends_at > 0 { rfc3339(opening.ends_at) } else { String::new() });
    say("target", opening.target.clone());
    say(leaf.reason_code.as_str(), opening.reason.clone());
    if parts.is_empty() { leaf.outcome.as_str().to_owned() } else { parts.join(", ") }
}

/// The policies in force that a denial names.
fn policies(issuer: &Issuer, reason: &str) -> Vec<(String, Source)> {
    let rules = issuer.ledger.rules();
    let all = rules.policies.iter().flat_map(|set| set.all());
    let named = all.filter(|policy| reason.contains(&format!("policy `{}`", policy.id)));
    let told = named.map(|policy| {
        let key = format!("policy {}", policy.id);
        (policy.id.clone(), Source { at: policy.place(), key, owner: policy.owner.clone() })
    });
    told.collect()
}
