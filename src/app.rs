//! Builds everything once, runs it, and takes it down in order.

pub mod files;
mod https;
mod joined;
mod standard;
mod tls;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mayfly_verify::Workload;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, watch};

use crate::acts::rotate::Rotation;
use crate::acts::{Issuer, Throttle, configure, inspect, revoke};
use crate::assertion::{Assertions, Attestations, AudienceSettings, IssuerSettings};
use crate::authority::{Authority, Seal};
use crate::clock::Clock;
use crate::config::{BundleEndpoint, Config};
use crate::dev::provider;
use crate::doors::{self, bundle, grpc, http, peer};
use crate::foreign::Foreign;
use crate::home::{Beats, Endpoint, Home};
use crate::journal::sqlite::Sqlite;
use crate::judge::Rules;
use crate::keys::keystore::Keystore;
use crate::ledger::{self, Bounds, Ledger, replay};
use crate::listen;
use crate::pipeline::Pipeline;
use crate::process;
use crate::publish::Publisher;
use crate::publish::crl::Crls;
use crate::publish::feed::{self, Feed};
use crate::telemetry;

/// A running issuer.
pub struct Running {
    /// Where it is.
    pub endpoint: Endpoint,
    /// The core, for what runs in the same process.
    pub issuer: Arc<Issuer>,
    ready: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    watermark: ledger::Keeper,
    _home: Home,
}

/// Starts an issuer. `development` adds the OpenID provider and a joined workload, and marks home and root.
pub async fn start(mut config: Config, development: bool, clock: Clock) -> Result<Running, String> {
    let metrics = telemetry::metrics()?;
    let home = Home::open(&config.home)?;
    check_mark(&home.dir, development)?;
    let before = crate::home::endpoint(&home.dir).ok();

    // Ports are chosen once and kept, so that what was pasted yesterday works today.
    let grpc_listener = bind(config.listen, before.as_ref().map(|e| e.grpc.as_str())).await?;
    let http_listener = bind(config.http, before.as_ref().map(|e| e.http.as_str())).await?;
    let local = |l: &TcpListener| l.local_addr().map_err(|e| e.to_string());
    let grpc_at = local(&grpc_listener)?;
    let files = files::raise();
    let shares = listen::Shares::of(&config.bounds, files);
    if shares.total < config.bounds.connections {
        let (places, wanted) = (shares.total, config.bounds.connections);
        tracing::warn!(places, wanted, files, "the limit on open files allows fewer connections than `server.max_connections`");
    }
    let (stop, stopped) = watch::channel(false);
    let (ready, is_ready) = watch::channel(false);
    let mut tasks = Vec::new();

    let bundle_at = match (&config.bundle_endpoint, development) {
        (Some(at), _) => Some(at.clone()),
        (None, true) => Some(BundleEndpoint { listen: SocketAddr::from(([127, 0, 0, 1], 0)), web: None }),
        (None, false) => None,
    };
    let bundle_listener = match bundle_at {
        Some(at) => {
            let shows = match at.web {
                Some((certificate, key)) => tls::Shows::Web(certificate, key),
                None => tls::Shows::Svid(config.names.clone()),
            };
            Some((bind(at.listen, before.as_ref().and_then(|e| e.bundle.as_deref()?.strip_suffix('/'))).await?, shows))
        }
        None => None,
    };
    let https = https::bind_https(&config, development, before.as_ref()).await?;
    let host = if development { "127.0.0.1" } else { config.names.first().map_or("localhost", String::as_str) };
    let iss = https::issuer(&config.https, https.as_ref(), host, config.trust_domain.as_str());
    let mut endpoint = Endpoint {
        trust_domain: config.trust_domain.to_string(),
        grpc: format!("{host}:{}", grpc_at.port()),
        bundle: bundle_listener.as_ref().map(|(l, _)| local(l)).transpose()?.map(|at| format!("https://{host}:{}/", at.port())),
        http: local(&http_listener)?.to_string(),
        socket: config.socket.clone().unwrap_or_else(|| home.dir.join("operator.sock")),
        https_issuer: https.is_some().then(|| iss.clone()),
        https: https.as_ref().map(|bound| format!("{host}:{}", bound.port)),
        https_ca: None,
        oidc: None,
        oidc_ca: None,
        issuers: BTreeMap::new(),
    };
    if development {
        let known = before.as_ref().and_then(|e| e.oidc.as_deref()).and_then(|url| url.strip_prefix("https://"));
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0)), known).await?;
        let made = provider::Provider::start(&home.dir.join("provider"), listener).await;
        let made = made.map_err(|e| format!("development provider: {e}"))?;
        config.issuers.push(IssuerSettings {
            ca_file: Some(made.ca_file().to_owned()),
            audiences: vec![
                AudienceSettings {
                    audience: provider::AUDIENCE.into(),
                    workloads: spawners(&config),
                    scopes: None,
                    max_lease: None,
                    revokes: false,
                },
                AudienceSettings {
                    audience: provider::REVOKES.into(),
                    workloads: Vec::new(),
                    scopes: None,
                    max_lease: None,
                    revokes: true,
                },
            ],
            max_age: Duration::from_secs(24 * 3600),
            ..IssuerSettings::new("dev", made.issuer())
        });
        endpoint.oidc = Some(made.issuer().to_owned());
        endpoint.oidc_ca = Some(made.ca_file().to_owned());
        let mut stopping = stopped.clone();
        tasks.push(process::task("development provider", async move {
            let _ = stopping.wait_for(|s| *s).await;
            made.shutdown().await;
        }));
    }
    endpoint.issuers = config.issuers.iter().map(|i| (i.name.clone(), i.issuer.clone())).collect();

    // From here on probes are answered: alive, and not ready before everything is loaded (T69).
    let monitor = http::router(metrics.clone(), is_ready);
    let serving = listen::serve_local(http_listener, monitor, config.bounds, stopped.clone());
    tasks.push(process::task("metrics and health", serving));

    let listed = spawners(&config).into_iter().filter_map(|w| if let Workload::Foreign(id) = w { Some(id) } else { None });
    let foreign = Foreign::open(&config.foreign, listed, &home.dir.join("foreign"), &clock)?;
    let keystore = Keystore::open(&home.dir.join("keys")).map_err(|e| e.to_string())?;
    let (td, root) = (&config.trust_domain, config.root.as_ref());
    let authority = Authority::open(keystore, td, &config.oid, root, development, clock.seconds());
    let authority = Arc::new(authority.map_err(|e| e.to_string())?);
    let (told, heard) = feed::line();
    let (ledger, watermark) = open_ledger(&config, &home, &authority, &clock, told)?;
    configure::configure(&ledger, config.digest()).map_err(|e| e.to_string())?;
    let schedule = config.schedule(authority.root_ends_at());
    let rotation = Rotation { ledger: ledger.clone(), authority: Arc::clone(&authority), schedule, clock: clock.clone() };
    rotation.begin()?;
    let publisher = Publisher::start(&ledger, &authority, config.refresh).map_err(|e| e.to_string())?;
    let seal = Seal::new(Arc::clone(&authority), iss.clone());
    let (rejoin, rejoining) = mpsc::channel(1);
    let issuer = Arc::new(Issuer {
        trust_domain: config.trust_domain.clone(),
        pipeline: Pipeline::start(&ledger, seal, config.queue, 2).map_err(|e| e.to_string())?,
        assertions: Assertions::new(config.issuers.clone()).map_err(|e| e.to_string())?,
        attestations: Attestations::new(config.workload_issuers.clone(), config.attest.clone()).map_err(|e| e.to_string())?,
        rotator: rotation.start(publisher.clone())?,
        publisher: publisher.clone(),
        crls: Crls::new(&ledger, &authority, &clock),
        feed: Feed::start(&ledger, &authority, clock.clone(), heard).map_err(|e| e.to_string())?,
        ledger: ledger.clone(),
        backups: home.backups(),
        authority: Arc::clone(&authority),
        foreign: Arc::clone(&foreign),
        pages: inspect::Pages::new().map_err(|e| e.to_string())?,
        throttle: Throttle::new(config.writes.clone()),
        rejoin: development.then_some(rejoin),
        providers: endpoint.issuers.clone(),
        counting: revoke::Counting::default(),
        clock: clock.clone(),
        address: endpoint.grpc.clone(),
    });

    let routes = grpc::routes(Arc::clone(&issuer), config.bounds.message, config.bounds.request, stopped.clone());
    let (routes, stopping) = standard::add(routes, config.reflection, config.bounds.message, stopped.clone()).await?;
    tasks.push(stopping);
    let router = routes.into_axum_router();
    let tls = || tls::Tls {
        authority: Arc::clone(&authority),
        publisher: publisher.clone(),
        foreign: Arc::clone(&foreign),
        clock: clock.clone(),
    };
    let (current_tls, renewing) = tls().keep(tls::Shows::Mutual(config.names.clone()), stopped.clone())?;
    tasks.push(renewing);
    // ORDER: after those who follow its changes.
    tasks.extend(foreign.keep(&stopped));
    let guard = peer::Guard::default();
    tasks.push(process::task(
        "guard of connections",
        guard.clone().follow(Arc::clone(&issuer), issuer.feed.cuts(), stopped.clone()),
    ));
    let serving = listen::serve_tls(
        grpc_listener,
        current_tls,
        router.clone(),
        listen::Serves::Peers(listen::Behind { issuer: Arc::clone(&issuer), guard }),
        clock.clone(),
        (config.bounds, shares),
        stopped.clone(),
    );
    tasks.push(process::task("listener", serving));
    let socket = operator_socket(&endpoint.socket)?;
    let uids = config.uids.clone().unwrap_or_else(|| vec![own_uid(&home.dir)]);
    let serving = listen::serve_operators(socket, uids, router, Arc::clone(&issuer), config.bounds, stopped.clone());
    tasks.push(process::task("operator socket", serving));
    tasks.push(process::task("upkeep of metrics", every(Duration::from_secs(5), stopped.clone(), move || metrics.run_upkeep())));
    let public = |name, listener, shows, router, shares| -> Result<[tokio::task::JoinHandle<()>; 2], String> {
        let (config_of_tls, renewing) = tls().keep(shows, stopped.clone())?;
        let (serves, bounds) = (listen::Serves::Strangers(name), (config.bounds, shares));
        let serving = listen::serve_tls(listener, config_of_tls, router, serves, clock.clone(), bounds, stopped.clone());
        Ok([renewing, process::task(name, serving)])
    };
    if let Some((listener, shows)) = bundle_listener {
        tasks.extend(public("bundle", listener, shows, bundle::router(publisher.clone()), listen::Shares::bundle())?);
    }
    if let Some(bound) = https {
        if config.https.web.is_none() {
            endpoint.https_ca = Some(https::write_ca(&home.dir, &authority)?);
        }
        let about = doors::https::Issuer { url: iss, binding_claim: config.oid.claim(), refresh: config.refresh };
        let router = doors::https::router(&about, &publisher, &issuer.crls);
        tasks.extend(public("https", bound.listener, bound.shows, router, listen::Shares::https())?);
    }
    if development {
        let dir = home.dir.join("workloads").join("orchestrator");
        joined::join(&issuer, &dir).await?;
        let joined = joined::keep_joined(Arc::clone(&issuer), dir, config.workload_ttl, rejoining, stopped);
        tasks.push(process::task("development workload", joined));
    }
    home.announce(&endpoint)?;
    let _ = ready.send(true);
    tracing::info!(trust_domain = %endpoint.trust_domain, grpc = %endpoint.grpc, "ready");
    Ok(Running { endpoint, issuer, ready, stop, tasks, watermark, _home: home })
}

impl Running {
    /// Stops: no longer ready, no new connections, open requests end, the ledger last.
    pub async fn stop(self) {
        let _ = self.ready.send(false);
        let _ = self.stop.send(true);
        for task in self.tasks {
            let _ = task.await;
        }
        let (ledger, watermark) = (self.issuer.ledger.clone(), self.watermark);
        let _ = tokio::task::spawn_blocking(move || {
            ledger.stop();
            drop(watermark);
        })
        .await;
        tracing::info!("stopped");
    }
}

fn open_ledger(
    config: &Config,
    home: &Home,
    authority: &Arc<Authority>,
    clock: &Clock,
    feed: feed::Told,
) -> Result<(Ledger, ledger::Keeper), String> {
    let beats = Beats {
        path: home.dir.join("heartbeat.json"),
        authority: Arc::clone(authority),
        trust_domain: config.trust_domain.clone(),
        last: None,
    };
    let last = beats.read()?;
    if last.is_some() && !home.journal().exists() {
        return Err("this home has signed before and its journal is gone: restore one with `mayfly backup restore`".into());
    }
    let mut journal = Sqlite::open(&home.journal(), config.journal_max)?;
    let rules = Rules {
        trust_domain: config.trust_domain.clone(),
        classes: config.classes.clone(),
        audiences: config.audiences.clone(),
        workloads: config.workloads.clone(),
        issuers: config.issuers.iter().map(|issuer| (issuer.issuer.clone(), issuer.name.clone())).collect(),
        operators: config.operators.clone(),
        limits: config.limits.clone(),
        workload_ttl: config.workload_ttl,
        jwt_ttl: config.jwt_ttl,
        publish_ahead: config.schedule(0).ahead,
        taken_back: config.taken_back,
    };
    let bounds = Bounds { batch: config.batch };
    let fatal = Box::new(|cause: &str| {
        tracing::error!(%cause, "the journal failed: stopping, so that the next start replays what is durable");
        std::process::exit(74);
    });
    let state = replay(&mut journal).map_err(|e| e.to_string())?;
    // ORDER: before the watermark is written anew, which would hide what this one says.
    if let Some((incarnation, head)) = last
        && (state.incarnation != incarnation || state.revision < head)
    {
        return Err(format!(
            "the journal is at revision {} and this issuer has signed up to {head}: somebody put an older copy in its place. \
             Use `mayfly backup restore`, which revokes what came after it",
            state.revision
        ));
    }
    let ledger = Ledger::open(Box::new(journal), state, rules, bounds, clock.clone(), Box::new(feed), fatal);
    let ledger = ledger.map_err(|e| e.to_string())?;
    let watermark = ledger::keep_watermark(ledger.clone(), Box::new(beats), clock.clone())?;
    Ok((ledger, watermark))
}

/// Binds an address; where it leaves the port open, the one from before if it is still free.
async fn bind(address: SocketAddr, before: Option<&str>) -> Result<TcpListener, String> {
    if address.port() == 0
        && let Some(port) = before.and_then(|b| b.rsplit_once(':')).and_then(|(_, port)| port.parse().ok())
        && let Ok(listener) = TcpListener::bind(SocketAddr::new(address.ip(), port)).await
    {
        return Ok(listener);
    }
    TcpListener::bind(address).await.map_err(|e| format!("cannot listen on {address}: {e}"))
}

fn operator_socket(path: &Path) -> Result<UnixListener, String> {
    let text = |e: std::io::Error| format!("operator socket `{}`: {e}", path.display());
    // The home's lock is ours: a socket that lies here is of a process that has gone.
    match std::fs::symlink_metadata(path) {
        Ok(m) if std::os::unix::fs::FileTypeExt::is_socket(&m.file_type()) => std::fs::remove_file(path).map_err(text)?,
        Ok(_) => return Err(format!("operator socket `{}`: something else is there", path.display())),
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(text)?;
    // Who may connect is decided by uid; others need not even reach it.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).map_err(text)?;
    Ok(listener)
}

// Where the system does not tell: the home was made by this process or one of the same uid.
fn own_uid(home: &Path) -> u32 {
    process::uid().unwrap_or_else(|| std::fs::metadata(home).map_or(0, |m| m.uid()))
}

/// A development home stays one, and a real one never becomes one.
fn check_mark(dir: &Path, development: bool) -> Result<(), String> {
    let mark = dir.join("DEVELOPMENT");
    match (mark.exists(), development) {
        (true, false) => Err(format!("`{}` is a development home: `serve` needs one of its own", dir.display())),
        (false, true) if dir.join("keys").exists() => Err(format!("`{}` is not a development home", dir.display())),
        (false, true) => {
            std::fs::write(&mark, "Made by `mayfly dev`. Nothing here is for production.\n").map_err(|e| e.to_string())
        }
        _ => Ok(()),
    }
}

/// Every workload of ours, and every foreign one that some class lists.
fn spawners(config: &Config) -> Vec<Workload> {
    let foreign = config.classes.values().flat_map(|class| &class.workloads).filter(|w| matches!(w, Workload::Foreign(_)));
    config.workloads.iter().cloned().map(Workload::Own).chain(foreign.cloned()).collect()
}

async fn every(period: Duration, mut stop: watch::Receiver<bool>, act: impl Fn()) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(period) => act(),
            _ = stop.wait_for(|s| *s) => return,
        }
    }
}
