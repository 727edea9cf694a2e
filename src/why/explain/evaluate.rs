//! Evaluate: whether a subject may do something with a resource now, as a gateway asks. The act that would issue it is judged: the
//! exchange for a token for an audience, the spawn for an agent of a class. Nothing is recorded, signed or charged.

use mayfly_verify::{ClassName, Possession, User, Workload};
use serde_json::Value;

use super::change::Case;
pub use super::question::{Question, Resource, Subject};
use super::rows::{self, Matter};
use crate::acts::exchange::Exchange;
use crate::acts::spawn::{self, SpawnRequest};
use crate::acts::{Issuer, mint};
use crate::caller::Caller;
use crate::denial::{Denial, Fault, Kind, No};
use crate::judge::action::read_actions;
use crate::judge::bound::Proved;
use crate::judge::policy::{Asked, Kept};
use crate::judge::{Act, Chance, Check, Judgement, Places, Presented, Proof, Rules, Source, Verdict, owns, unknown_agent};
use crate::state::{Agent, State};

/// The action of a new agent, on a class.
pub const SPAWN: &str = "spawn";
/// The action of a JWT-SVID, on an audience.
pub const MINT: &str = "mint";
/// The action of an access token with every scope that the agent has left, on an audience.
pub const EXCHANGE: &str = "exchange";

/// Most pairs of a workload and an audience of tokens that are tried for a user.
const WAYS: usize = 64;
/// The assumed lifetime of a user's token, in seconds.
const SIGN_IN: u64 = 3600;

/// A reason for an answer.
#[derive(Clone, Debug)]
pub struct Reason {
    /// The code of a denial, or `ALLOWED`.
    pub code: &'static str,
    /// The reason in words.
    pub text: String,
    /// The check that decided.
    pub check: &'static str,
    /// Where that is defined, and who owns it.
    pub source: Source,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Whether it is allowed.
    pub allowed: bool,
    /// The reasons: one for a denial, and each that allows it for a permit.
    pub reasons: Vec<Reason>,
    /// The journal's revision at which this was judged.
    pub revision: u64,
}

/// Answers one question, within the limits of what the caller may know.
pub fn evaluate(issuer: &Issuer, caller: &Caller, question: &Question) -> Result<Answer, No> {
    let rules = issuer.ledger.rules();
    issuer.ledger.read(|state| {
        let answer = answer(issuer, state, &rules, caller, question)?;
        Ok(if caller.reads_everything() { answer } else { answer.for_caller() })
    })
}

/// Whether the caller may ask about an agent: the agent is the caller's, or the caller is a gateway or serves the audience in
/// question.
pub fn hears(rules: &Rules, caller: &Caller, agent: &Agent, resource: Option<&Resource>) -> bool {
    let serves = match (caller, resource) {
        (Caller::Workload { name, .. }, Some(Resource::Audience(audience))) => {
            rules.serves.get(name).is_some_and(|serves| serves.contains(audience))
        }
        _ => false,
    };
    owns(caller, agent) || hears_all(rules, caller) || serves
}

/// Whether the caller may ask about everybody: operators, and the workloads that are configured as gateways.
pub fn hears_all(rules: &Rules, caller: &Caller) -> bool {
    match caller {
        Caller::Operator { .. } | Caller::Auditor { .. } => true,
        Caller::Workload { name, .. } => rules.gateways.contains(name),
        _ => false,
    }
}

impl Answer {
    fn for_caller(mut self) -> Answer {
        self.reasons.iter_mut().for_each(|reason| reason.source.at.clear());
        self
    }

    fn no(places: &Places, denial: Denial, state: &State) -> Answer {
        let source = places.record("request".to_owned(), None);
        let reason = Reason { code: denial.code, text: denial.message, check: Check::Caller.as_str(), source };
        Answer { allowed: false, reasons: vec![reason], revision: state.revision }
    }
}

/// The answer on a state, under its lock.
pub fn answer(issuer: &Issuer, state: &State, rules: &Rules, caller: &Caller, question: &Question) -> Result<Answer, No> {
    let places = &issuer.explaining.places;
    let no = |denial| Ok(Answer::no(places, denial, state));
    match (&question.subject, &question.resource) {
        (Subject::Agent(uuid), resource) => {
            // T251: any other looks as if it did not exist.
            let agent = state.agent(uuid).filter(|agent| hears(rules, caller, agent, Some(resource)));
            let Some(agent) = agent else { return no(unknown_agent()) };
            match resource {
                Resource::Audience(audience) => of_use(issuer, state, rules, agent, question, audience),
                Resource::Class(class) if question.action == SPAWN => of_child(issuer, state, rules, agent, class),
                Resource::Class(_) => no(not_about()),
            }
        }
        (Subject::Workload(workload), Resource::Class(class)) if question.action == SPAWN => {
            if !hears_all(rules, caller) && !caller.is(workload) {
                return no(Denial::new(
                    Kind::NotFound,
                    "WORKLOAD_UNKNOWN",
                    "there is no such workload, or none that you may ask about",
                ));
            }
            match &question.user {
                // Answers about users are only for callers who may ask about everybody.
                Some(_) if !hears_all(rules, caller) => no(unknown_user()),
                Some(user) => of_user(issuer, state, rules, (user, question), Some(workload), class),
                None => of_spawn(issuer, state, rules, (workload, None), class),
            }
        }
        (Subject::User(user), Resource::Class(class)) if question.action == SPAWN => {
            if !hears_all(rules, caller) {
                return no(unknown_user());
            }
            of_user(issuer, state, rules, (user, question), None, class)
        }
        (Subject::User(_) | Subject::Workload(_), _) => no(not_about()),
    }
}

fn not_about() -> Denial {
    Denial::denied(
        "ROLE_NOT_ALLOWED",
        "agents use audiences; agents, workloads and users spawn classes: nothing else is decided here",
    )
}

fn unknown_user() -> Denial {
    Denial::new(Kind::NotFound, "SUBJECT_UNKNOWN", "there is no such user, or none that you may ask about")
}

/// The act of minting a JWT-SVID, for a question.
struct Minting([String; 1]);

impl Act for Minting {
    type Permit = Kept;

    fn judge(&self, j: &mut Judgement<'_>, caller: &Caller, _: &Chance) -> Result<Kept, No> {
        let uuid = caller.agent_uuid().ok_or_else(|| Fault::new("evaluate", "the caller is no agent"))?;
        j.check_generation(caller)?;
        let agent = j.view().agent(&uuid).ok_or_else(unknown_agent)?;
        mint::allowed(j, agent, &self.0)
    }
}

/// The agent as the caller, independent of a particular credential.
fn itself(issuer: &Issuer, state: &State, agent: &Agent) -> Caller {
    Caller::Bearer {
        id: agent.id(&issuer.trust_domain),
        incarnation: state.incarnation,
        authority: Vec::new(),
        jti: [0; 16],
        ends_at: u64::MAX,
    }
}

fn of_use(
    issuer: &Issuer,
    state: &State,
    rules: &Rules,
    agent: &Agent,
    question: &Question,
    audience: &str,
) -> Result<Answer, No> {
    let (itself, chance) = (itself(issuer, state, agent), Chance::new([0; Chance::LEN]));
    let mut j = Judgement::new(state, rules, issuer.clock.now());
    let (checks, denial) = if question.action == MINT {
        said(j.verdict(&Minting([audience.to_owned()]), &itself, &chance))?
    } else {
        let (mut scopes, mut details) = (Vec::new(), String::new());
        match question.action.as_str() {
            EXCHANGE => {}
            action if rules.actions.contains_key(action) => {
                let mut fields = question.fields.clone();
                fields.insert("type".to_owned(), action.into());
                details = Value::Array(vec![Value::Object(fields)]).to_string();
            }
            scope => scopes.push(scope.to_owned()),
        }
        let actions = match read_actions(&rules.actions, &details) {
            Ok(actions) => actions,
            Err(denial) => return Ok(Answer::no(&issuer.explaining.places, denial, state)),
        };
        // Assumes that the agent can prove a key and a certificate, because how it would ask for a bound token is not a part of the
        // question.
        let held = Possession { key: Some([0; 32]), certificate: Some([0; 32]) };
        let proved = Proved { held, certificate_ends_at: u64::MAX };
        let presented = Presented::Nothing;
        let act = Exchange {
            audience: audience.to_owned(),
            scopes,
            presented,
            digest: None,
            proved,
            actions,
            approval: None,
            for_agent: None,
            wants_id_jag: None,
            resource: None,
            held: None,
        };
        said(j.verdict(&act, &itself, &chance))?
    };
    let matter = Matter {
        places: &issuer.explaining.places,
        caller: &itself,
        operator: false,
        class: Some(&agent.mandate.class),
        workload: Some(agent.mandate.workload.clone()),
        user: agent.delegation.as_ref().map(|delegation| delegation.user.clone()),
        delegation: agent.delegation.as_deref(),
        asked: None,
        audience: Some(audience),
        agent: Some(agent),
        uses: &[],
    };
    Ok(told(&j, &matter, &checks, denial.as_ref(), state))
}

/// An agent's own spawn.
fn of_child(issuer: &Issuer, state: &State, rules: &Rules, agent: &Agent, class: &ClassName) -> Result<Answer, No> {
    let places = &issuer.explaining.places;
    let standing = state.standing(agent, issuer.clock.now());
    if let Some((code, message)) = standing.refusal() {
        return Ok(Answer::no(places, Denial::denied(code, message), state));
    }
    let Some(certificate) = agent.last() else {
        let message = "the agent has not redeemed its ticket, so it has no certificate to spawn with";
        return Ok(Answer::no(places, Denial::denied("ROLE_NOT_ALLOWED", message), state));
    };
    let caller = Caller::Agent {
        id: agent.id(&issuer.trust_domain),
        key: certificate.key,
        serial: certificate.serial.to_vec(),
        incarnation: state.incarnation,
        opened: state.revision,
        authority: Vec::new(),
    };
    spawned(issuer, state, rules, (caller, None), class)
}

/// A workload's spawn, with the proof of a user or without.
fn of_spawn(
    issuer: &Issuer,
    state: &State,
    rules: &Rules,
    by: (&Workload, Option<Proof>),
    class: &ClassName,
) -> Result<Answer, No> {
    let caller = match by.0 {
        Workload::Own(name) if !rules.workloads.contains(name) => {
            let denial = Denial::new(Kind::NotFound, "WORKLOAD_UNKNOWN", "the workload is not configured");
            return Ok(Answer::no(&issuer.explaining.places, denial, state));
        }
        Workload::Own(name) => {
            Caller::Workload { name: name.clone(), key: [0; 32], serial: Vec::new(), opened: 0, authority: Vec::new() }
        }
        Workload::Foreign(id) => Caller::Foreign { id: id.clone(), ends_at: u64::MAX },
    };
    spawned(issuer, state, rules, (caller, by.1), class)
}

/// A spawn for a user by any workload that may present their token, or by the given one.
fn of_user(
    issuer: &Issuer,
    state: &State,
    rules: &Rules,
    (user, question): (&User, &Question),
    by: Option<&Workload>,
    class: &ClassName,
) -> Result<Answer, No> {
    let now = issuer.clock.seconds();
    let audiences = rules.tokens.get(&user.iss).into_iter().flatten();
    let ways = audiences.flat_map(|(audience, ceiling)| ceiling.workloads.iter().map(move |workload| (audience, workload)));
    let mut first = None;
    for (audience, workload) in ways.filter(|(_, workload)| by.is_none_or(|by| by == *workload)).take(WAYS) {
        let proof = Proof::Token {
            user: user.clone(),
            proof: [0xff; 32],
            token: [0xff; 32],
            issued_at: now + 1,
            ends_at: now + SIGN_IN,
            audience: audience.clone(),
            acr: question.acr.clone(),
            signed_in_at: Some(now),
            groups: question.groups.clone(),
            hint: None,
        };
        let answer = of_spawn(issuer, state, rules, (workload, Some(proof)), class)?;
        if answer.allowed {
            return Ok(answer);
        }
        first = first.or(Some(answer));
    }
    let none = || {
        let message = "no workload that is asked about may present a token of this user";
        Answer::no(&issuer.explaining.places, Denial::new(Kind::NotFound, "USER_ISSUER_UNKNOWN", message), state)
    };
    Ok(first.unwrap_or_else(none))
}

fn spawned(
    issuer: &Issuer,
    state: &State,
    rules: &Rules,
    (caller, proof): (Caller, Option<Proof>),
    class: &ClassName,
) -> Result<Answer, No> {
    let mode = (proof.is_none() && caller.agent().is_none()).then_some(mayfly_verify::Mode::Autonomous);
    let request = SpawnRequest {
        request_id: String::new(),
        class: class.clone(),
        user_token: String::new(),
        delegation: None,
        // Asks for whatever can be given, so that the answer is about the class and not about its ceilings.
        asked: Asked { mode, ..Asked::default() },
        audience: String::new(),
        keyless: None,
    };
    let case = Case::new(spawn::asked(request, proof), caller, rules, state, issuer.clock.now());
    case.judge_about(state, |j, verdict| {
        let denial = match &verdict.result {
            Ok(_) => None,
            Err(No::Denial(denial)) => Some(denial.clone()),
            Err(No::Fault(fault)) => return Err(Fault::new("evaluate", fault).into()),
        };
        let uses = super::uses(j, &case);
        Ok(told(j, &super::matter(j, &case, &issuer.explaining.places, &uses), &verdict.checks, denial.as_ref(), state))
    })
}

fn said<P>(verdict: Verdict<P>) -> Result<(Vec<Check>, Option<Denial>), No> {
    match verdict.result {
        Ok(_) => Ok((verdict.checks, None)),
        Err(No::Denial(denial)) => Ok((verdict.checks, Some(denial))),
        Err(No::Fault(fault)) => Err(fault.into()),
    }
}

/// The answer with its reasons: the check that failed for a denial, or the sources that allow it for a permit.
fn told(j: &Judgement<'_>, matter: &Matter<'_>, checks: &[Check], denial: Option<&Denial>, state: &State) -> Answer {
    let decides = |check: &&Check| matches!(check, Check::Authority | Check::Audience | Check::AuthorityLeft | Check::Policy(_));
    let told: Vec<Check> = match denial {
        Some(_) => checks.last().copied().into_iter().collect(),
        None => checks.iter().filter(decides).copied().collect(),
    };
    let rows = rows::rows(j, matter, &told, denial.is_none());
    let (code, said) = denial.map_or(("ALLOWED", None), |denial| (denial.code, Some(&denial.message)));
    let reason = |row: super::told::Row| {
        let text = said.cloned().unwrap_or(row.saw);
        Reason { code, text, check: row.check, source: row.source }
    };
    Answer { allowed: denial.is_none(), reasons: rows.into_iter().map(reason).collect(), revision: state.revision }
}
