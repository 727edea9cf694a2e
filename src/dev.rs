//! `mayfly dev`: what a development trust domain has and a real one must not.

pub mod provider;
