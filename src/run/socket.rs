//! A private socket for one process tree, in a new folder that only one user may enter.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use mayfly_agent::listen::{Accepted, accept_each};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::folder::{Folder, Owner};
use super::tree::Tree;
use super::workload::Served;
use crate::lenient::Lenient;
use crate::process::sparing::cannot_accept;

/// Most connections open at once.
const CONNECTIONS: usize = 256;
/// How long open streams may take to end.
const DRAIN: Duration = Duration::from_secs(2);

/// Name of the socket in its folder.
const SOCKET: &str = "workload.sock";
/// Longest path of a socket, in bytes: `sun_path` has 108, with a zero at the end.
const LONGEST: usize = 107;

/// The folder with the socket and other files of the command. Dropping this removes all of them.
pub struct Private {
    /// The folder above.
    base: Folder,
    dir: Folder,
    name: String,
    path: PathBuf,
    owner: Option<Owner>,
    files: Vec<&'static str>,
}

impl Private {
    /// Creates the folder, for `owner` if that is another user, and listens in it: below `XDG_RUNTIME_DIR` if that is ours, or else
    /// below `TMPDIR` or `/tmp`, where the path is short enough for a socket.
    pub fn new(owner: Option<Owner>) -> Result<(Private, UnixListener), String> {
        let mut name = [0u8; 12];
        aws_lc_rs::rand::fill(&mut name).map_err(|_| "no random name could be made")?;
        let name = format!("mayfly-{}", hex::encode(name));
        let mut why = Vec::new();
        for base in bases(owner.is_some()) {
            match Private::within(&base, &name, owner) {
                Ok(made) => return Ok(made),
                Err(e) => why.push(format!("`{}`: {e}", base.display())),
            }
        }
        Err(format!("no folder for the socket of the Workload API could be made: set TMPDIR to one ({})", why.join("; ")))
    }

    fn within(base: &Path, name: &str, owner: Option<Owner>) -> io::Result<(Private, UnixListener)> {
        let path = base.join(name).join(SOCKET);
        if path.as_os_str().len() > LONGEST {
            return Err(io::Error::other(format!("the path of the socket would have more than {LONGEST} bytes")));
        }
        let base = Folder::existing(base)?;
        let folder = base.create(OsStr::new(name))?;
        let private = Private { base, dir: folder, name: name.to_owned(), path, owner, files: Vec::new() };
        let listener = UnixListener::bind(&private.path)?;
        if let Some(owner) = owner {
            // ORDER: the socket first. As long as the folder is ours, nobody else can put another file in the socket's place.
            private.dir.give(OsStr::new(SOCKET), owner)?;
            private.dir.give_all(owner)?;
        }
        Ok((private, listener))
    }

    /// Writes another file, which the user of the command can read.
    pub fn write(&mut self, name: &'static str, content: &[u8]) -> Result<(), String> {
        self.files.push(name);
        self.dir.write(name, content, self.owner).map_err(|e| format!("`{name}` beside the socket: {e}"))
    }

    /// Absolute path of the folder.
    pub fn dir(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    /// Absolute path of the socket.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // By descriptor: the folder belongs to its user, who may have put a link to another folder in its place.
        for name in self.files.iter().chain(&[SOCKET]) {
            let _ = self.dir.remove(OsStr::new(name));
        }
        let _ = self.base.remove_folder(OsStr::new(&self.name));
    }
}

/// Where the folder may be, in order. `su`, `sudo -E` and containers keep an `XDG_RUNTIME_DIR` that is another user's or missing.
fn bases(for_another: bool) -> Vec<PathBuf> {
    let uid = crate::process::uid();
    let ours = |dir: &PathBuf| std::fs::metadata(dir).is_ok_and(|of| of.is_dir() && uid.is_none_or(|uid| uid == of.uid()));
    let runtime =
        std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute() && !for_another && ours(dir));
    let (given, last) = (std::env::temp_dir(), PathBuf::from("/tmp"));
    let last = (given != last).then_some(last);
    runtime.into_iter().chain([given]).chain(last).collect()
}

/// Serves until `stop`. A process outside of the tree may connect, and gets the answer that there is no identity for it.
pub async fn serve(listener: UnixListener, router: axum::Router, tree: Tree, mut stop: watch::Receiver<bool>) {
    let open = TaskTracker::new();
    let stopping = stop.clone();
    let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
    let each = |accepted| match accepted {
        Accepted::Connection(stream, place) => {
            let (router, tree, stop) = (router.clone(), tree.clone(), stopping.clone());
            drop(open.spawn(async move {
                let served = judge(&stream, &tree);
                converse(stream, router, served, stop).await;
                drop(place);
            }));
        }
        Accepted::Full => {}
        Accepted::Failed(error) => cannot_accept(&error),
    };
    accept_each(&listener, CONNECTIONS, stopped, each).await;
    open.close();
    open.wait().await;
}

fn judge(stream: &UnixStream, tree: &Tree) -> Served {
    match tree.admit(stream) {
        Ok(pid) => {
            tracing::debug!(pid, "a process of the tree connected");
            Served(true)
        }
        Err(why) => {
            tracing::warn!(%why, "the Workload API has no identity for a process");
            Served(false)
        }
    }
}

async fn converse(stream: UnixStream, router: axum::Router, served: Served, mut stop: watch::Receiver<bool>) {
    let service = hyper::service::service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
        // Only the connection identifies the caller.
        request.extensions_mut().insert(served);
        tower::ServiceExt::oneshot(router.clone(), request)
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(100).max_header_list_size(16 * 1024);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(10));
    let connection = builder.serve_connection(TokioIo::new(Lenient::new(stream)), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stop.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
    }
    let _ = tokio::time::timeout(DRAIN, connection).await;
}
