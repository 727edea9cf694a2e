//! Builds everything once, runs it, and shuts it down in order.

mod check;
pub mod files;
mod gauges;
mod history;
mod https;
mod joined;
mod mark;
mod opened;
mod ready;
mod reload;
mod sockets;
mod standard;
mod tls;
mod users;
mod witnessed;

pub use check::unusable;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use mayfly_agent::proofs::Proofs;
use tokio::sync::{mpsc, watch};

use crate::acts::asking::Explaining;
use crate::acts::rotate::Rotation;
use crate::acts::status::{Health, Ready};
use crate::acts::{Configuration, Issuer, KeptPolicies, Throttle, configure, inspect, ping, reach, revoke};
use crate::authority::{Authority, Seal};
use crate::caller::Caller;
use crate::clock::Clock;
use crate::config::{BundleEndpoint, Config, Source};
use crate::denial::No;
use crate::dev::provider;
use crate::doors::{self, bundle, grpc, http, peer};
use crate::foreign::Foreign;
use crate::history::audit::Audit;
use crate::home::{Endpoint, Home};
use crate::keys::keystore::Keystore;
use crate::ledger;
use crate::listen;
use crate::notify::Notifier;
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
    /// The core, for other code in the same process.
    pub issuer: Arc<Issuer>,
    stop: watch::Sender<bool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    watermark: ledger::Keeper,
    _home: Arc<Home>,
}

/// Starts an issuer. `development` adds the OpenID provider and a joined workload, and marks home and root.
pub async fn start(config: Config, development: bool, clock: Clock) -> Result<Running, String> {
    start_from(None, config, development, clock).await
}

/// The same, for a configuration whose file can be read again.
pub async fn start_from(source: Option<Source>, mut config: Config, development: bool, clock: Clock) -> Result<Running, String> {
    let written = config.clone();
    let clock = clock.steady();
    let metrics = telemetry::metrics()?;
    let home = Arc::new(Home::open(&config.home)?);
    mark::check(&home.dir, development)?;
    let before = crate::home::endpoint(&home.dir).ok();

    // Ports are chosen once and kept, so that a command with yesterday's port still works. Until the issuer is ready, each but that of
    // probes refuses connections.
    let grpc_socket = sockets::reserve(config.listen, before.as_ref().map(|e| e.grpc.as_str()))?;
    let http_listener = sockets::bind(config.http, before.as_ref().map(|e| e.http.as_str())).await?;
    let local = |at: std::io::Result<SocketAddr>| at.map_err(|e| e.to_string());
    let grpc_at = local(grpc_socket.local_addr())?;
    let files = files::raise();
    let shares = listen::Shares::of(&config.bounds, files);
    if shares.total < config.bounds.connections {
        let (places, wanted) = (shares.total, config.bounds.connections);
        tracing::warn!(places, wanted, files, "the limit on open files allows fewer connections than `server.max_connections`");
    }
    let (stop, stopped) = watch::channel(false);
    let (ready, is_ready) = watch::channel(Ready::starting());
    let mut tasks = Vec::new();

    let bundle_at = match (&config.bundle_endpoint, development) {
        (Some(at), _) => Some(at.clone()),
        (None, true) => Some(BundleEndpoint { listen: SocketAddr::from(([127, 0, 0, 1], 0)), web: None }),
        (None, false) => None,
    };
    let bundle_socket = match bundle_at {
        Some(at) => {
            let shows = match at.web {
                Some((certificate, key)) => tls::Shows::Web(certificate, key),
                None => tls::Shows::Svid(config.names.clone()),
            };
            Some((sockets::reserve(at.listen, before.as_ref().and_then(|e| e.bundle.as_deref()?.strip_suffix('/')))?, shows))
        }
        None => None,
    };
    let https = https::reserve(&config, development, before.as_ref())?;
    let host = if development { "127.0.0.1" } else { config.names.first().map_or("localhost", String::as_str) };
    let host = sockets::host(host);
    let iss = https::issuer(&config, https.as_ref(), &host)?;
    let mut endpoint = Endpoint {
        trust_domain: config.trust_domain.to_string(),
        grpc: format!("{host}:{}", grpc_at.port()),
        bundle: bundle_socket
            .as_ref()
            .map(|(s, _)| local(s.local_addr()))
            .transpose()?
            .map(|at| format!("https://{host}:{}/", at.port())),
        http: local(http_listener.local_addr())?.to_string(),
        socket: config.socket.clone().unwrap_or_else(|| home.dir.join("operator.sock")),
        https_issuer: https.is_some().then(|| iss.clone()),
        https: https.as_ref().map(|bound| format!("{host}:{}", bound.port)),
        https_ca: None,
        oidc: None,
        oidc_ca: None,
        issuers: BTreeMap::new(),
    };
    let mut provider = None;
    if development {
        let known = before.as_ref().and_then(|e| e.oidc.as_deref()).and_then(|url| url.strip_prefix("https://"));
        let listener = sockets::bind(SocketAddr::from(([127, 0, 0, 1], 0)), known).await?;
        let made = provider::Provider::start(&home.dir.join("provider"), listener).await;
        let made = made.map_err(|e| format!("development provider: {e}"))?;
        let own = endpoint.https_issuer.clone();
        let configured = reload::Provider { issuer: made.issuer().to_owned(), ca_file: made.ca_file().to_owned(), own };
        config.issuers = reload::issuers(&config, Some(&configured));
        provider = Some(configured);
        endpoint.oidc = Some(made.issuer().to_owned());
        endpoint.oidc_ca = Some(made.ca_file().to_owned());
        let mut stopping = stopped.clone();
        tasks.push(process::task("development provider", async move {
            let _ = stopping.wait_for(|s| *s).await;
            made.shutdown().await;
        }));
    }
    endpoint.issuers = reload::urls(&config.issuers);

    // From here on probes are answered: the process is alive, but not ready before everything is loaded (T69).
    let monitor = http::router(metrics.clone(), is_ready.clone());
    let serving = listen::serve_local(http_listener, monitor, config.bounds, stopped.clone());
    tasks.push(process::task("metrics and health", serving));

    // ORDER: the clock is checked before a key is made, because an authority that is made under a wrong clock cannot be used.
    let journal = opened::journal(&config, &home, &clock)?;
    let foreign = Foreign::open(&config.foreign, reload::listed(&config), &home.dir.join("foreign"), &clock)?;
    let keystore = Keystore::open(&home.dir.join("keys")).map_err(|e| e.to_string())?;
    let (td, root) = (&config.trust_domain, config.root.as_ref());
    let (history, told_history) = history::open(&config, &home, &keystore)?;
    let authority = Authority::open(keystore, td, &config.oid, root, development, clock.seconds());
    let authority = Arc::new(authority.map_err(|e| e.to_string())?);
    // ORDER: the witnesses are asked before the watermark is written anew.
    let seen = witnessed::ask(&config).await?;
    let (told, heard) = feed::line();
    let told = history::Observers { feed: told, history: told_history.clone() };
    let client_audience = https.is_some().then(|| iss.clone());
    let (ledger, watermark, past) =
        opened::ledger(&config, &home, &authority, &clock, (told, history.head()), (journal, seen), client_audience.clone())?;
    let history = Arc::new(history.follow(told_history, &ledger, &clock)?);
    let sets = KeptPolicies::new(home.dir.join("policies"), Duration::from_micros(config.history.time));
    if let Err(cause) = sets.in_force(&config.policies) {
        tracing::warn!(%cause, "the set of policies is not kept: decisions under it cannot be decided again by it");
    }
    let configured = configure::Configure { classes: config.digest(), written: config.digest_of_written() };
    configure::configure(&ledger, configured).map_err(|e| e.to_string())?;
    let schedule = Arc::new(ArcSwap::from_pointee(config.schedule(authority.root_ends_at())));
    let (ledger_of, schedule_of) = (ledger.clone(), Arc::clone(&schedule));
    let rotation = Rotation { ledger: ledger_of, authority: Arc::clone(&authority), schedule: schedule_of, clock: clock.clone() };
    rotation.begin()?;
    let publisher = Publisher::start(&ledger, &authority, config.refresh).map_err(|e| e.to_string())?;
    let seal = Seal::new(Arc::clone(&authority), iss.clone());
    let witnesses = Arc::new(history.witnesses(config.history_witnesses.clone())?);
    tasks.push(process::task("witnesses of the history", Arc::clone(&witnesses).keep(stopped.clone())));
    let audit = config.audit.as_ref().map(|to| Audit::start(to, &history, &home.dir)).transpose()?;
    let (rejoin, rejoining) = mpsc::channel(1);
    let (configuration, orders) = Configuration::new();
    let (reloaded, reloads) = watch::channel(0);
    let (notifier, notifying) = Notifier::start("mayfly_notifications_total", stopped.clone());
    let (hooks, hooking) = Notifier::start("mayfly_webhooks_total", stopped.clone());
    tasks.extend([notifying, hooking]);
    let (reach, questions) = reach::Reach::new();
    let issuer = Arc::new(Issuer {
        trust_domain: config.trust_domain.clone(),
        pipeline: Pipeline::start(&ledger, seal, config.queue, 2, config.bounds.request).map_err(|e| e.to_string())?,
        rotator: rotation.start(publisher.clone())?,
        publisher: publisher.clone(),
        crls: Crls::new(&ledger, &authority, &clock),
        feed: Feed::start(&ledger, &authority, clock.clone(), heard, past).map_err(|e| e.to_string())?,
        ledger: ledger.clone(),
        backups: home.backups(),
        history,
        sets,
        witnesses,
        audit,
        authority: Arc::clone(&authority),
        foreign: Arc::clone(&foreign),
        pages: inspect::Pages::new().map_err(|e| e.to_string())?,
        polls: Default::default(),
        pings: ping::Pings::new(notifier),
        reach,
        hooks,
        throttle: Throttle::new(config.writes.clone()),
        clients: Arc::default(),
        proofs: Proofs::new().map_err(|e| e.to_string())?,
        iss: iss.clone(),
        rejoin: development.then_some(rejoin),
        providers: ArcSwap::from_pointee(reload::providers(&config)?),
        configuration,
        counting: revoke::Counting::default(),
        explaining: Explaining::new(config.places.clone(), users::providers(&config)),
        health: Health { ready: is_ready, started_at: clock.seconds() },
        clock: clock.clone(),
        address: endpoint.grpc.clone(),
    });

    tasks.push(process::task("questions at providers", reach::keep(Arc::clone(&issuer), questions, stopped.clone())));
    let routes = grpc::routes(Arc::clone(&issuer), config.bounds.message, config.bounds.request, stopped.clone());
    let (routes, stopping) = standard::add(routes, config.reflection, config.bounds.message, stopped.clone()).await?;
    tasks.push(stopping);
    let about = https.is_some().then(|| https::about(&config, iss, &endpoint.grpc));
    let mut router = routes.into_axum_router();
    if let Some(about) = &about {
        // On the gRPC listener OAuth clients may present a certificate (RFC 8705 5).
        router = router.merge(doors::oauth::router(&issuer, about)).merge(doors::authzen::router(&issuer, about, true));
    }
    let tls = |listener| tls::Tls {
        listener,
        authority: Arc::clone(&authority),
        publisher: publisher.clone(),
        foreign: Arc::clone(&foreign),
        reloads: reloads.clone(),
        clock: clock.clone(),
    };
    let (current_tls, renewing) = tls("grpc").keep(tls::Shows::Mutual(config.names.clone()), stopped.clone())?;
    tasks.push(renewing);
    // ORDER: the bundles are refreshed only after the tasks that follow their changes were started.
    tasks.extend(foreign.keep(&stopped));
    let apart = listen::Apart::start().map_err(|e| format!("the runtime for strangers cannot be started: {e}"))?;
    let guard = peer::Guard::default();
    tasks.push(process::task(
        "guard of connections",
        guard.clone().follow(Arc::clone(&issuer), issuer.feed.cuts(), stopped.clone()),
    ));
    let serving = listen::serve_tls(
        sockets::listen(grpc_socket)?,
        current_tls,
        router.clone(),
        listen::Serves::Peers(listen::Behind { issuer: Arc::clone(&issuer), guard }),
        clock.clone(),
        (config.bounds, shares, apart.clone()),
        stopped.clone(),
    );
    tasks.push(process::task("listener", serving));
    let socket = sockets::operators(&endpoint.socket)?;
    let operators = config.uids.clone().unwrap_or_else(|| vec![mark::own_uid(&home.dir)]);
    let uids = listen::Uids { operators, auditors: config.auditor_uids.clone() };
    let serving = listen::serve_operators(socket, uids, router, Arc::clone(&issuer), config.bounds, stopped.clone());
    tasks.push(process::task("operator socket", serving));
    gauges::begin(clock.seconds());
    let (seen, signs) = (Arc::clone(&issuer), Arc::clone(&authority));
    let upkeep = move || {
        gauges::look(&seen, &signs, files);
        metrics.run_upkeep();
    };
    upkeep();
    tasks.push(process::task("upkeep of metrics", every(Duration::from_secs(5), stopped.clone(), upkeep)));
    let public = |name, socket, shows, router, shares| -> Result<[tokio::task::JoinHandle<()>; 2], String> {
        let (config_of_tls, renewing) = tls(name).keep(shows, stopped.clone())?;
        let (serves, bounds) = (listen::Serves::Strangers(name), (config.bounds, shares, apart.clone()));
        let serving =
            listen::serve_tls(sockets::listen(socket)?, config_of_tls, router, serves, clock.clone(), bounds, stopped.clone());
        Ok([renewing, process::task(name, serving)])
    };
    if let Some((socket, shows)) = bundle_socket {
        tasks.extend(public("bundle", socket, shows, bundle::router(publisher.clone()), listen::Shares::bundle())?);
    }
    if let (Some(bound), Some(about)) = (https, about) {
        if config.https.web.is_none() {
            endpoint.https_ca = Some(https::write_ca(&home.dir, &authority)?);
        }
        let log = doors::tiles::router(issuer.history.folder().clone());
        let router = doors::https::router(&about, &publisher, &issuer.crls)
            .merge(doors::oauth::router(&issuer, &about))
            .merge(doors::authzen::router(&issuer, &about, false))
            .merge(doors::page::router(&issuer, &about).map_err(|e| e.to_string())?)
            .nest(&format!("{}/history", about.path()), log);
        tasks.extend(public("https", bound.socket, bound.shows, router, listen::Shares::https())?);
    }
    if development {
        let joined = joined::Workloads::join(&issuer, &home.dir.join("workloads")).await?;
        let joined = joined.keep(Arc::clone(&issuer), config.workload_ttl, rejoining, stopped.clone());
        tasks.push(process::task("development workloads", joined));
    }
    home.announce(&endpoint)?;
    let looks = ready::Looks { issuer: Arc::clone(&issuer), clock: clock.clone(), schedule: Arc::clone(&schedule) };
    let keeps = reload::Reloads {
        issuer: Arc::clone(&issuer),
        source,
        config: written,
        provider,
        schedule,
        client_audience,
        told: reloaded,
        stopped: stopped.clone(),
        home: Arc::clone(&home),
        endpoint: endpoint.clone(),
    };
    tasks.push(process::task("configuration", reload::keep(keeps, orders)));
    tasks.push(process::task("readiness", ready::keep(ready, looks, stopped)));
    tracing::info!(trust_domain = %endpoint.trust_domain, grpc = %endpoint.grpc, "ready");
    Ok(Running { endpoint, issuer, stop, tasks, watermark, _home: home })
}

impl Running {
    /// Reads the configuration again, whole or not at all. `by` names who asks, in the record.
    pub async fn reload(&self, by: &str) -> Result<configure::Reloaded, No> {
        self.issuer.configuration.reload(Caller::Operator { name: by.to_owned(), by: None }).await
    }

    /// Stops: no longer ready, no new connections, open requests end, the ledger last.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        for task in self.tasks {
            let _ = task.await;
        }
        let (issuer, watermark) = (self.issuer, self.watermark);
        let _ = tokio::task::spawn_blocking(move || {
            issuer.ledger.stop();
            // ORDER: the history stops after the ledger, so that it holds every record. It signs them before the process ends.
            issuer.history.stop();
            if let Some(audit) = &issuer.audit {
                audit.stop();
            }
            drop(watermark);
        })
        .await;
        tracing::info!("stopped");
    }
}

async fn every(period: Duration, mut stop: watch::Receiver<bool>, act: impl Fn()) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(period) => act(),
            _ = stop.wait_for(|s| *s) => return,
        }
    }
}
