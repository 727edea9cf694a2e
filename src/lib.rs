//! Mayfly: the identity issuer for short-lived AI agents.
