//! An identity that lives in a folder: each renewal is written back, so a program that starts again goes on with what it had.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mayfly_verify::TrustDomain;

use super::leaf::Leaf;
use super::{Current, Identity, IdentityError, Issuer, Key, Over, insist, timely};
use crate::api::v1;
use crate::api::v1::identities_client::IdentitiesClient;
use crate::channel::{ChannelSettings, Trust, connect};
use crate::folder::write::{Files, Locked};
use crate::folder::{self, FolderError};
use crate::tls::{self, CurrentIdentity};
use crate::validity::{self, OutOfTime};

/// How long to wait for another program that renews the same folder. That program in turn waits for the issuer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The folder of an identity.
pub(super) struct Kept {
    dir: PathBuf,
}

impl Identity {
    /// Goes on with the identity of an agent or a workload in a folder, renews it there, and keeps the folder: each renewal is
    /// written back, key and certificate together, before it is used. `issuer` is `host:port`; `None` means the address that the
    /// folder names.
    ///
    /// Several programs may renew one folder, such as this and `mayfly keep`: each goes on from the newest certificate. But an
    /// agent's certificate that was replaced must not be used for a new connection, so only one program at a time should act
    /// with an agent's folder, or read it anew for each connection.
    pub async fn keep(dir: &Path, issuer: Option<&str>, connect_timeout: Duration) -> Result<Identity, IdentityError> {
        let kept = Kept { dir: dir.to_owned() };
        let locked = kept.lock().await?;
        let (identity, roots) = (folder::identity(dir).map_err(unusable)?, folder::roots(dir).map_err(unusable)?);
        let leaf = identity.chain.first().and_then(|der| Leaf::read(der));
        let leaf = leaf.ok_or_else(|| IdentityError::Saved("its first certificate is not an X.509-SVID".into()))?;
        let address = match issuer {
            Some(address) => address.to_owned(),
            None => folder::issuer(dir).ok_or_else(|| {
                let why = format!("`{}` does not say where its issuer is: give its address", dir.display());
                IdentityError::Saved(why)
            })?,
        };
        let trust_domain = TrustDomain::new(leaf.id.trust_domain_name()).map_err(|e| IdentityError::Saved(e.to_string()))?;
        let at = Issuer { address, trust_domain, connect_timeout };
        let shown = shown(identity)?;
        in_time(dir, &shown)?;
        let key = Key::new()?;
        let csr = key.csr()?;
        let (csr, issuer, shown, roots) = (&csr, &at, &shown, &roots);
        let got = insist(move || async move {
            let settings = ChannelSettings {
                address: issuer.address.clone(),
                trust_domain: issuer.trust_domain.clone(),
                trust: Trust::Roots(roots.clone()),
                identity: None,
                connect_timeout: issuer.connect_timeout,
            };
            let channel = crate::channel::connect_as(settings, shown.clone()).await?;
            timely(IdentitiesClient::new(channel).renew(v1::RenewRequest { csr: csr.clone() })).await
        });
        let got = got.await?;
        kept.write(&locked, &key, &got, &at.address)?;
        let first = Current::new(key, got.svid, got.bundle, got.agent, got.revision)?;
        if first.spiffe_id() != leaf.id.to_string() {
            return Err(IdentityError::Answer("the certificate has another SPIFFE ID"));
        }
        drop(locked);
        Identity::begin(at, first, Some(kept))
    }

    /// Redeems a ticket or a join token into a folder, and goes on as [`Identity::keep`] does.
    pub async fn redeem_into(
        ticket: &crate::ticket::Ticket,
        dir: &Path,
        connect_timeout: Duration,
    ) -> Result<Identity, IdentityError> {
        let kept = Kept { dir: dir.to_owned() };
        let locked = kept.lock().await?;
        let key = Key::new()?;
        let csr = key.csr()?;
        // The issuer gives the same answer to the same key, so a lost answer can be asked for again.
        let csr = &csr;
        let got = insist(move || async move {
            let channel = connect(ticket.channel_settings(connect_timeout)).await?;
            let request = v1::RedeemRequest { secret: ticket.secret().expose().to_vec(), csr: csr.clone() };
            timely(IdentitiesClient::new(channel).redeem(request)).await
        });
        let got = got.await?;
        let got = v1::RenewResponse { svid: got.svid, bundle: got.bundle, revision: got.revision, agent: got.agent };
        kept.write(&locked, &key, &got, ticket.address())?;
        let first = Current::new(key, got.svid, got.bundle, got.agent, got.revision)?;
        let (address, trust_domain) = (ticket.address().to_owned(), ticket.trust_domain().clone());
        drop(locked);
        Identity::begin(Issuer { address, trust_domain, connect_timeout }, first, Some(kept))
    }
}

impl Kept {
    pub(super) async fn lock(&self) -> Result<Locked, IdentityError> {
        Locked::soon(&self.dir, PATIENCE).await.map_err(unusable)
    }

    /// What another program has renewed since: the certificate in the folder with its key, if it lasts longer than `current`.
    pub(super) fn newer(&self, current: &Current) -> Option<Arc<rustls::sign::CertifiedKey>> {
        let identity = folder::identity(&self.dir).ok()?;
        let leaf = Leaf::read(identity.chain.first()?)?;
        let same = leaf.id.to_string() == current.spiffe_id();
        (same && leaf.ends_at > current.expires_at()).then(|| tls::certified(identity).ok().map(Arc::new))?
    }

    /// ORDER: before the certificate is used. Whoever starts again after us finds it.
    pub(super) fn write(&self, locked: &Locked, key: &Key, got: &v1::RenewResponse, issuer: &str) -> Result<(), IdentityError> {
        let svid = got.svid.as_ref().filter(|svid| !svid.certificates.is_empty());
        let svid = svid.ok_or(IdentityError::Answer("there is no certificate"))?;
        let bundle = got.bundle.as_ref().filter(|b| !b.x509_authorities.is_empty());
        let bundle = bundle.ok_or(IdentityError::Answer("there is no bundle"))?;
        let files = Files {
            key: &key.pkcs8()?,
            chain: &svid.certificates,
            roots: &bundle.x509_authorities,
            bundle_json: &bundle.spiffe_json,
            issuer: Some(issuer),
        };
        locked.write(&files).map_err(unusable)
    }
}

fn shown(identity: tls::Identity) -> Result<CurrentIdentity, IdentityError> {
    CurrentIdentity::new(identity)
        .map_err(|e| IdentityError::Saved(format!("the key does not belong to the certificate, or cannot be used: {e}")))
}

fn in_time(dir: &Path, shown: &CurrentIdentity) -> Result<(), IdentityError> {
    let Some(Err(e)) = shown.validity().map(|validity| validity.check(validity::now())) else { return Ok(()) };
    let help = match e {
        OutOfTime::Expired { .. } => ": a workload joins again with a join token, and an agent is spawned again",
        OutOfTime::ClockBehind { .. } => "",
    };
    Err(Over::Expired(format!("the certificate in `{}` {e}{help}", dir.display())).into())
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn unusable(e: FolderError) -> IdentityError {
    IdentityError::Saved(e.to_string())
}
