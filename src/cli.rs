//! The `mayfly` command. Results go to stdout, everything else to stderr.
//!
//! A command is one file: its arguments with their help, and the function that runs it. Below the commands are the files that
//! they share: `connect`, `output`, `exit` and the like. A command uses those, and neither another command nor this file;
//! `backup`, `history` and `policy` alone have commands below them.

mod agents;
mod approvals;
mod approve;
mod ask;
mod authority;
mod backup;
mod budget;
mod bundle;
mod classes;
mod completion;
mod config;
mod context;
mod crl;
mod cuts;
mod delegations;
mod deny;
mod deploy;
mod dev;
mod end;
mod exchange;
mod explain;
mod extend;
mod governance;
mod guard;
mod history;
mod introspect;
mod join;
mod journal;
mod keep;
mod login;
mod man;
mod mint;
mod my;
mod policy;
mod redeem;
mod relay;
mod reload;
mod renew;
mod reopen;
mod replay;
mod restore;
mod revoke;
mod run;
mod serve;
mod spawn;
mod status;
mod token;
mod verify;
mod watch;
mod what_if;
mod who_can;
mod whoami;
mod workloads;

mod bounded;
mod certified;
mod changes;
mod connect;
mod duration;
mod examples;
mod exit;
mod file;
mod found;
mod global;
mod happened;
mod heard;
mod keeping;
mod output;
mod person;
mod place;
mod request;
mod serving;
mod spiffe_id;
mod target;
mod user;
mod when;

use std::ffi::OsString;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use self::global::{Given, Global};

pub use self::exit::Failure;

/// Identities for short-lived AI agents: whom they act for, who spawned them, and how to revoke them
///
/// Start with `mayfly dev` in one terminal; it prints commands for another.
/// Exit codes: 0 done, 1 failure, 2 usage, 3 denied, 4 the credential is not valid, or our own has expired, 5 the issuer cannot be reached, 6 the
/// credential is revoked, 7 it is not known whether the credential is revoked. `mayfly run` exits as its command does.
#[derive(Parser)]
#[command(name = "mayfly", version = crate::VERSION, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

// The help of each command is the documentation of its `Args`.
#[derive(Subcommand)]
enum Command {
    Dev(dev::Args),
    Serve(serve::Args),
    Config(config::Args),
    Reload(reload::Args),
    Join(join::Args),
    Redeem(redeem::Args),
    Renew(renew::Args),
    Keep(keep::Args),
    Spawn(spawn::Args),
    Run(run::Args),
    Mint(mint::Args),
    Exchange(exchange::Args),
    Introspect(introspect::Args),
    Ask(ask::Args),
    Approve(approve::Args),
    Deny(deny::Args),
    Approvals(approvals::Args),
    End(end::Args),
    Extend(extend::Args),
    My(my::Args),
    Login(login::Args),
    Context(context::Args),
    Whoami(whoami::Args),
    Status(status::Args),
    Agents(agents::Args),
    Revoke(revoke::Args),
    Reopen(reopen::Args),
    Cuts(cuts::Args),
    Crl(crl::Args),
    Explain(Box<explain::Args>),
    WhoCan(who_can::Args),
    WhatIf(what_if::Args),
    Replay(replay::Args),
    Governance(governance::Args),
    History(history::Args),
    Delegations(delegations::Args),
    Workloads(workloads::Args),
    Classes(classes::Args),
    Watch(watch::Args),
    Relay(relay::Args),
    Guard(guard::Args),
    Deploy(deploy::Args),
    Authority(authority::Args),
    Policy(policy::Args),
    Budget(budget::Args),
    Bundle(bundle::Args),
    Verify(verify::Args),
    Token(token::Args),
    Backup(backup::Args),
    Journal(journal::Args),
    Completion(completion::Args),
    Man(man::Args),
}

/// The command line, with an example at the end of each help.
fn command() -> clap::Command {
    examples::add(Cli::command())
}

/// Reads the command line of this process. Fails with the exit code if there is nothing more to do, because the help, the version
/// or an error was printed.
pub fn parse() -> Result<Cli, u8> {
    let parsed = command().try_get_matches().and_then(|matches| {
        let mut cli = Cli::from_arg_matches(&matches)?;
        cli.global.home_given = Given::of(matches.value_source("home"));
        Ok(cli)
    });
    parsed.map_err(|error| {
        let code = u8::try_from(error.exit_code()).unwrap_or(exit::USAGE);
        if code == exit::USAGE && wants_json(std::env::args_os()) {
            Failure::usage(error.render().to_string().trim_end()).tell(true);
        } else {
            // If this fails, nobody reads the output.
            let _ = error.print();
        }
        code
    })
}

/// Whether a command line that cannot be read asks for JSON. Arguments after `--` belong to another command.
fn wants_json(arguments: impl Iterator<Item = OsString>) -> bool {
    let all: Vec<OsString> = arguments.take_while(|argument| argument != "--").collect();
    let pair = |pair: &[OsString]| matches!(pair, [option, value] if (option == "-o" || option == "--output") && value == "json");
    all.windows(2).any(pair)
        || all.iter().any(|argument| ["--output=json", "-ojson", "-o=json"].iter().any(|json| argument == json))
}

impl Cli {
    /// Whether its output is for programs.
    pub fn is_json(&self) -> bool {
        self.global.output == output::Format::Json
    }

    /// Whether the command needs several threads: it serves many callers, or must continue while a reader of its output is slow.
    pub fn needs_threads(&self) -> bool {
        matches!(self.command, Command::Dev(_) | Command::Serve(_) | Command::Relay(_) | Command::Guard(_) | Command::Watch(_))
    }
}

/// Runs one command to its end.
pub async fn main(cli: Cli) -> Result<(), Failure> {
    // An error means that a provider is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let global = &cli.global;
    match cli.command {
        Command::Dev(args) => dev::run(args, global).await,
        Command::Serve(args) => serve::run(args).await,
        Command::Config(args) => config::run(args, global).await,
        Command::Reload(args) => reload::run(args, global).await,
        Command::Join(args) => join::run(args, global).await,
        Command::Redeem(args) => redeem::run(args, global).await,
        Command::Renew(args) => renew::run(args, global).await,
        Command::Keep(args) => keep::run(args, global).await,
        Command::Spawn(args) => spawn::run(args, global).await,
        Command::Run(args) => run::run(args, global).await,
        Command::Mint(args) => mint::run(args, global).await,
        Command::Exchange(args) => exchange::run(args, global).await,
        Command::Introspect(args) => introspect::run(args, global).await,
        Command::Ask(args) => ask::run(args, global).await,
        Command::Approve(args) => approve::run(args, global).await,
        Command::Deny(args) => deny::run(args, global).await,
        Command::Approvals(args) => approvals::run(args, global).await,
        Command::End(args) => end::run(args, global).await,
        Command::Extend(args) => extend::run(args, global).await,
        Command::My(args) => my::run(args, global).await,
        Command::Login(args) => login::run(args, global).await,
        Command::Context(args) => context::run(args, global).await,
        Command::Whoami(args) => whoami::run(args, global).await,
        Command::Status(args) => status::run(args, global).await,
        Command::Agents(args) => agents::run(args, global).await,
        Command::Revoke(args) => revoke::run(args, global).await,
        Command::Reopen(args) => reopen::run(args, global).await,
        Command::Cuts(args) => cuts::run(args, global).await,
        Command::Crl(args) => crl::run(args, global).await,
        Command::Explain(args) => explain::run(*args, global).await,
        Command::WhoCan(args) => who_can::run(args, global).await,
        Command::Replay(args) => replay::run(args, global).await,
        Command::Governance(args) => governance::run(args, global).await,
        Command::WhatIf(args) => what_if::run(args, global).await,
        Command::History(args) => history::run(args, global).await,
        Command::Delegations(args) => delegations::run(args, global).await,
        Command::Workloads(args) => workloads::run(args, global).await,
        Command::Classes(args) => classes::run(args, global).await,
        Command::Watch(args) => watch::run(args, global).await,
        Command::Guard(args) => guard::run(args, global).await,
        Command::Deploy(args) => deploy::run(&args),
        Command::Relay(args) => relay::run(args, global).await,
        Command::Authority(args) => authority::run(args, global).await,
        Command::Policy(args) => policy::run(args, global).await,
        Command::Budget(args) => budget::run(args, global).await,
        Command::Bundle(args) => bundle::run(args, global).await,
        Command::Verify(args) => verify::run(args, global).await,
        Command::Token(args) => token::run(args, global).await,
        Command::Backup(args) => backup::run(args, global).await,
        Command::Journal(args) => journal::run(&args, global),
        Command::Completion(args) => completion::run(&args, command()),
        Command::Man(args) => man::run(&args, command()),
    }
}
