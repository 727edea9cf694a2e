//! One entry: a part that everybody may see, and a part for auditors only.

use serde::{Deserialize, Serialize};

use crate::journal::record;

pub use super::sealed::Sealed;

/// The version of both parts.
const VERSION: u32 = 1;

/// What an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it; `src/docs/history.md` has the list")]
pub enum Kind {
    Opened,
    JoinToken,
    Certificate,
    Delegation,
    Admission,
    Redemption,
    Renewal,
    Use,
    Mint,
    Budget,
    End,
    Revocation,
    Reopening,
    Authorities,
    Configuration,
    Extension,
    Approval,
    Denial,
    Look,
    Gap,
    Passage,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 21] = [
        Kind::Opened,
        Kind::JoinToken,
        Kind::Certificate,
        Kind::Delegation,
        Kind::Admission,
        Kind::Redemption,
        Kind::Renewal,
        Kind::Use,
        Kind::Mint,
        Kind::Budget,
        Kind::End,
        Kind::Revocation,
        Kind::Reopening,
        Kind::Authorities,
        Kind::Configuration,
        Kind::Extension,
        Kind::Approval,
        Kind::Denial,
        Kind::Look,
        Kind::Gap,
        Kind::Passage,
    ];

    /// As entries and filters write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Opened => "opened",
            Kind::JoinToken => "join_token",
            Kind::Certificate => "certificate",
            Kind::Delegation => "delegation",
            Kind::Admission => "admission",
            Kind::Redemption => "redemption",
            Kind::Renewal => "renewal",
            Kind::Use => "use",
            Kind::Mint => "mint",
            Kind::Budget => "budget",
            Kind::End => "end",
            Kind::Revocation => "revocation",
            Kind::Reopening => "reopening",
            Kind::Authorities => "authorities",
            Kind::Configuration => "configuration",
            Kind::Extension => "extension",
            Kind::Approval => "approval",
            Kind::Denial => "denial",
            Kind::Look => "look",
            Kind::Gap => "gap",
            Kind::Passage => "passage",
        }
    }

    /// The kind with this name.
    pub fn parse(text: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// How a decision ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was allowed, and recorded in the journal.
    Recorded,
    /// It was denied.
    Denied,
    /// The issuer failed.
    Failed,
    /// It was allowed, and changed nothing.
    Answered,
    /// The outcome of a gap: entries were not written.
    NotWritten,
}

impl Outcome {
    /// As entries write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Recorded => "recorded",
            Outcome::Denied => "denied",
            Outcome::Failed => "failed",
            Outcome::Answered => "answered",
            Outcome::NotWritten => "not_written",
        }
    }
}

/// The part that everybody may see. The fields are in the order of their names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leaf {
    /// The SPIFFE ID of the agent that it is about.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub agent_id: String,
    /// Unix microseconds.
    pub at: u64,
    /// The class of the agent, or the class that was asked for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub class: String,
    /// HMAC-SHA-256 of the opening under the salt, in hex.
    #[serde(default)]
    pub commitment: String,
    /// In a gap: how many entries were not written.
    #[serde(default, skip_serializing_if = "none")]
    pub count: u64,
    /// Names the decision. The records of one decision share it.
    pub decision_id: String,
    /// The index in the history, from 0.
    pub index: u64,
    /// SHA-256 of the public key of the credential, in hex.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// What it is about.
    pub kind: Kind,
    /// How the decision ended.
    pub outcome: Outcome,
    /// Why it was denied.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason_code: String,
    /// Revision of the record. Absent if the entry is not of a record.
    #[serde(default, skip_serializing_if = "none")]
    pub revision: u64,
    /// The SPIFFE ID of the workload at the root of the agent, or of the workload that the entry is about.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub root_id: String,
    /// Serial number of the certificate or `jti` of the token, in hex.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub serial: String,
    /// Version of this form.
    pub v: u32,
}

/// A user in the opening.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// Issuer URL of the provider.
    pub iss: String,
    /// Subject there.
    pub sub: String,
}

/// The part for auditors. The fields are in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opening {
    /// Scopes that were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asked: Vec<String>,
    /// Audiences that were given, or asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audiences: Vec<String>,
    /// The caller: an operator, a workload, an agent or a user; `issuer` for acts of the issuer itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub caller: String,
    /// SPIFFE IDs of the agents above the agent, the parent first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<String>,
    /// The delegation that it is about, in hex.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub delegation_id: String,
    /// Unix seconds at which the credential or delegation ends.
    #[serde(default, skip_serializing_if = "none")]
    pub ends_at: u64,
    /// Whether it was written from the journal after a restart. The peer and the request id are then unknown.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub late: bool,
    /// `Service/Method`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub method: String,
    /// Where the call came from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub peer: String,
    /// Of a spawn that was denied: the request, on which journal and when, so that it can be decided again.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub question: String,
    /// The reason that the caller gave, or the message of a denial.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The request id that the client gave.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request_id: String,
    /// Scopes that were given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// What was revoked or reopened, such as `user corp/alice`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// The user for whom it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Person>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn none(n: &u64) -> bool {
    *n == 0
}

/// An entry with both parts, before it has its index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// The part for everybody.
    pub leaf: Leaf,
    /// The part for auditors.
    pub opening: Opening,
}

impl Draft {
    /// A draft of a kind at a time, in Unix microseconds.
    pub fn new(kind: Kind, at: u64, outcome: Outcome) -> Draft {
        let text = String::new;
        let leaf = Leaf {
            agent_id: text(),
            at,
            class: text(),
            commitment: text(),
            count: 0,
            decision_id: text(),
            index: 0,
            key: text(),
            kind,
            outcome,
            reason_code: text(),
            revision: 0,
            root_id: text(),
            serial: text(),
            v: VERSION,
        };
        Draft { leaf, opening: Opening::default() }
    }
}

/// What an exchange gave, up to whom it names.
pub(super) fn issued(exchanged: &record::Exchanged) -> &'static str {
    match (exchanged.id_jag, exchanged.impersonates) {
        (true, _) => "ID-JAG for",
        (_, true) => "access token that says nothing of the agent, for",
        _ => "access token for",
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn every_kind_is_read_as_it_is_written() {
        for kind in Kind::ALL {
            assert_eq!(Kind::parse(kind.as_str()), Some(kind));
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{}\"", kind.as_str()));
        }
        assert_eq!(Kind::parse("spawn"), None);
    }
}
