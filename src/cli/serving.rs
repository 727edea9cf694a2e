//! Signals to a command that serves, and its messages to the service manager.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::exit::Failure;
use crate::app::Running;
use crate::process::manager::Manager;

/// Waits for Ctrl-C or SIGTERM.
pub(super) async fn requested() -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted.map_err(|e| e.to_string())?),
        _ = terminate.recv() => Ok(()),
    }
}

/// Receives SIGHUP from now on, so that it no longer ends the process.
pub(super) fn hangups() -> Result<Signal, Failure> {
    Ok(signal(SignalKind::hangup()).map_err(|e| e.to_string())?)
}

/// Serves until a signal asks it to stop. SIGHUP reads the configuration again. A service manager is notified of each, and
/// regularly that the issuer still answers.
pub(super) async fn serve(running: &Running, mut hangups: Signal, manager: &Manager) -> Result<(), Failure> {
    manager.tell("READY=1");
    let stop = requested();
    tokio::pin!(stop);
    let period = manager.watchdog();
    loop {
        tokio::select! {
            stopped = &mut stop => {
                manager.tell("STOPPING=1");
                return stopped;
            }
            Some(()) = hangups.recv() => {
                manager.reloading();
                // If the configuration is refused, that is logged, and the previous one stays in use.
                let _ = running.reload("SIGHUP").await;
                manager.tell("READY=1");
            }
            () = tokio::time::sleep(period.unwrap_or(Duration::MAX)), if period.is_some() => {
                // Reads the state: if that hangs, no message is sent, and the manager restarts the issuer.
                let ledger = running.issuer.ledger.clone();
                let _ = tokio::task::spawn_blocking(move || ledger.read(|state| state.revision)).await;
                manager.tell("WATCHDOG=1");
            }
        }
    }
}
