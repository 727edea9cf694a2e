//! T84, T85: the protocol between writer, desk and whoever revokes, as a small model under random schedules.
//!
//! It is a model, not the code: the same steps in the same order as `src/ledger/commit.rs` (admit, commit, apply under the
//! lock, answer) and `src/pipeline.rs` (commit, sign, look at the cuts under the lock, release), with one agent below one
//! subject. The rule: what was not answered when a receipt was is never released afterwards, and what was released before
//! carries a stamp that the cut kills. `tests/races.rs` holds the code to the same rule, without choosing its schedules.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Mutex;

use shuttle::sync::mpsc::{Receiver, Sender, channel};
use shuttle::sync::{Arc, RwLock};
use shuttle::thread;

const SCHEDULES: usize = 4000;
const MANY: usize = 1_000_000;

/// What the protocol could do wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    AnswerBeforeApply,
    LookBeforeCommit,
    NeverLook,
}

#[derive(Clone, Copy)]
enum Ask {
    Issue,
    Cut,
}

/// The revision of what was recorded; none for a no.
type Answer = Option<u64>;

#[derive(Default)]
struct State {
    revision: u64,
    /// Everything from before this revision is dead.
    before: Option<u64>,
}

impl State {
    fn refuses(&self, since: u64) -> bool {
        self.before.is_some_and(|before| since < before)
    }

    fn apply(&mut self, record: Ask) {
        self.revision += 1;
        if matches!(record, Ask::Cut) {
            self.before = Some(self.revision);
        }
    }
}

struct Registry {
    state: Arc<RwLock<State>>,
    writer: Sender<(Ask, Sender<Answer>)>,
}

impl Registry {
    fn commit(&self, ask: Ask) -> Answer {
        let (answer, answers) = channel();
        self.writer.send((ask, answer)).unwrap();
        answers.recv().unwrap()
    }
}

/// Takes what has queued, records it as one batch, applies it, answers.
fn write(state: &RwLock<State>, asks: &Receiver<(Ask, Sender<Answer>)>, fault: Fault) {
    while let Ok(first) = asks.recv() {
        let group: Vec<_> = std::iter::once(first).chain(std::iter::from_fn(|| asks.try_recv().ok())).collect();
        let (mut records, mut answers) = (Vec::new(), Vec::new());
        {
            // Admitted against the state and the batch so far: a cut closes its subject.
            let state = state.read().unwrap();
            let mut closed = state.before.is_some();
            for (ask, answer) in group {
                let yes = matches!(ask, Ask::Cut) || !closed;
                closed |= matches!(ask, Ask::Cut);
                if yes {
                    records.push(ask);
                }
                let revision = state.revision + u64::try_from(records.len()).unwrap();
                answers.push((answer, yes.then_some(revision)));
            }
        }
        let answer = |answers: Vec<(Sender<Answer>, Answer)>| {
            for (to, said) in answers {
                let _ = to.send(said);
            }
        };
        let apply = |records: &[Ask]| {
            let mut state = state.write().unwrap();
            records.iter().for_each(|record| state.apply(*record));
        };
        if fault == Fault::AnswerBeforeApply {
            answer(answers);
            apply(&records);
        } else {
            apply(&records);
            answer(answers);
        }
    }
}

/// What happened, in order; a real lock, so that to write it down is no step of the model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Event {
    Receipt(u64),
    Recorded(usize),
    Released(usize, u64),
}

/// Commits, signs, looks, releases.
fn desk(n: usize, registry: &Registry, log: &Mutex<Vec<Event>>, fault: Fault) {
    let looked = fault == Fault::LookBeforeCommit && registry.state.read().unwrap().before.is_some();
    let Some(since) = registry.commit(Ask::Issue) else { return };
    log.lock().unwrap().push(Event::Recorded(n));
    // The signature takes a while.
    thread::yield_now();
    let refused = match fault {
        Fault::LookBeforeCommit => looked,
        Fault::NeverLook => false,
        _ => registry.state.read().unwrap().refuses(since),
    };
    if !refused {
        log.lock().unwrap().push(Event::Released(n, since));
    }
}

fn race(fault: Fault) {
    let (writer, asks) = channel();
    let state = Arc::new(RwLock::new(State::default()));
    let log = Arc::new(Mutex::new(Vec::new()));
    let its = Arc::clone(&state);
    let writing = thread::spawn(move || write(&its, &asks, fault));
    let registry = |writer: &Sender<_>| Registry { state: Arc::clone(&state), writer: writer.clone() };
    let mut threads = Vec::new();
    for n in 0..2 {
        let (registry, log) = (registry(&writer), Arc::clone(&log));
        threads.push(thread::spawn(move || desk(n, &registry, &log, fault)));
    }
    let (revoking, receipts) = (registry(&writer), Arc::clone(&log));
    threads.push(thread::spawn(move || {
        let before = revoking.commit(Ask::Cut).unwrap();
        receipts.lock().unwrap().push(Event::Receipt(before));
    }));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    drop(writer);
    writing.join().unwrap();

    let log = log.lock().unwrap();
    let at = |event: &dyn Fn(&Event) -> bool| log.iter().position(event);
    let receipt = at(&|e| matches!(e, Event::Receipt(_))).unwrap();
    let Some(Event::Receipt(before)) = log.get(receipt).copied() else { return };
    for n in 0..2 {
        let Some(Event::Released(_, since)) = log.iter().find(|e| matches!(e, Event::Released(m, _) if *m == n)).copied() else {
            continue;
        };
        let recorded = at(&|e| *e == Event::Recorded(n)).unwrap();
        assert!(recorded < receipt, "released what was still at the desk when the receipt was given: {log:?}");
        assert!(since < before, "released what the cut does not kill: {log:?}");
    }
}

#[test]
fn t84_t85_what_is_at_the_desk_when_a_receipt_is_given_does_not_leave() {
    shuttle::check_random(|| race(Fault::None), SCHEDULES);
}

#[test]
#[should_panic(expected = "released what was still at the desk")]
fn t84_an_answer_before_it_is_applied_is_noticed() {
    shuttle::check_random(|| race(Fault::AnswerBeforeApply), SCHEDULES);
}

#[test]
#[should_panic(expected = "released what was still at the desk")]
fn t84_a_look_before_the_commit_is_noticed() {
    shuttle::check_random(|| race(Fault::LookBeforeCommit), SCHEDULES);
}

#[test]
#[should_panic(expected = "released what was still at the desk")]
fn t84_a_desk_that_never_looks_is_noticed() {
    shuttle::check_random(|| race(Fault::NeverLook), SCHEDULES);
}

#[test]
#[ignore = "long: cargo test --release --test models -- --ignored"]
fn t84_t85_a_million_schedules() {
    shuttle::check_random(|| race(Fault::None), MANY);
}
