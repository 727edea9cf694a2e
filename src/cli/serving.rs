//! What a command that serves is asked for by signals, and what it tells the service manager.

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

/// Hangups from now on; none of them ends the process any more.
pub(super) fn hangups() -> Result<Signal, Failure> {
    Ok(signal(SignalKind::hangup()).map_err(|e| e.to_string())?)
}

/// Serves until it is asked to stop. A hangup reads the configuration again. A service manager is told of all of it, and that the
/// issuer can still be asked.
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
                // A refusal is in the log, and what was before goes on.
                let _ = running.reload("SIGHUP").await;
                manager.tell("READY=1");
            }
            () = tokio::time::sleep(period.unwrap_or(Duration::MAX)), if period.is_some() => {
                // A look at the state: if that hangs, no word is sent, and the manager starts the issuer anew.
                let ledger = running.issuer.ledger.clone();
                let _ = tokio::task::spawn_blocking(move || ledger.read(|state| state.revision)).await;
                manager.tell("WATCHDOG=1");
            }
        }
    }
}
