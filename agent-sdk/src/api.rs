//! The issuer's API: messages and client stubs, generated and committed.

mod redacted;

/// `mayfly.v1`: the messages, and one client for each service.
///
/// Generated from `proto/mayfly/v1/mayfly.proto`; `tests/generated.rs` fails if the two differ.
#[rustfmt::skip]
#[expect(missing_docs, unused_qualifications, clippy::doc_markdown, clippy::large_enum_variant, reason = "generated")]
pub mod v1;

/// The SPIFFE Workload API: the messages, and a client.
///
/// Generated from `proto/workloadapi.proto`, which has no package; `tests/generated.rs` fails if the two differ.
#[rustfmt::skip]
#[expect(missing_docs, unused_qualifications, reason = "generated")]
pub mod workload;
