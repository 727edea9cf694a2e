//! Limits the connections of a listener: how many there may be of each kind, from one network and of one identity, and which one is
//! closed to make room for another. A connection has a *place* while it counts.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use super::activity::Activity;
use super::{Bounds, Full};
use crate::doors::peer::Known;

/// Most connections to the operator socket, to the listener of metrics and health, to the bundle endpoint and to the HTTPS
/// listener.
pub(super) const OPERATORS: usize = 64;
pub(super) const MONITORS: usize = 64;
const BUNDLE: usize = 256;
const HTTPS: usize = 256;

/// Open files for other purposes than connections of clients: the journal, the log, and outgoing connections.
const OTHER_FILES: usize = 128;

/// The limits of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// All together, without handshakes.
    pub total: usize,
    /// Of strangers together.
    pub strangers: usize,
    /// Connections of strangers from one network.
    pub network: usize,
    /// Of one identity.
    pub identity: usize,
    /// Connections in their handshake; one network may have half of them.
    pub handshakes: usize,
}

impl Shares {
    /// The limits of the gRPC listener, in a process that may open `files` files.
    pub fn of(bounds: &Bounds, files: usize) -> Shares {
        let left = files.saturating_sub(OPERATORS + MONITORS + BUNDLE + HTTPS + OTHER_FILES);
        // Handshakes count twice, because a connection that is being closed holds its file for a moment longer.
        let fits = if left >= 3 * 2048 { left - 2048 } else { (left / 3 * 2).min(left.saturating_sub(128)) };
        let total = bounds.connections.min(fits).max(4);
        let strangers = (total / 4).max(1);
        Shares {
            total,
            strangers,
            network: bounds.per_address.unwrap_or((strangers / 2).max(64)).min(strangers),
            identity: bounds.per_identity.unwrap_or((total / 8).max(64)).min(total),
            handshakes: (total / 4).clamp(64, 1024),
        }
    }

    /// The limits of the bundle endpoint, which serves strangers only.
    pub fn bundle() -> Shares {
        Shares::strangers(BUNDLE)
    }

    /// The limits of the HTTPS listener, which serves strangers only. One network may have half of them.
    pub fn https() -> Shares {
        Shares { network: HTTPS / 2, ..Shares::strangers(HTTPS) }
    }

    /// The limits of a listener that serves strangers only.
    pub(super) fn strangers(all: usize) -> Shares {
        Shares { total: all, strangers: all, network: all, identity: 0, handshakes: all }
    }

    /// Files that the listener may hold open.
    pub(super) fn files(&self) -> usize {
        self.total + 2 * self.handshakes
    }

    /// Streams that strangers may keep open together.
    pub(super) fn streams(&self) -> usize {
        (self.strangers / 16).max(4)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Handshake,
    Stranger,
    Certified,
}

/// The places of one listener. Clones share them.
#[derive(Clone)]
pub(super) struct Places(Arc<Shared>);

struct Shared {
    shares: Shares,
    /// The name of this listener in metrics. `None` for the gRPC listener, whose connections are counted by kind.
    listener: Option<&'static str>,
    // Guards the table of connections; held to add or remove one, and to find the idlest stranger.
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    next: u64,
    seats: HashMap<u64, Seated>,
    kinds: HashMap<Kind, usize>,
    networks: HashMap<(Kind, IpAddr), usize>,
    identities: HashMap<Arc<str>, usize>,
    roots: HashMap<Arc<str>, usize>,
}

struct Seated {
    kind: Kind,
    network: IpAddr,
    known: Option<Known>,
    activity: Arc<Activity>,
}

impl Places {
    pub(super) fn new(shares: Shares, listener: Option<&'static str>) -> Places {
        let places = Places(Arc::new(Shared { shares, listener, table: Mutex::default() }));
        places.tell(&places.0.table.lock());
        places
    }

    /// Adds a connection whose handshake begins. If there are too many handshakes the oldest one is ended, or the oldest of the
    /// same network if that is at its limit. So a client that finishes its handshake quickly is always admitted.
    pub(super) fn begin(&self, network: IpAddr) -> Seat {
        let (activity, shares) = (Arc::new(Activity::new()), self.0.shares);
        let mut table = self.0.table.lock();
        if table.of(Kind::Handshake, network) >= (shares.handshakes / 2).max(1) {
            table.end_idlest(Kind::Handshake, Some(network));
        } else if table.all(Kind::Handshake) >= shares.handshakes {
            table.end_idlest(Kind::Handshake, None);
        }
        let number = table.next;
        table.next += 1;
        table.add(number, Seated { kind: Kind::Handshake, network, known: None, activity: Arc::clone(&activity) });
        self.tell(&table);
        Seat { places: self.clone(), number, network, activity }
    }

    fn tell(&self, table: &Table) {
        let gauge = |kind: &'static str, n: usize| metrics::gauge!("mayfly_connections", "kind" => kind).set(figure(n));
        let (strangers, certified) = (table.all(Kind::Stranger), table.all(Kind::Certified));
        if let Some(listener) = self.0.listener {
            return gauge(listener, strangers);
        }
        gauge("handshake", table.all(Kind::Handshake));
        gauge("stranger", strangers);
        gauge("certified", certified);
        let shares = self.0.shares;
        let left = |kind: &'static str, n: usize| metrics::gauge!("mayfly_connection_places", "kind" => kind).set(figure(n));
        left("stranger", shares.strangers.saturating_sub(strangers));
        left("certified", shares.total.saturating_sub(certified));
        left("handshake", shares.handshakes.saturating_sub(table.all(Kind::Handshake)));
    }
}

fn figure(n: usize) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}

/// One counted connection. Dropping it makes room for another.
pub(super) struct Seat {
    places: Places,
    number: u64,
    network: IpAddr,
    /// The activity on the connection.
    pub(super) activity: Arc<Activity>,
}

impl Seat {
    /// Called when the handshake is done and the peer has no identity. If strangers, or those of its network, are at their limit,
    /// the idlest of them is ended.
    pub(super) fn stranger(&self) -> Result<(), Full> {
        let shares = self.places.0.shares;
        let mut table = self.places.0.table.lock();
        if table.of(Kind::Stranger, self.network) >= shares.network {
            table.end_idlest(Kind::Stranger, Some(self.network));
        } else if table.all(Kind::Stranger) >= shares.strangers {
            table.end_idlest(Kind::Stranger, None);
        }
        // Peers with an identity may have taken all connections.
        if table.taken() >= shares.total && !table.end_idlest(Kind::Stranger, None) {
            return Err(Full::All);
        }
        if table.remove(self.number).is_some() {
            table.add(self.number, self.seated(Kind::Stranger, None));
        }
        self.places.tell(&table);
        Ok(())
    }

    /// Called when the handshake is done and the peer has an identity. If needed, the idlest stranger is ended to make room. If the
    /// peer cannot be admitted, its connection still counts as a handshake.
    ///
    /// A tree of agents can get any number of identities. So when all connections are taken, the idlest connection of the root that
    /// has the most is ended for a root that has fewer.
    pub(super) fn certified(&self, known: &Known) -> Result<(), Full> {
        let shares = self.places.0.shares;
        let mut table = self.places.0.table.lock();
        if table.identities.get(&known.id).is_some_and(|n| *n >= shares.identity) {
            return Err(Full::Identity);
        }
        if table.taken() >= shares.total && !table.end_idlest(Kind::Stranger, None) && !table.end_of_greediest(&known.root) {
            return Err(Full::All);
        }
        if table.remove(self.number).is_some() {
            table.add(self.number, self.seated(Kind::Certified, Some(known.clone())));
        }
        self.places.tell(&table);
        Ok(())
    }

    fn seated(&self, kind: Kind, known: Option<Known>) -> Seated {
        Seated { kind, network: self.network, known, activity: Arc::clone(&self.activity) }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self.places.0.table.lock();
        // It is missing if this connection was ended to make room.
        table.remove(self.number);
        self.places.tell(&table);
    }
}

impl Table {
    fn all(&self, kind: Kind) -> usize {
        self.kinds.get(&kind).copied().unwrap_or(0)
    }

    fn of(&self, kind: Kind, network: IpAddr) -> usize {
        self.networks.get(&(kind, network)).copied().unwrap_or(0)
    }

    fn taken(&self) -> usize {
        self.all(Kind::Stranger) + self.all(Kind::Certified)
    }

    fn add(&mut self, number: u64, seated: Seated) {
        *self.kinds.entry(seated.kind).or_default() += 1;
        *self.networks.entry((seated.kind, seated.network)).or_default() += 1;
        if let Some(known) = &seated.known {
            *self.identities.entry(Arc::clone(&known.id)).or_default() += 1;
            *self.roots.entry(Arc::clone(&known.root)).or_default() += 1;
        }
        self.seats.insert(number, seated);
    }

    fn remove(&mut self, number: u64) -> Option<Seated> {
        let seated = self.seats.remove(&number)?;
        one_less(&mut self.kinds, &seated.kind);
        one_less(&mut self.networks, &(seated.kind, seated.network));
        if let Some(known) = &seated.known {
            one_less(&mut self.identities, &known.id);
            one_less(&mut self.roots, &known.root);
        }
        Some(seated)
    }

    /// Ends the idlest connection of a kind, from one network or from any. Returns whether there was one.
    fn end_idlest(&mut self, kind: Kind, network: Option<IpAddr>) -> bool {
        self.end_idlest_of(|seated| seated.kind == kind && network.is_none_or(|network| seated.network == network))
    }

    /// Ends the idlest connection of the root that has the most, if it has more than `root` would have with one more. Returns
    /// whether it did.
    fn end_of_greediest(&mut self, root: &Arc<str>) -> bool {
        let own = self.roots.get(root).copied().unwrap_or(0);
        let Some((greediest, most)) = self.roots.iter().max_by_key(|(_, n)| **n).map(|(root, n)| (Arc::clone(root), *n)) else {
            return false;
        };
        most > own + 1 && self.end_idlest_of(|seated| seated.known.as_ref().is_some_and(|known| known.root == greediest))
    }

    fn end_idlest_of(&mut self, is: impl Fn(&Seated) -> bool) -> bool {
        let among = self.seats.iter().filter(|(_, seated)| is(seated));
        let idlest = among.min_by_key(|(number, seated)| (seated.activity.rank(), **number)).map(|(number, _)| *number);
        let Some(seated) = idlest.and_then(|number| self.remove(number)) else { return false };
        seated.activity.end("full");
        true
    }
}

fn one_less<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(n) = counts.get_mut(key) {
        *n -= 1;
        if *n == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
#[path = "places/tests.rs"]
mod tests;
