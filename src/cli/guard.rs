//! `mayfly guard`.

use std::net::SocketAddr;
use std::path::PathBuf;

use mayfly_agent::revocation::Freshness;
use mayfly_verify::BindingOid;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::connect;
use super::exit::Failure;
use super::global::Global;
use super::{output, serving};
use crate::config::LogFormat;
use crate::follow;
use crate::guard::address::{Address, Socket};
use crate::guard::crl::Crl;
use crate::guard::{Guard, health, metrics_only, routes, secrets, serve};
use crate::process;
use crate::sds::Sds;
use crate::telemetry;

/// Run beside a service, and tell it whether a credential is valid now, whose it is and what it allows
///
/// A guard follows the bundle and the feed of revocations with the identity of a workload, which it renews. Services ask it with
/// POST /verify. It is strict: if it has received no heartbeat for 5 seconds it refuses everything, and says so.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The guard's own identity: a folder that `mayfly redeem` has written
    #[arg(long = "as", value_name = "DIR")]
    identity: PathBuf,
    /// host:port of the issuer; by default that of the issuer in --home
    #[arg(long, value_name = "ADDRESS")]
    server: Option<String>,
    /// Where the guard listens: unix:PATH, or a loopback address
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9191")]
    listen: Address,
    /// Who may open a Unix socket: its mode, octal
    #[arg(long, value_name = "MODE", default_value = "0600", value_parser = mode)]
    socket_mode: u32,
    /// Also give the guard's own certificate and key to the Envoy on the Unix socket, by secret discovery (SDS): whoever can open
    /// the socket gets the key
    #[arg(long)]
    sds: bool,
    /// Keep the lists of revoked certificates in this folder: crl.pem with all of them, and one file for each CA
    #[arg(long, value_name = "DIR")]
    crl: Option<PathBuf>,
    /// With --crl: a line for the shell that has a server read the lists again, such as `nginx -s reload`. It has ten seconds
    #[arg(long, value_name = "COMMAND", requires = "crl")]
    reload: Option<String>,
    /// The URL of the issuer (`iss`), to accept its access tokens too and to say so to clients of OAuth
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// While no heartbeats arrive, accept credentials until they expire, and count them
    #[arg(long)]
    best_effort: bool,
    /// Serve /metrics, /healthz and /readyz at this address too, for clients that cannot open the socket
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
    /// OID of the binding, if the issuer is configured with another
    #[arg(long, default_value = "1.3.6.1.4.1.32473.1")]
    binding_oid: String,
}

fn mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777).ok_or_else(|| "a mode is octal, such as 0660".into())
}

/// T197: a socket that hands out the private key may be open to the guard's user and group, and never to all users of this machine.
fn private(args: &Args) -> Result<(), Failure> {
    match args.listen {
        Address::Tcp(_) => {
            Err(Failure::usage("`--sds` gives a private key away: let the guard listen on a Unix socket, unix:PATH"))
        }
        Address::Unix(_) if args.socket_mode & 0o007 != 0 => {
            Err(Failure::usage("`--sds` gives a private key away: `--socket-mode` must leave others out, such as 0660"))
        }
        Address::Unix(_) => Ok(()),
    }
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let oid: BindingOid = args.binding_oid.parse().map_err(|_| Failure::usage("`--binding-oid` is no OID"))?;
    if args.sds {
        private(&args)?;
    }
    telemetry::logs(LogFormat::Text, &std::env::var("MAYFLY_LOG").unwrap_or_else(|_| "warn".into()))?;
    // ORDER: the process is protected before there is a key in memory.
    process::begin()?;
    process::lock_memory();
    let metrics = telemetry::metrics()?;
    // ORDER: bound before the issuer is asked, so that an address in use is reported at once.
    let socket = args.listen.bind(args.socket_mode).await?;
    let more = match args.metrics {
        Some(address) => Some(TcpListener::bind(address).await.map_err(|e| format!("cannot listen on {address}: {e}"))?),
        None => None,
    };
    let freshness = if args.best_effort { Freshness::BestEffort } else { Freshness::default() };
    let settings = connect::settings(global, args.server.as_deref(), &args.identity)?;
    let trust_domain = settings.trust_domain.clone();
    let followed = follow::begin(settings, args.identity.clone(), freshness, None).await?;
    let live = followed.revocations.live().clone();
    let guard = Guard::new(followed.bundles.clone(), live, oid.clone(), args.best_effort, args.issuer.clone());
    let guard = guard.map_err(|_| "no random numbers can be had".to_owned())?;
    let (stop, stopping) = watch::channel(false);
    let (bundles, renewed) = (followed.bundles.clone(), followed.renewed.clone());
    let source = secrets::Source { dir: args.identity, trust_domain, bundles, renewed, oid };
    let (secrets, telling) = if args.sds {
        let (told, heard) = watch::channel(Some(source.read()?));
        // The socket's permissions decide who gets the key, so every peer is accepted.
        (Some(Sds::new(heard, |_| true)), Some(process::task("secrets of the guard", source.keep(told))))
    } else {
        (None, None)
    };
    // ORDER: the lists are written before the guard says that it is ready. A server refuses to start without its lists.
    let lists = match &args.crl {
        Some(dir) => {
            let (channel, live) = (followed.channel.clone(), followed.revocations.live().clone());
            let lists = Crl::begin(dir, channel, live, args.reload.as_deref()).await?;
            Some(process::task("lists of revoked certificates", lists.keep()))
        }
        None => None,
    };
    let (router, reporter) = routes(&guard, secrets, &metrics);
    let looking = process::task("health of the guard", health(guard.clone(), metrics.clone(), reporter));
    let address = socket.name();
    let more = more.map(|listener| {
        let router = metrics_only(&guard, &metrics);
        process::task("metrics of the guard", serve::serve(Socket::Tcp(listener), router, stopping.clone()))
    });
    let serving = process::task("guard", serve::serve(socket, router, stopping));
    output::print(global.output, &json!({ "listen": address }), || format!("the guard is ready on {address}; Ctrl-C stops it"))?;
    let requested = serving::requested().await;
    stop.send_replace(true);
    // ORDER: these tasks end before the connections drain. Their streams end with them.
    for task in [telling, lists].into_iter().flatten() {
        task.abort();
    }
    // A panic in either has ended the process already.
    let _ = serving.await;
    if let Some(more) = more {
        let _ = more.await;
    }
    looking.abort();
    drop(followed);
    requested
}
