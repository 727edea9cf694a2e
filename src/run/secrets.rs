//! The identity of the tree for an Envoy in it, over SDS.

use std::sync::Arc;

use mayfly_agent::identity::{Current, Identity, Over};
use tokio::sync::watch;

use super::workload::Served;
use crate::process;
use crate::sds::{Material, Sds};

/// Publishes the identity and each change of it, until it ends or `stop`. Every process that the socket serves gets it.
pub(super) fn tell(identity: &Arc<Identity>, mut stop: watch::Receiver<bool>) -> Result<Sds, String> {
    let (mut changed, mut over) = (identity.changed(), identity.over());
    let first = material(&changed.borrow_and_update().clone())?;
    let (told, heard) = watch::channel(Some(Arc::new(first)));
    drop(process::task("secrets of the command", async move {
        while next(&mut changed, &mut over, &mut stop).await {
            let ended = over.borrow().is_some();
            let current = Arc::clone(&changed.borrow_and_update());
            if ended {
                told.send_replace(None);
                // This ends every stream, and those that are opened until the socket is closed.
                return told.closed().await;
            }
            match material(&current) {
                Ok(material) => publish(&told, material),
                Err(cause) => tracing::error!(%cause, "the secrets cannot be told"),
            }
        }
    }));
    Ok(Sds::new(heard, |extensions| extensions.get() == Some(&Served(true))))
}

/// Waits for a change. Returns `false` when there will be no more.
async fn next(
    changed: &mut watch::Receiver<Arc<Current>>,
    over: &mut watch::Receiver<Option<Over>>,
    stop: &mut watch::Receiver<bool>,
) -> bool {
    tokio::select! {
        biased;
        _ = over.wait_for(Option::is_some) => true,
        _ = stop.wait_for(|stop| *stop) => false,
        news = changed.changed() => news.is_ok(),
    }
}

/// Publishes the material, unless it is unchanged.
fn publish(told: &watch::Sender<Option<Arc<Material>>>, material: Material) {
    let other = told.borrow().as_ref().is_none_or(|last| !last.same(&material));
    if other {
        told.send_replace(Some(Arc::new(material)));
    }
}

fn material(current: &Current) -> Result<Material, String> {
    let key = current.expose_pkcs8().map_err(|e| e.to_string())?;
    let own = current.bundle();
    let foreign = current.foreign().into_iter().flat_map(|foreign| foreign.iter());
    let foreign = foreign.map(|one| (one.trust_domain().as_str(), one.bundle().x509_authorities()));
    let bundles = foreign.chain([(own.trust_domain.as_str(), own.x509_authorities.as_slice())]);
    Ok(Material::new(current.spiffe_id(), current.chain(), &key, &own.trust_domain, bundles))
}
