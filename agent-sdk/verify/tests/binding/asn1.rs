//! The ASN.1 module in the documentation is what the crate encodes: its text drives a decoder of its own.

use std::collections::BTreeMap;

use mayfly_verify::{Binding, BindingOid, DelegationId, MAX_CHAIN, Mode, Target, User, sha256};
use uuid::Uuid;

use crate::{accepted, tlv};

const DOCUMENT: &str = include_str!("../../binding.md");

#[test]
fn what_the_crate_encodes_is_what_the_module_describes() {
    let module = Module::parse(&fenced("asn1"));
    for (name, binding) in accepted::bindings() {
        let der = binding.to_der().unwrap();
        let mut seen = Vec::new();
        let rest = module.walk("Binding", "", &der, &mut seen);
        assert!(rest.is_empty(), "{name}: bytes after the end");
        assert_eq!(seen, told(&binding), "{name}");
    }
}

/// Against a decoder that is wrong in the same way as the module: tags and lengths by hand.
#[test]
fn a_small_binding_has_these_bytes() {
    let mut binding = accepted::delegated();
    binding.stamps.truncate(1);
    let subject = hex::encode(binding.stamps[0].subject.0);
    let expected = [
        "3081c3",                                                                         // Binding
        "020101",                                                                         // version
        "04100190aaaa000070008000000000000001",                                           // incarnation
        "02010c",                                                                         // revision
        &format!("301730150410{subject}020103"),                                          // stamps
        &format!("a0220420{}", "09".repeat(32)),                                          // delegation
        "a11d301b0c1368747470733a2f2f6964702e6578616d706c650c0464656d6f",                 // user
        &format!("302b0c29{}", hex::encode("spiffe://td.example/workload/orchestrator")), // chain
        "010100",                                                                         // autonomous
        "30170c0a66696c65733a726561640c096d61696c3a73656e64",                             // scopes
        "02046b49d200",                                                                   // leaseExpiresAt
    ];
    assert_eq!(hex::encode(binding.to_der().unwrap()), expected.concat());
}

#[test]
fn the_example_of_a_claim_is_one() {
    let claim = serde_json::from_str(&fenced("json")).unwrap();
    assert_eq!(Binding::from_claim(&claim).unwrap().to_claim().unwrap(), claim);
}

#[test]
fn every_field_stands_in_the_table_and_the_bounds_are_the_crates() {
    let mut claim = accepted::delegated().to_claim().unwrap();
    claim.sort_all_objects();
    let module = Module::parse(&fenced("asn1"));
    let Type::Sequence(fields) = &module.0["Binding"] else { panic!("no sequence") };
    let rows: Vec<Vec<&str>> = DOCUMENT.lines().filter(|l| l.starts_with("| `")).map(|l| l.split('`').collect()).collect();
    let mut claimed: Vec<&str> = rows.iter().map(|row| row[3]).collect();
    assert_eq!(rows.iter().map(|row| row[1]).collect::<Vec<_>>(), fields.iter().map(|f| f.name.as_str()).collect::<Vec<_>>());
    claimed.sort_unstable();
    assert_eq!(claimed, claim.as_object().unwrap().keys().collect::<Vec<_>>());
    assert!(fenced("asn1").contains(&format!("(1..{MAX_CHAIN})) OF SpiffeId")));
    assert!(fenced("asn1").contains(&format!("::= {{ {} }}", BindingOid::default().to_string().replace('.', " "))));
}

#[test]
fn a_subject_is_the_digest_that_the_documentation_says() {
    let user = User { iss: "https://idp.example".into(), sub: "demo".into() };
    let foreign = "spiffe://spire.example.org/ns/x";
    let uuid = Uuid::from_u128(5);
    for (target, kind, parts) in [
        (Target::User(user), 1u8, vec!["https://idp.example".as_bytes(), b"demo"]),
        (Target::Delegation(DelegationId([9; 32])), 2, vec![&[9; 32]]),
        (Target::Agent(uuid), 3, vec![uuid.as_bytes()]),
        (Target::Class("worker".parse().unwrap()), 4, vec![b"worker"]),
        (Target::Workload("orchestrator".parse().unwrap()), 5, vec![b"orchestrator"]),
        (Target::Workload(foreign.parse().unwrap()), 5, vec![foreign.as_bytes()]),
        (Target::TrustDomain, 6, vec![]),
        (Target::Key([7; 32]), 7, vec![&[7; 32]]),
        (Target::Authority(vec![8; 20]), 8, vec![&[8; 20]]),
        (Target::Token("t-1".into()), 9, vec![b"t-1"]),
        (Target::Issuer("https://idp.example".into()), 10, vec![b"https://idp.example"]),
    ] {
        let mut text = b"mayfly subject v1\0".to_vec();
        text.push(kind);
        for part in parts {
            text.extend(u64::try_from(part.len()).unwrap().to_be_bytes());
            text.extend(part);
        }
        assert_eq!(target.unsalted().0, sha256(&text)[..16], "{target:?}");
        assert!(DOCUMENT.contains(&format!("\n| {kind} | ")), "{target:?} is not documented");
    }
}

fn fenced(language: &str) -> String {
    let (_, from) = DOCUMENT.split_once(&format!("```{language}\n")).unwrap();
    from.split("```").next().unwrap().to_owned()
}

/// What the walk must come by, in this order.
fn told(binding: &Binding) -> Vec<(String, String)> {
    let mut told = vec![
        (".version".into(), "1".into()),
        (".incarnation".into(), hex::encode(binding.incarnation.as_bytes())),
        (".revision".into(), binding.revision.to_string()),
    ];
    for stamp in &binding.stamps {
        told.push((".stamps.subject".into(), hex::encode(stamp.subject.0)));
        told.push((".stamps.since".into(), stamp.since.to_string()));
    }
    told.extend(binding.delegation.map(|id| (".delegation".into(), hex::encode(id.0))));
    if let Some(user) = &binding.user {
        told.push((".user.iss".into(), user.iss.clone()));
        told.push((".user.sub".into(), user.sub.clone()));
    }
    told.extend(binding.chain.iter().map(|id| (".chain".into(), id.clone())));
    told.push((".autonomous".into(), (binding.mode == Mode::Autonomous).to_string()));
    told.extend(binding.scopes.iter().map(|scope| (".scopes".into(), scope.clone())));
    told.push((".leaseExpiresAt".into(), binding.lease_expires_at.to_string()));
    told
}

/// The assignments of the module, by name.
struct Module(BTreeMap<String, Type>);

struct Field {
    name: String,
    tag: Option<u8>,
    of: Type,
    optional: bool,
}

enum Type {
    Sequence(Vec<Field>),
    SequenceOf(Bounds, Box<Type>),
    Octets(Bounds),
    Text(Bounds),
    Integer(Bounds),
    Boolean,
    Named(String),
}

/// Lowest and highest.
#[derive(Clone, Copy)]
struct Bounds(u64, u64);

impl Bounds {
    const ANY: Bounds = Bounds(0, u64::MAX);

    fn hold(self, path: &str, n: usize) {
        self.hold_u64(path, u64::try_from(n).unwrap());
    }

    fn hold_u64(self, path: &str, n: u64) {
        assert!(self.0 <= n && n <= self.1, "{path}: {n} is not within {}..{}", self.0, self.1);
    }
}

impl Module {
    fn parse(text: &str) -> Module {
        let body = text.split_once("DEFINITIONS EXPLICIT TAGS ::= BEGIN").unwrap().1.split("END").next().unwrap();
        let spaced: String = body.chars().flat_map(|c| if "{}(),[]".contains(c) { vec![' ', c, ' '] } else { vec![c] }).collect();
        let words: Vec<&str> = spaced.split_whitespace().collect();
        let mut words = words.as_slice();
        let mut types = BTreeMap::new();
        while let [name, next @ ..] = words {
            if let ["OBJECT", "IDENTIFIER", ..] = next {
                words = &words[words.iter().position(|w| *w == "}").unwrap() + 1..];
                continue;
            }
            let ["::=", of @ ..] = next else { panic!("`{name}` is assigned nothing") };
            let (of, rest) = Type::parse(of);
            types.insert((*name).to_owned(), of);
            words = rest;
        }
        Module(types)
    }

    /// Reads one element of the named type off `der`, notes what is told, and gives what stands behind it.
    fn walk<'a>(&self, name: &str, path: &str, der: &'a [u8], seen: &mut Vec<(String, String)>) -> &'a [u8] {
        self.read(&Type::Named(name.into()), path, der, seen)
    }

    fn read<'a>(&self, of: &Type, path: &str, der: &'a [u8], seen: &mut Vec<(String, String)>) -> &'a [u8] {
        let mut note = |value: String| seen.push((path.to_owned(), value));
        match of {
            Type::Named(name) => self.read(&self.0[name], path, der, seen),
            Type::Sequence(fields) => {
                let (mut inside, rest) = take(0x30, path, der);
                for field in fields {
                    let path = format!("{path}.{}", field.name);
                    if field.optional && inside[0] != field.tag.unwrap() {
                        continue;
                    }
                    inside = match field.tag {
                        None => self.read(&field.of, &path, inside, seen),
                        Some(tag) => {
                            let (tagged, behind) = take(tag, &path, inside);
                            assert!(self.read(&field.of, &path, tagged, seen).is_empty(), "{path}");
                            behind
                        }
                    };
                }
                assert!(inside.is_empty(), "{path}: more fields than the module names");
                rest
            }
            Type::SequenceOf(bounds, item) => {
                let (mut inside, rest) = take(0x30, path, der);
                let mut count = 0;
                while !inside.is_empty() {
                    inside = self.read(item, path, inside, seen);
                    count += 1;
                }
                bounds.hold(path, count);
                rest
            }
            Type::Octets(bounds) => {
                let (octets, rest) = take(0x04, path, der);
                bounds.hold(path, octets.len());
                note(hex::encode(octets));
                rest
            }
            Type::Text(bounds) => {
                let (octets, rest) = take(0x0c, path, der);
                let text = std::str::from_utf8(octets).unwrap();
                bounds.hold(path, text.chars().count());
                note(text.to_owned());
                rest
            }
            Type::Integer(bounds) => {
                let (octets, rest) = take(0x02, path, der);
                let value = octets.iter().fold(0u128, |n, octet| n << 8 | u128::from(*octet));
                assert!(octets[0] < 0x80, "{path} is negative");
                bounds.hold_u64(path, u64::try_from(value).unwrap());
                note(value.to_string());
                rest
            }
            Type::Boolean => {
                let (octets, rest) = take(0x01, path, der);
                note((octets == [0xff]).to_string());
                rest
            }
        }
    }
}

impl Type {
    fn parse<'a>(words: &'a [&'a str]) -> (Type, &'a [&'a str]) {
        match words {
            ["SEQUENCE", "{", rest @ ..] => {
                let (mut fields, mut words) = (Vec::new(), rest);
                loop {
                    let (field, rest) = Field::parse(words);
                    fields.push(field);
                    match rest {
                        [",", rest @ ..] => words = rest,
                        ["}", rest @ ..] => return (Type::Sequence(fields), rest),
                        _ => panic!("a sequence does not end: {rest:?}"),
                    }
                }
            }
            ["SEQUENCE", rest @ ..] => {
                let (bounds, rest) = size(rest);
                let ["OF", rest @ ..] = rest else { panic!("a sequence of nothing: {rest:?}") };
                let (item, rest) = Type::parse(rest);
                (Type::SequenceOf(bounds, Box::new(item)), rest)
            }
            ["OCTET", "STRING", rest @ ..] => {
                let (bounds, rest) = size(rest);
                (Type::Octets(bounds), rest)
            }
            ["UTF8String", rest @ ..] => {
                let (bounds, rest) = size(rest);
                (Type::Text(bounds), rest)
            }
            ["INTEGER", "(", range, ")", rest @ ..] => (Type::Integer(bounds(range)), rest),
            ["BOOLEAN", rest @ ..] => (Type::Boolean, rest),
            [name, rest @ ..] => (Type::Named((*name).to_owned()), rest),
            [] => panic!("the module ends within a type"),
        }
    }
}

impl Field {
    fn parse<'a>(words: &'a [&'a str]) -> (Field, &'a [&'a str]) {
        let [name, rest @ ..] = words else { panic!("the module ends within a sequence") };
        let (tag, rest) = match rest {
            // Context-specific, and constructed because explicit.
            ["[", number, "]", rest @ ..] => (Some(0xa0 + number.parse::<u8>().unwrap()), rest),
            rest => (None, rest),
        };
        let (of, rest) = Type::parse(rest);
        let (optional, rest) = match rest {
            ["OPTIONAL", rest @ ..] => (true, rest),
            rest => (false, rest),
        };
        (Field { name: (*name).to_owned(), tag, of, optional }, rest)
    }
}

fn size<'a>(words: &'a [&'a str]) -> (Bounds, &'a [&'a str]) {
    match words {
        ["(", "SIZE", "(", range, ")", ")", rest @ ..] => (bounds(range), rest),
        rest => (Bounds::ANY, rest),
    }
}

fn bounds(range: &str) -> Bounds {
    let number = |s: &str| if s == "MAX" { u64::MAX } else { s.parse().unwrap() };
    let (low, high) = range.split_once("..").unwrap_or((range, range));
    Bounds(number(low), number(high))
}

fn take<'a>(tag: u8, path: &str, der: &'a [u8]) -> (&'a [u8], &'a [u8]) {
    assert_eq!(der.first(), Some(&tag), "{path}: the tag");
    let content = tlv::content(der);
    let whole = tlv::tlv(tag, content);
    assert!(der.starts_with(&whole), "{path}: the shortest length");
    (content, &der[whole.len()..])
}
