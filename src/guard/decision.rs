//! The answer to a check: as JSON, as headers for the service behind a proxy, and as a challenge to the client.

use axum::http::StatusCode;
use mayfly_agent::reason::{Actor, Entry, Kind};
use mayfly_agent::resource::Resource;
use mayfly_verify::{Mode, Principal, Reject, Reliance};
use serde_json::{Map, Value, json};

use super::Guard;
use super::kept::Svid;
use super::text::{encoded, time};

/// The headers that tell a service who calls. Headers of a client with these names are replaced or removed (T113).
pub(super) const HEADERS: [&str; 6] =
    ["x-mayfly-agent", "x-mayfly-user", "x-mayfly-chain", "x-mayfly-scopes", "x-mayfly-delegation", "x-mayfly-mode"];

/// A credential that is valid now, and has the scopes that were asked for.
pub(super) struct Allowed {
    svid: Svid,
    scopes: Vec<String>,
    /// Unix seconds.
    expires_at: u64,
}

impl Allowed {
    pub(super) fn of(svid: Svid) -> Allowed {
        let scopes = svid.binding().map(|binding| binding.scopes.clone()).unwrap_or_default();
        let lease = svid.binding().map_or(u64::MAX, |binding| binding.lease_expires_at);
        Allowed { expires_at: svid.ends_at().min(lease), scopes, svid }
    }

    /// A token with the certificate of the same identity, perhaps issued at different times.
    pub(super) fn of_both(token: Svid, certificate: &Svid) -> Allowed {
        let other = Allowed::of(certificate.clone());
        let mut both = Allowed::of(token);
        both.scopes.retain(|scope| other.scopes.contains(scope));
        both.expires_at = both.expires_at.min(other.expires_at);
        both
    }

    pub(super) fn reliance(&self) -> Reliance<'_> {
        self.svid.reliance()
    }

    pub(super) fn scopes(&self) -> &[String] {
        &self.scopes
    }

    /// Fails unless the caller is an agent, because proxies admit agents only.
    pub(super) fn agent(self) -> Result<Allowed, Denied> {
        match self.svid.principal() {
            Principal::Agent(_) => Ok(self),
            _ => Err(Denied::of("CALLER_NOT_AN_AGENT")),
        }
    }

    /// The object for `POST /verify`; its fields have the names that they have in `mayfly verify -o json`.
    pub(super) fn object(&self, guard: &Guard) -> Value {
        let (id, binding) = (self.svid.id().to_string(), self.svid.binding());
        let (agent, workload) = (self.is_agent(), matches!(self.svid.principal(), Principal::Workload(_)));
        let class = match self.svid.principal() {
            Principal::Agent(agent) => Some(agent.class.to_string()),
            _ => None,
        };
        let mut object = json!({
            "decision": true,
            "kind": match self.svid {
                Svid::X509(_) => "x509-svid",
                Svid::Jwt(_) => "jwt-svid",
                Svid::Access(_) => "access-token",
            },
            "spiffe_id": &id,
            "agent_id": agent.then_some(&id),
            "workload_id": workload.then_some(&id),
            "class": class,
            "user": binding.and_then(|binding| binding.user.as_ref()),
            "parent_id": binding.map(|binding| binding.parent_id()),
            "root_id": binding.map(|binding| binding.root_id()),
            "chain": binding.map(|binding| binding.chain.as_slice()).unwrap_or_default(),
            "scopes": self.scopes,
            "delegation_id": binding.and_then(|binding| binding.delegation).map(|id| id.to_string()),
            "mode": binding.map(|binding| binding.mode),
            "expires_at": time(self.expires_at),
        });
        if let (Svid::Access(access), Value::Object(object)) = (&self.svid, &mut object) {
            object.insert("subject".into(), access.token.subject.as_str().into());
            object.insert("authorization_details".into(), access.token.details.clone().unwrap_or_else(|| json!([])));
            object.insert("approval_id".into(), access.token.approval.as_ref().map(|approval| approval.id.clone()).into());
            let by = access.token.approval.as_ref().map(|approval| json!({ "iss": approval.by.iss, "sub": approval.by.sub }));
            object.insert("approved_by".into(), by.into());
        }
        knowledge(&mut object, guard);
        object
    }

    /// The values of [`HEADERS`], in their order; empty where there is none. A list is its items with a space between them, and
    /// the user is issuer and subject.
    pub(super) fn headers(&self) -> [(&'static str, String); 6] {
        let binding = self.svid.binding();
        let list = |items: &[String]| items.iter().map(|item| encoded(item)).collect::<Vec<_>>().join(" ");
        let user = binding.and_then(|binding| binding.user.as_ref());
        let values = [
            encoded(&self.svid.id().to_string()),
            user.map(|user| format!("{} {}", encoded(&user.iss), encoded(&user.sub))).unwrap_or_default(),
            binding.map(|binding| list(&binding.chain)).unwrap_or_default(),
            list(&self.scopes),
            binding.and_then(|binding| binding.delegation).map(|id| id.to_string()).unwrap_or_default(),
            binding.map(|binding| mode(binding.mode).to_owned()).unwrap_or_default(),
        ];
        let mut values = values.into_iter();
        HEADERS.map(|name| (name, values.next().unwrap_or_default()))
    }

    fn is_agent(&self) -> bool {
        matches!(self.svid.principal(), Principal::Agent(_))
    }
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Delegated => "delegated",
        Mode::Autonomous => "autonomous",
    }
}

/// A refusal of a credential.
pub(super) struct Denied {
    code: &'static str,
    /// The cause, for the service alone. The client gets only the code and its meaning.
    cause: Option<String>,
    /// All scopes that were asked for, if one of them is missing.
    scopes: Vec<String>,
}

impl From<Reject> for Denied {
    fn from(reject: Reject) -> Denied {
        Denied { code: reject.code(), cause: Some(reject.to_string()), scopes: Vec::new() }
    }
}

impl Denied {
    pub(super) fn of(code: &'static str) -> Denied {
        Denied { code, cause: None, scopes: Vec::new() }
    }

    pub(super) fn scope(missing: &str, asked: &[String]) -> Denied {
        let cause = format!("the agent lacks the scope `{missing}`");
        Denied { code: "SCOPE_MISSING", cause: Some(cause), scopes: asked.to_vec() }
    }

    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    /// What the code means, from the table of reasons.
    pub(super) fn meaning(&self) -> &'static str {
        let meaning = Entry::of(self.code).map_or("", |entry| entry.meaning);
        meaning.strip_prefix("From a service: ").unwrap_or(meaning)
    }

    /// The object for `POST /verify`.
    pub(super) fn object(&self, guard: &Guard) -> Value {
        let cause = self.cause.as_deref().unwrap_or_else(|| self.meaning().trim_end_matches('.'));
        let advice = match Entry::of(self.code).map(|entry| entry.actor) {
            Some(Actor::Holder) => "; its holder needs a new one",
            Some(Actor::Nobody) => "; ask again",
            Some(Actor::ClassOwner) => "; the owner of its class decides which scopes it may have",
            _ => "",
        };
        let mut object = json!({ "decision": false, "reason": self.code, "hint": format!("{cause}{advice}") });
        // The proxy answers with this value in the header `DPoP-Nonce` (RFC 9449 9).
        if let (Value::Object(object), "DPOP_NONCE_NEEDED") = (&mut object, self.code) {
            object.insert("dpop_nonce".into(), guard.nonce().into());
        }
        knowledge(&mut object, guard);
        object
    }

    /// 401 if another credential would help, otherwise 403.
    pub(super) fn status(&self) -> StatusCode {
        match Entry::of(self.code).and_then(|entry| entry.kinds.first()) {
            Some(Kind::Unauthenticated) => StatusCode::UNAUTHORIZED,
            _ => StatusCode::FORBIDDEN,
        }
    }

    /// The value of `WWW-Authenticate` (RFC 6750 3); `None` if no other token would help. A service that is a resource of OAuth
    /// says where its metadata is, and which scopes to ask for (RFC 9728 5.1).
    pub(super) fn challenge(&self, resource: Option<Resource>, scopes: &[String]) -> Option<String> {
        // RFC 6749 3.3: what a scope may consist of. Others cannot be named here.
        let plain = |scope: &&String| scope.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
        let named = |scopes: &[String]| {
            let scopes: Vec<_> = scopes.iter().filter(plain).map(String::as_str).collect();
            format!("scope=\"{}\"", scopes.join(" "))
        };
        let pointer = resource.map(|resource| resource.pointer());
        let parts = match (self.code, self.status()) {
            // RFC 6750 3.1: the answer to a request without any credential has no error code.
            ("CREDENTIAL_MISSING", _) if pointer.is_some() && !scopes.is_empty() => vec![named(scopes)],
            ("CREDENTIAL_MISSING", _) => vec![],
            ("SCOPE_MISSING", _) => vec!["error=\"insufficient_scope\"".into(), named(&self.scopes)],
            (_, StatusCode::UNAUTHORIZED) => vec!["error=\"invalid_token\"".into()],
            _ => return None,
        };
        let parts: Vec<String> = parts.into_iter().chain(pointer).collect();
        Some(format!("Bearer {}", parts.join(", ")).trim_end().to_owned())
    }
}

/// Adds the revision up to which every revocation is known, and the age of that knowledge.
fn knowledge(object: &mut Value, guard: &Guard) {
    let age = guard.staleness().map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    let mut told = Map::new();
    told.insert("revision".into(), guard.revision().into());
    told.insert("staleness_ms".into(), age.into());
    if let Value::Object(object) = object {
        object.extend(told);
    }
}
