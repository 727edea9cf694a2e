//! The form of a verdict: the checks in order, then a permit or a denial. A denial is the outcome of the last check.

use mayfly_verify::{AgentId, Workload, WorkloadName};
use uuid::Uuid;

use crate::denial::No;
use crate::policies::Action;

/// The result of judging one act.
pub struct Verdict<P> {
    /// The checks that were made, in order. If `result` is a denial, the last of them failed.
    pub checks: Vec<Check>,
    /// The permit, or why there is none.
    pub result: Result<P, No>,
}

/// One check of a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// The caller's credential is still valid.
    Caller,
    /// The request id is new, or was used before for the same request.
    Request,
    /// The class is configured.
    ClassKnown,
    /// The class is open for new agents.
    ClassOpen,
    /// The user's proof holds, and names the caller.
    Grant,
    /// The class and the caller's grant allow the request.
    Authority,
    /// The root workload is open.
    WorkloadOpen,
    /// The workload is configured.
    WorkloadKnown,
    /// The audience of a token is allowed.
    Audience,
    /// The key was not revoked and belongs to nobody else.
    Key,
    /// The lease, the class and the signing authority leave time for a credential.
    Lifetime,
    /// The limit at this index in the configuration has room.
    Limit(usize),
    /// The budgets of the agent, and of those above it, have enough left.
    Budget,
    /// The policies were asked.
    Policies,
    /// The policy at this index of the set in force ([`crate::policies::Policies::all`]) decides: it permits, or it forbids.
    Policy(usize),
    /// The binding fits into a credential.
    BindingSize,
    /// The further claims of a token are within the limits of the system that reads them.
    Claims,
    /// The Subject of the class is within its limits.
    Subject,
    /// The ticket is known, has not ended, and belongs to this key.
    Ticket,
    /// The certificate is the agent's current one.
    Generation,
    /// The agent's class, and those of its ancestors, still allow some of the agent's scopes.
    AuthorityLeft,
    /// The target belongs to the caller.
    Ownership,
    /// The target exists.
    TargetKnown,
    /// The target is closed.
    TargetClosed,
    /// The authority's status allows the change.
    AuthorityStatus,
    /// The request needs no approval, or has one.
    Approval,
}

/// Where the rule or data behind a check is defined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defined {
    /// In the records of the journal.
    Journal,
    /// In the configuration of the class.
    Class,
    /// In the issuer's configuration.
    Configuration,
    /// In a limit of the configuration, by its index.
    Limit(usize),
    /// In the folder of policies.
    Policies,
    /// In a policy, by its index in the set in force: it knows its file, line and owner.
    Policy(usize),
    /// In the class, and in the delegation or the parent.
    ClassAndGrant,
    /// In the protocol.
    Protocol,
}

impl Check {
    /// Its name in explanations.
    pub fn as_str(self) -> &'static str {
        match self {
            Check::Caller => "caller",
            Check::Request => "request",
            Check::ClassKnown => "class_known",
            Check::ClassOpen => "class_open",
            Check::Grant => "grant",
            Check::Authority => "authority",
            Check::WorkloadOpen => "workload_open",
            Check::WorkloadKnown => "workload_known",
            Check::Audience => "audience",
            Check::Key => "key",
            Check::Lifetime => "lifetime",
            Check::Limit(_) => "limit",
            Check::Policies => "policies",
            Check::Policy(_) => "policy",
            Check::BindingSize => "binding_size",
            Check::Claims => "claims",
            Check::Subject => "subject",
            Check::Ticket => "ticket",
            Check::Generation => "generation",
            Check::AuthorityLeft => "authority_left",
            Check::Ownership => "ownership",
            Check::TargetKnown => "target_known",
            Check::TargetClosed => "target_closed",
            Check::AuthorityStatus => "authority_status",
            Check::Approval => "approval",
            Check::Budget => "budget",
        }
    }

    /// The inputs of the check.
    pub fn looks_at(self) -> &'static str {
        match self {
            Check::Caller => "caller",
            Check::Request => "request id",
            Check::ClassKnown | Check::ClassOpen => "class",
            Check::Grant => "user or delegation",
            Check::Authority | Check::AuthorityLeft => "scopes, audiences, lease and depth",
            Check::WorkloadOpen | Check::WorkloadKnown => "workload",
            Check::Audience => "audience",
            Check::Key => "public key",
            Check::Lifetime => "lifetime",
            Check::Limit(_) => "limit",
            Check::Budget => "budget",
            Check::Policies | Check::Policy(_) => "policies",
            Check::BindingSize => "binding",
            Check::Subject => "subject",
            Check::Claims => "claims",
            Check::Ticket => "ticket",
            Check::Generation => "certificate",
            Check::Ownership | Check::TargetKnown | Check::TargetClosed => "target",
            Check::AuthorityStatus => "signing authority",
            Check::Approval => "approval",
        }
    }

    /// Where its answer is defined.
    pub fn defined_in(self) -> Defined {
        match self {
            Check::ClassKnown | Check::WorkloadKnown | Check::Claims => Defined::Configuration,
            Check::Authority | Check::AuthorityLeft => Defined::ClassAndGrant,
            Check::Audience | Check::Lifetime | Check::Subject | Check::Approval | Check::Budget => Defined::Class,
            Check::Limit(index) => Defined::Limit(index),
            Check::Policies => Defined::Policies,
            Check::Policy(index) => Defined::Policy(index),
            Check::BindingSize => Defined::Protocol,
            Check::Caller
            | Check::Request
            | Check::ClassOpen
            | Check::Grant
            | Check::WorkloadOpen
            | Check::Key
            | Check::Ticket
            | Check::Generation
            | Check::Ownership
            | Check::TargetKnown
            | Check::TargetClosed
            | Check::AuthorityStatus => Defined::Journal,
        }
    }
}

/// A message for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Note {
    /// Somebody holds a copy of an agent's certificate.
    #[error("agent {0}: a certificate from before its renewal was used again, so the agent was revoked")]
    CertificateReused(AgentId),
    /// Somebody holds a copy of a workload's identity.
    #[error(
        "workload `{0}`: a certificate from before its renewal was renewed, so two hold one identity: it was revoked, and so was every \
         agent that the workload spawned"
    )]
    WorkloadCertificateReused(WorkloadName),
    /// A program uses an outdated identity of a workload, or somebody holds a copy.
    #[error("workload `{0}`: a certificate from before its renewal was used on a new connection, and was refused")]
    WorkloadCertificatePast(WorkloadName),
    /// Too many agents below this one were revoked, so it was revoked itself.
    #[error("agent {0}: as many agents below it were revoked as verifiers are told of one by one, so it was revoked itself")]
    Collapsed(AgentId),
    /// Somebody else has the secret of a workload's ticket.
    #[error("workload `{0}`: its ticket was presented again with another key")]
    WorkloadTicketReused(WorkloadName),
    /// Somebody else has the token of a workload's platform.
    #[error("workload `{0}`: a token of its platform was presented again with another key")]
    WorkloadTokenReused(WorkloadName),
    /// Somebody else has the secret of an agent's ticket.
    #[error("agent {0}: its ticket was presented again with another key")]
    AgentTicketReused(Uuid),
    /// The candidate set of policies would have decided otherwise.
    #[error("the shadow policies would have {} {} (policy `{policy}`)", if *allowed { "allowed" } else { "denied" }, action.as_str())]
    ShadowDiffers {
        /// What was asked for.
        action: Action,
        /// The answer of the candidate set.
        allowed: bool,
        /// The policy that decides there.
        policy: String,
    },
    /// A user token was presented by a workload that it does not belong to.
    #[error("a user token that workload `{recorded}` brought first was presented by workload `{presented}`")]
    TokenOfAnother {
        /// The workload that the recorded delegation names.
        recorded: Workload,
        /// The workload that presented the token.
        presented: Workload,
    },
}
