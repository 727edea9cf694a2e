//! `mayfly who-can`.

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::decisions_client::DecisionsClient;
use serde_json::{Value, json};

use super::connect::{self, Acting};
use super::exit::Failure;
use super::global::Global;
use super::{output, user};

/// Say which live agents may use a scope, and who could spawn more of them (operator)
///
/// The answer is exact as of one revision of the journal, and computing it delays no other request.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    acting: Acting,
    /// The scope, such as mail:send
    scope: String,
    /// Only those that may mint tokens for this audience too
    #[arg(long, value_name = "URL")]
    audience: Option<String>,
    /// Only for a user: <issuer>/<subject>, the issuer by its configured name or its URL
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Only of a class
    #[arg(long, value_name = "NAME")]
    class: Option<String>,
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let channel = connect::as_identity_or_operator(global, &args.acting).await?;
    let request = v1::WhoCanRequest {
        scope: args.scope.clone(),
        audience: args.audience.unwrap_or_default(),
        user: args.user.as_deref().map(user::parse).transpose()?,
        class: args.class.unwrap_or_default(),
    };
    let mut answers = DecisionsClient::new(channel).who_can(request).await?.into_inner();
    let (mut agents, mut could, mut as_of) = (Vec::new(), Vec::new(), None);
    while let Some(answer) = answers.message().await? {
        agents.extend(answer.agents);
        could.extend(answer.could);
        as_of = as_of.or(answer.as_of);
    }
    let as_of = as_of.ok_or_else(Failure::incomplete_answer)?;
    let object = json!({
        "scope": args.scope,
        "now": agents.iter().map(output::agent::object).collect::<Vec<_>>(),
        "could": could.iter().map(could_object).collect::<Vec<_>>(),
        "revision": as_of.revision,
        "exact": as_of.exact,
        "at": output::timestamp(as_of.at.as_ref()),
    });
    output::print(global.output, &object, || {
        let mut lines =
            output::lines(&agents, "no agent may now", |agent| format!("{} for {}", agent.agent_id, output::agent::user(agent)));
        lines.extend(could.iter().map(|c| format!("could: {}", could_line(c))));
        if !as_of.exact {
            lines.push("the journal moved on meanwhile: agents may be missing, or have ended by now".to_owned());
        }
        lines
    })
}

fn could_object(could: &v1::CouldHave) -> Value {
    let mode = if could.mode() == v1::Mode::Autonomous { "autonomous" } else { "delegated" };
    let source = could.source.clone().unwrap_or_default();
    let mut object =
        json!({ "class": could.class, "mode": mode, "spawners": could.spawners, "where": source.r#where, "owner": source.owner });
    if !could.provider.is_empty() {
        output::insert(&mut object, "users", format!("any of provider `{}`", could.provider));
        output::insert(&mut object, "audience", could.audience.as_str());
    }
    object
}

fn could_line(could: &v1::CouldHave) -> String {
    let whom = match (could.provider.as_str(), could.mode()) {
        ("", v1::Mode::Autonomous) => "for nobody".to_owned(),
        ("", _) => "for the parent's user".to_owned(),
        (provider, _) => format!("for any user of `{provider}`"),
    };
    let source = could.source.clone().unwrap_or_default();
    format!("class {} {whom}, spawned by {} [{}; {}]", could.class, could.spawners.join(" or "), source.r#where, source.owner)
}
