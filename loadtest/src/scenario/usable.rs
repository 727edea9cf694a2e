//! The time from the call until an SVID is usable, and from its end until it is refused: Mayfly and an entry of SPIRE in turns.

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use mayfly::folder::Key;
use mayfly_agent::peers::{Bundles, Verifier};
use mayfly_agent::revocation::{Following, Freshness, follow};
use mayfly_verify::feed::FeedKey;
use mayfly_verify::{Bundle, Reject, TrustDomain, X509Svid};
use rustls::pki_types::CertificateDer;

use crate::client::Client;
use crate::floor::median;
use crate::issuer::Issuer;
use crate::load;
use crate::row::{Row, Timed};
use crate::spire::workload::Workload;
use crate::spire::{Spire, text};

/// Turns of both.
const TURNS: u32 = 5;
/// Agents of ours in one turn.
const AGENTS: usize = 20;
/// How long a message of the issuer may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// Measures one agent at a time. A Mayfly SVID is usable when a verifier accepts it, and ended when a verifier refuses it. One of
/// SPIRE is usable when the workload holds it, and ended when the workload no longer gets it (a copy can be used until it expires).
pub(crate) async fn usable(issuer: &Issuer, spire: &Spire, workload: &Workload) -> Result<Vec<Row>, String> {
    let judge = Judge::start(issuer).await?;
    let uid = std::fs::metadata("/proc/self").map_err(|e| e.to_string())?.uid();
    let [mut usable, mut refused, mut held, mut gone]: [Timed; 4] = Default::default();
    let (mut created, mut longest) = (Vec::new(), Duration::ZERO);
    for turn in 0..TURNS {
        for _ in 0..AGENTS {
            if !load::ending() {
                judge.agent(issuer, &mut usable, &mut refused).await;
            }
        }
        // SPIRE's server and agent poll at fixed intervals. If each turn began right after the one before, it would always begin at
        // the same point of an interval.
        tokio::time::sleep(longest * turn / TURNS).await;
        if load::ending() {
            break;
        }
        eprintln!("spire entry, turn {} of {TURNS}", turn + 1);
        let entry = spire.of_user(workload.agent(), uid);
        let id = entry.spiffe_id.as_ref().map(text).unwrap_or_default();
        let started = Instant::now();
        let ids = match spire.create(vec![entry]).await {
            Ok(ids) => ids,
            Err(error) => {
                held.take(Err(error));
                continue;
            }
        };
        created.push(started.elapsed().as_secs_f64() * 1e3);
        let answers = workload.holds(&id).await;
        longest = longest.max(started.elapsed());
        held.take(answers.as_ref().map(|_| started.elapsed()).map_err(Clone::clone));
        let started = Instant::now();
        let deleted = spire.delete(ids).await;
        // If the SVID never arrived, its end cannot be measured.
        if let Ok(answers) = answers {
            let lost = match deleted {
                Ok(()) => answers.lost().await,
                Err(error) => Err(error),
            };
            longest = longest.max(started.elapsed());
            gone.take(lost.map(|()| started.elapsed()));
        }
    }
    Ok(vec![
        usable.row(issuer, "mayfly spawn to usable").await?,
        held.row(spire, "spire entry to usable").await?.with("call_p50_ms", median(created)),
        refused.row(issuer, "mayfly revoke to refused").await?,
        gone.row(spire, "spire deletion to gone").await?,
    ])
}

/// A verifier that follows the issuer's feed, with the clients that spawn and revoke the agents that it checks.
struct Judge {
    spawner: Client,
    revoker: Client,
    verifier: Verifier,
    // Held for as long as the feed is followed.
    _feed: Following,
}

impl Judge {
    async fn start(issuer: &Issuer) -> Result<Judge, String> {
        let (spawner, revoker) = (issuer.as_workload().await?, issuer.as_revoker().await?);
        let got = spawner.spawn(issuer.request(Key::new()?.csr)).await?;
        let bundle = got.bundle.ok_or("an incomplete answer")?;
        let trust_domain = TrustDomain::new(&bundle.trust_domain).map_err(|e| e.to_string())?;
        let key = FeedKey::from_point(&bundle.feed_key).map_err(|e| e.to_string())?;
        let feed = follow(issuer.as_workload().await?.channel(), key, trust_domain.clone(), Freshness::default());
        let bundles = Bundles::default();
        bundles.set(Bundle::from_json(trust_domain, &bundle.spiffe_json).map_err(|e| e.to_string())?);
        let verifier = Verifier::new(bundles, feed.live().clone());
        let mut news = verifier.news();
        // Before its first heartbeat the verifier accepts nothing.
        while feed.live().known().is_none() {
            let word = tokio::time::timeout(PATIENCE, news.changed()).await;
            word.map_err(|_| "the issuer's feed says nothing")?.map_err(|e| e.to_string())?;
        }
        Ok(Judge { spawner, revoker, verifier, _feed: feed })
    }

    /// Spawns an agent and revokes it.
    async fn agent(&self, issuer: &Issuer, usable: &mut Timed, refused: &mut Timed) {
        match self.spawn(issuer).await {
            Ok((svid, took)) => {
                usable.take(Ok(took));
                refused.take(self.revoke(&svid).await);
            }
            Err(error) => usable.take(Err(error)),
        }
    }

    async fn spawn(&self, issuer: &Issuer) -> Result<(X509Svid, Duration), String> {
        let request = issuer.request(Key::new()?.csr);
        let started = Instant::now();
        let got = self.spawner.spawn(request).await?;
        let chain = got.svid.ok_or("an incomplete answer")?.certificates;
        let chain: Vec<_> = chain.into_iter().map(CertificateDer::from).collect();
        let svid = self.verifier.verify_x509(&chain).map_err(|e| e.to_string())?;
        Ok((svid, started.elapsed()))
    }

    async fn revoke(&self, svid: &X509Svid) -> Result<Duration, String> {
        // ORDER: before the call, because the feed may be faster than the answer.
        let mut news = self.verifier.news();
        let started = Instant::now();
        self.revoker.revoke(svid.id.to_string()).await?;
        loop {
            match self.verifier.check(svid) {
                Err(Reject::Cut) => return Ok(started.elapsed()),
                Err(other) => return Err(other.to_string()),
                Ok(()) => {}
            }
            let word = tokio::time::timeout(PATIENCE, news.changed()).await;
            word.map_err(|_| "the verifier was told nothing")?.map_err(|e| e.to_string())?;
        }
    }
}
