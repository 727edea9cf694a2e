//! Mayfly: the identity issuer for short-lived AI agents.
//!
//! Rooms, in the order in which a request walks through them.

pub mod assertion;
pub mod authority;
pub mod caller;
pub mod dev;
pub mod doors;
pub mod journal;
pub mod policy;
pub mod registry;
pub mod stories;
pub mod svid;

pub mod app;
pub mod clock;
pub mod config;
pub mod denial;
pub mod folder;
pub mod home;
pub mod telemetry;
