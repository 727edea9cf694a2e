"""Sub-agents that are no processes: each has an id, scopes, a lease and an end of its own, and no key.

The process presents, and the sub-agent acts: its tokens are minted on its parent's connection and bound to the certificate of that.
It spawns nothing, renews nothing, and is over when it ends, is revoked, or its parent is over.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timezone
from typing import TypeVar

from .binding import Binding, User
from .errors import Denied, Ended, Expired, Revoked
from .identity import Identity
from .issuer import END, Connection
from .keeper import Current, Keeper
from .reasons import EXPIRED, FINAL
from .v1 import mayfly_pb2 as api

__all__ = ["SubAgent"]

T = TypeVar("T")


class Part(Keeper):
    """An agent without a key, on the keeper of its parent."""

    def __init__(self, parent: Keeper, agent: api.Agent) -> None:
        super().__init__()
        self._parent, self.agent = parent, agent
        self.issuer = parent.issuer
        #: The certificate that the cached tokens are bound to.
        self._under: Current | None = None
        self._told = False
        self._change = threading.Lock()

    def current(self) -> Current:
        """The certificate of the parent, which presents. Raises `Revoked` if this agent or its parent has ended."""
        over = self.over()
        if over is not None:
            raise type(over)(over.code, over.hint)
        try:
            current = self._parent.current()
        except Revoked as e:
            self.end_because(e)
            raise
        with self._change:
            # A token that is bound to the certificate before is of no use on a connection with the next one.
            moved = self._under is not None and self._under.credential is not current.credential
            self._under = current
        if moved:
            self.tokens.clear()
        return current

    def mint(self, audience: str, for_agent: str = "") -> tuple[str, float]:
        return self._about_me(lambda: self._parent.mint(audience, self.agent.agent_id))

    def exchange(self, audience: str, scopes: tuple[str, ...], for_agent: str = "") -> tuple[str, float]:
        return self._about_me(lambda: self._parent.exchange(audience, scopes, self.agent.agent_id))

    def connected(self) -> AbstractContextManager[Connection]:
        raise Denied("PARENT_ONLY", "an agent without a key spawns nothing: the identity that spawned it does")

    def asked(self, ask: Callable[[Connection], T]) -> T:
        return self._about_me(lambda: self._parent.asked(ask))

    def on_end(self, callback: Callable[[Revoked], object]) -> None:
        with self._change:
            first, self._told = not self._told, True
        if first:
            self._parent.on_end(self.end_because)
        super().on_end(callback)

    def end(self) -> None:
        if self.over() is None:
            request = api.EndRequest(agent=self.agent.agent_id)
            # Ended for another reason already: the result is the same.
            with contextlib.suppress(Revoked), self._parent.connected() as connection:
                self._about_me(lambda: connection.call(END, request))
        self.end_because(Ended("ended", "this process ended the agent"))
        self.close()

    def end_because(self, why: Revoked) -> None:
        super().end_because(why)
        self._parent.forget(self.end_because)

    def close(self) -> None:
        super().close()
        self._parent.forget(self.end_because)

    def _about_me(self, ask: Callable[[], T]) -> T:
        """A final reason that is not about the caller is about this agent."""
        self.current()
        try:
            answer = ask()
        except Denied as e:
            # Other final reasons are about keys and authorities: then another call may go well.
            if e.code not in FINAL or not e.code.startswith("AGENT_"):
                raise
            self.end_because((Expired if e.code in EXPIRED else Revoked)(e.code, e.hint))
            self.current()
            raise
        # If it ended in the meantime, the answer must not be handed out.
        self.current()
        return answer


class SubAgent(Identity):
    """An agent without a key of its own. In TLS its parent presents: `ssl_context` has the parent's certificate."""

    _keeper: Part

    def __init__(self, parent: Identity, keeper: Part, clipped: tuple[str, ...] = ()) -> None:
        super().__init__(keeper, clipped)
        # The parent's threads stop when nobody refers to it.
        self._parent = parent

    @property
    def id(self) -> str:
        """The SPIFFE ID of this agent."""
        self._keeper.current()
        return self._keeper.agent.agent_id

    @property
    def binding(self) -> Binding | None:
        """`None`: no certificate says it. Each token does."""
        return None

    @property
    def user(self) -> User | None:
        user = self._keeper.agent.user
        return User(iss=user.iss, sub=user.sub) if self._keeper.agent.HasField("user") else None

    @property
    def scopes(self) -> tuple[str, ...]:
        return tuple(self._keeper.agent.scopes)

    @property
    def chain(self) -> tuple[str, ...]:
        return (self._parent.id, *self._parent.chain)

    @property
    def lease_expires_at(self) -> datetime:
        """When the agent ends at the latest, in UTC."""
        return datetime.fromtimestamp(self._keeper.agent.lease_expires_at.seconds, timezone.utc)
