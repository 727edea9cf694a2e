//! One connection to a TLS listener: its handshake, its place, and its service until it ends.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use tokio::io::BufWriter;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::activity::Times;
use super::budget::Payer;
use super::frames::Metered;
use super::gate::{Gate, Stranger};
use super::life::{self, Closing};
use super::places::{Places, Seat};
use super::settings;
use super::turns::Turns;
use super::{Apart, Behind, Bounds, CUT_DRAIN, Full};
use crate::clock::Clock;
use crate::denial::{Denial, Kind};
use crate::doors::peer::{self, Connection, Peer};
use crate::doors::{grpc, status};

/// How long a peer beyond the limit may take to send a request, so that it can be told the reason.
const TELL: Duration = Duration::from_secs(2);

/// A TLS listener's parts that all of its connections use.
#[derive(Clone)]
pub(super) struct Listening {
    pub(super) gate: Gate,
    pub(super) behind: Option<Behind>,
    pub(super) places: Places,
    pub(super) turns: Turns,
    pub(super) apart: Apart,
    pub(super) clock: Clock,
    pub(super) bounds: Bounds,
}

/// An accepted connection.
pub(super) struct Incoming {
    pub(super) stream: TcpStream,
    pub(super) network: IpAddr,
    pub(super) address: IpAddr,
    /// The journal's head when it was accepted.
    pub(super) opened: u64,
    pub(super) seat: Seat,
    pub(super) acceptor: TlsAcceptor,
}

impl Listening {
    /// Serves a connection until it ends, or for a while after `stop`.
    pub(super) async fn serve(self, incoming: Incoming, mut stop: watch::Receiver<bool>) {
        let Incoming { stream, network, address, opened, seat, acceptor } = incoming;
        let handshake = self.turns.paced(network, acceptor.accept(stream));
        let accepted = tokio::select! {
            accepted = tokio::time::timeout(self.bounds.handshake, handshake) => accepted,
            why = seat.activity.ended() => return refused(why),
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let tls = match accepted {
            Ok(Ok(tls)) => tls,
            Ok(Err(_)) => return refused("tls"),
            Err(_) => return refused("slow"),
        };
        let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
        let chain = chain.iter().map(|c| c.clone().into_owned()).collect();
        let peer = Arc::new(Connection::new(chain, opened).at(address));
        // A peer whose identity may not call anything counts as a stranger for the limits.
        let known = self.behind.as_ref().and_then(|behind| peer::known(&behind.issuer, &peer));
        let seated = known.as_ref().map_or_else(|| seat.stranger(), |known| seat.certified(known));
        if let Err(full) = seated {
            return tell(tls, full, self.bounds, stop).await;
        }
        let payer = known.map_or(Payer::Stranger(network), |known| Payer::Known(known.id));
        if payer.is_stranger() {
            let apart = self.apart.clone();
            apart.run(async move { self.run(tls, peer, payer, &seat, stop).await }).await;
        } else {
            self.run(tls, peer, payer, &seat, stop).await;
        }
    }

    async fn run(
        &self,
        tls: TlsStream<TcpStream>,
        peer: Arc<Connection>,
        payer: Payer,
        seat: &Seat,
        stop: watch::Receiver<bool>,
    ) {
        let (bounds, stranger) = (self.bounds, payer.is_stranger());
        let _guarded = self.behind.as_ref().map(|behind| behind.guard.watch(&peer));
        let watched = stranger.then(|| Stranger { activity: Arc::clone(&seat.activity) });
        let service = self.gate.clone().service(Peer::Tls(Arc::clone(&peer)), payer, watched);
        let tls = BufWriter::with_capacity(settings::written(stranger), Metered::new(tls, Arc::clone(&seat.activity)));
        let builder = settings::http(bounds, stranger);
        let connection = builder.serve_connection(TokioIo::new(tls), service);
        let times = Times { first: bounds.first, idle: bounds.idle, unread: bounds.unread, life: bounds.age };
        let closes = async {
            tokio::select! {
                () = life::expiry(&peer.chain, &self.clock) => Closing::Expired(bounds.drain),
                // This time is just enough for the peer to get the reason.
                () = peer.revoked() => Closing::Ended(CUT_DRAIN, "revoked"),
                why = seat.activity.ended() => Closing::Ended(CUT_DRAIN, why),
                why = seat.activity.over(stranger, times) => Closing::Ended(CUT_DRAIN, why),
            }
        };
        life::serve(connection, closes, stop, bounds.drain).await;
    }
}

/// Answers the requests of a peer beyond the limit with the reason, and closes the connection after the first.
async fn tell(tls: TlsStream<TcpStream>, full: Full, bounds: Bounds, stop: watch::Receiver<bool>) {
    let (reason, message) = match full {
        Full::All => ("full", "the issuer has as many connections as it may: try again later, or ask its operator for more"),
        Full::Identity => ("identity", "this identity has as many connections as one may: use one connection for many calls"),
    };
    refused(reason);
    let told = Notify::new();
    let service = hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| {
        told.notify_one();
        let method = grpc::find(request.uri().path()).map_or(grpc::OTHER, |method| method.name);
        let denial = Denial::new(Kind::Exhausted, "CONNECTIONS_FULL", message);
        let response = status::refusal(&denial.into(), method, Instant::now());
        std::future::ready(Ok::<_, std::convert::Infallible>(response))
    });
    let builder = settings::http(bounds, true);
    let stream = BufWriter::with_capacity(settings::written(true), tls);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let closes = async {
        let _ = tokio::time::timeout(TELL, told.notified()).await;
        Closing::Ended(CUT_DRAIN, "full")
    };
    life::serve(connection, closes, stop, CUT_DRAIN).await;
}

/// Counts a connection that is refused.
pub(super) fn refused(reason: &'static str) {
    metrics::counter!("mayfly_connections_refused_total", "reason" => reason).increment(1);
}
