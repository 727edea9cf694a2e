//! The service of identities: redeem, attest, renew, spawn, mint, end, whoami.

use mayfly_agent::api::v1;
use mayfly_verify::Mode;
use tonic::{Request, Response, Status};

use super::message::{agent_message, bundle, bundle_unless, certified, jwt_svid, spawn_response, timestamp};
use super::server::identities_server::Identities;
use super::{Door, methods, targets};
use crate::acts::{attest, end, extend, mint, redeem, renew, spawn, whoami};
use crate::caller::{Asked as AskedFor, Origin};
use crate::denial::Denial;
use crate::doors::peer::Peer;
use crate::judge::bound::Proved;
use crate::judge::keyless::ForAgent;
use crate::judge::policy::Asked;
use crate::state::Standing;

#[tonic::async_trait]
impl Identities for Door {
    async fn redeem(&self, request: Request<v1::RedeemRequest>) -> Result<Response<v1::RedeemResponse>, Status> {
        self.hand_in(methods::REDEEM, request, |issuer, _, r| async move {
            let (svid, agent, revision) = certified(&issuer, &redeem::redeem(&issuer, &r.secret, r.csr).await?);
            Ok(v1::RedeemResponse { svid: Some(svid), bundle: Some(bundle(&issuer)), revision, agent })
        })
        .await
    }

    async fn attest(&self, request: Request<v1::AttestRequest>) -> Result<Response<v1::AttestResponse>, Status> {
        self.hand_in(methods::ATTEST, request, |issuer, _, r| async move {
            let (svid, _, revision) = certified(&issuer, &attest::attest(&issuer, &r.token, &r.workload, r.csr).await?);
            Ok(v1::AttestResponse { svid: Some(svid), bundle: Some(bundle(&issuer)), revision })
        })
        .await
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        self.hand_in(methods::RENEW, request, |issuer, caller, r| async move {
            let (svid, agent, revision) = certified(&issuer, &renew::renew(&issuer, caller, r.csr).await?);
            Ok(v1::RenewResponse { svid: Some(svid), bundle: Some(bundle(&issuer)), revision, agent })
        })
        .await
    }

    async fn spawn(&self, request: Request<v1::SpawnRequest>) -> Result<Response<v1::SpawnResponse>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        self.hand_in(methods::SPAWN, request, |issuer, caller, r| async move {
            let known = r.known_bundle;
            let (spawn, keys) = spawn_request(r, Peer::proved(peer.as_ref()))?;
            let spawned = spawn::spawn(&issuer, caller, spawn, keys).await?;
            Ok(v1::SpawnResponse { bundle: bundle_unless(&issuer, known), ..spawn_response(&issuer, spawned) })
        })
        .await
    }

    async fn mint_jwt(&self, request: Request<v1::MintJwtRequest>) -> Result<Response<v1::MintJwtResponse>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        self.hand_in(methods::MINT_JWT, request, |issuer, caller, r| async move {
            let behalf = match r.for_agent.as_str() {
                "" => None,
                id => Some(ForAgent { agent: issuer.agent_id(id)?, proved: Peer::proved(peer.as_ref()) }),
            };
            let audiences = std::iter::once(r.audience).chain(r.further_audiences).collect();
            let (mint, token) = mint::mint(&issuer, caller, &r.request_id, audiences, behalf).await?;
            let revision = mint.token().revision;
            Ok(v1::MintJwtResponse { svid: Some(jwt_svid(&mint, token)), revision })
        })
        .await
    }

    async fn end(&self, request: Request<v1::EndRequest>) -> Result<Response<v1::EndResponse>, Status> {
        self.hand_in(methods::END, request, |issuer, caller, r| async move {
            let agent = if r.agent.is_empty() { None } else { Some(issuer.agent_id(&r.agent)?) };
            let ended = end::end(&issuer, caller, agent).await?;
            let accepted_until = ended.accepted_until.map(timestamp);
            Ok(v1::EndResponse { agent_id: ended.agent.to_string(), revision: ended.revision, accepted_until })
        })
        .await
    }

    async fn extend(&self, request: Request<v1::ExtendRequest>) -> Result<Response<v1::ExtendResponse>, Status> {
        self.hand_in(methods::EXTEND, request, |issuer, caller, r| async move {
            let extended = extend::extend(&issuer, caller, &r.user_token, r.lease_seconds).await?;
            let agent = Some(agent_message(&issuer, &extended.agent, Standing::Live));
            Ok(v1::ExtendResponse { agent, revision: extended.revision })
        })
        .await
    }

    async fn whoami(&self, request: Request<v1::WhoamiRequest>) -> Result<Response<v1::WhoamiResponse>, Status> {
        self.hand_in(methods::WHOAMI, request, |issuer, caller, _| async move {
            let me = whoami::whoami(&issuer, &caller)?;
            let kind = if me.agent.is_some() { v1::IdentityKind::Agent } else { v1::IdentityKind::Workload };
            let agent = me.agent.map(|(agent, standing)| agent_message(&issuer, &agent, standing));
            Ok(v1::WhoamiResponse { spiffe_id: me.spiffe_id, kind: kind.into(), agent, revision: me.revision })
        })
        .await
    }
}

/// A spawn from the wire, with its keys. `proved` is the certificate that the connection proves.
pub(super) fn spawn_request(r: v1::SpawnRequest, proved: Proved) -> Result<(spawn::SpawnRequest, spawn::Keys), Denial> {
    let malformed = |e: &dyn std::fmt::Display| Denial::malformed("CLASS_MALFORMED", e.to_string());
    let class = r.class.parse().map_err(|e: mayfly_verify::NameError| malformed(&e))?;
    // T11: an enum value of a later version is refused, not taken for a default.
    let mode =
        v1::Mode::try_from(r.mode).map_err(|_| Denial::malformed("MODE_UNKNOWN", "the mode is unknown to this version"))?;
    let excess = v1::Excess::try_from(r.excess)
        .map_err(|_| Denial::malformed("EXCESS_UNKNOWN", "the value of `excess` is unknown to this version"))?;
    let mode = match mode {
        v1::Mode::Autonomous => Some(Mode::Autonomous),
        v1::Mode::Delegated => Some(Mode::Delegated),
        v1::Mode::Unspecified => None,
    };
    if mode == Some(Mode::Autonomous) && !(r.user_token.is_empty() && r.delegation.is_empty()) {
        return Err(Denial::malformed("MODE_CONTRADICTION", "an autonomous agent has neither user token nor delegation"));
    }
    if !r.user_token.is_empty() && !r.delegation.is_empty() {
        return Err(Denial::malformed("TOKEN_OR_DELEGATION", "give a user token or a delegation: one of the two"));
    }
    let delegation = match r.delegation.as_str() {
        "" => None,
        id => Some(targets::delegation(id)?),
    };
    if u8::from(r.ticket) + u8::from(r.keyless) + u8::from(!r.csr.is_empty()) != 1 {
        let message = "give a certification request, or ask for a ticket, or for an agent without a key: one of the three";
        return Err(Denial::malformed("CSR_OR_TICKET", message));
    }
    let too_many = |what| Denial::malformed("LIST_TOO_LONG", format!("at most 64 {what}, of at most 256 bytes each"));
    for (what, list) in [("scopes", &r.scopes), ("audiences", &r.audiences)] {
        if list.len() > 64 || list.iter().any(|s| s.is_empty() || s.len() > 256) {
            return Err(too_many(what));
        }
    }
    Origin::note(|origin| {
        let asked = || AskedFor { class: r.class.clone(), scopes: r.scopes.clone(), audiences: r.audiences.clone() };
        let _ = origin.asked.get_or_init(asked);
    });
    let clip = excess == v1::Excess::Clip;
    let asked = Asked { scopes: r.scopes, audiences: r.audiences, lease: r.lease_seconds, depth: r.max_depth, clip, mode };
    let keys = if r.csr.is_empty() { spawn::Keys::Without(1) } else { spawn::Keys::Csrs(vec![r.csr]) };
    let keyless = r.keyless.then_some(proved);
    let (request_id, user_token, audience) = (r.request_id, r.user_token, r.jwt_audience);
    Ok((spawn::SpawnRequest { request_id, class, user_token, delegation, asked, audience, keyless }, keys))
}
