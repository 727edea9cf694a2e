//! The guard's own identity for the proxy beside it, over SDS (`--sds`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mayfly_agent::channel::Identity;
use mayfly_agent::folder;
use mayfly_agent::peers::Bundles;
use mayfly_verify::{BindingOid, TrustDomain, inspect_x509};
use tokio::sync::watch;

use crate::sds::Material;

/// The source of the secrets.
pub struct Source {
    /// The folder of the identity.
    pub dir: PathBuf,
    /// The trust domain of the identity.
    pub trust_domain: TrustDomain,
    /// The bundles.
    pub bundles: Bundles,
    /// Notifies when the folder may hold another certificate.
    pub renewed: watch::Receiver<()>,
    /// OID of the binding.
    pub oid: BindingOid,
}

impl Source {
    /// The secrets as they are now. Fails if the folder cannot be read.
    pub fn read(&self) -> Result<Arc<Material>, String> {
        let Identity { chain, key } = identity(&self.dir)?;
        let leaf = chain.first().ok_or("there is no certificate")?;
        let svid = inspect_x509(leaf, &self.trust_domain, &self.oid).map_err(|e| e.to_string())?;
        let bundles = self.bundles.all();
        let roots = bundles.iter().map(|bundle| (bundle.trust_domain().as_str(), bundle.x509_authorities()));
        let (id, own) = (svid.id.to_string(), self.trust_domain.as_str());
        Ok(Arc::new(Material::new(&id, &chain, key.secret_der(), own, roots)))
    }

    /// Publishes each change, until it is dropped. While the folder cannot be read, the last secrets stay.
    pub async fn keep(mut self, told: watch::Sender<Option<Arc<Material>>>) {
        let mut changes = self.bundles.changes();
        loop {
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                renewed = self.renewed.changed() => if renewed.is_err() { return },
            }
            match self.read() {
                Ok(material) => drop(told.send_if_modified(|told| {
                    let other = told.as_ref().is_none_or(|told| !told.same(&material));
                    if other {
                        *told = Some(material);
                    }
                    other
                })),
                Err(cause) => tracing::error!(%cause, "the own identity cannot be read: Envoy keeps the one before"),
            }
        }
    }
}

fn identity(dir: &Path) -> Result<Identity, String> {
    folder::identity(dir).map_err(|e| e.to_string())
}
