//! Another set of policies, and what it would take from a live agent: its renewal, and tokens for its audiences, which the set in force
//! leaves to it.

use std::sync::Arc;

use crate::denial::Denial;
use crate::judge::{Judgement, Rules, Source, Use};
use crate::policies::{Action, Policies};
use crate::state::{Agent, State};

/// Longest message about the faults of a set of policies.
const FAULTS: usize = 1000;

/// What an agent could not do any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// A renewal, without which the agent ends, a token or an access token.
    pub action: Action,
    /// The audience of the token; empty for a renewal.
    pub audience: String,
    /// The policy that would forbid it or could not be evaluated; empty if no policy would permit it.
    pub policy: String,
    /// Where that is, and who owns it.
    pub source: Source,
}

/// The set in force, and another one.
pub struct Losses {
    now: Rules,
    then: Rules,
    /// The time of the question, Unix microseconds.
    at: u64,
}

impl Losses {
    /// With `set` in the place of the set of `rules`.
    pub(super) fn new(rules: &Rules, set: Arc<Policies>, at: u64) -> Losses {
        let now = Rules { shadow: None, ..rules.clone() };
        Losses { then: Rules { policies: Some(set), ..now.clone() }, now, at }
    }

    /// Whether one of the two sets looks at counts, so that a change of one agent may be a change for another.
    pub(super) fn counts(&self) -> bool {
        let counts = |set: &Policies| set.mentions().context("live") || set.mentions().context("budget");
        [&self.now, &self.then].into_iter().any(|rules| rules.policies.as_deref().is_some_and(counts))
    }

    /// What an agent may do by the set in force and not by the other one, up to `most` of it.
    pub fn of(&self, state: &State, agent: &Agent, most: usize) -> Vec<Loss> {
        let (before, after) = (Judgement::new(state, &self.now, self.at), Judgement::new(state, &self.then, self.at));
        // Without its authority it can do nothing already.
        let Ok(kept) = before.authority_left(agent) else { return Vec::new() };
        let (scopes, renewed) = (&kept.scopes, &kept.audiences);
        let renewal = (!agent.is_keyless()).then_some(Use { action: Action::Renew, audience: None, scopes, audiences: renewed });
        let tokens = kept.audiences.iter().flat_map(|audience| {
            let audiences = std::slice::from_ref(audience);
            [Action::Mint, Action::Exchange].map(|action| Use { action, audience: Some(audience), scopes, audiences })
        });
        let lost = |of: Use<'_>| {
            let denial = after.policies_on_use(agent, of).err().filter(|_| before.policies_on_use(agent, of).is_ok())?;
            let audience = of.audience.unwrap_or_default().to_owned();
            let (policy, source) = by(&self.then, &denial);
            Some(Loss { action: of.action, audience, policy, source })
        };
        renewal.into_iter().chain(tokens).filter_map(lost).take(most).collect()
    }
}

/// Reads and validates a set of policies from a request. Blocks, for as long as a parser takes.
pub(super) fn read(texts: Vec<(String, String)>) -> Result<Arc<Policies>, Denial> {
    Policies::of_texts(texts).map(Arc::new).map_err(|faults| {
        let message = format!("the set of policies has faults, `mayfly policy check` shows them: {}", faults.join("; "));
        Denial::malformed("EXPLAIN_MALFORMED", message.chars().take(FAULTS).collect::<String>())
    })
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
