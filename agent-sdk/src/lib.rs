//! What an agent or orchestrator needs to hold a Mayfly identity.
//!
//! [`api`] has the issuer's messages and clients, [`channel`] connects to it and verifies both ends, [`ticket`] reads what an
//! operator hands out. Verifying credentials is `mayfly-verify`, which needs none of this.

pub mod api;
pub mod channel;
pub mod ticket;

pub use mayfly_verify as verify;
