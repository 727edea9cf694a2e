//! Sub-agents of one agent, with a key each and without, in turns: what a key costs.

use mayfly_agent::api::v1;

use crate::Options;
use crate::floor::Must;
use crate::issuer::Issuer;
use crate::rounds::{ROUNDS, Series, Work};
use crate::row::Row;
use crate::scenario::issue::{SPAWN, spawning_for};
use crate::supply::csrs;

/// Spawns of both kinds, each beside its floor: without a key that is an empty RPC alone.
pub(crate) async fn keyless(issuer: &Issuer, options: &Options) -> Result<Vec<Row>, String> {
    let (client, template) = issuer.parent().await?;
    let without = v1::SpawnRequest { keyless: true, ..template.clone() };
    let work = Work { must: SPAWN, ..Work::new("child with a key", options, 9.0) };
    let with_key = async |count| Ok(spawning_for(template.clone(), &client, csrs(count).await?));
    let mut keyed = Series::begin(issuer, work, with_key).await?;
    let work = Work { must: Must::default(), name: "child without a key", ..work };
    let mut bare = Series::begin(issuer, work, async |_| Ok(spawning_for(without.clone(), &client, Vec::new()))).await?;
    for _ in 0..ROUNDS {
        keyed.round().await?;
        bare.round().await?;
    }
    let (keyed, mut bare) = (keyed.row().await?, bare.row().await?);
    if let Some((key, none)) = keyed.cpu_us.zip(bare.cpu_us) {
        bare = bare.with("saved_us", key - none).with("saved_percent", 100.0 * (key - none) / key);
    }
    Ok(vec![keyed, bare])
}
