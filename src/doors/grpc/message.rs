//! Converts the results of acts to messages of the API.

use mayfly_agent::api::v1;
use mayfly_verify::User;

use crate::acts::{Certified, Issuer, spawn};
use crate::authority::Signed;
use crate::clock::SECOND;
use crate::judge::Mint;
use crate::publish::Published;
use crate::state::{Agent, Standing};

/// All but the bundle.
pub(super) fn spawn_response(issuer: &Issuer, spawned: spawn::Spawned) -> v1::SpawnResponse {
    let spawn::Spawned { admission, holds, jwt } = spawned;
    let agent = admission.agent();
    let (svid, ticket) = match holds {
        spawn::Holds::Certificate(leaf) => {
            (Some(x509_svid(admission.id().to_string(), &leaf, agent.svid_ends_at)), String::new())
        }
        spawn::Holds::Ticket(ticket) => (None, ticket.to_string().to_string()),
        spawn::Holds::Nothing => (None, String::new()),
    };
    v1::SpawnResponse {
        agent: Some(agent_message(issuer, agent, Standing::Live)),
        svid,
        bundle: None,
        revision: agent.revision,
        clipped: agent.rare.clipped.clone(),
        jwt: jwt.map(|(mint, token)| jwt_svid(&mint, token)),
        ticket,
    }
}

/// The certificate, its agent unless it is a workload's, and the revision of its record.
pub(super) fn certified(issuer: &Issuer, certified: &Certified) -> (v1::X509Svid, Option<v1::Agent>, u64) {
    match certified {
        Certified::Workload(permit, leaf) => {
            let id = mayfly_verify::workload_id(&issuer.trust_domain, permit.workload());
            let certificate = permit.certificate();
            (x509_svid(id, leaf, certificate.ends_at), None, certificate.revision.get())
        }
        Certified::Agent(admission, leaf) => {
            let agent = agent_message(issuer, admission.agent(), Standing::Live);
            let (ends_at, revision) = admission.certificate().map_or((0, 0), |c| (c.ends_at, c.revision.get()));
            (x509_svid(admission.id().to_string(), leaf, ends_at), Some(agent), revision)
        }
    }
}

pub(super) fn x509_svid(spiffe_id: String, signed: &Signed, ends_at: u64) -> v1::X509Svid {
    v1::X509Svid { spiffe_id, certificates: signed.chain(), expires_at: Some(timestamp(ends_at)) }
}

pub(super) fn jwt_svid(mint: &Mint, token: String) -> v1::JwtSvid {
    v1::JwtSvid { spiffe_id: mint.id().to_string(), token, expires_at: Some(timestamp(mint.token().ends_at)) }
}

pub(super) fn bundle(issuer: &Issuer) -> v1::Bundle {
    bundle_message(&issuer.publisher.now())
}

/// The bundle, unless the caller has it already.
pub(super) fn bundle_unless(issuer: &Issuer, known: u64) -> Option<v1::Bundle> {
    let published = issuer.publisher.now();
    (published.bundle.sequence() != known).then(|| bundle_message(&published))
}

/// The published bundle, as a message.
pub fn bundle_message(published: &Published) -> v1::Bundle {
    v1::Bundle {
        trust_domain: published.bundle.trust_domain().to_string(),
        spiffe_json: published.document.clone(),
        x509_authorities: published.bundle.x509_authorities().to_vec(),
        feed_key: published.feed_key.clone(),
        sequence: published.bundle.sequence(),
    }
}

pub(super) fn agent_message(issuer: &Issuer, agent: &Agent, standing: Standing) -> v1::Agent {
    let chain = agent.chain(&issuer.trust_domain);
    let delegation = agent.delegation.as_ref();
    let state = match standing {
        Standing::Live => v1::AgentState::Live,
        Standing::Expired => v1::AgentState::Expired,
        Standing::Ended => v1::AgentState::Ended,
        Standing::Cut => v1::AgentState::Cut,
        Standing::Orphaned => v1::AgentState::Orphaned,
    };
    v1::Agent {
        agent_id: agent.id(&issuer.trust_domain).to_string(),
        root_id: chain.last().cloned().unwrap_or_default(),
        parent_id: chain.first().cloned().unwrap_or_default(),
        class: agent.mandate.class.to_string(),
        delegation_id: delegation.map(|d| d.id.to_string()).unwrap_or_default(),
        user: delegation.map(|d| user_message(issuer, &d.user)),
        mode: if delegation.is_some() { v1::Mode::Delegated } else { v1::Mode::Autonomous }.into(),
        depth: agent.depth(),
        scopes: agent.mandate.scopes.clone(),
        audiences: agent.mandate.audiences.clone(),
        admitted_at: Some(timestamp(agent.admitted_at / SECOND)),
        lease_expires_at: Some(timestamp(agent.lease_ends_at)),
        svid_expires_at: (!agent.is_keyless()).then(|| timestamp(agent.svid_ends_at)),
        keyless: agent.is_keyless(),
        revision: agent.revision,
        state: state.into(),
        ..Default::default()
    }
}

/// A user, with the name that operators write.
pub(super) fn user_message(issuer: &Issuer, user: &User) -> v1::User {
    named(issuer, v1::User { iss: user.iss.clone(), sub: user.sub.clone(), name: String::new() })
}

/// The same for a message without the name.
pub(super) fn named(issuer: &Issuer, user: v1::User) -> v1::User {
    let providers = issuer.providers.load();
    let provider = providers.urls.iter().find(|(_, url)| **url == user.iss).map_or(user.iss.as_str(), |(name, _)| name.as_str());
    v1::User { name: format!("{provider}/{}", user.sub), ..user }
}

pub(super) fn timestamp(seconds: u64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: i64::try_from(seconds).unwrap_or(i64::MAX), nanos: 0 }
}
