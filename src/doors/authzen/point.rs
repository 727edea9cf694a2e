//! The decision point of this issuer: subjects are agents, users and workloads, resources are audiences and classes.

use std::sync::Arc;

use mayfly_verify::{ClassName, sha256};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::wire::{Asked, Decision, Entity, Page, Point, Wanted};
use crate::acts::Issuer;
use crate::caller::Caller;
use crate::denial::{Denial, No};
use crate::why::explain::evaluate::{self, Question, Resource, Subject};
use crate::why::explain::search::{self, user};

/// The point, for one caller.
pub(super) struct Deciding<W> {
    pub(super) issuer: Arc<Issuer>,
    pub(super) caller: Caller,
    /// Whether the client still waits for the answer.
    pub(super) awaited: W,
}

impl<W: Fn() -> bool> Point for Deciding<W> {
    fn evaluate(&self, asked: &Asked) -> Result<Decision, No> {
        let Some(question) = self.question(asked, None) else { return Ok(unknown()) };
        let answer = evaluate::evaluate(&self.issuer, &self.caller, &question)?;
        let mut context = Map::new();
        let place = |reason: &evaluate::Reason| match reason.source.at.as_str() {
            "" => reason.source.key.clone(),
            at => format!("{at} {}", reason.source.key),
        };
        let reasons = answer.reasons.iter().map(|reason| {
            json!({ "code": reason.code, "message": reason.text, "check": reason.check, "where": place(reason),
                    "owner": reason.source.owner })
        });
        context.insert("reasons".to_owned(), reasons.collect());
        if let Some(reason) = answer.reasons.first().filter(|_| !answer.allowed) {
            let whole = format!("{} [{}; {}]", reason.text, place(reason), reason.source.owner);
            context.insert("reason_user".to_owned(), json!({ reason.code: reason.text }));
            context.insert("reason_admin".to_owned(), json!({ reason.code: whole }));
        }
        context.insert("revision".to_owned(), answer.revision.into());
        Ok(Decision { allowed: answer.allowed, context })
    }

    fn search(&self, wanted: Wanted, asked: &Asked, (token, limit): (&str, usize), same: &[u8]) -> Result<Page, No> {
        let opened = self.issuer.pages.open_bytes(&self.caller, token)?;
        // A page token continues the search that it belongs to, and no other.
        let digest = sha256(same);
        let after = match opened.as_deref().map(|opened| opened.split_at_checked(digest.len())) {
            None => None,
            Some(Some((of, after))) if of == digest => Some(String::from_utf8_lossy(after).into_owned()),
            Some(_) => {
                let message = "the page token belongs to another search: everything but `page` stays the same from page to page";
                return Err(Denial::malformed("PAGE_TOKEN", message).into());
            }
        };
        let looked_for = match (wanted, asked.subject.kind.as_str(), asked.resource.kind.as_str()) {
            (Wanted::Subject, "agent", _) => search::Wanted::Agents,
            (Wanted::Subject, "user", _) => search::Wanted::Users,
            (Wanted::Subject, "workload", _) => search::Wanted::Workloads,
            (Wanted::Resource, _, "audience") => search::Wanted::Audiences,
            (Wanted::Resource, _, "class") => search::Wanted::Classes,
            (Wanted::Action, ..) => search::Wanted::Actions,
            _ => return Ok(Page::default()),
        };
        let Some(question) = self.question(asked, Some(wanted)) else { return Ok(Page::default()) };
        let place = (after.as_deref(), limit);
        let found = search::search(&self.issuer, &self.caller, looked_for, &question, place, &self.awaited)?;
        let seal = |after: String| self.issuer.pages.seal_bytes(&self.caller, &[&digest, after.as_bytes()].concat());
        let next = found.next.map(seal).transpose()?.unwrap_or_default();
        Ok(Page { results: found.items, next })
    }
}

impl<W> Deciding<W> {
    /// Translates the question into the issuer's terms. `None` if it names something that cannot exist here; the answer is then no.
    fn question(&self, asked: &Asked, searched: Option<Wanted>) -> Option<Question> {
        let subject = match searched {
            // A placeholder, which each candidate of the search replaces.
            Some(Wanted::Subject) => Subject::Agent(Uuid::nil()),
            _ => self.subject(&asked.subject)?,
        };
        let resource = match (searched, asked.resource.kind.as_str()) {
            (Some(Wanted::Resource), _) => Resource::Audience(String::new()),
            (_, "audience") if asked.resource.id.len() <= 256 => Resource::Audience(asked.resource.id.clone()),
            (_, "class") => Resource::Class(asked.resource.id.parse::<ClassName>().ok()?),
            _ => return None,
        };
        let said = |name: &str| asked.context.get(name).and_then(Value::as_str);
        let for_user = match said("user") {
            Some(name) => Some(user(&self.issuer.ledger.rules(), name)?),
            None => None,
        };
        Some(Question {
            subject,
            action: asked.action.name.clone(),
            fields: asked.action.properties.clone(),
            resource,
            user: for_user,
            acr: said("acr").map(str::to_owned),
            groups: groups(&asked.context),
        })
    }

    fn subject(&self, entity: &Entity) -> Option<Subject> {
        match entity.kind.as_str() {
            "agent" => self.issuer.agent_id(&entity.id).ok().map(Subject::Agent),
            "user" => user(&self.issuer.ledger.rules(), &entity.id).map(Subject::User),
            "workload" => entity.id.parse().ok().map(Subject::Workload),
            _ => None,
        }
    }
}

/// The groups of the user, as the request gives them.
fn groups(context: &Map<String, Value>) -> Vec<String> {
    let named = context.get("groups").and_then(Value::as_array).into_iter().flatten();
    named.filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

/// The answer about something that cannot exist here: an ordinary no.
fn unknown() -> Decision {
    let message = "there is no such subject or resource, or none that you may ask about";
    let reasons =
        json!([{ "code": "SUBJECT_UNKNOWN", "message": message, "check": "caller", "where": "request", "owner": "the caller" }]);
    let context = [("reasons".to_owned(), reasons), ("reason_user".to_owned(), json!({ "SUBJECT_UNKNOWN": message }))];
    Decision { allowed: false, context: context.into_iter().collect() }
}
