//! The forms of the page: their fields, and what of an approval a person has left.

use axum::body::{Body, to_bytes};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_TYPE, ORIGIN};
use serde_json::{Map, Value};

use super::session::Session;
use crate::judge::action::Catalogue;
use crate::state::Approval;

/// Longest body, in bytes. Two bytes of an approval become six of a form at most.
const BODY: usize = 32 * 1024;
/// Fields of one form at most.
const FIELDS: usize = 512;

/// The fields of a form.
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    /// Reads a form of a signed-in person. `None` if it is not one of ours: T272, a page of somebody else sent it, or it is too long.
    pub(super) async fn read(headers: &HeaderMap, body: Body, session: &Session, origin: &str) -> Option<Form> {
        let same_origin = headers.get(ORIGIN).is_none_or(|sent| sent.as_bytes() == origin.as_bytes());
        let same_site = headers.get("sec-fetch-site").is_none_or(|site| site.as_bytes() == b"same-origin");
        let of = headers.get(CONTENT_TYPE).and_then(|of| of.to_str().ok()).and_then(|of| of.split(';').next());
        let typed = of.is_some_and(|of| of.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded"));
        if !same_origin || !same_site || !typed {
            return None;
        }
        let body = to_bytes(body, BODY).await.ok()?;
        let fields: Vec<(String, String)> =
            form_urlencoded::parse(&body).take(FIELDS + 1).map(|(n, v)| (n.into(), v.into())).collect();
        let form = Form(fields);
        (form.0.len() <= FIELDS && form.one("form") == Some(&session.form)).then_some(form)
    }

    /// The value of a field that occurs once.
    pub(super) fn one<'f>(&'f self, name: &'f str) -> Option<&'f str> {
        let mut named = self.many(name);
        named.next().filter(|_| named.next().is_none())
    }

    fn many<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'f str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The part of an approval that the fields leave: its actions as JSON, empty if there are none, and its scopes.
    pub(super) fn part(&self, approval: &Approval) -> (String, Vec<String>) {
        let kept = |(n, action): (usize, Map<String, Value>)| {
            self.one(&format!("keep.{n}"))?;
            let fields = action.into_iter().map(|(name, before)| {
                let field = format!("a.{n}.{name}");
                let after = match &before {
                    Value::Array(_) => self.many(&field).map(Value::from).collect(),
                    _ => self.one(&field).map_or(before, |value| value.trim().into()),
                };
                (name, after)
            });
            Some(Value::Object(fields.collect()))
        };
        let actions: Vec<Value> = actions(approval).into_iter().enumerate().filter_map(kept).collect();
        let details = if actions.is_empty() { String::new() } else { Value::Array(actions).to_string() };
        (details, self.many("scope").map(str::to_owned).collect())
    }
}

/// The actions of an approval.
pub(super) fn actions(approval: &Approval) -> Vec<Map<String, Value>> {
    serde_json::from_str(&approval.details).unwrap_or_default()
}

/// Whether a person can make a field of an action narrower. Texts stay as they are.
pub(super) fn can_shrink(catalogue: &Catalogue, of: &str, name: &str) -> bool {
    let known = catalogue.get(of).and_then(|known| known.fields.get(name).or_else(|| known.optional.get(name)));
    known.is_some_and(|field| *field != crate::judge::action::Field::Text)
}
