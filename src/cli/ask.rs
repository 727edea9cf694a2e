//! `mayfly ask`.

use std::time::{Duration, Instant};

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::approvals_client::ApprovalsClient;
use serde_json::Value;

use super::connect::{self, Acting};
use super::duration::Length;
use super::exit::{DENIED, Failure};
use super::global::Global;
use super::output;

/// Ask a person to approve one thing, as an agent
///
/// The class of the agent says what needs approval and who answers: the user for whom the agent acts, or people that it names. They
/// answer with `mayfly approve` or `mayfly deny`; an approval is used with `mayfly exchange --approval`.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    acting: Acting,
    /// Where the token is to be accepted
    #[arg(long, value_name = "URL")]
    audience: String,
    /// An action as JSON, such as '{"type":"payment","amount":"10.00","currency":"EUR"}'
    #[arg(long = "action", value_name = "JSON")]
    actions: Vec<String>,
    /// A scope that the class has only by approval
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// Why; the person is shown it
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    /// How long somebody may take to answer, such as 10m; without it, as long as the class allows
    #[arg(long, value_name = "DURATION", default_value = "0", hide_default_value = true)]
    expires: Length,
    /// Return when it is answered; exits 3 if it is denied or nobody answers in time
    #[arg(long)]
    wait: bool,
}

/// Pause between two polls of `--wait`.
const PAUSE: Duration = Duration::from_secs(1);
/// Limit of `--wait`, longer than any question waits for its answer.
const PATIENCE: Duration = Duration::from_secs(660);

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let dir = args.acting.required("say which agent asks with --as DIR")?;
    let channel = connect::as_identity(global, args.acting.server.as_deref(), dir).await?;
    let mut client = ApprovalsClient::new(channel);
    let request = v1::AskRequest {
        audience: args.audience,
        authorization_details: details(&args.actions)?,
        scopes: args.scopes,
        reason: args.reason,
        expires_seconds: args.expires.seconds(),
    };
    let asked = client.ask(request).await?.into_inner();
    let mut approval = asked.approval.ok_or_else(Failure::incomplete_answer)?;
    let (id, since) = (approval.approval_id.clone(), Instant::now());
    while args.wait && approval.state() == v1::ApprovalState::Pending && since.elapsed() < PATIENCE {
        tokio::time::sleep(PAUSE).await;
        let request = v1::GetApprovalRequest { approval_id: id.clone(), user_token: String::new() };
        approval = client.get_approval(request).await?.into_inner().approval.ok_or_else(Failure::incomplete_answer)?;
    }
    let object = output::approval::object(&approval);
    output::print(global.output, &object, || output::approval::asked(&approval))?;
    let (state, given) = (output::approval::state(&approval), v1::ApprovalState::Approved);
    if args.wait && approval.state() != given {
        return Err(Failure::new(DENIED, format!("the approval is {state}")));
    }
    Ok(())
}

/// Actions as one JSON array; empty if there are none.
pub(super) fn details(actions: &[String]) -> Result<String, Failure> {
    let read = |text: &String| {
        serde_json::from_str::<Value>(text)
            .map_err(|e| Failure::usage(format!("`{text}`: write an action as a JSON object: {e}")))
    };
    let actions = actions.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    Ok(if actions.is_empty() { String::new() } else { Value::Array(actions).to_string() })
}
