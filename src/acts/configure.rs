//! Configure: records the configuration in use at a start and at each reload, and says what another configuration would change.

use mayfly_verify::User;
use tokio::sync::{mpsc, oneshot};

use super::Issuer;
use crate::caller::{Caller, Origin};
use crate::clock::SECOND;
use crate::denial::{Denial, Fault, Kind as DenialKind, No};
use crate::journal::record::{self, record::Body};
use crate::judge::{Act, Chance, Judgement, Rules, policy};
use crate::ledger::{InLane, Lane, Ledger, Pending};
use crate::pipeline::chance;
use crate::state::authority::Kind;
use crate::state::{Agent, Standing, State};

/// The code of a denial of evidence that was verified under a configuration that has been replaced since.
pub(super) const CHANGED: &str = "CONFIGURATION_CHANGED";
/// How often a request is judged again because the configuration changed. After that it is denied with [`CHANGED`].
pub(super) const TRIES: usize = 4;
/// Most configuration orders that wait in the queue.
const WAITING: usize = 8;
/// Affected agents that are listed one by one.
pub const LISTED: usize = 1000;

/// The configuration in use.
#[derive(Clone, Copy, Debug)]
pub struct Configure {
    /// SHA-256 of classes and limits in canonical form.
    pub classes: [u8; 32],
    /// SHA-256 of everything that is written in the file, in a canonical form.
    pub written: [u8; 32],
}

/// Records the configuration of a start if it has changed. Blocks: not for async code.
pub fn configure(ledger: &Ledger, configured: Configure) -> Result<(), No> {
    let pending = Pending::new(Caller::Stranger, configured, chance()?);
    // The lane of authorities has reserved space, so that a start does not fail because the disk is full.
    let InLane(_, mut settled) = ledger.commit(InLane(Lane::Authority, vec![pending]));
    let settled = settled.pop().map(|mut pending| pending.take().map(drop));
    settled.unwrap_or(Ok(()))
}

/// Records the configuration of a reload, by whose rules it is judged, and swaps the rules. Returns the revision of the record. Blocks:
/// not for async code.
pub fn reconfigure(
    ledger: &Ledger,
    caller: Caller,
    origin: Option<std::sync::Arc<Origin>>,
    configured: Configure,
    rules: Rules,
) -> Result<u64, No> {
    ledger.reconfigure(Pending::new(caller, configured, chance()?).from(origin), rules)
}

impl Act for Configure {
    type Permit = u64;

    fn judge(&self, j: &mut Judgement<'_>, caller: &Caller, _: &Chance) -> Result<u64, No> {
        let body = record::Configured {
            classes: self.classes.to_vec(),
            x509_life: j.rules().x509_life(),
            jwt_life: j.rules().jwt_life(),
            // If lifetimes get shorter now, credentials that were issued before still last as long as they were signed for.
            x509_until: j.last_ends(Kind::X509) / SECOND,
            jwt_until: j.last_ends(Kind::Jwt) / SECOND,
            policies: j.rules().policies.as_ref().map(|set| set.digest().to_vec()).unwrap_or_default(),
            written: self.written.to_vec(),
        };
        let same = |c: &record::Configured| {
            let lives = c.x509_life == body.x509_life && c.jwt_life == body.jwt_life;
            lives && c.classes == body.classes && c.policies == body.policies && c.written == body.written
        };
        match j.view().configured() {
            Some((configured, revision)) if same(configured) => Ok(revision),
            _ => j.push(caller, Body::Configured(body)),
        }
    }
}

/// Whether the rules are those by which something was proved. A reload may have come between the proof and the judgement.
pub(super) fn check_number(j: &Judgement<'_>, number: u64) -> Result<(), Denial> {
    if j.rules().number == number {
        return Ok(());
    }
    let message = "the configuration changed while this was decided: ask again";
    Err(Denial::new(DenialKind::Unavailable, CHANGED, message))
}

/// A key of the configuration that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its path, such as `classes.worker.scopes`.
    pub key: String,
    /// Its value as TOML before. Empty if it was not written.
    pub before: String,
    /// Its value as TOML after. Empty if it is not written any more.
    pub after: String,
    /// Whether it is kept as it was until a restart.
    pub needs_restart: bool,
}

/// A live agent that would lose some of its authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Affected {
    /// Its SPIFFE ID.
    pub agent: String,
    /// What it loses: `class`, `workload`, `user`, `scope:NAME`, `audience:NAME`.
    pub loses: Vec<String>,
}

/// What a reload did.
#[derive(Clone, Debug)]
pub struct Reloaded {
    /// Revision of the record.
    pub revision: u64,
    /// The differences between the two configurations.
    pub changes: Vec<Change>,
}

/// What a file would change.
#[derive(Clone, Debug, Default)]
pub struct Compared {
    /// The keys that differ.
    pub changes: Vec<Change>,
    /// The live agents that would lose some of their authority, at most [`LISTED`].
    pub agents: Vec<Affected>,
    /// How many they are.
    pub affected: u64,
}

/// A request to the task that reads the configuration.
pub enum Order {
    /// Read it again, and use it.
    Reload(Caller, Option<std::sync::Arc<Origin>>, oneshot::Sender<Result<Reloaded, No>>),
    /// Say what this text, of a file with this name, would change.
    Compare(String, String, oneshot::Sender<Result<Compared, No>>),
}

/// The channel to the task that reads the configuration.
pub struct Configuration(mpsc::Sender<Order>);

impl Configuration {
    /// The channel and its receiver.
    pub fn new() -> (Configuration, mpsc::Receiver<Order>) {
        let (orders, queue) = mpsc::channel(WAITING);
        (Configuration(orders), queue)
    }

    /// Reads the configuration again, whole or not at all. The caller must be an operator.
    pub async fn reload(&self, caller: Caller) -> Result<Reloaded, No> {
        self.order(|answer| Order::Reload(caller, Origin::current(), answer)).await
    }

    /// What a file would change. Nothing is changed.
    pub async fn compare(&self, text: String, name: String) -> Result<Compared, No> {
        self.order(|answer| Order::Compare(text, name, answer)).await
    }

    async fn order<T>(&self, order: impl FnOnce(oneshot::Sender<Result<T, No>>) -> Order) -> Result<T, No> {
        let (answer, done) = oneshot::channel();
        let busy = |_| Denial::new(DenialKind::Exhausted, "BUSY", "too many reloads are waiting: ask again");
        self.0.try_send(order(answer)).map_err(busy)?;
        done.await.map_err(|_| Fault::new("configure", "the order was dropped"))?
    }
}

/// The denial of a configuration that cannot be used. The previous one stays in use.
pub fn refused(why: &str) -> Denial {
    // The message is sent in a header, whose size is limited.
    let why: String = why.chars().take(3000).collect();
    Denial::new(DenialKind::Precondition, "CONFIGURATION_REFUSED", format!("nothing was changed: {why}"))
}

impl Issuer {
    /// The live agents that would lose some of their authority under other rules, and their number.
    pub fn affected(&self, new: &Rules) -> (Vec<Affected>, u64) {
        let (now, old) = (self.clock.now(), self.ledger.rules());
        self.ledger.read(|state| {
            let (mut listed, mut count) = (Vec::new(), 0);
            for agent in state.agents_after(None).filter(|agent| state.standing(agent, now) == Standing::Live) {
                let loses = loses(state, agent, &old, new);
                if loses.is_empty() {
                    continue;
                }
                count += 1;
                if listed.len() < LISTED {
                    listed.push(Affected { agent: agent.id(&new.trust_domain).to_string(), loses });
                }
            }
            (listed, count)
        })
    }
}

/// What an agent loses, as it will be decided at its next renewal or mint.
fn loses(_: &State, agent: &Agent, old: &Rules, new: &Rules) -> Vec<String> {
    let mandate = &agent.mandate;
    let mut loses = Vec::new();
    if let mayfly_verify::Workload::Own(name) = &mandate.workload
        && old.workloads.contains(name)
        && !new.workloads.contains(name)
    {
        loses.push("workload".to_owned());
    }
    let gone = |user: &User| old.issuers.contains_key(&user.iss) && !new.issuers.contains_key(&user.iss);
    if agent.delegation.as_ref().is_some_and(|delegation| gone(&delegation.user)) {
        loses.push("user".to_owned());
    }
    let [before, after] = [old, new].map(|rules| rules.classes.get(&mandate.class));
    match (before, after) {
        (Some(_), None) => loses.push("class".to_owned()),
        (Some(before), Some(after)) => {
            let kept = |class| match policy::decide_again(Some(class), &mandate.scopes, &mandate.audiences) {
                Ok(kept) => (kept.scopes, kept.audiences),
                Err(_) => (Vec::new(), Vec::new()),
            };
            let ((scopes, audiences), left) = (kept(before), kept(after));
            loses.extend(scopes.iter().filter(|s| !left.0.contains(s)).map(|scope| format!("scope:{scope}")));
            loses.extend(audiences.iter().filter(|a| !left.1.contains(a)).map(|audience| format!("audience:{audience}")));
        }
        _ => {}
    }
    loses
}
