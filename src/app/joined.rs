//! Joins the workloads of development, so that nobody needs to do it by hand.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mayfly_agent::api::v1;
use mayfly_verify::{Target, Workload};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::acts::{Certified, Issuer, join as joining, redeem};
use crate::authority::Signed;
use crate::caller::Caller;
use crate::doors::grpc;
use crate::folder;
use crate::publish::Published;
use crate::state::View as _;
use crate::state::authority::Status;

/// The workloads of development: the one that spawns, and the service that is an audience.
const WORKLOADS: [&str; 2] = ["orchestrator", "mail-service"];

/// The folder with a folder for each workload, and the key that each joined with last.
pub(super) struct Workloads(PathBuf, BTreeMap<&'static str, [u8; 32]>);

impl Workloads {
    /// Joins every workload of development.
    pub(super) async fn join(issuer: &Issuer, dir: &Path) -> Result<Workloads, String> {
        let mut keys = BTreeMap::new();
        for name in WORKLOADS {
            match join(issuer, name, &dir.join(name)).await {
                Ok(key) => drop(keys.insert(name, key)),
                // The journal has no room, but the identity of the last start may still be valid. The issuer must run, because
                // without it nothing could be revoked.
                Err(cause) if issuer.ledger.able(Duration::MAX).is_err() && dir.join(name).exists() => {
                    tracing::error!(%cause, name, "cannot renew the development workload");
                }
                Err(cause) => return Err(cause),
            }
        }
        Ok(Workloads(dir.to_owned(), keys))
    }

    /// A development workload never has to join by hand: not when its certificate ends, nor when the authority that signed it is
    /// tainted, nor when it was revoked and is open again, nor when somebody has copied its folder.
    pub(super) async fn keep(
        mut self,
        issuer: Arc<Issuer>,
        life: u64,
        mut reopened: mpsc::Receiver<oneshot::Sender<()>>,
        mut stop: watch::Receiver<bool>,
    ) {
        let tainted = |p: &Published| p.authorities.slots.iter().filter(|s| s.status == Status::Tainted).count();
        let (mut published, mut cuts) = (issuer.publisher.watch(), issuer.feed.cuts());
        let mut due = Instant::now() + pause(&issuer, life);
        let mut known = tainted(&published.borrow_and_update());
        loop {
            let (mut asked, mut cut) = (None, false);
            tokio::select! {
                Some(joined) = reopened.recv() => asked = Some(joined),
                () = tokio::time::sleep_until(due) => {}
                more = published.wait_for(|p| tainted(p) > known) => if more.is_err() { return },
                changed = cuts.changed() => if changed.is_ok() { cut = true } else { return },
                _ = stop.wait_for(|s| *s) => return,
            }
            // A revocation does not postpone the next renewal, and does not hide a tainted authority.
            if !cut {
                due = Instant::now() + pause(&issuer, life);
                known = tainted(&published.borrow_and_update());
            }
            // A closed workload does not keep the others from joining.
            for name in WORKLOADS {
                if cut && !self.lost(&issuer, name) {
                    continue;
                }
                match join(&issuer, name, &self.0.join(name)).await {
                    Ok(key) => drop(self.1.insert(name, key)),
                    Err(cause) => tracing::error!(%cause, name, "cannot renew the development workload"),
                }
            }
            // The caller that asked may have hung up.
            let _ = asked.map(|joined| joined.send(()));
        }
    }
}

impl Workloads {
    /// Whether a workload has lost its identity and may join again.
    fn lost(&self, issuer: &Issuer, name: &str) -> bool {
        let Ok(workload) = name.parse().map(|name| Target::Workload(Workload::Own(name))) else { return false };
        let key = self.1.get(name);
        issuer.ledger.read(|state| key.is_some_and(|key| state.key_revoked(key)) && !state.is_closed(&workload))
    }
}

/// The time until the next renewal, or until the next attempt if the journal has no room.
fn pause(issuer: &Issuer, life: u64) -> Duration {
    let pause = Duration::from_secs((life / 2).max(1));
    if issuer.ledger.able(Duration::MAX).is_ok() { pause } else { pause.min(Duration::from_secs(10)) }
}

/// Joins a workload: a ticket and its redemption, without the wire. Returns the SHA-256 of its key.
async fn join(issuer: &Issuer, name: &str, dir: &Path) -> Result<[u8; 32], String> {
    let operator = Caller::Operator { name: "mayfly dev".into(), by: None };
    let name = name.parse().map_err(|e: mayfly_verify::NameError| e.to_string())?;
    let (ticket, ..) = joining::join_token(issuer, operator, name, 60).await.map_err(|e| e.to_string())?;
    let key = folder::Key::new()?;
    match redeem::redeem(issuer, ticket.secret().expose(), key.csr.clone()).await.map_err(|e| e.to_string())? {
        Certified::Workload(permit, leaf) => put(issuer, dir, &key, &leaf).map(|()| permit.certificate().key),
        Certified::Agent(..) => Err("a join token was redeemed for an agent".into()),
    }
}

fn put(issuer: &Issuer, dir: &Path, key: &folder::Key, signed: &Signed) -> Result<(), String> {
    let svid = v1::X509Svid { spiffe_id: String::new(), certificates: signed.chain(), expires_at: None };
    folder::write(dir, key, &svid, &grpc::message::bundle_message(&issuer.publisher.now()), None)
}
