//! How an authority is printed.

use mayfly_agent::api::v1;
use serde_json::{Value, json};

use super::{Format, insert, optional_timestamp, print, timestamp};
use crate::cli::exit::Failure;

/// Prints an authority after a change, and the revision of the record of that change.
pub(in crate::cli) fn receipt(format: Format, authority: &v1::Authority, revision: u64) -> Result<(), Failure> {
    let mut object = object(authority);
    insert(&mut object, "revision", revision);
    print(format, &object, || line(authority))
}

/// An authority, with the field names that every command uses.
pub(in crate::cli) fn object(authority: &v1::Authority) -> Value {
    json!({
        "kind": kind(authority),
        "id": authority.id,
        "status": status(authority),
        "expires_at": optional_timestamp(authority.expires_at.as_ref()),
        "prepared_at": optional_timestamp(authority.prepared_at.as_ref()),
        "activated_at": optional_timestamp(authority.activated_at.as_ref()),
        "retired_at": optional_timestamp(authority.retired_at.as_ref()),
        "kept_until": optional_timestamp(authority.kept_until.as_ref()),
        "signs_from": optional_timestamp(authority.signs_from.as_ref()),
    })
}

/// One line: kind, status, id and the next change that is known.
pub(in crate::cli) fn line(authority: &v1::Authority) -> String {
    let until = match (&authority.signs_from, &authority.kept_until) {
        (Some(from), _) => format!("signs from {}", timestamp(Some(from))),
        (None, Some(until)) => format!("listed until {}", timestamp(Some(until))),
        (None, None) => format!("signs until {} at the latest", timestamp(authority.expires_at.as_ref())),
    };
    format!("{:<5}  {:<8}  {}  {until}", kind(authority), status(authority), authority.id)
}

fn kind(authority: &v1::Authority) -> &'static str {
    match authority.kind() {
        v1::AuthorityKind::X509 => "x509",
        v1::AuthorityKind::Jwt => "jwt",
        v1::AuthorityKind::Rs256 => "rs256",
        v1::AuthorityKind::Unspecified => "?",
    }
}

fn status(authority: &v1::Authority) -> &'static str {
    match authority.status() {
        v1::AuthorityStatus::Prepared => "prepared",
        v1::AuthorityStatus::Active => "active",
        v1::AuthorityStatus::Retired => "retired",
        v1::AuthorityStatus::Tainted => "tainted",
        v1::AuthorityStatus::Unspecified => "?",
    }
}
