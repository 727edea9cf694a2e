//! The scenarios: the calls that load the issuer, and what is measured.

pub(crate) mod exchange;
pub(crate) mod feed;
pub(crate) mod grow;
pub(crate) mod issue;
pub(crate) mod keyless;
pub(crate) mod revoke;
pub(crate) mod spire;
pub(crate) mod usable;
