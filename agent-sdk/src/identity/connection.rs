//! The channel to the issuer. Every new connection presents the newest certificate.

use std::sync::Arc;

use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use tokio::sync::{Mutex, watch};
use tonic::transport::Channel;

use super::Issuer;
use crate::channel::{Address, ChannelSettings, ConnectError, Dialer, Trust, following};
use crate::tls::CurrentIdentity;

/// INVARIANT: once a connection was made with a renewed certificate, none is made with its predecessor. The issuer would take
/// the predecessor for stolen and revoke the agent (DESIGN 4, generations).
pub(super) struct Connection {
    at: Issuer,
    shown: CurrentIdentity,
    /// Locked while a connection is made, and while its certificate or roots change.
    dialer: Arc<Mutex<Dialer>>,
    channel: watch::Sender<Channel>,
}

impl Connection {
    pub(super) fn new(at: &Issuer, certified: Arc<CertifiedKey>, roots: &[Vec<u8>]) -> Result<Connection, ConnectError> {
        let shown = CurrentIdentity::of(certified);
        let dialer = Arc::new(Mutex::new(dialer(at, &shown, roots)?));
        let channel = watch::Sender::new(following(&at.address, Arc::clone(&dialer))?);
        Ok(Connection { at: at.clone(), shown, dialer, channel })
    }

    /// The certificate that connections present, which follows every renewal.
    pub(super) fn shown(&self) -> CurrentIdentity {
        self.shown.clone()
    }

    /// The channel for the next call.
    pub(super) fn channel(&self) -> Channel {
        self.channel.borrow().clone()
    }

    /// The channel, and its replacement after each renewal.
    pub(super) fn watch(&self) -> watch::Receiver<Channel> {
        self.channel.subscribe()
    }

    /// Presents this certificate and trusts these roots from the next connection on, and replaces the channel. `publish` is called
    /// before any connection is made with it.
    pub(super) async fn show(
        &self,
        certified: Arc<CertifiedKey>,
        roots: &[Vec<u8>],
        publish: impl FnOnce(),
    ) -> Result<(), ConnectError> {
        let next = dialer(&self.at, &self.shown, roots)?;
        let channel = following(&self.at.address, Arc::clone(&self.dialer))?;
        let mut dialer = self.dialer.lock().await;
        self.shown.show(certified);
        *dialer = next;
        self.channel.send_replace(channel);
        // ORDER: under the lock, without which nothing connects. A program under `mayfly run` that finds its certificate still published
        // after its handshake knows that the next one has not been used.
        publish();
        Ok(())
    }

    /// Trusts these roots from the next connection on. An open connection stays open.
    pub(super) async fn believe(&self, roots: &[Vec<u8>]) -> Result<(), ConnectError> {
        *self.dialer.lock().await = dialer(&self.at, &self.shown, roots)?;
        Ok(())
    }
}

fn dialer(at: &Issuer, shown: &CurrentIdentity, roots: &[Vec<u8>]) -> Result<Dialer, ConnectError> {
    let settings = ChannelSettings {
        address: at.address.clone(),
        trust_domain: at.trust_domain.clone(),
        trust: Trust::Roots(roots.iter().cloned().map(CertificateDer::from).collect()),
        identity: None,
        connect_timeout: at.connect_timeout,
    };
    Dialer::new(Address::parse(&at.address)?, settings, Some(shown.clone()))
}
