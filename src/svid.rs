//! Room 6: what is to be signed. From a recorded permit to an unsigned document; nothing else leads here.

pub mod access;
pub(crate) mod der;
mod dn;
pub(crate) mod introspection;
pub mod jwt;
pub mod x509;

pub(crate) use der::time_of;
