//! `[[actions]]`: the types of actions; `approve` of a class: what needs an approval, who gives it, and on which terms;
//! `[approvals]`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use toml::{Table, Value};

use super::Webhook;
use super::issuers::https;
use super::reader::Reader;
use crate::judge::action::{Action, ActionType, Catalogue, Field};
use crate::judge::approval::{ApprovalRule, Person, Waiting, What};
use crate::notify::{Endpoint, on_loopback};

/// Most types of actions, and fields of one type.
const MOST: usize = 64;

/// Reads every `[[actions]]`.
pub(super) fn read_actions(top: &mut Reader) -> Catalogue {
    let mut catalogue = Catalogue::new();
    for mut a in top.sections("actions") {
        let of = a.parsed("type", None, |s| {
            let ok = (1..=128).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\'));
            if ok { Ok(s.to_owned()) } else { Err("a type has 1 to 128 visible ASCII characters".into()) }
        });
        let fields = read_fields(&mut a, "fields");
        let optional = read_fields(&mut a, "optional");
        if let Some(twice) = optional.keys().find(|name| fields.contains_key(*name)) {
            a.fault("optional", &format!("`{twice}` is in `fields` already"));
        }
        if fields.len() + optional.len() > MOST {
            a.fault("fields", &format!("a type has at most {MOST} fields"));
        }
        if let Some(of) = of
            && catalogue.insert(of.clone(), ActionType { fields, optional }).is_some()
        {
            a.fault("type", &format!("`{of}` is in the catalogue already"));
        }
        top.close(a);
    }
    if catalogue.len() > MOST {
        top.fault("actions", &format!("a catalogue has at most {MOST} types"));
    }
    catalogue
}

fn read_fields(a: &mut Reader, key: &str) -> BTreeMap<String, Field> {
    let mut fields = BTreeMap::new();
    for (name, value) in a.table(key) {
        let sound =
            (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && name != "type";
        let kind = value.as_str().and_then(|text| Field::ALL.iter().find(|(known, _)| *known == text));
        match kind {
            Some((_, field)) if sound => drop(fields.insert(name, *field)),
            Some(_) => a.fault(key, &format!("`{name}`: a field has 1 to 64 letters, digits and `_`, and is not `type`")),
            None => a.fault(key, &format!("`{name}`: write one of {}", Field::ALL.map(|(known, _)| known).join(", "))),
        }
    }
    fields
}

/// Reads `approve` of a class: scopes, types of actions, or sections with terms. `audiences` and `scopes` are the class's own.
pub(super) fn read_approve(c: &mut Reader, actions: &Catalogue, audiences: &[String], scopes: &[String]) -> Vec<ApprovalRule> {
    let mut rules: Vec<ApprovalRule> = Vec::new();
    for mut r in c.named_sections("approve", |text| {
        let key = if actions.contains_key(text) { "action" } else { "scope" };
        Table::from_iter([(key.to_owned(), Value::String(text.to_owned()))])
    }) {
        if let Some(rule) = read_rule(&mut r, actions, audiences) {
            let own = matches!(&rule.what, What::Scope(scope) if scopes.contains(scope));
            if own {
                r.fault("scope", "the class has this scope without approval: take it out of `scopes`");
            }
            if rules.iter().any(|other| other.what == rule.what && !other.audiences.is_disjoint(&rule.audiences)) {
                r.fault("audiences", "another entry of `approve` is about the same at one of these audiences");
            }
            rules.push(rule);
        }
        c.close(r);
    }
    if rules.len() > MOST {
        c.fault("approve", &format!("a class has at most {MOST} entries"));
    }
    rules
}

fn read_rule(r: &mut Reader, actions: &Catalogue, own: &[String]) -> Option<ApprovalRule> {
    let scope = r.optional("scope", |s| {
        let ok = (1..=128).contains(&s.len()) && s.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e));
        if ok { Ok(s.to_owned()) } else { Err("a scope has 1 to 128 visible ASCII characters, without `\"` and `\\`".into()) }
    });
    let action = r.optional("action", |s| {
        if actions.contains_key(s) { Ok(s.to_owned()) } else { Err("no `[[actions]]` has this `type`".into()) }
    });
    let what = match (scope, action) {
        (Some(scope), None) => Some(What::Scope(scope)),
        (None, Some(action)) => Some(What::Action(action)),
        _ => {
            r.fault("action", "write either `action` or `scope`");
            None
        }
    };
    let audiences = r.list("audiences", Some(&own.iter().map(String::as_str).collect::<Vec<_>>()), |s| {
        let ok = (1..=256).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_graphic());
        if ok { Ok(s.to_owned()) } else { Err("an audience has 1 to 256 visible ASCII characters".into()) }
    });
    if audiences.is_empty() {
        r.fault("audiences", "name at least one: the class has none");
    }
    let up_to = read_up_to(r, what.as_ref(), actions);
    let by = r.list("by", Some(&[]), |s| match s.split_once('/') {
        Some((provider, sub)) if !provider.is_empty() && !sub.is_empty() && !s.contains("://") => {
            Ok(Person { provider: provider.to_owned(), sub: sub.to_owned() })
        }
        _ => Err("write <issuer's configured name>/<subject>".into()),
    });
    let expires = r.duration("expires", "10m", 10, 600).as_secs();
    let lasts = r.duration("lasts", "5m", 10, 1800).as_secs();
    let uses = r.small("uses", 1, 1, 1000);
    Some(ApprovalRule { what: what?, audiences: audiences.into_iter().collect(), up_to, by, expires, lasts, uses })
}

/// The action up to which no approval is needed.
fn read_up_to(r: &mut Reader, what: Option<&What>, actions: &Catalogue) -> Option<Action> {
    if !r.has("up_to") {
        r.optional("up_to", |_| Ok(()));
        return None;
    }
    let table = r.table("up_to");
    let Some(What::Action(of)) = what else {
        r.fault("up_to", "only actions have it");
        return None;
    };
    let Ok(mut value) = serde_json::to_value(table) else {
        r.fault("up_to", "write the fields of an action");
        return None;
    };
    if let Some(object) = value.as_object_mut() {
        object.insert("type".to_owned(), of.clone().into());
    }
    Action::read(actions, &value).map_err(|denial| r.fault("up_to", &denial.message)).ok()
}

/// Reads `[approvals]`: how many questions may wait, and who is told of them.
pub(super) fn read_approvals(a: &mut Reader) -> (Waiting, Option<Webhook>) {
    let waiting = Waiting {
        per_agent: a.integer("per_agent", 10, 1, 1000),
        per_user: a.integer("per_user", 100, 1, 100_000),
        total: a.integer("total", 10_000, 1, 100_000),
    };
    if !a.has("webhook") {
        a.optional("webhook", |_| Ok(()));
        return (waiting, None);
    }
    let mut w = a.section("webhook");
    let url = w.parsed("url", None, |s| match on_loopback(s) {
        true => Ok(s.to_owned()),
        false => https(s).map_err(|e| format!("{e}; without TLS only a program on this machine is told")),
    });
    let secret_file = w.parsed("secret_file", None, |s| Ok(PathBuf::from(s)));
    let ca_file = w.optional("ca_file", |s| Ok(PathBuf::from(s)));
    a.close(w);
    let webhook = url.zip(secret_file).map(|(url, secret_file)| Webhook { to: Endpoint { url, ca_file }, secret_file });
    (waiting, webhook)
}

/// Checks that every provider named in the `approve` of a class is configured. `dev` is the provider of development.
pub(super) fn check_people<'a>(top: &mut Reader, rules: impl Iterator<Item = &'a ApprovalRule>, providers: &[&str]) {
    for person in rules.flat_map(|rule| &rule.by) {
        if !providers.contains(&person.provider.as_str()) && person.provider != "dev" {
            top.fault("classes", &format!("`approve` names `{}/{}`, and no issuer has that name", person.provider, person.sub));
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::config::Config;

    const START: &str = "trust_domain = \"td.example\"\n[[workloads]]\nname = \"w\"\n[[actions]]\ntype = \"payment\"\n\
                         fields = { amount = \"number\", currency = \"text\" }\n[[classes]]\nname = \"payer\"\nowner = \"o\"\n\
                         scopes = [\"accounts:read\"]\naudiences = [\"https://bank.example\"]\nspawners = [\"workload/w\"]\n";

    fn read(more: &str) -> Result<Vec<ApprovalRule>, String> {
        let config = Config::parse(&format!("{START}{more}"), "f").map_err(|faults| faults.to_string())?;
        Ok(config.classes.into_values().next().unwrap().approve)
    }

    #[test]
    fn a_name_is_an_action_if_the_catalogue_has_it_and_else_a_scope() {
        let rules = read("approve = [\"payment\", \"payments:send\"]\n").unwrap();
        assert_eq!(
            rules.iter().map(|rule| rule.what.clone()).collect::<Vec<_>>(),
            [What::Action("payment".into()), What::Scope("payments:send".into())]
        );
        let rule = rules.first().unwrap();
        assert_eq!((rule.uses, rule.lasts, rule.expires, rule.by.len()), (1, 300, 600, 0));
        assert!(rule.audiences.contains("https://bank.example"));
    }

    #[test]
    fn every_fault_of_approve_is_said() {
        for (more, part) in [
            ("approve = [\"accounts:read\"]\n", "without approval"),
            ("approve = [3]\n", "approve"),
            ("[[classes.approve]]\naction = \"refund\"\n", "no `[[actions]]`"),
            ("[[classes.approve]]\nactoin = \"payment\"\n", "did you mean `action`"),
            ("[[classes.approve]]\naction = \"payment\"\nscope = \"x\"\n", "either"),
            ("[[classes.approve]]\naction = \"payment\"\nup_to = { amount = \"5\" }\n", "currency"),
            ("[[classes.approve]]\naction = \"payment\"\nuses = 0\n", "uses"),
            ("[[classes.approve]]\naction = \"payment\"\nby = [\"corp/alice\"]\n", "no issuer has that name"),
            ("approve = [\"payment\", \"payment\"]\n", "another entry"),
        ] {
            let fault = read(more).unwrap_err();
            assert!(fault.contains(part), "{part} not in {fault}");
        }
    }
}
