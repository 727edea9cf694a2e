//! The question of a gateway: subject, action and resource.

use mayfly_verify::{ClassName, User, Workload};
use serde_json::{Map, Value};
use uuid::Uuid;

/// Who would do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// An agent.
    Agent(Uuid),
    /// A user, assumed to present a token now.
    User(User),
    /// A workload.
    Workload(Workload),
}

/// With what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// An audience of tokens.
    Audience(String),
    /// A class of agents.
    Class(ClassName),
}

/// A question.
#[derive(Clone, Debug)]
pub struct Question {
    /// Who.
    pub subject: Subject,
    /// [`SPAWN`](super::evaluate::SPAWN), [`MINT`](super::evaluate::MINT), [`EXCHANGE`](super::evaluate::EXCHANGE), a configured type of actions, or a scope.
    pub action: String,
    /// The fields of a typed action.
    pub fields: Map<String, Value>,
    /// With what.
    pub resource: Resource,
    /// For a workload's spawn: the user, who is assumed to present a token now.
    pub user: Option<User>,
    /// How that user is assumed to have signed in. `None` if unknown.
    pub acr: Option<String>,
    /// The groups that their token would name.
    pub groups: Vec<String>,
}
