//! The digest of classes, limits and the catalogue of audiences, which the journal records at each start that finds it changed.
//!
//! The digest is SHA-256 over one JSON document in the form of RFC 8785: members are sorted, there is no white space, and values
//! are strings, integers, lists and objects. Only this module decides what the document contains, so neither another compiler nor
//! a renamed field changes a digest.
//!
//! ```text
//! {"classes": [{"audiences": ["https://a.example"], "classes": ["researcher"], "max_depth": 2, "max_lease": 14400,
//!               "modes": ["delegated"], "name": "worker", "owner": "ops", "scopes": ["a:read"], "svid_ttl": 900,
//!               "workloads": ["orchestrator"]}],
//!  "limits": [{"live": 100, "name": "agents-of-a-user", "per": "user"}],
//!  "version": 1}
//! ```
//!
//! - `classes` is sorted by name. The lists within a class are sets: they are sorted, and hold nothing twice. A workload of this
//!   trust domain is written as its name, a foreign one as its SPIFFE ID. `svid_ttl` and `max_lease` are seconds. `subject` and
//!   `budget` are present if they are configured; `usd` is in millionths.
//! - `limits` keeps the order of the file, because a spawn that exceeds several limits is denied by the first of them. A limit
//!   has `live`, `fan_out`, `period` with `burst`, or `total` with `window`. `period` and `window` are microseconds.
//! - `audiences` is present if audiences are configured: by name, with each claim as it is configured.
//! - `actions` is present if types of actions are configured, and `approve` of a class if it has entries, in the order of the file.
//! - `version` counts the changes of this form.

use std::collections::{BTreeMap, BTreeSet};

use mayfly_verify::{ClassName, sha256};
use serde_json::{Value, json};

use crate::judge::action::{Action, ActionType, Catalogue, Field};
use crate::judge::approval::{ApprovalRule, Person, What};
use crate::judge::audience::{Audience, SYSTEMS};
use crate::judge::bound::{BOUNDS, Bound};
use crate::judge::limits::{Limit, Measure};
use crate::judge::policy::Class;
use crate::judge::profile::{Form, Profile};
use crate::state::Unit;

/// The version of this form.
const VERSION: u64 = 1;

/// SHA-256 of the canonical form of classes and limits.
pub(super) fn digest(
    classes: &BTreeMap<ClassName, Class>,
    limits: &[Limit],
    audiences: &BTreeMap<String, Audience>,
    actions: &Catalogue,
) -> [u8; 32] {
    sha256(canonical(classes, limits, audiences, actions).as_bytes())
}

/// The document that is hashed.
fn canonical(
    classes: &BTreeMap<ClassName, Class>,
    limits: &[Limit],
    audiences: &BTreeMap<String, Audience>,
    actions: &Catalogue,
) -> String {
    let classes: Vec<Value> = classes.values().map(class).collect();
    let limits: Vec<Value> = limits.iter().map(limit).collect();
    let mut form = json!({ "classes": classes, "limits": limits, "version": VERSION });
    // Left out if there are none, so that earlier configurations keep their digest.
    if let (Some(form), false) = (form.as_object_mut(), audiences.is_empty()) {
        form.insert("audiences".to_owned(), audiences.iter().map(|(name, of)| (name.clone(), audience(of))).collect());
    }
    if let (Some(form), false) = (form.as_object_mut(), actions.is_empty()) {
        form.insert("actions".to_owned(), actions.iter().map(|(name, of)| (name.clone(), action(of))).collect());
    }
    // A feature of a dependency makes objects keep the order of insertion.
    form.sort_all_objects();
    form.to_string()
}

// The patterns in `class` and `limit` name every field, so that a new field does not compile until it is part of this form.
fn class(class: &Class) -> Value {
    let Class {
        name,
        owner,
        scopes,
        audiences,
        svid_ttl,
        max_lease,
        max_depth,
        modes,
        workloads,
        classes,
        subject,
        impersonates,
        approve,
        budget,
    } = class;
    let mut form = json!({
        "audiences": audiences,
        "classes": set(classes),
        "max_depth": max_depth,
        "max_lease": max_lease,
        "modes": set(modes),
        "name": name.to_string(),
        "owner": owner,
        "scopes": scopes,
        "svid_ttl": svid_ttl,
        "workloads": set(workloads),
    });
    // Left out if there is none, so that earlier configurations keep their digest.
    if let (Some(form), false) = (form.as_object_mut(), budget.is_empty()) {
        let limits = Unit::ALL.into_iter().filter_map(|unit| Some((unit.as_str().to_owned(), budget.of(unit)?.into())));
        form.insert("budget".to_owned(), Value::Object(limits.collect()));
    }
    if let (Some(form), Some(subject)) = (form.as_object_mut(), subject) {
        form.insert("subject".to_owned(), subject.text().into());
    }
    if let (Some(form), false) = (form.as_object_mut(), impersonates.is_empty()) {
        form.insert("impersonates".to_owned(), impersonates.iter().cloned().collect());
    }
    if let (Some(form), false) = (form.as_object_mut(), approve.is_empty()) {
        form.insert("approve".to_owned(), approve.iter().map(approval).collect());
    }
    form
}

fn approval(rule: &ApprovalRule) -> Value {
    let ApprovalRule { what, audiences, up_to, by, expires, lasts, uses } = rule;
    let (kind, name) = match what {
        What::Scope(scope) => ("scope", scope),
        What::Action(of) => ("action", of),
    };
    let by: Vec<String> = by.iter().map(|Person { provider, sub }| format!("{provider}/{sub}")).collect();
    let up_to = up_to.as_ref().map(Action::json);
    json!({ kind: name, "audiences": audiences, "by": by, "expires": expires, "lasts": lasts, "up_to": up_to, "uses": uses })
}

fn action(of: &ActionType) -> Value {
    let fields = |fields: &BTreeMap<String, Field>| -> Value {
        fields.iter().map(|(name, field)| (name.clone(), Value::from(field.as_str()))).collect()
    };
    let ActionType { fields: needed, optional } = of;
    json!({ "fields": fields(needed), "optional": fields(optional) })
}

fn audience(audience: &Audience) -> Value {
    let Audience { owner, kind, lifetime, leeway, bound, profile, rs256, claims } = audience;
    let Profile { subject, form: of, impersonation, client, resources } = profile;
    let kind = SYSTEMS.iter().find(|(_, system)| Some(*system) == *kind).map(|(name, _)| *name);
    let claims: Value = claims.iter().map(|(name, claim)| (name.clone(), claim.configured())).collect();
    let mut form = json!({ "claims": claims, "kind": kind, "leeway": leeway, "lifetime": lifetime, "owner": owner });
    let mut put = |name: &str, value: Value| form.as_object_mut().and_then(|form| form.insert(name.to_owned(), value));
    // Left out if it has the value of releases without this key, so that earlier configurations keep their digest.
    if *rs256 {
        put("algorithm", "RS256".into());
    }
    if let Some((name, _)) = BOUNDS.iter().find(|(_, known)| known == bound && *known != Bound::None) {
        put("bound", (*name).into());
    }
    if let Some(subject) = subject {
        put("subject", subject.configured().into());
    }
    match of {
        Form::Access => {}
        Form::Plain => drop(put("form", "jwt".into())),
        Form::IdJag => drop(put("form", "id-jag".into())),
    }
    if let Some(client) = client {
        put("client_id", client.to_string().into());
    }
    if !resources.is_empty() {
        put("resources", resources.iter().cloned().collect());
    }
    if *impersonation {
        put("impersonation", true.into());
    }
    form
}

fn limit(limit: &Limit) -> Value {
    let Limit { name, per, measure } = limit;
    let per = per.as_str();
    match measure {
        Measure::Live(live) => json!({ "live": live, "name": name, "per": per }),
        Measure::FanOut(fan_out) => json!({ "fan_out": fan_out, "name": name, "per": per }),
        Measure::Rate { period, burst } => json!({ "burst": burst, "name": name, "per": per, "period": period }),
        Measure::Total { most, window } => json!({ "name": name, "per": per, "total": most, "window": window }),
    }
}

/// The texts of a list whose order has no meaning, sorted and without duplicates.
fn set<T: ToString>(items: &[T]) -> BTreeSet<String> {
    items.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use mayfly_verify::{Mode, Workload};

    use super::*;
    use crate::judge::budget::Budget;
    use crate::judge::limits::Per;

    fn worker() -> Class {
        Class {
            name: "worker".parse().unwrap(),
            owner: "ops".into(),
            scopes: ["b:read".into(), "a:\"read\"".into()].into(),
            audiences: ["https://a.example".into()].into(),
            svid_ttl: 900,
            max_lease: 14_400,
            max_depth: 2,
            modes: vec![Mode::Delegated, Mode::Autonomous],
            workloads: vec![workload("spiffe://td.example/ns/x"), workload("orchestrator")],
            classes: vec!["worker".parse().unwrap(), "researcher".parse().unwrap()],
            impersonates: Default::default(),
            subject: None,
            approve: vec![],
            budget: Budget::default(),
        }
    }

    fn workload(text: &str) -> Workload {
        match text.parse::<mayfly_verify::WorkloadName>() {
            Ok(own) => own.into(),
            Err(_) => text.parse().unwrap(),
        }
    }

    fn limits() -> Vec<Limit> {
        let limit = |name: &str, per, measure| Limit { name: name.into(), per, measure };
        vec![
            limit("live", Per::User, Measure::Live(100)),
            limit("children", Per::Parent, Measure::FanOut(8)),
            limit("rate", Per::Root, Measure::Rate { period: 20_000, burst: 50 }),
            limit("total", Per::Class, Measure::Total { most: 1000, window: 3_600_000_000 }),
        ]
    }

    fn of(class: Class, limits: &[Limit]) -> [u8; 32] {
        digest(&BTreeMap::from([(class.name.clone(), class)]), limits, &BTreeMap::new(), &Catalogue::new())
    }

    #[test]
    fn the_canonical_form_is_frozen() {
        let text = concat!(
            r#"{"classes":[{"audiences":["https://a.example"],"classes":["researcher","worker"],"max_depth":2,"#,
            r#""max_lease":14400,"modes":["autonomous","delegated"],"name":"worker","owner":"ops","#,
            r#""scopes":["a:\"read\"","b:read"],"svid_ttl":900,"workloads":["orchestrator","spiffe://td.example/ns/x"]}],"#,
            r#""limits":[{"live":100,"name":"live","per":"user"},{"fan_out":8,"name":"children","per":"parent"},"#,
            r#"{"burst":50,"name":"rate","per":"root","period":20000},"#,
            r#"{"name":"total","per":"class","total":1000,"window":3600000000}],"version":1}"#
        );
        let classes = BTreeMap::from([("worker".parse().unwrap(), worker())]);
        assert_eq!(canonical(&classes, &limits(), &BTreeMap::new(), &BTreeMap::new()), text);
        // As `printf '%s' "$text" | sha256sum` prints it.
        assert_eq!(hex::encode(of(worker(), &limits())), "662b83836bc4a04afa49633148a029acfac13dad6d03b0c0d6081b8e3365fb20");
    }

    #[test]
    fn each_field_of_a_class_changes_the_digest() {
        let subject = |text: &str| Some(crate::judge::SubjectTemplate::parse(text).unwrap());
        let changes: [&dyn Fn(&mut Class); 14] = [
            &|c| c.name = "other".parse().unwrap(),
            &|c| c.owner = "others".into(),
            &|c| c.scopes = ["b:read".into()].into(),
            &|c| c.audiences = ["https://b.example".into()].into(),
            &|c| c.svid_ttl = 901,
            &|c| c.max_lease = 14_401,
            &|c| c.max_depth = 3,
            &|c| c.modes = vec![Mode::Delegated],
            &|c| c.workloads = vec![workload("orchestrator")],
            &|c| c.classes = vec!["worker".parse().unwrap()],
            &|c| c.subject = subject("CN={agent}"),
            &|c| c.subject = subject("CN={class}"),
            &|c| c.budget = Budget([Some(1), None, None]),
            &|c| c.budget = Budget([None, Some(1), None]),
        ];
        let mut seen = BTreeSet::from([of(worker(), &limits())]);
        for change in changes {
            let mut changed = worker();
            change(&mut changed);
            assert!(seen.insert(of(changed, &limits())), "after {} changes", seen.len());
        }
    }

    #[test]
    fn each_field_of_a_limit_changes_the_digest() {
        let changes: [fn(&mut [Limit; 4]); 10] = [
            |[live, ..]| live.name = "other".into(),
            |[live, ..]| live.per = Per::Class,
            |[live, ..]| live.measure = Measure::Live(101),
            |[live, ..]| live.measure = Measure::FanOut(100),
            |[_, children, ..]| children.measure = Measure::FanOut(9),
            |[.., rate, _]| rate.measure = Measure::Rate { period: 20_001, burst: 50 },
            |[.., rate, _]| rate.measure = Measure::Rate { period: 20_000, burst: 51 },
            |[.., total]| total.measure = Measure::Total { most: 1001, window: 3_600_000_000 },
            |[.., total]| total.measure = Measure::Total { most: 1000, window: 60_000_000 },
            |all| all.swap(0, 1),
        ];
        let mut seen = BTreeSet::from([of(worker(), &limits())]);
        for change in changes {
            let mut changed: [Limit; 4] = limits().try_into().unwrap();
            change(&mut changed);
            assert!(seen.insert(of(worker(), &changed)), "after {} changes", seen.len());
        }
    }

    #[test]
    fn the_order_of_a_set_does_not_change_the_digest() {
        let mut reversed = worker();
        reversed.modes.reverse();
        reversed.workloads.reverse();
        reversed.classes.reverse();
        assert_eq!(of(reversed, &limits()), of(worker(), &limits()));
    }
}
