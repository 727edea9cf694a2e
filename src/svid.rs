//! Room 6: unsigned documents. Each is made from a recorded permit, and in no other way.

pub mod access;
pub(crate) mod der;
mod dn;
pub(crate) mod introspection;
pub mod jwt;
pub mod x509;

pub(crate) use der::time_of;
