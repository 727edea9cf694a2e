//! History: the entries that a caller may see, and their proofs.

use mayfly_verify::{ClassName, User, Workload};
use tokio::sync::SemaphorePermit;
use uuid::Uuid;

use super::Issuer;
use super::inspect::PAGE;
use crate::caller::Caller;
use crate::denial::{Denial, Fault, Kind, No};
use crate::history::entry::{Draft, Kind as EntryKind, Sealed};
use crate::history::proof;
use crate::history::query::{self, Filter};

/// The filter as it came from the wire.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Unix microseconds.
    pub since: u64,
    /// Unix microseconds; 0 means no end.
    pub until: u64,
    /// The user for whom it was done.
    pub user: Option<User>,
    /// SPIFFE ID or UUID of an agent; empty for any.
    pub agent: String,
    /// A class; empty: any.
    pub class: String,
    /// A workload; empty: any.
    pub root: String,
    /// Kinds; empty: all.
    pub kinds: Vec<String>,
    /// A reason code or a part of a reason; empty for any.
    pub reason: String,
}

/// A page of entries.
pub struct Entries {
    /// The entries, without the fields that the caller may not see.
    pub entries: Vec<Draft>,
    /// The page token of the next page; empty if there are no more entries now.
    pub next: String,
    /// The page token after the last entry, for a later call that asks for newer entries.
    pub end: String,
}

/// An entry with its proof.
pub struct Proved {
    /// Its bytes.
    pub sealed: Sealed,
    /// A tlog-proof; empty if no checkpoint covers it yet.
    pub proof: String,
}

/// Entries from the place of a page token on.
pub async fn list(issuer: &Issuer, caller: &Caller, wanted: Wanted, size: usize, token: &str) -> Result<Entries, No> {
    let from = match issuer.pages.open_bytes(caller, token)? {
        None => 0,
        Some(place) => u64::from_be_bytes(place.try_into().map_err(|_| super::inspect::not_ours())?),
    };
    let filter = filter(issuer, wanted)?;
    let size = if size == 0 { 100 } else { size.min(PAGE) };
    let _place = place(issuer, caller).await?;
    issuer.history.flush().await;
    let (reader, viewer) = (issuer.history.reader().clone(), Viewer::of(issuer, caller));
    let looked = tokio::task::spawn_blocking(move || {
        let page = query::page(&reader, &filter, from, size, |entry| viewer.sees(entry))?;
        let entries = page.entries.into_iter().map(|(entry, _)| viewer.shown(entry)).collect();
        Ok((entries, page.next, page.end))
    });
    let (entries, next, end) =
        looked.await.map_err(|e| Fault::new("history", e))?.map_err(|e: String| Fault::new("history", e))?;
    let seal = |place: u64| issuer.pages.seal_bytes(caller, &place.to_be_bytes());
    Ok(Entries { entries, next: next.map(seal).transpose()?.unwrap_or_default(), end: seal(next.unwrap_or(end))? })
}

/// The entries of one decision, and their proofs if the caller is an operator.
pub async fn decision(issuer: &Issuer, caller: &Caller, id: &str) -> Result<(Vec<Draft>, Vec<Proved>), No> {
    if id.is_empty() || id.len() > 64 || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        let message = "give a decision as `mayfly history` prints it, such as r1204 or d19ac5f03b7e-17";
        return Err(Denial::malformed("DECISION_MALFORMED", message).into());
    }
    let _place = place(issuer, caller).await?;
    issuer.history.flush().await;
    let history = std::sync::Arc::clone(&issuer.history);
    let (viewer, decision) = (Viewer::of(issuer, caller), id.to_owned());
    let looked = tokio::task::spawn_blocking(move || {
        let found = proof::decision(&history, &decision, |entry| viewer.sees(entry))?;
        let mut entries = Vec::new();
        let mut proofs = Vec::new();
        for (entry, sealed) in found {
            if matches!(viewer, Viewer::Operator) {
                let proof = proof::of(&history, entry.leaf.index)?.unwrap_or_default();
                proofs.push(Proved { sealed, proof });
            }
            entries.push(viewer.shown(entry));
        }
        Ok((entries, proofs))
    });
    let (entries, proofs) = looked.await.map_err(|e| Fault::new("history", e))?.map_err(|e: String| Fault::new("history", e))?;
    if entries.is_empty() {
        // T13: a decision about somebody else looks as if it did not exist.
        let message = format!("there is no decision `{id}`, or none that you may see; it may be older than what is kept");
        return Err(Denial::new(Kind::NotFound, "DECISION_UNKNOWN", message).into());
    }
    Ok((entries, proofs))
}

/// A permit to read the history. Reading is expensive, so few calls run at once; operators do not wait for other callers.
async fn place<'a>(issuer: &'a Issuer, caller: &Caller) -> Result<SemaphorePermit<'a>, Denial> {
    let operator = caller.reads_everything();
    let busy = || Denial::new(Kind::Exhausted, "BUSY", "too many others read the history: ask again in a moment");
    issuer.history.place(operator).await.ok_or_else(busy)
}

fn filter(issuer: &Issuer, wanted: Wanted) -> Result<Filter, Denial> {
    let malformed = |what: String| Denial::malformed("FILTER_MALFORMED", what);
    let kind = |kind: &String| {
        let all = || EntryKind::ALL.map(EntryKind::as_str).join(", ");
        EntryKind::parse(kind).ok_or_else(|| malformed(format!("there is no kind `{kind}`: write one of {}", all())))
    };
    let mut since = wanted.since;
    let mut agent = String::new();
    if !wanted.agent.is_empty() {
        let uuid = wanted.agent.rsplit('/').next().unwrap_or_default();
        let uuid = Uuid::try_parse(uuid).map_err(|_| malformed("write an agent as its SPIFFE ID or UUID".into()))?;
        agent = uuid.to_string();
        // The UUID contains the time of its making. Entries about the agent are not older than that, less a minute of clock skew.
        if let Some(made) = uuid.get_timestamp() {
            since = since.max(made.to_unix().0.saturating_sub(60).saturating_mul(crate::clock::SECOND));
        }
    }
    if !wanted.class.is_empty() {
        wanted.class.parse::<ClassName>().map_err(|e| malformed(format!("class: {e}")))?;
    }
    let root = match wanted.root.as_str() {
        "" => String::new(),
        name => {
            let workload = name.strip_prefix(&format!("spiffe://{}/workload/", issuer.trust_domain)).unwrap_or(name);
            let workload = workload.parse::<Workload>().map_err(|e| malformed(format!("root: {e}")))?;
            workload.id(&issuer.trust_domain)
        }
    };
    if wanted.until != 0 && wanted.until <= wanted.since {
        return Err(malformed("`until` is not after `since`".into()));
    }
    if wanted.reason.len() > 256 {
        return Err(malformed("a reason has at most 256 bytes".into()));
    }
    Ok(Filter {
        since,
        until: wanted.until,
        user: wanted.user.map(|user| (user.iss, user.sub)),
        agent,
        class: wanted.class,
        root,
        kinds: wanted.kinds.iter().map(kind).collect::<Result<_, _>>()?,
        reason: wanted.reason,
        decision: String::new(),
    })
}

/// The caller, who decides which entries are visible, and which of their fields.
enum Viewer {
    /// Everything.
    Operator,
    /// A workload sees entries about itself and about the agents below it.
    Root(String),
    /// An agent sees entries about itself and about the agents below it.
    Agent(String),
    /// A user sees what was done for them. The second field is the name under which their own acts are recorded.
    User(User, String),
    /// Nothing.
    Nobody,
}

impl Viewer {
    fn of(issuer: &Issuer, caller: &Caller) -> Viewer {
        match caller {
            Caller::Operator { .. } | Caller::Auditor { .. } => Viewer::Operator,
            Caller::Agent { id, .. } => Viewer::Agent(id.to_string()),
            Caller::User { user, .. } => Viewer::User(user.clone(), caller.scope()),
            _ => caller.workload().map_or(Viewer::Nobody, |workload| Viewer::Root(workload.id(&issuer.trust_domain))),
        }
    }

    /// Whether the viewer may see an entry (T129).
    fn sees(&self, entry: &Draft) -> bool {
        match self {
            Viewer::Operator => true,
            Viewer::Root(id) => entry.leaf.root_id == *id,
            Viewer::Agent(id) => entry.leaf.agent_id == *id || entry.opening.chain.contains(id),
            Viewer::User(user, _) => entry.opening.user.as_ref().is_some_and(|of| of.iss == user.iss && of.sub == user.sub),
            Viewer::Nobody => false,
        }
    }

    /// The entry without what is for operators alone: the reasons, who operators are, and where others called from.
    fn shown(&self, mut entry: Draft) -> Draft {
        let id = match self {
            Viewer::Operator => return entry,
            Viewer::Root(id) | Viewer::Agent(id) | Viewer::User(_, id) => id.as_str(),
            Viewer::Nobody => "",
        };
        let opening = &mut entry.opening;
        let below = opening.caller == entry.leaf.agent_id || opening.chain.contains(&opening.caller);
        let is = |of: &str| opening.caller == of || of.ends_with(&format!("/{}", opening.caller));
        // Users know the root workload, because they let it act.
        let known = matches!(self, Viewer::User(..)) && is(&entry.leaf.root_id);
        let own = !opening.caller.is_empty() && (below || known || is(id));
        let themself = matches!(self, Viewer::User(_, name) if opening.caller == *name);
        if !own {
            opening.caller.clear();
        }
        // Users do not see from where agents and workloads called.
        if !own || (matches!(self, Viewer::User(..)) && !themself) {
            opening.request_id.clear();
            opening.peer.clear();
        }
        if (entry.leaf.kind != EntryKind::Denial || !own) && !themself {
            opening.reason.clear();
        }
        entry
    }
}
