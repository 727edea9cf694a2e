//! Role assignments: which claims of a person's token make them an operator or an auditor.

use serde_json::{Map, Value};

use super::Rules;
use crate::caller::Caller;
use crate::claims::{holds_all, lists_all};

/// The roles that a token can give to a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Office {
    /// May do everything that an operator may do from another machine.
    Operator,
    /// May read everything and change nothing.
    Auditor,
}

/// A configured assignment. An attacker who can change the claims that it asks for is an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The operator's name for a configured provider of users.
    pub issuer: String,
    /// The audience of the token. It is used for nothing else.
    pub audience: String,
    /// The role that such a token gives.
    pub office: Office,
    /// Claims with their exact values.
    pub claims: Map<String, Value>,
    /// Claims that are lists, each with the member that it must contain.
    pub contains: Vec<(String, String)>,
}

/// The role of a person by the present assignments; operator takes precedence. `None` if none applies.
pub fn office(rules: &Rules, caller: &Caller) -> Option<Office> {
    let Caller::Person { provider, audience, claims, .. } = caller else { return None };
    let fits = |of: &&Assignment| {
        of.issuer == *provider && of.audience == **audience && holds_all(&of.claims, claims) && lists_all(&of.contains, claims)
    };
    let mut offices = rules.assignments.iter().filter(fits).map(|of| of.office);
    let first = offices.next()?;
    Some(if first == Office::Operator || offices.any(|other| other == Office::Operator) { Office::Operator } else { first })
}
