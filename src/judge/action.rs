//! Typed actions (`authorization_details`, RFC 9396): the catalogue of their types, and when one action is within another.
//!
//! An action is a flat JSON object: its `type`, and the fields that the catalogue lists for the type. One action is *within*
//! another of the same type if each field of the outer one is there too and is within the outer one's: a number is at most as
//! large, a text is the same, a list has no other members. Fields that the outer one leaves out may have any value.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::denial::Denial;

/// Most actions of one request.
const ACTIONS: usize = 8;
/// Most bytes of all actions of one request in their canonical form.
const BYTES: usize = 2048;
/// Most digits of a number before the decimal point, and after it.
const DIGITS: usize = 18;

/// How a field of one action is within that of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// A decimal number without a sign, written as text: it may only become smaller.
    Number,
    /// A text: it stays the same.
    Text,
    /// A list of texts without order: it may only lose members.
    List,
}

impl Field {
    /// Every kind, as the configuration writes it.
    pub const ALL: [(&'static str, Field); 3] = [("number", Field::Number), ("text", Field::Text), ("list", Field::List)];

    /// Its name in the configuration.
    pub fn as_str(self) -> &'static str {
        Field::ALL.iter().find(|(_, field)| *field == self).map_or("", |(name, _)| name)
    }
}

/// One type of actions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActionType {
    /// Its mandatory fields by name.
    pub fields: BTreeMap<String, Field>,
    /// Fields that an action of the type may leave out.
    pub optional: BTreeMap<String, Field>,
}

/// The types of actions, by name.
pub type Catalogue = BTreeMap<String, ActionType>;

/// One action, checked against its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    of: String,
    fields: BTreeMap<String, Content>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    /// As it was written.
    Number(String),
    Text(String),
    List(BTreeSet<String>),
}

impl Action {
    /// The name of its type.
    pub fn of(&self) -> &str {
        &self.of
    }

    /// Reads one action.
    pub fn read(catalogue: &Catalogue, value: &Value) -> Result<Action, Denial> {
        let object = value.as_object().ok_or_else(|| malformed("each action is a JSON object with a `type`"))?;
        let of = object.get("type").and_then(Value::as_str).ok_or_else(|| malformed("an action has no `type`"))?;
        let Some(known) = catalogue.get(of) else {
            let shown: String = of.chars().take(64).collect();
            return Err(malformed(format!(
                "there is no type of actions `{shown}`: the configuration lists them in `[[actions]]`"
            )));
        };
        if let Some(missing) = known.fields.keys().find(|name| !object.contains_key(*name)) {
            return Err(malformed(format!("an action of type `{of}` has the field `{missing}`")));
        }
        let mut fields = BTreeMap::new();
        for (name, value) in object.iter().filter(|(name, _)| *name != "type") {
            let Some(field) = known.fields.get(name).or_else(|| known.optional.get(name)) else {
                let shown: String = name.chars().take(64).collect();
                return Err(malformed(format!("an action of type `{of}` has no field `{shown}`")));
            };
            let content = content(*field, value).ok_or_else(|| {
                let how = match field {
                    Field::Number => format!("a number without a sign, written as text such as \"10.00\", with at most {DIGITS} digits on each side of the point"),
                    Field::Text => "a text of 1 to 256 bytes without control characters".to_owned(),
                    Field::List => "a list of 1 to 32 different texts, each of 1 to 256 bytes without control characters".to_owned(),
                };
                malformed(format!("the field `{name}` of `{of}` is {how}"))
            })?;
            fields.insert(name.clone(), content);
        }
        Ok(Action { of: of.to_owned(), fields })
    }

    /// Whether this action is within another one: see the head of this file.
    pub fn within(&self, outer: &Action) -> bool {
        let field = |(name, outer): (&String, &Content)| self.fields.get(name).is_some_and(|own| own.within(outer));
        self.of == outer.of && outer.fields.iter().all(field)
    }

    /// The action as JSON.
    pub fn json(&self) -> Value {
        let mut object: Map<String, Value> = self
            .fields
            .iter()
            .map(|(name, content)| {
                let value = match content {
                    Content::Number(text) | Content::Text(text) => text.clone().into(),
                    Content::List(members) => members.iter().cloned().collect(),
                };
                (name.clone(), value)
            })
            .collect();
        object.insert("type".to_owned(), self.of.clone().into());
        Value::Object(object)
    }
}

impl Content {
    fn within(&self, outer: &Content) -> bool {
        match (self, outer) {
            (Content::Number(own), Content::Number(outer)) => compare(own, outer) != Ordering::Greater,
            (Content::Text(own), Content::Text(outer)) => own == outer,
            (Content::List(own), Content::List(outer)) => own.is_subset(outer),
            _ => false,
        }
    }
}

/// Whether each action is within another one of `outer`, and no two within the same one, because an approved payment may be made
/// once.
pub fn all_within(actions: &[Action], outer: &[Action]) -> bool {
    let Some((first, rest)) = actions.split_first() else { return true };
    outer.iter().enumerate().filter(|(_, outer)| first.within(outer)).any(|(taken, _)| {
        let left: Vec<Action> = outer.iter().enumerate().filter(|(n, _)| *n != taken).map(|(_, action)| action.clone()).collect();
        all_within(rest, &left)
    })
}

/// Reads the actions of a request: a JSON array of them, or nothing.
pub fn read_actions(catalogue: &Catalogue, text: &str) -> Result<Vec<Action>, Denial> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let Ok(Value::Array(values)) = serde_json::from_str::<Value>(text) else {
        return Err(malformed("the actions are a JSON array of objects, as `authorization_details` of RFC 9396 are"));
    };
    if values.is_empty() || values.len() > ACTIONS {
        return Err(malformed(format!("ask for 1 to {ACTIONS} actions at once")));
    }
    let actions = values.iter().map(|value| Action::read(catalogue, value)).collect::<Result<Vec<_>, _>>()?;
    if canonical(&actions).len() > BYTES {
        return Err(malformed(format!("the actions of one request have at most {BYTES} bytes")));
    }
    Ok(actions)
}

/// Actions in the form of RFC 8785: members are sorted, there is no white space, and values are texts and lists of texts alone. Empty if
/// there are none.
pub fn canonical(actions: &[Action]) -> String {
    if actions.is_empty() {
        return String::new();
    }
    let mut all = Value::Array(actions.iter().map(Action::json).collect());
    // A feature of a dependency makes objects keep the order of insertion.
    all.sort_all_objects();
    all.to_string()
}

fn content(field: Field, value: &Value) -> Option<Content> {
    match field {
        Field::Number => value.as_str().filter(|text| is_number(text)).map(|text| Content::Number(text.to_owned())),
        Field::Text => value.as_str().filter(|text| is_text(text)).map(|text| Content::Text(text.to_owned())),
        Field::List => {
            let members = value.as_array().filter(|members| (1..=32).contains(&members.len()))?;
            let texts: Option<BTreeSet<String>> =
                members.iter().map(|text| text.as_str().filter(|text| is_text(text)).map(str::to_owned)).collect();
            texts.filter(|texts| texts.len() == members.len()).map(Content::List)
        }
    }
}

// A control character could make what a person is shown look like something else.
fn is_text(text: &str) -> bool {
    (1..=256).contains(&text.len()) && !text.chars().any(is_deceiving)
}

/// Whether a character can make a text look different from what it is: control characters, and characters that are invisible or
/// change the direction of writing.
pub fn is_deceiving(c: char) -> bool {
    let hidden = matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}');
    c.is_control() || hidden || c == '\u{feff}'
}

fn is_number(text: &str) -> bool {
    let digits = |part: &str| (1..=DIGITS).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    match text.split_once('.') {
        Some((whole, part)) => digits(whole) && digits(part),
        None => digits(text),
    }
}

/// Compares two numbers without rounding.
fn compare(a: &str, b: &str) -> Ordering {
    let parts = |text: &str| {
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        format!("{whole:0>DIGITS$}{part:0<DIGITS$}")
    };
    parts(a).cmp(&parts(b))
}

fn malformed(message: impl Into<String>) -> Denial {
    Denial::malformed("ACTION_MALFORMED", message)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "tests")]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn catalogue() -> Catalogue {
        let payment = ActionType {
            fields: [("amount".to_owned(), Field::Number), ("currency".to_owned(), Field::Text)].into(),
            optional: [("to".to_owned(), Field::List)].into(),
        };
        [("payment".to_owned(), payment)].into()
    }

    fn read(value: Value) -> Result<Action, &'static str> {
        Action::read(&catalogue(), &value).map_err(|denial| denial.code)
    }

    fn payment(amount: &str) -> Action {
        read(json!({ "type": "payment", "amount": amount, "currency": "EUR" })).unwrap()
    }

    #[test]
    fn an_action_has_the_fields_of_its_type_and_no_others() {
        for wrong in [
            json!("payment"),
            json!({}),
            json!({ "type": "refund" }),
            json!({ "type": "payment", "amount": "1" }),
            json!({ "type": "payment", "amount": "1", "currency": "EUR", "more": "x" }),
            json!({ "type": "payment", "amount": 1, "currency": "EUR" }),
            json!({ "type": "payment", "amount": "-1", "currency": "EUR" }),
            json!({ "type": "payment", "amount": "1e3", "currency": "EUR" }),
            json!({ "type": "payment", "amount": "1.", "currency": "EUR" }),
            json!({ "type": "payment", "amount": "1234567890123456789", "currency": "EUR" }),
            json!({ "type": "payment", "amount": "1", "currency": "" }),
            json!({ "type": "payment", "amount": "1", "currency": "E\u{202e}UR" }),
            json!({ "type": "payment", "amount": "1", "currency": "EUR", "to": [] }),
            json!({ "type": "payment", "amount": "1", "currency": "EUR", "to": ["a", "a"] }),
        ] {
            assert_eq!(read(wrong.clone()), Err("ACTION_MALFORMED"), "{wrong}");
        }
        for text in ["{}", "[]", "[", "[1]", "null"] {
            assert_eq!(read_actions(&catalogue(), text).map_err(|d| d.code), Err("ACTION_MALFORMED"), "{text}");
        }
        assert_eq!(read_actions(&catalogue(), ""), Ok(vec![]));
    }

    #[test]
    fn one_action_has_one_canonical_form() {
        let forms = [
            r#"[{"type":"payment","amount":"10.00","currency":"EUR","to":["b","a"]}]"#,
            "[ { \"currency\" : \"\\u0045UR\", \"to\": [\"a\", \"b\"], \"type\":\"payment\",\n\"amount\":\"10.00\" } ]",
        ];
        for form in forms {
            let canonical = canonical(&read_actions(&catalogue(), form).unwrap());
            assert_eq!(canonical, r#"[{"amount":"10.00","currency":"EUR","to":["a","b"],"type":"payment"}]"#);
        }
    }

    #[test]
    fn what_the_outer_action_leaves_out_may_be_anything_and_what_it_has_may_not_be_left_out() {
        let with = |to: Value| read(json!({ "type": "payment", "amount": "1", "currency": "EUR", "to": to })).unwrap();
        let open = payment("1");
        assert!(with(json!(["a"])).within(&open) && !open.within(&with(json!(["a"]))));
        assert!(with(json!(["a"])).within(&with(json!(["a", "b"]))) && !with(json!(["a", "b"])).within(&with(json!(["a"]))));
        let other = read(json!({ "type": "payment", "amount": "1", "currency": "JPY" })).unwrap();
        assert!(!other.within(&open));
    }

    #[test]
    fn t180_one_approved_action_is_not_asked_for_twice() {
        let (five, ten) = (payment("5"), payment("10"));
        let approved = [ten.clone(), five.clone()];
        assert!(all_within(&[five.clone(), ten.clone()], &approved) && all_within(std::slice::from_ref(&ten), &approved));
        assert!(all_within(&[five.clone(), five.clone()], &approved) && all_within(&[], &approved));
        assert!(!all_within(&[ten.clone(), ten.clone()], &approved), "two payments where one of the two may be so large");
        assert!(!all_within(&[five.clone(), five.clone(), five], &approved));
        assert!(!all_within(&[ten.clone(), ten.clone()], &[ten]));
    }

    proptest! {
        /// T180: amounts are compared as numbers, however they are written.
        #[test]
        fn t180_a_larger_number_is_never_within_a_smaller_one(a in 0u64..1_000_000, b in 0u64..1_000_000, zeros in 0usize..4) {
            let written = |cents: u64| format!("{}{}.{:02}{}", "0".repeat(zeros), cents / 100, cents % 100, "0".repeat(zeros));
            prop_assert_eq!(payment(&written(a)).within(&payment(&format!("{}.{:02}", b / 100, b % 100))), a <= b);
        }
    }
}
