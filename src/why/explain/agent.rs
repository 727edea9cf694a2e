//! Explains an agent or a credential of it: whether the agent still has its authority, judged as a request of the agent itself.

use mayfly_verify::{ClassName, Reject};
use rustls_pki_types::CertificateDer;

use super::parts;
use super::rows::{self, Matter};
use super::steps;
use super::told::{Explanation, Row, Step};
use super::{Change, flip, matters};
use crate::acts::{Issuer, introspect};
use crate::caller::Caller;
use crate::denial::{Denial, Fault, No};
use crate::judge::limits::Spawner;
use crate::judge::policy::Kept;
use crate::judge::{Act, Chance, Check, Judgement, Rules, Section, Use, sees, unknown_agent};
use crate::policies::Action;
use crate::state::{Agent, State};

/// Most certificates of one credential.
const CHAIN: usize = 8;

/// The act that is judged: whether an agent still has its authority, as is checked for every renewal and every token, and whether
/// policies let it be renewed.
struct Hold;

impl Act for Hold {
    type Permit = Kept;

    fn judge(&self, j: &mut Judgement<'_>, caller: &Caller, _: &Chance) -> Result<Kept, No> {
        let (Caller::Agent { id, .. } | Caller::Bearer { id, .. }) = caller else {
            return Err(Fault::new("explain", "the caller is no agent").into());
        };
        j.check_generation(caller)?;
        let agent = j.view().agent(&id.uuid).ok_or_else(unknown_agent)?;
        let kept = j.authority_left(agent)?;
        // An agent without a key is not renewed.
        if !agent.is_keyless() {
            let of = Use { action: Action::Renew, audience: None, scopes: &kept.scopes, audiences: &kept.audiences };
            j.policies_on_use(agent, of)?;
        }
        Ok(kept)
    }
}

/// Explains an agent that the caller may see. T13: any other looks as if it did not exist.
pub(super) fn agent(issuer: &Issuer, caller: &Caller, id: &str) -> Result<Explanation, No> {
    let uuid = issuer.agent_id(id)?;
    let now = issuer.clock.now();
    issuer.ledger.read(|state| {
        let agent = state.agent(&uuid).filter(|agent| sees(caller, agent)).ok_or_else(unknown_agent)?;
        // The agent as the caller, independent of a particular credential.
        let itself = Caller::Bearer {
            id: agent.id(&issuer.trust_domain),
            incarnation: state.incarnation,
            authority: Vec::new(),
            jti: [0; 16],
            ends_at: u64::MAX,
        };
        held(issuer, state, caller, agent, &itself, now)
    })
}

/// Explains an X.509-SVID: of an agent that the caller may see, or of a workload.
pub(super) fn certificates(issuer: &Issuer, caller: &Caller, chain: &[Vec<u8>]) -> Result<Explanation, No> {
    if chain.is_empty() || chain.len() > CHAIN {
        return Err(Denial::malformed("CREDENTIAL_MALFORMED", format!("give 1 to {CHAIN} certificates, the leaf first")).into());
    }
    let chain: Vec<CertificateDer<'_>> = chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let opened = issuer.ledger.read(|state| state.revision);
    let proved = match issuer.prove(&chain, opened) {
        Ok(proved) => proved,
        Err(denial) => return Ok(not_valid(issuer, "a certificate", denial)),
    };
    let now = issuer.clock.now();
    let id = proved.id().to_string();
    issuer.ledger.read(|state| match issuer.now(state, &proved) {
        Ok((itself @ Caller::Agent { .. }, _)) => {
            let agent = agent_of(state, caller, &itself)?;
            held(issuer, state, caller, agent, &itself, now)
        }
        // The certificate of a workload, whose verification is explained completely.
        found if may_know(issuer, caller, &id) => {
            Ok(Explanation { revision: state.revision, ..credential(issuer, &id, found.err()) })
        }
        _ => Err(unknown_agent().into()),
    })
}

/// Explains a JWT-SVID or an access token of an agent that the caller may see.
pub(super) async fn token(issuer: &Issuer, caller: &Caller, token: &str) -> Result<Explanation, No> {
    let verified = if mayfly_verify::is_access_token(token) {
        introspect::access_token(issuer, token).await?.map(|token| (token.client, token.expires_at))
    } else {
        introspect::any_svid(issuer, token).await?
    };
    let (id, ends_at) = match verified {
        Ok(verified) => verified,
        Err(reject) => return Ok(not_valid(issuer, "a token", rejected(&reject))),
    };
    let now = issuer.clock.now();
    issuer.ledger.read(|state| {
        let (incarnation, authority) = (state.incarnation, Vec::new());
        let itself = Caller::Bearer { id, incarnation, authority, jti: [0; 16], ends_at };
        let agent = agent_of(state, caller, &itself)?;
        held(issuer, state, caller, agent, &itself, now)
    })
}

fn rejected(reject: &Reject) -> Denial {
    Denial::denied(reject.code(), reject.to_string())
}

fn agent_of<'a>(state: &'a State, caller: &Caller, itself: &Caller) -> Result<&'a Agent, Denial> {
    let (Caller::Agent { id, .. } | Caller::Bearer { id, .. }) = itself else { return Err(unknown_agent()) };
    state.agent(&id.uuid).filter(|agent| sees(caller, agent)).ok_or_else(unknown_agent)
}

/// Whether a caller may know the status of a credential with this SPIFFE ID.
fn may_know(issuer: &Issuer, caller: &Caller, id: &str) -> bool {
    caller.reads_everything() || caller.spiffe_id(&issuer.trust_domain).as_deref() == Some(id)
}

/// The explanation of a credential that is not valid. It does not reveal whose it is.
fn not_valid(issuer: &Issuer, about: &str, denial: Denial) -> Explanation {
    let revision = issuer.ledger.read(|state| state.revision);
    Explanation { revision, ..credential(issuer, about, Some(denial)) }
}

/// The explanation of a credential by itself.
fn credential(issuer: &Issuer, about: &str, denial: Option<Denial>) -> Explanation {
    let source = issuer.explaining.places.record("credential".to_owned(), None);
    let saw = denial.as_ref().map_or_else(|| format!("{about}, valid now"), |denial| format!("not accepted: {}", denial.code));
    Explanation {
        about: about.to_owned(),
        checks: vec![Row { check: Check::Caller.as_str(), passed: denial.is_none(), saw, source }],
        denial,
        complete: true,
        at: issuer.clock.now(),
        ..Explanation::default()
    }
}

/// Judges as an agent whether it still has its authority.
fn held(issuer: &Issuer, state: &State, caller: &Caller, agent: &Agent, itself: &Caller, now: u64) -> Result<Explanation, No> {
    let (places, rules) = (&issuer.explaining.places, issuer.ledger.rules());
    let mut j = Judgement::new(state, &rules, now);
    let verdict = j.verdict(&Hold, itself, &Chance::new([0; Chance::LEN]));
    let denial = match verdict.result {
        Ok(_) => None,
        Err(No::Denial(denial)) => Some(denial),
        Err(No::Fault(fault)) => return Err(fault.into()),
    };
    let below = agent.lineage_below();
    let uses = j.uses(&Spawner {
        user: agent.delegation.as_ref().map(|delegation| delegation.user_subject()),
        workload: agent.mandate.workload_subject,
        class: agent.mandate.class_subject,
        agents: &below.agents,
    });
    let matter = Matter {
        places,
        caller: itself,
        operator: caller.reads_everything(),
        class: Some(&agent.mandate.class),
        workload: Some(agent.mandate.workload.clone()),
        user: agent.delegation.as_ref().map(|delegation| delegation.user.clone()),
        delegation: agent.delegation.as_deref(),
        asked: None,
        audience: None,
        agent: Some(agent),
        uses: &uses,
    };
    let (scopes, audiences) = parts::of_agent(&j, &matter, agent);
    let flip =
        if denial.is_some() { turned(issuer, state, agent, itself, now, verdict.checks.last().copied()) } else { Vec::new() };
    Ok(Explanation {
        about: agent.id(&issuer.trust_domain).to_string(),
        checks: rows::rows(&j, &matter, &verdict.checks, denial.is_none()),
        scopes,
        audiences,
        limits: uses.iter().filter_map(|of| rows::used(&j, places, of)).chain(rows::budgets(&j, places, agent)).collect(),
        policies: rows::policies(&j, &verdict.checks),
        flip,
        denial,
        complete: true,
        decision: format!("r{}", agent.revision),
        revision: state.revision,
        at: j.at(),
    })
}

/// The changes of the configuration that would restore an agent's authority. An agent that was revoked or has ended never comes
/// back.
fn turned(issuer: &Issuer, state: &State, agent: &Agent, itself: &Caller, now: u64, check: Option<Check>) -> Vec<Vec<Step>> {
    let (places, rules) = (&issuer.explaining.places, issuer.ledger.rules());
    let above = agent.ancestors().filter_map(|uuid| state.agent(&uuid));
    let mut changes = Vec::new();
    for class in std::iter::once(agent).chain(above).map(|agent| &agent.mandate.class) {
        let lost =
            agent.mandate.scopes.iter().filter(|s| rules.classes.get(class).is_some_and(|class| !class.scopes.contains(*s)));
        changes.extend(lost.map(|scope| Change::ClassScope(class.clone(), scope.clone())));
    }
    if let Some(delegation) = agent.delegation.as_ref().filter(|d| !rules.issuers.contains_key(&d.user.iss)) {
        changes.push(Change::Provider(delegation.user.iss.clone()));
    }
    changes.dedup();
    changes.extend((0..rules.policies.as_ref().map_or(0, |set| set.all().len())).map(Change::Policy));
    let matter = |change: &Change, check: &Check| match check {
        Check::AuthorityLeft => matches!(change, Change::ClassScope(..)),
        other => matters(change, *other, &rules),
    };
    let judge = |set: &[usize]| {
        let rules = changed(&rules, set.iter().filter_map(|n| changes.get(*n)));
        let mut j = Judgement::new(state, &rules, now);
        let verdict = j.verdict(&Hold, itself, &Chance::new([0; Chance::LEN]));
        verdict.result.map(drop).map_err(|_| verdict.checks.last().copied().unwrap_or(Check::Caller))
    };
    let first = check.unwrap_or(Check::Caller);
    let found =
        flip::smallest(changes.len(), first, AGENT_SETS, |n, check| changes.get(n).is_some_and(|c| matter(c, check)), judge);
    let step = |change: &Change| {
        let (text, source) = match change {
            Change::ClassScope(class, scope) => {
                (format!("add scope `{scope}` to class `{class}`"), places.of(Section::Classes, class.as_str(), Some("scopes")))
            }
            Change::Policy(index) => steps::policy(*index, &rules, places),
            _ => ("configure the provider of the user again".to_owned(), places.elsewhere("issuers")),
        };
        Step { change: change.clone(), text, source }
    };
    found.sets.iter().map(|set| set.iter().filter_map(|n| changes.get(*n)).map(step).collect()).collect()
}

/// Most sets of changes that are judged for an agent, all under one lock of the state.
const AGENT_SETS: usize = 32;

fn changed<'a>(rules: &Rules, changes: impl Iterator<Item = &'a Change>) -> Rules {
    let mut rules = rules.clone();
    for change in changes {
        match change {
            Change::ClassScope(class, scope) => add(&mut rules, class, scope),
            Change::Provider(iss) => drop(rules.issuers.insert(iss.clone(), "added".to_owned())),
            Change::Policy(index) => rules.lift(*index),
            _ => {}
        }
    }
    rules
}

fn add(rules: &mut Rules, class: &ClassName, scope: &str) {
    if let Some(class) = rules.classes.get_mut(class) {
        class.scopes.insert(scope.to_owned());
    }
}
