//! The doors: the servers of the APIs. A door decodes a request, authenticates the caller, calls an act and encodes the answer; it
//! decides nothing itself.

pub mod authzen;
pub mod bundle;
pub(crate) mod counted;
pub mod grpc;
pub mod http;
pub mod https;
pub mod oauth;
pub mod page;
pub mod peer;
pub mod relay;
pub mod status;
pub mod tiles;
pub mod told;
