//! `mayfly.guard.v1.Guard`: the questions of `POST /verify` over gRPC, with the same answers.

use axum::Json;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tonic::{Request, Response, Status};

use super::Guard;
use super::routes::count;
use super::verify::{BATCH, BATCH_BODY, Dpop, Malformed, Question, answer};

/// The messages and the service, generated from `proto/mayfly/guard`.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    reason = "generated"
)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/mayfly.guard.v1.rs"));
}

use v1::guard_server::{Guard as Service, GuardServer};

const DOOR: &str = "grpc";

/// Full name of the service, for health.
pub(super) const SERVICE: &str = "mayfly.guard.v1.Guard";

pub(super) fn service(guard: &Guard) -> GuardServer<impl Service> {
    GuardServer::new(Door(guard.clone())).max_decoding_message_size(BATCH_BODY)
}

struct Door(Guard);

#[tonic::async_trait]
impl Service for Door {
    async fn verify(&self, request: Request<v1::VerifyRequest>) -> Result<Response<v1::VerifyResponse>, Status> {
        let (_, object) = answer(&self.0, &question(request.into_inner()), DOOR).map_err(|no| refused(&no, ""))?;
        Ok(Response::new(message(&object)))
    }

    async fn verify_batch(&self, request: Request<v1::VerifyBatchRequest>) -> Result<Response<v1::VerifyBatchResponse>, Status> {
        let checks = request.into_inner().checks;
        if checks.is_empty() || checks.len() > BATCH {
            count(DOOR, "malformed", "");
            return Err(Status::invalid_argument(format!("`checks` must hold 1 to {BATCH} questions")));
        }
        let mut answers = Vec::with_capacity(checks.len());
        for (at, check) in checks.into_iter().enumerate() {
            let (_, object) = answer(&self.0, &question(check), DOOR).map_err(|no| refused(&no, &format!("checks[{at}]: ")))?;
            answers.push(message(&object));
            // A question may cost four signatures, so other requests are served in between.
            tokio::task::yield_now().await;
        }
        Ok(Response::new(v1::VerifyBatchResponse { answers }))
    }
}

fn question(asked: v1::VerifyRequest) -> Question {
    let audience = Some(asked.audience).filter(|audience| !audience.is_empty());
    let certificate = Some(asked.certificate).filter(|certificate| !certificate.is_empty());
    let dpop = asked.dpop.map(|of| Dpop { proof: of.proof, method: of.method, url: of.url });
    Question { credential: asked.credential, audience, scopes: asked.scopes, certificate, dpop, actions: asked.actions }
}

fn refused((_, Json(error)): &Malformed, before: &str) -> Status {
    count(DOOR, "malformed", "");
    Status::invalid_argument(format!("{before}{}", text(error, "error")))
}

/// The message with the content of the JSON object.
fn message(object: &Value) -> v1::VerifyResponse {
    let text = |name| text(object, name);
    let list = |name: &str| {
        let items = object.get(name).and_then(Value::as_array).into_iter().flatten();
        items.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let user = object.get("user").filter(|user| user.is_object());
    let user = user.map(|user| v1::User { iss: self::text(user, "iss"), sub: self::text(user, "sub") });
    let expires_at = OffsetDateTime::parse(&text("expires_at"), &Rfc3339).ok();
    v1::VerifyResponse {
        decision: object.get("decision") == Some(&Value::Bool(true)),
        reason: text("reason"),
        hint: text("hint"),
        kind: text("kind"),
        spiffe_id: text("spiffe_id"),
        agent_id: text("agent_id"),
        workload_id: text("workload_id"),
        class: text("class"),
        user,
        parent_id: text("parent_id"),
        root_id: text("root_id"),
        chain: list("chain"),
        scopes: list("scopes"),
        delegation_id: text("delegation_id"),
        mode: text("mode"),
        expires_at: expires_at.map(|at| prost_types::Timestamp { seconds: at.unix_timestamp(), nanos: 0 }),
        revision: object.get("revision").and_then(Value::as_u64).unwrap_or_default(),
        staleness_ms: object.get("staleness_ms").and_then(Value::as_u64),
        subject: text("subject"),
        authorization_details: object.get("authorization_details").map(Value::to_string).unwrap_or_default(),
        approval_id: text("approval_id"),
        dpop_nonce: text("dpop_nonce"),
    }
}

fn text(object: &Value, name: &str) -> String {
    object.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}
