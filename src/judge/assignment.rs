//! Role assignments: the tokens of which people make an operator or an auditor.

use serde_json::{Map, Value};

use super::Rules;
use crate::caller::Caller;
use crate::claims::{holds_all, lists_all};

/// What a person may be by a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Office {
    /// Does everything that an operator can from another machine.
    Operator,
    /// Reads everything and changes nothing.
    Auditor,
}

/// A configured assignment. An attacker who can change the claims that it asks for is an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The operator's name for a configured provider of users.
    pub issuer: String,
    /// The audience of the token, which is for nothing else.
    pub audience: String,
    /// What such a token makes of the person.
    pub office: Office,
    /// Claims with their exact values.
    pub claims: Map<String, Value>,
    /// Claims that are lists, each with a member.
    pub contains: Vec<(String, String)>,
}

/// What a person is by the assignments of now: an operator if one of several says so. `None` if they are neither.
pub fn office(rules: &Rules, caller: &Caller) -> Option<Office> {
    let Caller::Person { provider, audience, claims, .. } = caller else { return None };
    let fits = |of: &&Assignment| {
        of.issuer == *provider && of.audience == **audience && holds_all(&of.claims, claims) && lists_all(&of.contains, claims)
    };
    let mut offices = rules.assignments.iter().filter(fits).map(|of| of.office);
    let first = offices.next()?;
    Some(if first == Office::Operator || offices.any(|other| other == Office::Operator) { Office::Operator } else { first })
}
