//! `mayfly backup restore`.

use std::collections::BTreeMap;
use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mayfly_verify::Target;
use serde_json::json;

use super::exit::{FAILURE, Failure};
use super::global::Global;
use super::output;
use crate::authority::Authority;
use crate::clock::{Clock, SECOND};
use crate::config::Config;
use crate::history::{Place, head_of};
use crate::home::{Beats, Home};
use crate::journal::Journal as _;
use crate::journal::sqlite::Sqlite;
use crate::keys::keystore::Keystore;
use crate::ledger::restore::{self, Closing};
use crate::ledger::{Head, Watermark as _, replay};

/// Replace the journal of a stopped issuer by a copy: a new epoch of the journal begins, and everything issued before is revoked
#[derive(clap::Args)]
pub(super) struct Args {
    /// A file that `mayfly backup` wrote
    file: PathBuf,
    /// The configuration of `serve`; without it, the home is a development one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Replace the present journal without asking; it is kept beside the new one
    #[arg(long)]
    yes: bool,
    /// If the home has no keys, make a new root; every bundle that verifiers hold is then useless
    #[arg(long)]
    new_root: bool,
    /// Close every class too, so that nobody has new agents until `mayfly reopen --class`: for when it cannot be known who was closed
    /// after the copy was made
    #[arg(long)]
    closed: bool,
}

pub(super) fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let clock = Clock::system();
    let development = args.config.is_none();
    let config = match &args.config {
        Some(path) => Config::load(path),
        None => Config::dev(&global.home, SocketAddr::from(([127, 0, 0, 1], 0)), None),
    };
    let config = config.map_err(|e| e.to_string())?;
    // ORDER: the backup is opened before a home, a root or a journal is made, in case the file does not exist.
    std::fs::File::open(&args.file).map_err(|e| format!("`{}`: {e}", args.file.display()))?;
    let has = |name: &str| config.home.join("keys").join(name).exists();
    if config.root.is_none() && !args.new_root && !(has("root.key") && has("root.pem")) {
        let message = format!(
            "`{}` has no root: put the folder `keys` of the issuer back first, or begin with another root by --new-root, for which nobody \
             has a bundle",
            config.home.display()
        );
        return Err(Failure::new(FAILURE, message));
    }
    let home = Home::open(&config.home)?;
    // In development the issuer of users is named by the address file alone.
    let mut names = crate::home::endpoint(&home.dir).map(|at| at.issuers).unwrap_or_default();
    names.extend(config.issuers.iter().map(|issuer| (issuer.name.clone(), issuer.issuer.clone())));
    if home.journal().exists() && !args.yes {
        confirm(&home.journal())?;
    }
    let keystore = Keystore::open(&home.dir.join("keys")).map_err(|e| e.to_string())?;
    let td = config.trust_domain.clone();
    let authority = Authority::open(keystore, &td, &config.oid, config.root.as_ref(), development, clock.seconds());
    let authority = authority.map_err(|e| e.to_string())?;
    let mut beats =
        Beats { path: home.dir.join("heartbeat.json"), authority: Arc::new(authority), trust_domain: td.clone(), last: None };
    // The history may hold records of the last second, which the watermark has not seen.
    let held = head_of(&Place::of(&home.dir).segments())?;
    let last_head = beats.read()?.map_or(0, |mark| mark.head).max(held);

    let fresh = home.dir.join("journal.restoring");
    let failed = |e: std::io::Error| format!("`{}`: {e}", args.file.display());
    for name in ["journal.restoring", "journal.restoring-wal", "journal.restoring-shm"] {
        let _ = std::fs::remove_file(home.dir.join(name));
    }
    let (since, missing) = match closed_in(&home) {
        Ok((since, revision)) if revision >= last_head => (since, None),
        Ok((since, _)) => (since, Some("the journal in place is an older copy".to_owned())),
        Err(cause) => (Vec::new(), Some(cause)),
    };
    std::fs::copy(&args.file, &fresh).map_err(failed)?;
    let mut journal = Sqlite::open(&fresh, None)?;
    let too = if args.closed { config.classes.keys().cloned().map(Target::Class).collect() } else { Vec::new() };
    let closing = Closing { since, too };
    let restored = restore::restore(&mut journal, &td, last_head, clock.now(), closing).map_err(|e| e.to_string())?;
    let chain = journal.head().map(|(_, chain)| chain);
    drop(journal);
    let kept = keep(&home, clock.seconds())?;
    // ORDER: the write-ahead log of the old journal is removed before the new journal is in place, because it must not be applied
    // to the new one.
    for name in ["journal.db-wal", "journal.db-shm"] {
        let _ = std::fs::remove_file(home.dir.join(name));
    }
    std::fs::rename(&fresh, home.journal()).map_err(failed)?;
    for suffix in ["wal", "shm"] {
        let from = home.dir.join(format!("journal.restoring-{suffix}"));
        let to = home.dir.join(format!("journal.db-{suffix}"));
        let _ = std::fs::rename(from, to);
    }
    beats.write(Head { incarnation: restored.incarnation, revision: restored.head, chain }, restored.at);
    // Tokens carry whole seconds, so the issuer refuses tokens of this second. Waiting for the next one makes every token valid
    // that is issued after this command.
    let second = clock.seconds();
    while clock.seconds() <= second {
        std::thread::sleep(Duration::from_millis(20));
    }
    let since: Vec<Closed> = restored.closed.iter().map(|target| Closed::of(target, &names)).collect();
    let object = json!({
        "incarnation": restored.incarnation.to_string(),
        "revision": restored.head,
        "kept": kept,
        "copied_at": output::time(restored.copied / SECOND),
        "closed_since": since.iter().map(Closed::object).collect::<Vec<_>>(),
        "closed_since_unknown": missing,
        "classes_closed": args.closed,
    });
    output::print(global.output, &object, || {
        let mut lines = vec![format!(
            "restored: a new incarnation of the journal begins at revision {}; everything issued before is revoked, and \
             workloads must join again",
            restored.head
        )];
        lines.extend(since.iter().map(|closed| format!("closed after the copy was made, and closed still: {closed}")));
        if let Some(cause) = &missing {
            lines.push(format!(
                "whoever else was closed after {} is open again, because {cause}: `mayfly history --kind revocation --since` that time \
                 says who it was, and a restore with --closed keeps everybody out until you have looked",
                output::time(restored.copied / SECOND)
            ));
        }
        if args.closed {
            lines.push("every class is closed: `mayfly reopen --class CLASS` opens one".to_owned());
        }
        lines.extend(kept.iter().map(|kept| format!("the journal from before is `{}`", kept.display())));
        lines
    })
}

/// What the present journal has closed, and the revision of its last record. Fails, with the reason, if there is none or it cannot be read.
fn closed_in(home: &Home) -> Result<(Vec<Target>, u64), String> {
    if !home.journal().exists() {
        return Err("the journal that knew is gone".to_owned());
    }
    // A copy is read, because reading changes the files.
    let aside = home.dir.join("journal.reading");
    let _ = std::fs::remove_dir_all(&aside);
    let read = read_aside(home, &aside).map_err(|cause| format!("the journal that knew cannot be read ({cause})"));
    let _ = std::fs::remove_dir_all(&aside);
    read
}

fn read_aside(home: &Home, aside: &Path) -> Result<(Vec<Target>, u64), String> {
    std::fs::DirBuilder::new().mode(0o700).create(aside).map_err(|e| format!("`{}`: {e}", aside.display()))?;
    for name in ["journal.db", "journal.db-wal"] {
        match std::fs::copy(home.dir.join(name), aside.join(name)) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(format!("`{name}`: {e}")),
            _ => {}
        }
    }
    let state = replay(&mut Sqlite::open(&aside.join("journal.db"), None)?).map_err(|e| e.to_string())?;
    Ok((state.closed().cloned().collect(), state.revision))
}

/// A closed target as an operator names it.
struct Closed {
    kind: &'static str,
    name: String,
}

impl Closed {
    /// `names` holds the URL of each issuer of users by its configured name.
    fn of(target: &Target, names: &BTreeMap<String, String>) -> Closed {
        let issuer = |url: &String| names.iter().find(|(_, at)| *at == url).map_or_else(|| url.clone(), |(name, _)| name.clone());
        let (kind, name) = match target {
            Target::User(user) => ("user", format!("{}/{}", issuer(&user.iss), user.sub)),
            Target::Issuer(url) => ("issuer", issuer(url)),
            Target::Class(class) => ("class", class.to_string()),
            Target::Workload(workload) => ("workload", workload.to_string()),
            Target::Delegation(id) => ("delegation", id.to_string()),
            Target::Agent(id) => ("agent", id.to_string()),
            Target::TrustDomain => ("trust domain", String::new()),
            Target::Key(digest) => ("key", hex::encode(digest)),
            Target::Authority(id) => ("authority", hex::encode(id)),
            Target::Token(jti) => ("token", jti.clone()),
        };
        Closed { kind, name }
    }

    fn object(&self) -> serde_json::Value {
        json!({ "kind": self.kind, "name": self.name })
    }
}

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// Asks whether the present journal is to be replaced. A script gives `--yes`.
fn confirm(journal: &Path) -> Result<(), Failure> {
    let shown = journal.display();
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(format!(
            "there is a journal at `{shown}`: replace it with --yes; it is kept beside the new one"
        )));
    }
    let question = "and end everything that was issued? It is kept beside the new one. [yes/no] ";
    let asked =
        write!(std::io::stderr(), "Replace the journal at `{shown}`, {question}").and_then(|()| std::io::stderr().flush());
    asked.map_err(|e| e.to_string())?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(|e| e.to_string())?;
    if answer.trim() == "yes" { Ok(()) } else { Err(Failure::new(FAILURE, "nothing was changed")) }
}

/// Gives the present journal a second name, with its write-ahead log. Returns that name, or `None` if there was none.
fn keep(home: &Home, now: u64) -> Result<Option<PathBuf>, Failure> {
    if !home.journal().exists() {
        return Ok(None);
    }
    let name = format!("journal.before-{}.db", output::time(now).replace(':', "-"));
    // ORDER: hard links are made first and the old names are removed later, so an interruption at any moment leaves a complete
    // copy.
    for suffix in ["", "-wal", "-shm"] {
        let (from, to) = (home.dir.join(format!("journal.db{suffix}")), home.dir.join(format!("{name}{suffix}")));
        match std::fs::hard_link(&from, &to) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(format!("`{}`: {e}", to.display()).into()),
            _ => {}
        }
    }
    Ok(Some(home.dir.join(name)))
}
