//! `mayfly policy diff`: evaluates two sets of policies for the live agents and for the last day's decisions, and prints where the answers
//! differ.
//!
//! Each agent is asked about as if it were spawned, renewed, and given a token for each of its audiences at this moment. These answers are
//! evaluated here, so the issuer does nothing but list its agents. The issuer decides the decisions of its journal again.

use std::collections::BTreeMap;

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::decisions_client::DecisionsClient;
use mayfly_agent::api::v1::inspection_client::InspectionClient;
use mayfly_agent::api::v1::policies_client::PoliciesClient;
use prost_types::Timestamp;
use serde_json::{Value, json};

use super::{described_policy, read, set_message};
use crate::cli::connect::Channel;
use crate::cli::exit::Failure;
use crate::cli::found;
use crate::cli::output::{self, Format};
use crate::clock::Clock;
use crate::policies::{Action, AgentFacts, Ask, Decision, Facts, Live, Policies, Principal, Resource, UserFacts};

/// Attributes that are not known here, so that they count as absent.
const UNKNOWN: [&str; 5] = ["acr", "sign_in_age", "left", "budget", "first_use"];

/// The facts that the questions about all agents share.
struct World<'a> {
    agents: &'a [v1::Agent],
    by_id: BTreeMap<&'a str, &'a v1::Agent>,
    owners: &'a std::collections::HashMap<String, String>,
    providers: &'a std::collections::HashMap<String, String>,
    now: u64,
}

/// The living agents of each user, root, class and spawner.
type Counts = BTreeMap<(u8, String), u64>;

pub(super) async fn diff(channel: Channel, then: &Policies, since: Timestamp, format: Format) -> Result<(), Failure> {
    let request = v1::ReplayRequest { since: Some(since), candidate: Some(set_message(then)) };
    let decided = DecisionsClient::new(channel.clone()).replay(request).await?.into_inner();
    let got = PoliciesClient::new(channel.clone()).get_policies(v1::GetPoliciesRequest {}).await?.into_inner();
    let (agents, revision) = found::all(&mut InspectionClient::new(channel), false, "").await?;
    let now = read(got.in_force)?;
    let by_id = agents.iter().map(|agent| (agent.agent_id.as_str(), agent)).collect();
    let at = Clock::system().seconds();
    let world = World { agents: &agents, by_id, owners: &got.class_owners, providers: &got.providers, now: at };
    let counts = world.counts();
    let mut changes = Vec::new();
    for agent in &agents {
        world.ask(agent, &counts, |action, resource, ask| {
            let before = now.as_ref().map_or(Decision { allowed: true, ..Decision::default() }, |set| set.decide(ask));
            let after = then.decide(ask);
            if before.allowed != after.allowed {
                let by = |set: Option<&Policies>, decision: &Decision| {
                    let n = decision.failed.first().or(decision.policies.first()).copied();
                    set.and_then(|set| set.all().get(n?)).map(described_policy)
                };
                let word = |decision: &Decision| if decision.allowed { "allow" } else { "deny" };
                changes.push(json!({
                    "agent_id": agent.agent_id, "class": agent.class, "action": action.as_str(), "resource": resource,
                    "now": word(&before), "then": word(&after),
                    "policy": by(Some(then), &after).or_else(|| by(now.as_ref(), &before)),
                }));
            }
        });
    }
    let mentioned = |set: Option<&Policies>, name: &str| set.is_some_and(|set| set.mentions().context(name));
    let unknown: Vec<&str> =
        UNKNOWN.into_iter().filter(|name| mentioned(Some(then), name) || mentioned(now.as_ref(), name)).collect();
    let digest = |set: Option<&Policies>| set.map(|set| hex::encode(set.digest()));
    let whole = json!({
        "now": digest(now.as_ref()), "then": digest(Some(then)), "revision": revision, "agents": agents.len(), "changes": changes,
        "unknown": unknown, "decisions": decisions(&decided),
    });
    output::print(format, &whole, || {
        let mut lines = lines(agents.len(), &changes, &unknown);
        for d in &decided.differences {
            lines.push(format!("r{} {} of class {}", d.revision, d.action, d.class));
            lines.push(format!("  then {}", d.then));
            lines.push(format!("  with this set {}", d.now));
        }
        lines.push(format!("{} changes for {} decisions", decided.different, decided.decided));
        lines
    })
}

/// What the set would have changed.
fn decisions(decided: &v1::ReplayResponse) -> Value {
    let change = |d: &v1::ReplayDifference| {
        json!({ "revision": d.revision, "at": output::timestamp(d.at.as_ref()), "action": d.action, "agent_id": d.agent_id,
                "class": d.class, "then": d.then, "now": d.now })
    };
    json!({
        "decided": decided.decided, "different": decided.different, "not_replayed": decided.not_replayed,
        "policies_lost": decided.policies_lost, "changes": decided.differences.iter().map(change).collect::<Vec<_>>(),
    })
}

fn lines(agents: usize, changes: &[Value], unknown: &[&str]) -> Vec<String> {
    let text = |change: &Value, name: &str| change.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let line = |change: &Value| {
        let policy = change.get("policy").and_then(|policy| policy.get("id")).and_then(Value::as_str).unwrap_or("default");
        let part = |name| text(change, name);
        format!(
            "{} -> {}  {:<8} {}  {}  by {policy}",
            part("now"),
            part("then"),
            part("action"),
            part("resource"),
            part("agent_id")
        )
    };
    let mut lines: Vec<String> = changes.iter().map(line).collect();
    lines.push(format!("{} changes for {agents} living agents", changes.len()));
    if !unknown.is_empty() {
        lines.push(format!("not known here, so taken as absent: {}", unknown.join(", ")));
    }
    lines
}

impl<'a> World<'a> {
    fn counts(&self) -> Counts {
        let mut counts = Counts::new();
        for agent in self.agents {
            let user = agent.user.as_ref().map(|user| format!("{}\n{}", user.iss, user.sub)).unwrap_or_default();
            let keys = [(0, user), (1, agent.root_id.clone()), (2, agent.class.clone()), (3, agent.parent_id.clone())];
            keys.into_iter().for_each(|key| *counts.entry(key).or_default() += 1);
        }
        counts
    }

    /// Every question about an agent: its action, the name of its resource, and the question.
    fn ask(&self, agent: &'a v1::Agent, counts: &Counts, mut asked: impl FnMut(Action, &str, &Ask<'_>)) {
        let user = agent.user.as_ref().map(|user| UserFacts {
            provider: self.providers.get(&user.iss).unwrap_or(&user.iss),
            sub: &user.sub,
            groups: &[],
        });
        let count = |kind: u8, key: &str| counts.get(&(kind, key.to_owned())).copied().unwrap_or(0);
        let person = agent.user.as_ref().map(|user| format!("{}\n{}", user.iss, user.sub));
        let ends_at = agent.lease_expires_at.as_ref().and_then(|at| u64::try_from(at.seconds).ok()).unwrap_or(0);
        let mut facts = Facts {
            at: self.now,
            user,
            depth: agent.depth,
            scopes: &agent.scopes,
            audiences: &agent.audiences,
            lease: ends_at.saturating_sub(self.now),
            live: Live {
                user: person.map_or(0, |person| count(0, &person)),
                root: count(1, &agent.root_id),
                class: count(2, &agent.class),
                siblings: count(3, &agent.parent_id),
            },
            ..Facts::default()
        };
        let owner = self.owners.get(&agent.class).map_or("", String::as_str);
        let class = Resource::Class(&agent.class, owner);
        let itself = || Principal::Agent(self.agent(agent));
        let resource = format!("class/{}", agent.class);
        asked(
            Action::Renew,
            &resource,
            &Ask { action: Action::Renew, principal: itself(), resource: class, facts: facts.clone() },
        );
        for audience in &agent.audiences {
            facts.audiences = std::slice::from_ref(audience);
            for action in [Action::Mint, Action::Exchange] {
                let ask = Ask { action, principal: itself(), resource: Resource::Audience(audience), facts: facts.clone() };
                asked(action, &format!("audience/{audience}"), &ask);
            }
        }
        facts.audiences = &agent.audiences;
        // The counts as they were when its spawner asked: without this agent.
        let Live { user, root, class: of_class, siblings } = facts.live;
        let less = |n: u64| n.saturating_sub(1);
        facts.live = Live { user: less(user), root: less(root), class: less(of_class), siblings: less(siblings) };
        let principal = match self.by_id.get(agent.parent_id.as_str()) {
            Some(parent) => Principal::Agent(self.agent(parent)),
            None => Principal::Workload(workload(&agent.parent_id)),
        };
        asked(Action::Spawn, &resource, &Ask { action: Action::Spawn, principal, resource: class, facts });
    }

    fn agent(&self, agent: &'a v1::Agent) -> AgentFacts<'a> {
        let above = |id: &&'a v1::Agent| self.by_id.get(id.parent_id.as_str()).copied();
        let ancestors = std::iter::successors(Some(agent), above).skip(1).map(|agent| agent.agent_id.clone()).collect();
        AgentFacts { id: &agent.agent_id, class: &agent.class, root: workload(&agent.root_id), ancestors, depth: agent.depth }
    }
}

/// The name of a workload of ours, or the whole SPIFFE ID of a foreign one.
fn workload(id: &str) -> &str {
    id.rsplit_once("/workload/").map_or(id, |(_, name)| name)
}
