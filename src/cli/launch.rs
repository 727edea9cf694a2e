//! `mayfly run`: an identity, and a command that has it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::{Acting, Scopes};

#[derive(Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pub(super) acting: Acting,
    /// Class of the agent
    #[arg(long, required_unless_present = "ticket", conflicts_with = "ticket")]
    pub(super) class: Option<String>,
    /// File with the user's ID token or at+jwt access token; `-` reads stdin. Not for children of an agent
    #[arg(long, value_name = "FILE", conflicts_with_all = ["autonomous", "ticket"])]
    pub(super) user_token: Option<PathBuf>,
    /// File with a ticket or join token, instead of spawning; `-` reads stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["autonomous", "identity"])]
    pub(super) ticket: Option<PathBuf>,
    /// In place of a user token: a delegation that an earlier one recorded for the same workload
    #[arg(long, value_name = "ID", conflicts_with_all = ["user_token", "autonomous", "ticket"])]
    pub(super) delegation: Option<String>,
    /// Act for nobody, where the class allows it
    #[arg(long)]
    pub(super) autonomous: bool,
    #[command(flatten)]
    pub(super) scopes: Scopes,
    /// Seconds between SIGTERM and SIGKILL when the tree is stopped
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(super) grace: u64,
    /// Also keep svid.pem, svid_key.pem and bundle.pem in this folder, replaced whole at each rotation
    #[arg(long, value_name = "DIR")]
    pub(super) files: Option<PathBuf>,
    /// What the command is sent when the files have changed: HUP, USR1, USR2 or WINCH
    #[arg(long, value_name = "SIGNAL", requires = "files")]
    pub(super) reload_signal: Option<String>,
    /// Run the command as another user, who cannot reach into this process: UID or UID:GID (root)
    #[arg(long, value_name = "UID[:GID]")]
    pub(super) uid: Option<String>,
    /// OID of the binding, if the issuer is configured with another
    #[arg(long, default_value = "1.3.6.1.4.1.32473.1")]
    pub(super) binding_oid: String,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, required = true, value_name = "CMD")]
    pub(super) command: Vec<OsString>,
}

#[cfg(not(target_os = "linux"))]
pub(super) async fn run(_: &super::Common, _: RunArgs) -> Result<(), super::Failure> {
    let message = "`mayfly run` is for Linux: elsewhere use `mayfly spawn --out DIR` and `mayfly renew --as DIR`";
    Err(super::Failure::new(1, message))
}

#[cfg(target_os = "linux")]
pub(super) use linux::run;

#[cfg(target_os = "linux")]
mod linux {
    use std::time::Duration;

    use mayfly_agent::api::v1;
    use mayfly_agent::channel::{ChannelSettings, connect};
    use mayfly_agent::identity::{Identity, IdentityError, Issuer};
    use mayfly_agent::ticket::Ticket;
    use mayfly_verify::BindingOid;
    use rustix::process::Signal;

    use super::super::act::{self, TIMEOUT};
    use super::super::{Common, Failure, USAGE};
    use super::RunArgs;
    use crate::config::LogFormat;
    use crate::run::{Launch, prepare, run as run_command};
    use crate::telemetry;

    impl From<IdentityError> for Failure {
        fn from(e: IdentityError) -> Failure {
            let code = match &e {
                IdentityError::Denied { .. } | IdentityError::Over(_) => 3,
                IdentityError::Connect(e) => return Failure::from(e.clone()),
                IdentityError::Unavailable(_) => 5,
                _ => 1,
            };
            Failure::new(code, e.to_string())
        }
    }

    pub(in super::super) async fn run(common: &Common, args: RunArgs) -> Result<(), Failure> {
        let oid: BindingOid = args.binding_oid.parse().map_err(|_| Failure::new(USAGE, "`--binding-oid` is no OID"))?;
        let launch = Launch {
            command: args.command.clone(),
            grace: Duration::from_secs(args.grace),
            files: args.files.clone(),
            reload: args.reload_signal.as_deref().map(signal).transpose()?,
            user: args.uid.as_deref().map(user).transpose()?,
            oid,
        };
        telemetry::logs(LogFormat::Text, &std::env::var("MAYFLY_LOG").unwrap_or_else(|_| "error".into()))?;
        // ORDER: before there is a key.
        prepare()?;
        let identity = obtain(common, &args).await?;
        // The command speaks for itself, also by how it ends.
        match run_command(identity, launch).await.map_err(|e| Failure::new(e.code, e.message))? {
            0 => Ok(()),
            code => Err(Failure::new(code, "")),
        }
    }

    async fn obtain(common: &Common, args: &RunArgs) -> Result<Identity, Failure> {
        if let Some(file) = &args.ticket {
            let text = zeroize::Zeroizing::new(act::read_text(file)?);
            let ticket = Ticket::parse(text.trim()).map_err(|e| e.to_string())?;
            return Ok(Identity::redeem(&ticket, TIMEOUT).await?);
        }
        let user_token = args.user_token.as_deref().map(act::read_text).transpose()?.unwrap_or_default();
        let request = v1::SpawnRequest {
            class: args.class.clone().unwrap_or_default(),
            user_token: user_token.trim().to_owned(),
            delegation: args.delegation.clone().unwrap_or_default(),
            mode: if args.autonomous { v1::Mode::Autonomous } else { v1::Mode::Unspecified }.into(),
            scopes: args.scopes.scopes.clone(),
            lease_seconds: args.scopes.lease,
            max_depth: args.scopes.max_depth,
            excess: if args.scopes.clip { v1::Excess::Clip } else { v1::Excess::Deny }.into(),
            ..Default::default()
        };
        let default = common.home.join("workloads").join("orchestrator");
        let dir = args.acting.identity.clone().unwrap_or(default);
        let settings = act::settings_of(common, &args.acting, &dir)?;
        let ChannelSettings { address, trust_domain, connect_timeout, .. } = &settings;
        let at = Issuer { address: address.clone(), trust_domain: trust_domain.clone(), connect_timeout: *connect_timeout };
        Ok(Identity::spawn(connect(settings).await?, at, request).await?)
    }

    fn signal(name: &str) -> Result<Signal, Failure> {
        match name.strip_prefix("SIG").unwrap_or(name) {
            "HUP" => Ok(Signal::HUP),
            "USR1" => Ok(Signal::USR1),
            "USR2" => Ok(Signal::USR2),
            "WINCH" => Ok(Signal::WINCH),
            _ => Err(Failure::new(USAGE, "`--reload-signal` is HUP, USR1, USR2 or WINCH")),
        }
    }

    /// Without a gid, the one that the system has for the user.
    fn user(text: &str) -> Result<(u32, u32), Failure> {
        let usage = |what: &str| Failure::new(USAGE, format!("`--uid {text}`: {what}"));
        if !rustix::process::geteuid().is_root() {
            return Err(usage("only root can run a command as another user"));
        }
        if let Some((uid, gid)) = text.split_once(':') {
            return uid.parse().ok().zip(gid.parse().ok()).ok_or_else(|| usage("give numbers, as 1000:1000"));
        }
        let uid: u32 = text.parse().map_err(|_| usage("give numbers, as 1000 or 1000:1000"))?;
        let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        // name:password:uid:gid:…
        let of = |line: &str| {
            let mut fields = line.split(':').skip(2);
            (fields.next()?.parse() == Ok(uid)).then(|| fields.next()?.parse().ok())?
        };
        let gid = users.lines().find_map(of).ok_or_else(|| usage("the system does not know this user: give the gid too"))?;
        Ok((uid, gid))
    }
}
