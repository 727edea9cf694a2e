//! The doors: the wire on one side, the stories on the other.

pub mod access;
pub mod bundle;
pub mod grpc;
pub mod http;
pub mod listen;
pub mod relay;
pub mod status;
