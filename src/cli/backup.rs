//! `mayfly backup`.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use mayfly_agent::api::v1;
use mayfly_agent::api::v1::operations_client::OperationsClient;
use serde_json::json;

use super::exit::{FAILURE, Failure};
use super::global::Global;
use super::{connect, output, restore};
use crate::clock::Clock;

/// Copy the journal of a running issuer, or put a copy back
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Move the copy to this new file, on the issuer's machine; without it, the copy stays in `backups` of the home
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    Restore(restore::Args),
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    if let Some(Command::Restore(args)) = args.command {
        return restore::run(&args, global);
    }
    if let Some(out) = args.out.as_ref().filter(|out| out.symlink_metadata().is_ok()) {
        return Err(exists(out));
    }
    let name = match &args.out {
        Some(_) => format!("moving-{}.db", uuid::Uuid::now_v7()),
        None => format!("journal-{}.db", output::time(Clock::system().seconds()).replace(':', "-")),
    };
    let channel = connect::as_operator(global).await?;
    let request = v1::BackupRequest { name: name.clone() };
    let got = OperationsClient::new(channel).backup(request).await?.into_inner();
    let path = match args.out {
        Some(out) => {
            let made = global.home.join("backups").join(name);
            moved(&made, &out).map_err(|e| Failure::new(e.code, format!("{}; the copy is in `{}`", e.message, got.path)))?;
            std::path::absolute(out).map_err(|e| e.to_string())?.display().to_string()
        }
        None => got.path,
    };
    let object = json!({ "path": path, "revision": got.revision, "bytes": got.bytes });
    output::print(global.output, &object, || format!("{} bytes up to revision {}, in {path}", got.bytes, got.revision))
}

/// Moves a file to a new one, never over one that exists. Between file systems it is copied, with mode 0600. It is durable on
/// return.
fn moved(from: &Path, to: &Path) -> Result<(), Failure> {
    let text = |path: &Path, e: io::Error| Failure::from(format!("`{}`: {e}", path.display()));
    // A hard link is never made over another file.
    match std::fs::hard_link(from, to) {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::AlreadyExists => return Err(exists(to)),
        Err(_) => {
            let mut source = File::open(from).map_err(|e| text(from, e))?;
            let mut copy = match File::options().write(true).create_new(true).mode(0o600).open(to) {
                Err(e) if e.kind() == ErrorKind::AlreadyExists => return Err(exists(to)),
                opened => opened.map_err(|e| text(to, e))?,
            };
            let copied = io::copy(&mut source, &mut copy).and_then(|_| copy.sync_all());
            copied.inspect_err(|_| drop(std::fs::remove_file(to))).map_err(|e| text(to, e))?;
        }
    }
    let dir = to.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|e| text(dir, e))?;
    std::fs::remove_file(from).map_err(|e| text(from, e))
}

fn exists(path: &Path) -> Failure {
    Failure::new(FAILURE, format!("`{}` exists already: a copy is never written over a file", path.display()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_copy_is_moved_whole_and_over_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::write(&from, "copy").unwrap();
        moved(&from, &to).unwrap();
        assert!(!from.exists() && std::fs::read(&to).unwrap() == b"copy");
        std::fs::write(&from, "another").unwrap();
        assert!(moved(&from, &to).unwrap_err().message.contains("exists already"));
        assert!(from.exists() && std::fs::read(&to).unwrap() == b"copy");
    }
}
