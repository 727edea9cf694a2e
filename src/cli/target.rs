//! The target of a revocation, from the options that `mayfly revoke` and `mayfly what-if revoke` share.

use mayfly_agent::api::v1::target::Target as WireTarget;

use super::exit::Failure;
use super::user;

/// Ids of the options of [`Target`], for the group of which a command takes one.
pub(super) const OPTIONS: [&str; 6] = ["agent", "user", "issuer", "root", "class", "delegation"];

// No documentation comment: clap would show it as the help of the command.
#[derive(clap::Args)]
#[group(skip)]
pub(super) struct Target {
    /// An agent with everything below it, by its SPIFFE ID or UUID
    #[arg(long, visible_alias = "subtree", value_name = "ID")]
    agent: Option<String>,
    /// A user, as <issuer's configured name>/<subject>
    #[arg(long, value_name = "ISSUER/SUB")]
    user: Option<String>,
    /// All users of an issuer of users, by its configured name or URL
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// All agents below a workload: its name, or the SPIFFE ID of a foreign one
    #[arg(long, alias = "workload", value_name = "NAME")]
    root: Option<String>,
    /// All agents of a class and everything below them
    #[arg(long, value_name = "CLASS")]
    class: Option<String>,
    /// All agents of a delegation; `mayfly agents show` prints its id
    #[arg(long, value_name = "ID")]
    delegation: Option<String>,
}

impl Target {
    /// As it is sent. Fails if no option was given, or the user is malformed.
    pub(super) fn wire(self) -> Result<WireTarget, Failure> {
        match self {
            Target { agent: Some(id), .. } => Ok(WireTarget::Agent(id)),
            Target { user: Some(text), .. } => Ok(WireTarget::User(user::parse(&text)?)),
            Target { issuer: Some(name), .. } => Ok(WireTarget::Issuer(name)),
            Target { root: Some(name), .. } => Ok(WireTarget::Workload(name)),
            Target { class: Some(name), .. } => Ok(WireTarget::Class(name)),
            Target { delegation: Some(id), .. } => Ok(WireTarget::Delegation(id)),
            _ => Err(Failure::usage("say what is revoked, such as --agent or --user")),
        }
    }
}
