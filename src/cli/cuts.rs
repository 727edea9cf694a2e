//! `mayfly cuts`.

use clap::Subcommand;
use mayfly_agent::api::v1;
use mayfly_agent::api::v1::revocations_client::RevocationsClient;
use mayfly_agent::api::v1::target::Target;
use serde_json::{Value, json};

use super::connect::{self, Acting, Channel};
use super::exit::Failure;
use super::global::Global;
use super::output;
use super::output::table::Style;
use super::output::user::{self, Names};

/// See what is revoked, by whom and why (operator)
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// One line for each revocation that can still affect a credential, in the order in which they were made
    List {
        #[command(flatten)]
        acting: Acting,
    },
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let Command::List { acting } = args.command;
    let client = RevocationsClient::new(connect::as_identity_or_operator(global, &acting).await?);
    let (cuts, revision) = fetch(client).await?;
    let objects: Vec<_> = cuts.iter().map(object).collect();
    output::print(global.output, &json!({ "cuts": objects, "revision": revision }), || {
        let names = Names::known(global).and(cuts.iter().filter_map(|cut| match target(cut) {
            Some(Target::User(user)) => Some(user),
            _ => None,
        }));
        let style = Style::of_stdout();
        style.table("nothing is revoked", &HEAD, cuts.iter().map(|cut| row(cut, &names, style)).collect())
    })
}

/// The heads of the columns.
const HEAD: [&str; 6] = ["REVOKED", "KIND", "", "AT", "BY", "REASON"];

/// All pages, with the revision of the last one.
async fn fetch(mut client: RevocationsClient<Channel>) -> Result<(Vec<v1::MadeCut>, u64), Failure> {
    let mut cuts = Vec::new();
    let mut page_token = String::new();
    loop {
        let page = client.list_cuts(v1::ListCutsRequest { page_size: 1000, page_token }).await?.into_inner();
        cuts.extend(page.cuts);
        if page.next_page_token.is_empty() {
            return Ok((cuts, page.revision));
        }
        page_token = page.next_page_token;
    }
}

fn target(cut: &v1::MadeCut) -> Option<&Target> {
    cut.target.as_ref()?.target.as_ref()
}

/// The kind of what was revoked, and its name for people.
fn kind_and_name(cut: &v1::MadeCut) -> (&'static str, String) {
    match target(cut) {
        Some(Target::Agent(id)) => ("agent", id.clone()),
        Some(Target::User(user)) => ("user", user::name(user)),
        Some(Target::Delegation(id)) => ("delegation", id.clone()),
        Some(Target::Workload(name)) => ("workload", name.clone()),
        Some(Target::Class(name)) => ("class", name.clone()),
        Some(Target::Key(key)) => ("key", key.clone()),
        Some(Target::Token(jti)) => ("token", jti.clone()),
        Some(Target::Issuer(iss)) => ("issuer", iss.clone()),
        Some(Target::RecordedBefore(time)) => ("before", output::timestamp(Some(time))),
        None => ("unknown", String::new()),
    }
}

fn object(cut: &v1::MadeCut) -> Value {
    let (kind, name) = kind_and_name(cut);
    let (name, user_name) = match target(cut) {
        Some(Target::User(user)) => (json!({ "iss": user.iss, "sub": user.sub }), Some(name)),
        _ => (Value::String(name), None),
    };
    json!({
        "target": kind,
        "name": name,
        "user_name": user_name,
        "revision": cut.revision,
        "before": cut.before,
        "closed": cut.closed,
        "reason": cut.reason,
        "by": cut.by,
        "recorded_at": output::timestamp(cut.recorded_at.as_ref()),
        "kept_until": output::optional_timestamp(cut.kept_until.as_ref()),
    })
}

fn row(cut: &v1::MadeCut, names: &Names, style: Style) -> Vec<String> {
    let (kind, name) = kind_and_name(cut);
    let by = if cut.by.is_empty() { "the issuer".to_owned() } else { names.person(&cut.by) };
    let closed = if cut.closed { "closed" } else { "" };
    let at = style.time(cut.recorded_at.as_ref());
    vec![style.id(&name), kind.to_owned(), closed.to_owned(), at, style.id(&by), cut.reason.clone()]
}
