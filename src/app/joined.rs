//! The workloads that have joined in development, so that nobody needs to do it by hand.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mayfly_agent::api::v1;
use tokio::sync::{mpsc, oneshot, watch};

use crate::acts::{Certified, Issuer, join as joining, redeem};
use crate::authority::Signed;
use crate::caller::Caller;
use crate::doors::grpc;
use crate::folder;
use crate::publish::Published;
use crate::state::authority::Status;

/// The workloads of development: the one that spawns, and the service that is an audience.
const WORKLOADS: [&str; 2] = ["orchestrator", "mail-service"];

/// The folder with a folder for each workload.
pub(super) struct Workloads(PathBuf);

impl Workloads {
    /// Joins every workload of development.
    pub(super) async fn join(issuer: &Issuer, dir: &Path) -> Result<Workloads, String> {
        for name in WORKLOADS {
            match join(issuer, name, &dir.join(name)).await {
                Ok(()) => {}
                // The identity of the last start may still be good, and without the issuer nobody could revoke.
                Err(cause) if issuer.ledger.able(Duration::MAX).is_err() && dir.join(name).exists() => {
                    tracing::error!(%cause, name, "cannot renew the development workload");
                }
                Err(cause) => return Err(cause),
            }
        }
        Ok(Workloads(dir.to_owned()))
    }

    /// A development workload never has to join by hand: not when its certificate ends, nor when the authority that signed it is
    /// tainted, nor when it was revoked and is open again.
    pub(super) async fn keep(
        self,
        issuer: Arc<Issuer>,
        life: u64,
        mut reopened: mpsc::Receiver<oneshot::Sender<()>>,
        mut stop: watch::Receiver<bool>,
    ) {
        let tainted = |p: &Published| p.authorities.slots.iter().filter(|s| s.status == Status::Tainted).count();
        let mut published = issuer.publisher.watch();
        loop {
            let known = tainted(&published.borrow_and_update());
            let mut asked = None;
            tokio::select! {
                Some(joined) = reopened.recv() => asked = Some(joined),
                () = tokio::time::sleep(pause(&issuer, life)) => {}
                more = published.wait_for(|p| tainted(p) > known) => if more.is_err() { return },
                _ = stop.wait_for(|s| *s) => return,
            }
            // One that is closed does not keep the others from joining.
            for name in WORKLOADS {
                if let Err(cause) = join(&issuer, name, &self.0.join(name)).await {
                    tracing::error!(%cause, name, "cannot renew the development workload");
                }
            }
            // Whoever asked may have gone.
            let _ = asked.map(|joined| joined.send(()));
        }
    }
}

/// How long the certificates are good for, or until there may be room for new ones.
fn pause(issuer: &Issuer, life: u64) -> Duration {
    let pause = Duration::from_secs((life / 2).max(1));
    if issuer.ledger.able(Duration::MAX).is_ok() { pause } else { pause.min(Duration::from_secs(10)) }
}

/// Joins a workload: a ticket and its redemption, without the wire.
async fn join(issuer: &Issuer, name: &str, dir: &Path) -> Result<(), String> {
    let operator = Caller::Operator { name: "mayfly dev".into(), by: None };
    let name = name.parse().map_err(|e: mayfly_verify::NameError| e.to_string())?;
    let (ticket, ..) = joining::join_token(issuer, operator, name, 60).await.map_err(|e| e.to_string())?;
    let key = folder::Key::new()?;
    match redeem::redeem(issuer, ticket.secret().expose(), key.csr.clone()).await.map_err(|e| e.to_string())? {
        Certified::Workload(_, leaf) => put(issuer, dir, &key, &leaf),
        Certified::Agent(..) => Err("a join token was redeemed for an agent".into()),
    }
}

fn put(issuer: &Issuer, dir: &Path, key: &folder::Key, signed: &Signed) -> Result<(), String> {
    let svid = v1::X509Svid { spiffe_id: String::new(), certificates: signed.chain(), expires_at: None };
    folder::write(dir, key, &svid, &grpc::message::bundle_message(&issuer.publisher.now()), None)
}
