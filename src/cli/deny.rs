//! `mayfly deny`.

use mayfly_agent::api::v1;

use super::exit::Failure;
use super::global::Global;
use super::output;
use super::person::Person;

/// Deny what an agent asked for, with a token of your own
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    person: Person,
    /// The id of the approval, as `mayfly ask` and `mayfly approvals list` print it
    id: String,
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let (user_token, mut client) = args.person.client(global).await?;
    let got = client.deny(v1::DenyRequest { approval_id: args.id, user_token }).await?.into_inner();
    let approval = got.approval.ok_or_else(Failure::incomplete_answer)?;
    let object = output::approval::object(&approval);
    output::print(global.output, &object, || output::fields(&object))
}
