//! The beginning of an identity: from a ticket, by spawning, or from files.

use std::sync::Arc;
use std::time::Duration;

use mayfly_verify::rfc3339;
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use tokio::sync::{Notify, watch};
use tonic::transport::Channel;

use super::connection::Connection;
use super::kept::Kept;
use super::{Current, Identity, IdentityError, Issuer, Key, Over, Saved, Shared, pace, tasks, timely};
use crate::api::v1;
use crate::api::v1::identities_client::IdentitiesClient;
use crate::channel::{ChannelSettings, ConnectError, Trust, connect, connect_as};
use crate::peers::Bundles;
use crate::random;
use crate::ticket::Ticket;
use crate::validity::{self, OutOfTime, Validity};

/// Number of attempts to get the first certificate while the issuer does not answer.
const TRIES: u32 = 4;

impl Identity {
    /// Redeems a ticket, or a workload's join token, with a key that is made here and never leaves this process.
    ///
    /// Must be called within a tokio runtime, like the other functions here.
    pub async fn redeem(ticket: &Ticket, connect_timeout: Duration) -> Result<Identity, IdentityError> {
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
        let (address, trust_domain) = (ticket.address().to_owned(), ticket.trust_domain().clone());
        let first = Current::new(key, got.svid, got.bundle, got.agent, got.revision)?;
        Identity::begin(Issuer { address, trust_domain, connect_timeout }, first, None)
    }

    /// Proves a workload by the OIDC token of the platform that it runs on, with a key that is made here and never leaves this
    /// process. `roots` are those of the issuer. `workload` names the workload; it may be empty if the token proves only one.
    ///
    /// The issuer accepts a token once. The certificate is renewed like any other, without the platform.
    pub async fn attest(
        at: Issuer,
        roots: Vec<CertificateDer<'static>>,
        token: &str,
        workload: &str,
    ) -> Result<Identity, IdentityError> {
        let key = Key::new()?;
        let csr = key.csr()?;
        // The issuer gives the same answer to the same key, so a lost answer can be asked for again.
        let (csr, roots, issuer) = (&csr, &roots, &at);
        let got = insist(move || async move {
            let settings = ChannelSettings {
                address: issuer.address.clone(),
                trust_domain: issuer.trust_domain.clone(),
                trust: Trust::Roots(roots.clone()),
                identity: None,
                connect_timeout: issuer.connect_timeout,
            };
            let channel = connect(settings).await?;
            let request = v1::AttestRequest { token: token.to_owned(), csr: csr.clone(), workload: workload.to_owned() };
            timely(IdentitiesClient::new(channel).attest(request)).await
        });
        let got = got.await?;
        let first = Current::new(key, got.svid, got.bundle, None, got.revision)?;
        Identity::begin(at, first, None)
    }

    /// Spawns an agent over the channel of a workload or an agent. The request's `csr` is filled in. So is its `request_id` if it
    /// is empty, so that a lost answer can be asked for again without spawning a second agent.
    pub async fn spawn(channel: Channel, at: Issuer, mut request: v1::SpawnRequest) -> Result<Identity, IdentityError> {
        let key = Key::new()?;
        request.csr = key.csr()?;
        if request.request_id.is_empty() {
            request.request_id = uuid::Uuid::from_bytes(random::bytes().map_err(|_| IdentityError::Key)?).to_string();
        }
        let (channel, request) = (&channel, &request);
        let ask = move || async move { timely(IdentitiesClient::new(channel.clone()).spawn(request.clone())).await };
        let got = insist(ask).await?;
        Identity::begin(at, Current::new(key, got.svid, got.bundle, got.agent, got.revision)?, None)
    }

    /// Spawns a child of this identity, as an identity in this process.
    pub async fn spawn_child(&self, request: v1::SpawnRequest) -> Result<Identity, IdentityError> {
        self.holds()?;
        let spawned = Identity::spawn(self.channel(), self.shared.at.clone(), request.clone()).await;
        match spawned {
            // A renewed certificate was used while this call was under way on an older connection. The second attempt uses the new
            // connection.
            Err(e) if e.is_past() => Identity::spawn(self.channel(), self.shared.at.clone(), request).await,
            spawned => spawned,
        }
    }

    /// Takes over an agent from its files. The certificate is renewed at once under a new key that is made here.
    ///
    /// From then on the files are a copy of an outdated certificate. If anybody connects with it, the issuer takes it for stolen
    /// and revokes the agent. So take an identity over once, in one process; give a process that restarts its own ticket.
    pub async fn take_over(saved: &Saved, at: Issuer) -> Result<Identity, IdentityError> {
        if saved.trust_domain() != &at.trust_domain {
            let (of, issuer) = (saved.trust_domain(), &at.trust_domain);
            return Err(IdentityError::Saved(format!("it belongs to trust domain `{of}`, and the issuer to `{issuer}`")));
        }
        let key = Key::new()?;
        let csr = key.csr()?;
        // The issuer renews a certificate again as long as its successor was not used, so a lost answer can be asked for again.
        let (csr, issuer) = (&csr, &at);
        let got = insist(move || async move {
            saved.holds()?;
            let settings = ChannelSettings {
                address: issuer.address.clone(),
                trust_domain: issuer.trust_domain.clone(),
                trust: Trust::Roots(saved.roots.clone()),
                identity: None,
                connect_timeout: issuer.connect_timeout,
            };
            let channel = connect_as(settings, saved.shown.clone()).await?;
            timely(IdentitiesClient::new(channel).renew(v1::RenewRequest { csr: csr.clone() })).await
        });
        let got = got.await?;
        let first = Current::new(key, got.svid, got.bundle, got.agent, got.revision)?;
        if first.spiffe_id() != saved.agent().to_string() {
            return Err(IdentityError::Answer("the certificate has another SPIFFE ID"));
        }
        Identity::begin(at, first, None)
    }

    pub(super) fn begin(at: Issuer, first: Current, kept: Option<Kept>) -> Result<Identity, IdentityError> {
        if *first.trust().trust_domain() != at.trust_domain {
            return Err(IdentityError::Answer("the bundle is of another trust domain"));
        }
        // The certificate was just issued, so it is valid by the issuer's clock.
        let fresh = first.chain().first().and_then(|leaf| Validity::of(leaf)).map(|validity| validity.check(validity::now()));
        match fresh {
            Some(Err(OutOfTime::Expired { ends_at, now })) => {
                let (ends_at, now) = (rfc3339(ends_at), rfc3339(now));
                let why = format!("the certificate that was just made ends at {ends_at}, and this machine's clock says {now}");
                return Err(Over::Expired(format!("{why}: set the clock, which is ahead")).into());
            }
            Some(Err(behind)) => return Err(ConnectError::from(behind).into()),
            _ => {}
        }
        let bundles = Bundles::default();
        bundles.set(first.trust().clone());
        let connection = Connection::new(&at, first.certified_key(), &first.bundle().x509_authorities)?;
        let (current, over) = (watch::Sender::new(Arc::new(first)), watch::Sender::new(None));
        let shared =
            Arc::new(Shared { at, connection, current, bundles, over, kept, extended: Notify::new(), tokens: Mutex::default() });
        let tasks = [tokio::spawn(tasks::renew(Arc::clone(&shared))), tokio::spawn(tasks::follow_bundle(Arc::clone(&shared)))];
        Ok(Identity { shared, tasks })
    }
}

/// Repeats a call a few times while the issuer does not answer.
pub(super) async fn insist<T, F>(ask: impl Fn() -> F) -> Result<T, IdentityError>
where
    F: Future<Output = Result<T, IdentityError>>,
{
    let mut failures = 0;
    loop {
        match ask().await {
            Err(e) if e.is_transient() && failures + 1 < TRIES => {}
            other => return other,
        }
        tokio::time::sleep(pace::CALLS.pause(failures, random::chance())).await;
        failures += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spawned<T: Send>(_: impl FnOnce() -> T) {}

    #[test]
    fn whatever_makes_an_identity_can_run_in_a_task_of_its_own() {
        fn any<T>() -> T {
            unreachable!("nothing is called")
        }
        spawned(|| async { Identity::redeem(any(), any()).await });
        spawned(|| async { Identity::attest(any(), any(), any(), any()).await });
        spawned(|| async { Identity::spawn(any(), any(), any()).await });
        spawned(|| async { Identity::take_over(any(), any()).await });
        spawned(|| async { any::<&Identity>().jwt(any()).await });
    }
}
