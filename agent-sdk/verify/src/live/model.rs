//! T84: the real [`Live`] and its listeners under random schedules. Each step is compared with a sequential execution.
//!
//! Threads are switched before each access to shared state, as if memory were sequentially consistent; `arc-swap` itself counts
//! as one step. Beside each model there is one that is wrong on purpose, to show that the model notices.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Mutex;

use shuttle::thread;

use super::*;
use crate::sync::model;
use crate::{Cuts, Target};

const SCHEDULES: usize = 3000;
const MANY: usize = 1_000_000;
const NOW: Duration = Duration::from_secs(1_800_000_000);
/// The publication that contains the cut; its head is this number.
const CUT: u64 = 2;

fn td() -> TrustDomain {
    TrustDomain::new("td").unwrap()
}

fn known(head: u64) -> Arc<Known> {
    let mut cuts = Cuts::default();
    if head >= CUT {
        cuts.cut(Target::TrustDomain.unsalted(), u64::MAX);
    }
    Arc::new(Known { cuts, head, as_of: u64::try_from(NOW.as_micros()).unwrap(), forgotten: 0, heartbeat: None })
}

fn check(live: &Live) -> Result<(), Reject> {
    let subjects = [Target::TrustDomain.unsalted()];
    live.check(NOW, Reliance { trust_domain: "td", binding: None, subjects: &subjects, ends_at: u64::MAX, once: None })
}

/// The result of a check in a sequential execution after this many publications and with this requirement.
fn sequential(published: u64, required: u64) -> Result<(), Reject> {
    if published >= CUT {
        Err(Reject::Cut)
    } else if required > published {
        Err(Reject::Stale(Staleness::Behind { known: published, required }))
    } else if published == 0 {
        Err(Reject::Stale(Staleness::Never))
    } else {
        Ok(())
    }
}

/// How often an operation began and how often it ended. A concurrent check may see any number between the two.
#[derive(Default)]
struct Span(Mutex<(u64, u64)>);

impl Span {
    fn run(&self, to: u64, act: impl FnOnce()) {
        self.0.lock().unwrap().0 = to;
        act();
        self.0.lock().unwrap().1 = to;
    }

    fn begun(&self) -> u64 {
        self.0.lock().unwrap().0
    }

    fn over(&self) -> u64 {
        self.0.lock().unwrap().1
    }
}

fn a_check_is_of_a_moment(require: fn(&Live, u64)) {
    let live = Live::new(td(), Freshness::default());
    let spans = Arc::new((Span::default(), Span::default()));
    let mut threads = Vec::new();
    let mut start = |run: Box<dyn FnOnce() + Send>| threads.push(thread::spawn(run));
    let (its, seen) = (live.clone(), Arc::clone(&spans));
    start(Box::new(move || (1..=3).for_each(|head| seen.0.run(head, || its.publish(known(head))))));
    let (its, seen) = (live.clone(), Arc::clone(&spans));
    start(Box::new(move || seen.1.run(CUT, || require(&its, CUT))));
    for _ in 0..2 {
        let (its, seen) = (live.clone(), Arc::clone(&spans));
        start(Box::new(move || {
            let mut was_cut = false;
            for _ in 0..3 {
                let (published, required) = (seen.0.over(), seen.1.over());
                let said = check(&its);
                let mut may = (published..=seen.0.begun()).flat_map(|p| (required..=seen.1.begun()).map(move |r| (p, r)));
                assert!(may.any(|(p, r)| sequential(p, r) == said), "a check said what never was: {said:?}");
                assert!(!was_cut || said == Err(Reject::Cut), "a cut was forgotten");
                was_cut = said == Err(Reject::Cut);
            }
        }));
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(check(&live), Err(Reject::Cut));
}

/// Two threads subscribe and then check while the cut is published: each learns of it by one or the other.
fn nobody_misses_a_cut(publish: fn(&Live, Arc<Known>), subscribe: fn(&Live, Arc<Mutex<Vec<bool>>>) -> Subscription) {
    let live = Live::new(td(), Freshness::default());
    live.publish(known(1));
    let its = live.clone();
    let publisher = thread::spawn(move || (2..=3).for_each(|head| publish(&its, known(head))));
    let subscribers = [(); 2].map(|()| {
        let live = live.clone();
        thread::spawn(move || {
            let told = Arc::new(Mutex::new(Vec::new()));
            let subscription = subscribe(&live, Arc::clone(&told));
            (check(&live) == Err(Reject::Cut), told, subscription)
        })
    });
    publisher.join().unwrap();
    for subscriber in subscribers {
        let (found, told, subscription) = subscriber.join().unwrap();
        assert!(found || told.lock().unwrap().contains(&true), "a cut was missed");
        drop(subscription);
    }
}

/// Notes whether the cut was found at the first notification. Only the first counts, because a later cut would hide a missed one.
fn noting(live: &Live, told: Arc<Mutex<Vec<bool>>>) -> impl Fn() + Send + Sync + 'static {
    let live = live.clone();
    move || {
        let found = check(&live) == Err(Reject::Cut);
        told.lock().unwrap().push(found);
    }
}

fn subscribe(live: &Live, told: Arc<Mutex<Vec<bool>>>) -> Subscription {
    live.subscribe(noting(live, told))
}

#[test]
fn t84_a_check_says_what_a_sequential_one_says() {
    model(SCHEDULES, || a_check_is_of_a_moment(Live::require));
}

#[test]
#[should_panic(expected = "a check said what never was")]
fn t84_a_requirement_that_comes_to_nothing_is_noticed() {
    model(SCHEDULES, || a_check_is_of_a_moment(|_, _| thread::yield_now()));
}

#[test]
fn t84_who_subscribes_and_then_checks_misses_no_cut() {
    model(SCHEDULES, || nobody_misses_a_cut(Live::publish, subscribe));
}

#[test]
#[should_panic(expected = "a cut was missed")]
fn t84_to_tell_before_it_is_known_is_noticed() {
    model(SCHEDULES, || {
        let tell_first = |live: &Live, known: Arc<Known>| {
            // Only for the first cut: the notification of the next one would hide the mistake.
            if known.head == CUT {
                live.0.listeners.notify();
            }
            live.0.known.store(Some(Arc::new(Heard::now(known, Duration::ZERO, None))));
        };
        nobody_misses_a_cut(tell_first, subscribe);
    });
}

#[test]
#[should_panic(expected = "a cut was missed")]
fn t84_a_list_of_listeners_that_is_not_exchanged_at_once_is_noticed() {
    model(SCHEDULES, || {
        let forgetful = |live: &Live, told: Arc<Mutex<Vec<bool>>>| {
            let subscription: Arc<dyn Fn() + Send + Sync> = Arc::new(noting(live, told));
            live.0.listeners.add_carelessly(subscription)
        };
        nobody_misses_a_cut(Live::publish, forgetful);
    });
}

#[test]
#[ignore = "long: cargo test --release -p mayfly-verify --lib -- --ignored t84"]
fn t84_a_million_schedules() {
    model(MANY, || a_check_is_of_a_moment(Live::require));
    model(MANY, || nobody_misses_a_cut(Live::publish, subscribe));
}
