//! The claims of a token, in the form of the Workload API.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// The claims of a token that was verified before. `None` if they cannot be read.
pub(super) fn of(token: &str) -> Option<prost_types::Struct> {
    let body = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    match value(serde_json::from_slice(&body).ok()?).kind? {
        prost_types::value::Kind::StructValue(claims) => Some(claims),
        _ => None,
    }
}

fn value(json: Value) -> prost_types::Value {
    use prost_types::value::Kind;
    let kind = match json {
        Value::Null => Kind::NullValue(0),
        Value::Bool(b) => Kind::BoolValue(b),
        Value::Number(n) => Kind::NumberValue(n.as_f64().unwrap_or(0.0)),
        Value::String(s) => Kind::StringValue(s),
        Value::Array(list) => Kind::ListValue(prost_types::ListValue { values: list.into_iter().map(value).collect() }),
        Value::Object(map) => {
            Kind::StructValue(prost_types::Struct { fields: map.into_iter().map(|(k, v)| (k, value(v))).collect() })
        }
    };
    prost_types::Value { kind: Some(kind) }
}
