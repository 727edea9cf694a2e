//! `ext_authz` of Envoy (`envoy.service.auth.v3.Authorization/Check`): the credential is the one that Envoy received, and the rule
//! is in Envoy's configuration, as `context_extensions`.
//!
//! An answer is always a decision, because with `failure_mode_allow` Envoy would let a request pass after a gRPC error.

use std::collections::BTreeMap;

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use serde_json::Value as Json;
use tonic::{Code, Request, Response, Status};
use tonic_types::pb;

use super::Guard;
use super::check::Shown;
use super::decision::{Allowed, Denied};
use super::forward::{bearer, certificate};
use super::routes::count;
use super::rule::{Rule, Which};

use mayfly_agent::resource::Resource;

use crate::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use crate::envoy::service::auth::v3 as auth;
use crate::envoy::r#type::v3::HttpStatus;
use auth::authorization_server::{Authorization, AuthorizationServer};
use auth::check_response::HttpResponse;

const DOOR: &str = "envoy";
/// Largest request, in bytes: Envoy's headers and a certificate. If Envoy is configured to send bodies, they may be larger; they
/// are not needed here.
const MESSAGE: usize = 256 * 1024;

/// Full name of the service, for health.
pub(super) const SERVICE: &str = "envoy.service.auth.v3.Authorization";

pub(super) fn service(guard: &Guard) -> AuthorizationServer<impl Authorization> {
    AuthorizationServer::new(Door(guard.clone())).max_decoding_message_size(MESSAGE)
}

struct Door(Guard);

#[tonic::async_trait]
impl Authorization for Door {
    async fn check(&self, request: Request<auth::CheckRequest>) -> Result<Response<auth::CheckResponse>, Status> {
        let context = request.into_inner().attributes.unwrap_or_default();
        let pairs = context.context_extensions.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let rule = match Rule::read(pairs, Which::Any, false) {
            Ok(rule) => rule,
            Err(why) => {
                count(DOOR, "malformed", "");
                tracing::warn!(%why, "Envoy's context_extensions are malformed: the request is refused");
                return Ok(Response::new(answered(Code::InvalidArgument, malformed(), Struct::default())));
            }
        };
        Ok(Response::new(match decide(&self.0, &rule, &context) {
            Ok(allowed) => {
                count(DOOR, "allowed", "");
                let metadata = structure(&allowed.object(&self.0));
                answered(Code::Ok, pass(&allowed), metadata)
            }
            Err(denied) => {
                count(DOOR, "denied", denied.code());
                let metadata = structure(&serde_json::json!({ "decision": false, "reason": denied.code() }));
                let code = if denied.status() == 401 { Code::Unauthenticated } else { Code::PermissionDenied };
                let resource = self.0.resource(rule.audience.as_deref());
                answered(code, refuse(&denied, resource, &rule), metadata)
            }
        }))
    }
}

fn decide(guard: &Guard, rule: &Rule, context: &auth::AttributeContext) -> Result<Allowed, Denied> {
    let http = context.request.as_ref().and_then(|request| request.http.as_ref());
    let values = http.map(authorization).unwrap_or_default();
    let values: Option<Vec<&str>> = values.iter().map(|value| std::str::from_utf8(value).ok()).collect();
    let values = values.ok_or_else(|| Denied::of("TOKEN_MALFORMED"))?;
    let token = match rule.which {
        Which::Peer => None,
        // Without an audience the `authorization` header is left to the service, unless the rule asks for a token.
        Which::Any if rule.audience.is_none() => None,
        Which::Any | Which::Bearer => bearer(&values)?,
    };
    let shown = context.source.as_ref().filter(|_| rule.which.peer()).map_or("", |peer| peer.certificate.as_str());
    let certificate = certificate(&[shown])?;
    let shown = Shown { token, certificate: certificate.as_deref(), ..Shown::default() };
    guard.check(shown, rule.audience.as_deref(), &rule.scopes)?.agent()
}

/// The values of the header `authorization`.
fn authorization(http: &auth::attribute_context::HttpRequest) -> Vec<&[u8]> {
    let joined = http.headers.iter().map(|(name, value)| (name, value.as_bytes()));
    let each = http.header_map.iter().flat_map(|map| &map.headers);
    let each =
        each.map(|header| (&header.key, if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value }));
    joined.chain(each).filter(|(name, _)| name.eq_ignore_ascii_case("authorization")).map(|(_, value)| value).collect()
}

/// Sets the headers with the verified identity, and removes headers of the client with these names.
fn pass(allowed: &Allowed) -> HttpResponse {
    let values = allowed.headers();
    let headers = values.iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| header(name, value)).collect();
    let absent = values.iter().filter(|(_, value)| value.is_empty()).map(|(name, _)| (*name).to_owned()).collect();
    HttpResponse::OkResponse(auth::OkHttpResponse { headers, headers_to_remove: absent })
}

fn refuse(denied: &Denied, resource: Option<Resource>, rule: &Rule) -> HttpResponse {
    let mut headers = vec![header("mayfly-reason", denied.code())];
    headers.extend(denied.challenge(resource, &rule.scopes).map(|challenge| header("www-authenticate", &challenge)));
    HttpResponse::DeniedResponse(auth::DeniedHttpResponse {
        status: Some(HttpStatus { code: i32::from(denied.status().as_u16()) }),
        headers,
        body: format!("{}: {}\n", denied.code(), denied.meaning()),
    })
}

fn malformed() -> HttpResponse {
    let body = "the rule of the proxy is malformed\n".to_owned();
    HttpResponse::DeniedResponse(auth::DeniedHttpResponse { status: Some(HttpStatus { code: 403 }), headers: Vec::new(), body })
}

fn answered(code: Code, http: HttpResponse, metadata: Struct) -> auth::CheckResponse {
    let status = pb::Status { code: code.into(), ..Default::default() };
    auth::CheckResponse { status: Some(status), http_response: Some(http), dynamic_metadata: Some(metadata) }
}

fn header(name: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption { header: Some(HeaderValue { key: name.to_owned(), value: value.to_owned(), raw_value: Vec::new() }) }
}

/// A JSON object as Envoy's metadata has it.
fn structure(object: &Json) -> Struct {
    let fields = object.as_object().into_iter().flatten();
    Struct { fields: fields.map(|(name, one)| (name.clone(), value(one))).collect::<BTreeMap<_, _>>() }
}

fn value(json: &Json) -> Value {
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(yes) => Kind::BoolValue(*yes),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Json::String(text) => Kind::StringValue(text.clone()),
        Json::Array(items) => Kind::ListValue(ListValue { values: items.iter().map(value).collect() }),
        Json::Object(_) => Kind::StructValue(structure(json)),
    };
    Value { kind: Some(kind) }
}
