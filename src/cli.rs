//! The `mayfly` command: what people type. Results go to stdout, everything else to stderr.

mod act;
mod authority;
mod launch;
mod relay;
mod revoke;
mod run;
mod show;
mod verify;
mod watch;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use mayfly_agent::api::v1;

/// Exit code of a usage error, as clap has it.
pub const USAGE: u8 = 2;
/// Exit code of `verify --live` for a credential that is revoked.
pub const REVOKED: u8 = 6;
/// Exit code of `verify --live` when whether a credential is revoked is not known.
pub const STALE: u8 = 7;

/// Why a command failed, with its exit code.
#[derive(Debug)]
pub struct Failure {
    /// 1 failure, 2 usage, 3 denied, 4 the credential does not hold, 5 the issuer cannot be reached, 6 revoked, 7 unknown whether;
    /// what the command of `run` ended with.
    pub code: u8,
    /// What happened and what to do; empty when that was said already.
    pub message: String,
}

impl Failure {
    fn new(code: u8, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into() }
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Failure {
        Failure::new(1, message)
    }
}

/// Identities for short-lived AI agents: whom they act for, who spawned them, and how to take them back.
///
/// Begin with `mayfly dev` in one terminal; it prints commands for another.
/// Exit codes: 0 done, 1 failure, 2 usage, 3 denied, 4 the credential does not hold, 5 the issuer cannot be reached, 6 the
/// credential is revoked, 7 whether it is revoked is not known. `mayfly run` ends as its command does.
#[derive(Parser)]
#[command(name = "mayfly", version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args, Clone)]
struct Common {
    /// Folder of all state; other commands find the issuer through it
    #[arg(long, global = true, env = "MAYFLY_HOME", default_value = ".mayfly", value_name = "DIR")]
    home: PathBuf,
    /// Print for people or for programs
    #[arg(short, long, global = true, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Run a development trust domain: issuer, journal and OpenID provider in one process
    Dev {
        /// Address for gRPC; port 0 takes a free one and keeps it
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// File that adds classes, workloads and limits
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Run the issuer for real
    Serve {
        /// Its configuration; see `mayfly config example`
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Check a configuration, or print an example
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make a join token with which a workload fetches its first identity (operator)
    Join {
        /// Name of a configured workload
        workload: String,
        /// Seconds it lasts, at most 600
        #[arg(long, default_value_t = 0, hide_default_value = true)]
        ttl: u64,
    },
    /// Redeem a ticket or join token for an identity in a folder
    Redeem {
        /// File with the ticket; `-` reads stdin
        #[arg(long, value_name = "FILE")]
        ticket_file: PathBuf,
        /// Folder for svid.pem, key.pem, bundle.pem, bundle.json
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Renew an identity in place, with a fresh key
    ///
    /// The lease of an agent stays where it is. Once the new certificate was used, the old one is over: whoever connects with
    /// it holds a copy, and the agent is revoked.
    Renew {
        #[command(flatten)]
        acting: Acting,
    },
    /// Spawn agents and write their identities
    ///
    /// A workload spawns for a user, whose token it brings. With `--as` an agent's folder the new agent is its child: it acts
    /// for the same user, and may do no more than its parent.
    Spawn(SpawnArgs),
    /// Run a command with an identity of its own, which rotates by itself and ends with the command (Linux)
    ///
    /// The command and what it starts find the identity where SPIFFE clients look for it: SPIFFE_ENDPOINT_SOCKET names a
    /// socket with the SPIFFE Workload API, which serves this tree of processes and nobody else. Signals and terminal are the
    /// command's, its exit code is ours (128 + n after signal n). When the identity is revoked the tree gets SIGTERM, and
    /// SIGKILL after --grace; when the command ends, what it left behind is stopped in the same way, and then the identity is
    /// ended at the issuer. It works as PID 1.
    ///
    /// Processes of one user can look into each other: where the command is not trusted with what else this user has, start
    /// as root and give it a user of its own with --uid.
    Run(launch::RunArgs),
    /// Mint a JWT-SVID for one audience, as an agent
    Mint {
        #[command(flatten)]
        acting: Acting,
        /// Who will read the token
        #[arg(long, value_name = "URL")]
        audience: String,
        /// File for the token; without it the token goes to stdout
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Makes a retry the same token
        #[arg(long, default_value = "", hide_default_value = true)]
        request_id: String,
    },
    /// End an agent: itself with --as, any with an id (operator)
    End {
        #[command(flatten)]
        acting: Acting,
        /// SPIFFE ID or UUID; without it, the identity of --as itself
        agent: Option<String>,
    },
    /// See the agents that the issuer knows (operator)
    #[command(subcommand)]
    Agents(AgentsCommand),
    /// Revoke an agent, or everything of a user, a workload, a class, a delegation or a key
    ///
    /// Everything below goes with it, in one step. A user, a workload or a class is also closed for new agents until
    /// `mayfly reopen`, unless --allow-new. Agents, delegations and keys never come back. An operator may revoke all of these;
    /// with --as, an agent itself and those below it, a workload its own agents, a workload that is configured as an operator
    /// everything; with --user-token, a user themself, their
    /// delegations and the agents that act for them.
    Revoke {
        #[command(flatten)]
        acting: Acting,
        /// File with the revoking user's own token, for an audience that is configured for that; `-` reads stdin
        #[arg(long, value_name = "FILE", conflicts_with = "identity")]
        user_token: Option<PathBuf>,
        /// Trust bundle (PEM) for --user-token; without it, the one of the issuer of the home
        #[arg(long, value_name = "FILE", requires = "user_token")]
        bundle: Option<PathBuf>,
        #[command(flatten)]
        target: RevokeTarget,
        /// Why; recorded, never shown to callers
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
        /// Revoke what is out, but leave the user, workload or class open for new agents
        #[arg(long)]
        allow_new: bool,
        /// Revoke nothing: say which live agents would end, by class and by user
        #[arg(long)]
        dry_run: bool,
    },
    /// Let a revoked user, workload or class have new agents; what was revoked stays revoked (operator)
    ///
    /// Of a user, only tokens count that are issued from now on.
    Reopen {
        #[command(flatten)]
        acting: Acting,
        #[command(flatten)]
        target: ReopenTarget,
    },
    /// See what is revoked, by whom and why (operator)
    #[command(subcommand)]
    Cuts(CutsCommand),
    /// Print every revocation as it happens, and a heartbeat every second (operator)
    ///
    /// This is what verifiers follow: whom a cut is about stands there only as a digest.
    Watch,
    /// Hand the feed of revocations on to many verifiers
    ///
    /// A relay verifies what it hears and forwards it as it was signed; it can make nothing up, and leaving something out or
    /// playing it again is noticed. It listens with the identity in a folder, which it renews, for peers of its trust domain.
    Relay {
        #[command(flatten)]
        acting: Acting,
        /// Where verifiers connect
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
    /// See the signing keys, and rotate them now (operator)
    ///
    /// They rotate by themselves: the next one is prepared and published, signs when verifiers have had time to see it, and
    /// stays listed until the last credential of its predecessor has expired.
    #[command(subcommand)]
    Authority(AuthorityCommand),
    /// Print the trust bundle
    Bundle {
        /// SPIFFE bundle document, PEM roots, or a JWK Set for OIDC relying parties
        #[arg(long, value_enum, default_value = "spiffe")]
        format: BundleFormat,
    },
    /// Verify an X.509-SVID or JWT-SVID offline; exits 0 only if it holds now
    ///
    /// With --live it is also held against what is revoked, as a strict verifier does: exit code 6 if it is revoked, 7 if
    /// nothing fresh was heard (operator).
    Verify {
        /// svid.pem or a file with a JWT-SVID
        file: PathBuf,
        /// bundle.json; without it, the one beside the file
        #[arg(long, value_name = "FILE")]
        bundle: Option<PathBuf>,
        /// The audience that a JWT-SVID must be for
        #[arg(long, value_name = "URL")]
        audience: Option<String>,
        /// OID of the binding, if the issuer is configured with another
        #[arg(long, default_value = "1.3.6.1.4.1.32473.1")]
        binding_oid: String,
        /// Also against what is revoked at the issuer of the home
        #[arg(long)]
        live: bool,
    },
    /// Print an ID token of a user of the development provider
    Token {
        /// `demo` or `guest`
        user: String,
        /// Of which audience; `mayfly-dev-revoke` is for `mayfly revoke --user-token`
        #[arg(long, default_value = crate::dev::provider::AUDIENCE)]
        audience: String,
    },
    /// Copy the journal of a running issuer, or put a copy back
    Backup {
        #[command(subcommand)]
        restore: Option<BackupCommand>,
        /// New file for the copy, on the issuer's machine
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Report every fault of a file at once
    Check {
        /// The file
        file: PathBuf,
    },
    /// Print a complete, commented file
    Example,
}

#[derive(Subcommand)]
enum AgentsCommand {
    /// One line for each agent
    List {
        /// Also those that ended, expired or were revoked
        #[arg(long)]
        all: bool,
    },
    /// Workloads with the agents below them
    Tree {
        /// Also those that ended, expired or were revoked
        #[arg(long)]
        all: bool,
    },
    /// All that is known of one agent
    Show {
        /// SPIFFE ID or UUID
        agent: String,
    },
}

#[derive(Subcommand)]
enum CutsCommand {
    /// One line for each revocation that still matters, in the order in which they were made
    List {
        #[command(flatten)]
        acting: Acting,
    },
}

#[derive(Subcommand)]
enum AuthorityCommand {
    /// One line for each authority
    List,
    /// Make and publish the next one of a kind; it signs when it has been published for long enough
    Prepare {
        /// x509 or jwt
        #[arg(value_enum)]
        kind: Kind,
    },
    /// Let the prepared one sign; the one that does retires
    Activate {
        /// x509 or jwt
        #[arg(value_enum)]
        kind: Kind,
        /// Also before verifiers can be expected to know it
        #[arg(long)]
        now: bool,
    },
    /// Prepare and activate: at once for x509, for jwt when the key has been published for long enough
    Rotate {
        /// x509 or jwt
        #[arg(value_enum)]
        kind: Kind,
        /// Also before verifiers can be expected to know it
        #[arg(long)]
        now: bool,
    },
    /// Withdraw a prepared one
    Retire {
        /// As `mayfly authority list` has it
        id: String,
    },
    /// Its key is out: nothing it ever signed holds any more. For the active one, rotate --now first
    Taint {
        /// As `mayfly authority list` has it
        id: String,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    X509,
    Jwt,
}

#[derive(Subcommand)]
enum BackupCommand {
    /// Put a copy in the place of the journal of a stopped issuer: a new life begins and everything issued before is dead
    Restore {
        /// A file that `mayfly backup --out` wrote
        file: PathBuf,
        /// The configuration of `serve`; without it, the home is a development one
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum BundleFormat {
    Spiffe,
    Pem,
    Jwks,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct RevokeTarget {
    /// An agent with everything below it, by its SPIFFE ID or UUID
    #[arg(long, visible_alias = "subtree", value_name = "ID")]
    agent: Option<String>,
    /// A user, as <issuer's configured name>/<subject>
    #[arg(long, value_name = "ISSUER/SUB")]
    user: Option<String>,
    /// All agents below a workload: its name, or the SPIFFE ID of a foreign one
    #[arg(long, alias = "workload", value_name = "NAME")]
    root: Option<String>,
    /// All agents of a class and everything below them
    #[arg(long, value_name = "CLASS")]
    class: Option<String>,
    /// All agents of a delegation; `mayfly agents show` prints its id
    #[arg(long, value_name = "ID")]
    delegation: Option<String>,
    /// A certified public key, by the SHA-256 of its SubjectPublicKeyInfo in hex
    #[arg(long, value_name = "SHA256")]
    key: Option<String>,
    /// A signing key that has retired: nothing it ever signed holds. Same as `mayfly authority taint`
    #[arg(long, value_name = "ID")]
    authority: Option<String>,
    /// Everything recorded before a time: agents, delegations, join tokens. RFC 3339, such as 2026-11-25T12:00:00Z, or `now`
    #[arg(long, value_name = "TIME")]
    before: Option<String>,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct ReopenTarget {
    /// A user, as <issuer's configured name>/<subject>
    #[arg(long, value_name = "ISSUER/SUB")]
    user: Option<String>,
    /// A workload: its name, or the SPIFFE ID of a foreign one
    #[arg(long, alias = "root", value_name = "NAME")]
    workload: Option<String>,
    /// A class
    #[arg(long, value_name = "CLASS")]
    class: Option<String>,
}

#[derive(Args)]
struct Acting {
    /// Act with the identity in this folder
    #[arg(long = "as", value_name = "DIR")]
    identity: Option<PathBuf>,
    /// host:port of the issuer; without it, the one of the home
    #[arg(long, env = "MAYFLY_SERVER", value_name = "ADDRESS")]
    server: Option<String>,
}

#[derive(Args)]
struct Scopes {
    /// What the agent may do; repeat, or leave out for all that is allowed
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// Seconds the agent may live; 0: as long as allowed
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    lease: u64,
    /// Levels of agents that may stand below it
    #[arg(long)]
    max_depth: Option<u32>,
    /// Take what can be given instead of being denied
    #[arg(long)]
    clip: bool,
}

#[derive(Args)]
struct SpawnArgs {
    #[command(flatten)]
    acting: Acting,
    /// Class of the agent
    #[arg(long)]
    class: String,
    /// File with the user's ID token or at+jwt access token; `-` reads stdin. Not for children of an agent
    #[arg(long, value_name = "FILE", conflicts_with = "autonomous")]
    user_token: Option<PathBuf>,
    /// In place of a user token: a delegation that an earlier one recorded for the same workload; `mayfly agents show` prints its id
    #[arg(long, value_name = "ID", conflicts_with_all = ["user_token", "autonomous"])]
    delegation: Option<String>,
    /// Act for nobody, where the class allows it
    #[arg(long)]
    autonomous: bool,
    #[command(flatten)]
    scopes: Scopes,
    /// Also mint a first JWT-SVID for this audience
    #[arg(long, value_name = "URL")]
    audience: Option<String>,
    /// Makes a retry the same agent (with the same key: only for programs that keep theirs)
    #[arg(long, default_value = "", hide = true)]
    request_id: String,
    /// Spawn so many in one batch, into DIR/0001, DIR/0002, …; prints a line for each as it is signed
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    count: Option<u32>,
    /// Write DIR/ticket and nothing else: the agent's process fetches its identity with `mayfly redeem`
    #[arg(long, conflicts_with = "audience")]
    ticket: bool,
    /// Folder for svid.pem, key.pem, bundle.pem, bundle.json and svid.jwt
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Cli {
    /// Whether this goes on beside something that may wait: many callers, or whoever reads the output.
    pub fn needs_threads(&self) -> bool {
        matches!(self.command, Command::Dev { .. } | Command::Serve { .. } | Command::Relay { .. } | Command::Watch)
    }
}

/// Runs one command to its end.
pub async fn main(cli: Cli) -> Result<(), Failure> {
    // An error means that there is a provider already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let common = cli.common;
    match cli.command {
        Command::Dev { listen, config } => run::dev(&common, listen, config.as_deref()).await,
        Command::Serve { config } => run::serve(&config).await,
        Command::Config(ConfigCommand::Check { file }) => run::check(&file),
        Command::Config(ConfigCommand::Example) => show::line(crate::config::EXAMPLE.trim_end()),
        Command::Join { workload, ttl } => act::join(&common, workload, ttl).await,
        Command::Redeem { ticket_file, out } => act::redeem(&common, &ticket_file, &out).await,
        Command::Renew { acting } => act::renew(&common, &acting).await,
        Command::Spawn(args) => act::spawn(&common, args).await,
        Command::Run(args) => launch::run(&common, args).await,
        Command::Mint { acting, audience, out, request_id } => {
            act::mint(&common, &acting, audience, out.as_deref(), request_id).await
        }
        Command::End { acting, agent } => act::end(&common, &acting, agent).await,
        Command::Agents(AgentsCommand::List { all }) => act::list(&common, all, false).await,
        Command::Agents(AgentsCommand::Tree { all }) => act::list(&common, all, true).await,
        Command::Agents(AgentsCommand::Show { agent }) => act::agent(&common, agent).await,
        Command::Revoke { target: RevokeTarget { authority: Some(_), .. }, dry_run: true, .. } => {
            Err(Failure::new(USAGE, "--dry-run counts agents; an authority has none of its own"))
        }
        Command::Revoke { target: RevokeTarget { authority: Some(id), .. }, .. } => {
            authority::run(&common, AuthorityCommand::Taint { id }).await
        }
        Command::Revoke { acting, user_token, bundle, target, reason, allow_new, dry_run } => {
            let by = revoke::By { acting, user_token, bundle };
            revoke::cut(&common, &by, target, v1::RevokeRequest { reason, allow_new, dry_run, ..Default::default() }).await
        }
        Command::Cuts(CutsCommand::List { acting }) => revoke::list(&common, &acting).await,
        Command::Reopen { acting, target } => revoke::reopen(&common, &acting, target).await,
        Command::Watch => watch::run(&common).await,
        Command::Relay { acting, listen } => relay::run(&common, &acting, listen).await,
        Command::Authority(command) => authority::run(&common, command).await,
        Command::Bundle { format } => act::bundle(&common, format).await,
        Command::Verify { file, bundle, audience, binding_oid, live } => {
            verify::verify(&common, &file, bundle.as_deref(), audience.as_deref(), &binding_oid, live).await
        }
        Command::Token { user, audience } => act::token(&common, &user, &audience).await,
        Command::Backup { restore: Some(BackupCommand::Restore { file, config }), .. } => {
            run::restore(&common, &file, config.as_deref())
        }
        Command::Backup { out: Some(out), .. } => act::backup(&common, &out).await,
        Command::Backup { .. } => {
            Err(Failure::new(USAGE, "say where to: mayfly backup --out FILE, or mayfly backup restore FILE"))
        }
    }
}
