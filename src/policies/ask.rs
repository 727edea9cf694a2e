//! Questions to a set of policies, in our terms, and their translation to Cedar.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use cedar_policy::{Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, Request, RestrictedExpression, Schema};

use super::Mentions;

/// The action of a question, with the names of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// A new agent.
    Spawn,
    /// A JWT-SVID.
    Mint,
    /// An access token.
    Exchange,
    /// The next certificate of an agent.
    Renew,
    /// A longer lease.
    Extend,
    /// The approval of a user.
    Approve,
    /// A revocation.
    Revoke,
}

impl Action {
    /// All actions of the schema.
    pub const ALL: [Action; 7] =
        [Action::Spawn, Action::Mint, Action::Exchange, Action::Renew, Action::Extend, Action::Approve, Action::Revoke];
    /// The actions for which policies are evaluated. A policy about other actions only is refused, because it would have no effect.
    pub const JUDGED: [Action; 4] = [Action::Spawn, Action::Mint, Action::Exchange, Action::Renew];

    /// Its name in the schema.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Spawn => "spawn",
            Action::Mint => "mint",
            Action::Exchange => "exchange",
            Action::Renew => "renew",
            Action::Extend => "extend",
            Action::Approve => "approve",
            Action::Revoke => "revoke",
        }
    }

    pub(super) fn uid(self) -> EntityUid {
        uid(&TYPES.action, self.as_str())
    }
}

/// A question.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    /// What is asked for.
    pub action: Action,
    /// Who asks.
    pub principal: Principal<'a>,
    /// What it is about.
    pub resource: Resource<'a>,
    /// What else is known.
    pub facts: Facts<'a>,
}

/// Who asks.
#[derive(Clone, Debug)]
pub enum Principal<'a> {
    /// A workload: its name, or the SPIFFE ID of a foreign one.
    Workload(&'a str),
    /// An agent.
    Agent(AgentFacts<'a>),
    /// A user.
    User(UserFacts<'a>),
}

/// The attributes of an agent.
#[derive(Clone, Debug, Default)]
pub struct AgentFacts<'a> {
    /// Its SPIFFE ID.
    pub id: &'a str,
    /// Its class.
    pub class: &'a str,
    /// The workload at its root, as in [`Principal::Workload`].
    pub root: &'a str,
    /// The SPIFFE IDs of its ancestors that are agents. They may be left out unless [`Mentions::ancestors`] says so.
    pub ancestors: Vec<String>,
    /// Levels below the root workload.
    pub depth: u32,
}

/// The attributes of a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct UserFacts<'a> {
    /// The operator's name for the provider.
    pub provider: &'a str,
    /// `sub` there.
    pub sub: &'a str,
    /// The groups that the provider named when the user signed in.
    pub groups: &'a [String],
}

impl UserFacts<'_> {
    fn groups(&self) -> impl Iterator<Item = EntityUid> {
        self.groups.iter().map(|group| uid(&TYPES.group, &format!("{}/{group}", self.provider)))
    }
}

/// The resource of a question.
#[derive(Clone, Copy, Debug)]
pub enum Resource<'a> {
    /// A class: its name and its owner.
    Class(&'a str, &'a str),
    /// An audience.
    Audience(&'a str),
    /// An agent: its SPIFFE ID.
    Agent(&'a str),
}

/// The context of a question. Attributes that no policy uses, by [`Mentions`], may be left at their default.
#[derive(Clone, Debug, Default)]
pub struct Facts<'a> {
    /// Unix seconds.
    pub at: u64,
    /// The user for whom the agent acts. `None` for an autonomous agent.
    pub user: Option<UserFacts<'a>>,
    /// Levels below the root workload.
    pub depth: u32,
    /// Scopes that are requested or remain.
    pub scopes: &'a [String],
    /// Audiences that are requested or remain.
    pub audiences: &'a [String],
    /// Remaining lease of the agent, in seconds.
    pub lease: u64,
    /// Live agents.
    pub live: Live,
    /// How many more agents the tightest limit allows. `None` if no limit applies.
    pub left: Option<u64>,
    /// Remaining budget: operations, tokens, and millionths of a dollar. `None` is a unit without a limit.
    pub budget: [Option<u64>; 3],
    /// How the user signed in. `None` if their provider does not say.
    pub acr: Option<&'a str>,
    /// Seconds since the user signed in. `None` if their provider does not say.
    pub sign_in_age: Option<u64>,
    /// Whether the agent has had no token for the audience. `None` where no token is asked for.
    pub first_use: Option<bool>,
}

/// Numbers of live agents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Of the same user.
    pub user: u64,
    /// Live agents below the same root workload.
    pub root: u64,
    /// Of the same class.
    pub class: u64,
    /// Live agents directly below the same spawner.
    pub siblings: u64,
}

/// A question in Cedar's types.
pub(super) struct Translated {
    pub(super) request: Request,
    pub(super) entities: Entities,
    /// The principal, and with [`Mentions::ancestors`] all entities that it is in.
    pub(super) principals: Vec<EntityUid>,
    pub(super) resource: EntityUid,
}

struct Types {
    action: EntityTypeName,
    group: EntityTypeName,
    user: EntityTypeName,
    workload: EntityTypeName,
    class: EntityTypeName,
    agent: EntityTypeName,
    audience: EntityTypeName,
    scope: EntityTypeName,
}

// Unwrap safety: each name is in the schema, which a test parses.
#[expect(clippy::unwrap_used, reason = "see above")]
static TYPES: LazyLock<Types> = LazyLock::new(|| {
    let named = |name: &str| name.parse::<EntityTypeName>().unwrap();
    Types {
        action: named("Action"),
        group: named("Group"),
        user: named("User"),
        workload: named("Workload"),
        class: named("Class"),
        agent: named("Agent"),
        audience: named("Audience"),
        scope: named("Scope"),
    }
});

fn uid(of: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(of.clone(), EntityId::new(id))
}

/// The kind and name of an entity that is a class or a workload. `None` for any other.
pub(super) fn named(of: &EntityUid) -> Option<(&'static str, &str)> {
    let id = of.id().unescaped();
    match of.type_name() {
        class if *class == TYPES.class => Some(("class", id)),
        workload if *workload == TYPES.workload => Some(("workload", id)),
        _ => None,
    }
}

impl Ask<'_> {
    /// With a schema, Cedar checks that the question conforms to it. Unit tests and the test cases of owners use that.
    pub(super) fn translate(&self, needs: &Mentions, schema: Option<&Schema>) -> Result<Translated, String> {
        let mut entities = Vec::new();
        let mut principals = Vec::new();
        let of_user = |user: &UserFacts<'_>| uid(&TYPES.user, &format!("{}/{}", user.provider, user.sub));
        let principal = match &self.principal {
            Principal::Workload(name) => uid(&TYPES.workload, name),
            Principal::User(user) => of_user(user),
            Principal::Agent(agent) => uid(&TYPES.agent, agent.id),
        };
        if let Principal::Agent(agent) = &self.principal {
            let parents = if needs.ancestors {
                let above = agent.ancestors.iter().map(|id| uid(&TYPES.agent, id));
                let groups = self.facts.user.iter().flat_map(UserFacts::groups);
                above.chain([uid(&TYPES.workload, agent.root), uid(&TYPES.class, agent.class)]).chain(groups).collect()
            } else {
                HashSet::new()
            };
            principals.extend(parents.iter().cloned());
            if needs.attributes || needs.ancestors {
                let attributes = HashMap::from([
                    ("class".to_owned(), RestrictedExpression::new_entity_uid(uid(&TYPES.class, agent.class))),
                    ("root".to_owned(), RestrictedExpression::new_entity_uid(uid(&TYPES.workload, agent.root))),
                    ("depth".to_owned(), RestrictedExpression::new_long(agent.depth.into())),
                ]);
                entities.push(Entity::new(principal.clone(), attributes, parents).map_err(|e| e.to_string())?);
            }
        }
        let resource = match self.resource {
            Resource::Class(name, owner) => {
                let class = uid(&TYPES.class, name);
                if needs.attributes {
                    let owner = HashMap::from([("owner".to_owned(), RestrictedExpression::new_string(owner.to_owned()))]);
                    entities.push(Entity::new(class.clone(), owner, HashSet::new()).map_err(|e| e.to_string())?);
                }
                class
            }
            Resource::Audience(name) => uid(&TYPES.audience, name),
            Resource::Agent(id) => uid(&TYPES.agent, id),
        };
        let asks = if let Principal::User(user) = &self.principal { Some(user) } else { None };
        let users: HashSet<&UserFacts<'_>> = self.facts.user.iter().chain(asks).collect();
        for user in users.into_iter().filter(|user| needs.attributes || (needs.ancestors && !user.groups.is_empty())) {
            let text = |text: &str| RestrictedExpression::new_string(text.to_owned());
            let attributes = HashMap::from([("provider".to_owned(), text(user.provider)), ("sub".to_owned(), text(user.sub))]);
            let groups = if needs.ancestors { user.groups().collect() } else { HashSet::new() };
            entities.push(Entity::new(of_user(user), attributes, groups).map_err(|e| e.to_string())?);
        }
        let context = Context::from_pairs(self.facts.context(needs, of_user)).map_err(|e| e.to_string())?;
        let request = Request::new(principal.clone(), self.action.uid(), resource.clone(), context, schema);
        principals.push(principal);
        Ok(Translated {
            request: request.map_err(|e| e.to_string())?,
            entities: Entities::from_entities(entities, schema).map_err(|e| e.to_string())?,
            principals,
            resource,
        })
    }
}

impl Facts<'_> {
    /// The context attributes that some policy uses.
    fn context(&self, needs: &Mentions, of_user: impl Fn(&UserFacts<'_>) -> EntityUid) -> Vec<(String, RestrictedExpression)> {
        let mut context = Vec::new();
        let mut put = |name: &str, value: RestrictedExpression| context.push((name.to_owned(), value));
        let long = |n: u64| RestrictedExpression::new_long(i64::try_from(n).unwrap_or(i64::MAX));
        let set = |of: &EntityTypeName, ids: &[String]| {
            RestrictedExpression::new_set(ids.iter().map(|id| RestrictedExpression::new_entity_uid(uid(of, id))))
        };
        if needs.context("time") {
            let days = self.at / 86_400;
            // 1 January 1970 was a Thursday.
            let parts = [
                ("unix", self.at),
                ("hour", self.at / 3600 % 24),
                ("minute", self.at / 60 % 60),
                ("weekday", (days + 3) % 7 + 1),
            ];
            put("time", record(parts.map(|(name, value)| (name, long(value)))));
        }
        if needs.context("delegated") {
            put("delegated", RestrictedExpression::new_bool(self.user.is_some()));
        }
        if let Some(user) = self.user.filter(|_| needs.context("user")) {
            put("user", RestrictedExpression::new_entity_uid(of_user(&user)));
        }
        if needs.context("depth") {
            put("depth", long(self.depth.into()));
        }
        if needs.context("scopes") {
            put("scopes", set(&TYPES.scope, self.scopes));
        }
        if needs.context("audiences") {
            put("audiences", set(&TYPES.audience, self.audiences));
        }
        if needs.context("lease") {
            put("lease", long(self.lease));
        }
        if needs.context("live") {
            let Live { user, root, class, siblings } = self.live;
            let parts = [("user", user), ("root", root), ("class", class), ("siblings", siblings)];
            put("live", record(parts.map(|(name, value)| (name, long(value)))));
        }
        if let Some(left) = self.left.filter(|_| needs.context("left")) {
            put("left", long(left));
        }
        if needs.context("budget") {
            let left = ["ops", "tokens", "usd"].into_iter().zip(self.budget);
            put("budget", record_of(left.filter_map(|(unit, left)| Some((unit.to_owned(), long(left?))))));
        }
        if let Some(acr) = self.acr.filter(|_| needs.context("acr")) {
            put("acr", RestrictedExpression::new_string(acr.to_owned()));
        }
        if let Some(age) = self.sign_in_age.filter(|_| needs.context("sign_in_age")) {
            put("sign_in_age", long(age));
        }
        if let Some(first) = self.first_use.filter(|_| needs.context("first_use")) {
            put("first_use", RestrictedExpression::new_bool(first));
        }
        context
    }
}

/// A record. Cedar accepts it because the names differ. If it did not, the attribute would be a string, and evaluating the question
/// would fail.
fn record<const N: usize>(parts: [(&str, RestrictedExpression); N]) -> RestrictedExpression {
    record_of(parts.into_iter().map(|(name, value)| (name.to_owned(), value)))
}

fn record_of(named: impl IntoIterator<Item = (String, RestrictedExpression)>) -> RestrictedExpression {
    RestrictedExpression::new_record(named).unwrap_or_else(|_| RestrictedExpression::new_string(String::new()))
}
