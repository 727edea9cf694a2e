//! Reason codes: why a request was denied, who has to act, and whether the identity that asked has ended.
//!
//! A denial is a gRPC status with `google.rpc.ErrorInfo`: its domain is `mayfly.v1`, and its `reason` is one of these codes. In
//! plain HTTP a service that uses [`delegation`](crate::delegation) sends the code in the header `Mayfly-Reason`. The same list
//! is the enum [`Reason`] of the proto.
//!
//! ```
//! use mayfly_agent::reason::{Actor, Entry};
//!
//! let entry = Entry::of("USER_CLOSED").ok_or("a code of a later version")?;
//! assert_eq!(entry.actor, Actor::Operator);
//! assert!(!entry.is_final);
//! # Ok::<(), &str>(())
//! ```
#![doc = include_str!("../docs/reasons.md")]

use std::fmt;

use tonic::Code;

use self::Actor::{Caller, ClassOwner, Holder, Nobody, Operator, User};
use self::Kind::{Conflict, Deadline, Denied, Exhausted, Malformed, NotFound, Precondition, Unauthenticated, Unavailable};
use crate::api::v1::Reason;

/// One reason code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The code as it is sent, such as `KEY_IN_USE`.
    pub code: &'static str,
    /// The kinds of denial that have this code, the usual one first. Several kinds mean that the code can be about the caller
    /// itself, about what the caller asks for, or about a change that came between the decision and the answer.
    pub kinds: &'static [Kind],
    /// What happened, as one sentence.
    pub meaning: &'static str,
    /// Who has to act before the request can succeed.
    pub actor: Actor,
    /// Whether a certificate that the issuer refuses as UNAUTHENTICATED with this code is refused for good. Under any other kind
    /// a code ends nothing but the one request.
    pub is_final: bool,
}

/// The kind of a denial. Each is one gRPC status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request is malformed, whoever sends it: INVALID_ARGUMENT.
    Malformed,
    /// The caller has not proved who it is, or its credential is not valid any more: UNAUTHENTICATED.
    Unauthenticated,
    /// This caller may not do it: PERMISSION_DENIED.
    Denied,
    /// It does not exist, or the caller may not see it: NOT_FOUND.
    NotFound,
    /// It exists already and is something else: ALREADY_EXISTS.
    Conflict,
    /// Something else has to be done first: FAILED_PRECONDITION.
    Precondition,
    /// A limit is reached, or a queue or disk is full: RESOURCE_EXHAUSTED.
    Exhausted,
    /// The answer took too long; what was recorded stays recorded: DEADLINE_EXCEEDED.
    Deadline,
    /// The server is starting or stopping, or something that it depends on is away: UNAVAILABLE.
    Unavailable,
}

/// Who has to act before a denied request can succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Actor {
    /// The calling program: it sends another request, or sends it with another credential that it has.
    Caller,
    /// Whoever holds the identity or ticket: it needs a new one.
    Holder,
    /// The user: they sign in again, so that there is a fresh user token.
    User,
    /// The owner of the class: they change the class, or explain why it is as it is.
    ClassOwner,
    /// The operator of the issuer, or of the service that denied the request.
    Operator,
    /// Nobody: the same request may succeed later.
    Nobody,
}

impl Entry {
    /// Looks up a code; `None` for one of a later version.
    pub fn of(code: &str) -> Option<&'static Entry> {
        let at = REASONS.binary_search_by(|entry| entry.code.cmp(code)).ok()?;
        REASONS.get(at)
    }
}

impl Reason {
    /// The code as it is sent in `ErrorInfo`: the name of the value without its prefix, such as `KEY_IN_USE`.
    pub fn code(self) -> &'static str {
        let name = self.as_str_name();
        name.strip_prefix("REASON_").unwrap_or(name)
    }
}

impl Kind {
    /// The gRPC status code.
    pub fn code(self) -> Code {
        match self {
            Malformed => Code::InvalidArgument,
            Unauthenticated => Code::Unauthenticated,
            Denied => Code::PermissionDenied,
            NotFound => Code::NotFound,
            Conflict => Code::AlreadyExists,
            Precondition => Code::FailedPrecondition,
            Exhausted => Code::ResourceExhausted,
            Deadline => Code::DeadlineExceeded,
            Unavailable => Code::Unavailable,
        }
    }
}

/// The name of the gRPC status code, as in `google.rpc.Code`.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Malformed => "INVALID_ARGUMENT",
            Unauthenticated => "UNAUTHENTICATED",
            Denied => "PERMISSION_DENIED",
            NotFound => "NOT_FOUND",
            Conflict => "ALREADY_EXISTS",
            Precondition => "FAILED_PRECONDITION",
            Exhausted => "RESOURCE_EXHAUSTED",
            Deadline => "DEADLINE_EXCEEDED",
            Unavailable => "UNAVAILABLE",
        })
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Caller => "caller",
            Holder => "holder",
            User => "user",
            ClassOwner => "class owner",
            Operator => "operator",
            Nobody => "nobody",
        })
    }
}

/// Every reason code, in the order of their bytes.
#[rustfmt::skip]
pub const REASONS: &[Entry] = &[
    says("ACTION_MALFORMED", &[Malformed], Caller,
        "An action is not of a configured type, or its fields are not those of the type."),
    says("ACTION_NOT_ALLOWED", &[Denied], ClassOwner,
        "The class of the agent, or that of an agent above it, allows the action or scope not even by approval, at this audience."),
    ends("AGENT_ENDED", &[Unauthenticated, Denied], Holder, "The agent was ended, by itself or by whoever may end it."),
    ends("AGENT_EXPIRED", &[Unauthenticated, Denied], Holder, "The agent's last certificate or its lease has expired."),
    says("AGENT_MALFORMED", &[Malformed], Caller,
        "The agent is named neither by its SPIFFE ID nor by its UUID in lower case with hyphens."),
    says("AGENT_MISSING", &[Malformed], Caller,
        "The request does not say which agent is to end, and the caller is not an agent."),
    ends("AGENT_ORPHANED", &[Unauthenticated, Denied], Holder,
        "An ancestor of the agent has ended or expired, so the agent has too."),
    ends("AGENT_REVOKED", &[Unauthenticated, Denied], Holder, "The agent was revoked, or something that it relies on was."),
    ends("AGENT_UNKNOWN", &[Unauthenticated, NotFound, Denied], Holder,
        "There is no such agent, or the caller may not see it; with UNAUTHENTICATED the caller itself is the unknown agent."),
    says("ALGORITHM_CONFLICT", &[Malformed], Caller, "The audiences of one token verify different algorithms."),
    says("APPROVAL_ANSWERED", &[Conflict], Nobody, "The approval was answered before, and one answer is all there is."),
    says("APPROVAL_CHANGED", &[Precondition], Caller,
        "The digest is not that of this approval: show what is asked for, and answer that."),
    says("APPROVAL_DENIED", &[Denied], User, "The approval was denied."),
    says("APPROVAL_EXPIRED", &[Denied], Caller,
        "Nobody answered the question in time, or the approval was not used in time: ask again."),
    says("APPROVAL_NEEDED", &[Denied], Caller,
        "The agent may do this only after a person has approved it: ask with `Approvals.Ask`."),
    says("APPROVAL_PENDING", &[Precondition], User, "Nobody has answered yet."),
    says("APPROVAL_UNKNOWN", &[NotFound], Caller, "There is no such approval, or none that the caller may see."),
    says("APPROVAL_USED", &[Denied], Caller, "The approval was used as often as it was given for: ask again."),
    says("ASSERTION_USED", &[Unauthenticated], Caller,
        "The JWT-SVID has proved its agent before: each request needs one of its own."),
    says("AUDIENCE_MALFORMED", &[Malformed], Caller,
        "There are no audiences or too many of them, or one of them is empty, too long or given twice."),
    says("AUDIENCE_NOT_ALLOWED", &[Denied], ClassOwner,
        "The audience is not in the agent's list, or no longer in that of its class."),
    says("AUDIT_UNWRITABLE", &[Unavailable], Operator,
        "The issuer cannot write the entries of its audit, and is configured to issue nothing without them."),
    says("AUTHORITIES_FULL", &[Exhausted], Operator,
        "A trust domain can have no more authorities that are published, or tainted."),
    says("AUTHORITY_KIND", &[Malformed], Caller, "The request does not say which kind of authority it is about: X.509, JWT or RS256."),
    says("AUTHORITY_MISSING", &[Unavailable], Operator, "No authority is active: one has to be prepared and activated."),
    says("AUTHORITY_STATE", &[Precondition], Operator,
        "The state of the authorities does not allow this change; the message says what must come first."),
    ends("AUTHORITY_TAINTED", &[Unauthenticated, Denied], Holder,
        "The authority that signed the certificate is tainted, so nothing that it signed is valid."),
    says("AUTHORITY_UNKNOWN", &[NotFound], Caller, "There is no authority with this id."),
    says("BATCH_MALFORMED", &[Malformed], Caller,
        "The batch has no template, a CSR in its template, or not exactly one of a list of CSRs and a count of tickets."),
    says("BATCH_SIZE", &[Malformed], Caller, "The batch has no agents, or more than 1,000."),
    says("BINDING_TOO_LARGE", &[Denied], Caller,
        "The binding in the agent's credential would be too large: ask for fewer scopes."),
    says("BUSY", &[Exhausted], Nobody, "Too many requests are waiting."),
    says("CALLER_NOT_AN_AGENT", &[Denied], Caller, "From a service: only agents may call it."),
    says("CALLER_NOT_AUTHORIZED", &[Denied], Operator, "From a service: its own rule does not admit this agent."),
    says("CALLER_UNKNOWN", &[Unauthenticated], ClassOwner,
        "The certificate is that of a foreign workload which no class lists, or of neither a workload nor an agent."),
    says("CERTIFICATE_NEEDED", &[Unauthenticated], Caller, "The method needs a client certificate, and the connection has none."),
    says("CLAIMS_UNUSABLE", &[Denied], Operator,
        "The claims that the catalogue has for the audience do not fit the agent, or are asked for beside another audience."),
    says("CLASS_CLOSED", &[Denied], Operator, "The class was revoked and stays closed until an operator reopens it."),
    says("CLASS_MALFORMED", &[Malformed], Caller, "The name of the class is not well-formed."),
    says("CLASS_NOT_CLOSED", &[NotFound], Caller, "The class is not closed, so there is nothing to reopen."),
    says("CLASS_UNKNOWN", &[NotFound, Denied], ClassOwner, "The class is not in the configuration, or was removed from it."),
    says("CONFIGURATION_CHANGED", &[Unavailable], Nobody,
        "The configuration changed while the request was decided, several times: ask again."),
    says("CONFIGURATION_REFUSED", &[Precondition], Operator,
        "The new configuration cannot be used, and the one before stays; the message says why."),
    says("CONNECTIONS_FULL", &[Exhausted], Operator,
        "The issuer, or the caller's identity, has as many connections as it may; the message says which."),
    says("CREDENTIALS_DIFFER", &[Unauthenticated], Caller,
        "From a service: the certificate of the connection and the bearer token belong to two callers."),
    says("CREDENTIAL_AUDIENCE", &[Unauthenticated], Caller, "From a service: the token is for another audience."),
    says("CREDENTIAL_BINDING", &[Unauthenticated], Holder,
        "The credential of an agent has no well-formed binding, or the credential of somebody else has one."),
    ends("CREDENTIAL_EXPIRED", &[Unauthenticated], Holder, "The credential has expired."),
    says("CREDENTIAL_MALFORMED", &[Unauthenticated, Malformed], Holder,
        "The credential is neither a certificate nor a JWS in compact form."),
    says("CREDENTIAL_MISSING", &[Unauthenticated], Caller,
        "From a service: the request has neither an agent's certificate nor a bearer token."),
    says("CREDENTIAL_NOT_YET_VALID", &[Unauthenticated], Operator, "The credential is not valid yet: compare the clocks."),
    says("CREDENTIAL_PROFILE", &[Unauthenticated], Holder, "The credential breaks a rule of the SPIFFE profile."),
    ends("CREDENTIAL_REUSED", &[Unauthenticated], Holder,
        "A certificate was used on a new connection after its renewal, so somebody holds a copy and the agent was revoked."),
    ends("CREDENTIAL_REVOKED", &[Unauthenticated], Holder, "The credential was revoked, or something that it relies on was."),
    says("CREDENTIAL_SPIFFE_ID", &[Unauthenticated], Holder, "The SPIFFE ID of the credential is not well-formed."),
    says("CREDENTIAL_STALE", &[Unavailable], Nobody,
        "From a service: what it knows of revocations is too old to tell whether the credential is revoked."),
    says("CREDENTIAL_TRUST_DOMAIN", &[Unauthenticated], Holder,
        "The credential belongs to a trust domain that is not accepted here."),
    says("CREDENTIAL_UNPROVED", &[Unauthenticated], Caller,
        "From a service: the access token is bound to a key or certificate, and the request does not prove it."),
    says("CREDENTIAL_UNTRUSTED", &[Unauthenticated], Holder,
        "The credential is not signed by an authority in the bundle of its trust domain."),
    says("CRL_FULL", &[Exhausted], Nobody, "More certificates are revoked than a CRL may list."),
    says("CSR_MALFORMED", &[Malformed], Caller,
        "The CSR is missing, over 4 KiB or not PKCS#10 in DER, or its key is of a kind that is not accepted."),
    says("CSR_OR_TICKET", &[Malformed], Caller,
        "A spawn has either a CSR or asks for a ticket, and this one has both or neither."),
    says("CSR_SIGNATURE", &[Malformed], Caller, "The CSR is not signed by its own key."),
    says("DEADLINE", &[Deadline], Nobody,
        "The answer took too long; a change may have been recorded, so ask again with the same request id."),
    says("DECISION_MALFORMED", &[Malformed], Caller, "The decision is not named as the history names them."),
    says("DECISION_UNKNOWN", &[NotFound], Caller, "There is no such decision in the history, or the caller may not see it."),
    says("DELEGATION_EXPIRED", &[Denied], User, "The delegation has ended: bring a fresh user token."),
    says("DELEGATION_MALFORMED", &[Malformed], Caller, "The id of the delegation is not 64 hexadecimal digits."),
    says("DELEGATION_REVOKED", &[Denied], User,
        "The delegation of this user token was revoked: bring a token that was issued after that."),
    says("DELEGATION_UNKNOWN", &[NotFound], Caller, "There is no such delegation of this caller, or it has ended."),
    says("DEPTH_EXHAUSTED", &[Denied], ClassOwner, "No agents may be spawned below this one, because its depth is used up."),
    says("DPOP_NONCE_NEEDED", &[Unauthenticated], Caller,
        "The DPoP proof lacks the nonce that is sent with the answer, or has one that is too old: make another with it."),
    says("DPOP_PROOF_INVALID", &[Unauthenticated, Malformed], Caller,
        "The DPoP proof is malformed, or is for another request, key, token or time; the message says which."),
    says("DPOP_PROOF_USED", &[Unauthenticated], Caller,
        "The DPoP proof was used before, or too many were: make one for each request."),
    says("EXCEEDS_AUTHORITY", &[Denied], Caller,
        "The request asks for more than the class and the spawner allow: ask for less, or ask to clip."),
    says("EXCESS_UNKNOWN", &[Malformed], Caller, "The value of `excess` is unknown to this version."),
    says("EXPLAIN_MALFORMED", &[Malformed], Caller,
        "What is to be explained is not well-formed; the message says why."),
    says("FEED_FORK", &[Precondition], Operator,
        "The issuer's journal is not the one that the caller was told of: it was put back to an older copy, or two of it run."),
    says("FILTER_MALFORMED", &[Malformed], Caller, "A filter of the history is not well-formed; the message says which."),
    says("GENERATION_PAST", &[Denied], Caller,
        "The connection is older than the last renewal: connect with the renewed certificate."),
    ends("GENERATION_REPLACED", &[Unauthenticated], Holder,
        "A later renewal replaced this certificate: use the one from that renewal."),
    says("INCARNATION_MALFORMED", &[Malformed], Caller, "The incarnation does not have 16 bytes."),
    says("JOURNAL_FULL", &[Exhausted], Operator,
        "The journal has no room, so nothing was recorded: free space on the issuer's machine."),
    says("KEY_IN_USE", &[Conflict], Caller,
        "The key is certified already, and a key belongs to one agent or workload: make a new one."),
    says("KEY_MALFORMED", &[Malformed], Caller, "The digest of the key is not 64 hexadecimal digits."),
    ends("KEY_REVOKED", &[Unauthenticated, Denied], Holder, "The key was revoked: make a new one."),
    says("LEASE_EXPIRED", &[Denied], Holder, "The lease of the spawning agent has ended, so it may no longer spawn."),
    says("LEASE_NOT_EXTENDED", &[Denied], User,
        "The lease ends no later by this: the user token, the class or the parent allows no more."),
    says("LIMIT_REACHED", &[Exhausted], Nobody,
        "A limit is reached; its name is in the metadata, and RetryInfo says when to ask again where that is known."),
    says("LIMIT_UNKNOWN", &[NotFound], Caller, "No limit with this name is configured."),
    says("LIST_TOO_LONG", &[Malformed], Caller,
        "There are more than 64 scopes or audiences, or one of them is empty or over 256 bytes."),
    says("MODE_CONTRADICTION", &[Malformed], Caller,
        "An autonomous agent is asked for together with a user token or a delegation."),
    says("MODE_NOT_ALLOWED", &[Denied], Caller, "The class or the spawner has no agents of this mode."),
    says("MODE_UNKNOWN", &[Malformed], Caller, "The mode is unknown to this version."),
    says("NOTHING_LEFT", &[Denied], ClassOwner,
        "There is no scope that the request, the class and the spawner or the ancestors all allow."),
    says("PAGE_TOKEN", &[Malformed], Caller, "The page token is not one that this issuer gave."),
    says("PATH_UNUSABLE", &[Malformed], Caller,
        "The name for the backup is not a plain file name, or there is a copy of this name already."),
    says("POLICY_DENIED", &[Denied], Operator,
        "A policy forbids it, or none permits it; the policy, its owner and its reason are in the metadata."),
    says("POLICY_FAILED", &[Denied], Operator,
        "A policy could not be evaluated, and then the answer is no; its owner must mend it."),
    says("REASON_TOO_LONG", &[Malformed], Caller, "The reason for the revocation has more than 256 bytes."),
    says("RENEWALS_UNUSED", &[Exhausted], Caller, "Too many renewed certificates were never used: use the last one first."),
    says("REQUEST_DONE", &[Conflict], Caller, "The request was answered before, and its first answer cannot be given again."),
    says("REQUEST_ID_MALFORMED", &[Malformed], Caller, "The request id is not 1 to 64 visible ASCII characters."),
    says("REQUEST_ID_REUSED", &[Conflict], Caller, "The request id belongs to another request: use a new one."),
    says("ROLE_NOT_ALLOWED", &[Denied], Caller, "The method, or this use of it, is not for this kind of caller."),
    says("SCOPE_MALFORMED", &[Malformed], Caller, "There are too many scopes, or one of them is empty or too long."),
    says("SCOPE_MISSING", &[Denied], ClassOwner, "From a service: the agent lacks a scope, which is named in the metadata."),
    says("SCOPE_NOT_ALLOWED", &[Denied], Caller,
        "A scope is more than the agent and its subject token allow, or none is left."),
    says("SPAWNER_NOT_ALLOWED", &[Denied], ClassOwner, "The class does not list the caller in its `spawners`."),
    says("STOPPING", &[Unavailable], Nobody, "The issuer is stopping."),
    says("SUBJECT_NOT_ALLOWED", &[Denied], Caller,
        "The subject token is not about the user for whom the agent acts, or lets somebody else act."),
    says("SUBJECT_UNUSABLE", &[Denied], ClassOwner,
        "The subject template of the class names something that does not fit into a certificate; the message says what."),
    says("TARGET_MISSING", &[Malformed], Caller,
        "The request does not say what to revoke or reopen, or says it in a way that this version does not know."),
    says("TICKET_MALFORMED", &[Malformed], Caller, "The secret of the ticket does not have 32 bytes."),
    says("TICKET_REFUSED", &[Denied], Holder,
        "The ticket is unknown, has expired or was redeemed with another key: get a fresh one."),
    says("TICKET_WITH_JWT", &[Malformed], Caller, "A spawn that asks for a ticket cannot ask for a JWT-SVID too."),
    says("TIME_IN_FUTURE", &[Malformed], Caller, "The time of the revocation lies in the future."),
    says("TIME_MALFORMED", &[Malformed], Caller, "The time is not after 1970, or its nanoseconds are out of range."),
    says("TOKEN_BINDING_NEEDED", &[Denied], Caller,
        "Tokens for the audience are bound to a key or certificate, and the request proves none that fits."),
    says("TOKEN_MALFORMED", &[Unauthenticated], Caller, "From a service: the authorization header is not a single bearer token."),
    says("TOKEN_NOT_ACCEPTED", &[Unauthenticated], Caller, "From a service: it accepts no bearer tokens."),
    says("TOKEN_OR_DELEGATION", &[Malformed], Caller,
        "The request has both a user token and a delegation, and it may have only one of them."),
    says("TTL_TOO_LONG", &[Malformed], Caller, "A join token lasts at most 600 seconds, and more were asked for."),
    says("TWO_CALLERS", &[Malformed], Caller,
        "The request has a user token and comes over a connection with a client certificate: it may have only one of them."),
    says("USER_CLOSED", &[Denied], Operator, "The user was revoked and stays closed until an operator reopens them."),
    says("USER_CLOSED_BY_OPERATOR", &[Denied], Operator,
        "Users reopen what they closed themselves, and an operator has closed this user."),
    says("USER_DIFFERS", &[Denied], Caller,
        "The user token is of another user than the one for whom the agent acts."),
    says("USER_ISSUER_UNAVAILABLE", &[Unavailable], Nobody,
        "The keys of the user token's issuer cannot be fetched at the moment."),
    says("USER_ISSUER_UNKNOWN", &[NotFound], Caller,
        "The user is of no issuer with this configured name: write the name as the configuration has it, or the issuer's URL."),
    says("USER_MALFORMED", &[Malformed], Caller,
        "The user is not an issuer URL of at most 512 bytes and a subject of at most 255, neither of them empty."),
    says("USER_NOT_CLOSED", &[NotFound], Caller, "The user is not closed, so there is nothing to reopen."),
    says("USER_TOKEN_ACTOR", &[Denied], Caller,
        "The user token has an `act` claim: present the token that was issued to the user."),
    says("USER_TOKEN_ALGORITHM", &[Denied], Operator,
        "The `alg` of the user token is not allowed, or is not the algorithm of its key."),
    says("USER_TOKEN_AUDIENCE", &[Denied], Operator,
        "The `aud` of the user token is not exactly one configured audience, or that audience does not allow this use."),
    says("USER_TOKEN_CLAIM", &[Denied], Operator, "A claim of the user token is missing or malformed."),
    says("USER_TOKEN_EXPIRED", &[Denied], User, "The user token has expired."),
    says("USER_TOKEN_HEADER", &[Denied], Caller,
        "The header of the user token has a member that is not accepted, such as `crit` or `jwk`."),
    says("USER_TOKEN_ISSUER_UNKNOWN", &[Denied], Operator, "The `iss` of the user token is not a configured issuer."),
    says("USER_TOKEN_KEY_UNKNOWN", &[Denied], User, "The key of the user token is not among those that its issuer publishes."),
    says("USER_TOKEN_KEY_UNNAMED", &[Denied], Operator,
        "The user token names no key, and its issuer publishes several: let the provider send a `kid`."),
    says("USER_TOKEN_MALFORMED", &[Denied], Caller, "The user token is not a compact JWS of two JSON objects."),
    says("USER_TOKEN_NOT_YET_VALID", &[Denied], Operator,
        "The user token is not valid yet: compare the clocks of the provider and the issuer."),
    says("USER_TOKEN_OF_AGENT", &[Denied], Caller,
        "An agent may not bring a user token: its children act for the agent's own user."),
    says("USER_TOKEN_OF_ANOTHER", &[Denied], Caller,
        "Another workload has used this user token, and each workload brings its own."),
    says("USER_TOKEN_SIGNATURE", &[Denied], Caller, "The signature of the user token does not verify."),
    says("USER_TOKEN_TOO_EARLY", &[Denied], User,
        "The user token was issued before the last revocation of the user or of everything."),
    says("USER_TOKEN_TOO_LARGE", &[Denied], Operator,
        "The user token has more than 16,384 bytes: let the provider put fewer claims into it."),
    says("USER_TOKEN_TOO_OLD", &[Denied], User, "The user token was issued longer ago than the configuration allows."),
    says("USER_TOKEN_TYPE", &[Denied], Caller,
        "The user token is neither a plain ID token nor an access token of type `at+jwt`."),
    says("WORKLOAD_CLOSED", &[Denied], Operator, "The workload was revoked and stays closed until an operator reopens it."),
    says("WORKLOAD_ISSUER_UNAVAILABLE", &[Unavailable], Nobody,
        "The keys of the token's issuer cannot be fetched at the moment."),
    says("WORKLOAD_MALFORMED", &[Malformed], Caller, "The name of the workload is not well-formed."),
    says("WORKLOAD_NOT_CLOSED", &[NotFound], Caller, "The workload is not closed, so there is nothing to reopen."),
    says("WORKLOAD_TOKEN_EXPIRED", &[Denied], Caller,
        "The token of the platform has expired, is too old, or is from before the workload's last revocation: get a fresh one."),
    says("WORKLOAD_TOKEN_REFUSED", &[Denied], Caller,
        "The token of the platform is malformed, not signed by a configured issuer of workloads, or for another audience."),
    says("WORKLOAD_TOKEN_UNMATCHED", &[Denied], Operator,
        "The token of the platform has the claims of no configured workload, or of several where none was named."),
    says("WORKLOAD_TOKEN_USED", &[Denied], Caller,
        "The token of the platform has been used with another key: get a fresh one."),
    ends("WORKLOAD_UNKNOWN", &[Unauthenticated, NotFound], Operator,
        "The workload is not in the configuration; with UNAUTHENTICATED also: the key is not certified for it."),
];

const fn says(code: &'static str, kinds: &'static [Kind], actor: Actor, meaning: &'static str) -> Entry {
    Entry { code, kinds, meaning, actor, is_final: false }
}

/// The same for a code that ends the identity.
const fn ends(code: &'static str, kinds: &'static [Kind], actor: Actor, meaning: &'static str) -> Entry {
    Entry { is_final: true, ..says(code, kinds, actor, meaning) }
}
