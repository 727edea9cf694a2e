//! Room 1: the caller. The authenticated peer of a call comes from its verified certificate chain, or from a verified token.

mod origin;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mayfly_verify::{
    AgentId, BindingOid, Bundle, Principal, Reject, SpiffeId, Stamp, TrustDomain, User, Workload, WorkloadName, X509Svid,
    verify_x509, workload_id,
};
use rustls_pki_types::CertificateDer;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::denial::{Denial, Kind};
pub use origin::{Asked, From, Origin, Question};

/// The authenticated peer of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// It proved nothing.
    Stranger,
    /// A workload of this trust domain, by its key.
    Workload {
        /// Its name.
        name: WorkloadName,
        /// SHA-256 of its public key.
        key: [u8; 32],
        /// Serial number of its certificate, which identifies its generation in a line of renewals.
        serial: Vec<u8>,
        /// The journal's head when its connection was accepted.
        opened: u64,
        /// Key id of the authority that signed its certificate.
        authority: Vec<u8>,
    },
    /// A workload of a foreign trust domain, listed by its exact SPIFFE ID. It spawns, and nothing else.
    Foreign {
        /// Its SPIFFE ID.
        id: Arc<SpiffeId>,
        /// Unix seconds at which its certificate ends.
        ends_at: u64,
    },
    /// An agent of this trust domain.
    Agent {
        /// Its id.
        id: AgentId,
        /// SHA-256 of its public key.
        key: [u8; 32],
        /// Serial number of its certificate, which identifies its generation.
        serial: Vec<u8>,
        /// The incarnation of the journal that its certificate belongs to.
        incarnation: Uuid,
        /// The journal's head when its connection was accepted.
        opened: u64,
        /// Key id of the authority that signed its certificate.
        authority: Vec<u8>,
    },
    /// An agent of this trust domain, by a JWT-SVID for this issuer alone. It gets access tokens, and nothing else.
    Bearer {
        /// Its id.
        id: AgentId,
        /// The incarnation of the journal that the JWT-SVID belongs to.
        incarnation: Uuid,
        /// Key id of the authority that signed the JWT-SVID.
        authority: Vec<u8>,
        /// Its `jti`: it proves its agent once.
        jti: [u8; 16],
        /// Unix seconds at which it expires.
        ends_at: u64,
    },
    /// A user, by a token for an audience that is configured for users themselves. They see and stop what acts for them.
    User {
        /// The user.
        user: User,
        /// When the token was issued, Unix seconds.
        issued_at: u64,
        /// Whether the token lets them revoke and nothing else: its audience has `revokes = true`.
        only_revokes: bool,
    },
    /// A person, by a token for an audience of operators and auditors. The claims of the token decide which of the two they are, if
    /// any.
    Person {
        /// The user at their provider.
        user: User,
        /// The operator's name for the provider.
        provider: String,
        /// When the token was issued, Unix seconds.
        issued_at: u64,
        /// Unix seconds from which on the token is no longer accepted.
        ends_at: u64,
        /// The audience of the token.
        audience: Arc<str>,
        /// All claims of the token.
        claims: Arc<Map<String, Value>>,
    },
    /// An operator.
    Operator {
        /// `uid:<n>`, or the scope of the workload or the person that it is.
        name: String,
        /// The workload or the person that it is, with what proved it. `None` for a listed uid on the operator socket.
        by: Option<Box<Caller>>,
    },
    /// An auditor, who reads what operators read and changes nothing.
    Auditor {
        /// As of an operator.
        name: String,
        /// As of an operator.
        by: Option<Box<Caller>>,
    },
}

/// A caller's role, as the table of methods has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// It proved nothing.
    Stranger,
    /// An agent.
    Agent,
    /// A workload.
    Workload,
    /// A workload of a foreign trust domain.
    Foreign,
    /// An agent that proved itself by a JWT-SVID.
    Bearer,
    /// A user with a token of their own.
    User,
    /// A user whose token lets them revoke and nothing else.
    Revoker,
    /// A person with a token for operators or auditors, whose claims match neither.
    Person,
    /// An operator.
    Operator,
    /// An auditor.
    Auditor,
}

impl Caller {
    /// Its role.
    pub fn role(&self) -> Role {
        match self {
            Caller::Stranger => Role::Stranger,
            Caller::Workload { .. } => Role::Workload,
            Caller::Foreign { .. } => Role::Foreign,
            Caller::Agent { .. } => Role::Agent,
            Caller::Bearer { .. } => Role::Bearer,
            Caller::User { only_revokes: true, .. } => Role::Revoker,
            Caller::User { only_revokes: false, .. } => Role::User,
            Caller::Person { .. } => Role::Person,
            Caller::Operator { .. } => Role::Operator,
            Caller::Auditor { .. } => Role::Auditor,
        }
    }

    /// The scope of its request ids, and its name in records.
    pub fn scope(&self) -> String {
        match self {
            Caller::Stranger => "stranger".into(),
            Caller::Workload { name, .. } => format!("workload/{name}"),
            Caller::Foreign { id, .. } => id.to_string(),
            Caller::Agent { id, .. } | Caller::Bearer { id, .. } => id.to_string(),
            Caller::User { user, .. } => format!("user {} of {}", user.sub, user.iss),
            // No other scope has this prefix, so a person's acts as an operator are never mistaken for their acts as a user.
            Caller::Person { user, provider, .. } => format!("user:{provider}/{}", user.sub),
            Caller::Operator { name, .. } | Caller::Auditor { name, .. } => name.clone(),
        }
    }

    /// The SPIFFE ID that it proved. `None` for strangers, users, and operators on the local socket.
    pub fn spiffe_id(&self, td: &TrustDomain) -> Option<String> {
        match self {
            Caller::Workload { name, .. } => Some(workload_id(td, name)),
            Caller::Foreign { id, .. } => Some(id.to_string()),
            Caller::Agent { id, .. } | Caller::Bearer { id, .. } => Some(id.to_string()),
            Caller::Operator { by: Some(by), .. } | Caller::Auditor { by: Some(by), .. } => by.spiffe_id(td),
            Caller::Stranger | Caller::User { .. } | Caller::Person { .. } => None,
            Caller::Operator { by: None, .. } | Caller::Auditor { by: None, .. } => None,
        }
    }

    /// The workload that it is, if it is one.
    pub fn workload(&self) -> Option<Workload> {
        match self {
            Caller::Workload { name, .. } => Some(Workload::Own(name.clone())),
            Caller::Foreign { id, .. } => Some(Workload::Foreign(Arc::clone(id))),
            _ => None,
        }
    }

    /// The UUID of the agent that it is, if it is one.
    pub fn agent_uuid(&self) -> Option<Uuid> {
        match self {
            Caller::Agent { id, .. } | Caller::Bearer { id, .. } => Some(id.uuid),
            _ => None,
        }
    }

    /// The agent that it is, if it is one.
    pub fn agent(&self) -> Option<&Caller> {
        matches!(self, Caller::Agent { .. }).then_some(self)
    }

    /// The caller whose certificate was presented: for an operator or auditor that is a workload, that workload.
    pub fn holder(&self) -> &Caller {
        match self {
            Caller::Operator { by: Some(by), .. } | Caller::Auditor { by: Some(by), .. } => by,
            other => other,
        }
    }

    /// Whether it may read everything: operators and auditors may.
    pub fn reads_everything(&self) -> bool {
        matches!(self, Caller::Operator { .. } | Caller::Auditor { .. })
    }

    /// The person who is an operator or an auditor by a token. `None` for anybody else.
    pub fn person(&self) -> Option<&Caller> {
        match self {
            Caller::Person { .. } => Some(self),
            Caller::Operator { by, .. } | Caller::Auditor { by, .. } => by.as_deref().and_then(Caller::person),
            _ => None,
        }
    }

    /// Whether it is this workload.
    pub fn is(&self, workload: &Workload) -> bool {
        match (self, workload) {
            (Caller::Workload { name, .. }, Workload::Own(own)) => name == own,
            (Caller::Foreign { id, .. }, Workload::Foreign(foreign)) => id == foreign,
            _ => false,
        }
    }
}

/// A peer whose chain was verified. Signatures are verified once for a connection; what may change while the connection is open
/// is checked at each call.
#[derive(Debug)]
pub struct Proved {
    svid: X509Svid,
    opened: u64,
    // Generation of the foreign bundle that verified the chain last. `None` for a peer of our own trust domain.
    foreign: Option<AtomicU64>,
}

/// Verifies a peer's chain. A chain that does not verify is a denial, never a stranger.
///
/// `opened` is the journal's head when the connection was accepted, `now` is in Unix seconds.
pub fn prove(chain: &[CertificateDer<'_>], bundle: &Bundle, oid: &BindingOid, opened: u64, now: u64) -> Result<Proved, Denial> {
    Ok(Proved { svid: verify(chain, bundle, oid, now)?, opened, foreign: None })
}

/// Verifies the chain of a peer from a foreign trust domain, with the bundle of that domain alone (XV-1). The bundle's generation
/// changes with its contents.
pub fn prove_foreign(
    chain: &[CertificateDer<'_>],
    (bundle, generation): (&Bundle, u64),
    oid: &BindingOid,
    opened: u64,
    now: u64,
) -> Result<Proved, Denial> {
    Ok(Proved { svid: verify(chain, bundle, oid, now)?, opened, foreign: Some(AtomicU64::new(generation)) })
}

fn verify(chain: &[CertificateDer<'_>], bundle: &Bundle, oid: &BindingOid, now: u64) -> Result<X509Svid, Denial> {
    verify_x509(chain, bundle, oid, now).map_err(|e| unauthenticated(e.code(), e.to_string()))
}

impl Proved {
    /// Its SPIFFE ID.
    pub fn id(&self) -> &SpiffeId {
        &self.svid.id
    }

    /// When its certificate expires, Unix seconds.
    pub fn ends_at(&self) -> u64 {
        self.svid.not_after
    }

    /// Its SPIFFE ID, when it is of a foreign trust domain.
    pub fn foreign(&self) -> Option<&SpiffeId> {
        self.foreign.as_ref().map(|_| &self.svid.id)
    }

    /// Verifies the chain again if the foreign bundle has changed since.
    pub fn prove_again(
        &self,
        chain: &[CertificateDer<'_>],
        (bundle, generation): (&Bundle, u64),
        oid: &BindingOid,
        now: u64,
    ) -> Result<(), Denial> {
        if let Some(under) = self.foreign.as_ref().filter(|under| under.load(Ordering::Acquire) != generation) {
            verify(chain, bundle, oid, now)?;
            under.store(generation, Ordering::Release);
        }
        Ok(())
    }
}

/// The caller behind a verified peer at this call: expiry and cuts change while a connection is open.
///
/// `listed` says whether a foreign id may call at all, `cut` whether an agent with these stamps, of this incarnation of the journal, is
/// dead.
pub fn authenticate(
    peer: &Proved,
    listed: impl FnOnce(&SpiffeId) -> Option<Arc<SpiffeId>>,
    cut: impl FnOnce(&AgentId, Uuid, &[Stamp]) -> bool,
    now: u64,
) -> Result<Caller, Denial> {
    let svid = &peer.svid;
    if now >= svid.not_after {
        let e = Reject::Expired(svid.not_after);
        return Err(unauthenticated(e.code(), e.to_string()));
    }
    // ORDER: before anything is read from the path. Each trust domain gives paths its own meaning: a foreign `/workload/x` is not
    // our workload `x`.
    if let Some(id) = peer.foreign() {
        let unlisted = || unauthenticated("CALLER_UNKNOWN", format!("`{id}` is no spawner of any class"));
        return Ok(Caller::Foreign { id: listed(id).ok_or_else(unlisted)?, ends_at: svid.not_after });
    }
    match (&svid.principal, &svid.binding) {
        (Principal::Workload(name), None) => {
            let (serial, authority) = (svid.serial.clone(), svid.authority.clone());
            Ok(Caller::Workload { name: name.clone(), key: svid.key, serial, opened: peer.opened, authority })
        }
        (Principal::Agent(id), Some(binding)) => {
            if cut(id, binding.incarnation, &binding.stamps) {
                return Err(unauthenticated(Reject::Cut.code(), Reject::Cut.to_string()));
            }
            Ok(Caller::Agent {
                id: id.clone(),
                key: svid.key,
                serial: svid.serial.clone(),
                incarnation: binding.incarnation,
                opened: peer.opened,
                authority: svid.authority.clone(),
            })
        }
        // XC-2, T18: neither the issuer's own certificate nor anything else is a caller.
        _ => Err(unauthenticated("CALLER_UNKNOWN", format!("`{}` is neither a workload nor an agent", svid.id))),
    }
}

/// UNAUTHENTICATED.
pub fn unauthenticated(code: &'static str, message: impl Into<String>) -> Denial {
    Denial::new(Kind::Unauthenticated, code, message)
}
