//! `mayfly reopen`.

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::operations_client::OperationsClient;
use mayfly_agent::api::v1::reopen_request::Target as WireTarget;
use serde_json::json;

use super::connect::{self, Acting};
use super::exit::Failure;
use super::global::Global;
use super::{output, user, when};

/// Let a revoked user, issuer of users, workload or class have new agents; what was revoked stays revoked (operator)
///
/// For a user or an issuer of users, only tokens that are issued from now on are accepted.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    acting: Acting,
    #[command(flatten)]
    target: Target,
}

// No documentation comment: clap would show it as the help of the command.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Target {
    /// A user, as <issuer's configured name>/<subject>
    #[arg(long, value_name = "ISSUER/SUB")]
    user: Option<String>,
    /// An issuer of users, by its configured name or URL
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// A workload: its name, or the SPIFFE ID of a foreign one
    #[arg(long, alias = "root", value_name = "NAME")]
    workload: Option<String>,
    /// A class
    #[arg(long, value_name = "CLASS")]
    class: Option<String>,
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let target = args.target.wire()?;
    let of_user = matches!(target, WireTarget::User(_) | WireTarget::Issuer(_));
    let channel = connect::as_identity_or_operator(global, &args.acting).await?;
    let request = v1::ReopenRequest { target: Some(target), ..Default::default() };
    let got = OperationsClient::new(channel).reopen(request).await?.into_inner();
    if of_user {
        // Tokens carry whole seconds, so the issuer refuses tokens of the second in which this was recorded. Waiting for the next
        // second makes every token valid that is issued after this command.
        when::second_after(got.recorded_at.as_ref().map_or(0, |at| at.seconds)).await;
    }
    let object = json!({
        "revision": got.revision,
        "recorded_at": output::timestamp(got.recorded_at.as_ref()),
    });
    let note = if of_user { ", for user tokens issued from now on" } else { "; what was revoked stays revoked" };
    output::print(global.output, &object, || format!("open again at revision {}{note}", got.revision))
}

impl Target {
    fn wire(self) -> Result<WireTarget, Failure> {
        match self {
            Target { user: Some(text), .. } => Ok(WireTarget::User(user::parse(&text)?)),
            Target { issuer: Some(name), .. } => Ok(WireTarget::Issuer(name)),
            Target { workload: Some(name), .. } => Ok(WireTarget::Workload(name)),
            Target { class: Some(name), .. } => Ok(WireTarget::Class(name)),
            _ => Err(Failure::usage("say what to reopen: --user, --issuer, --workload or --class")),
        }
    }
}
