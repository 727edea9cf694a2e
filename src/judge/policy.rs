//! The authority of an agent: the requested one, limited by the class and by the delegation or the parent.

use std::collections::BTreeSet;

use mayfly_verify::{ClassName, Mode, User, Workload};

use super::approval::ApprovalRule;
use super::budget::Budget;
use super::dn::SubjectTemplate;
use crate::denial::{Denial, Kind};

/// A class of agents, as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// Its name.
    pub name: ClassName,
    /// The owner of its policy.
    pub owner: String,
    /// Ceiling of the scopes of its agents.
    pub scopes: BTreeSet<String>,
    /// Ceiling of the audiences of its agents.
    pub audiences: BTreeSet<String>,
    /// Lifetime of an X.509-SVID, in seconds.
    pub svid_ttl: u64,
    /// Longest lease of an agent, in seconds.
    pub max_lease: u64,
    /// Levels of agents that may be spawned below one of its agents.
    pub max_depth: u32,
    /// Whether its agents may act for users, for nobody, or both.
    pub modes: Vec<Mode>,
    /// Workloads that may spawn it.
    pub workloads: Vec<Workload>,
    /// Classes whose agents may spawn it.
    pub classes: Vec<ClassName>,
    /// Audiences whose access tokens may name the user and no actor.
    pub impersonates: BTreeSet<String>,
    /// The Subject of its agents' certificates. `None` means that it is empty.
    pub subject: Option<SubjectTemplate>,
    /// What its agents may do only after a person has approved it.
    pub approve: Vec<ApprovalRule>,
    /// The most that each of its agents may spend, together with all agents below it.
    pub budget: Budget,
}

/// The requested authority. An empty list asks for everything that can be given.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Scopes.
    pub scopes: Vec<String>,
    /// Audiences.
    pub audiences: Vec<String>,
    /// How long the agent may live, in seconds; 0 asks for as long as allowed.
    pub lease: u64,
    /// Levels below the agent. `None` asks for as many as allowed.
    pub depth: Option<u32>,
    /// Whether to give less than was asked for instead of denying the request.
    pub clip: bool,
    /// The mode. `None` means the mode that follows from the spawner.
    pub mode: Option<Mode>,
}

/// The spawner of a new agent, with its ceiling.
#[derive(Clone, Debug)]
pub enum Standing<'a> {
    /// A workload; `None` means no delegation, so the agent is autonomous.
    Workload(&'a Workload, Option<Grant<'a>>),
    /// An agent: its own authority is the ceiling. User and mode are inherited, never asked for.
    Agent(Parent<'a>),
}

/// The parts of a delegation that limit an agent.
#[derive(Clone, Debug)]
pub struct Grant<'a> {
    /// The delegating user.
    pub user: &'a User,
    /// Ceiling of scopes. `None` means that the delegation adds no ceiling.
    pub scopes: Option<&'a [String]>,
    /// Unix seconds at which it ends.
    pub ends_at: u64,
}

/// The parts of a spawning agent that limit its child.
#[derive(Clone, Debug)]
pub struct Parent<'a> {
    /// Its class.
    pub class: &'a ClassName,
    /// Its mode.
    pub mode: Mode,
    /// Its scopes.
    pub scopes: &'a [String],
    /// Its audiences.
    pub audiences: &'a [String],
    /// Levels of agents that may be spawned below it.
    pub depth_left: u32,
    /// Unix seconds.
    pub lease_ends_at: u64,
}

/// The authority that an agent gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit {
    /// Its mode.
    pub mode: Mode,
    /// Sorted.
    pub scopes: Vec<String>,
    /// Sorted.
    pub audiences: Vec<String>,
    /// Levels of agents that may be spawned below it.
    pub depth_left: u32,
    /// Unix seconds.
    pub lease_ends_at: u64,
    /// The parts of the request that are not given.
    pub clipped: Vec<String>,
}

/// Decides on a spawn: the agent gets what the request, the class, and the delegation or parent all allow. If the class has
/// scopes, at least one must be left.
///
/// `now` is in Unix seconds.
pub fn decide_spawn(class: &Class, by: &Standing<'_>, asked: &Asked, now: u64) -> Result<Permit, Denial> {
    check_spawner(class, by)?;
    let mode = match by {
        Standing::Workload(_, Some(_)) => Mode::Delegated,
        Standing::Workload(_, None) => Mode::Autonomous,
        Standing::Agent(parent) => parent.mode,
    };
    // A spawner without the user's token must not get an autonomous agent by leaving the token out.
    if mode == Mode::Autonomous
        && asked.mode.is_none()
        && class.modes.contains(&Mode::Delegated)
        && matches!(by, Standing::Workload(..))
    {
        let message =
            format!("class `{}` has delegated and autonomous agents: give a user token, or say `autonomous`", class.name);
        return Err(Denial::denied("MODE_NOT_ALLOWED", message));
    }
    if asked.mode.is_some_and(|asked| asked != mode) {
        let message = format!("this spawner's agents here are `{}`: leave the mode out", mode.as_str());
        return Err(Denial::denied("MODE_NOT_ALLOWED", message));
    }
    if !class.modes.contains(&mode) {
        let message = match mode {
            Mode::Autonomous => format!("class `{}` has no autonomous agents: give a user token", class.name),
            Mode::Delegated => format!("class `{}` acts for nobody: leave the user token out", class.name),
        };
        return Err(Denial::denied("MODE_NOT_ALLOWED", message));
    }
    let (scope_limit, audience_limit, ends_at, deepest) = match by {
        Standing::Workload(_, Some(grant)) => (grant.scopes, None, grant.ends_at, u32::MAX),
        Standing::Workload(_, None) => (None, None, u64::MAX, u32::MAX),
        Standing::Agent(p) => (Some(p.scopes), Some(p.audiences), p.lease_ends_at, p.depth_left.saturating_sub(1)),
    };
    let mut clipped = Vec::new();
    let within = |limit: Option<&[String]>, item: &String| limit.is_none_or(|limit| limit.contains(item));
    let scopes = intersect("scope", &asked.scopes, &class.scopes, |s| within(scope_limit, s), &mut clipped);
    let audiences = intersect("audience", &asked.audiences, &class.audiences, |a| within(audience_limit, a), &mut clipped);

    let most = ends_at.saturating_sub(now).min(class.max_lease);
    let lease = if asked.lease == 0 { most } else { asked.lease.min(most) };
    if asked.lease > most {
        clipped.push(format!("lease:{}", asked.lease));
    }
    let deepest = deepest.min(class.max_depth);
    let depth_left = asked.depth.unwrap_or(deepest).min(deepest);
    if asked.depth.is_some_and(|d| d > deepest) {
        clipped.push(format!("depth:{}", asked.depth.unwrap_or_default()));
    }
    if !asked.clip
        && let Some(first) = clipped.first()
    {
        let all = clipped.join(" ");
        let above = if matches!(by, Standing::Agent(_)) { "parent" } else { "delegation" };
        let message =
            format!("`{first}` is more than class `{}` and the {above} allow: ask for less, or ask to clip", class.name);
        return Err(Denial::denied("EXCEEDS_AUTHORITY", message).with("excess", all));
    }
    if lease == 0 {
        return Err(match by {
            Standing::Agent(_) => Denial::denied("LEASE_EXPIRED", "the parent's lease has ended: so has its right to spawn"),
            Standing::Workload(..) => Denial::denied("DELEGATION_EXPIRED", "the delegation has ended: bring a fresh user token"),
        });
    }
    if scopes.is_empty() && !class.scopes.is_empty() {
        return Err(Denial::denied(
            "NOTHING_LEFT",
            "no scope is left after the intersection: ask for what the class and the spawner allow",
        ));
    }
    Ok(Permit { mode, scopes, audiences, depth_left, lease_ends_at: now.saturating_add(lease), clipped })
}

fn check_spawner(class: &Class, by: &Standing<'_>) -> Result<(), Denial> {
    match by {
        Standing::Workload(name, _) if !class.workloads.contains(name) => {
            let message = format!("workload `{name}` may not spawn class `{}`: its owner can add it to `spawners`", class.name);
            Err(Denial::denied("SPAWNER_NOT_ALLOWED", message))
        }
        Standing::Agent(parent) if !class.classes.contains(parent.class) => {
            let message = format!(
                "an agent of class `{}` may not spawn class `{}`: its owner can add `class/{0}` to `spawners`",
                parent.class, class.name
            );
            Err(Denial::denied("SPAWNER_NOT_ALLOWED", message))
        }
        // T86: agents beyond the depth limit are denied here, so that revocation has no depth limit.
        Standing::Agent(parent) if parent.depth_left == 0 => {
            Err(Denial::denied("DEPTH_EXHAUSTED", "no agents may stand below this one: its depth is used up"))
        }
        _ => Ok(()),
    }
}

/// The authority that an agent keeps when its credentials are renewed or minted: its own, limited by the present configuration of
/// its class.
pub fn decide_again(class: Option<&Class>, scopes: &[String], audiences: &[String]) -> Result<Kept, Denial> {
    let class = class.ok_or_else(|| Denial::denied("CLASS_UNKNOWN", "the agent's class is no longer configured"))?;
    let kept: Vec<String> = scopes.iter().filter(|s| class.scopes.contains(*s)).cloned().collect();
    if kept.is_empty() && !scopes.is_empty() {
        return Err(Denial::denied("NOTHING_LEFT", "the agent's class no longer allows any of its scopes"));
    }
    let audiences = audiences.iter().filter(|a| class.audiences.contains(*a)).cloned().collect();
    Ok(Kept { scopes: kept, audiences })
}

/// The remaining authority of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Sorted.
    pub scopes: Vec<String>,
    /// Sorted.
    pub audiences: Vec<String>,
}

/// Decides on a mint: the audience must be in the agent's own list and still in that of its class.
pub fn decide_mint(class: Option<&Class>, own: &[String], audience: &str) -> Result<(), Denial> {
    let Some(class) = class else {
        return Err(Denial::denied("CLASS_UNKNOWN", "the agent's class is no longer configured"));
    };
    if own.iter().any(|a| a == audience) && class.audiences.contains(audience) {
        return Ok(());
    }
    let message = format!("audience `{}` is not among those of this agent", audience.chars().take(256).collect::<String>());
    Err(Denial::denied("AUDIENCE_NOT_ALLOWED", message))
}

/// The denial for a user token that an agent presents.
pub fn token_of_agent() -> Denial {
    let message = "an agent's children act for the agent's own user: leave the user token out";
    Denial::denied("USER_TOKEN_OF_AGENT", message)
}

/// An unknown class.
pub fn unknown_class(name: &ClassName) -> Denial {
    Denial::new(
        Kind::NotFound,
        "CLASS_UNKNOWN",
        format!("class `{name}` is not configured: add it to the file, or ask for another"),
    )
}

fn intersect(
    kind: &str,
    asked: &[String],
    class: &BTreeSet<String>,
    granted: impl Fn(&String) -> bool,
    clipped: &mut Vec<String>,
) -> Vec<String> {
    if asked.is_empty() {
        return class.iter().filter(|s| granted(s)).cloned().collect();
    }
    let (kept, lost): (BTreeSet<&String>, BTreeSet<&String>) = asked.iter().partition(|s| class.contains(*s) && granted(s));
    clipped.extend(lost.into_iter().map(|s| format!("{kind}:{s}")));
    kept.into_iter().cloned().collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    fn class() -> Class {
        Class {
            name: "researcher".parse().unwrap(),
            owner: "team".into(),
            scopes: ["a", "b", "c"].map(String::from).into(),
            audiences: ["https://x"].map(String::from).into(),
            svid_ttl: 900,
            max_lease: 3600,
            max_depth: 2,
            modes: vec![Mode::Delegated],
            workloads: vec!["orchestrator".parse().unwrap()],
            classes: vec![],
            impersonates: Default::default(),
            subject: None,
            approve: vec![],
            budget: Budget::default(),
        }
    }

    fn user() -> User {
        User { iss: "https://idp".into(), sub: "demo".into() }
    }

    #[test]
    fn asking_for_more_is_denied_and_clipping_reports_it() {
        let (user, by) = (user(), "orchestrator".parse().unwrap());
        let grant = Grant { user: &user, scopes: None, ends_at: 100_000 };
        let mut asked = Asked { scopes: vec!["a".into(), "z".into()], ..Asked::default() };
        let denial = decide_spawn(&class(), &Standing::Workload(&by, Some(grant.clone())), &asked, 0).unwrap_err();
        assert_eq!((denial.code, denial.facts), ("EXCEEDS_AUTHORITY", vec![("excess", "scope:z".to_owned())]));
        asked.clip = true;
        let permit = decide_spawn(&class(), &Standing::Workload(&by, Some(grant.clone())), &asked, 0).unwrap();
        assert_eq!((permit.scopes, permit.clipped), (vec!["a".to_owned()], vec!["scope:z".to_owned()]));
    }

    #[test]
    fn nobody_spawns_unlisted_and_nobody_is_autonomous_unasked() {
        let (user, grant_end) = (user(), 100);
        let grant = Grant { user: &user, scopes: None, ends_at: grant_end };
        let other = "other".parse().unwrap();
        let code = |by: &Standing<'_>, now| decide_spawn(&class(), by, &Asked::default(), now).unwrap_err().code;
        assert_eq!(code(&Standing::Workload(&other, Some(grant.clone())), 0), "SPAWNER_NOT_ALLOWED");
        let by = "orchestrator".parse().unwrap();
        assert_eq!(code(&Standing::Workload(&by, None), 0), "MODE_NOT_ALLOWED");
        assert_eq!(code(&Standing::Workload(&by, Some(grant)), 100), "DELEGATION_EXPIRED");
    }

    proptest! {
        /// T16: authority only shrinks, and no lease outlives class or delegation.
        #[test]
        fn t16_authority_only_shrinks(
            scopes in proptest::collection::vec("[a-e]", 0..5),
            limit in proptest::option::of(proptest::collection::vec("[a-e]", 0..5)),
            lease in prop_oneof![Just(0u64), 1..10_000u64, Just(u64::MAX)],
            depth in proptest::option::of(0u32..5),
            clip in any::<bool>(),
            ends_at in 0u64..10_000, now in 0u64..10_000,
        ) {
            let (class, user, by) = (class(), user(), "orchestrator".parse().unwrap());
            let grant = Grant { user: &user, scopes: limit.as_deref(), ends_at };
            let asked = Asked { scopes: scopes.clone(), lease, depth, clip, ..Asked::default() };
            if let Ok(permit) = decide_spawn(&class, &Standing::Workload(&by, Some(grant)), &asked, now) {
                prop_assert!(permit.lease_ends_at <= ends_at && permit.lease_ends_at <= now + class.max_lease && permit.lease_ends_at > now);
                prop_assert!(permit.depth_left <= class.max_depth);
                for scope in &permit.scopes {
                    prop_assert!(class.scopes.contains(scope));
                    prop_assert!(limit.as_ref().is_none_or(|l| l.contains(scope)));
                    prop_assert!(scopes.is_empty() || scopes.contains(scope));
                }
                prop_assert!(clip || permit.clipped.is_empty());
                prop_assert!(permit.scopes.is_sorted());
            }
        }

        /// T16, T86: a child is no more than its parent on any axis, whatever it asks for.
        #[test]
        fn t16_a_child_is_no_more_than_its_parent(
            own in proptest::collection::btree_set("[a-e]", 0..5),
            scopes in proptest::collection::vec("[a-e]", 0..5),
            lease in prop_oneof![Just(0u64), 1..10_000u64, Just(u64::MAX)],
            depth in proptest::option::of(0u32..5),
            clip in any::<bool>(), depth_left in 0u32..4,
            lease_ends_at in 0u64..10_000, now in 0u64..10_000,
        ) {
            let mut class = class();
            class.classes = vec!["parent".parse().unwrap()];
            let own: Vec<String> = own.into_iter().collect();
            let name = "parent".parse().unwrap();
            let parent = Parent { class: &name, mode: Mode::Delegated, scopes: &own, audiences: &[], depth_left, lease_ends_at };
            let asked = Asked { scopes, lease, depth, clip, ..Asked::default() };
            if let Ok(permit) = decide_spawn(&class, &Standing::Agent(parent), &asked, now) {
                prop_assert!(permit.scopes.iter().all(|s| own.contains(s) && class.scopes.contains(s)));
                prop_assert!(permit.audiences.is_empty());
                prop_assert!(permit.depth_left < depth_left && permit.depth_left <= class.max_depth);
                prop_assert!(permit.lease_ends_at <= lease_ends_at && permit.lease_ends_at > now);
            }
        }
    }
}
