//! Reach: the people who may answer a question are asked by their own provider, on a device of theirs, where that is configured (CIBA Core
//! 1.0, poll mode). The ID token that their provider gives when they agree is the evidence of their answer.
//!
//! No request waits for it. What is lost, also by a restart, can be answered at the page and by a command, and is asked again with the same
//! question.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mayfly_verify::User;
use mayfly_verify::approval::binding_code;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinSet};

use super::answer::{self, Answer, Says};
use super::{Issuer, user};
use crate::assertion::{Hint, Presenter};
use crate::caller::{Caller, Origin};
use crate::clock::SECOND;
use crate::denial::{Denial, Kind, No};
use crate::judge::access::Action;
use crate::judge::approval::{answerers, standing};
use crate::login::ciba::{Polled, Question as Words};
use crate::login::site::Site;
use crate::login::{LoginError, Provider};
use crate::state::{Approval, Status};

/// Questions that are put to people at once, and that wait for it.
const ASKED: usize = 1024;
const WAITING: usize = 1024;
/// Questions that are put to one person at once. More of them wait at the page, and do not ring.
const OF_PERSON: usize = 4;
/// Questions that ring at one person within a time, whatever became of them.
const RINGS: (usize, Duration) = (10, Duration::from_secs(300));
/// How many of them are remembered, of all people together.
const RUNG: usize = 64 * ASKED;
/// Pause before an answer is recorded again after a fault that passes.
const AGAIN: Duration = Duration::from_secs(2);
/// Polls in a row that may fail.
const FAILURES: u32 = 5;
/// How far the clock of a provider may be behind ours, in seconds.
const LEEWAY: u64 = 30;

/// A question to one person.
pub struct Question {
    approval: [u8; 16],
    person: User,
}

/// Asks people at their providers.
pub struct Reach {
    questions: mpsc::Sender<Question>,
    // Guards the clients of the configured providers that were used. Held for one look-up.
    sites: Mutex<Vec<Arc<Site>>>,
}

impl Reach {
    /// The other half is for [`keep`].
    pub fn new() -> (Reach, mpsc::Receiver<Question>) {
        let (questions, asked) = mpsc::channel(WAITING);
        (Reach { questions, sites: Mutex::default() }, asked)
    }

    /// The client at a provider, and how it is told whom to ask. `None` if it asks nobody for us.
    fn site(&self, issuer: &Issuer, iss: &str) -> Option<(Arc<Site>, Hint)> {
        let providers = issuer.providers.load();
        let configured: Vec<(Provider, Hint)> = providers
            .assertions
            .asking()
            .map(|(settings, client, secret_file)| {
                let provider = Provider {
                    issuer: settings.issuer.clone(),
                    client: client.to_owned(),
                    secret_file: Some(secret_file.to_owned()),
                    ca_file: settings.ca_file.clone(),
                    scope: Some("openid".into()),
                    resource: None,
                };
                (provider, settings.hint.clone())
            })
            .collect();
        let (provider, hint) = configured.iter().find(|(provider, _)| provider.issuer == iss)?.clone();
        let mut sites = self.sites.lock();
        // One that is configured in another way by now is forgotten.
        sites.retain(|site| configured.iter().any(|(provider, _)| provider == site.provider()));
        if let Some(known) = sites.iter().find(|site| *site.provider() == provider) {
            return Some((Arc::clone(known), hint));
        }
        let site = Arc::new(Site::new(provider));
        sites.push(Arc::clone(&site));
        Some((site, hint))
    }
}

/// Has the people who may answer an approval asked, each at their own provider if it is configured for that.
pub(super) fn ask(issuer: &Issuer, approval: &Approval) {
    let rules = issuer.ledger.rules();
    let people = issuer.ledger.read(|state| state.agent(&approval.agent).map(|agent| answerers(&rules, agent, approval)));
    for person in people.unwrap_or_default() {
        let asks = issuer.providers.load().assertions.asking().any(|(settings, ..)| settings.issuer == person.iss);
        if asks && issuer.reach.questions.try_send(Question { approval: approval.id, person }).is_err() {
            count("dropped");
        }
    }
}

/// Puts questions to people until `stop`. No more than so many at once, and none to one person twice.
pub async fn keep(issuer: Arc<Issuer>, mut questions: mpsc::Receiver<Question>, mut stop: watch::Receiver<bool>) {
    let (mut asking, mut whom) = (JoinSet::new(), HashMap::<Id, (User, [u8; 16])>::new());
    let mut rung = VecDeque::<(Instant, User)>::new();
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            Some(ended) = asking.join_next_with_id() => {
                whom.remove(&ended.map_or_else(|failed| failed.id(), |(id, ())| id));
            }
            question = questions.recv(), if whom.len() < ASKED => {
                let Some(Question { approval, person }) = question else { return };
                if whom.values().any(|known| *known == (person.clone(), approval)) {
                    continue;
                }
                while rung.front().is_some_and(|(at, _)| at.elapsed() > RINGS.1) {
                    rung.pop_front();
                }
                // T332: a person whose device rings all the time, at once or one time after another, says yes to end it.
                let at_once = whom.values().filter(|(known, _)| *known == person).count();
                let of_late = rung.iter().filter(|(_, known)| *known == person).count();
                if at_once >= OF_PERSON || of_late >= RINGS.0 || rung.len() >= RUNG {
                    count("dropped");
                    continue;
                }
                rung.push_back((Instant::now(), person.clone()));
                let (issuer, asked) = (Arc::clone(&issuer), person.clone());
                let handle = asking.spawn(async move { count(put(&issuer, &asked, &approval).await) });
                whom.insert(handle.id(), (person, approval));
            }
        }
    }
}

fn count(outcome: &'static str) {
    metrics::counter!("mayfly_asked_at_provider_total", "outcome" => outcome).increment(1);
}

/// The question as it waits for this person, and their name in a `login_hint` if it is a claim. `None` if they cannot answer it any more.
fn waits(issuer: &Issuer, person: &User, id: &[u8; 16]) -> Option<(Approval, Option<String>)> {
    let (now, rules) = (issuer.clock.now(), issuer.ledger.rules());
    issuer.ledger.read(|state| {
        let approval = state.approval(id).filter(|approval| standing(state, approval, now) == Status::Pending)?;
        let agent = state.agent(&approval.agent).filter(|agent| answerers(&rules, agent, approval).contains(person))?;
        let delegation = agent.delegation.as_ref().filter(|delegation| delegation.user == *person);
        Some((approval.clone(), delegation.and_then(|delegation| delegation.hint.as_deref().map(str::to_owned))))
    })
}

/// Puts a question to a person, and records their answer. Returns what became of it.
async fn put(issuer: &Issuer, person: &User, id: &[u8; 16]) -> &'static str {
    let failed = |what: &str, cause: &dyn std::fmt::Display| {
        tracing::warn!(provider = person.iss, what, %cause, "a person was not asked at their provider: they can answer at the page");
        "failed"
    };
    let Some((approval, claimed)) = waits(issuer, person, id) else { return "over" };
    let Some((site, hint)) = issuer.reach.site(issuer, &person.iss) else { return "over" };
    let hint = match hint {
        Hint::Sub => person.sub.clone(),
        Hint::IssSub => json!({ "format": "iss_sub", "iss": person.iss, "sub": person.sub }).to_string(),
        Hint::Claim(name) => match claimed {
            Some(claimed) => claimed,
            // The claim comes from the token by which they let this agent act. Whoever else may answer has given none.
            None => return failed("login_hint", &format!("no token of theirs has told what their claim `{name}` is")),
        },
    };
    // 1. The request. It lasts no longer than the question.
    let now = issuer.clock.seconds();
    let words = Words {
        hint: &hint,
        code: &binding_code(&approval.id, &approval.digest),
        details: &approval.details,
        types: &approval.types,
        seconds: (approval.ends_at / SECOND).saturating_sub(now).max(1),
    };
    let mut asked = match site.ask(&words).await {
        Ok(asked) => asked,
        Err(cause) => return failed("request", &cause),
    };
    // CIBA 7.3: what the provider says and what was asked for may differ, so the earlier of the two ends it.
    let until = (approval.ends_at / SECOND).min(now.saturating_add(asked.lasts));
    // 2. The answer, by polls: none before the interval is over (CIBA 11).
    let mut failures = 0;
    loop {
        tokio::time::sleep(Duration::from_secs(asked.interval)).await;
        if waits(issuer, person, id).is_none() {
            return "over";
        }
        if issuer.clock.seconds() >= until {
            return "expired";
        }
        match site.poll(&asked).await {
            Ok(Polled::Pending) => failures = 0,
            Ok(Polled::TooEarly) => asked.slow_down(),
            Ok(Polled::Expired) => return "expired",
            Ok(Polled::Refused) => {
                let no = || {
                    let caller = Caller::User { user: person.clone(), issued_at: issuer.clock.seconds(), only_revokes: false };
                    record(issuer, caller, &approval, (Says::No, &asked.id, None))
                };
                return match at_last(issuer, (person, id), no).await {
                    Ok(()) => "denied",
                    Err(no) => failed("answer", &no),
                };
            }
            Ok(Polled::Agreed(token)) => {
                return match at_last(issuer, (person, id), || agreed(issuer, person, &approval, (&token, now))).await {
                    Ok(()) => "approved",
                    Err(no) => failed("answer", &no),
                };
            }
            Err(cause @ LoginError::Refused(_)) => return failed("poll", &cause),
            Err(cause) => {
                failures += 1;
                if failures >= FAILURES {
                    return failed("poll", &cause);
                }
                asked.slow_down();
            }
        }
    }
}

/// Records an answer, which the provider gives once: again after a fault that passes, for as long as the question waits. What is refused for
/// good stands in the history.
async fn at_last<F: Future<Output = Result<(), No>>>(
    issuer: &Issuer,
    (person, id): (&User, &[u8; 16]),
    answer: impl Fn() -> F,
) -> Result<(), No> {
    loop {
        let no = match answer().await {
            Ok(()) => return Ok(()),
            Err(no) => no,
        };
        let passes = matches!(&no, No::Denial(denial) if matches!(denial.kind, Kind::Unavailable | Kind::Exhausted));
        if !passes || waits(issuer, person, id).is_none() {
            let origin = Origin::new("Approvals/AnswerAtProvider", None);
            let caller = Caller::User { user: person.clone(), issued_at: issuer.clock.seconds(), only_revokes: false };
            let _ = origin.caller.set(caller);
            issuer.history.denied(&origin, &no);
            return Err(no);
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Verifies the ID token of a person who agreed, and records their approval.
///
/// T333: it counts if this provider signed it for the client by which it was asked, for this very person, after it was asked.
async fn agreed(issuer: &Issuer, person: &User, approval: &Approval, (token, asked_at): (&str, u64)) -> Result<(), No> {
    let providers = issuer.providers.load_full();
    let verified = providers.assertions.verify(token, issuer.clock.seconds(), Presenter::Certified).await;
    let said = verified.map_err(user::refused)?;
    if !said.asked() {
        return Err(Denial::denied("USER_TOKEN_AUDIENCE", "the ID token is for another client").into());
    }
    if said.user() != person {
        return Err(Denial::denied("USER_TOKEN_OF_ANOTHER", "somebody else agreed than the person who was asked").into());
    }
    if said.issued_at().saturating_add(LEEWAY) < asked_at {
        return Err(Denial::denied("USER_TOKEN_TOO_EARLY", "the ID token is from before the question").into());
    }
    let caller = Caller::User { user: person.clone(), issued_at: said.issued_at(), only_revokes: false };
    record(issuer, caller, approval, (Says::Yes { shown: approval.digest }, token, said.acr())).await
}

async fn record(
    issuer: &Issuer,
    caller: Caller,
    approval: &Approval,
    (says, evidence, acr): (Says, &str, Option<&str>),
) -> Result<(), No> {
    let caller = issuer.may(Action::AnswerApproval, caller)?;
    let at_provider = Some(acr.unwrap_or_default().to_owned());
    let answer = Answer { id: approval.id, says, evidence: mayfly_verify::sha256(evidence.as_bytes()), at_provider };
    answer::record_answer(issuer, caller, answer).await.map(drop)
}
