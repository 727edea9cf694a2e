//! The configured audiences: the lifetime of tokens for each, the leeway of the verifier, and further claims.
//!
//! An audience that is not configured gets tokens with the defaults.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::bound::Bound;
use super::profile::Profile;
use super::template::{Facts, Template, check_name};
use super::{Check, Judgement, Rules};
use crate::denial::Denial;
use crate::state::Agent;
use crate::state::authority::Kind as AuthorityKind;

/// Most bytes of the further claims of one token, as JSON.
const MOST: usize = 2048;
/// The claim with the tags of an AWS session.
const AWS_TAGS: &str = "https://aws.amazon.com/tags";
/// The claim with the source identity of an AWS session.
const AWS_SOURCE_IDENTITY: &str = "https://aws.amazon.com/source_identity";

/// A configured audience.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audience {
    /// Who answers for it.
    pub owner: String,
    /// The system behind it, if it is one whose limits are known.
    pub kind: Option<System>,
    /// Lifetime of a token, in seconds. `None` means that of all tokens.
    pub lifetime: Option<u64>,
    /// How long after its expiry the verifier still accepts a token, in seconds.
    pub leeway: u64,
    /// What access tokens are bound to.
    pub bound: Bound,
    /// What access tokens say.
    pub profile: Profile,
    /// Whether its tokens are signed with RS256, for systems that verify nothing else. Others are signed with ES256.
    pub rs256: bool,
    /// Further claims of its tokens.
    pub claims: BTreeMap<String, Claim>,
}

/// A system whose limits are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// Amazon Web Services.
    Aws,
    /// Google Cloud.
    Gcp,
    /// Microsoft Entra.
    Azure,
    /// Vault and OpenBao.
    Vault,
    /// The API of Anthropic.
    Anthropic,
    /// The API of OpenAI.
    OpenAi,
    /// Kubernetes.
    Kubernetes,
    /// Snowflake.
    Snowflake,
    /// Salesforce.
    Salesforce,
    /// A server of the Model Context Protocol.
    Mcp,
}

/// Every system, with the name that a configuration has for it.
pub const SYSTEMS: [(&str, System); 10] = [
    ("aws", System::Aws),
    ("gcp", System::Gcp),
    ("azure", System::Azure),
    ("vault", System::Vault),
    ("anthropic", System::Anthropic),
    ("openai", System::OpenAi),
    ("kubernetes", System::Kubernetes),
    ("snowflake", System::Snowflake),
    ("salesforce", System::Salesforce),
    ("mcp", System::Mcp),
];

/// The value of a claim, with templates for its texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// A text.
    Text(Template),
    /// A number, or `true` or `false`.
    Fixed(Value),
    /// A list.
    List(Vec<Claim>),
    /// An object. Its names are no templates.
    Object(BTreeMap<String, Claim>),
}

impl Claim {
    /// Whether it contains the user, so that it can be used for delegated agents only.
    pub fn names_user(&self) -> bool {
        match self {
            Claim::Text(template) => template.names_user(),
            Claim::Fixed(_) => false,
            Claim::List(all) => all.iter().any(Claim::names_user),
            Claim::Object(all) => all.values().any(Claim::names_user),
        }
    }

    /// The claim as JSON, with the templates as they are configured.
    pub fn configured(&self) -> Value {
        match self {
            Claim::Text(template) => template.to_string().into(),
            Claim::Fixed(value) => value.clone(),
            Claim::List(all) => all.iter().map(Claim::configured).collect(),
            Claim::Object(all) => all.iter().map(|(name, claim)| (name.clone(), claim.configured())).collect(),
        }
    }

    /// The value for an agent. The error names the limit that it exceeds.
    fn fill(&self, facts: &Facts<'_>) -> Result<Value, String> {
        Ok(match self {
            Claim::Text(template) => {
                let text = template.fill(facts).map_err(|e| e.to_string())?;
                check_name(&text).map_err(|what| format!("a value {what}"))?;
                text.into()
            }
            Claim::Fixed(value) => value.clone(),
            Claim::List(all) => all.iter().map(|claim| claim.fill(facts)).collect::<Result<_, _>>()?,
            Claim::Object(all) => {
                let filled = all.iter().map(|(name, claim)| Ok((name.clone(), claim.fill(facts)?)));
                Value::Object(filled.collect::<Result<Map<_, _>, String>>()?)
            }
        })
    }
}

impl Audience {
    fn fill(&self, facts: &Facts<'_>) -> Result<Map<String, Value>, String> {
        let mut filled = Map::new();
        for (name, claim) in &self.claims {
            let value = claim.fill(facts).map_err(|what| format!("`{name}`: {what}"))?;
            if self.kind == Some(System::Aws) {
                check_aws(name, &value).map_err(|what| format!("`{name}`: {what}"))?;
            }
            filled.insert(name.clone(), value);
        }
        let length = serde_json::to_vec(&filled).map_or(usize::MAX, |json| json.len());
        if length > MOST { Err(format!("they have {length} bytes, and {MOST} are allowed")) } else { Ok(filled) }
    }
}

/// Checks the tags of AWS, which would refuse the whole token for one tag that it does not allow.
fn check_aws(name: &str, value: &Value) -> Result<(), String> {
    match name {
        AWS_SOURCE_IDENTITY => {
            let text = value.as_str().unwrap_or_default();
            let allowed = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
            if (2..=64).contains(&text.len()) && text.chars().all(allowed) {
                return Ok(());
            }
            Err("AWS allows 2 to 64 letters, digits and `_+=,.@-`".into())
        }
        AWS_TAGS => {
            let tags = value.get("principal_tags").and_then(Value::as_object).ok_or("`principal_tags` is missing")?;
            let allowed = |c: char| c.is_alphanumeric() || " _.:/=+-@".contains(c);
            let sound = |text: &str, most: usize| text.chars().count() <= most && text.chars().all(allowed);
            let one =
                |value: &Value| matches!(value.as_array().map(Vec::as_slice), Some([Value::String(text)]) if sound(text, 256));
            if tags.len() <= 50 && tags.iter().all(|(key, value)| sound(key, 128) && one(value)) {
                return Ok(());
            }
            Err("AWS allows 50 tags, each a list of one text of at most 256 letters, digits, spaces and `_.:/=+-@`".into())
        }
        _ => Ok(()),
    }
}

impl Rules {
    /// Lifetime of a token for these audiences, in seconds: the shortest of theirs.
    pub fn token_life(&self, audiences: &[String]) -> u64 {
        let of = |audience: &String| self.audiences.get(audience).and_then(|known| known.lifetime).unwrap_or(self.jwt_ttl);
        audiences.iter().map(of).min().unwrap_or(self.jwt_ttl)
    }

    /// The kind of authority that signs tokens for these audiences, as configured. Fails if they differ.
    pub fn token_kind(&self, audiences: &[String]) -> Result<AuthorityKind, Denial> {
        let rs256 = |audience: &&String| self.audiences.get(*audience).is_some_and(|known| known.rs256);
        let (rsa, ec): (Vec<_>, Vec<_>) = audiences.iter().partition(rs256);
        match (rsa.first(), ec.first()) {
            (Some(one), Some(other)) => {
                let message = format!("`{one}` verifies RS256 and `{other}` ES256: ask for a token for each");
                Err(Denial::malformed("ALGORITHM_CONFLICT", message))
            }
            (Some(_), None) => Ok(AuthorityKind::Rs256),
            (None, _) => Ok(AuthorityKind::Jwt),
        }
    }

    /// The longest lifetime of any token, in seconds.
    pub fn jwt_life(&self) -> u64 {
        self.audiences.values().filter_map(|known| known.lifetime).fold(self.jwt_ttl, u64::max)
    }
}

impl Judgement<'_> {
    /// The further claims of a token for these audiences, by the present configuration. Claims that are too large are denied, so
    /// this is called before anything is recorded.
    pub fn claims(&self, agent: &Agent, audiences: &[String]) -> Result<Map<String, Value>, Denial> {
        let known = |audience: &String| self.rules().audiences.get(audience).filter(|known| !known.claims.is_empty());
        let Some((audience, known)) = audiences.iter().find_map(|audience| Some((audience, known(audience)?))) else {
            return Ok(Map::new());
        };
        self.checking(Check::Claims);
        let unusable = |message| Denial::denied("CLAIMS_UNUSABLE", message);
        if audiences.len() > 1 {
            let message = format!("tokens for `{audience}` have claims of their own: ask for one without other audiences");
            return Err(unusable(message));
        }
        known.fill(&self.facts(agent)).map_err(|what| unusable(format!("the claims for `{audience}` do not fit: {what}")))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    #[test]
    fn what_aws_refuses_is_known_here() {
        let tags = |value: &str| json!({ "principal_tags": { "user": [value] }, "transitive_tag_keys": ["user"] });
        assert_eq!(check_aws(AWS_TAGS, &tags("demo@example.org / Zoë")), Ok(()));
        assert_eq!(check_aws(AWS_SOURCE_IDENTITY, &json!("0190aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee")), Ok(()));
        assert_eq!(check_aws("other", &json!({ "a": [1] })), Ok(()));
        for (name, value) in [
            (AWS_TAGS, tags("a|b")),
            (AWS_TAGS, tags(&"a".repeat(257))),
            (AWS_TAGS, json!({ "user": ["a"] })),
            (AWS_TAGS, json!({ "principal_tags": { "user": "a" } })),
            (AWS_TAGS, json!({ "principal_tags": { "user": ["a", "b"] } })),
            (AWS_SOURCE_IDENTITY, json!("a")),
            (AWS_SOURCE_IDENTITY, json!("spiffe://a/b")),
            (AWS_SOURCE_IDENTITY, json!(["ab"])),
        ] {
            assert!(check_aws(name, &value).is_err(), "{value}");
        }
    }

    #[test]
    fn a_claim_is_configured_as_it_was_written() {
        let text = |text: &str| Claim::Text(Template::parse(text).unwrap());
        let claim = Claim::Object([("a".to_owned(), Claim::List(vec![text("x{class}"), Claim::Fixed(json!(1))]))].into());
        assert_eq!(claim.configured(), json!({ "a": ["x{class}", 1] }));
        assert!(!claim.names_user() && Claim::List(vec![text("{user.sub}")]).names_user());
    }
}
