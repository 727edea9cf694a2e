//! What can be asked of the writer, and what comes back once it is durable.

use std::sync::Arc;

use mayfly_verify::{AgentId, Binding, ClassName, DelegationId, Target, User, Workload, WorkloadName};
use uuid::Uuid;

use super::state::authority::{Kind, Slot};
use super::state::{Agent, Certificate, Token};
use crate::caller::Caller;
use crate::policy::Asked;

/// One request to change who may do what.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Who asks; judged again at commit.
    pub caller: Caller,
    /// What.
    pub proposal: Proposal,
}

/// What is asked.
#[derive(Clone, Debug)]
pub enum Proposal {
    /// A new agent.
    Spawn(Box<Spawn>),
    /// A JWT-SVID for the calling agent.
    Mint {
        /// For whom; at least one.
        audiences: Vec<String>,
        /// Makes a retry the same record.
        request: Option<RequestId>,
    },
    /// An agent's end; none: the caller's own.
    End {
        /// Which.
        agent: Option<Uuid>,
    },
    /// A join token for a workload.
    Ticket {
        /// For whom.
        workload: WorkloadName,
        /// SHA-256 of its secret.
        hash: [u8; 32],
        /// Seconds it lasts.
        ttl: u64,
    },
    /// The redemption of a ticket.
    Redeem {
        /// SHA-256 of the secret.
        hash: [u8; 32],
        /// SHA-256 of the public key.
        key: [u8; 32],
    },
    /// A fresh certificate for the calling workload or agent.
    Renew {
        /// SHA-256 of the public key.
        key: [u8; 32],
    },
    /// Nothing but the caller itself: its certificate is judged, and its first use recorded.
    Present,
    /// A cut.
    Revoke {
        /// Of whom or what.
        target: Target,
        /// Of the trust domain alone: not all of it, but what is from before a time.
        since: Option<Since>,
        /// Record nothing.
        dry: bool,
        /// Why; stays inside.
        reason: String,
        /// Keep what can be reopened open for new issuance.
        allow_new: bool,
    },
    /// Open a user, a workload or a class again.
    Reopen {
        /// Which.
        target: Target,
    },
    /// Digest of the classes and limits in use; recorded when it is not what stands.
    Configure {
        /// SHA-256.
        classes: [u8; 32],
    },
    /// A change of the authorities.
    Authorities(Change),
}

/// A time, and the revision that parts what was recorded before it from what was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since {
    /// The first record that is not from before it; or the one that would come next.
    pub revision: u64,
    /// Unix microseconds, not in the future.
    pub time: u64,
}

/// A change of the authorities.
#[derive(Clone, Debug)]
pub enum Change {
    /// A new one, which is published and signs nothing yet. Its times and its status are the writer's.
    Prepare(Slot),
    /// A prepared one signs from now on, and the one that did has retired.
    Activate {
        /// What it signs.
        kind: Kind,
        /// Which; none: the prepared one.
        id: Option<Arc<str>>,
        /// Also when it has not been published for long enough (BU-9).
        early: bool,
    },
    /// A prepared one is withdrawn.
    Retire {
        /// Which.
        id: String,
    },
    /// Nothing that one ever signed holds.
    Taint {
        /// Which; never the active one.
        id: String,
    },
    /// Those go of which nothing is about any more.
    Collect,
}

impl Change {
    /// What it is called.
    pub fn as_str(&self) -> &'static str {
        match self {
            Change::Prepare(_) => "prepare",
            Change::Activate { .. } => "activate",
            Change::Retire { .. } => "retire",
            Change::Taint { .. } => "taint",
            Change::Collect => "collect",
        }
    }
}

/// A request id with what it must stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId {
    /// SHA-256 of caller, method and id.
    pub key: [u8; 32],
    /// SHA-256 of what is asked.
    pub digest: [u8; 32],
}

/// A spawn.
#[derive(Clone, Debug)]
pub struct Spawn {
    /// Of which class.
    pub class: ClassName,
    /// How the agent gets its first certificate.
    pub credential: Credential,
    /// The verified user; none asks for an autonomous agent, or comes from an agent, whose user it inherits.
    pub proof: Option<Proof>,
    /// How much.
    pub asked: Asked,
    /// Audience of a first JWT-SVID.
    pub audience: Option<String>,
    /// Makes a retry the same record.
    pub request: Option<RequestId>,
}

/// How a new agent gets its first certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// At once, for a key with this SHA-256.
    Key([u8; 32]),
    /// By a ticket whose secret has this SHA-256, within so many seconds.
    Ticket([u8; 32], u64),
}

/// What a user token proved.
#[derive(Clone, Debug)]
pub enum Proof {
    /// A token that was verified just now.
    Token {
        /// Whose.
        user: User,
        /// SHA-256 of what its signature covers: which token it is, whoever signed it again.
        proof: [u8; 32],
        /// SHA-256 of the whole token.
        token: [u8; 32],
        /// Unix seconds.
        issued_at: u64,
        /// Unix seconds.
        ends_at: u64,
        /// Workloads that may present it.
        workloads: Vec<Workload>,
        /// Ceiling of its audience; none: no ceiling.
        scopes: Option<Vec<String>>,
    },
    /// A token that recorded a delegation before, byte for byte the same; by its proof.
    Recorded([u8; 32]),
    /// A delegation that was recorded before and names the caller.
    Delegation(DelegationId),
}

/// What was recorded.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// An agent, and its first token if one was asked for.
    Spawned(Admission, Option<Mint>),
    /// An agent's next certificate may be signed, or the first of one that came with a ticket.
    Renewed(Admission),
    /// The caller is who it says.
    Present,
    /// A token.
    Minted(Mint),
    /// An agent ended.
    Ended {
        /// Which.
        agent: AgentId,
        /// By which record.
        revision: u64,
    },
    /// A ticket stands.
    Ticketed {
        /// Unix microseconds.
        ends_at: u64,
        /// Its record.
        revision: u64,
    },
    /// A workload's certificate may be signed.
    Certified(Certification),
    /// A cut is in force.
    Revoked {
        /// Its record.
        revision: u64,
        /// Upper bound of the live agents that end by it.
        agents_at_most: u64,
        /// Whether new issuance is open.
        open_for_new: bool,
        /// Seconds for which a verifier that hears nothing may accept what was issued before.
        worst_case_seconds: u64,
        /// Unix microseconds.
        at: u64,
    },
    /// A user, a workload or a class is open.
    Reopened {
        /// Its record.
        revision: u64,
        /// Unix microseconds.
        at: u64,
    },
    /// The authorities stand as asked.
    Authorities {
        /// Of the record that says so.
        revision: u64,
    },
    /// The configuration stands in the journal.
    Configured {
        /// Its record.
        revision: u64,
    },
}

/// A permit that is recorded. Only this can become an agent's X.509-SVID.
#[derive(Clone, Debug)]
pub struct Admission {
    pub(super) id: AgentId,
    pub(super) agent: Arc<Agent>,
    pub(super) certificate: Option<Certificate>,
    pub(super) binding: Arc<Binding>,
    pub(super) authority: Arc<str>,
}

impl Admission {
    /// The agent's SPIFFE ID.
    pub fn id(&self) -> &AgentId {
        &self.id
    }

    /// The agent as it was recorded.
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// The certificate that may be signed; none when a ticket comes first.
    pub fn certificate(&self) -> Option<&Certificate> {
        self.certificate.as_ref()
    }

    /// What its certificate says of it.
    pub fn binding(&self) -> &Binding {
        &self.binding
    }

    /// Who was to sign when it was recorded.
    pub fn authority(&self) -> &Arc<str> {
        &self.authority
    }
}

/// A recorded permit for one JWT-SVID. Only this can become a token.
#[derive(Clone, Debug)]
pub struct Mint {
    pub(super) id: AgentId,
    pub(super) token: Token,
    pub(super) binding: Arc<Binding>,
    pub(super) authority: Arc<str>,
}

impl Mint {
    /// Whose.
    pub fn id(&self) -> &AgentId {
        &self.id
    }

    /// The token as it was recorded.
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// What the token says of the agent.
    pub fn binding(&self) -> &Binding {
        &self.binding
    }

    /// Who was to sign when it was recorded.
    pub fn authority(&self) -> &Arc<str> {
        &self.authority
    }
}

/// A recorded permit for a workload's certificate.
#[derive(Clone, Debug)]
pub struct Certification {
    pub(super) workload: WorkloadName,
    pub(super) certificate: Certificate,
    pub(super) authority: Arc<str>,
}

impl Certification {
    /// For whom.
    pub fn workload(&self) -> &WorkloadName {
        &self.workload
    }

    /// The certificate as it was recorded.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Who was to sign when it was recorded.
    pub fn authority(&self) -> &Arc<str> {
        &self.authority
    }
}
