//! Rotate: authorities are made, published, used, retired and destroyed, by schedule and when an operator says so.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::oneshot;

use crate::authority::schedule::{Schedule, Step};
use crate::authority::{Authority, AuthorityError};
use crate::caller::Caller;
use crate::clock::{Clock, SECOND};
use crate::denial::{Denial, Fault, Kind as DenialKind, No};
use crate::judge::who;
use crate::ledger::{InLane, Lane, Ledger, Pending};
use crate::pipeline::chance;
use crate::process;
use crate::publish::Publisher;
use crate::state::Authorities;
use crate::state::authority::{Kind, Slot, Status};

use super::authorities::Change;

/// How long the schedule pauses after a failure.
const PAUSE: Duration = Duration::from_secs(30);

/// An operator's order.
#[derive(Clone, Debug)]
pub enum Order {
    /// Make and publish the next authority of a kind. It signs once it has been published for long enough.
    Prepare(Kind),
    /// Let a prepared authority sign now.
    Activate {
        /// What it signs.
        kind: Kind,
        /// Do so even if verifiers may not have it in their bundles yet.
        early: bool,
    },
    /// Withdraw a prepared authority.
    Retire(String),
    /// Treat nothing that it ever signed as valid.
    Taint(String),
    /// Prepare an authority if none is prepared, and activate it once it has been published for long enough.
    Rotate {
        /// What it signs.
        kind: Kind,
        /// Activate it now, even if verifiers may not have it in their bundles yet.
        now: bool,
    },
}

type Answer = Result<Arc<Authorities>, No>;

/// Hands orders to the one thread that changes authorities.
pub struct Rotator {
    orders: SyncSender<(Caller, Order, oneshot::Sender<Answer>)>,
    ahead: u64,
}

impl Rotator {
    /// Carries out one order, and returns the authorities after it.
    pub async fn run(&self, caller: Caller, order: Order) -> Answer {
        let (answer, done) = oneshot::channel();
        let busy = || Denial::new(DenialKind::Exhausted, "BUSY", "too many changes of authorities are waiting: ask again");
        self.orders.try_send((caller, order, answer)).map_err(|_| busy())?;
        done.await.map_err(|_| Fault::new("rotate", "the rotation has stopped"))?
    }

    /// Seconds that a prepared authority is published before it signs.
    pub fn ahead(&self) -> u64 {
        self.ahead
    }
}

/// The thread that rotates.
pub struct Rotation {
    /// The state, and the one writer that changes it.
    pub ledger: Ledger,
    /// The signing keys.
    pub authority: Arc<Authority>,
    /// How often authorities rotate. A reload swaps it.
    pub schedule: Arc<ArcSwap<Schedule>>,
    /// Tells the time.
    pub clock: Clock,
}

impl Rotation {
    /// Loads the keys of the recorded authorities, and makes missing ones. After this there is an authority that can sign.
    pub fn begin(&self) -> Result<(), String> {
        let missing = self.authority.load(&self.authorities()).map_err(|e| e.to_string())?;
        // T195: before a key that is missing would be made anew.
        for kind in Kind::ALL.into_iter().filter(|kind| self.schedule.load().kinds().all(|needed| needed != *kind)) {
            self.change(&Caller::Stranger, Change::Withdraw(kind)).map_err(|e| e.to_string())?;
        }
        for (id, why) in missing {
            tracing::error!(authority = %id, %why, "a recorded authority cannot sign: another takes its place");
            let Some((kind, status)) = self.authorities().slots.iter().find(|s| s.id == id).map(|s| (s.kind, s.status)) else {
                continue;
            };
            if self.schedule.load().kinds().all(|needed| needed != kind) {
                continue;
            }
            if status == Status::Prepared {
                self.change(&Caller::Stranger, Change::Retire { id: id.to_string() }).map_err(|e| e.to_string())?;
            } else {
                self.replace(kind).map_err(|e| e.to_string())?;
            }
        }
        let now = self.clock.now() / SECOND;
        for kind in self.schedule.load().kinds() {
            // T283: an issuer that was down for longer than its authority lasts. Nothing could sign its own certificate.
            let past = |slot: &Slot| slot.ends_at <= now;
            let prepared = self.authorities().prepared(kind).filter(|slot| past(slot)).map(|slot| slot.id.to_string());
            if let Some(id) = prepared {
                self.change(&Caller::Stranger, Change::Retire { id }).map_err(|e| e.to_string())?;
            }
            if self.authorities().active(kind).is_some_and(past) {
                tracing::warn!(%kind, "the authority ended while the issuer was down: another takes its place");
                self.replace(kind).map_err(|e| e.to_string())?;
            }
            while self.authorities().active(kind).is_none() {
                self.step(kind, Step::Prepare).map_err(|e| e.to_string())?;
                self.step(kind, Step::Activate).map_err(|e| e.to_string())?;
            }
        }
        Ok(())
    }

    /// Starts the thread. Each change is published before its order is answered.
    pub fn start(self, publisher: Publisher) -> Result<Rotator, String> {
        let (orders, queue) = sync_channel(16);
        let ahead = self.schedule.load().ahead;
        process::thread("mayfly-rotation", move || self.run(&queue, &publisher)).map_err(|e| e.to_string())?;
        Ok(Rotator { orders, ahead })
    }

    fn run(self, queue: &Receiver<(Caller, Order, oneshot::Sender<Answer>)>, publisher: &Publisher) {
        let tick = Duration::from_secs(1).min(Duration::from_millis((self.schedule.load().ahead * 250).max(100)));
        let (began, mut quiet_until) = (self.clock.now(), Instant::now());
        loop {
            match queue.recv_timeout(tick) {
                // The caller has hung up, so the order is not carried out.
                Ok((_, _, answer)) if answer.is_closed() => {
                    metrics::counter!("mayfly_requests_abandoned_total").increment(1);
                }
                Ok((caller, order, answer)) => {
                    let done = self.order(&caller, &order);
                    let published = publisher.follow();
                    let _ = answer.send(done.and_then(|()| Ok(published.map(|()| self.authorities())?)));
                }
                Err(RecvTimeoutError::Timeout) if Instant::now() >= quiet_until => {
                    let turned = self.turn(began);
                    if let Err(cause) = turned.and_then(|()| Ok(publisher.follow()?)) {
                        // T83: the active authority stays active.
                        tracing::error!(%cause, "authorities could not be rotated: trying again");
                        metrics::counter!("mayfly_rotation_failures_total").increment(1);
                        quiet_until = Instant::now() + PAUSE.min(tick * 4);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn order(&self, caller: &Caller, order: &Order) -> Result<(), No> {
        // ORDER: the caller's right is checked before a key is made. The ledger checks again.
        self.ledger.read(|state| who(state, &self.ledger.rules(), caller, self.clock.now()))?;
        if let Order::Prepare(kind) | Order::Rotate { kind, .. } = order
            && self.schedule.load().kinds().all(|needed| needed != *kind)
        {
            let message =
                format!("no audience asks for {kind}: write `algorithm = \"{kind}\"` into its entry of the catalogue first");
            return Err(Denial::new(DenialKind::Precondition, "AUTHORITY_STATE", message).into());
        }
        match order {
            Order::Prepare(kind) => self.prepare(caller, *kind),
            Order::Activate { kind, early } => self.change(caller, Change::Activate { kind: *kind, id: None, early: *early }),
            Order::Retire(id) => self.change(caller, Change::Retire { id: id.clone() }),
            Order::Taint(id) => {
                self.change(caller, Change::Taint { id: id.clone() })?;
                // The key of a prepared authority that is withdrawn is deleted.
                let kind = self.authorities().slots.iter().find(|s| *s.id == **id).map(|s| s.kind);
                Ok(kind.map_or(Ok(()), |kind| self.authority.destroy(kind, id)).map_err(fault)?)
            }
            Order::Rotate { kind, now } => {
                if self.authorities().prepared(*kind).is_none() {
                    self.prepare(caller, *kind)?;
                }
                // An X.509 authority is sent along with each certificate; a token's key must be in the verifiers' bundles first
                // (BU-9).
                if *now || !kind.is_jwt() {
                    self.change(caller, Change::Activate { kind: *kind, id: None, early: *now })?;
                }
                Ok(())
            }
        }
    }

    /// Does everything that is due. `began` is when this process started, in Unix microseconds.
    fn turn(&self, began: u64) -> Result<(), No> {
        let now = self.clock.now();
        for kind in self.schedule.load().kinds() {
            let all = self.authorities();
            let schedule = **self.schedule.load();
            match schedule.step(kind, &all, now) {
                Some(Step::Activate) if schedule.is_news(kind, &all, began, now) => {}
                Some(step) => self.step(kind, step)?,
                None => {}
            }
        }
        let gone: Vec<_> =
            self.authorities().slots.iter().filter(|s| s.is_over(now)).map(|s| (s.kind, Arc::clone(&s.id))).collect();
        if !gone.is_empty() {
            self.change(&Caller::Stranger, Change::Collect)?;
            let left = self.authorities();
            for (kind, id) in gone.iter().filter(|(_, id)| left.slots.iter().all(|s| s.id != *id)) {
                self.authority.destroy(*kind, id).map_err(fault)?;
            }
        }
        Ok(())
    }

    fn step(&self, kind: Kind, step: Step) -> Result<(), No> {
        match step {
            Step::Prepare => self.prepare(&Caller::Stranger, kind),
            Step::Activate => self.change(&Caller::Stranger, Change::Activate { kind, id: None, early: false }),
        }
    }

    /// Lets another authority sign at once, because the one that should cannot.
    fn replace(&self, kind: Kind) -> Result<(), No> {
        if self.authorities().prepared(kind).is_none() {
            self.prepare(&Caller::Stranger, kind)?;
        }
        self.change(&Caller::Stranger, Change::Activate { kind, id: None, early: true })
    }

    fn prepare(&self, caller: &Caller, kind: Kind) -> Result<(), No> {
        let now = self.clock.now() / SECOND;
        // ORDER: the key is on the disk before its record is; a record without its key could sign nothing.
        let slot = self.authority.make(kind, now.saturating_add(self.schedule.load().life(kind)), now).map_err(fault)?;
        let id = Arc::clone(&slot.id);
        let done = self.change(caller, Change::Prepare(slot));
        if done.is_err() {
            // T83: no key stays without a record. If the deletion fails too, the next start deletes it.
            let _ = self.authority.destroy(kind, &id);
        }
        done
    }

    fn change(&self, caller: &Caller, change: Change) -> Result<(), No> {
        let before = self.authorities().revision;
        let told = change.as_str();
        let pending = Pending::new(caller.clone(), change, chance()?);
        let settled = self.ledger.commit(InLane(Lane::Authority, vec![pending])).1.pop().map(|mut pending| pending.take());
        let revision = settled.ok_or_else(|| Fault::new("rotate", "the change was not settled"))??.spend();
        if revision > before {
            let by = if let Caller::Operator { name, .. } = caller { name } else { "schedule" };
            tracing::info!(revision, change = told, by, "the authorities changed");
        }
        Ok(())
    }

    fn authorities(&self) -> Arc<Authorities> {
        self.ledger.read(|state| Arc::clone(&state.authorities))
    }
}

fn fault(e: AuthorityError) -> Fault {
    Fault::new("rotate", e)
}
