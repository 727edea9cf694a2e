//! The scenarios: what is done to the issuer, and what of it is measured.

pub(crate) mod feed;
pub(crate) mod grow;
pub(crate) mod issue;
pub(crate) mod revoke;
pub(crate) mod spire;
pub(crate) mod usable;
