//! The doors: the wire on one side, the acts on the other. A door reads what came, finds out who asks, and answers; it decides
//! nothing.

pub mod authzen;
pub mod bundle;
pub(crate) mod counted;
pub mod grpc;
pub mod http;
pub mod https;
pub mod oauth;
pub mod peer;
pub mod relay;
pub mod status;
pub mod tiles;
pub mod told;
