//! Denials of spawns are decided again too. The history has the request and the journal's head when it was asked for; it was decided on that
//! state, or on one that followed within the time until its entry. The same denial on any of them is the same answer.

use std::collections::VecDeque;

use mayfly_agent::reason::{Entry, Kind as Denied};
use mayfly_verify::Workload;
use uuid::Uuid;

use super::Difference;
use crate::acts::Issuer;
use crate::acts::spawn::{AskedSpawn, Spawn};
use crate::caller::Caller;
use crate::clock::SECOND;
use crate::denial::{Fault, No};
use crate::history::entry::{Draft, Kind};
use crate::history::query::{self, Filter};
use crate::judge::{Act, Chance, Judgement, Rules};
use crate::policies::Action;
use crate::state::State;

/// Looks at the history for denials, of 100,000 entries each at most.
const LOOKS: usize = 100;
/// How long every row is kept after an agent's end, in microseconds.
const HOUR: u64 = 3600 * SECOND;
/// Denials that are decided again at most.
const MOST: usize = 100_000;
/// First words of codes of what is not decided by the state and the rules: proofs of keys and callers, retries, and want of room.
const NOT_JUDGED: [&str; 9] = ["KEY", "CSR", "TICKET", "REQUEST", "CREDENTIAL", "GENERATION", "AGENT", "AUTHORITY", "CALLER"];

/// A denial that waits for its state.
struct Waiting {
    act: Spawn,
    caller: String,
    asked: AskedSpawn,
    entry: Draft,
    /// What it would be told on the first state that was looked at.
    now: Option<String>,
}

/// The denials of a time, in the order in which they were asked for.
#[derive(Default)]
pub(super) struct Denials {
    waiting: VecDeque<Waiting>,
    /// Those whose time has begun.
    begun: Vec<Waiting>,
    /// Denials that are not decided again.
    pub(super) left_out: u64,
}

impl Denials {
    /// The denials since a time, in Unix microseconds.
    pub(super) fn of(issuer: &Issuer, since: u64) -> Result<Denials, Fault> {
        let filter = Filter { since, kinds: vec![Kind::Denial], ..Filter::default() };
        let (mut denials, mut place, mut waiting) = (Denials::default(), 0, Vec::new());
        // Of earlier states rows are gone.
        let whole = issuer.clock.now().saturating_sub(HOUR);
        for _ in 0..LOOKS {
            let page = query::page(issuer.history.reader(), &filter, place, usize::MAX, |_| true)
                .map_err(|e| Fault::new("replay", e))?;
            for (entry, _) in page.entries {
                let at = entry.leaf.at;
                match read(entry) {
                    Some(found) if at >= whole && waiting.len() < MOST => waiting.push(found),
                    _ => denials.left_out += 1,
                }
            }
            match page.next {
                Some(next) => place = next,
                None => break,
            }
        }
        waiting.sort_by_key(|denial| (denial.asked.revision, denial.entry.leaf.index));
        denials.waiting = waiting.into();
        Ok(denials)
    }

    /// Whether some denial may have been decided on the state of a revision.
    pub(super) fn are_open(&self, revision: u64) -> bool {
        !self.begun.is_empty() || self.waiting.front().is_some_and(|denial| denial.asked.revision <= revision)
    }

    /// Decides on a state whatever may have been decided there: the next record has this time. Returns those that are settled, each with
    /// its difference if there is one.
    /// With the rules of a candidate, the difference is between what the two sets of rules say.
    pub(super) fn on(
        &mut self,
        state: &State,
        rules: &Rules,
        candidate: Option<&Rules>,
        next_at: u64,
    ) -> Vec<Option<Difference>> {
        while self.waiting.front().is_some_and(|denial| denial.asked.revision <= state.revision) {
            self.begun.extend(self.waiting.pop_front());
        }
        let (mut settled, mut open) = (Vec::new(), Vec::new());
        for mut denial in self.begun.drain(..) {
            let told = denial.told(state, rules);
            if told.iter().any(|told| denial.is(told)) {
                let otherwise =
                    candidate.map(|rules| denial.told(state, rules)).filter(|now| now.iter().all(|now| !denial.is(now)));
                denial.now = otherwise.and_then(|now| now.into_iter().next());
                settled.push(denial.now.is_some().then(|| denial.difference()));
                continue;
            }
            denial.now = denial.now.or(told.into_iter().next());
            // Whatever is recorded after its entry came after its decision.
            if next_at <= denial.entry.leaf.at {
                open.push(denial);
            } else if candidate.is_none() {
                settled.push(Some(denial.difference()));
            } else {
                // It would be another one without the candidate too.
                settled.push(None);
            }
        }
        self.begun = open;
        settled
    }
}

/// A denial that can be decided again. `None` for what was not judged, and for what an earlier version wrote.
fn read(entry: Draft) -> Option<Waiting> {
    let code = entry.leaf.reason_code.as_str();
    let judged = !code.split('_').next().is_some_and(|first| NOT_JUDGED.contains(&first))
        && Entry::of(code).is_some_and(|entry| {
            let room = [Denied::Exhausted, Denied::Unavailable, Denied::Deadline, Denied::Malformed, Denied::Unauthenticated];
            code == "LIMIT_REACHED" || !entry.kinds.first().is_some_and(|kind| room.contains(kind))
        });
    let asked = AskedSpawn::parse(&entry.opening.question).filter(|_| judged)?;
    Some(Waiting { act: asked.act()?, caller: entry.opening.caller.clone(), asked, entry, now: None })
}

impl Waiting {
    /// What its caller would be told on a state: at the time of the request, and at that of its entry.
    fn told(&self, state: &State, rules: &Rules) -> Vec<String> {
        let Some(caller) = self.caller(state, rules) else {
            return vec!["cannot be asked again: its spawner is not known".to_owned()];
        };
        let at = |at: u64| {
            let mut judgement = Judgement::new(state, rules, at);
            match self.act.judge(&mut judgement, &caller, &Chance::new([0; Chance::LEN])) {
                Ok(_) => "allowed".to_owned(),
                Err(No::Denial(denial)) => format!("denied: {denial}"),
                Err(No::Fault(fault)) => format!("failed: {}", fault.during),
            }
        };
        vec![at(self.asked.at), at(self.entry.leaf.at)]
    }

    /// Whether that is what it was told. Of a limit only the code counts: how much was used moves with each spawn.
    fn is(&self, told: &str) -> bool {
        let code = &self.entry.leaf.reason_code;
        match told.strip_prefix("denied: ").and_then(|told| told.strip_prefix(code.as_str())) {
            Some(rest) => code == "LIMIT_REACHED" || rest.strip_prefix(": ") == Some(self.entry.opening.reason.as_str()),
            None => false,
        }
    }

    fn caller(&self, state: &State, rules: &Rules) -> Option<Caller> {
        if let Some(name) = self.caller.strip_prefix("workload/") {
            return Some(Caller::Workload {
                name: name.parse().ok()?,
                key: [0; 32],
                serial: Vec::new(),
                opened: state.revision,
                authority: Vec::new(),
            });
        }
        let uuid = self.caller.split("/agent/").nth(1).and_then(|rest| Uuid::try_parse(rest.rsplit('/').next()?).ok());
        let Some(uuid) = uuid else {
            let Ok(Workload::Foreign(id)) = self.caller.parse() else { return None };
            return Some(Caller::Foreign { id, ends_at: u64::MAX });
        };
        let parent = state.agent(&uuid)?;
        let certificate = parent.last()?;
        Some(Caller::Agent {
            id: parent.id(&rules.trust_domain),
            key: certificate.key,
            serial: certificate.serial.to_vec(),
            incarnation: state.incarnation,
            opened: state.revision,
            authority: Vec::new(),
        })
    }

    fn difference(self) -> Difference {
        let leaf = &self.entry.leaf;
        Difference {
            action: Action::Spawn.as_str(),
            revision: self.asked.revision,
            at: leaf.at,
            agent: Uuid::nil(),
            class: leaf.class.clone(),
            then: format!("denied: {}: {}", leaf.reason_code, self.entry.opening.reason),
            now: self.now.unwrap_or_default(),
        }
    }
}
