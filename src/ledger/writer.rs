//! The writer: takes all groups that have queued, admits them, commits once, applies, answers.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use super::admit::{Batch, Rules};
use super::proposal::{Ask, Outcome};
use super::state::State;
use super::{AppendError, Heartbeat, Journal};
use crate::clock::Clock;
use crate::denial::{Denial, Fault, Kind, No};
use parking_lot::RwLock;

/// Bounds of the writer.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests in one commit at most.
    pub batch: usize,
    /// Groups that wait at most; a sender then waits too.
    pub queue: usize,
}

/// Records that one commit drops at most.
const DROP: usize = 512;

type Answers = Vec<Result<Outcome, No>>;

pub(super) enum Message {
    Group(Vec<Ask>, SyncSender<Answers>),
    Backup(PathBuf, SyncSender<Result<(u64, u64), String>>),
    RevisionAt(u64, SyncSender<Result<u64, String>>),
    Stop,
}

pub(super) struct Writer {
    pub(super) state: Arc<RwLock<State>>,
    pub(super) journal: Box<dyn Journal>,
    pub(super) rules: Rules,
    pub(super) limits: Limits,
    pub(super) clock: Clock,
    pub(super) heartbeat: Box<dyn Heartbeat>,
    pub(super) fatal: Box<dyn Fn(&str) + Send>,
}

impl Writer {
    pub(super) fn run(mut self, messages: &Receiver<Message>) {
        let batch_size = metrics::histogram!("mayfly_journal_batch_records");
        let commit_time = metrics::histogram!("mayfly_journal_commit_seconds");
        let sync_time = metrics::histogram!("mayfly_journal_sync_seconds");
        let records = metrics::counter!("mayfly_journal_records_total");
        let agents = metrics::gauge!("mayfly_agents_known");
        let mut last_beat = Instant::now();
        self.beat();
        loop {
            let mut groups = Vec::new();
            let mut after = match messages.recv_timeout(Duration::from_secs(1)) {
                Ok(Message::Group(asks, answer)) => {
                    groups.push((asks, answer));
                    None
                }
                Ok(other) => Some(other),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Message::Stop),
            };
            while after.is_none() && groups.iter().map(|(asks, _)| asks.len()).sum::<usize>() < self.limits.batch {
                match messages.try_recv() {
                    Ok(Message::Group(asks, answer)) => groups.push((asks, answer)),
                    Ok(other) => after = Some(other),
                    Err(_) => break,
                }
            }
            if !groups.is_empty() {
                let started = Instant::now();
                match self.commit(groups, &sync_time) {
                    Ok(0) => {}
                    Ok(count) => {
                        commit_time.record(started.elapsed());
                        #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
                        batch_size.record(count as f64);
                        records.increment(u64::try_from(count).unwrap_or(0));
                        #[expect(clippy::cast_precision_loss, reason = "for a gauge")]
                        agents.set(self.state.read().agent_count() as f64);
                    }
                    Err(cause) => {
                        // A failed fsync: what is on the disk is unknown. Stop, and let the next start replay it.
                        (self.fatal)(&cause);
                        return;
                    }
                }
            }
            if last_beat.elapsed() >= Duration::from_secs(1) {
                self.beat();
                last_beat = Instant::now();
            }
            match after {
                Some(Message::Backup(to, answer)) => {
                    let head = self.state.read().revision;
                    let done = self.journal.backup(&to).map(|bytes| (head, bytes));
                    let _ = answer.send(done);
                }
                Some(Message::RevisionAt(time, answer)) => {
                    let _ = answer.send(self.revision_at(time));
                }
                Some(Message::Stop) => {
                    self.beat();
                    return;
                }
                Some(Message::Group(..)) | None => {}
            }
        }
    }

    fn beat(&mut self) {
        let (incarnation, head) = {
            let state = self.state.read();
            (state.incarnation, state.revision)
        };
        self.heartbeat.beat(incarnation, head, self.clock.now());
    }

    /// Records lie in order of time, so a few of them are read, however many there are.
    fn revision_at(&mut self, time: u64) -> Result<u64, String> {
        let (mut from, mut to) = (0, self.state.read().revision + 1);
        while from < to {
            let middle = from + (to - from) / 2;
            match self.journal.first_from(middle)? {
                Some((revision, body)) if crate::journal::decode(&body)?.at < time => from = revision + 1,
                _ => to = middle,
            }
        }
        Ok(from)
    }

    /// The number of records that are now durable.
    fn commit(&mut self, groups: Vec<(Vec<Ask>, SyncSender<Answers>)>, sync_time: &metrics::Histogram) -> Result<usize, String> {
        let now = self.clock.now();
        // Only this thread changes state, so what was judged under the read lock still holds below.
        let (mut answers, records, first, dropped) = {
            let state = self.state.read();
            let mut batch = Batch::new(&state, &self.rules, now);
            let answers: Vec<Answers> =
                groups.iter().map(|(asks, _)| asks.iter().map(|ask| batch.admit(ask)).collect()).collect();
            let dropped: Vec<u64> = state.obsolete.iter().take(DROP).copied().collect();
            (answers, batch.records, state.revision + 1, dropped)
        };
        let (mut fatal, mut durable) = (None, records.len());
        if !records.is_empty() {
            let encoded: Vec<Vec<u8>> = records.iter().map(prost::Message::encode_to_vec).collect();
            let started = Instant::now();
            let appended = self.journal.append(first, &encoded, &dropped);
            sync_time.record(started.elapsed());
            match appended {
                // Durable from here.
                Ok(()) => {
                    let mut made = Vec::new();
                    let mut state = self.state.write();
                    for (revision, record) in (first..).zip(&records) {
                        if let Err(misfit) = state.apply(revision, record) {
                            fatal = Some(misfit.to_string());
                            break;
                        }
                        made.extend(state.cuts_of(revision, record));
                    }
                    let gone: std::collections::HashSet<u64> = dropped.into_iter().collect();
                    if !gone.is_empty() {
                        state.obsolete.retain(|revision| !gone.contains(revision));
                    }
                    let head = state.revision;
                    drop(state);
                    self.heartbeat.committed(head, made);
                }
                Err(AppendError::Full(cause)) => {
                    tracing::error!(%cause, "the journal has no room; nothing of this batch was recorded");
                    let full = "the journal has no room: an operator must free space, then ask again";
                    refuse(&mut answers, || Denial::new(Kind::Exhausted, "JOURNAL_FULL", full).into());
                    durable = 0;
                }
                Err(AppendError::Fatal(cause)) => fatal = Some(cause),
            }
        }
        if let Some(cause) = &fatal {
            refuse(&mut answers, || Fault::new("commit", cause).into());
        }
        for ((_, answer), group) in groups.into_iter().zip(answers) {
            // Nobody waits any more: what is recorded stays recorded.
            let _ = answer.send(group);
        }
        fatal.map_or(Ok(durable), Err)
    }
}

/// A failed commit drops the batch: what was a yes is none; what was a no stays one.
fn refuse(answers: &mut [Answers], no: impl Fn() -> No) {
    for answer in answers.iter_mut().flatten().filter(|a| a.is_ok()) {
        *answer = Err(no());
    }
}
