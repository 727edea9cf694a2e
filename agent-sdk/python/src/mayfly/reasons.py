"""Which reason codes end an identity, as the table of reasons says (a test compares them)."""

from __future__ import annotations

#: Refused as UNAUTHENTICATED with one of these, the caller's certificate is refused for good.
FINAL = frozenset(
    {
        "AGENT_ENDED",
        "AGENT_EXPIRED",
        "AGENT_ORPHANED",
        "AGENT_REVOKED",
        "AGENT_UNKNOWN",
        "AUTHORITY_TAINTED",
        "CREDENTIAL_EXPIRED",
        "CREDENTIAL_REUSED",
        "CREDENTIAL_REVOKED",
        "GENERATION_REPLACED",
        "KEY_REVOKED",
        "WORKLOAD_UNKNOWN",
    }
)
#: Those of them that mean that time has run out.
EXPIRED = frozenset({"AGENT_EXPIRED", "CREDENTIAL_EXPIRED"})
#: A call on a connection from before the last renewal: the next one, on the new connection, is answered.
PAST = "GENERATION_PAST"
