//! `mayfly dev`: the parts of a development trust domain that a real one must not have.

pub mod provider;
