//! Writes live agents by the hundred thousand into the journal of an issuer that is stopped.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand;
use mayfly::journal::Journal;
use mayfly::journal::record::{self, Record, record::Body};
use mayfly::journal::sqlite::Sqlite;
use prost::Message;
use uuid::Uuid;

/// Records in one transaction.
const CHUNK: usize = 10_000;
/// Seconds for which the agents live: longer than any measurement.
const LIFE: u64 = 3600;
/// Agents whose ids have the same millisecond, as if they had been spawned at 5,000 a second, the last of them now.
const EACH_MS: usize = 5;

/// `count` trees, each of an agent of class `researcher` with `below` agents of class `worker` below it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trees {
    pub(crate) count: usize,
    pub(crate) below: usize,
}

impl Trees {
    /// About `live` agents, in trees of a thousand.
    pub(crate) fn of(live: usize) -> Vec<Trees> {
        vec![Trees { count: live / 1000, below: 999 }, Trees { count: live % 1000, below: 0 }]
    }

    /// Agents in them.
    pub(crate) fn agents(self) -> usize {
        self.count * (1 + self.below)
    }
}

/// Writes the trees. Returns the UUIDs of their topmost agents, for each entry of `trees`.
pub(crate) fn seed(journal: &Path, trees: &[Trees]) -> Result<Vec<Vec<Uuid>>, String> {
    let mut journal = Sqlite::open(journal, None)?;
    let state = mayfly::ledger::replay(&mut journal).map_err(|e| e.to_string())?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|e| e.to_string())?;
    let at = u64::try_from(now.as_micros()).map_err(|e| e.to_string())?.max(state.at);
    let mut writer = Writer { journal, next: state.revision + 1, at, waiting: Vec::new() };
    let delegation = random::<32>()?.to_vec();
    writer.put(Body::Delegated(record::Delegated {
        id: delegation.clone(),
        iss: "https://seed.example".into(),
        sub: "seed".into(),
        workload: "orchestrator".into(),
        proof: random::<32>()?.to_vec(),
        scopes_limited: false,
        scopes: Vec::new(),
        ends_at: at + 2 * LIFE * 1_000_000,
        token: random::<32>()?.to_vec(),
        ..Default::default()
    }))?;
    let mut tops = Vec::new();
    let mut left: usize = trees.iter().map(|trees| trees.agents()).sum();
    let mut admitted = |class: &str, parent: &[u8]| {
        left = left.saturating_sub(1);
        admitted(at, u64::try_from(left / EACH_MS).unwrap_or(0), class, parent, &delegation)
    };
    for of in trees {
        let mut ids = Vec::with_capacity(of.count);
        for _ in 0..of.count {
            let (top, record) = admitted("researcher", &[])?;
            writer.put(record)?;
            for _ in 0..of.below {
                writer.put(admitted("worker", top.as_bytes())?.1)?;
            }
            ids.push(top);
        }
        tops.push(ids);
    }
    writer.flush()?;
    Ok(tops)
}

struct Writer {
    journal: Sqlite,
    next: u64,
    at: u64,
    waiting: Vec<Vec<u8>>,
}

impl Writer {
    fn put(&mut self, body: Body) -> Result<(), String> {
        self.waiting.push(Record { at: self.at, operator: String::new(), body: Some(body) }.encode_to_vec());
        if self.waiting.len() >= CHUNK { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), String> {
        let records = std::mem::take(&mut self.waiting);
        self.journal.append(self.next, &records, &[]).map_err(|e| e.to_string())?;
        self.next += u64::try_from(records.len()).unwrap_or(0);
        Ok(())
    }
}

/// An admission at `at` (Unix microseconds) of an agent whose id is `ago` milliseconds older.
fn admitted(at: u64, ago: u64, class: &str, parent: &[u8], delegation: &[u8]) -> Result<(Uuid, Body), String> {
    let ms = (at / 1000).saturating_sub(ago);
    let (seconds, uuid) = (at / 1_000_000, uuid::Builder::from_unix_timestamp_millis(ms, &random::<10>()?).into_uuid());
    let mut serial = random::<16>()?;
    if let Some(first) = serial.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    let body = record::Admitted {
        agent: uuid.as_bytes().to_vec(),
        class: class.into(),
        workload: "orchestrator".into(),
        parent: parent.to_vec(),
        delegation: delegation.to_vec(),
        key: random::<32>()?.to_vec(),
        scopes: vec!["files:read".into(), "search:read".into()],
        audiences: vec!["https://files.example".into(), "https://search.example".into()],
        depth_left: u32::from(parent.is_empty()),
        lease_ends_at: seconds + LIFE,
        svid_ends_at: seconds + LIFE,
        svid_begins_at: seconds,
        serial: serial.to_vec(),
        request: None,
        clipped: Vec::new(),
        ticket: Vec::new(),
        charges: Vec::new(),
        ticket_nonce: Vec::new(),
        keyless: false,
    };
    Ok((uuid, Body::Admitted(body)))
}

fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0u8; N];
    rand::fill(&mut bytes).map_err(|e| e.to_string())?;
    Ok(bytes)
}
