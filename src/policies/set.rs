//! A set of policies: validated as a whole, and divided by the actions, principals and resources of its policies.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, LazyLock};

use cedar_policy::{
    ActionConstraint, Authorizer, EntityUid, PolicySet, PrincipalConstraint, ResourceConstraint, Schema, ValidationMode,
    ValidationWarning, Validator,
};
use mayfly_verify::sha256;

use super::ask::{Action, named};
use super::part::Part;
use super::{Mentions, SCHEMA, read};

/// How many references between entities a policy may follow: it may read attributes of the entities of the question.
const LEVEL: u32 = 1;

/// One policy, with its annotations and position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its id, unique in the set.
    pub id: String,
    /// Who answers for it.
    pub owner: String,
    /// Why it is there.
    pub reason: String,
    /// The date by which its owner must review it.
    pub review: Option<String>,
    /// How to reach its owner.
    pub contact: Option<String>,
    /// The file, by its name in the folder.
    pub file: String,
    /// The line on which it begins, counted from 1.
    pub line: usize,
    /// Whether it forbids; if not, it permits.
    pub forbids: bool,
    /// Its text.
    pub text: String,
}

/// The decision if no policy applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Default {
    /// Acts that classes, delegations and limits allow are permitted.
    Permit,
    /// Nothing is permitted.
    Deny {
        /// Who answers for that.
        owner: String,
        /// Why.
        reason: String,
    },
}

/// The key of a part of the set: an action, and the one principal and resource that the scopes of its policies name. `None` stands
/// for any.
pub(super) type About = (Action, Option<EntityUid>, Option<EntityUid>);

/// Bytes of stack for reading a set. A level of a policy takes up to some 40 KiB without optimization, and a policy has at most 300.
const STACK: usize = 64 << 20;

/// A set of policies.
pub struct Policies {
    whole: Arc<Whole>,
    // Each policy is in one part for each action in its scope.
    pub(super) parts: HashMap<About, Arc<Part>>,
}

/// What a set has in common with the sets from which some of its policies are left out.
pub(super) struct Whole {
    all: Vec<Policy>,
    default: Default,
    digest: [u8; 32],
    texts: Vec<(String, String)>,
    mentions: Mentions,
    // An action without an entry has no policy.
    of_actions: HashMap<Action, Mentions>,
    pub(super) index: HashMap<String, usize>,
    pub(super) authorizer: Authorizer,
}

// Unwrap safety: a test parses the schema.
#[expect(clippy::unwrap_used, reason = "see above")]
static PARSED: LazyLock<Schema> = LazyLock::new(|| Schema::from_cedarschema_str(SCHEMA).unwrap().0);

/// The schema as Cedar uses it.
pub(super) fn schema() -> &'static Schema {
    &PARSED
}

impl Policies {
    /// Reads and validates the texts of a set: files by name, and `set.toml`. The error holds every fault, with file and line.
    pub fn of_texts(texts: Vec<(String, String)>) -> Result<Policies, Vec<String>> {
        // T179: Cedar's parser is recursive, and needs a larger stack than the threads of a server have.
        std::thread::scope(|scope| {
            let reader = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || Policies::read(texts));
            let reader = reader.map_err(|e| vec![format!("no thread to read policies: {e}")])?;
            reader.join().unwrap_or_else(|_| Err(vec!["Cedar's parser failed: this is a fault of it or of ours".to_owned()]))
        })
    }

    fn read(texts: Vec<(String, String)>) -> Result<Policies, Vec<String>> {
        let (found, default) = read::texts(&texts)?;
        validate(&found)?;
        let mut mentions = Mentions::default();
        let mut of_actions = HashMap::<Action, Mentions>::new();
        let (mut about_each, mut index) = (HashMap::<About, Vec<cedar_policy::Policy>>::new(), HashMap::new());
        for (n, (policy, parsed)) in found.iter().enumerate() {
            let used = Mentions::of(parsed);
            mentions.join(&used);
            index.insert(policy.id.clone(), n);
            for about in about(parsed) {
                of_actions.entry(about.0).or_default().join(&used);
                about_each.entry(about).or_default().push(parsed.clone());
            }
        }
        let part = |(about, policies): (About, Vec<_>)| Ok((about, Arc::new(Part::new(&policies)?)));
        let parts = about_each.into_iter().map(part).collect::<Result<_, String>>().map_err(|e| vec![e])?;
        let digest = digest(SCHEMA, &texts);
        let all = found.into_iter().map(|(policy, _)| policy).collect();
        let whole = Whole { all, default, digest, texts, mentions, of_actions, index, authorizer: Authorizer::new() };
        Ok(Policies { whole: Arc::new(whole), parts })
    }

    /// The set as it would be without one policy, given by its index in [`Policies::all`]. Everything but its decisions stays the same:
    /// indices, texts and digest are those of the whole set.
    #[must_use]
    pub fn without(&self, index: usize) -> Policies {
        let id = self.all().get(index).map_or("", |policy| &policy.id);
        let holds = |part: &Part| part.policies().any(|policy| AsRef::<str>::as_ref(policy.id()) == id);
        let part = |part: &Arc<Part>| if holds(part) { Arc::new(part.without(id)) } else { Arc::clone(part) };
        let parts = self.parts.iter().map(|(about, of)| (about.clone(), part(of))).collect();
        Policies { whole: Arc::clone(&self.whole), parts }
    }

    /// What it has in common with the sets from which some of its policies are left out.
    pub(super) fn whole(&self) -> &Whole {
        &self.whole
    }

    /// Every policy, in the order of files and lines.
    pub fn all(&self) -> &[Policy] {
        &self.whole.all
    }

    /// The decision if no policy applies.
    pub fn default(&self) -> &Default {
        &self.whole.default
    }

    /// SHA-256 over the schema and the texts.
    pub fn digest(&self) -> [u8; 32] {
        self.whole.digest
    }

    /// The texts, by file.
    pub fn texts(&self) -> &[(String, String)] {
        &self.whole.texts
    }

    /// The attributes that its policies about an action use. `None` if none is about it.
    pub fn mentions_of(&self, action: Action) -> Option<&Mentions> {
        self.whole.of_actions.get(&action)
    }

    /// The attributes that its policies use.
    pub fn mentions(&self) -> &Mentions {
        &self.whole.mentions
    }

    /// Notes for its owners that are no faults, a sentence for each: permits without effect, reviews that are due at `today`
    /// (`2027-01-31`), and names that `known` does not know.
    pub fn notes(&self, today: &str, known: impl Fn(&str, &str) -> bool) -> Vec<String> {
        let mut notes = Vec::new();
        for policy in self.all() {
            let mut note = |what: String| notes.push(format!("{}:{}: policy `{}` {what}", policy.file, policy.line, policy.id));
            if !policy.forbids && *self.default() == Default::Permit {
                note("permits what is permitted without it: only a set with `default = \"deny\"` needs permits".to_owned());
            }
            if let Some(review) = policy.review.as_deref().filter(|review| *review <= today) {
                note(format!("was due for a review by `{}` on {review}", policy.owner));
            }
            let names = self.names(&policy.id);
            for (kind, name) in names.iter().filter(|(kind, name)| !known(kind, name)) {
                note(format!("names the {kind} `{name}`, which is not configured"));
            }
        }
        notes
    }

    /// The classes and workloads that a policy names.
    fn names(&self, id: &str) -> BTreeSet<(&'static str, String)> {
        let of = self.parts.values().flat_map(|part| part.policies()).filter(|policy| policy.id().to_string() == id);
        let literals = of.flat_map(cedar_policy::Policy::entity_literals);
        literals.filter_map(|of| named(&of).map(|(kind, name)| (kind, name.to_owned()))).collect()
    }
}

impl fmt::Debug for Policies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policies").field("policies", &self.all().len()).field("digest", &hex::encode(self.digest())).finish()
    }
}

impl PartialEq for Policies {
    fn eq(&self, other: &Policies) -> bool {
        self.digest() == other.digest()
    }
}

/// The keys of the parts with a policy: one for each judged action in its scope.
fn about(policy: &cedar_policy::Policy) -> Vec<About> {
    let principal = match policy.principal_constraint() {
        PrincipalConstraint::Eq(uid) | PrincipalConstraint::In(uid) | PrincipalConstraint::IsIn(_, uid) => Some(uid),
        PrincipalConstraint::Any | PrincipalConstraint::Is(_) => None,
    };
    let resource = match policy.resource_constraint() {
        ResourceConstraint::Eq(uid) => Some(uid),
        _ => None,
    };
    let allowed = |action: &Action| match policy.action_constraint() {
        ActionConstraint::Any => true,
        ActionConstraint::Eq(uid) => uid == action.uid(),
        ActionConstraint::In(all) => all.contains(&action.uid()),
    };
    let actions = Action::ALL.into_iter().filter(allowed);
    actions.map(|action| (action, principal.clone(), resource.clone())).collect()
}

fn validate(found: &[read::Read]) -> Result<(), Vec<String>> {
    let all = PolicySet::from_policies(found.iter().map(|(_, parsed)| parsed.clone())).map_err(|e| vec![e.to_string()])?;
    let result = Validator::new(schema().clone()).validate_with_level(&all, ValidationMode::Strict, LEVEL);
    let at = |id: &str| found.iter().find(|(policy, _)| policy.id == id).map_or(String::new(), |(policy, _)| policy.place());
    let errors = result.validation_errors().map(|e| format!("{}: {e}", at(e.policy_id().as_ref())));
    // A policy that can never apply is a mistake, because such a `forbid` would forbid nothing.
    let never = |w: &&ValidationWarning| matches!(w, ValidationWarning::ImpossiblePolicy(_));
    let impossible = result.validation_warnings().filter(never).map(|w| format!("{}: {w}", at(w.policy_id().as_ref())));
    let faults: Vec<String> = errors.chain(impossible).collect();
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

impl Policy {
    /// Its file and line.
    pub fn place(&self) -> String {
        format!("{}:{}", self.file, self.line)
    }
}

pub(super) fn digest(schema: &str, texts: &[(String, String)]) -> [u8; 32] {
    let mut bytes = Vec::new();
    for part in std::iter::once(schema).chain(texts.iter().flat_map(|(name, text)| [name.as_str(), text.as_str()])) {
        bytes.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    sha256(&bytes)
}
