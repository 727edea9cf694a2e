//! `mayfly run`: what stands beside one agent, in whatever language it is written.
//!
//! It holds the identity, serves it to the agent's process tree over the SPIFFE Workload API, and lives exactly as long as
//! the command. Nothing of the issuer is in here.

pub mod command;
pub mod files;
mod lenient;
pub mod socket;
pub mod tree;
pub mod workload;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mayfly_agent::identity::Identity;
use mayfly_verify::BindingOid;
use rustix::process::Signal;
use tokio::sync::watch;

use command::{Event, NotRun, Running};
use files::Files;
use socket::Private;
use tree::Tree;

/// Where clients of the Workload API look for it (WE-10).
pub const ENDPOINT: &str = "SPIFFE_ENDPOINT_SOCKET";
/// What is left of a tree after SIGKILL is looked for so often, 20 ms apart: there may be many.
const LOOKS: u32 = 250;
/// How long the issuer may take for the end of the agent.
const FAREWELL: Duration = Duration::from_secs(5);

/// A command, and how it is to be run.
pub struct Launch {
    /// The program and its arguments; at least one.
    pub command: Vec<OsString>,
    /// Between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// Folder for PEM files; none: only the socket.
    pub files: Option<PathBuf>,
    /// What the command is told after new files were written.
    pub reload: Option<Signal>,
    /// Uid and gid of the command; none: ours.
    pub user: Option<(u32, u32)>,
    /// Under which OID tokens carry the binding.
    pub oid: BindingOid,
}

/// Makes this process fit to hold a key, before it has one: nobody may look into it, and all of its descendants stay below it.
pub fn prepare() -> Result<(), String> {
    use rustix::process::{DumpableBehavior, set_child_subreaper, set_dumpable_behavior};
    let text = |e: rustix::io::Errno| format!("cannot prepare the process: {e}");
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(text)?;
    // Any process will do: the number only says yes.
    set_child_subreaper(Some(rustix::process::getpid())).map_err(text)?;
    let name = std::ffi::CString::new(tree::NAME).map_err(|e| e.to_string())?;
    rustix::thread::set_name(&name).map_err(text)
}

/// Runs the command with the identity to its end, and ends the identity. The command's exit code; 128 + n after signal n.
pub async fn run(identity: Identity, launch: Launch) -> Result<u8, NotRun> {
    let identity = Arc::new(identity);
    let (stop, stopped) = watch::channel(false);
    let (private, listener) = Private::new(launch.user)?;
    let router = workload::routes(Arc::clone(&identity), launch.oid.clone(), stopped.clone())?;
    let serving = tokio::spawn(socket::serve(listener, router, Tree::here(), stopped));
    let ended = beside(&identity, &launch, &private).await;
    let _ = stop.send(true);
    let _ = serving.await;
    // ORDER: when nobody is left who could use it. What the issuer does not hear now, it sees when no renewal comes.
    match tokio::time::timeout(FAREWELL, identity.end()).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => tracing::warn!("the identity runs out by itself: {e}"),
        Err(_) => tracing::warn!("the identity runs out by itself: the issuer did not answer"),
    }
    ended
}

async fn beside(identity: &Identity, launch: &Launch, private: &Private) -> Result<u8, NotRun> {
    let mut changed = identity.changed();
    let files = launch.files.as_ref().map(|dir| Files::new(dir, launch.user));
    if let Some(files) = &files {
        files.write(&Arc::clone(&changed.borrow_and_update()))?;
    }
    let endpoint = format!("unix://{}", private.path().display());
    let mut running = Running::start(&launch.command, &[(ENDPOINT, &endpoint)], launch.user)?;
    let mut over = identity.over();
    let mut taken = false;
    let code = loop {
        tokio::select! {
            event = running.next() => match event {
                Event::Ended(code) => break code,
                Event::Signal(signal) => running.signal(signal),
            },
            why = over.wait_for(Option::is_some), if !taken => {
                taken = true;
                let why = why.ok().and_then(|over| over.as_ref().map(ToString::to_string)).unwrap_or_default();
                tracing::error!("stopping the command: {why}");
                let grace = launch.grace;
                // Beside the loop: the command's end is waited for in the same way as always.
                tokio::spawn(async move { stop_tree(grace).await });
            }
            Ok(()) = changed.changed(), if files.is_some() => {
                let current = Arc::clone(&changed.borrow_and_update());
                match files.as_ref().map(|files| files.write(&current)) {
                    Some(Ok(true)) => launch.reload.into_iter().for_each(|signal| running.signal(signal)),
                    // The old files hold for a while yet, and the next rotation tries again.
                    Some(Err(why)) => tracing::error!("cannot write the files: {why}"),
                    _ => {}
                }
            }
        }
    };
    // The tree ends with its command: what the command left behind is stopped.
    let left = tokio::spawn(stop_tree(launch.grace));
    let _ = running.until_all_gone(left).await;
    Ok(code)
}

/// SIGTERM to all of the tree, and SIGKILL to what is left after the grace, until nothing is.
async fn stop_tree(grace: Duration) {
    let tree = Tree::here();
    if tree.signal(Signal::TERM) == 0 {
        return;
    }
    let until = tokio::time::Instant::now() + grace;
    while tokio::time::Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if tree.is_empty() {
            return;
        }
    }
    for _ in 0..LOOKS {
        if tree.signal(Signal::KILL) == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tracing::error!("some processes of the tree could not be stopped");
}
