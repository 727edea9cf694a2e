//! `mayfly authority`: look at the signing keys, and rotate them now.

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::authorities_client::AuthoritiesClient;
use serde_json::{Value, json};

use super::act::operator;
use super::{AuthorityCommand, Common, Failure, Kind, show};

pub(super) async fn run(common: &Common, command: AuthorityCommand) -> Result<(), Failure> {
    let mut client = AuthoritiesClient::new(operator(common).await?);
    let (authority, revision) = match command {
        AuthorityCommand::List => {
            let all = client.list_authorities(v1::ListAuthoritiesRequest {}).await?.into_inner();
            let objects: Vec<Value> = all.authorities.iter().map(object).collect();
            return show::either(common, &json!({ "authorities": objects, "revision": all.revision }), || {
                table(&all.authorities)
            });
        }
        AuthorityCommand::Prepare { kind } => {
            let got = client.prepare_authority(v1::PrepareAuthorityRequest { kind: wire(kind) }).await?.into_inner();
            (got.authority, got.revision)
        }
        AuthorityCommand::Activate { kind, now } => {
            let got = client.activate_authority(v1::ActivateAuthorityRequest { kind: wire(kind), now }).await?.into_inner();
            (got.authority, got.revision)
        }
        AuthorityCommand::Rotate { kind, now } => {
            let got = client.rotate_authority(v1::RotateAuthorityRequest { kind: wire(kind), now }).await?.into_inner();
            (got.authority, got.revision)
        }
        AuthorityCommand::Retire { id } => {
            let got = client.retire_authority(v1::RetireAuthorityRequest { id }).await?.into_inner();
            (got.authority, got.revision)
        }
        AuthorityCommand::Taint { id } => {
            let got = client.taint_authority(v1::TaintAuthorityRequest { id }).await?.into_inner();
            (got.authority, got.revision)
        }
    };
    let authority = authority.unwrap_or_default();
    let mut shown = object(&authority);
    if let Some(map) = shown.as_object_mut() {
        map.insert("revision".into(), revision.into());
    }
    show::either(common, &shown, || line(&authority))
}

fn wire(kind: Kind) -> i32 {
    match kind {
        Kind::X509 => v1::AuthorityKind::X509,
        Kind::Jwt => v1::AuthorityKind::Jwt,
    }
    .into()
}

fn table(authorities: &[v1::Authority]) -> String {
    authorities.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn line(a: &v1::Authority) -> String {
    let until = match (&a.signs_from, &a.kept_until) {
        (Some(from), _) => format!("signs from {}", show::stamp(Some(from))),
        (None, Some(until)) => format!("listed until {}", show::stamp(Some(until))),
        (None, None) => format!("signs until {} at the latest", show::stamp(a.expires_at.as_ref())),
    };
    format!("{:<4}  {:<8}  {}  {until}", kind(a), status(a), a.id)
}

fn object(a: &v1::Authority) -> Value {
    let stamp = |at: &Option<prost_types::Timestamp>| at.as_ref().map(|at| show::stamp(Some(at)));
    json!({
        "kind": kind(a),
        "id": a.id,
        "status": status(a),
        "expires_at": stamp(&a.expires_at),
        "prepared_at": stamp(&a.prepared_at),
        "activated_at": stamp(&a.activated_at),
        "retired_at": stamp(&a.retired_at),
        "kept_until": stamp(&a.kept_until),
        "signs_from": stamp(&a.signs_from),
    })
}

fn kind(a: &v1::Authority) -> &'static str {
    match a.kind() {
        v1::AuthorityKind::X509 => "x509",
        v1::AuthorityKind::Jwt => "jwt",
        v1::AuthorityKind::Unspecified => "?",
    }
}

fn status(a: &v1::Authority) -> &'static str {
    match a.status() {
        v1::AuthorityStatus::Prepared => "prepared",
        v1::AuthorityStatus::Active => "active",
        v1::AuthorityStatus::Retired => "retired",
        v1::AuthorityStatus::Tainted => "tainted",
        v1::AuthorityStatus::Unspecified => "?",
    }
}
