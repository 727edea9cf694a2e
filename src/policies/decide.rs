//! Decides a question: evaluates the parts of the set that can apply to it, and combines their answers.

use cedar_policy::{Entities, Request};

use super::ask::{Ask, Translated};
use super::part::Part;
use super::set::schema;
use super::{Default, Mentions, Policies};

/// The answer to a question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Whether the policies allow it.
    pub allowed: bool,
    /// The policies that decide, by their index in [`Policies::all`], sorted: those that forbid, or if none does, those that permit.
    pub policies: Vec<usize>,
    /// The policies that could not be evaluated. If there are any, the answer is no.
    pub failed: Vec<usize>,
    /// Why the question itself could not be evaluated; the answer is then no.
    pub fault: Option<String>,
}

impl Policies {
    /// The decision on an action that no policy is about.
    pub fn unasked(&self) -> Decision {
        Decision { allowed: *self.default() == Default::Permit, ..Decision::default() }
    }

    /// Decides a question. Of its attributes, only those of [`Policies::mentions_of`] count.
    pub fn decide(&self, ask: &Ask<'_>) -> Decision {
        let Some(mentions) = self.mentions_of(ask.action) else { return self.unasked() };
        match ask.translate(mentions, None) {
            Ok(asked) => self.decided(ask, &asked),
            Err(fault) => Decision { fault: Some(fault), ..Decision::default() },
        }
    }

    /// The same with all attributes of the question, checked against the schema. The error says what does not conform.
    pub fn decide_checked(&self, ask: &Ask<'_>) -> Result<Decision, String> {
        Ok(self.decided(ask, &ask.translate(&Mentions::everything(), Some(schema()))?))
    }

    fn decided(&self, ask: &Ask<'_>, asked: &Translated) -> Decision {
        let mut answers = Answers::default();
        for principal in asked.principals.iter().cloned().map(Some).chain([None]) {
            for resource in [None, Some(asked.resource.clone())] {
                if let Some(part) = self.parts.get(&(ask.action, principal.clone(), resource)) {
                    self.evaluate(part, &asked.request, &asked.entities, &mut answers);
                }
            }
        }
        let Answers { mut forbid, mut permit, mut failed } = answers;
        for list in [&mut forbid, &mut permit, &mut failed] {
            list.sort_unstable();
            list.dedup();
        }
        let permitted = !permit.is_empty() || *self.default() == Default::Permit;
        let allowed = failed.is_empty() && forbid.is_empty() && permitted;
        Decision { allowed, policies: if forbid.is_empty() { permit } else { forbid }, failed, fault: None }
    }

    fn evaluate(&self, part: &Part, request: &Request, entities: &Entities, answers: &mut Answers) {
        let Some(response) = part.ask(&self.whole().authorizer, request, entities) else { return };
        let found = |id: &cedar_policy::PolicyId| self.whole().index.get(AsRef::<str>::as_ref(id)).copied();
        for error in response.diagnostics().errors() {
            let cedar_policy::AuthorizationError::PolicyEvaluationError(error) = error;
            answers.failed.extend(found(error.policy_id()));
        }
        let to = match response.decision() {
            cedar_policy::Decision::Allow => &mut answers.permit,
            // A denial without a reason means that no policy applied.
            cedar_policy::Decision::Deny => &mut answers.forbid,
        };
        to.extend(response.diagnostics().reason().filter_map(found));
    }
}

#[derive(Default)]
struct Answers {
    forbid: Vec<usize>,
    permit: Vec<usize>,
    failed: Vec<usize>,
}
