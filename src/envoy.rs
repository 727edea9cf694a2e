//! The part of Envoy's API that is used here, generated from `proto/envoy`.

#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    reason = "generated"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/envoy/api.rs"));
}

pub use generated::envoy::{config, extensions, service, r#type};
