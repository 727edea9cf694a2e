//! `mayfly approve`.

use mayfly_agent::api::v1;

use super::ask;
use super::exit::{FAILURE, Failure};
use super::global::Global;
use super::output;
use super::person::Person;

/// Approve what an agent asked for, with a token of your own
///
/// It prints what is approved. The answer carries the digest of what was printed, so nothing else can be approved by it.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    person: Person,
    /// The id of the approval, as `mayfly ask` and `mayfly approvals list` print it
    id: String,
    /// The digest of the approval as you have seen it before; if it has changed, nothing is approved
    #[arg(long, value_name = "SHA256")]
    digest: Option<String>,
    /// Approve only this: an action as JSON within one that was asked for; may be given several times
    #[arg(long = "action", value_name = "JSON")]
    actions: Vec<String>,
    /// Approve only this scope, and the others that are given
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let (user_token, mut client) = args.person.client(global).await?;
    let request = v1::GetApprovalRequest { approval_id: args.id.clone(), user_token: user_token.clone() };
    let shown = client.get_approval(request).await?.into_inner().approval.ok_or_else(Failure::incomplete_answer)?;
    // The digest is computed here from what was read, and not taken from the issuer.
    let own = output::approval::digest(&shown);
    let digest = args.digest.or(own).ok_or_else(|| Failure::new(FAILURE, "the issuer's answer cannot be read"))?;
    let narrowed = if args.actions.is_empty() && args.scopes.is_empty() {
        None
    } else {
        Some(v1::Narrowed { authorization_details: ask::details(&args.actions)?, scopes: args.scopes })
    };
    let request = v1::ApproveRequest { approval_id: args.id, user_token, digest, narrowed };
    let got = client.approve(request).await?.into_inner();
    let approval = got.approval.ok_or_else(Failure::incomplete_answer)?;
    let object = output::approval::object(&approval);
    output::print(global.output, &object, || output::fields(&object))
}
