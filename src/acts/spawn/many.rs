//! A batch of spawns: many agents of one kind, recorded in slices, so that requests of others are served in between.

use tokio::sync::mpsc;

use super::Signatures;
use super::request::{BATCH, Keys, Secret, SpawnRequest, Spawned, acts, answer, batch_size};
use crate::acts::Issuer;
use crate::caller::Caller;
use crate::denial::No;
use crate::pipeline::Item;

/// The answers of a batch.
pub struct Many {
    items: mpsc::Receiver<Item<Signatures>>,
    secrets: Vec<Option<Secret>>,
}

/// Spawns many agents. The answers come as they are signed, each with its index.
pub async fn spawn_many(issuer: &Issuer, caller: Caller, request: SpawnRequest, keys: Keys) -> Result<Many, No> {
    let acts = acts(issuer, &caller, request, keys).await?;
    if acts.is_empty() || acts.len() > BATCH {
        return Err(batch_size().into());
    }
    let (acts, secrets) = acts.into_iter().unzip();
    Ok(Many { items: issuer.pipeline.issue_many(&caller, acts)?, secrets })
}

impl Many {
    /// The next answer. `None` after the last one.
    pub async fn next(&mut self, issuer: &Issuer) -> Option<(usize, Result<Spawned, No>)> {
        let (index, signed) = self.items.recv().await?;
        let secret = self.secrets.get_mut(index).and_then(Option::take);
        Some((index, signed.and_then(|signed| answer(issuer, signed, secret))))
    }
}
