//! Where each scope and audience of an agent came from, or what removed it.

use std::collections::BTreeSet;

use super::rows::Matter;
use super::told::Part;
use crate::judge::{Judgement, Section, Source};
use crate::state::{Agent, View};

/// A ceiling that every scope or audience must pass.
struct Stage {
    source: Source,
    /// The names that pass. `None` means all.
    allows: Option<Vec<String>>,
    /// Whether it is listed as a source of the names that pass.
    gives: bool,
}

/// Each name with its sources, or with the first stage that removed it.
fn parts(names: impl IntoIterator<Item = String>, stages: &[Stage]) -> Vec<Part> {
    let names: BTreeSet<String> = names.into_iter().collect();
    let part = |name: String| {
        let removed = stages.iter().find(|stage| stage.allows.as_ref().is_some_and(|allowed| !allowed.contains(&name)));
        let from = match removed {
            Some(_) => Vec::new(),
            None => stages.iter().filter(|stage| stage.gives).map(|stage| stage.source.clone()).collect(),
        };
        Part { name, from, removed_by: removed.map(|stage| stage.source.clone()) }
    };
    names.into_iter().map(part).collect()
}

/// The scopes and audiences of a spawn: those that the request asks for, and those that the class allows. `granted` is the ceiling
/// of the user's token or delegation.
pub(super) fn of_spawn(j: &Judgement<'_>, matter: &Matter<'_>, granted: Option<&[String]>) -> (Vec<Part>, Vec<Part>) {
    let (Some(asked), Some(class)) = (matter.asked, matter.class.and_then(|class| j.rules().classes.get(class))) else {
        return (Vec::new(), Vec::new());
    };
    let of = |key: &str, asked: &[String], ceiling: &BTreeSet<String>, above: Option<&[String]>| {
        let request = Stage {
            source: matter.places.record("request".to_owned(), Some(&matter.caller.scope())),
            allows: (!asked.is_empty()).then(|| asked.to_vec()),
            gives: false,
        };
        let class = Stage { source: matter.class(Some(key)), allows: Some(ceiling.iter().cloned().collect()), gives: true };
        let by_grant = matter.agent.is_some() || matter.user.is_some();
        let grant = Stage { source: matter.grant(j.rules()), allows: above.map(<[String]>::to_vec), gives: by_grant };
        parts(asked.iter().chain(ceiling).cloned(), &[request, class, grant])
    };
    let parent = matter.agent.map(|parent| &parent.mandate);
    let scopes = of("scopes", &asked.scopes, &class.scopes, parent.map(|p| p.scopes.as_slice()).or(granted));
    let audiences = of("audiences", &asked.audiences, &class.audiences, parent.map(|p| p.audiences.as_slice()));
    (scopes, audiences)
}

/// The scopes and audiences of an agent: those that it was given, and those that its class allows now.
pub(super) fn of_agent(j: &Judgement<'_>, matter: &Matter<'_>, agent: &Agent) -> (Vec<Part>, Vec<Part>) {
    let of = |key: &str, own: &dyn Fn(&Agent) -> Vec<String>, ceiling: &dyn Fn(&mayfly_verify::ClassName) -> Vec<String>| {
        let held = own(agent);
        let owner = matter.class(None).owner;
        let mut stages =
            vec![Stage { source: matter.class(Some(key)), allows: Some(ceiling(&agent.mandate.class)), gives: true }];
        for (above, parent) in agent.ancestors().enumerate() {
            let Some(parent) = View::agent(j.view(), &parent) else { continue };
            let class = parent.mandate.class.as_str();
            let whose = matter.places.of(Section::Classes, class, None).owner;
            let admission = format!("admission r{} of agent {}", parent.revision, parent.uuid);
            let source = matter.places.record(admission, Some(&whose));
            stages.push(Stage { source, allows: Some(own(parent)), gives: above == 0 });
            let source = matter.places.of(Section::Classes, class, Some(key));
            stages.push(Stage { source, allows: Some(ceiling(&parent.mandate.class)), gives: false });
        }
        if let Some(delegation) = &agent.delegation {
            let allows = delegation.scopes.clone().filter(|_| key == "scopes");
            let gives = agent.lineage.is_none();
            stages.push(Stage { source: matter.grant(j.rules()), allows, gives });
        }
        // The remaining names were not requested, or not given when the agent was admitted or renewed.
        let admission = format!("admission r{}, which did not ask for it or was not given it", agent.revision);
        stages.push(Stage { source: matter.places.record(admission, Some(&owner)), allows: Some(held.clone()), gives: false });
        parts(held.into_iter().chain(ceiling(&agent.mandate.class)), &stages)
    };
    let class = |name: &mayfly_verify::ClassName| j.rules().classes.get(name);
    let scopes = of("scopes", &|agent| agent.mandate.scopes.clone(), &|name| {
        class(name).map(|class| class.scopes.iter().cloned().collect()).unwrap_or_default()
    });
    let audiences = of("audiences", &|agent| agent.mandate.audiences.clone(), &|name| {
        class(name).map(|class| class.audiences.iter().cloned().collect()).unwrap_or_default()
    });
    (scopes, audiences)
}
