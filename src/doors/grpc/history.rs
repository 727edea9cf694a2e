//! The service of the history: entries that the caller may see, and their proofs.

use mayfly_agent::api::v1;
use tonic::{Request, Response, Status};

use super::message::named;
use super::server::history_server::History;
use super::targets::{self, microseconds};
use super::{Door, methods};
use crate::acts::Issuer;
use crate::acts::history::{self, Proved, Wanted};
use crate::denial::Denial;
use crate::history::entry::Draft;
use crate::history::line;

#[tonic::async_trait]
impl History for Door {
    async fn list_entries(&self, request: Request<v1::ListEntriesRequest>) -> Result<Response<v1::ListEntriesResponse>, Status> {
        self.run_for(
            methods::LIST_ENTRIES,
            request,
            |r| &r.user_token,
            |issuer, caller, r| async move {
                let size = usize::try_from(r.page_size).unwrap_or(usize::MAX);
                let token = r.page_token.clone();
                let entries = history::list(&issuer, &caller, wanted(&issuer, r)?, size, &token).await?;
                let (next_page_token, end_page_token) = (entries.next, entries.end);
                let entries = entries.entries.into_iter().map(|entry| entry_message(&issuer, entry)).collect();
                Ok(v1::ListEntriesResponse { entries, next_page_token, end_page_token })
            },
        )
        .await
    }

    async fn get_decision(&self, request: Request<v1::GetDecisionRequest>) -> Result<Response<v1::GetDecisionResponse>, Status> {
        self.run_for(
            methods::GET_DECISION,
            request,
            |r| &r.user_token,
            |issuer, caller, r| async move {
                let (entries, proofs) = history::decision(&issuer, &caller, &r.decision_id).await?;
                let proofs = proofs.into_iter().zip(&entries).map(|(proved, entry)| proof(proved, entry.leaf.index)).collect();
                let entries = entries.into_iter().map(|entry| entry_message(&issuer, entry)).collect();
                Ok(v1::GetDecisionResponse { entries, proofs })
            },
        )
        .await
    }
}

fn entry_message(issuer: &Issuer, entry: Draft) -> v1::HistoryEntry {
    let message = line::message(entry);
    v1::HistoryEntry { user: message.user.map(|user| named(issuer, user)), ..message }
}

fn wanted(issuer: &Issuer, r: v1::ListEntriesRequest) -> Result<Wanted, Denial> {
    let time = |at: Option<prost_types::Timestamp>| at.map_or(Ok(0), |at| microseconds(&at));
    Ok(Wanted {
        since: time(r.since)?,
        until: time(r.until)?,
        user: r.user.map(|user| targets::user(issuer, user)).transpose()?,
        agent: r.agent,
        class: r.class,
        root: r.root,
        kinds: r.kinds,
        reason: r.reason,
    })
}

fn proof(proved: Proved, index: u64) -> v1::EntryProof {
    let Proved { sealed, proof } = proved;
    v1::EntryProof { index, leaf: sealed.leaf, opening: sealed.opening, salt: sealed.salt.to_vec(), proof }
}
