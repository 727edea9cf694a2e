//! Printing: JSON for programs, lines for people.

pub(super) mod agent;
pub(super) mod approval;
pub(super) mod authority;
pub(super) mod delegation;
pub(super) mod entry;
pub(super) mod table;
pub(super) mod user;

use std::io::{ErrorKind, Write};

use prost_types::Timestamp;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::exit::{FAILURE, Failure};
use crate::telemetry::escaped;

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    #[value(alias = "table")]
    Text,
    Json,
}

/// Prints text of our own to stdout as it is. It is no failure when the reader has closed the pipe.
pub(super) fn line(text: &str) -> Result<(), Failure> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Failure::new(FAILURE, e.to_string())),
        _ => Ok(()),
    }
}

/// Text for people. It contains text of others, so each line is escaped when it is printed, and a text of one line stays one.
pub(super) struct Text(Vec<String>);

impl From<String> for Text {
    fn from(line: String) -> Text {
        Text(vec![line])
    }
}

impl From<Vec<String>> for Text {
    fn from(lines: Vec<String>) -> Text {
        Text(lines)
    }
}

impl Text {
    fn escaped(&self) -> String {
        self.0.iter().map(|line| escaped(line)).collect::<Vec<_>>().join("\n")
    }
}

/// Prints the result of a command: an object over several lines, or its text.
pub(super) fn print<T: Into<Text>>(format: Format, object: &Value, text: impl FnOnce() -> T) -> Result<(), Failure> {
    match format {
        Format::Json => line(&serde_json::to_string_pretty(object).map_err(|e| e.to_string())?),
        Format::Text => line(&text().into().escaped()),
    }
}

/// Prints one of many results: an object on one line, or its text.
pub(super) fn print_one(format: Format, object: &Value, text: impl FnOnce() -> String) -> Result<(), Failure> {
    match format {
        Format::Json => line(&object.to_string()),
        Format::Text => line(&escaped(&text())),
    }
}

/// The same without buffering. Returns `false` if the pipe is closed, so that a long output can stop.
pub(super) fn print_unless_closed(format: Format, object: &Value, text: impl FnOnce() -> String) -> Result<bool, Failure> {
    let line = if format == Format::Json { object.to_string() } else { escaped(&text()) };
    let mut out = std::io::stdout();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(Failure::new(FAILURE, e.to_string())),
    }
}

/// The fields of an object, one line each. A user is as `--user` takes one.
pub(super) fn fields(object: &Value) -> Vec<String> {
    let user_name = object.get("user_name");
    let fields = object.as_object().into_iter().flatten().filter(|(name, _)| *name != "user_name");
    fields.map(|(name, value)| format!("{name:<17} {}", text(user_name.filter(|_| name == "user").unwrap_or(value)))).collect()
}

/// A value for people.
fn text(value: &Value) -> String {
    let user = |value: &Value| Some(format!("{}/{}", value.get("iss")?.as_str()?, value.get("sub")?.as_str()?));
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) if items.iter().all(Value::is_string) => items.iter().map(text).collect::<Vec<_>>().join(" "),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        other => user(other).unwrap_or_else(|| other.to_string()),
    }
}

pub(super) use crate::clock::rfc3339 as time;

/// RFC 3339 of a timestamp with its microseconds; empty if it is absent.
pub(super) fn precise_timestamp(at: Option<&Timestamp>) -> String {
    let at = at.and_then(|at| {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanos)).ok()
    });
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
}

/// RFC 3339 of a timestamp; 1970-01-01T00:00:00Z if it is absent.
pub(super) fn timestamp(at: Option<&Timestamp>) -> String {
    time(at.and_then(|at| u64::try_from(at.seconds).ok()).unwrap_or(0))
}

/// RFC 3339 of a timestamp; `None` if it is absent.
pub(super) fn optional_timestamp(at: Option<&Timestamp>) -> Option<String> {
    at.map(|at| timestamp(Some(at)))
}

/// Adds a field to an object.
pub(super) fn insert(object: &mut Value, name: &str, value: impl Into<Value>) {
    if let Some(map) = object.as_object_mut() {
        map.insert(name.to_owned(), value.into());
    }
}

/// One line for each item, or what to say when there are none.
pub(super) fn lines<T>(items: &[T], none: &str, line: impl Fn(&T) -> String) -> Vec<String> {
    if items.is_empty() {
        return vec![none.to_owned()];
    }
    items.iter().map(line).collect()
}
