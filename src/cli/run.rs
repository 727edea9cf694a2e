//! Commands that are the issuer: dev, serve, config check, backup restore.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Common, Failure, Output, show};
use crate::app;
use crate::authority::Authority;
use crate::authority::keystore::Keystore;
use crate::clock::Clock;
use crate::config::{Config, LogFormat};
use crate::home::{Beats, Endpoint, Home};
use crate::journal::sqlite::Sqlite;
use crate::ledger::{Watermark as _, restore};
use crate::telemetry;

pub(super) async fn dev(common: &Common, listen: SocketAddr, extra: Option<&Path>) -> Result<(), Failure> {
    if !listen.ip().is_loopback() {
        return Err(Failure::new(
            super::USAGE,
            "`mayfly dev` listens on loopback only: use `mayfly serve` for others to reach it",
        ));
    }
    let text = extra.map(|path| std::fs::read_to_string(path).map_err(|e| format!("`{}`: {e}", path.display()))).transpose()?;
    let name = extra.map(|p| p.display().to_string()).unwrap_or_default();
    let config = Config::dev(&common.home, listen, text.as_deref().map(|t| (t, name.as_str()))).map_err(|e| e.to_string())?;
    telemetry::logs(LogFormat::Text, &std::env::var("MAYFLY_LOG").unwrap_or_else(|_| "warn".into()))?;
    let running = app::start(config, true, Clock::system()).await?;
    match common.output {
        Output::Json => show::line(&serde_json::to_string(&running.endpoint).map_err(|e| e.to_string())?)?,
        Output::Text => show::line(&welcome(common, &running.endpoint))?,
    }
    stopped().await?;
    running.stop().await;
    Ok(())
}

fn welcome(common: &Common, at: &Endpoint) -> String {
    let home = common.home.display();
    let option = if home.to_string() == ".mayfly" { String::new() } else { format!("export MAYFLY_HOME={home}\n  ") };
    format!(
        "mayfly dev is ready: trust domain {td}, for development only\n\
         \x20 gRPC (mTLS)      {grpc}\n\x20 OpenID provider  {oidc}   users demo, guest\n\
         \x20 SPIFFE bundle    {bundle}\n\x20 metrics, health  http://{http}\n\x20 operator socket  {socket}\n\
         \x20 workload         {home}/workloads/orchestrator\n\n\
         Paste into a second terminal:\n\n\
         \x20 {option}mayfly token demo > demo.jwt\n\
         \x20 mayfly spawn --class researcher --user-token demo.jwt --audience https://search.example --out a1\n\
         \x20 mayfly verify a1/svid.pem\n\
         \x20 mayfly verify a1/svid.jwt --audience https://search.example\n\
         \x20 mayfly agents tree\n\
         \x20 mayfly revoke --user dev/demo\n\n\
         Ctrl-C stops it; the same home continues.",
        td = at.trust_domain,
        grpc = at.grpc,
        oidc = at.oidc.as_deref().unwrap_or_default(),
        http = at.http,
        bundle = at.bundle.as_deref().unwrap_or_default(),
        socket = at.socket.display(),
    )
}

pub(super) async fn serve(path: &Path) -> Result<(), Failure> {
    let config = Config::load(path).map_err(|e| e.to_string())?;
    telemetry::logs(config.log, &config.log_filter)?;
    let running = app::start(config, false, Clock::system()).await?;
    stopped().await?;
    running.stop().await;
    Ok(())
}

pub(super) fn check(path: &Path) -> Result<(), Failure> {
    let config = Config::load(path).map_err(|faults| {
        let count = faults.0.len();
        Failure::new(1, format!("{faults}\n{count} fault{}", if count == 1 { "" } else { "s" }))
    })?;
    show::line(&format!(
        "{}: good: trust domain {}, {} workloads, {} issuers, {} classes",
        path.display(),
        config.trust_domain,
        config.workloads.len(),
        config.issuers.len(),
        config.classes.len()
    ))
}

/// Puts a copy of the journal in place. A new incarnation begins, so that everything issued before is dead.
pub(super) fn restore(common: &Common, copy: &Path, config: Option<&Path>) -> Result<(), Failure> {
    let clock = Clock::system();
    let (config, development) = match config {
        Some(path) => (Config::load(path).map_err(|e| e.to_string())?, false),
        None => (Config::dev(&common.home, SocketAddr::from(([127, 0, 0, 1], 0)), None).map_err(|e| e.to_string())?, true),
    };
    let home = Home::open(&config.home)?;
    let keystore = Keystore::open(&home.dir.join("keys")).map_err(|e| e.to_string())?;
    let td = config.trust_domain.clone();
    let authority = Authority::open(keystore, &td, &config.oid, config.root.as_ref(), development, clock.seconds());
    let authority = authority.map_err(|e| e.to_string())?;
    let mut beats = Beats {
        path: home.dir.join("heartbeat.json"),
        authority: Arc::new(authority),
        trust_domain: td.clone(),
        last: None,
    };
    let last_head = beats.read()?.map_or(0, |(_, head)| head);

    let fresh = home.dir.join("journal.restoring");
    let text = |e: std::io::Error| format!("`{}`: {e}", copy.display());
    for name in ["journal.restoring", "journal.restoring-wal", "journal.restoring-shm"] {
        let _ = std::fs::remove_file(home.dir.join(name));
    }
    std::fs::copy(copy, &fresh).map_err(text)?;
    let mut journal = Sqlite::open(&fresh, None)?;
    let restored = restore::restore(&mut journal, &td, last_head, clock.now()).map_err(|e| e.to_string())?;
    drop(journal);
    for name in ["journal.db-wal", "journal.db-shm"] {
        let _ = std::fs::remove_file(home.dir.join(name));
    }
    std::fs::rename(&fresh, home.journal()).map_err(text)?;
    for suffix in ["wal", "shm"] {
        let (from, to) = (format!("journal.restoring-{suffix}"), format!("journal.db-{suffix}"));
        let _ = std::fs::rename(home.dir.join(from), home.dir.join(to));
    }
    beats.write(restored.incarnation, restored.head, restored.at);
    // Tokens tell whole seconds, and one of this very second may be from before. When we return, fresh ones count.
    let second = clock.seconds();
    while clock.seconds() <= second {
        std::thread::sleep(Duration::from_millis(20));
    }
    let object = serde_json::json!({ "incarnation": restored.incarnation.to_string(), "revision": restored.head });
    show::either(common, &object, || {
        format!(
            "restored: a new epoch of the journal begins at revision {}; everything issued before it is dead, workloads join again",
            restored.head
        )
    })
}

pub(super) async fn stopped() -> Result<(), Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
    tokio::select! {
        done = tokio::signal::ctrl_c() => done.map_err(|e| Failure::new(1, e.to_string())),
        _ = terminate.recv() => Ok(()),
    }
}
