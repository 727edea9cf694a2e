import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from mayfly.v1 import details_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Mode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODE_UNSPECIFIED: _ClassVar[Mode]
    MODE_DELEGATED: _ClassVar[Mode]
    MODE_AUTONOMOUS: _ClassVar[Mode]

class Excess(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EXCESS_UNSPECIFIED: _ClassVar[Excess]
    EXCESS_DENY: _ClassVar[Excess]
    EXCESS_CLIP: _ClassVar[Excess]

class IdentityKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IDENTITY_KIND_UNSPECIFIED: _ClassVar[IdentityKind]
    IDENTITY_KIND_AGENT: _ClassVar[IdentityKind]
    IDENTITY_KIND_WORKLOAD: _ClassVar[IdentityKind]

class AgentState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    AGENT_STATE_UNSPECIFIED: _ClassVar[AgentState]
    AGENT_STATE_LIVE: _ClassVar[AgentState]
    AGENT_STATE_EXPIRED: _ClassVar[AgentState]
    AGENT_STATE_ENDED: _ClassVar[AgentState]
    AGENT_STATE_CUT: _ClassVar[AgentState]
    AGENT_STATE_ORPHANED: _ClassVar[AgentState]

class BudgetUnit(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BUDGET_UNIT_UNSPECIFIED: _ClassVar[BudgetUnit]
    BUDGET_UNIT_OPS: _ClassVar[BudgetUnit]
    BUDGET_UNIT_TOKENS: _ClassVar[BudgetUnit]
    BUDGET_UNIT_MICRO_USD: _ClassVar[BudgetUnit]

class ApprovalState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    APPROVAL_STATE_UNSPECIFIED: _ClassVar[ApprovalState]
    APPROVAL_STATE_PENDING: _ClassVar[ApprovalState]
    APPROVAL_STATE_APPROVED: _ClassVar[ApprovalState]
    APPROVAL_STATE_DENIED: _ClassVar[ApprovalState]
    APPROVAL_STATE_EXPIRED: _ClassVar[ApprovalState]
    APPROVAL_STATE_USED: _ClassVar[ApprovalState]
    APPROVAL_STATE_REVOKED: _ClassVar[ApprovalState]

class AuthorityKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    AUTHORITY_KIND_UNSPECIFIED: _ClassVar[AuthorityKind]
    AUTHORITY_KIND_X509: _ClassVar[AuthorityKind]
    AUTHORITY_KIND_JWT: _ClassVar[AuthorityKind]
    AUTHORITY_KIND_RS256: _ClassVar[AuthorityKind]

class AuthorityStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    AUTHORITY_STATUS_UNSPECIFIED: _ClassVar[AuthorityStatus]
    AUTHORITY_STATUS_PREPARED: _ClassVar[AuthorityStatus]
    AUTHORITY_STATUS_ACTIVE: _ClassVar[AuthorityStatus]
    AUTHORITY_STATUS_RETIRED: _ClassVar[AuthorityStatus]
    AUTHORITY_STATUS_TAINTED: _ClassVar[AuthorityStatus]

class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REASON_UNSPECIFIED: _ClassVar[Reason]
    REASON_AGENT_ENDED: _ClassVar[Reason]
    REASON_AGENT_EXPIRED: _ClassVar[Reason]
    REASON_AGENT_MALFORMED: _ClassVar[Reason]
    REASON_AGENT_MISSING: _ClassVar[Reason]
    REASON_AGENT_ORPHANED: _ClassVar[Reason]
    REASON_AGENT_REVOKED: _ClassVar[Reason]
    REASON_AGENT_UNKNOWN: _ClassVar[Reason]
    REASON_AUDIENCE_MALFORMED: _ClassVar[Reason]
    REASON_AUDIENCE_NOT_ALLOWED: _ClassVar[Reason]
    REASON_AUTHORITIES_FULL: _ClassVar[Reason]
    REASON_AUTHORITY_KIND: _ClassVar[Reason]
    REASON_AUTHORITY_MISSING: _ClassVar[Reason]
    REASON_AUTHORITY_STATE: _ClassVar[Reason]
    REASON_AUTHORITY_TAINTED: _ClassVar[Reason]
    REASON_AUTHORITY_UNKNOWN: _ClassVar[Reason]
    REASON_BATCH_MALFORMED: _ClassVar[Reason]
    REASON_BATCH_SIZE: _ClassVar[Reason]
    REASON_BINDING_TOO_LARGE: _ClassVar[Reason]
    REASON_BUSY: _ClassVar[Reason]
    REASON_CALLER_NOT_AN_AGENT: _ClassVar[Reason]
    REASON_CALLER_NOT_AUTHORIZED: _ClassVar[Reason]
    REASON_CALLER_UNKNOWN: _ClassVar[Reason]
    REASON_CERTIFICATE_NEEDED: _ClassVar[Reason]
    REASON_CLASS_CLOSED: _ClassVar[Reason]
    REASON_CLASS_MALFORMED: _ClassVar[Reason]
    REASON_CLASS_NOT_CLOSED: _ClassVar[Reason]
    REASON_CLASS_UNKNOWN: _ClassVar[Reason]
    REASON_CREDENTIALS_DIFFER: _ClassVar[Reason]
    REASON_CREDENTIAL_AUDIENCE: _ClassVar[Reason]
    REASON_CREDENTIAL_BINDING: _ClassVar[Reason]
    REASON_CREDENTIAL_EXPIRED: _ClassVar[Reason]
    REASON_CREDENTIAL_MALFORMED: _ClassVar[Reason]
    REASON_CREDENTIAL_MISSING: _ClassVar[Reason]
    REASON_CREDENTIAL_NOT_YET_VALID: _ClassVar[Reason]
    REASON_CREDENTIAL_PROFILE: _ClassVar[Reason]
    REASON_CREDENTIAL_REUSED: _ClassVar[Reason]
    REASON_CREDENTIAL_REVOKED: _ClassVar[Reason]
    REASON_CREDENTIAL_SPIFFE_ID: _ClassVar[Reason]
    REASON_CREDENTIAL_STALE: _ClassVar[Reason]
    REASON_CREDENTIAL_TRUST_DOMAIN: _ClassVar[Reason]
    REASON_CREDENTIAL_UNTRUSTED: _ClassVar[Reason]
    REASON_CSR_MALFORMED: _ClassVar[Reason]
    REASON_CSR_OR_TICKET: _ClassVar[Reason]
    REASON_CSR_SIGNATURE: _ClassVar[Reason]
    REASON_DEADLINE: _ClassVar[Reason]
    REASON_DELEGATION_EXPIRED: _ClassVar[Reason]
    REASON_DELEGATION_MALFORMED: _ClassVar[Reason]
    REASON_DELEGATION_REVOKED: _ClassVar[Reason]
    REASON_DELEGATION_UNKNOWN: _ClassVar[Reason]
    REASON_DEPTH_EXHAUSTED: _ClassVar[Reason]
    REASON_EXCEEDS_AUTHORITY: _ClassVar[Reason]
    REASON_EXCESS_UNKNOWN: _ClassVar[Reason]
    REASON_GENERATION_PAST: _ClassVar[Reason]
    REASON_GENERATION_REPLACED: _ClassVar[Reason]
    REASON_INCARNATION_MALFORMED: _ClassVar[Reason]
    REASON_JOURNAL_FULL: _ClassVar[Reason]
    REASON_KEY_IN_USE: _ClassVar[Reason]
    REASON_KEY_MALFORMED: _ClassVar[Reason]
    REASON_KEY_REVOKED: _ClassVar[Reason]
    REASON_LEASE_EXPIRED: _ClassVar[Reason]
    REASON_LIMIT_REACHED: _ClassVar[Reason]
    REASON_LIST_TOO_LONG: _ClassVar[Reason]
    REASON_MODE_CONTRADICTION: _ClassVar[Reason]
    REASON_MODE_NOT_ALLOWED: _ClassVar[Reason]
    REASON_MODE_UNKNOWN: _ClassVar[Reason]
    REASON_NOTHING_LEFT: _ClassVar[Reason]
    REASON_PAGE_TOKEN: _ClassVar[Reason]
    REASON_PATH_UNUSABLE: _ClassVar[Reason]
    REASON_REASON_TOO_LONG: _ClassVar[Reason]
    REASON_RENEWALS_UNUSED: _ClassVar[Reason]
    REASON_REQUEST_DONE: _ClassVar[Reason]
    REASON_REQUEST_ID_MALFORMED: _ClassVar[Reason]
    REASON_REQUEST_ID_REUSED: _ClassVar[Reason]
    REASON_ROLE_NOT_ALLOWED: _ClassVar[Reason]
    REASON_SCOPE_MISSING: _ClassVar[Reason]
    REASON_SPAWNER_NOT_ALLOWED: _ClassVar[Reason]
    REASON_STOPPING: _ClassVar[Reason]
    REASON_TARGET_MISSING: _ClassVar[Reason]
    REASON_TICKET_MALFORMED: _ClassVar[Reason]
    REASON_TICKET_REFUSED: _ClassVar[Reason]
    REASON_TICKET_WITH_JWT: _ClassVar[Reason]
    REASON_TIME_IN_FUTURE: _ClassVar[Reason]
    REASON_TIME_MALFORMED: _ClassVar[Reason]
    REASON_TOKEN_MALFORMED: _ClassVar[Reason]
    REASON_TOKEN_NOT_ACCEPTED: _ClassVar[Reason]
    REASON_TOKEN_OR_DELEGATION: _ClassVar[Reason]
    REASON_TTL_TOO_LONG: _ClassVar[Reason]
    REASON_TWO_CALLERS: _ClassVar[Reason]
    REASON_USER_CLOSED: _ClassVar[Reason]
    REASON_USER_ISSUER_UNAVAILABLE: _ClassVar[Reason]
    REASON_USER_MALFORMED: _ClassVar[Reason]
    REASON_USER_NOT_CLOSED: _ClassVar[Reason]
    REASON_USER_TOKEN_ACTOR: _ClassVar[Reason]
    REASON_USER_TOKEN_ALGORITHM: _ClassVar[Reason]
    REASON_USER_TOKEN_AUDIENCE: _ClassVar[Reason]
    REASON_USER_TOKEN_CLAIM: _ClassVar[Reason]
    REASON_USER_TOKEN_EXPIRED: _ClassVar[Reason]
    REASON_USER_TOKEN_HEADER: _ClassVar[Reason]
    REASON_USER_TOKEN_ISSUER_UNKNOWN: _ClassVar[Reason]
    REASON_USER_TOKEN_KEY_UNKNOWN: _ClassVar[Reason]
    REASON_USER_TOKEN_MALFORMED: _ClassVar[Reason]
    REASON_USER_TOKEN_NOT_YET_VALID: _ClassVar[Reason]
    REASON_USER_TOKEN_OF_AGENT: _ClassVar[Reason]
    REASON_USER_TOKEN_OF_ANOTHER: _ClassVar[Reason]
    REASON_USER_TOKEN_SIGNATURE: _ClassVar[Reason]
    REASON_USER_TOKEN_TOO_EARLY: _ClassVar[Reason]
    REASON_USER_TOKEN_TOO_LARGE: _ClassVar[Reason]
    REASON_USER_TOKEN_TOO_OLD: _ClassVar[Reason]
    REASON_USER_TOKEN_TYPE: _ClassVar[Reason]
    REASON_WORKLOAD_CLOSED: _ClassVar[Reason]
    REASON_WORKLOAD_MALFORMED: _ClassVar[Reason]
    REASON_WORKLOAD_NOT_CLOSED: _ClassVar[Reason]
    REASON_WORKLOAD_UNKNOWN: _ClassVar[Reason]
    REASON_USER_TOKEN_KEY_UNNAMED: _ClassVar[Reason]
    REASON_CONNECTIONS_FULL: _ClassVar[Reason]
    REASON_USER_ISSUER_CLOSED: _ClassVar[Reason]
    REASON_USER_ISSUER_NOT_CLOSED: _ClassVar[Reason]
    REASON_SUBJECT_UNUSABLE: _ClassVar[Reason]
    REASON_CLAIMS_UNUSABLE: _ClassVar[Reason]
    REASON_WORKLOAD_ISSUER_UNAVAILABLE: _ClassVar[Reason]
    REASON_WORKLOAD_TOKEN_EXPIRED: _ClassVar[Reason]
    REASON_WORKLOAD_TOKEN_REFUSED: _ClassVar[Reason]
    REASON_WORKLOAD_TOKEN_UNMATCHED: _ClassVar[Reason]
    REASON_WORKLOAD_TOKEN_USED: _ClassVar[Reason]
    REASON_DECISION_MALFORMED: _ClassVar[Reason]
    REASON_DECISION_UNKNOWN: _ClassVar[Reason]
    REASON_FILTER_MALFORMED: _ClassVar[Reason]
    REASON_USER_TOKEN_CLIENT: _ClassVar[Reason]
    REASON_USER_TOKEN_RESOURCE: _ClassVar[Reason]
    REASON_USER_TOKEN_USED: _ClassVar[Reason]
    REASON_SUBJECT_UNKNOWN: _ClassVar[Reason]
    REASON_CREDENTIAL_USED: _ClassVar[Reason]
    REASON_KEYLESS_PARENT: _ClassVar[Reason]
    REASON_KEYLESS_ONLY: _ClassVar[Reason]
    REASON_PARENT_ONLY: _ClassVar[Reason]
    REASON_CREDENTIAL_TOO_OLD: _ClassVar[Reason]
    REASON_ASSERTION_USED: _ClassVar[Reason]
    REASON_SCOPE_MALFORMED: _ClassVar[Reason]
    REASON_SCOPE_NOT_ALLOWED: _ClassVar[Reason]
    REASON_SUBJECT_NOT_ALLOWED: _ClassVar[Reason]
    REASON_USER_ISSUER_UNKNOWN: _ClassVar[Reason]
    REASON_CRL_FULL: _ClassVar[Reason]
    REASON_USER_CLOSED_BY_OPERATOR: _ClassVar[Reason]
    REASON_LEASE_NOT_EXTENDED: _ClassVar[Reason]
    REASON_USER_DIFFERS: _ClassVar[Reason]
    REASON_CONFIGURATION_CHANGED: _ClassVar[Reason]
    REASON_CONFIGURATION_REFUSED: _ClassVar[Reason]
    REASON_AUDIT_UNWRITABLE: _ClassVar[Reason]
    REASON_EXPLAIN_MALFORMED: _ClassVar[Reason]
    REASON_LIMIT_UNKNOWN: _ClassVar[Reason]
    REASON_POLICY_DENIED: _ClassVar[Reason]
    REASON_POLICY_FAILED: _ClassVar[Reason]
    REASON_BUDGET_EXHAUSTED: _ClassVar[Reason]
    REASON_RESERVATION_UNKNOWN: _ClassVar[Reason]
    REASON_RESERVATIONS_FULL: _ClassVar[Reason]
    REASON_AMOUNT_MALFORMED: _ClassVar[Reason]
    REASON_OPERATOR_UNMATCHED: _ClassVar[Reason]
    REASON_ACTION_MALFORMED: _ClassVar[Reason]
    REASON_ACTION_NOT_ALLOWED: _ClassVar[Reason]
    REASON_APPROVAL_NEEDED: _ClassVar[Reason]
    REASON_APPROVAL_UNKNOWN: _ClassVar[Reason]
    REASON_APPROVAL_PENDING: _ClassVar[Reason]
    REASON_APPROVAL_DENIED: _ClassVar[Reason]
    REASON_APPROVAL_EXPIRED: _ClassVar[Reason]
    REASON_APPROVAL_USED: _ClassVar[Reason]
    REASON_APPROVAL_ANSWERED: _ClassVar[Reason]
    REASON_APPROVAL_CHANGED: _ClassVar[Reason]
    REASON_CREDENTIAL_UNPROVED: _ClassVar[Reason]
    REASON_DPOP_NONCE_NEEDED: _ClassVar[Reason]
    REASON_DPOP_PROOF_INVALID: _ClassVar[Reason]
    REASON_DPOP_PROOF_USED: _ClassVar[Reason]
    REASON_TOKEN_BINDING_NEEDED: _ClassVar[Reason]
    REASON_ALGORITHM_CONFLICT: _ClassVar[Reason]
    REASON_FEED_FORK: _ClassVar[Reason]
MODE_UNSPECIFIED: Mode
MODE_DELEGATED: Mode
MODE_AUTONOMOUS: Mode
EXCESS_UNSPECIFIED: Excess
EXCESS_DENY: Excess
EXCESS_CLIP: Excess
IDENTITY_KIND_UNSPECIFIED: IdentityKind
IDENTITY_KIND_AGENT: IdentityKind
IDENTITY_KIND_WORKLOAD: IdentityKind
AGENT_STATE_UNSPECIFIED: AgentState
AGENT_STATE_LIVE: AgentState
AGENT_STATE_EXPIRED: AgentState
AGENT_STATE_ENDED: AgentState
AGENT_STATE_CUT: AgentState
AGENT_STATE_ORPHANED: AgentState
BUDGET_UNIT_UNSPECIFIED: BudgetUnit
BUDGET_UNIT_OPS: BudgetUnit
BUDGET_UNIT_TOKENS: BudgetUnit
BUDGET_UNIT_MICRO_USD: BudgetUnit
APPROVAL_STATE_UNSPECIFIED: ApprovalState
APPROVAL_STATE_PENDING: ApprovalState
APPROVAL_STATE_APPROVED: ApprovalState
APPROVAL_STATE_DENIED: ApprovalState
APPROVAL_STATE_EXPIRED: ApprovalState
APPROVAL_STATE_USED: ApprovalState
APPROVAL_STATE_REVOKED: ApprovalState
AUTHORITY_KIND_UNSPECIFIED: AuthorityKind
AUTHORITY_KIND_X509: AuthorityKind
AUTHORITY_KIND_JWT: AuthorityKind
AUTHORITY_KIND_RS256: AuthorityKind
AUTHORITY_STATUS_UNSPECIFIED: AuthorityStatus
AUTHORITY_STATUS_PREPARED: AuthorityStatus
AUTHORITY_STATUS_ACTIVE: AuthorityStatus
AUTHORITY_STATUS_RETIRED: AuthorityStatus
AUTHORITY_STATUS_TAINTED: AuthorityStatus
REASON_UNSPECIFIED: Reason
REASON_AGENT_ENDED: Reason
REASON_AGENT_EXPIRED: Reason
REASON_AGENT_MALFORMED: Reason
REASON_AGENT_MISSING: Reason
REASON_AGENT_ORPHANED: Reason
REASON_AGENT_REVOKED: Reason
REASON_AGENT_UNKNOWN: Reason
REASON_AUDIENCE_MALFORMED: Reason
REASON_AUDIENCE_NOT_ALLOWED: Reason
REASON_AUTHORITIES_FULL: Reason
REASON_AUTHORITY_KIND: Reason
REASON_AUTHORITY_MISSING: Reason
REASON_AUTHORITY_STATE: Reason
REASON_AUTHORITY_TAINTED: Reason
REASON_AUTHORITY_UNKNOWN: Reason
REASON_BATCH_MALFORMED: Reason
REASON_BATCH_SIZE: Reason
REASON_BINDING_TOO_LARGE: Reason
REASON_BUSY: Reason
REASON_CALLER_NOT_AN_AGENT: Reason
REASON_CALLER_NOT_AUTHORIZED: Reason
REASON_CALLER_UNKNOWN: Reason
REASON_CERTIFICATE_NEEDED: Reason
REASON_CLASS_CLOSED: Reason
REASON_CLASS_MALFORMED: Reason
REASON_CLASS_NOT_CLOSED: Reason
REASON_CLASS_UNKNOWN: Reason
REASON_CREDENTIALS_DIFFER: Reason
REASON_CREDENTIAL_AUDIENCE: Reason
REASON_CREDENTIAL_BINDING: Reason
REASON_CREDENTIAL_EXPIRED: Reason
REASON_CREDENTIAL_MALFORMED: Reason
REASON_CREDENTIAL_MISSING: Reason
REASON_CREDENTIAL_NOT_YET_VALID: Reason
REASON_CREDENTIAL_PROFILE: Reason
REASON_CREDENTIAL_REUSED: Reason
REASON_CREDENTIAL_REVOKED: Reason
REASON_CREDENTIAL_SPIFFE_ID: Reason
REASON_CREDENTIAL_STALE: Reason
REASON_CREDENTIAL_TRUST_DOMAIN: Reason
REASON_CREDENTIAL_UNTRUSTED: Reason
REASON_CSR_MALFORMED: Reason
REASON_CSR_OR_TICKET: Reason
REASON_CSR_SIGNATURE: Reason
REASON_DEADLINE: Reason
REASON_DELEGATION_EXPIRED: Reason
REASON_DELEGATION_MALFORMED: Reason
REASON_DELEGATION_REVOKED: Reason
REASON_DELEGATION_UNKNOWN: Reason
REASON_DEPTH_EXHAUSTED: Reason
REASON_EXCEEDS_AUTHORITY: Reason
REASON_EXCESS_UNKNOWN: Reason
REASON_GENERATION_PAST: Reason
REASON_GENERATION_REPLACED: Reason
REASON_INCARNATION_MALFORMED: Reason
REASON_JOURNAL_FULL: Reason
REASON_KEY_IN_USE: Reason
REASON_KEY_MALFORMED: Reason
REASON_KEY_REVOKED: Reason
REASON_LEASE_EXPIRED: Reason
REASON_LIMIT_REACHED: Reason
REASON_LIST_TOO_LONG: Reason
REASON_MODE_CONTRADICTION: Reason
REASON_MODE_NOT_ALLOWED: Reason
REASON_MODE_UNKNOWN: Reason
REASON_NOTHING_LEFT: Reason
REASON_PAGE_TOKEN: Reason
REASON_PATH_UNUSABLE: Reason
REASON_REASON_TOO_LONG: Reason
REASON_RENEWALS_UNUSED: Reason
REASON_REQUEST_DONE: Reason
REASON_REQUEST_ID_MALFORMED: Reason
REASON_REQUEST_ID_REUSED: Reason
REASON_ROLE_NOT_ALLOWED: Reason
REASON_SCOPE_MISSING: Reason
REASON_SPAWNER_NOT_ALLOWED: Reason
REASON_STOPPING: Reason
REASON_TARGET_MISSING: Reason
REASON_TICKET_MALFORMED: Reason
REASON_TICKET_REFUSED: Reason
REASON_TICKET_WITH_JWT: Reason
REASON_TIME_IN_FUTURE: Reason
REASON_TIME_MALFORMED: Reason
REASON_TOKEN_MALFORMED: Reason
REASON_TOKEN_NOT_ACCEPTED: Reason
REASON_TOKEN_OR_DELEGATION: Reason
REASON_TTL_TOO_LONG: Reason
REASON_TWO_CALLERS: Reason
REASON_USER_CLOSED: Reason
REASON_USER_ISSUER_UNAVAILABLE: Reason
REASON_USER_MALFORMED: Reason
REASON_USER_NOT_CLOSED: Reason
REASON_USER_TOKEN_ACTOR: Reason
REASON_USER_TOKEN_ALGORITHM: Reason
REASON_USER_TOKEN_AUDIENCE: Reason
REASON_USER_TOKEN_CLAIM: Reason
REASON_USER_TOKEN_EXPIRED: Reason
REASON_USER_TOKEN_HEADER: Reason
REASON_USER_TOKEN_ISSUER_UNKNOWN: Reason
REASON_USER_TOKEN_KEY_UNKNOWN: Reason
REASON_USER_TOKEN_MALFORMED: Reason
REASON_USER_TOKEN_NOT_YET_VALID: Reason
REASON_USER_TOKEN_OF_AGENT: Reason
REASON_USER_TOKEN_OF_ANOTHER: Reason
REASON_USER_TOKEN_SIGNATURE: Reason
REASON_USER_TOKEN_TOO_EARLY: Reason
REASON_USER_TOKEN_TOO_LARGE: Reason
REASON_USER_TOKEN_TOO_OLD: Reason
REASON_USER_TOKEN_TYPE: Reason
REASON_WORKLOAD_CLOSED: Reason
REASON_WORKLOAD_MALFORMED: Reason
REASON_WORKLOAD_NOT_CLOSED: Reason
REASON_WORKLOAD_UNKNOWN: Reason
REASON_USER_TOKEN_KEY_UNNAMED: Reason
REASON_CONNECTIONS_FULL: Reason
REASON_USER_ISSUER_CLOSED: Reason
REASON_USER_ISSUER_NOT_CLOSED: Reason
REASON_SUBJECT_UNUSABLE: Reason
REASON_CLAIMS_UNUSABLE: Reason
REASON_WORKLOAD_ISSUER_UNAVAILABLE: Reason
REASON_WORKLOAD_TOKEN_EXPIRED: Reason
REASON_WORKLOAD_TOKEN_REFUSED: Reason
REASON_WORKLOAD_TOKEN_UNMATCHED: Reason
REASON_WORKLOAD_TOKEN_USED: Reason
REASON_DECISION_MALFORMED: Reason
REASON_DECISION_UNKNOWN: Reason
REASON_FILTER_MALFORMED: Reason
REASON_USER_TOKEN_CLIENT: Reason
REASON_USER_TOKEN_RESOURCE: Reason
REASON_USER_TOKEN_USED: Reason
REASON_SUBJECT_UNKNOWN: Reason
REASON_CREDENTIAL_USED: Reason
REASON_KEYLESS_PARENT: Reason
REASON_KEYLESS_ONLY: Reason
REASON_PARENT_ONLY: Reason
REASON_CREDENTIAL_TOO_OLD: Reason
REASON_ASSERTION_USED: Reason
REASON_SCOPE_MALFORMED: Reason
REASON_SCOPE_NOT_ALLOWED: Reason
REASON_SUBJECT_NOT_ALLOWED: Reason
REASON_USER_ISSUER_UNKNOWN: Reason
REASON_CRL_FULL: Reason
REASON_USER_CLOSED_BY_OPERATOR: Reason
REASON_LEASE_NOT_EXTENDED: Reason
REASON_USER_DIFFERS: Reason
REASON_CONFIGURATION_CHANGED: Reason
REASON_CONFIGURATION_REFUSED: Reason
REASON_AUDIT_UNWRITABLE: Reason
REASON_EXPLAIN_MALFORMED: Reason
REASON_LIMIT_UNKNOWN: Reason
REASON_POLICY_DENIED: Reason
REASON_POLICY_FAILED: Reason
REASON_BUDGET_EXHAUSTED: Reason
REASON_RESERVATION_UNKNOWN: Reason
REASON_RESERVATIONS_FULL: Reason
REASON_AMOUNT_MALFORMED: Reason
REASON_OPERATOR_UNMATCHED: Reason
REASON_ACTION_MALFORMED: Reason
REASON_ACTION_NOT_ALLOWED: Reason
REASON_APPROVAL_NEEDED: Reason
REASON_APPROVAL_UNKNOWN: Reason
REASON_APPROVAL_PENDING: Reason
REASON_APPROVAL_DENIED: Reason
REASON_APPROVAL_EXPIRED: Reason
REASON_APPROVAL_USED: Reason
REASON_APPROVAL_ANSWERED: Reason
REASON_APPROVAL_CHANGED: Reason
REASON_CREDENTIAL_UNPROVED: Reason
REASON_DPOP_NONCE_NEEDED: Reason
REASON_DPOP_PROOF_INVALID: Reason
REASON_DPOP_PROOF_USED: Reason
REASON_TOKEN_BINDING_NEEDED: Reason
REASON_ALGORITHM_CONFLICT: Reason
REASON_FEED_FORK: Reason

class User(_message.Message):
    __slots__ = ("iss", "sub", "name")
    ISS_FIELD_NUMBER: _ClassVar[int]
    SUB_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    iss: str
    sub: str
    name: str
    def __init__(self, iss: _Optional[str] = ..., sub: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class X509Svid(_message.Message):
    __slots__ = ("spiffe_id", "certificates", "expires_at")
    SPIFFE_ID_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATES_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    spiffe_id: str
    certificates: _containers.RepeatedScalarFieldContainer[bytes]
    expires_at: _timestamp_pb2.Timestamp
    def __init__(self, spiffe_id: _Optional[str] = ..., certificates: _Optional[_Iterable[bytes]] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Bundle(_message.Message):
    __slots__ = ("trust_domain", "spiffe_json", "x509_authorities", "feed_key", "sequence")
    TRUST_DOMAIN_FIELD_NUMBER: _ClassVar[int]
    SPIFFE_JSON_FIELD_NUMBER: _ClassVar[int]
    X509_AUTHORITIES_FIELD_NUMBER: _ClassVar[int]
    FEED_KEY_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    trust_domain: str
    spiffe_json: bytes
    x509_authorities: _containers.RepeatedScalarFieldContainer[bytes]
    feed_key: bytes
    sequence: int
    def __init__(self, trust_domain: _Optional[str] = ..., spiffe_json: _Optional[bytes] = ..., x509_authorities: _Optional[_Iterable[bytes]] = ..., feed_key: _Optional[bytes] = ..., sequence: _Optional[int] = ...) -> None: ...

class ForeignBundle(_message.Message):
    __slots__ = ("trust_domain", "spiffe_json")
    TRUST_DOMAIN_FIELD_NUMBER: _ClassVar[int]
    SPIFFE_JSON_FIELD_NUMBER: _ClassVar[int]
    trust_domain: str
    spiffe_json: bytes
    def __init__(self, trust_domain: _Optional[str] = ..., spiffe_json: _Optional[bytes] = ...) -> None: ...

class RedeemRequest(_message.Message):
    __slots__ = ("secret", "csr")
    SECRET_FIELD_NUMBER: _ClassVar[int]
    CSR_FIELD_NUMBER: _ClassVar[int]
    secret: bytes
    csr: bytes
    def __init__(self, secret: _Optional[bytes] = ..., csr: _Optional[bytes] = ...) -> None: ...

class RedeemResponse(_message.Message):
    __slots__ = ("svid", "bundle", "revision", "agent")
    SVID_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    svid: X509Svid
    bundle: Bundle
    revision: int
    agent: Agent
    def __init__(self, svid: _Optional[_Union[X509Svid, _Mapping]] = ..., bundle: _Optional[_Union[Bundle, _Mapping]] = ..., revision: _Optional[int] = ..., agent: _Optional[_Union[Agent, _Mapping]] = ...) -> None: ...

class AttestRequest(_message.Message):
    __slots__ = ("token", "csr", "workload")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    CSR_FIELD_NUMBER: _ClassVar[int]
    WORKLOAD_FIELD_NUMBER: _ClassVar[int]
    token: str
    csr: bytes
    workload: str
    def __init__(self, token: _Optional[str] = ..., csr: _Optional[bytes] = ..., workload: _Optional[str] = ...) -> None: ...

class AttestResponse(_message.Message):
    __slots__ = ("svid", "bundle", "revision")
    SVID_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    svid: X509Svid
    bundle: Bundle
    revision: int
    def __init__(self, svid: _Optional[_Union[X509Svid, _Mapping]] = ..., bundle: _Optional[_Union[Bundle, _Mapping]] = ..., revision: _Optional[int] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("csr",)
    CSR_FIELD_NUMBER: _ClassVar[int]
    csr: bytes
    def __init__(self, csr: _Optional[bytes] = ...) -> None: ...

class RenewResponse(_message.Message):
    __slots__ = ("svid", "bundle", "revision", "agent")
    SVID_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    svid: X509Svid
    bundle: Bundle
    revision: int
    agent: Agent
    def __init__(self, svid: _Optional[_Union[X509Svid, _Mapping]] = ..., bundle: _Optional[_Union[Bundle, _Mapping]] = ..., revision: _Optional[int] = ..., agent: _Optional[_Union[Agent, _Mapping]] = ...) -> None: ...

class SpawnRequest(_message.Message):
    __slots__ = ("request_id", "csr", "user_token", "mode", "scopes", "audiences", "lease_seconds", "max_depth", "excess", "jwt_audience", "ticket", "delegation", "known_bundle", "keyless")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CLASS_FIELD_NUMBER: _ClassVar[int]
    CSR_FIELD_NUMBER: _ClassVar[int]
    USER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    AUDIENCES_FIELD_NUMBER: _ClassVar[int]
    LEASE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MAX_DEPTH_FIELD_NUMBER: _ClassVar[int]
    EXCESS_FIELD_NUMBER: _ClassVar[int]
    JWT_AUDIENCE_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    DELEGATION_FIELD_NUMBER: _ClassVar[int]
    KNOWN_BUNDLE_FIELD_NUMBER: _ClassVar[int]
    KEYLESS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    csr: bytes
    user_token: str
    mode: Mode
    scopes: _containers.RepeatedScalarFieldContainer[str]
    audiences: _containers.RepeatedScalarFieldContainer[str]
    lease_seconds: int
    max_depth: int
    excess: Excess
    jwt_audience: str
    ticket: bool
    delegation: str
    known_bundle: int
    keyless: bool
    def __init__(self, request_id: _Optional[str] = ..., csr: _Optional[bytes] = ..., user_token: _Optional[str] = ..., mode: _Optional[_Union[Mode, str]] = ..., scopes: _Optional[_Iterable[str]] = ..., audiences: _Optional[_Iterable[str]] = ..., lease_seconds: _Optional[int] = ..., max_depth: _Optional[int] = ..., excess: _Optional[_Union[Excess, str]] = ..., jwt_audience: _Optional[str] = ..., ticket: _Optional[bool] = ..., delegation: _Optional[str] = ..., known_bundle: _Optional[int] = ..., keyless: _Optional[bool] = ..., **kwargs) -> None: ...

class SpawnResponse(_message.Message):
    __slots__ = ("agent", "svid", "bundle", "revision", "clipped", "jwt", "ticket")
    AGENT_FIELD_NUMBER: _ClassVar[int]
    SVID_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    CLIPPED_FIELD_NUMBER: _ClassVar[int]
    JWT_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    agent: Agent
    svid: X509Svid
    bundle: Bundle
    revision: int
    clipped: _containers.RepeatedScalarFieldContainer[str]
    jwt: JwtSvid
    ticket: str
    def __init__(self, agent: _Optional[_Union[Agent, _Mapping]] = ..., svid: _Optional[_Union[X509Svid, _Mapping]] = ..., bundle: _Optional[_Union[Bundle, _Mapping]] = ..., revision: _Optional[int] = ..., clipped: _Optional[_Iterable[str]] = ..., jwt: _Optional[_Union[JwtSvid, _Mapping]] = ..., ticket: _Optional[str] = ...) -> None: ...

class SpawnBatchRequest(_message.Message):
    __slots__ = ("template", "csrs", "count")
    TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    CSRS_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    template: SpawnRequest
    csrs: _containers.RepeatedScalarFieldContainer[bytes]
    count: int
    def __init__(self, template: _Optional[_Union[SpawnRequest, _Mapping]] = ..., csrs: _Optional[_Iterable[bytes]] = ..., count: _Optional[int] = ...) -> None: ...

class SpawnBatchResponse(_message.Message):
    __slots__ = ("index", "spawned", "denied")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    SPAWNED_FIELD_NUMBER: _ClassVar[int]
    DENIED_FIELD_NUMBER: _ClassVar[int]
    index: int
    spawned: SpawnResponse
    denied: _status_pb2.Status
    def __init__(self, index: _Optional[int] = ..., spawned: _Optional[_Union[SpawnResponse, _Mapping]] = ..., denied: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class JwtSvid(_message.Message):
    __slots__ = ("spiffe_id", "token", "expires_at")
    SPIFFE_ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    spiffe_id: str
    token: str
    expires_at: _timestamp_pb2.Timestamp
    def __init__(self, spiffe_id: _Optional[str] = ..., token: _Optional[str] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class MintJwtRequest(_message.Message):
    __slots__ = ("request_id", "audience", "further_audiences", "for_agent")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    AUDIENCE_FIELD_NUMBER: _ClassVar[int]
    FURTHER_AUDIENCES_FIELD_NUMBER: _ClassVar[int]
    FOR_AGENT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    audience: str
    further_audiences: _containers.RepeatedScalarFieldContainer[str]
    for_agent: str
    def __init__(self, request_id: _Optional[str] = ..., audience: _Optional[str] = ..., further_audiences: _Optional[_Iterable[str]] = ..., for_agent: _Optional[str] = ...) -> None: ...

class MintJwtResponse(_message.Message):
    __slots__ = ("svid", "revision")
    SVID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    svid: JwtSvid
    revision: int
    def __init__(self, svid: _Optional[_Union[JwtSvid, _Mapping]] = ..., revision: _Optional[int] = ...) -> None: ...

class EndRequest(_message.Message):
    __slots__ = ("agent",)
    AGENT_FIELD_NUMBER: _ClassVar[int]
    agent: str
    def __init__(self, agent: _Optional[str] = ...) -> None: ...

class EndResponse(_message.Message):
    __slots__ = ("agent_id", "revision", "accepted_until")
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_UNTIL_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    revision: int
    accepted_until: _timestamp_pb2.Timestamp
    def __init__(self, agent_id: _Optional[str] = ..., revision: _Optional[int] = ..., accepted_until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ExtendRequest(_message.Message):
    __slots__ = ("user_token", "lease_seconds")
    USER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    LEASE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    user_token: str
    lease_seconds: int
    def __init__(self, user_token: _Optional[str] = ..., lease_seconds: _Optional[int] = ...) -> None: ...

class ExtendResponse(_message.Message):
    __slots__ = ("agent", "revision")
    AGENT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    agent: Agent
    revision: int
    def __init__(self, agent: _Optional[_Union[Agent, _Mapping]] = ..., revision: _Optional[int] = ...) -> None: ...

class WhoamiRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WhoamiResponse(_message.Message):
    __slots__ = ("spiffe_id", "kind", "agent", "revision")
    SPIFFE_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    spiffe_id: str
    kind: IdentityKind
    agent: Agent
    revision: int
    def __init__(self, spiffe_id: _Optional[str] = ..., kind: _Optional[_Union[IdentityKind, str]] = ..., agent: _Optional[_Union[Agent, _Mapping]] = ..., revision: _Optional[int] = ...) -> None: ...

class Agent(_message.Message):
    __slots__ = ("agent_id", "parent_id", "root_id", "delegation_id", "user", "mode", "depth", "scopes", "audiences", "admitted_at", "lease_expires_at", "svid_expires_at", "revision", "state", "over_at", "over_by", "over_reason", "keyless")
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    PARENT_ID_FIELD_NUMBER: _ClassVar[int]
    ROOT_ID_FIELD_NUMBER: _ClassVar[int]
    CLASS_FIELD_NUMBER: _ClassVar[int]
    DELEGATION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    AUDIENCES_FIELD_NUMBER: _ClassVar[int]
    ADMITTED_AT_FIELD_NUMBER: _ClassVar[int]
    LEASE_EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    SVID_EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    OVER_AT_FIELD_NUMBER: _ClassVar[int]
    OVER_BY_FIELD_NUMBER: _ClassVar[int]
    OVER_REASON_FIELD_NUMBER: _ClassVar[int]
    KEYLESS_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    parent_id: str
    root_id: str
    delegation_id: str
    user: User
    mode: Mode
    depth: int
    scopes: _containers.RepeatedScalarFieldContainer[str]
    audiences: _containers.RepeatedScalarFieldContainer[str]
    admitted_at: _timestamp_pb2.Timestamp
    lease_expires_at: _timestamp_pb2.Timestamp
    svid_expires_at: _timestamp_pb2.Timestamp
    revision: int
    state: AgentState
    over_at: _timestamp_pb2.Timestamp
    over_by: str
    over_reason: str
    keyless: bool
    def __init__(self, agent_id: _Optional[str] = ..., parent_id: _Optional[str] = ..., root_id: _Optional[str] = ..., delegation_id: _Optional[str] = ..., user: _Optional[_Union[User, _Mapping]] = ..., mode: _Optional[_Union[Mode, str]] = ..., depth: _Optional[int] = ..., scopes: _Optional[_Iterable[str]] = ..., audiences: _Optional[_Iterable[str]] = ..., admitted_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., lease_expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., svid_expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., revision: _Optional[int] = ..., state: _Optional[_Union[AgentState, str]] = ..., over_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., over_by: _Optional[str] = ..., over_reason: _Optional[str] = ..., keyless: _Optional[bool] = ..., **kwargs) -> None: ...

class GetBudgetRequest(_message.Message):
    __slots__ = ("agent",)
    AGENT_FIELD_NUMBER: _ClassVar[int]
    agent: str
    def __init__(self, agent: _Optional[str] = ...) -> None: ...

class GetBudgetResponse(_message.Message):
    __slots__ = ("agent_id", "lines", "reservations")
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    RESERVATIONS_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    lines: _containers.RepeatedCompositeFieldContainer[BudgetLine]
    reservations: _containers.RepeatedCompositeFieldContainer[Reservation]
    def __init__(self, agent_id: _Optional[str] = ..., lines: _Optional[_Iterable[_Union[BudgetLine, _Mapping]]] = ..., reservations: _Optional[_Iterable[_Union[Reservation, _Mapping]]] = ...) -> None: ...

class BudgetLine(_message.Message):
    __slots__ = ("agent_id", "unit", "limit", "spent", "reserved", "left", "owner")
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    SPENT_FIELD_NUMBER: _ClassVar[int]
    RESERVED_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    CLASS_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    unit: BudgetUnit
    limit: int
    spent: int
    reserved: int
    left: int
    owner: str
    def __init__(self, agent_id: _Optional[str] = ..., unit: _Optional[_Union[BudgetUnit, str]] = ..., limit: _Optional[int] = ..., spent: _Optional[int] = ..., reserved: _Optional[int] = ..., left: _Optional[int] = ..., owner: _Optional[str] = ..., **kwargs) -> None: ...

class Reservation(_message.Message):
    __slots__ = ("reservation", "unit", "left", "expires_at", "agent_id")
    RESERVATION_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    reservation: int
    unit: BudgetUnit
    left: int
    expires_at: _timestamp_pb2.Timestamp
    agent_id: str
    def __init__(self, reservation: _Optional[int] = ..., unit: _Optional[_Union[BudgetUnit, str]] = ..., left: _Optional[int] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., agent_id: _Optional[str] = ...) -> None: ...

class SpendRequest(_message.Message):
    __slots__ = ("agent", "unit", "amount", "reservation", "request_id")
    AGENT_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    RESERVATION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    agent: str
    unit: BudgetUnit
    amount: int
    reservation: int
    request_id: str
    def __init__(self, agent: _Optional[str] = ..., unit: _Optional[_Union[BudgetUnit, str]] = ..., amount: _Optional[int] = ..., reservation: _Optional[int] = ..., request_id: _Optional[str] = ...) -> None: ...

class SpendResponse(_message.Message):
    __slots__ = ("agent_id", "revision", "left", "reservation_left")
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    RESERVATION_LEFT_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    revision: int
    left: int
    reservation_left: int
    def __init__(self, agent_id: _Optional[str] = ..., revision: _Optional[int] = ..., left: _Optional[int] = ..., reservation_left: _Optional[int] = ...) -> None: ...

class ReserveRequest(_message.Message):
    __slots__ = ("agent", "unit", "amount", "life_seconds", "request_id")
    AGENT_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    LIFE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    agent: str
    unit: BudgetUnit
    amount: int
    life_seconds: int
    request_id: str
    def __init__(self, agent: _Optional[str] = ..., unit: _Optional[_Union[BudgetUnit, str]] = ..., amount: _Optional[int] = ..., life_seconds: _Optional[int] = ..., request_id: _Optional[str] = ...) -> None: ...

class ReserveResponse(_message.Message):
    __slots__ = ("agent_id", "reservation", "left", "expires_at")
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    RESERVATION_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    reservation: int
    left: int
    expires_at: _timestamp_pb2.Timestamp
    def __init__(self, agent_id: _Optional[str] = ..., reservation: _Optional[int] = ..., left: _Optional[int] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ReleaseRequest(_message.Message):
    __slots__ = ("reservation",)
    RESERVATION_FIELD_NUMBER: _ClassVar[int]
    reservation: int
    def __init__(self, reservation: _Optional[int] = ...) -> None: ...

class ReleaseResponse(_message.Message):
    __slots__ = ("agent_id", "revision", "left")
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    revision: int
    left: int
    def __init__(self, agent_id: _Optional[str] = ..., revision: _Optional[int] = ..., left: _Optional[int] = ...) -> None: ...

class GetPoliciesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetPoliciesResponse(_message.Message):
    __slots__ = ("in_force", "shadow", "class_owners", "providers")
    class ClassOwnersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class ProvidersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    IN_FORCE_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    CLASS_OWNERS_FIELD_NUMBER: _ClassVar[int]
    PROVIDERS_FIELD_NUMBER: _ClassVar[int]
    in_force: PolicySet
    shadow: PolicySet
    class_owners: _containers.ScalarMap[str, str]
    providers: _containers.ScalarMap[str, str]
    def __init__(self, in_force: _Optional[_Union[PolicySet, _Mapping]] = ..., shadow: _Optional[_Union[PolicySet, _Mapping]] = ..., class_owners: _Optional[_Mapping[str, str]] = ..., providers: _Optional[_Mapping[str, str]] = ...) -> None: ...

class PolicySet(_message.Message):
    __slots__ = ("digest", "texts")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    digest: bytes
    texts: _containers.RepeatedCompositeFieldContainer[PolicyText]
    def __init__(self, digest: _Optional[bytes] = ..., texts: _Optional[_Iterable[_Union[PolicyText, _Mapping]]] = ...) -> None: ...

class PolicyText(_message.Message):
    __slots__ = ("file", "text")
    FILE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    file: str
    text: str
    def __init__(self, file: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class ListAgentsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "all", "user_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ALL_FIELD_NUMBER: _ClassVar[int]
    USER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    all: bool
    user_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., all: _Optional[bool] = ..., user_token: _Optional[str] = ...) -> None: ...

class ListAgentsResponse(_message.Message):
    __slots__ = ("agents", "next_page_token", "revision")
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    agents: _containers.RepeatedCompositeFieldContainer[Agent]
    next_page_token: str
    revision: int
    def __init__(self, agents: _Optional[_Iterable[_Union[Agent, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class GetAgentRequest(_message.Message):
    __slots__ = ("agent", "user_token")
    AGENT_FIELD_NUMBER: _ClassVar[int]
    USER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    agent: str
    user_token: str
    def __init__(self, agent: _Optional[str] = ..., user_token: _Optional[str] = ...) -> None: ...

class GetAgentResponse(_message.Message):
    __slots__ = ("agent",)
    AGENT_FIELD_NUMBER: _ClassVar[int]
    agent: Agent
    def __init__(self, agent: _Optional[_Union[Agent, _Mapping]] = ...) -> None: ...

class ListClassesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListClassesResponse(_message.Message):
    __slots__ = ("classes", "revision")
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    classes: _containers.RepeatedCompositeFieldContainer[Class]
    revision: int
    def __init__(self, classes: _Optional[_Iterable[_Union[Class, _Mapping]]] = ..., revision: _Optional[int] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("trust_domain", "version", "started_at", "revision", "live_agents", "ready", "parts", "providers", "history", "warnings")
    TRUST_DOMAIN_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    LIVE_AGENTS_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    PROVIDERS_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    trust_domain: str
    version: str
    started_at: _timestamp_pb2.Timestamp
    revision: int
    live_agents: int
    ready: bool
    parts: _containers.RepeatedCompositeFieldContainer[StatusPart]
    providers: _containers.RepeatedCompositeFieldContainer[StatusProvider]
    history: StatusHistory
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, trust_domain: _Optional[str] = ..., version: _Optional[str] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., revision: _Optional[int] = ..., live_agents: _Optional[int] = ..., ready: _Optional[bool] = ..., parts: _Optional[_Iterable[_Union[StatusPart, _Mapping]]] = ..., providers: _Optional[_Iterable[_Union[StatusProvider, _Mapping]]] = ..., history: _Optional[_Union[StatusHistory, _Mapping]] = ..., warnings: _Optional[_Iterable[str]] = ...) -> None: ...

class StatusPart(_message.Message):
    __slots__ = ("name", "trouble")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TROUBLE_FIELD_NUMBER: _ClassVar[int]
    name: str
    trouble: str
    def __init__(self, name: _Optional[str] = ..., trouble: _Optional[str] = ...) -> None: ...

class StatusProvider(_message.Message):
    __slots__ = ("name", "iss", "trouble", "asked")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ISS_FIELD_NUMBER: _ClassVar[int]
    TROUBLE_FIELD_NUMBER: _ClassVar[int]
    ASKED_FIELD_NUMBER: _ClassVar[int]
    name: str
    iss: str
    trouble: str
    asked: bool
    def __init__(self, name: _Optional[str] = ..., iss: _Optional[str] = ..., trouble: _Optional[str] = ..., asked: _Optional[bool] = ...) -> None: ...

class StatusHistory(_message.Message):
    __slots__ = ("first", "end", "revision", "signed")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    first: int
    end: int
    revision: int
    signed: int
    def __init__(self, first: _Optional[int] = ..., end: _Optional[int] = ..., revision: _Optional[int] = ..., signed: _Optional[int] = ...) -> None: ...

class Class(_message.Message):
    __slots__ = ("name", "owner", "scopes", "audiences", "svid_ttl_seconds", "max_lease_seconds", "max_depth", "modes", "spawners", "closed", "live_agents")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    AUDIENCES_FIELD_NUMBER: _ClassVar[int]
    SVID_TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MAX_LEASE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MAX_DEPTH_FIELD_NUMBER: _ClassVar[int]
    MODES_FIELD_NUMBER: _ClassVar[int]
    SPAWNERS_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    LIVE_AGENTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    owner: str
    scopes: _containers.RepeatedScalarFieldContainer[str]
    audiences: _containers.RepeatedScalarFieldContainer[str]
    svid_ttl_seconds: int
    max_lease_seconds: int
    max_depth: int
    modes: _containers.RepeatedScalarFieldContainer[Mode]
    spawners: _containers.RepeatedScalarFieldContainer[str]
    closed: bool
    live_agents: int
    def __init__(self, name: _Optional[str] = ..., owner: _Optional[str] = ..., scopes: _Optional[_Iterable[str]] = ..., audiences: _Optional[_Iterable[str]] = ..., svid_ttl_seconds: _Optional[int] = ..., max_lease_seconds: _Optional[int] = ..., max_depth: _Optional[int] = ..., modes: _Optional[_Iterable[_Union[Mode, str]]] = ..., spawners: _Optional[_Iterable[str]] = ..., closed: _Optional[bool] = ..., live_agents: _Optional[int] = ...) -> None: ...

class CreateJoinTokenRequest(_message.Message):
    __slots__ = ("workload", "ttl_seconds")
    WORKLOAD_FIELD_NUMBER: _ClassVar[int]
    TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    workload: str
    ttl_seconds: int
    def __init__(self, workload: _Optional[str] = ..., ttl_seconds: _Optional[int] = ...) -> None: ...

class CreateJoinTokenResponse(_message.Message):
    __slots__ = ("token", "workload_id", "expires_at", "revision")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    WORKLOAD_ID_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    token: str
    workload_id: str
    expires_at: _timestamp_pb2.Timestamp
    revision: int
    def __init__(self, token: _Optional[str] = ..., workload_id: _Optional[str] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., revision: _Optional[int] = ...) -> None: ...

class Target(_message.Message):
    __slots__ = ("agent", "user", "delegation", "workload", "key", "recorded_before", "token", "issuer")
    AGENT_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    DELEGATION_FIELD_NUMBER: _ClassVar[int]
    WORKLOAD_FIELD_NUMBER: _ClassVar[int]
    CLASS_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    RECORDED_BEFORE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    ISSUER_FIELD_NUMBER: _ClassVar[int]
    agent: str
    user: User
    delegation: str
    workload: str
    key: str
    recorded_before: _timestamp_pb2.Timestamp
    token: str
    issuer: str
    def __init__(self, agent: _Optional[str] = ..., user: _Optional[_Union[User, _Mapping]] = ..., delegation: _Optional[str] = ..., workload: _Optional[str] = ..., key: _Optional[str] = ..., recorded_before: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., token: _Optional[str] = ..., issuer: _Optional[str] = ..., **kwargs) -> None: ...

class ExchangeRequest(_message.Message):
    __slots__ = ("audience", "scopes", "subject_token", "authorization_details", "approval_id", "for_agent")
    AUDIENCE_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_TOKEN_FIELD_NUMBER: _ClassVar[int]
    AUTHORIZATION_DETAILS_FIELD_NUMBER: _ClassVar[int]
    APPROVAL_ID_FIELD_NUMBER: _ClassVar[int]
    FOR_AGENT_FIELD_NUMBER: _ClassVar[int]
    audience: str
    scopes: _containers.RepeatedScalarFieldContainer[str]
    subject_token: str
    authorization_details: str
    approval_id: str
    for_agent: str
    def __init__(self, audience: _Optional[str] = ..., scopes: _Optional[_Iterable[str]] = ..., subject_token: _Optional[str] = ..., authorization_details: _Optional[str] = ..., approval_id: _Optional[str] = ..., for_agent: _Optional[str] = ...) -> None: ...

class ExchangeResponse(_message.Message):
    __slots__ = ("access_token", "token_type", "expires_at", "scopes", "revision", "authorization_details")
    ACCESS_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOKEN_TYPE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    AUTHORIZATION_DETAILS_FIELD_NUMBER: _ClassVar[int]
    access_token: str
    token_type: str
    expires_at: _timestamp_pb2.Timestamp
    scopes: _containers.RepeatedScalarFieldContainer[str]
    revision: int
    authorization_details: str
    def __init__(self, access_token: _Optional[str] = ..., token_type: _Optional[str] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., scopes: _Optional[_Iterable[str]] = ..., revision: _Optional[int] = ..., authorization_details: _Optional[str] = ...) -> None: ...

class Approval(_message.Message):
    __slots__ = ("approval_id", "state", "agent_id", "chain", "user", "delegation_id", "audience", "scopes", "authorization_details", "reason", "digest", "asked_at", "expires_at", "uses", "used", "lasts_seconds", "answered_by", "answered_at", "evidence", "narrowed", "page")
    APPROVAL_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    DELEGATION_ID_FIELD_NUMBER: _ClassVar[int]
    AUDIENCE_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    AUTHORIZATION_DETAILS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    ASKED_AT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    USES_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    LASTS_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_BY_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_AT_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    NARROWED_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    approval_id: str
    state: ApprovalState
    agent_id: str
    chain: _containers.RepeatedScalarFieldContainer[str]
    user: User
    delegation_id: str
    audience: str
    scopes: _containers.RepeatedScalarFieldContainer[str]
    authorization_details: str
    reason: str
    digest: str
    asked_at: _timestamp_pb2.Timestamp
    expires_at: _timestamp_pb2.Timestamp
    uses: int
    used: int
    lasts_seconds: int
    answered_by: User
    answered_at: _timestamp_pb2.Timestamp
    evidence: str
    narrowed: Narrowed
    page: str
    def __init__(self, approval_id: _Optional[str] = ..., state: _Optional[_Union[ApprovalState, str]] = ..., agent_id: _Optional[str] = ..., chain: _Optional[_Iterable[str]] = ..., user: _Optional[_Union[User, _Mapping]] = ..., delegation_id: _Optional[str] = ..., audience: _Optional[str] = ..., scopes: _Optional[_Iterable[str]] = ..., authorization_details: _Optional[str] = ..., reason: _Optional[str] = ..., digest: _Optional[str] = ..., asked_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., uses: _Optional[int] = ..., used: _Optional[int] = ..., lasts_seconds: _Optional[int] = ..., answered_by: _Optional[_Union[User, _Mapping]] = ..., answered_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., evidence: _Optional[str] = ..., narrowed: _Optional[_Union[Narrowed, _Mapping]] = ..., page: _Optional[str] = ...) -> None: ...

class Narrowed(_message.Message):
    __slots__ = ("authorization_details", "scopes")
    AUTHORIZATION_DETAILS_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    authorization_details: str
    scopes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, authorization_details: _Optional[str] = ..., scopes: _Optional[_Iterable[str]] = ...) -> None: ...

class AskRequest(_message.Message):
    __slots__ = ("audience", "authorization_details", "scopes", "reason", "expires_seconds")
    AUDIENCE_FIELD_NUMBER: _ClassVar[int]
    AUTHORIZATION_DETAILS_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_SECONDS_FIELD_NUMBER: _ClassVar[int]
    audience: str
    authorization_details: str
    scopes: _containers.RepeatedScalarFieldContainer[str]
    reason: str
    expires_seconds: int
    def __init__(self, audience: _Optional[str] = ..., authorization_details: _Optional[str] = ..., scopes: _Optional[_Iterable[str]] = ..., reason: _Optional[str] = ..., expires_seconds: _Optional[int] = ...) -> None: ...

class AskResponse(_message.Message):
    __slots__ = ("approval", "revision")
    APPROVAL_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    approval: Approval
    revision: int
    def __init__(self, approval: _Optional[_Union[Approval, _Mapping]] = ..., revision: _Optional[int] = ...) -> None: ...

class GetApprovalRequest(_message.Message):
    __slots__ = ("approval_id", "user_token")
    APPROVAL_ID_FIELD_NUMBER: _ClassVar[int]
    USER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    approval_id: str
    user_token: str
    def __init__(self, approval_id: _Optional[str] = ..., user_token: _Optional[str] = ...) -> None: ...

class GetApprovalResponse(_message.Message):
    __slots__ = ("approval",)
    APPROVAL_FIELD_NUMBER: _ClassVar[int]
    approval: Approval
    def __init__(self, approval: _Optional[_Union[Approval, _Mapping]] = ...) -> None: ...

class ListApprovalsRequest(_message.Message):
    __slots__ = ("user_token", "all")
    USER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ALL_FIELD_NUMBER: _ClassVar[int]
    user_token: str
    all: bool
    def __init__(self, user_token: _Optional[str] = ..., all: _Optional[bool] = ...) -> None: ...

class ListApprovalsResponse(_message.Message):
    __slots__ = ("approvals", "revision")
    APPROVALS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    approvals: _containers.RepeatedCompositeFieldContainer[Approval]
    revision: int
    def __init__(self, approvals: _Optional[_Iterable[_Union[Approval, _Mapping]]] = ..., revision: _Optional[int] = ...) -> None: ...

class ApproveRequest(_message.Message):
    __slots__ = ("approval_id", "user_token", "digest", "narrowed")
    APPROVAL_ID_FIELD_NUMBER: _ClassVar[int]
    USER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    NARROWED_FIELD_NUMBER: _ClassVar[int]
    approval_id: str
    user_token: str
    digest: str
    narrowed: Narrowed
    def __init__(self, approval_id: _Optional[str] = ..., user_token: _Optional[str] = ..., digest: _Optional[str] = ..., narrowed: _Optional[_Union[Narrowed, _Mapping]] = ...) -> None: ...

class ApproveResponse(_message.Message):
    __slots__ = ("approval", "revision")
    APPROVAL_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    approval: Approval
    revision: int
    def __init__(self, approval: _Optional[_Union[Approval, _Mapping]] = ..., revision: _Optional[int] = ...) -> None: ...

class DenyRequest(_message.Message):
    __slots__ = ("approval_id", "user_token")
    APPROVAL_ID_FIELD_NUMBER: _ClassVar[int]
    USER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    approval_id: str
    user_token: str
    def __init__(self, approval_id: _Optional[str] = ..., user_token: _Optional[str] = ...) -> None: ...

class DenyResponse(_message.Message):
    __slots__ = ("approval", "revision")
    APPROVAL_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    approval: Approval
    revision: int
    def __init__(self, approval: _Optional[_Union[Approval, _Mapping]] = ..., revision: _Optional[int] = ...) -> None: ...

class IntrospectRequest(_message.Message):
    __slots__ = ("token",)
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: str
    def __init__(self, token: _Optional[str] = ...) -> None: ...

class IntrospectResponse(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: bytes
    def __init__(self, json: _Optional[bytes] = ...) -> None: ...

class TokensRevokeRequest(_message.Message):
    __slots__ = ("token",)
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: str
    def __init__(self, token: _Optional[str] = ...) -> None: ...

class TokensRevokeResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RevokeRequest(_message.Message):
    __slots__ = ("target", "reason", "allow_new", "dry_run", "user_token")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ALLOW_NEW_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    USER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    target: Target
    reason: str
    allow_new: bool
    dry_run: bool
    user_token: str
    def __init__(self, target: _Optional[_Union[Target, _Mapping]] = ..., reason: _Optional[str] = ..., allow_new: _Optional[bool] = ..., dry_run: _Optional[bool] = ..., user_token: _Optional[str] = ...) -> None: ...

class AgentCount(_message.Message):
    __slots__ = ("user", "agents")
    CLASS_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    user: User
    agents: int
    def __init__(self, user: _Optional[_Union[User, _Mapping]] = ..., agents: _Optional[int] = ..., **kwargs) -> None: ...

class RevokeResponse(_message.Message):
    __slots__ = ("revision", "agents_at_most", "open_for_new", "worst_case_seconds", "recorded_at", "by_class", "by_user", "unknown_user")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    AGENTS_AT_MOST_FIELD_NUMBER: _ClassVar[int]
    OPEN_FOR_NEW_FIELD_NUMBER: _ClassVar[int]
    WORST_CASE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    RECORDED_AT_FIELD_NUMBER: _ClassVar[int]
    BY_CLASS_FIELD_NUMBER: _ClassVar[int]
    BY_USER_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_USER_FIELD_NUMBER: _ClassVar[int]
    revision: int
    agents_at_most: int
    open_for_new: bool
    worst_case_seconds: int
    recorded_at: _timestamp_pb2.Timestamp
    by_class: _containers.RepeatedCompositeFieldContainer[AgentCount]
    by_user: _containers.RepeatedCompositeFieldContainer[AgentCount]
    unknown_user: bool
    def __init__(self, revision: _Optional[int] = ..., agents_at_most: _Optional[int] = ..., open_for_new: _Optional[bool] = ..., worst_case_seconds: _Optional[int] = ..., recorded_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., by_class: _Optional[_Iterable[_Union[AgentCount, _Mapping]]] = ..., by_user: _Optional[_Iterable[_Union[AgentCount, _Mapping]]] = ..., unknown_user: _Optional[bool] = ...) -> None: ...

class ListCutsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListCutsResponse(_message.Message):
    __slots__ = ("cuts", "next_page_token", "revision")
    CUTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    cuts: _containers.RepeatedCompositeFieldContainer[MadeCut]
    next_page_token: str
    revision: int
    def __init__(self, cuts: _Optional[_Iterable[_Union[MadeCut, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class MadeCut(_message.Message):
    __slots__ = ("target", "revision", "before", "closed", "reason", "by", "recorded_at", "kept_until")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    RECORDED_AT_FIELD_NUMBER: _ClassVar[int]
    KEPT_UNTIL_FIELD_NUMBER: _ClassVar[int]
    target: Target
    revision: int
    before: int
    closed: bool
    reason: str
    by: str
    recorded_at: _timestamp_pb2.Timestamp
    kept_until: _timestamp_pb2.Timestamp
    def __init__(self, target: _Optional[_Union[Target, _Mapping]] = ..., revision: _Optional[int] = ..., before: _Optional[int] = ..., closed: _Optional[bool] = ..., reason: _Optional[str] = ..., by: _Optional[str] = ..., recorded_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., kept_until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ReopenRequest(_message.Message):
    __slots__ = ("user", "workload", "issuer", "user_token")
    USER_FIELD_NUMBER: _ClassVar[int]
    WORKLOAD_FIELD_NUMBER: _ClassVar[int]
    CLASS_FIELD_NUMBER: _ClassVar[int]
    ISSUER_FIELD_NUMBER: _ClassVar[int]
    USER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    user: User
    workload: str
    issuer: str
    user_token: str
    def __init__(self, user: _Optional[_Union[User, _Mapping]] = ..., workload: _Optional[str] = ..., issuer: _Optional[str] = ..., user_token: _Optional[str] = ..., **kwargs) -> None: ...

class ReopenResponse(_message.Message):
    __slots__ = ("revision", "recorded_at")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    RECORDED_AT_FIELD_NUMBER: _ClassVar[int]
    revision: int
    recorded_at: _timestamp_pb2.Timestamp
    def __init__(self, revision: _Optional[int] = ..., recorded_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class BackupRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class BackupResponse(_message.Message):
    __slots__ = ("revision", "bytes", "path")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    revision: int
    bytes: int
    path: str
    def __init__(self, revision: _Optional[int] = ..., bytes: _Optional[int] = ..., path: _Optional[str] = ...) -> None: ...

class ReloadRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReloadResponse(_message.Message):
    __slots__ = ("revision", "changes")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    revision: int
    changes: _containers.RepeatedCompositeFieldContainer[ConfigurationChange]
    def __init__(self, revision: _Optional[int] = ..., changes: _Optional[_Iterable[_Union[ConfigurationChange, _Mapping]]] = ...) -> None: ...

class ConfigurationChange(_message.Message):
    __slots__ = ("key", "before", "after", "needs_restart")
    KEY_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    NEEDS_RESTART_FIELD_NUMBER: _ClassVar[int]
    key: str
    before: str
    after: str
    needs_restart: bool
    def __init__(self, key: _Optional[str] = ..., before: _Optional[str] = ..., after: _Optional[str] = ..., needs_restart: _Optional[bool] = ...) -> None: ...

class CompareConfigurationRequest(_message.Message):
    __slots__ = ("text", "name")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    text: str
    name: str
    def __init__(self, text: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class CompareConfigurationResponse(_message.Message):
    __slots__ = ("changes", "agents", "agents_affected")
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    AGENTS_AFFECTED_FIELD_NUMBER: _ClassVar[int]
    changes: _containers.RepeatedCompositeFieldContainer[ConfigurationChange]
    agents: _containers.RepeatedCompositeFieldContainer[AffectedAgent]
    agents_affected: int
    def __init__(self, changes: _Optional[_Iterable[_Union[ConfigurationChange, _Mapping]]] = ..., agents: _Optional[_Iterable[_Union[AffectedAgent, _Mapping]]] = ..., agents_affected: _Optional[int] = ...) -> None: ...

class AffectedAgent(_message.Message):
    __slots__ = ("agent_id", "loses")
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    LOSES_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    loses: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, agent_id: _Optional[str] = ..., loses: _Optional[_Iterable[str]] = ...) -> None: ...

class ListEntriesRequest(_message.Message):
    __slots__ = ("since", "until", "user", "agent", "root", "kinds", "reason", "page_size", "page_token", "user_token")
    SINCE_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    CLASS_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    USER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    since: _timestamp_pb2.Timestamp
    until: _timestamp_pb2.Timestamp
    user: User
    agent: str
    root: str
    kinds: _containers.RepeatedScalarFieldContainer[str]
    reason: str
    page_size: int
    page_token: str
    user_token: str
    def __init__(self, since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., user: _Optional[_Union[User, _Mapping]] = ..., agent: _Optional[str] = ..., root: _Optional[str] = ..., kinds: _Optional[_Iterable[str]] = ..., reason: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., user_token: _Optional[str] = ..., **kwargs) -> None: ...

class ListEntriesResponse(_message.Message):
    __slots__ = ("entries", "next_page_token", "end_page_token")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    END_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[HistoryEntry]
    next_page_token: str
    end_page_token: str
    def __init__(self, entries: _Optional[_Iterable[_Union[HistoryEntry, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., end_page_token: _Optional[str] = ...) -> None: ...

class GetDecisionRequest(_message.Message):
    __slots__ = ("decision_id", "user_token")
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    user_token: str
    def __init__(self, decision_id: _Optional[str] = ..., user_token: _Optional[str] = ...) -> None: ...

class GetDecisionResponse(_message.Message):
    __slots__ = ("entries", "proofs")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    PROOFS_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[HistoryEntry]
    proofs: _containers.RepeatedCompositeFieldContainer[EntryProof]
    def __init__(self, entries: _Optional[_Iterable[_Union[HistoryEntry, _Mapping]]] = ..., proofs: _Optional[_Iterable[_Union[EntryProof, _Mapping]]] = ...) -> None: ...

class HistoryEntry(_message.Message):
    __slots__ = ("index", "at", "revision", "decision_id", "kind", "outcome", "reason_code", "caller", "peer", "method", "request_id", "user", "delegation_id", "agent_id", "root_id", "chain", "asked", "scopes", "audiences", "ends_at", "key", "serial", "target", "reason", "count", "late")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_CODE_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    DELEGATION_ID_FIELD_NUMBER: _ClassVar[int]
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    CLASS_FIELD_NUMBER: _ClassVar[int]
    ROOT_ID_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    ASKED_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    AUDIENCES_FIELD_NUMBER: _ClassVar[int]
    ENDS_AT_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    SERIAL_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    index: int
    at: _timestamp_pb2.Timestamp
    revision: int
    decision_id: str
    kind: str
    outcome: str
    reason_code: str
    caller: str
    peer: str
    method: str
    request_id: str
    user: User
    delegation_id: str
    agent_id: str
    root_id: str
    chain: _containers.RepeatedScalarFieldContainer[str]
    asked: _containers.RepeatedScalarFieldContainer[str]
    scopes: _containers.RepeatedScalarFieldContainer[str]
    audiences: _containers.RepeatedScalarFieldContainer[str]
    ends_at: _timestamp_pb2.Timestamp
    key: str
    serial: str
    target: str
    reason: str
    count: int
    late: bool
    def __init__(self, index: _Optional[int] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., revision: _Optional[int] = ..., decision_id: _Optional[str] = ..., kind: _Optional[str] = ..., outcome: _Optional[str] = ..., reason_code: _Optional[str] = ..., caller: _Optional[str] = ..., peer: _Optional[str] = ..., method: _Optional[str] = ..., request_id: _Optional[str] = ..., user: _Optional[_Union[User, _Mapping]] = ..., delegation_id: _Optional[str] = ..., agent_id: _Optional[str] = ..., root_id: _Optional[str] = ..., chain: _Optional[_Iterable[str]] = ..., asked: _Optional[_Iterable[str]] = ..., scopes: _Optional[_Iterable[str]] = ..., audiences: _Optional[_Iterable[str]] = ..., ends_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., key: _Optional[str] = ..., serial: _Optional[str] = ..., target: _Optional[str] = ..., reason: _Optional[str] = ..., count: _Optional[int] = ..., late: _Optional[bool] = ..., **kwargs) -> None: ...

class EntryProof(_message.Message):
    __slots__ = ("index", "leaf", "opening", "salt", "proof")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    LEAF_FIELD_NUMBER: _ClassVar[int]
    OPENING_FIELD_NUMBER: _ClassVar[int]
    SALT_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    index: int
    leaf: str
    opening: str
    salt: bytes
    proof: str
    def __init__(self, index: _Optional[int] = ..., leaf: _Optional[str] = ..., opening: _Optional[str] = ..., salt: _Optional[bytes] = ..., proof: _Optional[str] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("agent", "certificates", "token", "spawn", "decision")
    AGENT_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATES_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    SPAWN_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    agent: str
    certificates: ExplainedCertificates
    token: str
    spawn: SpawnRequest
    decision: str
    def __init__(self, agent: _Optional[str] = ..., certificates: _Optional[_Union[ExplainedCertificates, _Mapping]] = ..., token: _Optional[str] = ..., spawn: _Optional[_Union[SpawnRequest, _Mapping]] = ..., decision: _Optional[str] = ...) -> None: ...

class ExplainedCertificates(_message.Message):
    __slots__ = ("certificates",)
    CERTIFICATES_FIELD_NUMBER: _ClassVar[int]
    certificates: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, certificates: _Optional[_Iterable[bytes]] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("about", "allowed", "reason", "message", "checks", "scopes", "audiences", "limits", "policies", "flip", "flip_complete", "decision_id", "revision", "at")
    ABOUT_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    CHECKS_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    AUDIENCES_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    FLIP_FIELD_NUMBER: _ClassVar[int]
    FLIP_COMPLETE_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    about: str
    allowed: bool
    reason: str
    message: str
    checks: _containers.RepeatedCompositeFieldContainer[ExplainedCheck]
    scopes: _containers.RepeatedCompositeFieldContainer[ExplainedPart]
    audiences: _containers.RepeatedCompositeFieldContainer[ExplainedPart]
    limits: _containers.RepeatedCompositeFieldContainer[ExplainedLimit]
    policies: _containers.RepeatedCompositeFieldContainer[ExplainedPolicy]
    flip: _containers.RepeatedCompositeFieldContainer[Flip]
    flip_complete: bool
    decision_id: str
    revision: int
    at: _timestamp_pb2.Timestamp
    def __init__(self, about: _Optional[str] = ..., allowed: _Optional[bool] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., checks: _Optional[_Iterable[_Union[ExplainedCheck, _Mapping]]] = ..., scopes: _Optional[_Iterable[_Union[ExplainedPart, _Mapping]]] = ..., audiences: _Optional[_Iterable[_Union[ExplainedPart, _Mapping]]] = ..., limits: _Optional[_Iterable[_Union[ExplainedLimit, _Mapping]]] = ..., policies: _Optional[_Iterable[_Union[ExplainedPolicy, _Mapping]]] = ..., flip: _Optional[_Iterable[_Union[Flip, _Mapping]]] = ..., flip_complete: _Optional[bool] = ..., decision_id: _Optional[str] = ..., revision: _Optional[int] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Source(_message.Message):
    __slots__ = ("where", "owner")
    WHERE_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    where: str
    owner: str
    def __init__(self, where: _Optional[str] = ..., owner: _Optional[str] = ...) -> None: ...

class ExplainedCheck(_message.Message):
    __slots__ = ("check", "passed", "saw", "source")
    CHECK_FIELD_NUMBER: _ClassVar[int]
    PASSED_FIELD_NUMBER: _ClassVar[int]
    SAW_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    check: str
    passed: bool
    saw: str
    source: Source
    def __init__(self, check: _Optional[str] = ..., passed: _Optional[bool] = ..., saw: _Optional[str] = ..., source: _Optional[_Union[Source, _Mapping]] = ...) -> None: ...

class ExplainedPart(_message.Message):
    __slots__ = ("name", "removed_by")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FROM_FIELD_NUMBER: _ClassVar[int]
    REMOVED_BY_FIELD_NUMBER: _ClassVar[int]
    name: str
    removed_by: Source
    def __init__(self, name: _Optional[str] = ..., removed_by: _Optional[_Union[Source, _Mapping]] = ..., **kwargs) -> None: ...

class ExplainedLimit(_message.Message):
    __slots__ = ("name", "per", "measure", "used", "limit", "source")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PER_FIELD_NUMBER: _ClassVar[int]
    MEASURE_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    per: str
    measure: str
    used: int
    limit: int
    source: Source
    def __init__(self, name: _Optional[str] = ..., per: _Optional[str] = ..., measure: _Optional[str] = ..., used: _Optional[int] = ..., limit: _Optional[int] = ..., source: _Optional[_Union[Source, _Mapping]] = ...) -> None: ...

class ExplainedPolicy(_message.Message):
    __slots__ = ("id", "source")
    ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    id: str
    source: Source
    def __init__(self, id: _Optional[str] = ..., source: _Optional[_Union[Source, _Mapping]] = ...) -> None: ...

class Flip(_message.Message):
    __slots__ = ("changes",)
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    changes: _containers.RepeatedCompositeFieldContainer[FlipChange]
    def __init__(self, changes: _Optional[_Iterable[_Union[FlipChange, _Mapping]]] = ...) -> None: ...

class FlipChange(_message.Message):
    __slots__ = ("change", "text", "source")
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    change: str
    text: str
    source: Source
    def __init__(self, change: _Optional[str] = ..., text: _Optional[str] = ..., source: _Optional[_Union[Source, _Mapping]] = ...) -> None: ...

class WhoCanRequest(_message.Message):
    __slots__ = ("scope", "audience", "user")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    AUDIENCE_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    CLASS_FIELD_NUMBER: _ClassVar[int]
    scope: str
    audience: str
    user: User
    def __init__(self, scope: _Optional[str] = ..., audience: _Optional[str] = ..., user: _Optional[_Union[User, _Mapping]] = ..., **kwargs) -> None: ...

class WhoCanResponse(_message.Message):
    __slots__ = ("agents", "could", "as_of")
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    COULD_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    agents: _containers.RepeatedCompositeFieldContainer[Agent]
    could: _containers.RepeatedCompositeFieldContainer[CouldHave]
    as_of: AsOf
    def __init__(self, agents: _Optional[_Iterable[_Union[Agent, _Mapping]]] = ..., could: _Optional[_Iterable[_Union[CouldHave, _Mapping]]] = ..., as_of: _Optional[_Union[AsOf, _Mapping]] = ...) -> None: ...

class CouldHave(_message.Message):
    __slots__ = ("mode", "provider", "audience", "spawners", "source")
    CLASS_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    AUDIENCE_FIELD_NUMBER: _ClassVar[int]
    SPAWNERS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    mode: Mode
    provider: str
    audience: str
    spawners: _containers.RepeatedScalarFieldContainer[str]
    source: Source
    def __init__(self, mode: _Optional[_Union[Mode, str]] = ..., provider: _Optional[str] = ..., audience: _Optional[str] = ..., spawners: _Optional[_Iterable[str]] = ..., source: _Optional[_Union[Source, _Mapping]] = ..., **kwargs) -> None: ...

class AsOf(_message.Message):
    __slots__ = ("revision", "exact", "at", "agents")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    revision: int
    exact: bool
    at: _timestamp_pb2.Timestamp
    agents: int
    def __init__(self, revision: _Optional[int] = ..., exact: _Optional[bool] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., agents: _Optional[int] = ...) -> None: ...

class WhatIfRequest(_message.Message):
    __slots__ = ("revoke", "limit", "policies")
    REVOKE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    revoke: Target
    limit: LimitChange
    policies: PolicySet
    def __init__(self, revoke: _Optional[_Union[Target, _Mapping]] = ..., limit: _Optional[_Union[LimitChange, _Mapping]] = ..., policies: _Optional[_Union[PolicySet, _Mapping]] = ...) -> None: ...

class LimitChange(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: int
    def __init__(self, name: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...

class WhatIfResponse(_message.Message):
    __slots__ = ("agents", "starved", "as_of", "source", "unknown_user", "losses")
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    STARVED_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_USER_FIELD_NUMBER: _ClassVar[int]
    LOSSES_FIELD_NUMBER: _ClassVar[int]
    agents: _containers.RepeatedCompositeFieldContainer[Agent]
    starved: _containers.RepeatedCompositeFieldContainer[Starved]
    as_of: AsOf
    source: Source
    unknown_user: bool
    losses: _containers.RepeatedCompositeFieldContainer[PolicyLoss]
    def __init__(self, agents: _Optional[_Iterable[_Union[Agent, _Mapping]]] = ..., starved: _Optional[_Iterable[_Union[Starved, _Mapping]]] = ..., as_of: _Optional[_Union[AsOf, _Mapping]] = ..., source: _Optional[_Union[Source, _Mapping]] = ..., unknown_user: _Optional[bool] = ..., losses: _Optional[_Iterable[_Union[PolicyLoss, _Mapping]]] = ...) -> None: ...

class PolicyLoss(_message.Message):
    __slots__ = ("agent_id", "action", "audience", "policy", "source")
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    AUDIENCE_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    action: str
    audience: str
    policy: str
    source: Source
    def __init__(self, agent_id: _Optional[str] = ..., action: _Optional[str] = ..., audience: _Optional[str] = ..., policy: _Optional[str] = ..., source: _Optional[_Union[Source, _Mapping]] = ...) -> None: ...

class Starved(_message.Message):
    __slots__ = ("whose", "used", "agents")
    WHOSE_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    whose: str
    used: int
    agents: int
    def __init__(self, whose: _Optional[str] = ..., used: _Optional[int] = ..., agents: _Optional[int] = ...) -> None: ...

class ReplayRequest(_message.Message):
    __slots__ = ("since", "candidate")
    SINCE_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_FIELD_NUMBER: _ClassVar[int]
    since: _timestamp_pb2.Timestamp
    candidate: PolicySet
    def __init__(self, since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., candidate: _Optional[_Union[PolicySet, _Mapping]] = ...) -> None: ...

class ReplayResponse(_message.Message):
    __slots__ = ("decided", "different", "differences", "not_replayed", "configured_otherwise", "revision", "policies_lost", "denied", "tokens")
    DECIDED_FIELD_NUMBER: _ClassVar[int]
    DIFFERENT_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCES_FIELD_NUMBER: _ClassVar[int]
    NOT_REPLAYED_FIELD_NUMBER: _ClassVar[int]
    CONFIGURED_OTHERWISE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    POLICIES_LOST_FIELD_NUMBER: _ClassVar[int]
    DENIED_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    decided: int
    different: int
    differences: _containers.RepeatedCompositeFieldContainer[ReplayDifference]
    not_replayed: int
    configured_otherwise: bool
    revision: int
    policies_lost: int
    denied: int
    tokens: int
    def __init__(self, decided: _Optional[int] = ..., different: _Optional[int] = ..., differences: _Optional[_Iterable[_Union[ReplayDifference, _Mapping]]] = ..., not_replayed: _Optional[int] = ..., configured_otherwise: _Optional[bool] = ..., revision: _Optional[int] = ..., policies_lost: _Optional[int] = ..., denied: _Optional[int] = ..., tokens: _Optional[int] = ...) -> None: ...

class ReplayDifference(_message.Message):
    __slots__ = ("revision", "at", "agent_id", "then", "now", "action")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    CLASS_FIELD_NUMBER: _ClassVar[int]
    THEN_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    revision: int
    at: _timestamp_pb2.Timestamp
    agent_id: str
    then: str
    now: str
    action: str
    def __init__(self, revision: _Optional[int] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., agent_id: _Optional[str] = ..., then: _Optional[str] = ..., now: _Optional[str] = ..., action: _Optional[str] = ..., **kwargs) -> None: ...

class GovernRequest(_message.Message):
    __slots__ = ("since",)
    SINCE_FIELD_NUMBER: _ClassVar[int]
    since: _timestamp_pb2.Timestamp
    def __init__(self, since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class GovernResponse(_message.Message):
    __slots__ = ("unowned", "closed_owners", "unused", "idle_agents", "admissions", "since", "complete", "revision", "reviews", "approvals")
    UNOWNED_FIELD_NUMBER: _ClassVar[int]
    CLOSED_OWNERS_FIELD_NUMBER: _ClassVar[int]
    UNUSED_FIELD_NUMBER: _ClassVar[int]
    IDLE_AGENTS_FIELD_NUMBER: _ClassVar[int]
    ADMISSIONS_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    REVIEWS_FIELD_NUMBER: _ClassVar[int]
    APPROVALS_FIELD_NUMBER: _ClassVar[int]
    unowned: _containers.RepeatedCompositeFieldContainer[Source]
    closed_owners: _containers.RepeatedCompositeFieldContainer[Source]
    unused: _containers.RepeatedCompositeFieldContainer[UnusedCeiling]
    idle_agents: _containers.RepeatedScalarFieldContainer[str]
    admissions: int
    since: _timestamp_pb2.Timestamp
    complete: bool
    revision: int
    reviews: _containers.RepeatedCompositeFieldContainer[DueReview]
    approvals: _containers.RepeatedCompositeFieldContainer[Approval]
    def __init__(self, unowned: _Optional[_Iterable[_Union[Source, _Mapping]]] = ..., closed_owners: _Optional[_Iterable[_Union[Source, _Mapping]]] = ..., unused: _Optional[_Iterable[_Union[UnusedCeiling, _Mapping]]] = ..., idle_agents: _Optional[_Iterable[str]] = ..., admissions: _Optional[int] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., complete: _Optional[bool] = ..., revision: _Optional[int] = ..., reviews: _Optional[_Iterable[_Union[DueReview, _Mapping]]] = ..., approvals: _Optional[_Iterable[_Union[Approval, _Mapping]]] = ...) -> None: ...

class DueReview(_message.Message):
    __slots__ = ("policy", "review", "source")
    POLICY_FIELD_NUMBER: _ClassVar[int]
    REVIEW_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    policy: str
    review: str
    source: Source
    def __init__(self, policy: _Optional[str] = ..., review: _Optional[str] = ..., source: _Optional[_Union[Source, _Mapping]] = ...) -> None: ...

class UnusedCeiling(_message.Message):
    __slots__ = ("scopes", "audiences", "source")
    CLASS_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    AUDIENCES_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    scopes: _containers.RepeatedScalarFieldContainer[str]
    audiences: _containers.RepeatedScalarFieldContainer[str]
    source: Source
    def __init__(self, scopes: _Optional[_Iterable[str]] = ..., audiences: _Optional[_Iterable[str]] = ..., source: _Optional[_Union[Source, _Mapping]] = ..., **kwargs) -> None: ...

class GetBundleRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetBundleResponse(_message.Message):
    __slots__ = ("bundle", "foreign")
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    FOREIGN_FIELD_NUMBER: _ClassVar[int]
    bundle: Bundle
    foreign: _containers.RepeatedCompositeFieldContainer[ForeignBundle]
    def __init__(self, bundle: _Optional[_Union[Bundle, _Mapping]] = ..., foreign: _Optional[_Iterable[_Union[ForeignBundle, _Mapping]]] = ...) -> None: ...

class GetCrlsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetCrlsResponse(_message.Message):
    __slots__ = ("crls", "revision", "expires_at")
    CRLS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    crls: _containers.RepeatedCompositeFieldContainer[Crl]
    revision: int
    expires_at: _timestamp_pb2.Timestamp
    def __init__(self, crls: _Optional[_Iterable[_Union[Crl, _Mapping]]] = ..., revision: _Optional[int] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Crl(_message.Message):
    __slots__ = ("issuer", "der")
    ISSUER_FIELD_NUMBER: _ClassVar[int]
    DER_FIELD_NUMBER: _ClassVar[int]
    issuer: str
    der: bytes
    def __init__(self, issuer: _Optional[str] = ..., der: _Optional[bytes] = ...) -> None: ...

class WatchBundleRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WatchBundleResponse(_message.Message):
    __slots__ = ("bundle", "foreign", "x509_intermediates")
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    FOREIGN_FIELD_NUMBER: _ClassVar[int]
    X509_INTERMEDIATES_FIELD_NUMBER: _ClassVar[int]
    bundle: Bundle
    foreign: _containers.RepeatedCompositeFieldContainer[ForeignBundle]
    x509_intermediates: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, bundle: _Optional[_Union[Bundle, _Mapping]] = ..., foreign: _Optional[_Iterable[_Union[ForeignBundle, _Mapping]]] = ..., x509_intermediates: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Authority(_message.Message):
    __slots__ = ("kind", "id", "status", "expires_at", "prepared_at", "activated_at", "retired_at", "kept_until", "signs_from")
    KIND_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    PREPARED_AT_FIELD_NUMBER: _ClassVar[int]
    ACTIVATED_AT_FIELD_NUMBER: _ClassVar[int]
    RETIRED_AT_FIELD_NUMBER: _ClassVar[int]
    KEPT_UNTIL_FIELD_NUMBER: _ClassVar[int]
    SIGNS_FROM_FIELD_NUMBER: _ClassVar[int]
    kind: AuthorityKind
    id: str
    status: AuthorityStatus
    expires_at: _timestamp_pb2.Timestamp
    prepared_at: _timestamp_pb2.Timestamp
    activated_at: _timestamp_pb2.Timestamp
    retired_at: _timestamp_pb2.Timestamp
    kept_until: _timestamp_pb2.Timestamp
    signs_from: _timestamp_pb2.Timestamp
    def __init__(self, kind: _Optional[_Union[AuthorityKind, str]] = ..., id: _Optional[str] = ..., status: _Optional[_Union[AuthorityStatus, str]] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., prepared_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., activated_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., retired_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., kept_until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., signs_from: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ListAuthoritiesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListAuthoritiesResponse(_message.Message):
    __slots__ = ("authorities", "revision")
    AUTHORITIES_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    authorities: _containers.RepeatedCompositeFieldContainer[Authority]
    revision: int
    def __init__(self, authorities: _Optional[_Iterable[_Union[Authority, _Mapping]]] = ..., revision: _Optional[int] = ...) -> None: ...

class PrepareAuthorityRequest(_message.Message):
    __slots__ = ("kind",)
    KIND_FIELD_NUMBER: _ClassVar[int]
    kind: AuthorityKind
    def __init__(self, kind: _Optional[_Union[AuthorityKind, str]] = ...) -> None: ...

class PrepareAuthorityResponse(_message.Message):
    __slots__ = ("authority", "revision")
    AUTHORITY_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    authority: Authority
    revision: int
    def __init__(self, authority: _Optional[_Union[Authority, _Mapping]] = ..., revision: _Optional[int] = ...) -> None: ...

class ActivateAuthorityRequest(_message.Message):
    __slots__ = ("kind", "now")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    kind: AuthorityKind
    now: bool
    def __init__(self, kind: _Optional[_Union[AuthorityKind, str]] = ..., now: _Optional[bool] = ...) -> None: ...

class ActivateAuthorityResponse(_message.Message):
    __slots__ = ("authority", "revision")
    AUTHORITY_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    authority: Authority
    revision: int
    def __init__(self, authority: _Optional[_Union[Authority, _Mapping]] = ..., revision: _Optional[int] = ...) -> None: ...

class RotateAuthorityRequest(_message.Message):
    __slots__ = ("kind", "now")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    kind: AuthorityKind
    now: bool
    def __init__(self, kind: _Optional[_Union[AuthorityKind, str]] = ..., now: _Optional[bool] = ...) -> None: ...

class RotateAuthorityResponse(_message.Message):
    __slots__ = ("authority", "revision")
    AUTHORITY_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    authority: Authority
    revision: int
    def __init__(self, authority: _Optional[_Union[Authority, _Mapping]] = ..., revision: _Optional[int] = ...) -> None: ...

class RetireAuthorityRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class RetireAuthorityResponse(_message.Message):
    __slots__ = ("authority", "revision")
    AUTHORITY_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    authority: Authority
    revision: int
    def __init__(self, authority: _Optional[_Union[Authority, _Mapping]] = ..., revision: _Optional[int] = ...) -> None: ...

class TaintAuthorityRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class TaintAuthorityResponse(_message.Message):
    __slots__ = ("authority", "revision")
    AUTHORITY_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    authority: Authority
    revision: int
    def __init__(self, authority: _Optional[_Union[Authority, _Mapping]] = ..., revision: _Optional[int] = ...) -> None: ...

class WatchCutsRequest(_message.Message):
    __slots__ = ("incarnation", "after", "subscription", "relays", "chain")
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIPTION_FIELD_NUMBER: _ClassVar[int]
    RELAYS_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    incarnation: bytes
    after: int
    subscription: bytes
    relays: bool
    chain: bytes
    def __init__(self, incarnation: _Optional[bytes] = ..., after: _Optional[int] = ..., subscription: _Optional[bytes] = ..., relays: _Optional[bool] = ..., chain: _Optional[bytes] = ...) -> None: ...

class ConfirmCutsRequest(_message.Message):
    __slots__ = ("subscription", "head")
    SUBSCRIPTION_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    subscription: bytes
    head: int
    def __init__(self, subscription: _Optional[bytes] = ..., head: _Optional[int] = ...) -> None: ...

class ConfirmCutsResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListSubscribersRequest(_message.Message):
    __slots__ = ("confirm",)
    CONFIRM_FIELD_NUMBER: _ClassVar[int]
    confirm: bool
    def __init__(self, confirm: _Optional[bool] = ...) -> None: ...

class ListSubscribersResponse(_message.Message):
    __slots__ = ("subscribers", "head")
    SUBSCRIBERS_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    subscribers: _containers.RepeatedCompositeFieldContainer[Subscriber]
    head: int
    def __init__(self, subscribers: _Optional[_Iterable[_Union[Subscriber, _Mapping]]] = ..., head: _Optional[int] = ...) -> None: ...

class Subscriber(_message.Message):
    __slots__ = ("id", "peer", "since", "sent", "heard", "confirms", "relays")
    ID_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    SENT_FIELD_NUMBER: _ClassVar[int]
    HEARD_FIELD_NUMBER: _ClassVar[int]
    CONFIRMS_FIELD_NUMBER: _ClassVar[int]
    RELAYS_FIELD_NUMBER: _ClassVar[int]
    id: str
    peer: str
    since: _timestamp_pb2.Timestamp
    sent: int
    heard: int
    confirms: bool
    relays: bool
    def __init__(self, id: _Optional[str] = ..., peer: _Optional[str] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., sent: _Optional[int] = ..., heard: _Optional[int] = ..., confirms: _Optional[bool] = ..., relays: _Optional[bool] = ...) -> None: ...

class WatchCutsResponse(_message.Message):
    __slots__ = ("snapshot", "cuts", "heartbeat", "confirm")
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    CUTS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    CONFIRM_FIELD_NUMBER: _ClassVar[int]
    snapshot: bool
    cuts: _containers.RepeatedCompositeFieldContainer[Cut]
    heartbeat: Heartbeat
    confirm: bool
    def __init__(self, snapshot: _Optional[bool] = ..., cuts: _Optional[_Iterable[_Union[Cut, _Mapping]]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., confirm: _Optional[bool] = ...) -> None: ...

class Cut(_message.Message):
    __slots__ = ("subject", "before", "keep_until", "revision")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    KEEP_UNTIL_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    subject: bytes
    before: int
    keep_until: int
    revision: int
    def __init__(self, subject: _Optional[bytes] = ..., before: _Optional[int] = ..., keep_until: _Optional[int] = ..., revision: _Optional[int] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("trust_domain", "incarnation", "head", "as_of", "count", "digest", "signature", "chain")
    TRUST_DOMAIN_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    trust_domain: str
    incarnation: bytes
    head: int
    as_of: int
    count: int
    digest: bytes
    signature: bytes
    chain: bytes
    def __init__(self, trust_domain: _Optional[str] = ..., incarnation: _Optional[bytes] = ..., head: _Optional[int] = ..., as_of: _Optional[int] = ..., count: _Optional[int] = ..., digest: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., chain: _Optional[bytes] = ...) -> None: ...
