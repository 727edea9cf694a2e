//! The service of authorities.

use mayfly_agent::api::v1;
use tonic::{Request, Response, Status};

use super::message::timestamp;
use super::server::authorities_server::Authorities;
use super::{Door, methods};
use crate::acts::Issuer;
use crate::acts::rotate::Order;
use crate::caller::Caller;
use crate::clock::SECOND;
use crate::denial::{Denial, No};
use crate::state::Authorities as All;
use crate::state::authority::{Kind, Slot, Status as Stage};

#[tonic::async_trait]
impl Authorities for Door {
    async fn list_authorities(
        &self,
        request: Request<v1::ListAuthoritiesRequest>,
    ) -> Result<Response<v1::ListAuthoritiesResponse>, Status> {
        self.run(methods::LIST_AUTHORITIES, request, |issuer, _, _| async move {
            let all = issuer.ledger.read(|state| std::sync::Arc::clone(&state.authorities));
            let authorities = all.slots.iter().map(|slot| message(&issuer, slot)).collect();
            Ok(v1::ListAuthoritiesResponse { authorities, revision: all.revision })
        })
        .await
    }

    async fn prepare_authority(
        &self,
        request: Request<v1::PrepareAuthorityRequest>,
    ) -> Result<Response<v1::PrepareAuthorityResponse>, Status> {
        self.run(methods::PREPARE_AUTHORITY, request, |issuer, caller, r| async move {
            let kind = kind(r.kind)?;
            let (authority, revision) = ordered(&issuer, caller, Order::Prepare(kind), |all| all.prepared(kind)).await?;
            Ok(v1::PrepareAuthorityResponse { authority, revision })
        })
        .await
    }

    async fn activate_authority(
        &self,
        request: Request<v1::ActivateAuthorityRequest>,
    ) -> Result<Response<v1::ActivateAuthorityResponse>, Status> {
        self.run(methods::ACTIVATE_AUTHORITY, request, |issuer, caller, r| async move {
            let kind = kind(r.kind)?;
            let order = Order::Activate { kind, early: r.now };
            let (authority, revision) = ordered(&issuer, caller, order, |all| all.active(kind)).await?;
            Ok(v1::ActivateAuthorityResponse { authority, revision })
        })
        .await
    }

    async fn rotate_authority(
        &self,
        request: Request<v1::RotateAuthorityRequest>,
    ) -> Result<Response<v1::RotateAuthorityResponse>, Status> {
        self.run(methods::ROTATE_AUTHORITY, request, |issuer, caller, r| async move {
            let kind = kind(r.kind)?;
            let order = Order::Rotate { kind, now: r.now };
            let next = |all: &'_ All| all.prepared(kind).or(all.active(kind)).cloned();
            let all = issuer.rotator.run(caller, order).await?;
            let authority = next(&all).map(|slot| message(&issuer, &slot));
            Ok(v1::RotateAuthorityResponse { authority, revision: all.revision })
        })
        .await
    }

    async fn retire_authority(
        &self,
        request: Request<v1::RetireAuthorityRequest>,
    ) -> Result<Response<v1::RetireAuthorityResponse>, Status> {
        self.run(methods::RETIRE_AUTHORITY, request, |issuer, caller, r| async move {
            let (authority, revision) = ordered(&issuer, caller, Order::Retire(r.id.clone()), |all| of_id(all, &r.id)).await?;
            Ok(v1::RetireAuthorityResponse { authority, revision })
        })
        .await
    }

    async fn taint_authority(
        &self,
        request: Request<v1::TaintAuthorityRequest>,
    ) -> Result<Response<v1::TaintAuthorityResponse>, Status> {
        self.run(methods::TAINT_AUTHORITY, request, |issuer, caller, r| async move {
            let (authority, revision) = ordered(&issuer, caller, Order::Taint(r.id.clone()), |all| of_id(all, &r.id)).await?;
            Ok(v1::TaintAuthorityResponse { authority, revision })
        })
        .await
    }
}

/// Carries out an order, and returns the authority that it changed.
async fn ordered(
    issuer: &Issuer,
    caller: Caller,
    order: Order,
    about: impl FnOnce(&All) -> Option<&Slot>,
) -> Result<(Option<v1::Authority>, u64), No> {
    let all = issuer.rotator.run(caller, order).await?;
    Ok((about(&all).map(|slot| message(issuer, slot)), all.revision))
}

fn of_id<'a>(all: &'a All, id: &str) -> Option<&'a Slot> {
    all.slots.iter().find(|slot| *slot.id == *id)
}

// T11: an unset enum, or a value of a later version, is refused.
fn kind(kind: i32) -> Result<Kind, Denial> {
    match v1::AuthorityKind::try_from(kind) {
        Ok(v1::AuthorityKind::X509) => Ok(Kind::X509),
        Ok(v1::AuthorityKind::Jwt) => Ok(Kind::Jwt),
        Ok(v1::AuthorityKind::Rs256) => Ok(Kind::Rs256),
        _ => Err(Denial::malformed("AUTHORITY_KIND", "say which kind of authority: X.509, JWT or RS256")),
    }
}

fn message(issuer: &Issuer, slot: &Slot) -> v1::Authority {
    let at = |micros: u64| (micros > 0).then(|| timestamp(micros / SECOND));
    let prepared = slot.status == Stage::Prepared;
    v1::Authority {
        kind: match slot.kind {
            Kind::X509 => v1::AuthorityKind::X509,
            Kind::Jwt => v1::AuthorityKind::Jwt,
            Kind::Rs256 => v1::AuthorityKind::Rs256,
        }
        .into(),
        id: slot.id.to_string(),
        status: match slot.status {
            Stage::Prepared => v1::AuthorityStatus::Prepared,
            Stage::Active => v1::AuthorityStatus::Active,
            Stage::Retired => v1::AuthorityStatus::Retired,
            Stage::Tainted => v1::AuthorityStatus::Tainted,
        }
        .into(),
        expires_at: Some(timestamp(slot.ends_at)),
        prepared_at: at(slot.prepared_at),
        activated_at: at(slot.activated_at),
        retired_at: at(slot.retired_at),
        kept_until: at(slot.keep_until),
        signs_from: prepared.then(|| timestamp(slot.prepared_at / SECOND + issuer.rotator.ahead())),
    }
}
