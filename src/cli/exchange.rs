//! `mayfly exchange`.

use std::path::PathBuf;

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::tokens_client::TokensClient;
use serde_json::{Value, json};

use super::ask;
use super::connect::{self, Acting};
use super::exit::Failure;
use super::file;
use super::global::Global;
use super::output;

/// Get an access token for one audience, as an agent
///
/// The token names the user for whom the agent acts, with the agent and its ancestors as actors. It is revoked with any of them.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    acting: Acting,
    /// File with a token of the agent's user; the result allows no more and lasts no longer
    #[arg(long, value_name = "FILE")]
    user_token: Option<PathBuf>,
    /// File with an access token that the agent or an ancestor of it holds, instead of the user's
    #[arg(long, value_name = "FILE", conflicts_with = "user_token")]
    subject_token: Option<PathBuf>,
    /// An agent without a key that this agent spawned: the token is that agent's
    #[arg(long = "for", value_name = "AGENT")]
    for_agent: Option<String>,
    /// Where the token is to be accepted
    #[arg(long, value_name = "URL", required_unless_present = "approval", default_value = "", hide_default_value = true)]
    audience: String,
    /// A scope of the token; without it, all that the agent may have
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// The approval that is used; the token then allows what was approved, and nothing else
    #[arg(long, value_name = "ID")]
    approval: Option<String>,
    /// An action of the token as JSON: within the approval, or one that needs none
    #[arg(long = "action", value_name = "JSON")]
    actions: Vec<String>,
    /// File for the token; without it the token goes to stdout
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let dir = args.acting.required("say which agent asks with --as DIR")?;
    let presented = args.user_token.as_deref().or(args.subject_token.as_deref());
    let subject_token = presented.map(file::read_text).transpose()?.unwrap_or_default().trim().to_owned();
    let channel = connect::as_identity(global, args.acting.server.as_deref(), dir).await?;
    let request = v1::ExchangeRequest {
        for_agent: args.for_agent.unwrap_or_default(),
        audience: args.audience,
        scopes: args.scopes,
        subject_token,
        authorization_details: ask::details(&args.actions)?,
        approval_id: args.approval.unwrap_or_default(),
    };
    let got = TokensClient::new(channel).exchange(request).await?.into_inner();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let ends = got.expires_at.as_ref().and_then(|at| u64::try_from(at.seconds).ok()).unwrap_or_default();
    let scope = got.scopes.join(" ");
    // The field names of RFC 8693 2.2.1.
    let mut object = json!({ "token_type": got.token_type, "expires_in": ends.saturating_sub(now), "scope": scope });
    if let Ok(details) = serde_json::from_str::<Value>(&got.authorization_details) {
        output::insert(&mut object, "authorization_details", details);
    }
    let Some(out) = &args.out else {
        output::insert(&mut object, "access_token", got.access_token.as_str());
        return output::print(global.output, &object, || got.access_token.clone());
    };
    file::write_secret(out, got.access_token.as_bytes())?;
    let until = output::timestamp(got.expires_at.as_ref());
    output::print(global.output, &object, || format!("an access token until {until} with scope `{scope}`, in {}", out.display()))
}
