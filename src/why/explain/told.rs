//! The form of an explanation, and what of it a caller hears who is no operator.

use super::change::Change;
use crate::denial::Denial;
use crate::judge::Source;

/// Why something is allowed or denied.
#[derive(Clone, Debug, Default)]
pub struct Explanation {
    /// What is explained: the SPIFFE ID of an agent, or `spawn of class researcher by workload/orchestrator`.
    pub about: String,
    /// Why it is denied. `None` if it is allowed.
    pub denial: Option<Denial>,
    /// The checks in order. If it is denied, the last of them failed.
    pub checks: Vec<Row>,
    /// Each scope that was asked for, is held, or is allowed by the class.
    pub scopes: Vec<Part>,
    /// The same of audiences.
    pub audiences: Vec<Part>,
    /// What is used of each limit that applies.
    pub limits: Vec<Used>,
    /// The policies that decide, by their ids: those that permit, or the one that forbids.
    pub policies: Vec<(String, Source)>,
    /// The smallest sets of changes that turn a denial, each proved by judging again.
    pub flip: Vec<Vec<Step>>,
    /// Whether every set of up to three changes was looked at.
    pub complete: bool,
    /// The decision of the history that is explained; empty for what is judged now.
    pub decision: String,
    /// The journal's revision as of which this holds.
    pub revision: u64,
    /// Unix microseconds.
    pub at: u64,
}

/// One check.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name, such as `authority`.
    pub check: &'static str,
    /// Whether it passed.
    pub passed: bool,
    /// What it looked at.
    pub saw: String,
    /// Where that is defined, and by whom.
    pub source: Source,
}

/// One scope or audience.
#[derive(Clone, Debug)]
pub struct Part {
    /// The scope or the audience.
    pub name: String,
    /// What allows it, each of them.
    pub from: Vec<Source>,
    /// The first that does not allow it. `None` if the agent has it.
    pub removed_by: Option<Source>,
}

/// One limit.
#[derive(Clone, Debug)]
pub struct Used {
    /// Its name.
    pub name: String,
    /// What has a count of its own under it.
    pub per: &'static str,
    /// What is counted.
    pub measure: &'static str,
    /// How much is used. `None` if the caller may not know, because others count too.
    pub used: Option<u64>,
    /// How much there is.
    pub limit: u64,
    /// Where it is defined.
    pub source: Source,
}

/// One change of a set.
#[derive(Clone, Debug)]
pub struct Step {
    /// The change.
    pub change: Change,
    /// What to do, in words.
    pub text: String,
    /// Where, and whose it is.
    pub source: Source,
}

impl Explanation {
    /// As a caller hears it who is no operator: keys of the configuration and no files, and no counts in which others count too,
    /// but for a limit that refused them, as the denial itself says.
    #[must_use]
    pub fn for_caller(mut self) -> Explanation {
        let full = self.denial.as_ref().and_then(|denial| denial.facts.iter().find(|(name, _)| *name == "limit")).cloned();
        for used in &mut self.limits {
            let own = matches!(used.per, "root" | "workload" | "parent" | "agent")
                || full.as_ref().is_some_and(|(_, full)| *full == used.name);
            if !own {
                used.used = None;
            }
        }
        let rows = self.checks.iter_mut().map(|row| &mut row.source);
        let parts = self.scopes.iter_mut().chain(&mut self.audiences);
        let parts = parts.flat_map(|part| part.from.iter_mut().chain(&mut part.removed_by));
        let steps = self.flip.iter_mut().flatten().map(|step| &mut step.source);
        let limits = self.limits.iter_mut().map(|used| &mut used.source);
        let policies = self.policies.iter_mut().map(|(_, source)| source);
        let limits = limits.chain(policies);
        rows.chain(parts).chain(steps).chain(limits).for_each(|source| source.at.clear());
        self
    }
}
