//! Policies in Cedar: texts with owners, which forbid or permit acts that classes and limits allow.
//!
//! A set is a folder of `*.cedar` files, read whole, validated against [`SCHEMA`] and never changed; a new set replaces it whole.
//! This room knows Cedar, but not the state: judging passes a question as [`Ask`], and gets a [`Decision`]. The same question under
//! the same set has the same answer.
//!
//! **Permits.** Classes, delegations and limits already say what may be done, so by default a set only forbids: an act that no
//! policy forbids is allowed. A set with `default = "deny"` in its `set.toml` allows only acts that some policy permits. In neither
//! case does a policy widen what a class allows.
//!
//! **Errors deny.** Cedar skips a policy that fails to evaluate, so that a failing `forbid` would forbid nothing. Here a question with
//! any failing policy is denied.

pub mod ask;
pub mod cases;
mod decide;
mod kept;
mod mentions;
mod part;
mod read;
mod set;
#[cfg(test)]
mod tests;
mod text;

pub use ask::{Action, AgentFacts, Ask, Facts, Live, Principal, Resource, UserFacts};
pub use decide::Decision;
pub use kept::Kept;
pub use mentions::Mentions;
pub use set::{Default, Policies, Policy};

/// The schema that policies are validated against, as it is published.
pub const SCHEMA: &str = include_str!("policies/mayfly.cedarschema");

/// Two example policies for a new set.
pub const EXAMPLE: &str = include_str!("policies/example.cedar");

/// Test cases for [`EXAMPLE`].
pub const EXAMPLE_TESTS: &str = include_str!("policies/example-tests.toml");

/// The name of the file with the settings of a set.
pub const SET: &str = "set.toml";

/// The name of the file with the owners' test cases.
pub const TESTS: &str = "tests.toml";
