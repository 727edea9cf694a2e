//! `mayfly run`: starts a command beside an identity, whatever language the command is written in.
//!
//! It holds the identity of one agent, serves it to the command's process tree over the SPIFFE Workload API, and lives exactly as
//! long as the command. It uses no part of the issuer.
//!
//! # Security
//!
//! The private key is in this process and in those of the tree. Other processes of the same user cannot trace or read this process
//! (`PR_SET_DUMPABLE`), and the socket is in a folder that only its user may enter. A peer is served if it belongs to the tree at
//! the moment it connects; a pidfd pins it during the check. It belongs to the tree if its chain of parents leads to this process,
//! if it is in the tree's control group (cgroup v2; [`group`]) where the system allows one, and if it has the mark of this tree and
//! not that of a nested run ([`tree`]). A process that moved itself to another control group, as containers, `systemd-run --scope`
//! and snaps do, has left the tree, though it is still stopped with it. A connection may be passed on to another process, like any
//! file descriptor.
//!
//! Processes of *one* user can trace, signal and read each other unless the system forbids it, so within one user the tree is no
//! protection against malicious programs. If the command must not reach the other processes of its user, or they must not reach
//! it, start `mayfly run` as root with `--uid`: then the command cannot reach this process, trees of other users, or their
//! folders.
//!
//! That user may replace files and folders that it can write to while root works there. So the folder of `--files` must belong to
//! that user or to root, is reached without following that user's links, and is used by descriptor, like the folder of the socket
//! ([`folder`]). A missing folder is made for the user with mode 0700; missing folders above it are made for root.
//!
//! If this process is killed, the socket disappears, the tree continues without it, and the identity expires with its last
//! certificate. A tree that is stopped at a terminal (Ctrl-Z) is not renewed either.
//!
//! # In a container, and as a service
//!
//! Signals that were ignored when it started stay ignored, by the command too (`nohup mayfly run …`). With `--uid` the command has the
//! `HOME`, `USER`, `LOGNAME` and `SHELL` of that user, and none of the variables that lead to folders and sockets of ours.
//!
//! As process 1 it reaps orphaned processes, and exits with the command's exit code. Under systemd it is the main process: it
//! forwards signals, and the command gets the control group that it needs if the unit delegates one:
//!
//! ```text
//! [Service]
//! Type=exec
//! ExecStart=/usr/local/bin/mayfly run --class researcher --delegation … -- python agent.py
//! Delegate=yes
//! KillMode=mixed
//! ```
//!
//! With `KillMode=mixed`, systemd stops `mayfly run` alone, which then stops the command and the rest of the tree and ends the
//! identity. Without `Delegate=yes`, a service with a `User=` may not create a control group, and in most containers they are
//! read-only: then only the chain of parents decides. Set `Delegate=yes` for root too, because the unit's group otherwise belongs
//! to systemd.
//!
//! Before Linux 6.5, a peer is pinned by its process id when its connection is accepted, which may be a moment after it was made.
//! There is no `mayfly run` on macOS: use `mayfly spawn --out DIR` and `mayfly renew --as DIR`, or `mayfly_agent::identity` in
//! the program.
//!
//! # Clauses
//!
//! From the SPIFFE Workload Endpoint and Workload API specifications, with the test of each: `w` is `tests/workload.rs`, `r`
//! `tests/run.rs`, `o` `tests/oracles/workload` with stock clients.
//!
//! | clause | what | test |
//! |---|---|---|
//! | WE-1, WE-2 | gRPC on a local socket; there is no TCP | r `the_socket_is_private…`, o |
//! | WE-3 | exactly one `workload.spiffe.io: true`, else InvalidArgument | w `we3_…` |
//! | WE-4, WE-5 | neither TLS nor a secret of the client | o |
//! | WE-6 | the caller is identified by the system, by control group and parents: processes of the tree, also in their own session or as daemons; not the parent, a sibling, a nested run or its orphan, nor a process that was moved out of the group | r `we6_…` |
//! | WE-7 | PermissionDenied, Unavailable, Unimplemented | w `we6_wa10_…`, `wa18_…`, `we7_…` |
//! | WE-8 | nothing is added to the service | w `we7_we8_…` |
//! | WE-9 | reflection | w `we9_…` |
//! | WE-10 | `SPIFFE_ENDPOINT_SOCKET=unix:///…` | r `the_socket_is_private…` |
//! | WA-1 | X.509 and JWT profiles | w, o |
//! | WA-2, WA-3, WA-4 | full sets, at once, and after each change; unchanged ones not again | w `wa2_…`, `wa4_…` |
//! | WA-5, WA-6 | empty fields are refused, and never sent | w `wa5_…`, `wa2_…` |
//! | WA-7, WA-8 | every field filled; DER, leaf first, PKCS#8 | w `wa2_…` |
//! | WA-9, WA-12 | bundles by the trust domain's SPIFFE ID, our own always, foreign ones as long as the issuer trusts them | w `wa4_…`, `wa9_…` |
//! | WA-10, WA-11 | `no identity issued` to strangers, and to everybody after a cut | w `we6_wa10_…`, `wa10_…`, r, o |
//! | WA-13 | exactly the audiences asked for; JWT-SVID 3.2 recommends one | w `wa5_wa13_…` |
//! | WA-14 | a JWK set of JWT keys alone | w `wa4_…`, `wa9_…` |
//! | WA-15 | validation with the bundle of the token's own trust domain; of ours also with what is revoked | w `wa5_wa15_…`, `wa15_…` |
//! | WA-16 | WIT: Unimplemented | w `we7_…` |
//! | WA-17 | one identity, hint `instance` | w `wa2_…` |
//! | WA-18 | streams end with Unavailable at a stop | w `wa18_…` |

mod bundles;
mod claims;
pub mod command;
pub mod files;
pub mod folder;
pub mod group;
pub mod presets;
mod secrets;
pub mod socket;
pub mod tokens;
pub mod tree;
pub mod user;
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
use presets::Preset;
use socket::Private;
use tokens::{Tokens, Wanted};
use tree::Tree;

use crate::process::memory;

/// Environment variable with the address of the Workload API (WE-10).
pub const ENDPOINT: &str = "SPIFFE_ENDPOINT_SOCKET";
/// The environment variable with the issuer's address, for `mayfly` commands.
pub const SERVER: &str = "MAYFLY_SERVER";
/// How often to check whether processes of the tree are left after SIGKILL: there may be many.
const LOOKS: u32 = 250;
/// Pause between two such checks.
const PAUSE: Duration = Duration::from_millis(20);
/// How long to wait for the foreign bundles before the command starts.
const FIRST_WORD: Duration = Duration::from_secs(1);
/// Time limit for ending the agent at the issuer.
const FAREWELL: Duration = Duration::from_secs(5);

/// A command, and how to run it.
pub struct Launch {
    /// The program and its arguments; at least one.
    pub command: Vec<OsString>,
    /// Time between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// Folder for PEM files. `None` means the socket only.
    pub files: Option<PathBuf>,
    /// Tokens to write into files.
    pub tokens: Vec<Wanted>,
    /// Systems whose SDKs must find a token, each at most once.
    pub presets: Vec<Preset>,
    /// Signal for the command after new files were written. `None` means no signal.
    pub reload: Option<Signal>,
    /// Uid and gid of the command. `None` means those of this process.
    pub user: Option<(u32, u32)>,
    /// `host:port` of the issuer, for `mayfly` commands within the tree.
    pub server: String,
    /// OID of the binding in tokens.
    pub oid: BindingOid,
    /// Whether the agent ends with the command. An identity that is kept in a folder does not.
    pub ends: bool,
}

/// Protects this process before it has a key in memory: other processes cannot read its memory, and its descendants stay below it.
pub fn prepare() -> Result<(), String> {
    use rustix::process::set_child_subreaper;
    let text = |e: rustix::io::Errno| format!("cannot prepare the process: {e}");
    memory::hide()?;
    // The value has no meaning: any process id turns it on.
    set_child_subreaper(Some(rustix::process::getpid())).map_err(text)?;
    Tree::begin().map(drop)
}

/// Runs the command with the identity, then ends the identity. Returns the command's exit code; 128 + n after signal n.
pub async fn run(identity: Identity, launch: Launch) -> Result<u8, NotRun> {
    let identity = Arc::new(identity);
    let (stop, stopped) = watch::channel(false);
    let (mut private, listener) = Private::new(launch.user)?;
    let router = workload::routes(Arc::clone(&identity), launch.oid.clone(), stopped.clone())?;
    // So a command that asks only once, at its start, gets them.
    let _ = tokio::time::timeout(FIRST_WORD, identity.changed().wait_for(|current| current.foreign().is_some())).await;
    // A process that connects earlier waits at the socket, until it can be checked whether it belongs to the tree.
    let serve = |tree| tokio::spawn(socket::serve(listener, router, tree, stopped));
    let ended = beside(&identity, &launch, &mut private, serve).await;
    let ended = match ended {
        Ok((code, serving)) => {
            let _ = stop.send(true);
            let _ = serving.await;
            Ok(code)
        }
        Err(not) => Err(not),
    };
    // ORDER: the identity is ended after every process that could use it has gone. If the issuer cannot be reached, the identity
    // expires.
    if !launch.ends {
        return ended;
    }
    match tokio::time::timeout(FAREWELL, identity.end()).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => tracing::warn!("the identity was not ended and will expire: {e}"),
        Err(_) => tracing::warn!("the identity was not ended and will expire: the issuer did not answer"),
    }
    ended
}

/// Runs the command to its end. Returns its exit code and what `serve` returned.
async fn beside<T>(
    identity: &Identity,
    launch: &Launch,
    private: &mut Private,
    serve: impl FnOnce(Tree) -> T,
) -> Result<(u8, T), NotRun> {
    let mut changed = identity.changed();
    let files = launch.files.as_ref().map(|dir| Files::new(dir, launch.user));
    if let Some(files) = &files {
        files.write(&Arc::clone(&changed.borrow_and_update()))?;
    }
    let mut env = vec![
        (ENDPOINT, Some(format!("unix://{}", private.path().display()))),
        (SERVER, Some(launch.server.clone()).filter(|server| !server.is_empty())),
    ];
    env.extend(launch.user.map(|(uid, _)| user::environment(uid)).into_iter().flatten());
    let mut wanted = launch.tokens.clone();
    let uuid = identity.current().spiffe_id().rsplit('/').next().and_then(|name| name.parse().ok());
    for preset in &launch.presets {
        let laid_out = preset.lay_out(private.dir(), uuid);
        for (name, content) in &laid_out.files {
            private.write(name, content)?;
        }
        wanted.push(laid_out.token);
        env.extend(laid_out.env);
    }
    // ORDER: the token files are written before the command starts, so that it finds every file.
    let mut tokens = Tokens::begin(wanted, launch.user, identity).await?;
    let mut running = Running::start(&launch.command, &env, launch.user)?;
    let serving = serve(running.tree().clone());
    let mut over = identity.over();
    let mut taken = false;
    let mut kept = std::pin::pin!(tokens.keep(identity));
    let mut keeping = true;
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
                // In a task of its own, so that this loop still waits for the end of the command.
                tokio::spawn(stop_tree(running.tree().clone(), launch.grace));
            }
            () = kept.as_mut(), if keeping => keeping = false,
            Ok(()) = changed.changed(), if files.is_some() => {
                let current = Arc::clone(&changed.borrow_and_update());
                match files.as_ref().map(|files| files.write(&current)) {
                    Some(Ok(true)) => launch.reload.into_iter().for_each(|signal| running.signal(signal)),
                    // The old files are valid for a while, and the next rotation tries again.
                    Some(Err(why)) => tracing::error!("cannot write the files: {why}"),
                    _ => {}
                }
            }
        }
    };
    // When the command has ended, the rest of its tree is stopped.
    let left = tokio::spawn(stop_tree(running.tree().clone(), launch.grace));
    let _ = running.until_all_gone(left).await;
    Ok((code, serving))
}

/// Sends SIGTERM to the whole tree, and after the grace period SIGKILL to the rest, until no process is left.
async fn stop_tree(tree: Tree, grace: Duration) {
    if tree.signal(Signal::TERM) == 0 {
        return;
    }
    let until = tokio::time::Instant::now() + grace;
    while tokio::time::Instant::now() < until {
        tokio::time::sleep(PAUSE).await;
        if tree.is_empty() {
            return;
        }
    }
    for _ in 0..LOOKS {
        if tree.signal(Signal::KILL) == 0 {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
    tracing::error!("some processes of the tree could not be stopped");
}
