//! The text that a person is shown before they approve, and its digest. An answer approves or refuses exactly this digest.

use serde_json::{Value, json};

use crate::sha256;

/// What a person is shown of an approval.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// SPIFFE ID of the agent that asks.
    pub agent: &'a str,
    /// Where the token will be accepted.
    pub audience: &'a str,
    /// The delegation under which the agent acts, in hexadecimal digits; empty if it acts for nobody.
    pub delegation: &'a str,
    /// Scopes, sorted.
    pub scopes: &'a [String],
    /// The actions: a JSON array in the form of RFC 8785, or empty.
    pub details: &'a str,
    /// Why, as the agent says it.
    pub reason: &'a str,
    /// For how many tokens the approval is.
    pub uses: u32,
    /// For how many seconds it can be used once it was given.
    pub lasts: u64,
}

impl Shown<'_> {
    /// SHA-256 of a JSON object in the form of RFC 8785 with the members `agent`, `audience`, `authorization_details`, `delegation`,
    /// `lasts`, `reason`, `scopes` and `uses`. `None` if the actions are no JSON.
    pub fn digest(&self) -> Option<[u8; 32]> {
        let Shown { agent, audience, delegation, scopes, details, reason, uses, lasts } = *self;
        let details: Value = if details.is_empty() { json!([]) } else { serde_json::from_str(details).ok()? };
        // RFC 8785: members are sorted, without white space; there are only texts, lists and integers.
        let mut form = json!({
            "agent": agent,
            "audience": audience,
            "authorization_details": details,
            "delegation": delegation,
            "lasts": lasts,
            "reason": reason,
            "scopes": scopes,
            "uses": uses,
        });
        // A dependency may have objects keep the order in which they were read.
        form.sort_all_objects();
        Some(sha256(form.to_string().as_bytes()))
    }
}

/// The letters of codes: those of RFC 4648 base32hex without those that people take for another (Crockford's).
const LETTERS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// A short code for a question, such as `mayfly-8F3K-Q2M7`, from the id of the approval and the digest of what a person is shown. Their own
/// provider shows it to them when it asks for their consent, and they compare it with the code beside the question. Keycloak and Auth0
/// take it as a `binding_message`.
///
/// The issuer draws the id once the question is made. By the digest alone an agent could make two questions with one code: it chooses
/// all that the digest covers, and a code has 40 bits.
pub fn binding_code(id: &[u8; 16], digest: &[u8; 32]) -> String {
    code(&sha256(&[id.as_slice(), digest].concat()))
}

fn code(bound: &[u8; 32]) -> String {
    let first = bound.iter().take(5).fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
    let letter = |n: u64| LETTERS.get(usize::try_from(first >> (35 - 5 * n) & 31).unwrap_or(0)).copied().map_or('0', char::from);
    let (one, other): (String, String) = ((0..4).map(letter).collect(), (4..8).map(letter).collect());
    format!("mayfly-{one}-{other}")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::unusual_byte_groupings, reason = "tests")]
    use super::*;

    #[test]
    fn a_code_follows_from_the_first_forty_bits_and_fits_the_patterns_of_providers() {
        let mut digest = [0; 32];
        assert_eq!(code(&digest), "mayfly-0000-0000");
        digest[..5].copy_from_slice(&[0xff; 5]);
        assert_eq!(code(&digest), "mayfly-ZZZZ-ZZZZ");
        digest[..5].copy_from_slice(&[0b00001_000, 0b10_00011_0, 0b0100_0010, 0b1_00110_00, 0b111_01000]);
        assert_eq!(code(&digest), "mayfly-1234-5678");
        let of_both = |c: char| c.is_ascii_alphanumeric() || c == '-';
        for n in 0..1000u32 {
            let code = binding_code(&[7; 16], &sha256(&n.to_be_bytes()));
            assert!(code.len() <= 50 && code.chars().all(of_both), "{code}");
        }
    }

    #[test]
    fn t336_two_digests_that_begin_alike_have_different_codes() {
        let (one, mut other) = ([9; 32], [9; 32]);
        other[31] = 8;
        assert_eq!(code(&one), code(&other), "what an agent can make");
        assert_ne!(binding_code(&[1; 16], &one), binding_code(&[1; 16], &other));
        assert_ne!(binding_code(&[1; 16], &one), binding_code(&[2; 16], &one), "the same question asked again");
    }

    #[test]
    fn a_change_of_anything_that_is_shown_changes_the_digest() {
        let scopes = ["payments:send".to_owned()];
        let shown = Shown {
            agent: "spiffe://td/agent/payer/1",
            audience: "https://bank.example",
            delegation: "00",
            scopes: &scopes,
            details: r#"[{"amount":"10.00","type":"payment"}]"#,
            reason: "invoice 7",
            uses: 1,
            lasts: 300,
        };
        let changed = [
            Shown { agent: "spiffe://td/agent/payer/2", ..shown },
            Shown { audience: "https://bank.example/", ..shown },
            Shown { delegation: "01", ..shown },
            Shown { scopes: &[], ..shown },
            Shown { details: r#"[{"amount":"10.01","type":"payment"}]"#, ..shown },
            Shown { details: "", ..shown },
            Shown { reason: "invoice 8", ..shown },
            Shown { uses: 2, ..shown },
            Shown { lasts: 301, ..shown },
        ];
        let first = shown.digest().unwrap();
        assert!(changed.iter().all(|changed| changed.digest().unwrap() != first));
        let spaced = Shown { details: r#"[ { "type" : "payment", "amount" : "10.00" } ]"#, ..shown };
        assert_eq!(spaced.digest().unwrap(), first, "the form does not matter");
        assert_eq!(Shown { details: "[", ..shown }.digest(), None);
        // The form that other implementations hash: `printf '%s' '…' | sha256sum`.
        let form = r#"{"agent":"spiffe://td/agent/payer/1","audience":"https://bank.example","authorization_details":[{"amount":"10.00","type":"payment"}],"delegation":"00","lasts":300,"reason":"invoice 7","scopes":["payments:send"],"uses":1}"#;
        assert_eq!(sha256(form.as_bytes()), first);
    }
}
