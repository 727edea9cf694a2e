//! The messages of AuthZEN 1.0: reads questions from JSON and writes answers, for any decision point. A malformed request is
//! refused as a whole; of a batch only the malformed question is.

use serde_json::{Map, Value, json};

use crate::denial::No;

/// Most questions of one batch.
pub(super) const BATCH: usize = 100;
/// Results on one page, unless the request asks for fewer: by default, and at most.
const PAGE: (usize, usize) = (100, 1000);
/// Longest name or id, in bytes.
const NAME: usize = 2048;

/// A subject or a resource.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Entity {
    pub(super) kind: String,
    /// Empty in a search for it.
    pub(super) id: String,
    pub(super) properties: Map<String, Value>,
}

/// An action.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Named {
    /// Empty in a search for it.
    pub(super) name: String,
    pub(super) properties: Map<String, Value>,
}

/// A question.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Asked {
    pub(super) subject: Entity,
    pub(super) action: Named,
    pub(super) resource: Entity,
    pub(super) context: Map<String, Value>,
}

/// What a search looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Subject,
    Resource,
    Action,
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Decision {
    pub(super) allowed: bool,
    pub(super) context: Map<String, Value>,
}

/// Results, and the page token of the next page; empty if there are no more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) results: Vec<String>,
    pub(super) next: String,
}

/// Whoever decides.
pub(super) trait Point {
    /// Decides one question.
    fn evaluate(&self, asked: &Asked) -> Result<Decision, No>;

    /// Searches for ids, or names of actions, after the position in a page token. `same` is the part of the request that must not
    /// change between pages.
    fn search(&self, wanted: Wanted, asked: &Asked, page: (&str, usize), same: &[u8]) -> Result<Page, No>;
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Refused {
    /// The request is malformed.
    Shape(String),
    /// It was not decided.
    No(No),
}

impl From<No> for Refused {
    fn from(no: No) -> Refused {
        Refused::No(no)
    }
}

pub(super) type Answered = Result<Value, Refused>;

fn shape<T>(message: impl Into<String>) -> Result<T, Refused> {
    Err(Refused::Shape(message.into()))
}

/// `/access/v1/evaluation`.
pub(super) fn evaluation(point: &impl Point, body: &Map<String, Value>) -> Answered {
    Ok(written(point.evaluate(&asked(body, body, None)?)?))
}

/// `/access/v1/evaluations`.
pub(super) fn evaluations(point: &impl Point, body: &Map<String, Value>) -> Answered {
    let list = match body.get("evaluations") {
        None => return evaluation(point, body),
        Some(Value::Array(list)) if list.is_empty() => return evaluation(point, body),
        Some(Value::Array(list)) if list.len() > BATCH => return shape(format!("`evaluations` has at most {BATCH} questions")),
        Some(Value::Array(list)) => list,
        Some(_) => return shape("`evaluations` is an array"),
    };
    let stops_at = semantic(body)?;
    // The common parts must be well formed even if each question has its own.
    for name in ["subject", "action", "resource", "context"] {
        if body.get(name).is_some_and(|value| !value.is_object()) {
            return shape(format!("`{name}` is an object"));
        }
    }
    let mut answers = Vec::new();
    for item in list {
        let question = match item {
            Value::Object(own) => asked(own, body, None),
            _ => shape("each of `evaluations` is an object"),
        };
        let decision = match question {
            Ok(question) => point.evaluate(&question)?,
            Err(Refused::Shape(message)) => {
                let error = json!({ "status": 400, "message": message });
                Decision { allowed: false, context: [("error".to_owned(), error)].into_iter().collect() }
            }
            Err(no) => return Err(no),
        };
        let allowed = decision.allowed;
        answers.push(written(decision));
        if stops_at == Some(allowed) {
            break;
        }
    }
    Ok(json!({ "evaluations": answers }))
}

/// The decision that ends the evaluation of a batch. `None` evaluates all questions.
fn semantic(body: &Map<String, Value>) -> Result<Option<bool>, Refused> {
    let options = match body.get("options") {
        None => return Ok(None),
        Some(Value::Object(options)) => options,
        Some(_) => return shape("`options` is an object"),
    };
    match options.get("evaluations_semantic").map(Value::as_str) {
        None | Some(Some("execute_all")) => Ok(None),
        Some(Some("deny_on_first_deny")) => Ok(Some(false)),
        Some(Some("permit_on_first_permit")) => Ok(Some(true)),
        Some(_) => shape("`evaluations_semantic` is `execute_all`, `deny_on_first_deny` or `permit_on_first_permit`"),
    }
}

/// `/access/v1/search/…`.
pub(super) fn search(point: &impl Point, wanted: Wanted, body: &Map<String, Value>) -> Answered {
    let asked = asked(body, body, Some(wanted))?;
    let (token, limit) = page(body)?;
    let Page { results, next } = point.search(wanted, &asked, (&token, limit), &same(wanted, body))?;
    let kind = if wanted == Wanted::Subject { &asked.subject.kind } else { &asked.resource.kind };
    let result = |id: String| match wanted {
        Wanted::Action => json!({ "name": id }),
        Wanted::Subject | Wanted::Resource => json!({ "type": kind, "id": id }),
    };
    let count = results.len();
    Ok(json!({
        "results": results.into_iter().map(result).collect::<Vec<_>>(),
        "page": { "next_token": next, "count": count },
    }))
}

fn page(body: &Map<String, Value>) -> Result<(String, usize), Refused> {
    let page = match body.get("page") {
        None => return Ok((String::new(), PAGE.0)),
        Some(Value::Object(page)) => page,
        Some(_) => return shape("`page` is an object"),
    };
    let token = match page.get("token") {
        None => String::new(),
        Some(Value::String(token)) if token.len() <= NAME => token.clone(),
        Some(_) => return shape("`page.token` is the `next_token` of the page before"),
    };
    let limit = match page.get("limit") {
        None => PAGE.0,
        Some(limit) => match limit.as_u64() {
            Some(limit) if limit > 0 => usize::try_from(limit).unwrap_or(PAGE.1).min(PAGE.1),
            _ => return shape("`page.limit` is a number from 1"),
        },
    };
    Ok((token, limit))
}

/// The part of a search that must not change between pages.
fn same(wanted: Wanted, body: &Map<String, Value>) -> Vec<u8> {
    let mut kept: Map<String, Value> =
        body.iter().filter(|(name, _)| ["subject", "action", "resource", "context"].contains(&name.as_str())).map(own).collect();
    let ignored = match wanted {
        Wanted::Subject => kept.get_mut("subject").and_then(Value::as_object_mut),
        Wanted::Resource => kept.get_mut("resource").and_then(Value::as_object_mut),
        Wanted::Action => None,
    };
    if let Some(entity) = ignored {
        entity.remove("id");
    }
    if wanted == Wanted::Action {
        kept.remove("action");
    }
    let mut all = json!([format!("{wanted:?}"), kept]);
    all.sort_all_objects();
    all.to_string().into_bytes()
}

fn own((name, value): (&String, &Value)) -> (String, Value) {
    (name.clone(), value.clone())
}

fn written(decision: Decision) -> Value {
    let mut said = json!({ "decision": decision.allowed });
    if !decision.context.is_empty() {
        said.as_object_mut().and_then(|said| said.insert("context".to_owned(), Value::Object(decision.context)));
    }
    said
}

/// A question: each part is its own, or else the common one. The two are not merged, except that an own part takes mandatory
/// members that it lacks from the common one.
fn asked(own: &Map<String, Value>, all: &Map<String, Value>, wanted: Option<Wanted>) -> Result<Asked, Refused> {
    let part = |name: &str| own.get(name).or_else(|| all.get(name));
    let object = |name: &str| match part(name) {
        Some(Value::Object(object)) => Ok(object),
        Some(_) => shape(format!("`{name}` is an object")),
        None => shape(format!("`{name}` is missing")),
    };
    let text = |object: &Map<String, Value>, of: &str, name: &str| {
        let lent = all.get(of).and_then(Value::as_object).and_then(|all| all.get(name));
        text(object.get(name).or(lent), of, name)
    };
    let entity = |name: &str, searched: bool| {
        let object = object(name)?;
        // AuthZEN 1.0, 8: the entity that is searched for has no id, and an id that is sent is ignored.
        let id = if searched { String::new() } else { text(object, name, "id")? };
        Ok::<_, Refused>(Entity { kind: text(object, name, "type")?, id, properties: properties(object, name)? })
    };
    let action = match wanted {
        Some(Wanted::Action) => Named::default(),
        _ => {
            let object = object("action")?;
            Named { name: text(object, "action", "name")?, properties: properties(object, "action")? }
        }
    };
    let context = match part("context") {
        None => Map::new(),
        Some(Value::Object(context)) => context.clone(),
        Some(_) => return shape("`context` is an object"),
    };
    let subject = entity("subject", wanted == Some(Wanted::Subject))?;
    Ok(Asked { subject, action, resource: entity("resource", wanted == Some(Wanted::Resource))?, context })
}

fn text(value: Option<&Value>, of: &str, name: &str) -> Result<String, Refused> {
    match value {
        Some(Value::String(text)) if !text.is_empty() && text.len() <= NAME => Ok(text.clone()),
        Some(_) => shape(format!("`{of}.{name}` is a text of 1 to {NAME} bytes")),
        None => shape(format!("`{of}.{name}` is missing")),
    }
}

fn properties(object: &Map<String, Value>, of: &str) -> Result<Map<String, Value>, Refused> {
    match object.get("properties") {
        None => Ok(Map::new()),
        Some(Value::Object(properties)) => Ok(properties.clone()),
        Some(_) => shape(format!("`{of}.properties` is an object")),
    }
}
