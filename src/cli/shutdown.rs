//! When a command that serves is asked to stop.

use tokio::signal::unix::{SignalKind, signal};

use super::exit::Failure;

/// Waits for Ctrl-C or SIGTERM.
pub(super) async fn requested() -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted.map_err(|e| e.to_string())?),
        _ = terminate.recv() => Ok(()),
    }
}
