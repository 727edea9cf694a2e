//! The changes that may change the denial of a spawn: to the configuration, by an operator, by the user, or to the request.

use std::sync::Arc;

use mayfly_verify::{ClassName, Mode, Target, User, Workload};

use crate::acts::spawn::Spawn;
use crate::caller::Caller;
use crate::clock::SECOND;
use crate::journal::record::{self, record::Body};
use crate::judge::{Act, Ceiling, Chance, Judgement, Proof, Rules, Verdict};
use crate::state::{Delegation, State, View};

/// The assumed lifetime of a user token from a fresh sign-in, in seconds.
const SIGN_IN: u64 = 3600;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The class allows this scope too.
    ClassScope(ClassName, String),
    /// The class allows this audience too.
    ClassAudience(ClassName, String),
    /// The class lists the spawner: `workload/<name>`, a SPIFFE ID or `class/<name>`.
    ClassSpawner(ClassName, String),
    /// The class has agents of a mode.
    ClassMode(ClassName, Mode),
    /// The class allows a lease of this many seconds.
    ClassLease(ClassName, u64),
    /// The class allows this many levels below its agents.
    ClassDepth(ClassName, u32),
    /// The limit with this index has this value.
    Limit(usize, u64),
    /// The policy with this index in the set in force, which forbids or cannot be evaluated, is lifted.
    Policy(usize),
    /// The provider of the user is configured.
    Provider(String),
    /// The audience of the user's token allows this scope too.
    SignInScope(String),
    /// The user signs in again.
    SignIn,
    /// A user token of an audience that the workload may present.
    SignInFor(Workload),
    /// An operator reopens a target.
    Reopen(Target),
    /// The request asks to clip.
    Clip,
    /// The request brings a user token.
    UserToken,
    /// The request asks for an agent that acts for nobody.
    Autonomous,
    /// The request names no mode.
    AnyMode,
    /// The request asks for a first token for another audience.
    Audience(String),
    /// The request asks for an agent of another class.
    Class(ClassName),
    /// The request is made this many microseconds later.
    Later(u64),
}

/// A spawn with all inputs of its judgement except the state.
#[derive(Clone, Debug)]
pub struct Case {
    /// The spawn.
    pub act: Spawn,
    /// Who asks.
    pub caller: Caller,
    /// The configured rules.
    pub rules: Rules,
    /// Unix microseconds.
    pub at: u64,
    /// The recorded delegation behind the proof, if there is one.
    pub known: Option<Arc<Delegation>>,
    /// Records that are assumed to be in the journal before the spawn: those of the operator's acts that this case proposes.
    pub before: Vec<Body>,
}

impl Case {
    /// A spawn as it would be judged on a state.
    pub fn new(act: Spawn, caller: Caller, rules: &Rules, state: &State, now: u64) -> Case {
        let at = now.max(state.at);
        let known = match &act.proof {
            Some(Proof::Recorded(proof)) => state.delegation_by_proof(proof, at).cloned(),
            Some(Proof::Delegation(id)) => View::known_delegation(state, id).cloned(),
            Some(Proof::Token { .. } | Proof::IdJag(_)) | None => None,
        };
        // A delegation of another caller is not revealed.
        let known = known.filter(|known| caller.is(&known.workload));
        Case { act, caller, rules: rules.clone(), at, known, before: Vec::new() }
    }

    /// Judges the spawn of a caller about whom somebody else asks, so that there is no credential to check. Nothing is recorded.
    pub fn judge_about<T>(&self, state: &State, look: impl FnOnce(&Judgement<'_>, &Verdict<<Spawn as Act>::Permit>) -> T) -> T {
        let mut judgement = Judgement::new(state, &self.rules, self.at);
        let verdict = judgement.verdict_about(&self.act, &self.caller, &Chance::new([0; Chance::LEN]));
        look(&judgement, &verdict)
    }

    /// Judges the spawn on a state, and passes the judgement and its verdict to `look`. Nothing is recorded.
    pub fn judge<T>(&self, state: &State, look: impl FnOnce(&mut Judgement<'_>, &Verdict<<Spawn as Act>::Permit>) -> T) -> T {
        let mut judgement = Judgement::new(state, &self.rules, self.at);
        for body in &self.before {
            // A record that cannot be applied changes nothing, so the verdict is the same as without it.
            let _ = judgement.push(&Caller::Stranger, body.clone());
        }
        let verdict = judgement.verdict(&self.act, &self.caller, &Chance::new([0; Chance::LEN]));
        look(&mut judgement, &verdict)
    }

    /// The same with some changes.
    #[must_use]
    pub fn with<'a>(&self, changes: impl IntoIterator<Item = &'a Change>) -> Case {
        let mut case = self.clone();
        for change in changes {
            case.apply(change);
        }
        case
    }

    fn apply(&mut self, change: &Change) {
        let by = self.caller.workload();
        let class = match change {
            Change::ClassScope(class, _)
            | Change::ClassAudience(class, _)
            | Change::ClassSpawner(class, _)
            | Change::ClassMode(class, _)
            | Change::ClassLease(class, _)
            | Change::ClassDepth(class, _) => self.rules.classes.get_mut(class),
            _ => None,
        };
        match (change, class) {
            (Change::ClassScope(_, scope), Some(class)) => drop(class.scopes.insert(scope.clone())),
            (Change::ClassAudience(_, audience), Some(class)) => drop(class.audiences.insert(audience.clone())),
            (Change::ClassSpawner(_, spawner), Some(class)) => match spawner.strip_prefix("class/").map(str::parse) {
                Some(Ok(name)) => class.classes.push(name),
                _ => class.workloads.extend(by),
            },
            (Change::ClassMode(_, mode), Some(class)) => class.modes.push(*mode),
            (Change::ClassLease(_, lease), Some(class)) => class.max_lease = *lease,
            (Change::ClassDepth(_, depth), Some(class)) => class.max_depth = *depth,
            (Change::Limit(index, most), _) => {
                if let Some(limit) = self.rules.limits.get_mut(*index) {
                    *limit = limit.raised(most.saturating_sub(1));
                }
            }
            (Change::Policy(index), _) => self.rules.lift(*index),
            (Change::Provider(iss), _) => drop(self.rules.issuers.insert(iss.clone(), "added".to_owned())),
            (Change::Reopen(target), _) => self.before.extend(reopened(target)),
            (Change::Clip, _) => self.act.asked.clip = true,
            (Change::AnyMode, _) => self.act.asked.mode = None,
            (Change::Autonomous, _) => {
                self.act.proof = None;
                self.act.asked.mode = Some(Mode::Autonomous);
            }
            (Change::Audience(audience), _) => self.act.audience = Some(audience.clone()),
            (Change::Class(class), _) => self.act.class = class.clone(),
            (Change::Later(by), _) => self.at = self.at.saturating_add(*by),
            (Change::SignIn | Change::SignInScope(_) | Change::SignInFor(_) | Change::UserToken, _) => {
                self.sign_in(change, by.as_ref());
            }
            _ => {}
        }
    }

    fn sign_in(&mut self, change: &Change, by: Option<&Workload>) {
        let by = || by.cloned().into_iter().collect();
        let (user, mut scopes, mut workloads) = match &self.act.proof {
            Some(Proof::Token { user, .. }) => match self.ceiling() {
                Some(ceiling) => (user.clone(), ceiling.scopes.clone(), ceiling.workloads.clone()),
                None => (user.clone(), None, by()),
            },
            Some(Proof::IdJag(jag)) => (jag.user.clone(), jag.grant.scopes.clone(), by()),
            _ => match &self.known {
                Some(known) => (known.user.clone(), known.scopes.clone(), by()),
                None if *change == Change::UserToken => (self.somebody(), None, by()),
                None => return,
            },
        };
        match change {
            Change::SignInScope(scope) => scopes.iter_mut().for_each(|scopes| scopes.push(scope.clone())),
            Change::SignInFor(workload) => workloads.push(workload.clone()),
            Change::UserToken => self.act.asked.mode = None,
            _ => {}
        }
        let now = self.at / SECOND;
        let (issued_at, ends_at) = (now + 1, now + SIGN_IN);
        // A token with an audience that no configuration can have.
        let audience = "\0another".to_owned();
        let ceiling = Ceiling { workloads, scopes, longest: SIGN_IN };
        self.rules.tokens.entry(user.iss.clone()).or_default().insert(audience.clone(), ceiling);
        let (acr, signed_in_at, groups) = match (&self.act.proof, &self.known) {
            (Some(Proof::Token { acr, groups, .. }), _) => (acr.clone(), Some(issued_at), groups.clone()),
            (Some(Proof::IdJag(jag)), _) => (jag.acr.clone(), Some(issued_at), jag.groups.clone()),
            // A new sign-in of the same user has the same groups.
            (_, Some(known)) => (None, Some(issued_at), known.groups.to_vec()),
            _ => (None, Some(issued_at), Vec::new()),
        };
        let (proof, token) = ([0xff; 32], [0xff; 32]);
        self.act.proof =
            Some(Proof::Token { user, proof, token, issued_at, ends_at, audience, acr, signed_in_at, groups, hint: None });
    }

    /// An unknown user of a configured provider.
    fn somebody(&self) -> User {
        User { iss: self.rules.issuers.keys().next().cloned().unwrap_or_default(), sub: "somebody".to_owned() }
    }

    /// The user whom the request is for. `None` for nobody, or if the proof names a delegation that is not known.
    pub fn user(&self) -> Option<&User> {
        match &self.act.proof {
            Some(Proof::Token { user, .. }) => Some(user),
            Some(Proof::IdJag(jag)) => Some(&jag.user),
            Some(_) => self.known.as_ref().map(|known| &known.user),
            None => None,
        }
    }

    /// The ceiling of the audience of the presented user token. `None` without a token, or if the configuration has no such
    /// audience.
    pub fn ceiling(&self) -> Option<&Ceiling> {
        let (user, audience) = match self.act.proof.as_ref()? {
            Proof::Token { user, audience, .. } => (user, audience),
            Proof::IdJag(jag) => (&jag.user, &jag.audience),
            _ => return None,
        };
        self.rules.tokens.get(&user.iss)?.get(audience)
    }

    /// The ceiling of scopes of the user's token or delegation. `None` means that there is none.
    pub fn granted(&self) -> Option<&[String]> {
        match &self.act.proof {
            Some(Proof::Token { .. }) => self.ceiling().and_then(|ceiling| ceiling.scopes.as_deref()),
            Some(Proof::IdJag(jag)) => {
                jag.grant.scopes.as_deref().or(self.ceiling().and_then(|ceiling| ceiling.scopes.as_deref()))
            }
            Some(_) => self.known.as_ref().and_then(|known| known.scopes.as_deref()),
            None => None,
        }
    }
}

fn reopened(target: &Target) -> Option<Body> {
    let target = match target {
        Target::User(user) => record::reopened::Target::User(record::User { iss: user.iss.clone(), sub: user.sub.clone() }),
        Target::Workload(workload) => record::reopened::Target::Workload(workload.to_string()),
        Target::Class(class) => record::reopened::Target::Class(class.to_string()),
        Target::Issuer(iss) => record::reopened::Target::Issuer(iss.clone()),
        _ => return None,
    };
    Some(Body::Reopened(record::Reopened { target: Some(target) }))
}
