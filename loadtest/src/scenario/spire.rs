//! Mayfly and SPIRE in turns: certificates, tokens, and the calls that let an agent in and out.

use std::sync::Arc;

use crate::Options;
use crate::floor::{Must, median};
use crate::issuer::Issuer;
use crate::load::{self, Call, Run, boxed};
use crate::rounds::{ROUNDS, Series, Work, rounds};
use crate::row::Row;
use crate::scenario::issue::{JWT, SPAWN, minting, spawning_for};
use crate::scenario::revoke::cutting;
use crate::scenario::usable::usable;
use crate::spire::workload::Workload;
use crate::spire::{self, Spire};
use crate::supply::csrs_for;

/// Entries of one round at most: each stays in SPIRE's store and caches until it is deleted.
const ENTRIES: usize = 2000;
/// Most agents that are revoked in one round.
const CUTS: usize = 12_000;

/// Measures everything. Even after an error, nothing that this program made stays in SPIRE.
pub(crate) async fn beside(issuer: &Issuer, spire: &Spire, options: &Options) -> Result<Vec<Row>, String> {
    let rows = compare(issuer, spire, options).await;
    let cleaned = spire.clean().await;
    rows.and_then(|rows| cleaned.map(|()| rows))
}

async fn compare(issuer: &Issuer, spire: &Spire, options: &Options) -> Result<Vec<Row>, String> {
    // ORDER: before anything is measured, so that a missing SPIRE agent is reported at once and not after minutes.
    let workload = match &options.spire_agent_socket {
        Some(socket) => Some(Workload::at(socket, spire.agent(options.spire_agent_id.as_deref()).await?).await?),
        None => {
            eprintln!("how long it takes until an SVID is usable is not measured: that needs --spire-agent-socket");
            None
        }
    };
    let mut rows = certificates(issuer, spire, options).await?;
    if !load::ending() {
        rows.extend(tokens(issuer, spire, options).await?);
    }
    if !load::ending() {
        rows.extend(in_and_out(issuer, spire, options).await?);
    }
    if let Some(workload) = workload.filter(|_| !load::ending()) {
        rows.extend(usable(issuer, spire, &workload).await?);
    }
    Ok(rows)
}

/// A certificate for a key of the caller: a spawn, and `MintX509SVID`. Both get requests of the same form.
async fn certificates(issuer: &Issuer, spire: &Spire, options: &Options) -> Result<Vec<Row>, String> {
    let (client, id) = (issuer.as_workload().await?, spire.id());
    let work = Work { must: SPAWN, ..Work::new("mayfly spawn", options, 6.0) };
    let spawn = async |count| Ok(spawning_for(issuer.request(Vec::new()), &client, csrs_for(count, &id).await?));
    let mint = async |count| {
        let (spire, csrs) = (spire.clone(), Arc::new(csrs_for(count, &id).await?));
        Ok(boxed(move |n: usize| {
            let (spire, csr) = (spire.clone(), csrs.get(n).cloned().unwrap_or_default());
            async move { spire.mint_x509(csr).await }
        }))
    };
    let ours = Series::begin(issuer, work, spawn).await?;
    let theirs = Series::begin(spire, Work { name: "spire MintX509SVID", ..work }, mint).await?;
    in_turns(ours, theirs).await
}

/// A token of an identity that exists.
async fn tokens(issuer: &Issuer, spire: &Spire, options: &Options) -> Result<Vec<Row>, String> {
    let (folder, _) = issuer.agent(&issuer.class).await?;
    let client = issuer.as_identity(&folder).await?;
    let work = Work { must: JWT, ..Work::new("mayfly jwt", options, 6.0) };
    let mint = async |_| {
        let (spire, audience) = (spire.clone(), issuer.audience.clone());
        Ok(boxed(move |_| {
            let (spire, audience) = (spire.clone(), audience.clone());
            async move { spire.mint_jwt(audience).await }
        }))
    };
    let ours = Series::begin(issuer, work, async |_| Ok(minting(&client, &issuer.audience))).await?;
    let theirs = Series::begin(spire, Work { name: "spire MintJWTSVID", ..work }, mint).await?;
    in_turns(ours, theirs).await
}

/// An entry lets an agent into SPIRE, as a spawn does here; its deletion lets it out, as a revocation does.
async fn in_and_out(issuer: &Issuer, spire: &Spire, options: &Options) -> Result<Vec<Row>, String> {
    let work = Work { warm: 200, must: Must::default(), ..Work::new("spire entry", options, 6.0) };
    let entry = Work { most: ENTRIES, ..work };
    let create = async |_| {
        // Entries of the round before would slow this one down.
        spire.clean().await?;
        let spire = spire.clone();
        Ok(boxed(move |_| {
            let spire = spire.clone();
            async move { spire.create(vec![spire.of_nobody()]).await.map(drop) }
        }))
    };
    let mut rows = vec![rounds(spire, entry, create).await?];
    spire.clean().await?;
    if load::ending() {
        return Ok(rows);
    }
    let revoker = issuer.as_revoker().await?;
    let revoke = async |count| {
        let spawned = issuer.batches(count, false).await?;
        Ok(cutting(&revoker, spawned.into_iter().filter_map(|one| Some(one.agent?.agent_id)).collect()))
    };
    let delete = async |count: usize| {
        let mut ids = Vec::with_capacity(count);
        while ids.len() < count {
            let part = (count - ids.len()).min(spire::BATCH);
            ids.extend(spire.create((0..part).map(|_| spire.of_nobody()).collect()).await?);
        }
        let (spire, ids) = (spire.clone(), Arc::new(ids));
        Ok(boxed(move |n: usize| {
            let (spire, id) = (spire.clone(), ids.get(n).cloned().unwrap_or_default());
            async move { spire.delete(vec![id]).await }
        }))
    };
    let ours = Series::begin(issuer, Work { name: "mayfly revoke", most: CUTS, ..work }, revoke).await?;
    let theirs = Series::begin(spire, Work { name: "spire entry deletion", ..entry }, delete).await?;
    rows.extend(in_turns(ours, theirs).await?);
    Ok(rows)
}

/// Rounds of both in turns. Our row holds the ratio to SPIRE's of the same round, because the speed of the machine changes with
/// time.
async fn in_turns<P, Q>(mut ours: Series<'_, Issuer, P>, mut theirs: Series<'_, Spire, Q>) -> Result<Vec<Row>, String>
where
    P: AsyncFnMut(usize) -> Result<Call, String>,
    Q: AsyncFnMut(usize) -> Result<Call, String>,
{
    for _ in 0..ROUNDS {
        ours.round().await?;
        theirs.round().await?;
    }
    let pairs = ours.runs().iter().zip(theirs.runs());
    let ratio = |of: fn(&Run) -> Option<f64>| {
        let ratios: Vec<f64> = pairs.clone().filter_map(|(ours, theirs)| Some(of(ours)? / of(theirs)?.max(1e-9))).collect();
        (!ratios.is_empty()).then(|| median(ratios))
    };
    let (speed, cpu) = (ratio(|run| Some(run.rate())), ratio(Run::cpu_us));
    let (mut ours, theirs) = (ours.row().await?, theirs.row().await?);
    ours.facts.extend(speed.map(|speed| ("speed_to_spire", speed)));
    ours.facts.extend(cpu.map(|cpu| ("cpu_to_spire", cpu)));
    Ok(vec![ours, theirs])
}
