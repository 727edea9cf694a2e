//! `mayfly run`.

use std::ffi::OsString;
use std::path::PathBuf;

use super::connect::Acting;
use super::duration::Length;
use super::exit::Failure;
use super::global::Global;
use super::request::Limits;

/// Run a command with an identity of its own, which rotates by itself and ends with the command (Linux)
///
/// The command and what it starts find the identity where SPIFFE clients look for it: SPIFFE_ENDPOINT_SOCKET names a
/// socket with the SPIFFE Workload API, which serves this tree of processes and nobody else. The command gets the signals and
/// the terminal, and `mayfly run` exits with its exit code (128 + n after signal n). When the identity is revoked the tree gets
/// SIGTERM, and SIGKILL after --grace; when the command ends, the processes that it left behind are stopped in the same way, and
/// then the identity is ended at the issuer. `mayfly run` works as PID 1.
///
/// Processes of one user can read each other's memory. If the command must not reach other processes of this user, start as root
/// and give the command a user of its own with --uid.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    acting: Acting,
    /// Class of the agent. Without it and with --as, the command gets the identity in that folder, which is kept there
    #[arg(long, required_unless_present_any = ["ticket", "identity"], conflicts_with = "ticket")]
    class: Option<String>,
    /// File with the user's ID token or at+jwt access token; `-` reads stdin. Not for children of an agent
    #[arg(long, value_name = "FILE", conflicts_with_all = ["autonomous", "ticket"])]
    user_token: Option<PathBuf>,
    /// File with a ticket or join token, instead of spawning; `-` reads stdin. With --as it is redeemed into that folder at the
    /// first start, and later starts use the identity there
    #[arg(long, value_name = "FILE", conflicts_with = "autonomous")]
    ticket: Option<PathBuf>,
    /// Instead of a user token: the delegation that an earlier token recorded for the same workload
    #[arg(long, value_name = "ID", conflicts_with_all = ["user_token", "autonomous", "ticket"])]
    delegation: Option<String>,
    /// Act for nobody, if the class allows that
    #[arg(long)]
    autonomous: bool,
    #[command(flatten)]
    limits: Limits,
    /// How long after SIGTERM comes SIGKILL when the tree is stopped
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    grace: Length,
    /// Also keep svid.pem, svid_key.pem and bundle.pem in this folder, replaced whole at each rotation; federated.NAME.pem with the
    /// roots of each foreign trust domain, and bundle_map.json with all of them for gRPC. With --uid the folder
    /// belongs to that user or to root, and no link of that user leads to it
    #[arg(long, value_name = "DIR")]
    files: Option<PathBuf>,
    /// Keep a JWT-SVID for this audience in a file of mode 0600, replaced as a whole at half of its life and removed at the end;
    /// repeatable
    #[arg(long, value_name = "AUDIENCE=FILE")]
    jwt: Vec<String>,
    /// Give the SDKs of a system a token file and their variables: aws, gcp, azure, anthropic, openai, kubernetes, vault or
    /// snowflake; with =AUDIENCE for an audience other than the system's usual one; repeatable
    #[arg(long = "for", value_name = "SYSTEM")]
    systems: Vec<String>,
    /// Signal for the command when the files have changed: HUP, USR1, USR2 or WINCH
    #[arg(long, value_name = "SIGNAL", requires = "files")]
    reload_signal: Option<String>,
    /// Run the command as another user, who cannot read the memory of this process: UID or UID:GID (root)
    #[arg(long, value_name = "UID[:GID]")]
    uid: Option<String>,
    /// OID of the binding, if the issuer is configured with another
    #[arg(long, default_value = "1.3.6.1.4.1.32473.1")]
    binding_oid: String,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

#[cfg(not(target_os = "linux"))]
pub(super) async fn run(_: Args, _: &Global) -> Result<(), Failure> {
    let message = "`mayfly run` is for Linux: elsewhere use `mayfly spawn --out DIR` and `mayfly renew --as DIR`";
    Err(Failure::new(super::exit::FAILURE, message))
}

#[cfg(target_os = "linux")]
pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    linux::run(args, global).await
}

#[cfg(target_os = "linux")]
mod linux {
    use std::path::Path;
    use std::time::Duration;

    use mayfly_agent::channel::connect;
    use mayfly_agent::identity::{Identity, Issuer};
    use mayfly_agent::ticket::Ticket;
    use mayfly_verify::BindingOid;
    use rustix::process::{Signal, geteuid};
    use zeroize::Zeroizing;

    use super::super::connect::{TIMEOUT, settings};
    use super::super::exit::Failure;
    use super::super::file;
    use super::super::global::Global;
    use super::super::request::{self, For};
    use super::Args;
    use crate::config::LogFormat;
    use crate::run::presets::Preset;
    use crate::run::tokens::Wanted;
    use crate::run::user::primary_group;
    use crate::run::{Launch, prepare, run as run_command};
    use crate::telemetry;

    pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
        let oid: BindingOid = args.binding_oid.parse().map_err(|_| Failure::usage("`--binding-oid` is no OID"))?;
        let mut launch = Launch {
            command: args.command.clone(),
            grace: Duration::from_secs(args.grace.seconds()),
            files: args.files.clone(),
            tokens: tokens(&args.jwt)?,
            presets: presets(&args.systems)?,
            reload: args.reload_signal.as_deref().map(signal).transpose()?,
            user: args.uid.as_deref().map(user).transpose()?,
            server: String::new(),
            oid,
            // The identity of a folder stays there for the next start.
            ends: args.acting.identity.is_none() || args.class.is_some(),
        };
        telemetry::logs(LogFormat::Text, &std::env::var("MAYFLY_LOG").unwrap_or_else(|_| "error".into()))?;
        for preset in &launch.presets {
            preset.hint().into_iter().for_each(|hint| tracing::error!("--for {}: {hint}", preset.name()));
        }
        // ORDER: the process is protected before there is a key, so that nothing can read the key from it.
        prepare()?;
        let folder = args.acting.identity.as_deref();
        let (identity, server) = match (&args.ticket, folder, &args.class) {
            (Some(file), Some(dir), _) if !dir.join("svid.pem").exists() => {
                let ticket = ticket(file)?;
                (Identity::redeem_into(&ticket, dir, TIMEOUT).await?, ticket.address().to_owned())
            }
            (Some(_), Some(dir), _) | (None, Some(dir), None) => keep(dir, &args, global).await?,
            (Some(file), None, _) => {
                let ticket = ticket(file)?;
                (Identity::redeem(&ticket, TIMEOUT).await?, ticket.address().to_owned())
            }
            _ => spawn(args, global).await?,
        };
        launch.server = server;
        // The command reports its own failures; we only pass on its exit code.
        match run_command(identity, launch).await.map_err(|e| Failure::new(e.code, e.message))? {
            0 => Ok(()),
            code => Err(Failure::new(code, "")),
        }
    }

    fn ticket(file: &Path) -> Result<Ticket, Failure> {
        let text = Zeroizing::new(file::read_text(file)?);
        Ok(Ticket::parse(text.trim()).map_err(|e| e.to_string())?)
    }

    /// Continues with the identity in a folder.
    async fn keep(dir: &Path, args: &Args, global: &Global) -> Result<(Identity, String), Failure> {
        // This fails with advice if the certificate has expired.
        let at = settings(global, args.acting.server.as_deref(), dir)?;
        Ok((Identity::keep(dir, Some(&at.address), TIMEOUT).await?, at.address))
    }

    async fn spawn(args: Args, global: &Global) -> Result<(Identity, String), Failure> {
        let spawner = request::spawner(global, &args.acting)?;
        let whom = For { user_token: args.user_token.as_deref(), delegation: args.delegation, autonomous: args.autonomous };
        let request = request::spawn(args.class.unwrap_or_default(), whom, args.limits, &spawner, global).await?;
        let settings = settings(global, args.acting.server.as_deref(), &spawner)?;
        let issuer = Issuer {
            address: settings.address.clone(),
            trust_domain: settings.trust_domain.clone(),
            connect_timeout: settings.connect_timeout,
        };
        let address = settings.address.clone();
        Ok((Identity::spawn(connect(settings).await?, issuer, request).await?, address))
    }

    fn tokens(texts: &[String]) -> Result<Vec<Wanted>, Failure> {
        let read = |text: &String| Wanted::parse(text).map_err(|e| Failure::usage(format!("`--jwt {text}`: {e}")));
        let wanted: Vec<Wanted> = texts.iter().map(read).collect::<Result<_, _>>()?;
        let twice = |(n, w): &(usize, &Wanted)| wanted.iter().take(*n).any(|other| other.file == w.file);
        match wanted.iter().enumerate().find(twice) {
            Some((_, w)) => Err(Failure::usage(format!("two tokens cannot be in one file: `{}`", w.file.display()))),
            None => Ok(wanted),
        }
    }

    fn presets(texts: &[String]) -> Result<Vec<Preset>, Failure> {
        let mut presets: Vec<Preset> = Vec::new();
        for text in texts {
            let env = |name: &str| std::env::var(name).ok();
            let preset = Preset::read(text, &env).map_err(|e| Failure::usage(format!("`--for {text}`: {e}")))?;
            if presets.iter().any(|other| other.name() == preset.name()) {
                return Err(Failure::usage(format!("`--for {}` is given twice", preset.name())));
            }
            presets.push(preset);
        }
        Ok(presets)
    }

    fn signal(name: &str) -> Result<Signal, Failure> {
        match name.strip_prefix("SIG").unwrap_or(name) {
            "HUP" => Ok(Signal::HUP),
            "USR1" => Ok(Signal::USR1),
            "USR2" => Ok(Signal::USR2),
            "WINCH" => Ok(Signal::WINCH),
            _ => Err(Failure::usage("`--reload-signal` is HUP, USR1, USR2 or WINCH")),
        }
    }

    /// Reads `--uid` as uid and gid. Without a gid, the one that the system has for the user.
    fn user(text: &str) -> Result<(u32, u32), Failure> {
        let usage = |what: &str| Failure::usage(format!("`--uid {text}`: {what}"));
        if !geteuid().is_root() {
            return Err(usage("only root can run a command as another user"));
        }
        if let Some((uid, gid)) = text.split_once(':') {
            return uid.parse().ok().zip(gid.parse().ok()).ok_or_else(|| usage("give numbers, as 1000:1000"));
        }
        let uid = text.parse().map_err(|_| usage("give numbers, as 1000 or 1000:1000"))?;
        let gid = primary_group(uid).ok_or_else(|| usage("the system does not know this user: give the gid too"))?;
        Ok((uid, gid))
    }
}
