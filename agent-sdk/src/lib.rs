//! What an agent or orchestrator needs to hold a Mayfly identity.

pub mod api;
