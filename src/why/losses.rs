//! What a set of policies would take from a live agent: its renewal, and tokens for its audiences, which the set in force leaves to it.

use super::what_if::Loss;
use crate::denial::Denial;
use crate::judge::{Judgement, Rules, Source, Use};
use crate::policies::Action;
use crate::state::{Agent, State};

/// Everything that an agent may do under the first rules and not under the second, which differ in their policies.
pub(super) fn losses(state: &State, (now, then): (&Rules, &Rules), agent: &Agent, at: u64) -> Vec<Loss> {
    let (before, after) = (Judgement::new(state, now, at), Judgement::new(state, then, at));
    // Without its authority it can do nothing already.
    let Ok(kept) = before.authority_left(agent) else { return Vec::new() };
    let mut losses = Vec::new();
    let mut ask = |of: Use<'_>| {
        if let Err(denial) = after.policies_on_use(agent, of)
            && before.policies_on_use(agent, of).is_ok()
        {
            let audience = of.audience.unwrap_or_default().to_owned();
            let (policy, source) = by(then, &denial);
            losses.push(Loss { action: of.action, audience, policy, source });
        }
    };
    if !agent.is_keyless() {
        ask(Use { action: Action::Renew, audience: None, scopes: &kept.scopes, audiences: &kept.audiences });
    }
    for audience in &kept.audiences {
        for action in [Action::Mint, Action::Exchange] {
            let audiences = std::slice::from_ref(audience);
            ask(Use { action, audience: Some(audience), scopes: &kept.scopes, audiences });
        }
    }
    losses
}

/// The policy behind a denial, and where it is. The id is empty if no policy permits what was asked for.
fn by(rules: &Rules, denial: &Denial) -> (String, Source) {
    let fact = |name: &str| denial.facts.iter().find(|(fact, _)| *fact == name).map(|(_, value)| value.clone());
    let id = fact("policy").unwrap_or_default();
    let policy = rules.policies.as_ref().and_then(|set| set.all().iter().find(|policy| policy.id == id));
    match policy {
        Some(policy) => (id, Source { at: policy.place(), key: format!("policy {}", policy.id), owner: policy.owner.clone() }),
        None => {
            let owner = fact("owner").unwrap_or_default();
            (String::new(), Source { at: String::new(), key: crate::policies::SET.to_owned(), owner })
        }
    }
}
