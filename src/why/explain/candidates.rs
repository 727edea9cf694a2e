//! The possible changes for a denied spawn, and which of them can affect a given denial.

use mayfly_verify::{Mode, Target};

use super::change::{Case, Change};
use crate::caller::Caller;
use crate::judge::limits::Spawner;
use crate::judge::policy::Class;
use crate::judge::{Check, Judgement, Proof, Rules, Usage};
use crate::state::View;

/// Most other classes and audiences that are tried.
const OTHERS: usize = 8;

/// How much of each limit is used that a spawn would be charged to.
pub fn uses(j: &Judgement<'_>, case: &Case) -> Vec<Usage> {
    let parent = case.parent(j);
    let lineage = parent.map(|parent| parent.lineage_below());
    let user = match parent {
        Some(parent) => parent.delegation.as_ref().map(|delegation| delegation.user_subject()),
        None => case.user().map(|user| j.view().subject(&Target::User(user.clone()))),
    };
    let workload = parent.map(|parent| parent.mandate.workload.clone()).or_else(|| case.caller.workload());
    let Some(workload) = workload else { return Vec::new() };
    j.uses(&Spawner {
        user,
        workload: j.view().subject(&Target::Workload(workload)),
        class: j.view().subject(&Target::Class(case.act.class.clone())),
        agents: lineage.as_ref().map_or(&[], |lineage| lineage.agents.as_slice()),
    })
}

/// Every change that may change the denial of a spawn, alone or with others.
pub fn candidates(j: &Judgement<'_>, case: &Case) -> Vec<Change> {
    let (rules, asked) = (&case.rules, &case.act.asked);
    let Some(class) = rules.classes.get(&case.act.class) else {
        return rules.classes.keys().take(OTHERS).cloned().map(Change::Class).collect();
    };
    let mut changes = Vec::new();
    let uses = uses(j, case);
    // This change comes first, because a sign-in after it must last from the later time.
    changes.extend(uses.iter().filter_map(|of| of.retry).max().map(Change::Later));
    changes.extend(uses.iter().filter(|of| of.used >= of.most).map(|of| Change::Limit(of.limit, of.used.saturating_add(1))));
    let name = || class.name.clone();
    let (granted, parent) = (case.granted(), case.parent(j));
    let wanted: Vec<&String> = if asked.scopes.is_empty() {
        class.scopes.iter().chain(granted.unwrap_or_default()).collect()
    } else {
        asked.scopes.iter().collect()
    };
    for scope in wanted {
        if !class.scopes.contains(scope) {
            changes.push(Change::ClassScope(name(), scope.clone()));
        }
        if granted.is_some_and(|granted| !granted.contains(scope)) {
            changes.push(Change::SignInScope(scope.clone()));
        }
    }
    let audiences = asked.audiences.iter().chain(&case.act.audience);
    changes.extend(audiences.filter(|a| !class.audiences.contains(*a)).map(|a| Change::ClassAudience(name(), a.clone())));
    if let Some(audience) = &case.act.audience {
        let others = class.audiences.iter().filter(|other| *other != audience).take(OTHERS);
        changes.extend(others.cloned().map(Change::Audience));
    }
    if asked.lease > class.max_lease {
        changes.push(Change::ClassLease(name(), asked.lease));
    }
    changes.extend(asked.depth.filter(|depth| *depth > class.max_depth).map(|depth| Change::ClassDepth(name(), depth)));
    let some = !asked.scopes.is_empty() || !asked.audiences.is_empty() || asked.lease > 0 || asked.depth.is_some();
    if some && !asked.clip {
        changes.push(Change::Clip);
    }
    modes(&mut changes, case, class, parent.map(|parent| parent.mode()));
    let listed = match parent {
        Some(parent) => class.classes.contains(&parent.mandate.class),
        None => case.caller.workload().is_none_or(|workload| class.workloads.contains(&workload)),
    };
    if !listed {
        let spawner = match parent {
            Some(parent) => format!("class/{}", parent.mandate.class),
            None => case.caller.scope(),
        };
        changes.push(Change::ClassSpawner(name(), spawner));
    }
    people(&mut changes, j, case);
    changes.dedup();
    // Any policy may decide once others are lifted or the request is another one.
    let policies = rules.policies.as_ref().map_or(0, |set| set.all().len());
    changes.extend((0..policies).map(Change::Policy));
    changes
}

/// Changes of the mode.
fn modes(changes: &mut Vec<Change>, case: &Case, class: &Class, inherited: Option<Mode>) {
    let asked = &case.act.asked;
    let mode = inherited.unwrap_or(if case.act.proof.is_some() { Mode::Delegated } else { Mode::Autonomous });
    if !class.modes.contains(&mode) {
        changes.push(Change::ClassMode(class.name.clone(), mode));
    }
    if asked.mode.is_some_and(|asked| asked != mode) {
        changes.push(Change::AnyMode);
    }
    if inherited.is_some() {
        return;
    }
    let autonomous = case.act.proof.is_none() && asked.mode == Some(Mode::Autonomous);
    if class.modes.contains(&Mode::Autonomous) && !autonomous {
        changes.push(Change::Autonomous);
    }
    if class.modes.contains(&Mode::Delegated) && case.user().is_none() && !case.rules.issuers.is_empty() {
        changes.push(Change::UserToken);
    }
}

/// Changes by the user and by operators.
fn people(changes: &mut Vec<Change>, j: &Judgement<'_>, case: &Case) {
    let parent = case.parent(j);
    let delegator = parent.and_then(|parent| parent.delegation.as_ref()).map(|delegation| &delegation.user);
    if let Some(user) = delegator.or_else(|| case.user()).filter(|user| !case.rules.issuers.contains_key(&user.iss)) {
        changes.push(Change::Provider(user.iss.clone()));
    }
    if case.user().is_some() {
        changes.push(Change::SignIn);
    }
    let workload = parent.map(|parent| parent.mandate.workload.clone()).or_else(|| case.caller.workload());
    if let (Some(Proof::Token { .. }), Some(workload)) = (&case.act.proof, &workload)
        && case.ceiling().is_some_and(|ceiling| !ceiling.workloads.contains(workload))
    {
        changes.push(Change::SignInFor(workload.clone()));
    }
    let user = case.user().cloned().into_iter().flat_map(|user| [Target::Issuer(user.iss.clone()), Target::User(user)]);
    let targets = user.chain(workload.map(Target::Workload)).chain([Target::Class(case.act.class.clone())]);
    changes.extend(targets.filter(|target| j.view().is_closed(target)).map(Change::Reopen));
}

/// Whether a change can make a difference to a spawn that failed at a check.
pub fn matters(change: &Change, check: Check, rules: &Rules) -> bool {
    let signs_in = matches!(change, Change::SignIn | Change::SignInScope(_) | Change::SignInFor(_));
    // Acting for another user or for nobody changes the grant, the ceilings, the counts and the claims.
    let other = matches!(change, Change::UserToken | Change::Autonomous);
    match check {
        Check::ClassKnown => matches!(change, Change::Class(_)),
        Check::Grant => {
            signs_in || other || matches!(change, Change::Provider(_) | Change::Reopen(Target::User(_) | Target::Issuer(_)))
        }
        Check::Authority => {
            let class = matches!(
                change,
                Change::ClassScope(..)
                    | Change::ClassAudience(..)
                    | Change::ClassSpawner(..)
                    | Change::ClassMode(..)
                    | Change::ClassLease(..)
                    | Change::ClassDepth(..)
            );
            class || signs_in || other || matches!(change, Change::Clip | Change::AnyMode)
        }
        Check::WorkloadOpen => matches!(change, Change::Reopen(Target::Workload(_))),
        Check::ClassOpen => matches!(change, Change::Reopen(Target::Class(_))),
        Check::Audience => matches!(change, Change::ClassAudience(..) | Change::Audience(_)),
        Check::Claims | Check::Subject | Check::BindingSize => other || matches!(change, Change::Audience(_) | Change::Clip),
        Check::Policies | Check::Policy(_) => {
            // The policy that decides can be lifted. Other changes make another question of it.
            let lifts = matches!((change, check), (Change::Policy(of), Check::Policy(decides)) if *of == decides);
            let mentioned =
                |names: &[&str]| rules.policies.as_ref().is_some_and(|set| names.iter().any(|name| set.mentions().context(name)));
            lifts
                || other
                || signs_in
                || match change {
                    Change::Class(_) | Change::Audience(_) | Change::Clip => true,
                    Change::ClassScope(..) => mentioned(&["scopes"]),
                    Change::ClassAudience(..) => mentioned(&["audiences"]),
                    Change::ClassLease(..) => mentioned(&["lease"]),
                    Change::Limit(..) => mentioned(&["left"]),
                    Change::Later(_) => mentioned(&["time", "lease", "left", "budget", "sign_in_age", "live"]),
                    _ => false,
                }
        }
        Check::Limit(index) => {
            other || matches!(change, Change::Later(_)) || matches!(change, Change::Limit(of, _) if *of == index)
        }
        _ => false,
    }
}

impl Case {
    /// The agent that spawns. `None` if a workload does.
    pub fn parent<'a>(&self, j: &'a Judgement<'_>) -> Option<&'a crate::state::Agent> {
        match &self.caller {
            Caller::Agent { id, .. } => j.view().agent(&id.uuid),
            _ => None,
        }
    }
}
