//! The owners' own test cases: questions with the answers that they expect.
//!
//! ```toml
//! [[tests]]
//! name = "nobody spawns researchers at night"
//! principal = "workload/orchestrator"      # or `agent/<class>`, `user/<provider>/<sub>`, or as Cedar writes it
//! action = "spawn"
//! resource = "class/researcher"            # or `audience/<audience>`
//! context = { time = "2026-11-27T23:00:00Z", user = "dev/demo", scopes = ["mail:send"] }
//! expect = "deny"                          # or "allow"
//! policy = "no-nights"                     # the policy that decides; may be left out
//! ```

use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Action, AgentFacts, Ask, Facts, Live, Policies, Principal, Resource, UserFacts};

/// A file of test cases.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cases {
    /// The cases, in order.
    pub tests: Vec<Case>,
}

/// A question with the answer that is expected.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it shows.
    pub name: String,
    principal: String,
    action: String,
    resource: String,
    #[serde(default)]
    context: Given,
    expect: Expected,
    policy: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Expected {
    Allow,
    Deny,
}

/// The context of a case. Attributes that are left out have a value that few policies test.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Given {
    /// Monday noon.
    time: String,
    user: Option<String>,
    /// The groups of that user.
    groups: Vec<String>,
    depth: u32,
    scopes: Vec<String>,
    audiences: Vec<String>,
    lease: u64,
    live: GivenLive,
    left: Option<u64>,
    budget: GivenBudget,
    acr: Option<String>,
    sign_in_age: Option<u64>,
    first_use: Option<bool>,
    /// The workload at the root of the calling agent.
    root: String,
    ancestors: Vec<String>,
    /// Owner of the requested class.
    owner: String,
}

impl Default for Given {
    fn default() -> Given {
        Given {
            time: "2026-11-23T12:00:00Z".to_owned(),
            user: None,
            groups: Vec::new(),
            depth: 1,
            scopes: Vec::new(),
            audiences: Vec::new(),
            lease: 3600,
            live: GivenLive::default(),
            left: None,
            budget: GivenBudget::default(),
            acr: None,
            sign_in_age: None,
            first_use: None,
            root: "orchestrator".to_owned(),
            ancestors: Vec::new(),
            owner: String::new(),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct GivenLive {
    user: u64,
    root: u64,
    class: u64,
    siblings: u64,
}

/// The remaining budget; dollars in millionths. A unit that is left out has no limit.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct GivenBudget {
    ops: Option<u64>,
    tokens: Option<u64>,
    usd: Option<u64>,
}

/// The outcome of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Why it failed. `None` if the answer is the expected one.
    pub failure: Option<String>,
    /// The ids of the policies that decided.
    pub policies: Vec<String>,
}

impl Cases {
    /// Reads a file of cases.
    pub fn parse(text: &str) -> Result<Cases, String> {
        toml::from_str(text).map_err(|e| e.to_string().trim_end().to_owned())
    }
}

impl Case {
    /// Asks the question.
    pub fn run(&self, policies: &Policies) -> Outcome {
        match self.decided(policies) {
            Ok(outcome) => outcome,
            Err(failure) => Outcome { failure: Some(failure), policies: Vec::new() },
        }
    }

    fn decided(&self, policies: &Policies) -> Result<Outcome, String> {
        let action = Action::ALL.into_iter().find(|action| action.as_str() == self.action);
        let action = action.ok_or_else(|| format!("there is no action `{}`", self.action))?;
        let given = &self.context;
        let user = given.user.as_deref().map(person).transpose()?;
        let user = user.map(|user| UserFacts { groups: &given.groups, ..user });
        let (kind, name) = entity(&self.principal)?;
        let id;
        let principal = match kind.as_str() {
            "workload" => Principal::Workload(&name),
            "user" => Principal::User(person(&name)?),
            "agent" => {
                // A SPIFFE ID contains the class; a plain name is the class.
                let class = name.split("/agent/").nth(1).and_then(|rest| rest.split('/').next());
                id = if class.is_some() { name.clone() } else { format!("spiffe://test/agent/{name}/1") };
                let class = class.unwrap_or(&name);
                let ancestors = given.ancestors.clone();
                Principal::Agent(AgentFacts { id: &id, class, root: &given.root, ancestors, depth: given.depth })
            }
            _ => return Err(format!("`{}`: a principal is a workload, an agent or a user", self.principal)),
        };
        let (kind, of) = entity(&self.resource)?;
        let resource = match kind.as_str() {
            "class" => Resource::Class(&of, &given.owner),
            "audience" => Resource::Audience(&of),
            "agent" => Resource::Agent(&of),
            _ => return Err(format!("`{}`: a resource is a class, an audience or an agent", self.resource)),
        };
        let at = OffsetDateTime::parse(&given.time, &Rfc3339).map_err(|_| format!("`{}` is no RFC 3339 time", given.time))?;
        let GivenLive { user: of_user, root, class, siblings } = given.live;
        let facts = Facts {
            at: u64::try_from(at.unix_timestamp()).map_err(|_| "the time is before 1970".to_owned())?,
            user,
            depth: given.depth,
            scopes: &given.scopes,
            audiences: &given.audiences,
            lease: given.lease,
            live: Live { user: of_user, root, class, siblings },
            left: given.left,
            budget: [given.budget.ops, given.budget.tokens, given.budget.usd],
            acr: given.acr.as_deref(),
            sign_in_age: given.sign_in_age,
            first_use: given.first_use,
        };
        let ask = Ask { action, principal, resource, facts };
        let decision = policies.decide_checked(&ask)?;
        let ids = |of: &[usize]| of.iter().filter_map(|n| policies.all().get(*n)).map(|p| p.id.clone()).collect::<Vec<_>>();
        let found = if decision.failed.is_empty() { ids(&decision.policies) } else { ids(&decision.failed) };
        // An issuer evaluates only a part of the set, and must get the same answer.
        if policies.decide(&ask) != decision {
            return Err(
                "the short way to the answer leads to another one: this is a fault of Mayfly, please report it".to_owned()
            );
        }
        let is = if decision.allowed { Expected::Allow } else { Expected::Deny };
        let by = if found.is_empty() { "no policy".to_owned() } else { found.join(", ") };
        let failure = if is != self.expect {
            Some(format!("the answer is {is:?} by {by}").to_lowercase())
        } else {
            let missing = self.policy.as_ref().filter(|wanted| !found.contains(wanted));
            missing.map(|wanted| format!("the answer is right, but by {by} and not by {wanted}"))
        };
        Ok(Outcome { failure, policies: found })
    }
}

/// Kind and name of an entity: `workload/orchestrator`, or `Workload::"orchestrator"` as Cedar writes it.
fn entity(text: &str) -> Result<(String, String), String> {
    let cedar = text.split_once("::").and_then(|(kind, rest)| Some((kind, rest.strip_prefix('"')?.strip_suffix('"')?)));
    let found = cedar.or_else(|| text.split_once('/'));
    let (kind, name) = found.ok_or_else(|| format!("`{text}`: write it as `class/researcher`"))?;
    Ok((kind.to_lowercase(), name.to_owned()))
}

fn person(text: &str) -> Result<UserFacts<'_>, String> {
    let (provider, sub) = text.split_once('/').ok_or_else(|| format!("`{text}`: write a user as `<provider>/<sub>`"))?;
    Ok(UserFacts { provider, sub, groups: &[] })
}
