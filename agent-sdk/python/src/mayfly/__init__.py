"""The identity of an AI agent: certificates that rotate, tokens, sub-agents, and verification.

    import mayfly

    me = mayfly.current()                              # under `mayfly run`; or from a ticket or a folder
    token = me.token("https://search.example")         # a JWT-SVID, cached until half of its life
    with me.spawn("worker", scopes=["search:read"]) as child:
        print(child.id, child.user)

Everything that can be refused raises a `MayflyError` with a stable `code` and a `hint`.
"""

from __future__ import annotations

from .binding import Binding, User
from .budget import Amount, BudgetLine, Reservation
from .current import Workload, current
from .errors import Denied, Ended, Exhausted, Expired, Forked, MayflyError, NoIdentity, Revoked, Unavailable, Unusable
from .identity import Identity
from .keyless import SubAgent
from .tls import Context, Peer
from .verify.starlette import requires

__version__ = "0.1.0"

__all__ = [
    "Amount",
    "Binding",
    "BudgetLine",
    "Context",
    "Denied",
    "Ended",
    "Exhausted",
    "Expired",
    "Forked",
    "Identity",
    "MayflyError",
    "NoIdentity",
    "Peer",
    "Reservation",
    "Revoked",
    "SubAgent",
    "Unavailable",
    "Unusable",
    "User",
    "Workload",
    "current",
    "requires",
]
