//! The form of an explanation, and the parts of it that a caller gets who is not an operator.

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
    /// How much is used of each limit that applies.
    pub limits: Vec<Used>,
    /// The policies that decide, by their ids: those that permit, or the one that forbids.
    pub policies: Vec<(String, Source)>,
    /// The smallest sets of changes that turn a denial into a permit, each proved by judging again.
    pub flip: Vec<Vec<Step>>,
    /// Whether every set of up to three changes was tried.
    pub complete: bool,
    /// The id of the explained decision in the history; empty if something was judged now.
    pub decision: String,
    /// The journal's revision at which this was judged.
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
    /// All sources that allow it.
    pub from: Vec<Source>,
    /// The first source that does not allow it. `None` if the agent has it.
    pub removed_by: Option<Source>,
}

/// One limit.
#[derive(Clone, Debug)]
pub struct Used {
    /// Its name.
    pub name: String,
    /// The kind of subject that has a count of its own under it.
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
    /// Where to do it, and who owns that.
    pub source: Source,
}

impl Explanation {
    /// The explanation for a caller who is not an operator: with keys of the configuration but no files, and without counts that
    /// include other callers, except that of a limit that refused the request, which the denial has too.
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
