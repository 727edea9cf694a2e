//! A ticket has one spelling, and nothing else is a ticket.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::string_slice, reason = "tests")]

use proptest::prelude::*;

use super::*;

fn ticket(address: &str, trust_domain: &str) -> Ticket {
    Ticket::new(address, TrustDomain::new(trust_domain).unwrap(), [7; 32], Secret::new([9; 32])).unwrap()
}

fn fields(t: &Ticket) -> (String, String, [u8; 32], [u8; 32]) {
    (t.address.clone(), t.trust_domain.to_string(), t.root, t.secret.0)
}

fn error(text: &str) -> TicketError {
    Ticket::parse(text).err().unwrap()
}

/// A ticket of these bytes.
fn raw(bytes: &[u8]) -> String {
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
}

fn bytes_of(address: &str, trust_domain: &str) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    for text in [address, trust_domain] {
        bytes.push(text.len().try_into().unwrap());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes.extend_from_slice(&[7; 32]);
    bytes.extend_from_slice(&[9; 32]);
    bytes
}

#[test]
fn the_form_is_the_documented_one() {
    assert_eq!(*ticket("localhost:8443", "td").to_string(), raw(&bytes_of("localhost:8443", "td")));
}

#[test]
fn the_longest_ticket_fits() {
    let long =
        ticket(&format!("{}:8443", ["a".repeat(62), "b".repeat(62), "c".repeat(62), "d".repeat(61)].join(".")), &"t".repeat(255));
    let text = long.to_string();
    assert_eq!(fields(&Ticket::parse(&text).unwrap()), fields(&long));
    assert!(text.len() <= text.capacity() && text.len() <= PREFIX.len() + MAX.div_ceil(3) * 4);
}

#[test]
fn only_the_whole_string_is_a_ticket() {
    let good = ticket("localhost:8443", "td").to_string();
    assert!(Ticket::parse(&good).is_ok());
    for end in 0..good.len() {
        assert!(Ticket::parse(&good[..end]).is_err(), "the first {end} characters are a ticket");
    }
    for text in ["", "mayfly", "mayfly.", "mayfly1", "Mayfly1.", "mayflyx.", &good[1..], &format!(" {}", *good)] {
        assert_eq!(error(text), TicketError::NotATicket, "{text}");
    }
    assert_eq!(error(PREFIX), TicketError::Damaged);
    for tail in ["\n", " ", "=", "==", "A", "AA", "AAA", "AAAA", "\0", "ä"] {
        assert_eq!(error(&format!("{}{tail}", *good)), TicketError::Damaged, "{tail:?}");
    }
    assert_eq!(error(&format!("{PREFIX}{}", "A".repeat(1 << 20))), TicketError::Damaged);
}

#[test]
fn another_version_is_told_as_such() {
    let good = ticket("localhost:8443", "td").to_string();
    assert_eq!(error(&good.replace("mayfly1", "mayfly2")), TicketError::Version);
    let mut bytes = bytes_of("localhost:8443", "td");
    bytes[0] = 2;
    assert_eq!(error(&raw(&bytes)), TicketError::Version);
}

#[test]
fn dropped_bits_make_no_second_spelling() {
    // One address of each length modulo 3, so that each kind of base64 end occurs.
    for address in ["a:8443", "aa:8443", "aaa:8443"] {
        let good = ticket(address, "td").to_string();
        let (rest, last) = good.split_at(good.len() - 1);
        let others = ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['-', '_']).filter(|c| !last.contains(*c));
        for other in others {
            if let Ok(parsed) = Ticket::parse(&format!("{rest}{other}")) {
                assert_ne!(parsed.secret.0, [9; 32]);
            }
        }
    }
}

#[test]
fn what_is_inside_is_checked_too() {
    for bad in ["", "localhost", "localhost:0", "localhost:08443", "::1:8443", "a b:1"] {
        assert_eq!(error(&raw(&bytes_of(bad, "td"))), TicketError::Address, "{bad}");
        let made = Ticket::new(bad, TrustDomain::new("td").unwrap(), [7; 32], Secret::new([9; 32]));
        assert_eq!(made.err(), Some(TicketError::Address), "{bad}");
    }
    for bad in ["", "TD", "spiffe://td", "spiffe://td/x", "td/x", "t d"] {
        assert_eq!(error(&raw(&bytes_of("localhost:8443", bad))), TicketError::TrustDomain, "{bad}");
    }
    let mut bytes = bytes_of("localhost:8443", "td");
    bytes[2] = 0xff;
    assert_eq!(error(&raw(&bytes)), TicketError::Damaged);
}

#[test]
fn an_error_never_repeats_the_ticket() {
    let good = ticket("localhost:8443", "td").to_string();
    let encoded = good.strip_prefix(PREFIX).unwrap();
    for text in [encoded.to_owned(), format!("mayfly2.{encoded}"), format!("{PREFIX}{encoded}A")] {
        let message = error(&text).to_string();
        assert!(!message.contains(&encoded[..8]), "{message}");
    }
}

fn tickets() -> impl Strategy<Value = Hidden> {
    let host = "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?|[0-9]{1,2}(\\.[0-9]{1,2}){3}|\\[::[0-9a-f]{1,4}\\]";
    let parts = (host, 1u16.., "[a-z0-9._-]{1,255}", any::<[u8; 32]>(), any::<[u8; 32]>());
    // Some of these are no host, such as 01.2.3.4.
    parts.prop_filter_map("no host", |(host, port, trust_domain, root, secret)| {
        let trust_domain = TrustDomain::new(&trust_domain).ok()?;
        Ticket::new(&format!("{host}:{port}"), trust_domain, root, Secret::new(secret)).ok().map(Hidden)
    })
}

proptest! {
    #[test]
    fn a_ticket_survives_its_string(ticket in tickets()) {
        let parsed = Ticket::parse(&ticket.0.to_string());
        prop_assert!(parsed.is_ok_and(|parsed| fields(&parsed) == fields(&ticket.0)));
    }

    #[test]
    fn one_changed_character_is_refused_or_changes_a_field(
        ticket in tickets(),
        at: prop::sample::Index,
        to in prop_oneof![any::<char>(), "[A-Za-z0-9_-]".prop_map(|s| s.chars().next().unwrap())],
    ) {
        let good = ticket.0.to_string();
        let at = at.index(good.len());
        let mut changed = (*good).clone();
        changed.replace_range(at..=at, to.encode_utf8(&mut [0; 4]));
        prop_assume!(changed != *good);
        if let Ok(parsed) = Ticket::parse(&changed) {
            prop_assert!(fields(&parsed) != fields(&ticket.0));
            prop_assert_eq!(&*parsed.to_string(), &changed);
        }
    }

    #[test]
    fn nothing_makes_the_parser_panic(bytes: Vec<u8>, text: String) {
        for text in [raw(&bytes), format!("{PREFIX}{text}"), text] {
            if let Ok(parsed) = Ticket::parse(&text) {
                prop_assert_eq!(&*parsed.to_string(), &text);
            }
        }
    }
}

/// proptest prints its inputs. These secrets are made up, and still are not printed.
struct Hidden(Ticket);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} in {}", self.0.address, self.0.trust_domain)
    }
}
