//! Which issuer a command uses, and with which identity: those of a context, or of the home. Options take precedence over the
//! environment, and that over the context that was chosen with `mayfly context use`.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::exit::{DENIED, FAILURE, Failure, UNREACHABLE};
use super::global::{Given, Global};
use crate::context::{Context, Contexts};
use crate::dev::provider;
use crate::home::{self, Endpoint};
use crate::login::{LoginError, Provider, kept};

/// The environment variable with the address of the issuer.
const SERVER: &str = "MAYFLY_SERVER";
/// The environment variable with the name of a context.
const CONTEXT: &str = "MAYFLY_CONTEXT";

/// The context of a command. `None` means the home.
pub(super) fn of(global: &Global) -> Result<Option<Context>, Failure> {
    match named(global)? {
        Named::Context(context) => Ok(Some(*context)),
        Named::Home => Ok(None),
        Named::Nothing => current(global),
    }
}

/// The issuer of the home: where it is, and its trust domain.
pub(super) fn endpoint(global: &Global) -> Result<Endpoint, Failure> {
    believe(global)?;
    home::endpoint(&global.home).map_err(|e| Failure::new(UNREACHABLE, e))
}

/// Refuses a home that nobody has named and that somebody else has made: its issuer would get the tokens of users (T316). A home is
/// made for its owner alone, and a copy that came with a repository or an archive is not.
pub(super) fn believe(global: &Global) -> Result<(), Failure> {
    let path = global.home.join("endpoint.json");
    let Some(found) = fs::symlink_metadata(&path).ok().filter(|_| global.home_given == Given::No) else { return Ok(()) };
    let ours = |of: &fs::Metadata| crate::process::uid().is_none_or(|uid| uid == of.uid());
    let folder = fs::symlink_metadata(&global.home).map_err(|e| format!("`{}`: {e}", global.home.display()))?;
    if ours(&found) && ours(&folder) && found.is_file() && found.mode() & 0o077 == 0 {
        return Ok(());
    }
    let home = global.home.display();
    Err(Failure::usage(format!(
        "`{home}` here was made by somebody else, or copied, so its issuer is not believed: it would get your tokens. Give --home {home} \
         if you trust it"
    )))
}

/// The context or the home that a command or its environment names.
enum Named {
    Context(Box<Context>),
    Home,
    Nothing,
}

fn named(global: &Global) -> Result<Named, Failure> {
    let name = match (&global.context, global.home_given, variable(CONTEXT)) {
        (Some(_), Given::Option, _) => return Err(Failure::usage("give --context or --home: each says which issuer is asked")),
        (Some(name), ..) => name.clone(),
        (None, Given::Option, _) => return Ok(Named::Home),
        (None, Given::Environment, Some(_)) => {
            let both = "MAYFLY_CONTEXT and MAYFLY_HOME are both set: unset one, or give --context or --home";
            return Err(Failure::usage(both));
        }
        (None, Given::Environment, None) => return Ok(Named::Home),
        (None, Given::No, Some(name)) => name,
        (None, Given::No, None) => return Ok(Named::Nothing),
    };
    let context = Contexts::of_user().and_then(|contexts| contexts.read(&name)).map_err(Failure::usage)?;
    Ok(Named::Context(Box::new(context)))
}

/// The context that was chosen before. T244: fails if there is a home here too, because either of the two may be meant.
fn current(global: &Global) -> Result<Option<Context>, Failure> {
    let Ok(contexts) = Contexts::of_user() else { return Ok(None) };
    let Some(name) = contexts.current()? else { return Ok(None) };
    if endpoint(global).is_ok() {
        let home = global.home.display();
        return Err(Failure::usage(format!(
            "`{home}` here holds an issuer, and the current context is `{name}`: say which with --home {home} or --context {name}"
        )));
    }
    Ok(Some(contexts.read(&name)?))
}

/// The address that is given by the command, its environment or the context that it names. `None` leaves it to the identity's
/// folder and the home.
pub(super) fn server(global: &Global, option: Option<&str>) -> Result<Option<String>, Failure> {
    if let Some(address) = option {
        return Ok(Some(address.to_owned()));
    }
    let from_env = variable(SERVER).filter(|_| global.context.is_none());
    Ok(match (from_env, named(global)?) {
        (Some(address), _) => Some(address),
        (None, Named::Context(context)) => Some(context.settings.server),
        (None, Named::Home | Named::Nothing) => None,
    })
}

/// The provider of this context or home, and the folder for the tokens of a sign-in. `None` if nobody can sign in here.
pub(super) fn login(global: &Global) -> Result<Option<(PathBuf, Provider)>, Failure> {
    if let Some(context) = of(global)? {
        return Ok(context.settings.login.map(|provider| (context.dir, provider)));
    }
    let Ok(at) = endpoint(global) else { return Ok(None) };
    let development = |(issuer, ca_file)| {
        let client = provider::USER.to_owned();
        let provider = Provider { issuer, client, secret_file: None, ca_file: Some(ca_file), scope: None, resource: None };
        (global.home.join("login"), provider)
    };
    Ok(at.oidc.zip(at.oidc_ca).map(development))
}

/// The token of the person who has signed in at this context or home. `None` if nobody can sign in here.
pub(super) async fn token(global: &Global) -> Result<Option<String>, Failure> {
    match login(global)? {
        Some((dir, provider)) => Ok(Some(kept::token(&dir, &provider).await?)),
        None => Ok(None),
    }
}

/// The token in a file; without a file, that of the person who has signed in here. Fails with the usage error `usage` if there is
/// neither.
pub(super) async fn token_or(file: Option<&Path>, global: &Global, usage: &str) -> Result<String, Failure> {
    if let Some(file) = file {
        return Ok(super::file::read_text(file)?.trim().to_owned());
    }
    let signed_in = match token(global).await {
        // With a home, signing in is optional, so the error also names the option for a file.
        Err(failure) if of(global)?.is_none() => return Err(Failure::usage(format!("{usage}; {failure}"))),
        other => other?,
    };
    signed_in.ok_or_else(|| Failure::usage(usage))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl From<LoginError> for Failure {
    fn from(e: LoginError) -> Failure {
        let code = match e {
            LoginError::Unreachable(..) => UNREACHABLE,
            LoginError::Refused(_) | LoginError::NotSignedIn(_) => DENIED,
            LoginError::Client(_) | LoginError::Answer(_) | LoginError::Late(_) | LoginError::Machine(_) => FAILURE,
        };
        Failure::new(code, e.to_string())
    }
}
