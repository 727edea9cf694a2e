//! Room 3: what is allowed. Pure: the same question always gets the same answer.

use std::collections::BTreeSet;

use mayfly_verify::{ClassName, Mode, User, WorkloadName};

use crate::denial::{Denial, Kind};

/// A class of agents, as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// Its name.
    pub name: ClassName,
    /// Who answers for it.
    pub owner: String,
    /// Ceiling: what its agents may do.
    pub scopes: BTreeSet<String>,
    /// Ceiling: whom its agents may address.
    pub audiences: BTreeSet<String>,
    /// Seconds an X.509-SVID lasts.
    pub svid_ttl: u64,
    /// Seconds an agent may live at most.
    pub max_lease: u64,
    /// Levels of agents that may stand below one of its agents.
    pub max_depth: u32,
    /// By which right its agents may exist.
    pub modes: Vec<Mode>,
    /// Workloads that may spawn it.
    pub workloads: Vec<WorkloadName>,
    /// Classes whose agents may spawn it.
    pub classes: Vec<ClassName>,
}

/// What is asked for; an empty list asks for all that can be given.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Scopes.
    pub scopes: Vec<String>,
    /// Audiences.
    pub audiences: Vec<String>,
    /// Seconds; 0: as long as allowed.
    pub lease: u64,
    /// Levels below; none: as many as allowed.
    pub depth: Option<u32>,
    /// Give what can be given instead of denying.
    pub clip: bool,
}

/// What the user lets the workload do, as far as policy needs it.
#[derive(Clone, Debug)]
pub struct Grant<'a> {
    /// Whose.
    pub user: &'a User,
    /// Ceiling of scopes; none: no ceiling of its own.
    pub scopes: Option<&'a [String]>,
    /// Unix seconds at which it ends.
    pub ends_at: u64,
}

/// What an agent gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit {
    /// By which right.
    pub mode: Mode,
    /// Sorted.
    pub scopes: Vec<String>,
    /// Sorted.
    pub audiences: Vec<String>,
    /// Levels of agents that may stand below it.
    pub depth_left: u32,
    /// Unix seconds.
    pub lease_ends_at: u64,
    /// What was asked for and not given.
    pub clipped: Vec<String>,
}

/// Decides on a spawn by a workload: effective = asked ∩ class ∩ delegation, and never empty.
///
/// `now` is in unix seconds.
pub fn decide_spawn(
    class: &Class,
    by: &WorkloadName,
    grant: Option<&Grant<'_>>,
    asked: &Asked,
    now: u64,
) -> Result<Permit, Denial> {
    if !class.workloads.contains(by) {
        let message = format!("workload `{by}` may not spawn class `{}`: its owner can add it to `spawners`", class.name);
        return Err(Denial::denied("SPAWNER_NOT_ALLOWED", message));
    }
    let mode = if grant.is_some() { Mode::Delegated } else { Mode::Autonomous };
    if !class.modes.contains(&mode) {
        let message = match mode {
            Mode::Autonomous => format!("class `{}` has no autonomous agents: give a user token", class.name),
            Mode::Delegated => format!("class `{}` acts for nobody: leave the user token out", class.name),
        };
        return Err(Denial::denied("MODE_NOT_ALLOWED", message));
    }
    let mut clipped = Vec::new();
    let granted = |scope: &String| grant.and_then(|g| g.scopes).is_none_or(|limit| limit.contains(scope));
    let scopes = intersect("scope", &asked.scopes, &class.scopes, granted, &mut clipped);
    let audiences = intersect("audience", &asked.audiences, &class.audiences, |_| true, &mut clipped);

    let most = grant.map_or(u64::MAX, |g| g.ends_at.saturating_sub(now)).min(class.max_lease);
    let lease = if asked.lease == 0 { most } else { asked.lease.min(most) };
    if asked.lease > most {
        clipped.push(format!("lease:{}", asked.lease));
    }
    let depth_left = asked.depth.unwrap_or(class.max_depth).min(class.max_depth);
    if asked.depth.is_some_and(|d| d > class.max_depth) {
        clipped.push(format!("depth:{}", asked.depth.unwrap_or_default()));
    }
    if !asked.clip
        && let Some(first) = clipped.first()
    {
        let all = clipped.join(" ");
        let message =
            format!("`{first}` is more than class `{}` and the delegation allow: ask for less, or ask to clip", class.name);
        return Err(Denial::denied("EXCEEDS_AUTHORITY", message).with("excess", all));
    }
    if lease == 0 {
        return Err(Denial::denied("DELEGATION_EXPIRED", "the delegation has ended: bring a fresh user token"));
    }
    if scopes.is_empty() && !class.scopes.is_empty() {
        return Err(Denial::denied(
            "NOTHING_LEFT",
            "no scope is left after the intersection: ask for what the class and the user allow",
        ));
    }
    Ok(Permit { mode, scopes, audiences, depth_left, lease_ends_at: now.saturating_add(lease), clipped })
}

/// Decides on a mint: the audience stands in the agent's own list and still in its class's.
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
        let denial = decide_spawn(&class(), &by, Some(&grant), &asked, 0).unwrap_err();
        assert_eq!((denial.code, denial.facts), ("EXCEEDS_AUTHORITY", vec![("excess", "scope:z".to_owned())]));
        asked.clip = true;
        let permit = decide_spawn(&class(), &by, Some(&grant), &asked, 0).unwrap();
        assert_eq!((permit.scopes, permit.clipped), (vec!["a".to_owned()], vec!["scope:z".to_owned()]));
    }

    #[test]
    fn nobody_spawns_unlisted_and_nobody_is_autonomous_unasked() {
        let (user, grant_end) = (user(), 100);
        let grant = Grant { user: &user, scopes: None, ends_at: grant_end };
        let other = "other".parse().unwrap();
        assert_eq!(decide_spawn(&class(), &other, Some(&grant), &Asked::default(), 0).unwrap_err().code, "SPAWNER_NOT_ALLOWED");
        let by = "orchestrator".parse().unwrap();
        assert_eq!(decide_spawn(&class(), &by, None, &Asked::default(), 0).unwrap_err().code, "MODE_NOT_ALLOWED");
        assert_eq!(decide_spawn(&class(), &by, Some(&grant), &Asked::default(), 100).unwrap_err().code, "DELEGATION_EXPIRED");
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
            if let Ok(permit) = decide_spawn(&class, &by, Some(&grant), &asked, now) {
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
    }
}
