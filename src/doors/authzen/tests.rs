//! The certification scenario of AuthZEN 1.0, with its own decision point: users, records and three actions. These tests cover
//! messages, batches, searches and errors. `tests/authzen.rs` tests the decisions of the issuer, over HTTPS.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use serde_json::{Map, Value, json};

use super::wire::{self, Asked, BATCH, Decision, Page, Point, Refused, Wanted};
use crate::denial::{Denial, No};

/// The users alice and bob, and record-1 and record-2.
struct Records;

/// Decides by the rules of the scenario: only an admin writes an archived record, and a deletion is soft.
fn may(asked: &Asked) -> bool {
    let is = |of: &Map<String, Value>, name: &str, value: &str| of.get(name).and_then(Value::as_str) == Some(value);
    let (who, record) = (asked.subject.id.as_str(), asked.resource.id.as_str());
    let known = (asked.subject.kind.as_str(), asked.resource.kind.as_str()) == ("user", "record")
        && ["alice", "bob"].contains(&who)
        && ["record-1", "record-2"].contains(&record);
    let archived = is(&asked.resource.properties, "status", "archived") || record == "record-2";
    let admin = is(&asked.subject.properties, "role", "admin") || (asked.subject.properties.is_empty() && who == "bob");
    known
        && match asked.action.name.as_str() {
            "read" => true,
            "write" if archived => admin,
            "write" => who == "alice",
            "delete" => asked.action.properties.get("soft") == Some(&Value::Bool(true)),
            _ => false,
        }
}

impl Point for Records {
    fn evaluate(&self, asked: &Asked) -> Result<Decision, No> {
        Ok(Decision { allowed: may(asked), context: Map::new() })
    }

    fn search(&self, wanted: Wanted, asked: &Asked, (token, limit): (&str, usize), same: &[u8]) -> Result<Page, No> {
        let with = |name: &str| {
            let mut asked = asked.clone();
            match wanted {
                Wanted::Subject => name.clone_into(&mut asked.subject.id),
                Wanted::Resource => name.clone_into(&mut asked.resource.id),
                Wanted::Action => name.clone_into(&mut asked.action.name),
            }
            asked
        };
        let all: &[&str] = match wanted {
            Wanted::Subject => &["alice", "bob"],
            Wanted::Resource => &["record-1", "record-2"],
            Wanted::Action => &["read", "write", "delete"],
        };
        // The page token holds the position and the parts of the request that must stay the same.
        let same = String::from_utf8_lossy(same);
        let from = match token.split_once('@') {
            None => 0,
            Some((place, of)) if of == same => place.parse().unwrap(),
            Some(_) => return Err(Denial::malformed("PAGE_TOKEN", "another search").into()),
        };
        let mut found = all.iter().enumerate().skip(from).filter(|(_, name)| may(&with(name)));
        let results = found.by_ref().take(limit).map(|(_, name)| (*name).to_owned()).collect();
        let next = found.next().map(|(place, _)| format!("{place}@{same}")).unwrap_or_default();
        Ok(Page { results, next })
    }
}

/// The answer to a body at an endpoint, or the HTTP status of an error.
fn ask(endpoint: &str, body: &Value) -> Result<Value, u16> {
    let body = body.as_object().unwrap();
    let answered = match endpoint {
        "evaluation" => wire::evaluation(&Records, body),
        "evaluations" => wire::evaluations(&Records, body),
        "subject" => wire::search(&Records, Wanted::Subject, body),
        "resource" => wire::search(&Records, Wanted::Resource, body),
        "action" => wire::search(&Records, Wanted::Action, body),
        other => panic!("{other}"),
    };
    answered.map_err(|refused| match refused {
        Refused::Shape(_) => 400,
        Refused::No(No::Denial(denial)) => {
            if denial.code == "PAGE_TOKEN" {
                400
            } else {
                500
            }
        }
        Refused::No(No::Fault(_)) => 500,
    })
}

fn user(id: &str) -> Value {
    json!({ "type": "user", "id": id })
}

fn record(id: &str) -> Value {
    json!({ "type": "record", "id": id })
}

fn with(mut of: Value, properties: Value) -> Value {
    of["properties"] = properties;
    of
}

fn to(name: &str) -> Value {
    json!({ "name": name })
}

#[expect(clippy::needless_pass_by_value, reason = "a question is made of what is written there")]
fn question(subject: Value, action: Value, resource: Value) -> Value {
    json!({ "subject": subject, "action": action, "resource": resource })
}

#[test]
fn basic_each_decision_of_the_scenario_is_given() {
    let admin = with(user("bob"), json!({ "role": "admin" }));
    let archived = with(record("record-2"), json!({ "status": "archived" }));
    let delete = |soft: bool| with(to("delete"), json!({ "soft": soft }));
    let plain = question(user("alice"), to("read"), record("record-1"));
    let mut timed = plain.clone();
    timed["context"] = json!({ "time": "2025-06-27T18:03-07:00", "ip": "192.168.1.1" });
    let mut unknown = plain.clone();
    unknown["foo"] = json!("bar");
    unknown["futureField"] = json!({ "nested": true });
    let further = question(
        with(user("alice"), json!({ "department": "Sales", "role": "manager" })),
        with(to("read"), json!({ "method": "GET" })),
        with(record("record-1"), json!({ "status": "active", "owner": "bob" })),
    );
    for (body, expected) in [
        (plain, true),
        (question(user("alice"), to("write"), record("record-1")), true),
        (question(user("bob"), to("read"), record("record-1")), true),
        (question(user("bob"), to("write"), record("record-1")), false),
        (timed, true),
        (question(user("alice"), to("write"), archived.clone()), false),
        (question(admin, to("write"), archived), true),
        (question(user("alice"), delete(true), record("record-1")), true),
        (question(user("alice"), delete(false), record("record-1")), false),
        (further, true),
        (unknown, true),
    ] {
        // The same each time.
        for _ in 0..2 {
            assert_eq!(ask("evaluation", &body), Ok(json!({ "decision": expected })), "{body}");
        }
    }
}

#[test]
fn basic_what_a_question_must_have_and_lacks_is_an_error() {
    let whole = question(user("alice"), to("read"), record("record-1"));
    let mut wrong = Vec::new();
    for (part, fields) in [("subject", &["type", "id"][..]), ("action", &["name"]), ("resource", &["type", "id"])] {
        let changed = |change: &dyn Fn(&mut Map<String, Value>)| {
            let mut body = whole.clone();
            change(body.as_object_mut().unwrap());
            body
        };
        wrong.push(changed(&|body| drop(body.remove(part))));
        for value in [json!("alice"), json!(null), json!([]), json!(7)] {
            wrong.push(changed(&|body| drop(body.insert(part.to_owned(), value.clone()))));
        }
        for field in fields {
            wrong.push(changed(&|body| drop(body[part].as_object_mut().unwrap().remove(*field))));
            for value in [json!(123), json!(null), json!(""), json!("x".repeat(3000))] {
                wrong.push(changed(&|body| body[part][*field] = value.clone()));
            }
        }
        wrong.push(changed(&|body| body[part]["properties"] = json!("role")));
    }
    wrong.push(json!({}));
    let mut odd = whole;
    odd["context"] = json!("now");
    wrong.push(odd);
    for body in wrong {
        assert_eq!(ask("evaluation", &body), Err(400), "{body}");
    }
}

fn decisions(answer: &Value) -> Vec<bool> {
    assert!(answer.get("decision").is_none());
    answer["evaluations"].as_array().unwrap().iter().map(|one| one["decision"].as_bool().unwrap()).collect()
}

#[test]
fn batch_answers_stand_in_the_order_of_the_questions_and_parts_are_replaced_whole() {
    let active = with(record("record-1"), json!({ "status": "active" }));
    let archived = with(record("record-2"), json!({ "status": "archived" }));
    let admin = with(user("bob"), json!({ "role": "admin" }));
    let (alice, bob) = (user("alice"), user("bob"));
    let first = record("record-1");
    for (body, expected) in [
        (
            json!({ "subject": alice, "action": to("read"),
                 "evaluations": [{ "resource": first }, { "resource": record("record-2") }] }),
            vec![true, true],
        ),
        (
            json!({ "subject": bob, "resource": first,
                 "evaluations": [{ "action": to("read") }, { "action": to("write") }] }),
            vec![true, false],
        ),
        (
            json!({ "subject": alice, "action": to("write"),
                 "evaluations": [{ "resource": active }, { "resource": archived }] }),
            vec![true, false],
        ),
        (
            json!({ "action": to("write"), "resource": archived,
                 "evaluations": [{ "subject": alice }, { "subject": admin }] }),
            vec![false, true],
        ),
        (
            json!({ "evaluations": [question(alice.clone(), to("read"), first.clone()), question(bob, to("write"), first.clone())] }),
            vec![true, false],
        ),
        (
            json!({ "subject": alice, "action": to("read"), "context": { "time": "now" },
                 "evaluations": [{ "resource": first }, { "resource": record("record-2"), "context": { "source": "x" } }] }),
            vec![true, true],
        ),
        // A question's own part takes mandatory members that it lacks from the common part.
        (
            json!({ "subject": alice, "action": to("write"), "resource": { "type": "record" },
                 "evaluations": [{ "resource": { "id": "record-1", "properties": { "status": "active" } } }, { "resource": archived }] }),
            vec![true, false],
        ),
        // It does not take the common part's properties, which would make it an admin.
        (
            json!({ "subject": admin, "action": to("write"), "resource": archived,
                 "evaluations": [{ "subject": { "id": "bob", "properties": { "role": "guest" } } }, {}] }),
            vec![false, true],
        ),
        // A malformed question gets a no, and the others are answered.
        (
            json!({ "subject": alice, "action": to("read"), "evaluations": [{ "resource": first }, {}, 7, { "resource": first }] }),
            vec![true, false, false, true],
        ),
    ] {
        assert_eq!(ask("evaluations", &body).map(|answer| decisions(&answer)), Ok(expected), "{body}");
    }
    let mut alone = question(alice, to("read"), first);
    assert_eq!(ask("evaluations", &alone), Ok(json!({ "decision": true })));
    alone["evaluations"] = json!([]);
    assert_eq!(ask("evaluations", &alone), Ok(json!({ "decision": true })));
    for wrong in [
        json!({ "subject": "alice", "evaluations": [{}] }),
        json!({ "evaluations": {} }),
        json!({ "evaluations": [{}], "options": 7 }),
        json!({ "evaluations": [{}], "options": { "evaluations_semantic": "some" } }),
        json!({ "evaluations": vec![json!({}); BATCH + 1] }),
        json!({}),
    ] {
        assert_eq!(ask("evaluations", &wrong), Err(400), "{wrong}");
    }
}

#[test]
fn batch_semantics_say_after_which_answer_the_rest_is_not_asked() {
    let asked = |semantic: Option<&str>| {
        let reads = |allowed: bool| json!({ "action": to(if allowed { "read" } else { "write" }) });
        let list = [true, false, true, false].map(reads);
        let mut body = json!({ "subject": user("bob"), "resource": record("record-1"), "evaluations": list });
        if let Some(semantic) = semantic {
            body["options"] = json!({ "evaluations_semantic": semantic, "other": 1 });
        }
        decisions(&ask("evaluations", &body).unwrap())
    };
    assert_eq!(asked(None), [true, false, true, false]);
    assert_eq!(asked(Some("execute_all")), [true, false, true, false]);
    assert_eq!(asked(Some("deny_on_first_deny")), [true, false]);
    assert_eq!(asked(Some("permit_on_first_permit")), [true]);
}

#[test]
fn search_finds_each_and_goes_on_page_by_page() {
    let admin = with(user("bob"), json!({ "role": "admin" }));
    let archived = with(record("record-2"), json!({ "status": "archived" }));
    let (users, records) = (json!({ "type": "user" }), json!({ "type": "record" }));
    let some = question(users.clone(), to("read"), record("record-1"));
    let mut named = some.clone();
    named["subject"]["id"] = json!("somebody");
    let mut timed = some.clone();
    timed["context"] = json!({ "time": "now" });
    let actions = |subject: Value, resource: Value| json!({ "subject": subject, "resource": resource });
    for (what, body, expected) in [
        ("subject", some.clone(), json!([user("alice"), user("bob")])),
        ("subject", named, json!([user("alice"), user("bob")])),
        ("subject", timed, json!([user("alice"), user("bob")])),
        ("subject", question(users.clone(), to("write"), archived.clone()), json!([user("bob")])),
        ("resource", question(user("alice"), to("read"), records.clone()), json!([record("record-1"), record("record-2")])),
        ("resource", question(admin.clone(), to("write"), records.clone()), json!([record("record-2")])),
        ("action", actions(user("alice"), record("record-1")), json!([to("read"), to("write")])),
        ("action", actions(admin, archived), json!([to("read"), to("write")])),
        ("action", actions(user("nonexistent-user"), record("record-1")), json!([])),
        ("subject", question(json!({ "type": "spaceship" }), to("read"), record("record-1")), json!([])),
    ] {
        let answer = ask(what, &body).unwrap();
        assert_eq!(answer["results"], expected, "{what} {body}");
        assert_eq!(
            (&answer["page"]["next_token"], &answer["page"]["count"]),
            (&json!(""), &json!(expected.as_array().unwrap().len()))
        );
    }
    // Pages of one result each, with the rest of the request unchanged.
    let mut paged = some.clone();
    paged["page"] = json!({ "limit": 1 });
    let first = ask("subject", &paged).unwrap();
    assert_eq!(first["results"], json!([user("alice")]));
    paged["page"] = json!({ "token": first["page"]["next_token"] });
    let second = ask("subject", &paged).unwrap();
    assert_eq!((&second["results"], &second["page"]["next_token"]), (&json!([user("bob")]), &json!("")));
    paged["action"] = to("write");
    assert_eq!(ask("subject", &paged), Err(400), "the token belongs to another search");
    for (what, wrong) in [
        ("subject", json!({ "subject": users, "resource": record("record-1") })),
        ("resource", json!({ "action": to("read"), "resource": records })),
        ("action", json!({ "subject": user("alice") })),
        ("subject", question(users.clone(), to("read"), records.clone())),
        ("resource", question(users, to("read"), records)),
        ("subject", json!({ "subject": {}, "action": to("read"), "resource": record("record-1") })),
    ] {
        assert_eq!(ask(what, &wrong), Err(400), "{what} {wrong}");
    }
    for page in [json!(7), json!({ "limit": 0 }), json!({ "limit": "1" }), json!({ "limit": -1 }), json!({ "token": 7 })] {
        let mut wrong = some.clone();
        wrong["page"] = page;
        assert_eq!(ask("subject", &wrong), Err(400), "{wrong}");
    }
}
