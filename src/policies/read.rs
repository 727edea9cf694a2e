//! Reads a set of policies from a folder or from texts. Every fault is reported with its file and line, not only the first.

use std::collections::HashMap;
use std::path::Path;

use cedar_policy::{ActionConstraint, Effect, PolicyId};
use serde::Deserialize;
use time::Date;
use time::format_description::well_known::Iso8601;

use super::ask::Action;
use super::set::{Default, Policy};
use super::text::{Statement, statements};
use super::{Policies, SET};

/// Most bytes of all texts of a set.
const BYTES: u64 = 1 << 20;
/// Most policies of a set.
const POLICIES: usize = 10_000;
/// Most levels of a policy ([`Statement::levels`]): Cedar recurses into them, and a thread whose stack overflows ends the process.
const LEVELS: usize = 300;
/// Most bytes of an annotation.
const ANNOTATION: usize = 512;

/// A policy in our form and in Cedar's.
pub(super) type Read = (Policy, cedar_policy::Policy);

/// `set.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfSet {
    default: String,
    owner: Option<String>,
    reason: Option<String>,
}

/// The texts of a folder: each `*.cedar` file and `set.toml`, by name in order, each with its name below the folder.
pub(super) fn folder(dir: &Path) -> Result<Vec<(String, String)>, Vec<String>> {
    let fault = |at: &Path, e: &dyn std::fmt::Display| vec![format!("{}: {e}", at.display())];
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|e| fault(dir, &e))? {
        let path = entry.map_err(|e| fault(dir, &e))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if name == SET || path.extension().is_some_and(|ending| ending == "cedar") {
            files.push((name, path));
        }
    }
    files.sort();
    let mut bytes = 0;
    let mut texts = Vec::new();
    for (name, path) in files {
        let about = std::fs::metadata(&path).map_err(|e| fault(&path, &e))?;
        bytes += about.len();
        if !about.is_file() || bytes > BYTES {
            let what = if about.is_file() { "a set of policies has at most 1 MiB of text" } else { "it is no file" };
            return Err(fault(&path, &what));
        }
        texts.push((name, std::fs::read_to_string(&path).map_err(|e| fault(&path, &e))?));
    }
    if !texts.iter().any(|(name, _)| name != SET) {
        return Err(fault(dir, &"there is no file that ends with `.cedar`"));
    }
    Ok(texts)
}

/// The policies in texts, and the default decision.
pub(super) fn texts(texts: &[(String, String)]) -> Result<(Vec<Read>, Default), Vec<String>> {
    let (mut faults, mut found, mut default) = (Vec::new(), Vec::<Read>::new(), Default::Permit);
    let bytes: usize = texts.iter().map(|(_, text)| text.len()).sum();
    if u64::try_from(bytes).unwrap_or(u64::MAX) > BYTES {
        return Err(vec!["a set of policies has at most 1 MiB of text".to_owned()]);
    }
    let mut known = HashMap::<String, String>::new();
    for (file, text) in texts {
        if file == SET {
            match of_set(text) {
                Ok(of) => default = of,
                Err(e) => faults.push(format!("{file}: {e}")),
            }
            continue;
        }
        for Statement { text, line, levels } in statements(text) {
            if found.len() == POLICIES {
                return Err(vec![format!("{file}:{line}: a set has at most {POLICIES} policies")]);
            }
            if levels > LEVELS {
                let what = "the policy has more than 300 brackets and operators, where an `if` counts for 20: write several";
                faults.push(format!("{file}:{line}: {what}"));
                continue;
            }
            match policy(file, line, text) {
                Ok((policy, _)) if known.contains_key(&policy.id) => {
                    let before = known.get(&policy.id).map_or("", String::as_str);
                    faults.push(format!("{file}:{line}: `{}` is already the id of a policy in {before}", policy.id));
                }
                Ok(made) => {
                    known.insert(made.0.id.clone(), made.0.file.clone());
                    found.push(made);
                }
                Err(all) => faults.extend(all.into_iter().map(|e| format!("{file}:{line}: {e}"))),
            }
        }
    }
    if faults.is_empty() { Ok((found, default)) } else { Err(faults) }
}

/// Reads one policy. The error holds all of its faults.
fn policy(file: &str, line: usize, text: &str) -> Result<Read, Vec<String>> {
    let parsed = cedar_policy::Policy::parse(None, text).map_err(|e| e.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let mut faults = Vec::new();
    let mut required = |name: &str| annotation(&parsed, name).map_err(|e| faults.push(e)).unwrap_or_default();
    let (id, owner, reason) = (required("id"), required("owner"), required("reason"));
    let mut optional = |name: &str| parsed.annotation(name).map(|_| required(name));
    let (contact, review) = (optional("contact"), optional("review"));
    if !id.is_empty() && (id.len() > 64 || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))) {
        faults.push(format!("`{id}`: an id has 1 to 64 letters, digits, `.`, `_` and `-`"));
    }
    if let Some(review) = review.as_deref().filter(|review| Date::parse(review, &Iso8601::DATE).is_err()) {
        faults.push(format!("`@review(\"{review}\")`: write a date such as `2027-01-31`"));
    }
    let about: Vec<String> = match parsed.action_constraint() {
        ActionConstraint::Any => Vec::new(),
        ActionConstraint::Eq(action) => vec![action.id().unescaped().to_owned()],
        ActionConstraint::In(actions) => actions.iter().map(|action| action.id().unescaped().to_owned()).collect(),
    };
    let judged = |action: &String| Action::JUDGED.iter().any(|judged| judged.as_str() == *action);
    // An action that is not in the schema is reported by validation.
    let known = |action: &String| Action::ALL.iter().any(|known| known.as_str() == *action);
    if !about.is_empty() && about.iter().all(known) && !about.iter().any(judged) {
        faults.push(format!("no act asks for `{}` yet: the policy would never apply", about.join("`, `")));
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let forbids = parsed.effect() == Effect::Forbid;
    let parsed = parsed.new_id(PolicyId::new(&id));
    Ok((Policy { id, owner, reason, review, contact, file: file.to_owned(), line, forbids, text: text.to_owned() }, parsed))
}

/// The value of a mandatory annotation.
fn annotation(policy: &cedar_policy::Policy, name: &str) -> Result<String, String> {
    match policy.annotation(name).map(str::trim) {
        None | Some("") => Err(format!("the policy has no `@{name}(\"…\")`: {}", why(name))),
        Some(value) if value.len() > ANNOTATION || value.chars().any(char::is_control) => {
            Err(format!("`@{name}` has at most {ANNOTATION} bytes, and no control characters"))
        }
        Some(value) => Ok(value.to_owned()),
    }
}

fn why(name: &str) -> &'static str {
    match name {
        "owner" => "say who answers for it",
        "reason" => "say why it is there, for those whom it stops",
        _ => "a denial names the policy by it",
    }
}

fn of_set(text: &str) -> Result<Default, String> {
    let of: OfSet = toml::from_str(text).map_err(|e| e.to_string().trim_end().replace('\n', "\n  "))?;
    let said = |value: Option<String>| value.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
    match (of.default.as_str(), said(of.owner), said(of.reason)) {
        ("permit", ..) => Ok(Default::Permit),
        ("deny", Some(owner), Some(reason)) => Ok(Default::Deny { owner, reason }),
        ("deny", ..) => Err("`default = \"deny\"` needs an `owner` and a `reason` as each policy does".to_owned()),
        _ => Err("write `default = \"permit\"` or `default = \"deny\"`".to_owned()),
    }
}

impl Policies {
    /// Reads and validates the set in a folder. The error holds every fault, one sentence each, with file and line.
    pub fn load(dir: &Path) -> Result<Policies, Vec<String>> {
        let within =
            |faults: Vec<String>| faults.into_iter().map(|fault| dir.join(fault).display().to_string()).collect::<Vec<_>>();
        Policies::of_texts(folder(dir)?).map_err(within)
    }
}
