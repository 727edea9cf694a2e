//! The peer of a connection: the certificates that it presented, its caller at each call, and the end of its connection when it is
//! revoked.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use http::HeaderMap;
use mayfly_agent::channel::USER_TOKEN as TOKEN;
use mayfly_verify::{Possession, sha256};
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use tokio::sync::{Notify, watch};

use crate::acts::{Issuer, user};
use crate::caller::{Caller, From, Origin, Proved};
use crate::denial::{Denial, No};
use crate::judge::access::Action;
use crate::judge::bound::Proved as Proof;

/// The other end of a connection. Each request carries it in its extensions.
#[derive(Clone, Debug)]
pub enum Peer {
    /// Over TLS.
    Tls(Arc<Connection>),
    /// Over the operator socket: a listed uid.
    Operator(u32),
    /// Over the operator socket: a uid that is listed as an auditor's.
    Auditor(u32),
}

/// The person whose token came with a request. A request carries it in its extensions.
#[derive(Clone, Debug)]
pub struct Person(pub Arc<Caller>);

/// A connection over TLS.
#[derive(Debug)]
pub struct Connection {
    /// The chain that the peer presented; empty if it presented none.
    pub chain: Vec<CertificateDer<'static>>,
    /// The journal's head when the connection was accepted.
    pub opened: u64,
    /// The address that it was accepted from.
    pub address: Option<IpAddr>,
    /// The identity in the chain, once it was verified. Empty before the first call.
    pub proved: OnceLock<Proved>,
    /// Notified when the peer is revoked.
    revoked: Notify,
}

impl Connection {
    /// A connection whose peer presented `chain`, accepted when the journal's head was `opened`.
    pub fn new(chain: Vec<CertificateDer<'static>>, opened: u64) -> Connection {
        Connection { chain, opened, address: None, proved: OnceLock::new(), revoked: Notify::new() }
    }

    /// The same, accepted from this address.
    pub fn at(self, address: IpAddr) -> Connection {
        Connection { address: Some(address), ..self }
    }

    /// Resolves when the peer is revoked.
    pub async fn revoked(&self) {
        self.revoked.notified().await;
    }
}

impl Peer {
    /// The origin of a request of `method` from this peer, for the history.
    pub fn origin(peer: Option<&Peer>, method: &'static str) -> Arc<Origin> {
        let from = match peer {
            Some(Peer::Tls(connection)) => connection.address.map(From::Address),
            Some(Peer::Operator(uid) | Peer::Auditor(uid)) => Some(From::Socket(*uid)),
            None => None,
        };
        Arc::new(Origin::new(method, from))
    }
}

impl Peer {
    /// The certificate that the peer has proved to hold, once its caller is known; empty if it has none.
    pub fn proved(peer: Option<&Peer>) -> Proof {
        let Some(Peer::Tls(connection)) = peer else { return Proof::default() };
        let Some((leaf, proved)) = connection.chain.first().zip(connection.proved.get()) else { return Proof::default() };
        let held = Possession { key: None, certificate: Some(sha256(leaf)) };
        Proof { held, certificate_ends_at: proved.ends_at() }
    }
}

/// The network of an address, for limits: the address itself in IPv4, and its first 64 bits in IPv6, because a host may have all
/// addresses with these.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::from((v6.to_bits() >> 64 << 64).to_be_bytes()),
        v4 => v4,
    }
}

/// The caller of a request. T21: without a peer, or without a certificate and a person's token, the caller is a stranger.
///
/// `person` comes from the token that was verified when the headers were read. T241: together with a certificate, or on the
/// operator socket, it would be a second caller, and is refused.
pub async fn caller(issuer: &Issuer, peer: Option<&Peer>, person: Option<&Caller>, action: Action) -> Result<Caller, No> {
    match peer {
        Some(Peer::Tls(connection)) if connection.chain.is_empty() => match person {
            Some(person) => Ok(issuer.person(person.clone(), action)?),
            None => Ok(Caller::Stranger),
        },
        _ if person.is_some() => Err(two_callers().into()),
        Some(Peer::Tls(connection)) => {
            let proved = prove(issuer, connection)?;
            issuer.prove_again(proved, &connection.chain)?;
            issuer.caller(proved, action).await
        }
        Some(Peer::Operator(uid)) => Ok(Caller::Operator { name: format!("uid:{uid}"), by: None }),
        Some(Peer::Auditor(uid)) => Ok(Caller::Auditor { name: format!("uid:{uid}"), by: None }),
        None => Ok(Caller::Stranger),
    }
}

/// The person whose token is in the metadata of a request. `None` without one.
///
/// T19: headers that a proxy may add, such as `authorization`, are no identity, so the token has a metadata key of its own.
pub async fn person(issuer: &Issuer, peer: &Peer, headers: &HeaderMap) -> Result<Option<Caller>, Denial> {
    let Some(value) = headers.get(TOKEN) else { return Ok(None) };
    // ORDER: before anything is verified, so that no work is done for a token that could not count.
    if !matches!(peer, Peer::Tls(connection) if connection.chain.is_empty()) {
        return Err(two_callers());
    }
    let token = value.to_str().ok().filter(|_| headers.get_all(TOKEN).iter().count() == 1);
    let malformed = || Denial::denied("USER_TOKEN_MALFORMED", "give one token in the metadata, as it was issued");
    user::operator(issuer, token.ok_or_else(malformed)?).await.map(Some)
}

/// The denial of a request with two of certificate, operator socket and token.
pub(super) fn two_callers() -> Denial {
    let message = "ask either as the identity of the connection, or by a user token on a connection without a certificate";
    Denial::malformed("TWO_CALLERS", message)
}

fn prove<'a>(issuer: &Issuer, connection: &'a Connection) -> Result<&'a Proved, Denial> {
    match connection.proved.get() {
        Some(proved) => Ok(proved),
        None => {
            // Only a chain that verifies is remembered: any other is verified again at the next call.
            let proved = issuer.prove(&connection.chain, connection.opened)?;
            Ok(connection.proved.get_or_init(|| proved))
        }
    }
}

/// The SPIFFE ID of a peer that may call something now. Returns `None` for any other peer. Its connection counts as a stranger's,
/// because anybody whom a foreign trust domain certifies completes the handshake too.
pub fn known(issuer: &Issuer, connection: &Connection) -> Option<Known> {
    let proved = (!connection.chain.is_empty()).then(|| prove(issuer, connection))?.ok()?;
    if issuer.is_over(proved) {
        return None;
    }
    let id: Arc<str> = proved.id().to_string().into();
    let root = issuer.root_of(proved.id()).map_or_else(|| Arc::clone(&id), Arc::from);
    Some(Known { id, root })
}

/// The identity to which the cost of a peer's connections is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its SPIFFE ID.
    pub id: Arc<str>,
    /// The SPIFFE ID of the workload at its root: its own, unless it is an agent.
    pub root: Arc<str>,
}

/// The open connections. One task checks all of them after each cut and closes those of revoked peers; a peer that has not called
/// yet is checked at its first call.
#[derive(Clone, Default)]
pub struct Guard(Arc<Open>);

#[derive(Default)]
struct Open {
    // Guards the open connections; held to add or remove one, or to copy the list.
    connections: Mutex<(u64, HashMap<u64, Arc<Connection>>)>,
}

/// A guarded connection; dropping it removes the connection from the list.
pub struct Guarded {
    open: Arc<Open>,
    number: u64,
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.open.connections.lock().1.remove(&self.number);
    }
}

impl Guard {
    /// Guards a connection for as long as the result lives.
    pub fn watch(&self, connection: &Arc<Connection>) -> Guarded {
        let mut connections = self.0.connections.lock();
        connections.0 += 1;
        let number = connections.0;
        connections.1.insert(number, Arc::clone(connection));
        Guarded { open: Arc::clone(&self.0), number }
    }

    /// Follows `cuts` until `stop`. The cuts are subscribed to before the first connection is accepted, so that none is missed.
    pub async fn follow(self, issuer: Arc<Issuer>, mut cuts: watch::Receiver<u64>, mut stop: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                changed = cuts.changed() => if changed.is_err() { return },
                _ = stop.wait_for(|stop| *stop) => return,
            }
            let open: Vec<_> = self.0.connections.lock().1.values().cloned().collect();
            for (n, connection) in open.iter().enumerate() {
                if connection.proved.get().is_some_and(|proved| issuer.is_over(proved)) {
                    connection.revoked.notify_one();
                }
                // Thousands of connections must not hold up the other tasks of this thread.
                if n % 64 == 63 {
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}
