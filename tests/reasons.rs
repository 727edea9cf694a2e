//! The table of reason codes is what the code says: no code is missing, none is stale, and each has the kind that its call sites
//! show. The proto's enum and `agent-sdk/docs/reasons.md` follow the table; `MAYFLY_REGENERATE=1` writes the page.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

use mayfly_agent::api::v1::Reason;
use mayfly_agent::reason::{Entry, Kind, REASONS};

/// The issuer. Every code in upper case here is a reason, but for those in `OTHERS`.
const ISSUER: &str = "src";
/// What services say: why a credential is not valid, and the layer that refuses it.
const SERVICES: [&str; 2] = ["agent-sdk/src/delegation", "agent-sdk/verify/src/reject.rs"];
/// Names in upper case that no caller is told: labels of errors at start and in the development provider, and the environment.
const OTHERS: &[&str] = &[
    "CA_FILE_EMPTY",
    "CA_FILE_UNREADABLE",
    "DBUS_SESSION_BUS_ADDRESS",
    "ISSUER_ALGORITHMS",
    "ISSUER_AUDIENCES",
    "ISSUER_NAME",
    "ISSUER_TWICE",
    "ISSUER_URL",
    "MAYFLY_CONTEXT",
    "MAYFLY_HOME",
    "NOTIFY_SOCKET",
    "PROVIDER_REFUSED",
    "PROVIDER_UNREACHABLE",
    "SPIFFE_ENDPOINT_SOCKET",
    "SSH_AUTH_SOCK",
    "TLS_CLIENT",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "XDG_RUNTIME_DIR",
];
/// What stands before the name of an environment variable.
const ENVIRONMENT: &[&str] = &["env!(", "env::var(", "env::var_os(", "env =", "absolute(", ".env("];
/// A file whose names in upper case are variables of the SDKs of others.
const VARIABLES: &str = "src/run/presets.rs";
/// The last code of the first list: up to it the enum's numbers are in the order of the codes.
const FIRST_LIST: Reason = Reason::WorkloadUnknown;

/// A code where it is said.
struct Site {
    file: String,
    code: String,
    /// `None` where the constructor does not show it.
    kind: Option<Kind>,
}

#[test]
fn every_reason_is_in_the_table_and_none_is_stale() {
    let mut said = BTreeSet::new();
    for site in sites(ISSUER).into_iter().chain(SERVICES.into_iter().flat_map(sites)) {
        if Entry::of(&site.code).is_some() {
            said.insert(site.code);
            continue;
        }
        // One word alone may be anything, unless it is given to a denial.
        let may_be_anything = OTHERS.contains(&site.code.as_str()) || !site.code.contains('_');
        assert!(
            site.kind.is_none() && may_be_anything,
            "{}: `{}` is not in the table of reasons, `agent-sdk/src/reason/table.rs`",
            site.file,
            site.code
        );
    }
    for entry in REASONS {
        assert!(said.contains(entry.code), "nothing says `{}` any more: take it off the table", entry.code);
    }
    let sorted = REASONS.windows(2).all(|pair| pair.first().unwrap().code < pair.last().unwrap().code);
    assert!(sorted, "the table is searched by code, so it is sorted");
    assert!(OTHERS.iter().all(|other| Entry::of(other).is_none()));
}

#[test]
fn a_reason_has_the_kinds_that_its_call_sites_show() {
    let (mut shown, mut hidden) = (BTreeMap::<String, BTreeSet<String>>::new(), BTreeSet::new());
    for site in SERVICES.into_iter().flat_map(sites) {
        hidden.insert(site.code);
    }
    for Site { file, code, kind } in sites(ISSUER) {
        let Some(kind) = kind else {
            hidden.insert(code);
            continue;
        };
        let entry = Entry::of(&code).unwrap();
        assert!(entry.kinds.contains(&kind), "{file}: `{code}` is said as {kind}, and the table has {:?}", entry.kinds);
        shown.entry(code).or_default().insert(kind.to_string());
    }
    for (code, kinds) in shown.iter().filter(|(code, _)| !hidden.contains(*code)) {
        let listed: BTreeSet<String> = Entry::of(code).unwrap().kinds.iter().map(Kind::to_string).collect();
        assert_eq!(&listed, kinds, "`{code}` has a kind in the table that no call site shows");
    }
    assert!(shown.len() > 70, "only {} codes were seen with their kinds: the constructors have changed", shown.len());
}

#[test]
fn only_a_refusal_of_the_caller_itself_is_final() {
    for entry in REASONS.iter().filter(|entry| entry.is_final) {
        assert_eq!(entry.kinds.first(), Some(&Kind::Unauthenticated), "{}", entry.code);
    }
    for entry in REASONS {
        assert!(!entry.kinds.is_empty(), "{}", entry.code);
    }
}

#[test]
fn the_proto_has_every_reason_with_its_meaning() {
    let proto = fs::read_to_string("proto/mayfly/v1/mayfly.proto").unwrap();
    let text = proto.split("\nenum Reason {\n").nth(1).unwrap().split("\n}").next().unwrap();
    let mut expected = "  REASON_UNSPECIFIED = 0;".to_owned();
    let mut numbered = Vec::new();
    for entry in REASONS {
        let reason = Reason::from_str_name(&format!("REASON_{}", entry.code));
        assert!(reason.is_some(), "the proto's enum lacks `REASON_{}`, or the messages are not generated from it", entry.code);
        let reason = reason.unwrap();
        assert_eq!(reason.code(), entry.code);
        numbered.push((reason as i32, entry));
    }
    numbered.sort_by_key(|(number, _)| *number);
    for (number, entry) in &numbered {
        write!(expected, "\n  // {}\n  REASON_{} = {number};", entry.meaning, entry.code).unwrap();
    }
    let values: Vec<&str> = text.lines().filter(|line| !line.starts_with("  reserved ")).collect();
    for (found, expected) in values.iter().zip(expected.lines()) {
        assert_eq!(*found, expected, "the enum is not the table, by number and with each meaning as its comment");
    }
    assert_eq!(values.len(), expected.lines().count(), "the enum has a value that is not in the table");
    // A number never changes: a new code is put behind the last one, wherever it stands in the table.
    let first: Vec<&str> =
        numbered.iter().filter(|(number, _)| *number <= FIRST_LIST as i32).map(|(_, entry)| entry.code).collect();
    assert_eq!(FIRST_LIST as i32, 113);
    assert!(first.is_sorted(), "{first:?}");
}

#[test]
fn the_page_is_what_the_table_renders() {
    let page = Path::new("agent-sdk/docs/reasons.md");
    let rendered = render();
    if env::var_os("MAYFLY_REGENERATE").is_some_and(|v| v == "1") {
        fs::write(page, &rendered).unwrap();
    }
    assert!(
        fs::read_to_string(page).unwrap() == rendered,
        "`{}` is stale: run `MAYFLY_REGENERATE=1 cargo test --test reasons` and commit it",
        page.display()
    );
}

#[test]
fn sites_are_found_with_their_kinds() {
    let text = r#"
        return Err(Denial::denied("A_DENIED", message));
        Denial::new(
            Kind::NotFound,
            "A_MISSING",
            // Denial::denied("IN_A_COMMENT", x)
            format!("no `{name}`"),
        );
        Denial::new(DenialKind::Precondition, Reason::NotNow, message);
        let kind = Denial::new(kind, "OF_SOME_KIND", "a text with A_NAME inside");
        Err(unauthenticated("A_STRANGER", "TWO words"));
        Some(("IN_A_PAIR", "why"));
        std::env::var("NOT_A_CODE");
        #[cfg(test)]
        mod tests { fn x() { y("IN_A_TEST") } }
        Denial::malformed("A_SHAPE", "{");
    "#;
    let found: Vec<(String, Option<Kind>)> = codes(text);
    let expected = [
        ("A_DENIED", Some(Kind::Denied)),
        ("A_MISSING", Some(Kind::NotFound)),
        ("NOT_NOW", Some(Kind::Precondition)),
        ("OF_SOME_KIND", None),
        ("A_STRANGER", Some(Kind::Unauthenticated)),
        ("IN_A_PAIR", None),
        ("A_SHAPE", Some(Kind::Malformed)),
    ];
    assert_eq!(found, expected.map(|(code, kind)| (code.to_owned(), kind)));
}

fn render() -> String {
    let mut page = String::from(
        "# Reason codes

A denial has one of these codes as `reason` in `google.rpc.ErrorInfo`, with the domain `mayfly.v1`. The issuer sends them all,
except those whose meaning begins with \"From a service\": those are sent by services that verify agents, which also send the
codes that begin with `CREDENTIAL_`. A fault of the issuer is INTERNAL and has no code, and a stream that has begun may end with
a status that has none. Clients must expect codes that they do not know.

- **gRPC status**: the usual one first. If there are several, the code can be about the caller itself (UNAUTHENTICATED), about
  what the caller asks for, or about a change that came between the decision and the answer (PERMISSION_DENIED).
- **Who acts**: the *caller* sends another request; the *holder* of the identity or ticket gets a new one; the *user* signs in
  again; the *class owner* changes the class; the *operator* of the issuer or of the service changes something there; *nobody*
  means that the same request may succeed later.
- **Final**: a certificate that the issuer refuses as UNAUTHENTICATED with this code is refused for good, so the identity that
  holds it has ended. Under any other status the code ends nothing but the one request.

| code | gRPC status | meaning | who acts | final |
|---|---|---|---|---|
",
    );
    for entry in REASONS {
        let kinds: Vec<String> = entry.kinds.iter().map(Kind::to_string).collect();
        let is_final = if entry.is_final { "final" } else { "" };
        let (code, meaning, actor) = (entry.code, entry.meaning, entry.actor);
        writeln!(page, "| `{code}` | {} | {meaning} | {actor} | {is_final} |", kinds.join(", ")).unwrap();
    }
    page
}

/// Every code that a file says, or the code below a folder.
fn sites(dir: &str) -> Vec<Site> {
    let mut found = Vec::new();
    for (file, text) in sources(Path::new(dir)).into_iter().filter(|(file, _)| file != VARIABLES) {
        found.extend(codes(&text).into_iter().map(|(code, kind)| Site { file: file.clone(), code, kind }));
    }
    found
}

/// The string literals of a text that look like a code, and the kind where a constructor stands before the literal.
fn codes(text: &str) -> Vec<(String, Option<Kind>)> {
    let code = spelled_out(&without_comments(&without_tests(text)));
    let mut found = Vec::new();
    let mut parts = code.split('"').peekable();
    let mut before = String::new();
    while let (Some(part), Some(next)) = (parts.next(), parts.peek()) {
        before.push_str(part);
        let upper = next.starts_with(|c: char| c.is_ascii_uppercase())
            && next.len() > 3
            && next.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
        let context = before.trim_end();
        let variable = next.starts_with("MAYFLY_") || ENVIRONMENT.iter().any(|name| context.ends_with(name));
        if upper && !variable {
            found.push(((*next).to_owned(), kind_before(context)));
        }
        before.push('"');
    }
    found
}

fn kind_before(context: &str) -> Option<Kind> {
    match context {
        _ if context.ends_with("unauthenticated(") => Some(Kind::Unauthenticated),
        _ if context.ends_with("Denial::denied(") => Some(Kind::Denied),
        _ if context.ends_with("Denial::malformed(") => Some(Kind::Malformed),
        _ => {
            let (start, kind) = context.strip_suffix(',')?.rsplit_once("Kind::")?;
            start.trim_end().trim_end_matches("Denial").ends_with("::new(").then_some(())?;
            all_kinds().into_iter().find(|known| format!("{known:?}") == kind)
        }
    }
}

fn all_kinds() -> [Kind; 9] {
    [
        Kind::Malformed,
        Kind::Unauthenticated,
        Kind::Denied,
        Kind::NotFound,
        Kind::Conflict,
        Kind::Precondition,
        Kind::Exhausted,
        Kind::Deadline,
        Kind::Unavailable,
    ]
}

/// With each value of the proto's enum, such as `Reason::KeyInUse`, as the code that it stands for.
fn spelled_out(text: &str) -> String {
    let mut parts = text.split("Reason::");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(part.len());
        let (name, rest) = part.split_at(end);
        if !name.starts_with(|c: char| c.is_ascii_uppercase()) {
            write!(out, "Reason::{part}").unwrap();
            continue;
        }
        let mut code = String::new();
        for (at, letter) in name.char_indices() {
            if at > 0 && letter.is_ascii_uppercase() {
                code.push('_');
            }
            code.push(letter.to_ascii_uppercase());
        }
        write!(out, "\"{code}\"{rest}").unwrap();
    }
    out
}

fn without_comments(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with("//")).fold(String::new(), |code, line| code + line + "\n")
}

/// As in `tests/house.rs`: past each item of tests, to its semicolon or to the brace that closes it.
fn without_tests(text: &str) -> String {
    let mut parts = text.split("#[cfg(test)]");
    let mut code = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (semicolon, brace) = (part.find(';').unwrap_or(usize::MAX), part.find('{').unwrap_or(usize::MAX));
        if semicolon < brace {
            code.push_str(part.get(semicolon + 1..).unwrap());
            continue;
        }
        let mut depth = 0;
        let end = part.char_indices().find(|(_, c)| {
            depth += i32::from(*c == '{') - i32::from(*c == '}');
            *c == '}' && depth == 0
        });
        code.push_str(end.map_or("", |(at, _)| part.get(at + 1..).unwrap()));
    }
    code
}

/// A file with its text, or all files below a folder, without those that are tests alone.
fn sources(path: &Path) -> Vec<(String, String)> {
    if path.is_dir() {
        let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        return entries.filter(|p| p.file_stem().is_none_or(|name| name != "tests")).flat_map(|p| sources(&p)).collect();
    }
    let text = path.extension().filter(|e| *e == "rs").map(|_| fs::read_to_string(path).unwrap());
    text.into_iter().map(|text| (path.display().to_string(), text)).collect()
}
