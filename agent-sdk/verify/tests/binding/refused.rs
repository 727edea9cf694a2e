//! Encodings made to be believed: each differs from one that is accepted in its fault alone.

use mayfly_verify::{Binding, MAX_CLAIM, MAX_DER};
use serde_json::{Value, json};

use crate::accepted::{autonomous, below, delegated, largest_claim, largest_der};
use crate::tlv::{content, elements, tlv};

const MALFORMED: &str = "malformed";
const INCONSISTENT: &str = "inconsistent";
const TOO_LARGE: &str = "too_large";

// The places of a delegated binding's fields.
const VERSION: usize = 0;
const INCARNATION: usize = 1;
const REVISION: usize = 2;
const STAMPS: usize = 3;
const DELEGATION: usize = 4;
const USER: usize = 5;
const CHAIN: usize = 6;
const AUTONOMOUS: usize = 7;
const SCOPES: usize = 8;
const LEASE: usize = 9;

/// The DER of a delegated binding, whose fields were changed.
fn with(change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Vec<u8> {
    let mut fields = elements(content(&delegated().to_der().unwrap()));
    change(&mut fields);
    tlv(0x30, &fields.concat())
}

/// The claim of a delegated binding, that was changed.
fn claim_with(change: impl FnOnce(&mut Value)) -> Value {
    let mut claim = delegated().to_claim().unwrap();
    change(&mut claim);
    claim
}

fn set(at: usize, element: Vec<u8>) -> Vec<u8> {
    with(|fields| fields[at] = element)
}

fn chain_of(ids: &[&str]) -> Vec<u8> {
    tlv(0x30, &ids.iter().map(|id| tlv(0x0c, id.as_bytes())).collect::<Vec<_>>().concat())
}

fn user_of(iss: &str, sub: &str) -> Vec<u8> {
    tlv(0xa1, &tlv(0x30, &[tlv(0x0c, iss.as_bytes()), tlv(0x0c, sub.as_bytes())].concat()))
}

pub(crate) fn ders() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let good = delegated().to_der().unwrap();
    let root = "spiffe://td.example/workload/orchestrator";
    let agent = "spiffe://td.example/agent/worker/0190aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee";
    let shouting = agent.to_uppercase().replace("SPIFFE://TD.EXAMPLE/AGENT/WORKER", "spiffe://td.example/agent/worker");
    let eighteen = below(17);
    let long_id = format!("spiffe://td.example/{}", "a".repeat(2029));
    let subject = || tlv(4, &[1; 16]);
    let stamp = |fields: &[Vec<u8>]| tlv(0x30, &tlv(0x30, &fields.concat()));
    let mut found = vec![
        ("nothing", MALFORMED, vec![]),
        ("a byte after the end", MALFORMED, [good.as_slice(), &[0]].concat()),
        ("a whole element after the end", MALFORMED, [good.as_slice(), &[5, 0]].concat()),
        ("the last byte is missing", MALFORMED, good[..good.len() - 1].to_vec()),
        ("only the header", MALFORMED, good[..4].to_vec()),
        ("BER: a longer length than needed", MALFORMED, [&[0x30, 0x83, 0], &good[2..]].concat()),
        ("only half of its length", MALFORMED, good[..3].to_vec()),
        ("a length of 4 octets", MALFORMED, [&[0x30, 0x84, 0x7f, 0xff, 0xff, 0xff], content(&good)].concat()),
        ("a length of 8 octets", MALFORMED, [&[0x30, 0x88], &[0xff; 8][..], content(&good)].concat()),
        ("a length of 16 octets that is right in 64 bits", MALFORMED, [&[0x30, 0x90, 1], &[0; 13][..], &good[2..]].concat()),
        ("BER: a length with a zero before it", MALFORMED, with(|fields| drop(fields[STAMPS].splice(1..2, [0x82, 0])))),
        ("BER: an indefinite length", MALFORMED, [&[0x30, 0x80], content(&good), &[0, 0]].concat()),
        ("BER: a longer length than needed, inside", MALFORMED, set(INCARNATION, [&[4, 0x81, 16][..], &[7; 16]].concat())),
        ("BER: an octet string in parts", MALFORMED, set(INCARNATION, tlv(0x24, &[tlv(4, &[7; 8]), tlv(4, &[7; 8])].concat()))),
        ("BER: a padded integer", MALFORMED, set(REVISION, vec![2, 2, 0, 12])),
        ("BER: TRUE as 1", MALFORMED, set(AUTONOMOUS, vec![1, 1, 1])),
        ("a boolean of two octets", MALFORMED, set(AUTONOMOUS, vec![1, 2, 0, 0])),
        ("an integer without octets", MALFORMED, set(REVISION, vec![2, 0])),
        ("a negative revision", MALFORMED, set(REVISION, vec![2, 1, 0x80])),
        ("a revision over 64 bits", MALFORMED, set(REVISION, vec![2, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0])),
        ("a revision that is right in 64 bits", MALFORMED, set(REVISION, vec![2, 10, 1, 0, 0, 0, 0, 0, 0, 0, 0, 12])),
        ("a negative lease", MALFORMED, set(LEASE, vec![2, 1, 0xff])),
        ("a set for the sequence", MALFORMED, tlv(0x31, content(&good))),
        ("a tag of several octets", MALFORMED, set(INCARNATION, [&[0x1f, 0x84, 0x00, 16][..], &[7; 16]].concat())),
        ("version 0", MALFORMED, set(VERSION, vec![2, 1, 0])),
        ("version 2", MALFORMED, set(VERSION, vec![2, 1, 2])),
        ("version 257", MALFORMED, set(VERSION, vec![2, 2, 1, 1])),
        ("no version", MALFORMED, with(|fields| drop(fields.remove(VERSION)))),
        ("no incarnation", MALFORMED, with(|fields| drop(fields.remove(INCARNATION)))),
        ("no lease", MALFORMED, with(|fields| drop(fields.remove(LEASE)))),
        ("an incarnation of 15 octets", MALFORMED, set(INCARNATION, tlv(4, &[7; 15]))),
        ("an incarnation of 17 octets", MALFORMED, set(INCARNATION, tlv(4, &[7; 17]))),
        ("a subject of 15 octets", MALFORMED, set(STAMPS, stamp(&[tlv(4, &[1; 15]), vec![2, 1, 3]]))),
        ("a stamp without since", MALFORMED, set(STAMPS, stamp(&[subject()]))),
        ("an unknown field in a stamp", MALFORMED, set(STAMPS, stamp(&[subject(), vec![2, 1, 3], vec![5, 0]]))),
        ("an unknown field at the end", MALFORMED, with(|fields| fields.push(vec![2, 1, 1]))),
        ("an unknown tagged field", MALFORMED, with(|fields| fields.insert(CHAIN, tlv(0xa2, &[5, 0])))),
        ("a delegation of 31 octets", MALFORMED, set(DELEGATION, tlv(0xa0, &tlv(4, &[9; 31])))),
        ("an implicit tag", MALFORMED, set(DELEGATION, tlv(0x80, &[9; 32]))),
        (
            "something after the delegation in its tag",
            MALFORMED,
            set(DELEGATION, tlv(0xa0, &[tlv(4, &[9; 32]), vec![5, 0]].concat())),
        ),
        (
            "something after the user in its tag",
            MALFORMED,
            set(USER, tlv(0xa1, &[content(&user_of("https://idp.example", "demo")), &[5, 0]].concat())),
        ),
        ("BER: 128 in one octet", MALFORMED, set(SCOPES, [&[0x30, 0x80][..], &tlv(0x0c, &[b's'; 126])].concat())),
        ("the user before the delegation", MALFORMED, with(|fields| fields.swap(DELEGATION, USER))),
        ("the delegation twice", MALFORMED, with(|fields| fields.insert(USER, fields[DELEGATION].clone()))),
        (
            "an unknown field in the user",
            MALFORMED,
            set(USER, {
                tlv(0xa1, &tlv(0x30, &[tlv(0x0c, b"https://idp.example"), tlv(0x0c, b"demo"), tlv(0x0c, b"Demo")].concat()))
            }),
        ),
        ("a user without a subject", MALFORMED, set(USER, tlv(0xa1, &tlv(0x30, &tlv(0x0c, b"https://idp.example"))))),
        ("a PrintableString", MALFORMED, set(CHAIN, tlv(0x30, &tlv(0x13, root.as_bytes())))),
        ("text that is no UTF-8", MALFORMED, set(SCOPES, tlv(0x30, &tlv(0x0c, &[0xc0, 0xaf])))),
        ("a surrogate in UTF-8", MALFORMED, set(SCOPES, tlv(0x30, &tlv(0x0c, &[0xed, 0xa0, 0x80])))),
        ("no stamps", INCONSISTENT, set(STAMPS, vec![0x30, 0])),
        ("a stamp younger than the credential", INCONSISTENT, set(STAMPS, stamp(&[subject(), vec![2, 1, 13]]))),
        ("a subject twice", INCONSISTENT, subject_twice()),
        ("a delegation without a user", INCONSISTENT, with(|fields| drop(fields.remove(USER)))),
        ("a user without a delegation", INCONSISTENT, with(|fields| drop(fields.remove(DELEGATION)))),
        ("delegated, and neither user nor delegation", INCONSISTENT, with(|fields| drop(fields.drain(DELEGATION..=USER)))),
        ("autonomous for a user", INCONSISTENT, set(AUTONOMOUS, vec![1, 1, 0xff])),
        ("a user with an empty issuer", INCONSISTENT, set(USER, user_of("", "demo"))),
        ("a user with an empty subject", INCONSISTENT, set(USER, user_of("https://idp.example", ""))),
        ("scopes out of order", INCONSISTENT, set(SCOPES, chain_of(&["mail:send", "files:read"]))),
        ("a scope twice", INCONSISTENT, set(SCOPES, chain_of(&["mail:send", "mail:send"]))),
        ("too large by an octet", TOO_LARGE, too_large()),
    ];
    let chains: &[(&str, &[&str])] = &[
        ("an empty chain", &[]),
        ("a chain of 18", &eighteen.iter().map(String::as_str).collect::<Vec<_>>()),
        ("two workloads in the chain", &[root, root]),
        ("an agent below nobody", &[agent]),
        ("an agent's UUID in upper case", &[&shouting, root]),
        ("an agent's class with a dot", &["spiffe://td.example/agent/wor.ker/0190aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee", root]),
        ("an agent's path that goes on", &[&format!("{agent}/x"), root]),
        ("a chain of URLs", &["https://td.example/workload/orchestrator"]),
        ("a scheme in upper case", &["SPIFFE://td.example/workload/orchestrator"]),
        ("a trust domain in upper case", &["spiffe://TD.example/workload/orchestrator"]),
        ("a trust domain with a port", &["spiffe://td.example:443/workload/orchestrator"]),
        ("a trust domain of 256 characters", &[&format!("spiffe://{}/workload/orchestrator", "t".repeat(256))]),
        ("no trust domain", &["spiffe:///workload/orchestrator"]),
        ("a path with two dots", &["spiffe://td.example/workload/../orchestrator"]),
        ("a path with an empty segment", &["spiffe://td.example//orchestrator"]),
        ("a path with a slash at its end", &["spiffe://td.example/workload/orchestrator/"]),
        ("a path with a percent sign", &["spiffe://td.example/workload/%6frchestrator"]),
        ("a path with a line break at its end", &["spiffe://td.example/workload/orchestrator\n"]),
        ("a path with a digit of another script", &["spiffe://td.example/workload/\u{661}"]),
    ];
    found.extend(chains.iter().map(|(name, ids)| (*name, INCONSISTENT, set(CHAIN, chain_of(ids)))));
    found.push(("a SPIFFE ID of 2049 bytes", TOO_LARGE, set(CHAIN, chain_of(&[&long_id]))));
    found
}

fn subject_twice() -> Vec<u8> {
    with(|fields| {
        let stamps = elements(content(&fields[STAMPS]));
        let later = tlv(0x30, &[tlv(4, content(content(&stamps[0]))), vec![2, 1, 9]].concat());
        fields[STAMPS] = tlv(0x30, &[stamps.concat(), later].concat());
    })
}

// Well-formed in all but its length: its only scope is an octet longer than allowed.
fn too_large() -> Vec<u8> {
    let mut fields = elements(content(&largest_der().to_der().unwrap()));
    let text = [content(content(&fields[SCOPES])), b"s"].concat();
    fields[SCOPES] = tlv(0x30, &tlv(0x0c, &text));
    let der = tlv(0x30, &fields.concat());
    assert_eq!(der.len(), MAX_DER + 1);
    der
}

pub(crate) fn claims() -> Vec<(String, &'static str, Value)> {
    let mut found = vec![
        ("null".into(), MALFORMED, Value::Null),
        ("text".into(), MALFORMED, json!(hex::encode(delegated().to_der().unwrap()))),
        ("an object in a list".into(), MALFORMED, json!([claim_with(|_| ())])),
        ("an empty object".into(), MALFORMED, json!({})),
    ];
    let required = ["v", "incarnation", "revision", "stamps", "chain", "mode", "scopes", "lease_expires_at"];
    for field in required {
        found.push((format!("no {field}"), MALFORMED, claim_with(|c| drop(c.as_object_mut().unwrap().remove(field)))));
        found.push((format!("{field} is null"), MALFORMED, claim_with(|c| c[field] = Value::Null)));
    }
    let set = |field: &'static str, value: Value| claim_with(|c| c[field] = value);
    let subject = "01".repeat(16);
    for (name, field, value) in [
        ("an unknown field", "email", json!("demo@idp.example")),
        ("the version under another name", "version", json!(1)),
        ("version 2", "v", json!(2)),
        ("version 257", "v", json!(257)),
        ("the version as text", "v", json!("1")),
        ("the version with a point", "v", json!(1.0)),
        ("the version as truth", "v", json!(true)),
        ("a negative revision", "revision", json!(-1)),
        ("a revision as text", "revision", json!("12")),
        ("a revision with a point", "revision", json!(12.0)),
        ("a revision with a fraction", "revision", json!(12.5)),
        ("a revision over 64 bits", "revision", json!(18_446_744_073_709_551_616_f64)),
        ("a revision as truth", "revision", json!(true)),
        ("a lease as text", "lease_expires_at", json!("2027-01-15T08:00:00Z")),
        ("a lease with an exponent", "lease_expires_at", json!(1e300)),
        ("an incarnation that is no UUID", "incarnation", json!("0190aaaa-0000-7000-8000-00000000000g")),
        ("an incarnation that is too short", "incarnation", json!("0190aaaa-0000-7000-8000-00000000000")),
        ("an incarnation with hyphens elsewhere", "incarnation", json!("0190aaaa0-000-7000-8000-000000000001")),
        ("an incarnation as number", "incarnation", json!(1)),
        ("an incarnation in upper case", "incarnation", json!("0190AAAA-0000-7000-8000-000000000001")),
        ("an incarnation without hyphens", "incarnation", json!("0190aaaa000070008000000000000001")),
        ("an incarnation in braces", "incarnation", json!("{0190aaaa-0000-7000-8000-000000000001}")),
        ("an incarnation as URN", "incarnation", json!("urn:uuid:0190aaaa-0000-7000-8000-000000000001")),
        ("stamps as an object", "stamps", json!({ subject.as_str(): 3 })),
        ("a stamp as an object", "stamps", json!([{ "subject": subject, "since": 3 }])),
        ("a stamp without since", "stamps", json!([[subject]])),
        ("a stamp of three", "stamps", json!([[subject, 3, 4]])),
        ("a stamp the other way round", "stamps", json!([[3, subject]])),
        ("a subject of 15 bytes", "stamps", json!([["01".repeat(15), 3]])),
        ("a subject of 17 bytes", "stamps", json!([["01".repeat(17), 3]])),
        ("a subject that is no hex", "stamps", json!([["0g".repeat(16), 3]])),
        ("a subject in upper case", "stamps", json!([["AB".repeat(16), 3]])),
        ("a subject with spaces", "stamps", json!([[format!("{} ", "01".repeat(16)), 3]])),
        ("a negative since", "stamps", json!([[subject, -3]])),
        ("a since with a point", "stamps", json!([[subject, 3.0]])),
        ("a delegation in upper case", "delegation_id", json!("0A".repeat(32))),
        ("a delegation of 31 bytes", "delegation_id", json!("09".repeat(31))),
        ("a delegation as number", "delegation_id", json!(9)),
        ("a user as text", "user", json!("demo")),
        ("a user as a list", "user", json!(["https://idp.example", "demo"])),
        ("a user without a subject", "user", json!({ "iss": "https://idp.example" })),
        (
            "a user with an e-mail address",
            "user",
            json!({ "iss": "https://idp.example", "sub": "demo", "email": "demo@idp.example" }),
        ),
        ("a user whose subject is a number", "user", json!({ "iss": "https://idp.example", "sub": 7 })),
        ("a chain as text", "chain", json!("spiffe://td.example/workload/orchestrator")),
        ("a number in the chain", "chain", json!([7])),
        ("an unknown mode", "mode", json!("root")),
        ("a mode in upper case", "mode", json!("Delegated")),
        ("a mode as truth", "mode", json!(false)),
        ("a mode as an object", "mode", json!({ "delegated": null })),
        ("scopes as text", "scopes", json!("files:read mail:send")),
        ("null among the scopes", "scopes", json!(["files:read", null])),
    ] {
        found.push((name.into(), MALFORMED, set(field, value)));
    }
    for (name, field, value) in [
        ("no stamps at all", "stamps", json!([])),
        ("a stamp younger than the credential", "stamps", json!([[subject, 13]])),
        ("a user with an empty subject", "user", json!({ "iss": "https://idp.example", "sub": "" })),
        ("an empty chain", "chain", json!([])),
        ("a chain of 18", "chain", json!(below(17))),
        ("two workloads in the chain", "chain", json!(["spiffe://td.example/workload/a", "spiffe://td.example/workload/b"])),
        ("a chain of URLs", "chain", json!(["https://td.example/workload/a"])),
        ("a SPIFFE ID of 2049 bytes", "chain", json!([format!("spiffe://td.example/{}", "a".repeat(2029))])),
        ("autonomous for a user", "mode", json!("autonomous")),
        ("scopes out of order", "scopes", json!(["mail:send", "files:read"])),
        ("a scope twice", "scopes", json!(["mail:send", "mail:send"])),
    ] {
        found.push((name.into(), INCONSISTENT, set(field, value)));
    }
    let twice = |c: &mut Value| {
        let again = json!([c["stamps"][0][0], 9]);
        c["stamps"].as_array_mut().unwrap().push(again);
    };
    found.push(("a subject twice".into(), INCONSISTENT, claim_with(twice)));
    let drop_field = |field: &str| claim_with(|c| drop(c.as_object_mut().unwrap().remove(field)));
    found.push(("a user without a delegation".into(), INCONSISTENT, drop_field("delegation_id")));
    found.push(("a delegation without a user".into(), INCONSISTENT, drop_field("user")));
    let nobody: Binding = autonomous();
    let mut claim = nobody.to_claim().unwrap();
    claim["mode"] = json!("delegated");
    found.push(("delegated, and neither user nor delegation".into(), INCONSISTENT, claim));
    for field in ["user", "delegation_id"] {
        let mut claim = nobody.to_claim().unwrap();
        claim[field] = Value::Null;
        found.push((format!("{field} is null for what is absent"), MALFORMED, claim));
    }
    found.push(("the claim as a list".into(), MALFORMED, listed(&delegated().to_claim().unwrap())));
    let mut large = largest_claim().to_claim().unwrap();
    large["user"]["sub"] = json!(format!("{}s", large["user"]["sub"].as_str().unwrap()));
    assert_eq!(large.to_string().len(), MAX_CLAIM + 1);
    found.push(("too large by a byte".into(), TOO_LARGE, large));
    found
}

// In the order in which a reader that takes lists for objects would want them.
fn listed(claim: &Value) -> Value {
    let order =
        ["v", "incarnation", "revision", "stamps", "delegation_id", "user", "chain", "mode", "scopes", "lease_expires_at"];
    order.iter().map(|field| claim[*field].clone()).collect()
}
