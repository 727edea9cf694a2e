//! `mayfly context`.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value, json};

use super::exit::Failure;
use super::global::Global;
use super::{connect, output, place};
use crate::context::{Context, Contexts, Settings};
use crate::folder;
use crate::login::{Provider, kept};

/// Keep contexts: each names an issuer's address, the roots that verify it, and the identity or sign-in to use there
///
/// They are kept in the folder `mayfly` of your configuration, for you alone. A command uses the context of --context or
/// $MAYFLY_CONTEXT, and otherwise the one that `mayfly context use` chose. --server and --as take precedence over the context's own
/// values, and --home over the whole context.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// One line for each context
    List,
    /// Make a context; the first one is used from then on
    Add(Box<Add>),
    /// Choose the context of commands that name none
    Use {
        /// Its name
        name: String,
    },
    /// Remove a context with the tokens of its sign-in; an identity's folder stays
    Remove {
        /// Its name
        name: String,
    },
    /// Show a context without its secrets; without a name, the one that commands use
    Show {
        /// Its name
        name: Option<String>,
    },
}

#[derive(clap::Args)]
struct Add {
    /// Its name
    name: String,
    /// host:port of the issuer; by default that in the identity's folder
    #[arg(long, value_name = "ADDRESS")]
    server: Option<String>,
    /// Trust bundle of the issuer (PEM); by default that in the identity's folder, or that of the issuer in --home
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    /// The folder of the identity to use there
    #[arg(long = "as", value_name = "DIR")]
    identity: Option<PathBuf>,
    /// Where you sign in with `mayfly login`: the URL of an OIDC provider
    #[arg(long, value_name = "URL", requires = "client")]
    login: Option<String>,
    /// Your client id there: a client with PKCE that allows redirects to http://127.0.0.1 on any port
    #[arg(long, value_name = "ID", requires = "login")]
    client: Option<String>,
    /// File with the secret of that client (mode 0600), if the provider allows no public one; it is read at each sign-in
    #[arg(long, value_name = "FILE", requires = "login")]
    client_secret_file: Option<PathBuf>,
    /// PEM file with the only roots that verify the provider; by default those of the system
    #[arg(long, value_name = "FILE", requires = "login")]
    login_ca: Option<PathBuf>,
    /// The scopes to ask for; by default `openid`, and `offline_access` if the provider has it
    #[arg(long, value_name = "SCOPES", requires = "login")]
    scope: Option<String>,
    /// Ask for an access token for this resource (RFC 8707), and use it in the place of the ID token
    #[arg(long, value_name = "URL", requires = "login")]
    resource: Option<String>,
    /// Replace a context of the same name
    #[arg(long)]
    force: bool,
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let contexts = Contexts::of_user()?;
    match args.command {
        Command::List => {
            let current = contexts.current()?;
            let all = contexts.all()?;
            let objects = all.iter().map(|context| object(context, current.as_deref())).collect::<Result<Vec<_>, _>>()?;
            output::print(global.output, &json!({ "contexts": objects }), || {
                output::lines(&objects, "no contexts: make one with `mayfly context add`", line)
            })
        }
        Command::Add(add) => self::add(*add, &contexts, global).await,
        Command::Use { name } => {
            let context = contexts.choose(&name)?;
            told(&context, Some(&name), global)
        }
        Command::Remove { name } => {
            contexts.remove(&name)?;
            output::print(global.output, &json!({ "removed": name }), || format!("`{name}` is forgotten"))
        }
        Command::Show { name } => {
            let current = contexts.current()?;
            let context = match name.as_deref() {
                Some(name) => contexts.read(name)?,
                None => match place::of(global)? {
                    Some(context) => context,
                    None => {
                        return Err(Failure::usage("no context is used here: name one, or choose one with `mayfly context use`"));
                    }
                },
            };
            told(&context, current.as_deref(), global)
        }
    }
}

async fn add(add: Add, contexts: &Contexts, global: &Global) -> Result<(), Failure> {
    let absolute = |path: PathBuf| std::path::absolute(&path).map_err(|e| Failure::from(format!("`{}`: {e}", path.display())));
    let identity = add.identity.map(absolute).transpose()?;
    if let Some(dir) = &identity {
        // A folder without an identity is refused now, and not at the first use.
        folder::identity(dir)?;
    }
    let bundle = match (add.bundle, &identity) {
        (Some(file), _) => {
            folder::certificates(&file)?;
            std::fs::read(&file).map_err(|e| format!("`{}`: {e}", file.display()))?
        }
        (None, Some(dir)) => {
            let file = dir.join("bundle.pem");
            folder::certificates(&file)?;
            std::fs::read(&file).map_err(|e| format!("`{}`: {e}", file.display()))?
        }
        (None, None) => {
            let how =
                "say by which roots the issuer is trusted: give --bundle FILE, as `mayfly bundle --format pem` prints it there";
            let channel = connect::as_operator(global).await.map_err(|_| Failure::usage(how))?;
            connect::pem(&connect::fetch_bundle(channel).await?).into_bytes()
        }
    };
    let server = match (add.server, &identity) {
        (Some(server), _) => Some(server),
        (None, Some(dir)) => folder::issuer(dir),
        (None, None) => None,
    };
    let server = server.ok_or_else(|| Failure::usage("say where the issuer is: give --server HOST:PORT"))?;
    check_address(&server)?;
    let login = match add.login.zip(add.client) {
        Some((issuer, client)) => {
            if !issuer.starts_with("https://") {
                return Err(Failure::usage(format!("`{issuer}`: a provider has an https URL")));
            }
            let ca_file = add.login_ca.map(absolute).transpose()?;
            let secret_file = add.client_secret_file.map(absolute).transpose()?;
            Some(Provider { issuer, client, secret_file, ca_file, scope: add.scope, resource: add.resource })
        }
        None => None,
    };
    let context = contexts.add(&add.name, Settings { server, identity, login }, &bundle, add.force)?;
    if contexts.current()?.is_none() {
        contexts.choose(&add.name)?;
    }
    told(&context, contexts.current()?.as_deref(), global)
}

/// Checks an address when it is stored, and not only at its first use.
fn check_address(address: &str) -> Result<(), Failure> {
    let (host, port) = address.rsplit_once(':').unwrap_or_default();
    let fine = !host.is_empty() && !host.contains(['/', '@', ' ']) && port.parse::<u16>().is_ok_and(|port| port > 0);
    if fine { Ok(()) } else { Err(Failure::usage(format!("`{address}` is no address: write HOST:PORT"))) }
}

fn told(context: &Context, current: Option<&str>, global: &Global) -> Result<(), Failure> {
    let object = object(context, current)?;
    output::print(global.output, &object, || output::fields(&object))
}

/// A context without its secrets.
fn object(context: &Context, current: Option<&str>) -> Result<Value, Failure> {
    let Context { name, dir, settings } = context;
    let signed_in = settings.login.as_ref().map(|provider| kept::who(dir, provider)).transpose()?.flatten();
    Ok(json!({
        "name": name,
        "current": current == Some(name),
        "server": settings.server,
        "bundle": context.bundle(),
        "identity": settings.identity,
        "login": settings.login.as_ref().map(|provider| &provider.issuer),
        "client": settings.login.as_ref().map(|provider| &provider.client),
        "user": signed_in.as_ref().map(|said| json!({ "iss": said.iss, "sub": said.sub })),
        "signed_in_until": signed_in.as_ref().map(|said| output::time(said.ends_at)),
        "refreshes": signed_in.as_ref().map(|said| said.refreshes),
    }))
}

fn line(object: &Value) -> String {
    let text = |name: &str| object.get(name).and_then(Value::as_str);
    let mark = if object.get("current") == Some(&Value::Bool(true)) { '*' } else { ' ' };
    let sub = object.get("user").and_then(|user| user.get("sub")).and_then(Value::as_str);
    let who = match (text("identity"), text("login"), sub) {
        (Some(dir), ..) => format!("as {dir}"),
        (None, Some(issuer), Some(sub)) => format!("signed in as {sub} at {issuer}"),
        (None, Some(issuer), None) => format!("not signed in at {issuer}"),
        (None, None, _) => "nobody: give --as".to_owned(),
    };
    format!("{mark} {:<16} {:<32} {who}", text("name").unwrap_or_default(), text("server").unwrap_or_default())
}
