"""The identity of this program: who it is, its tokens, its TLS settings, and the agents that it spawns."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from types import TracebackType
from typing import Any

from . import budget
from .auth import auth
from .binding import Binding, User
from .budget import Amount, BudgetLine, Reservation
from .certificates import split_id
from .errors import Denied, MayflyError, Revoked, Unavailable, Unusable
from .keeper import Keeper, log
from .spawn import Asked, Spawn
from .tls import Context, Peer
from .tokens import Key, key_of

__all__ = ["Identity"]


class Identity:
    """An agent or a workload that renews itself in the background. Threads and tasks may share it.

    After it has ended, whatever would use it raises `Revoked`. In a forked process it raises `Forked`. Its threads stop when it is
    closed or no longer referenced; used as a context manager, it is ended when the block is left.
    """

    def __init__(self, keeper: Keeper, clipped: Sequence[str] = ()) -> None:
        self._keeper = keeper
        #: What was asked for and not given, only after `spawn(…, clip=True)`.
        self.clipped = tuple(clipped)
        #: One minting at a time for each audience and scope; the guard is for the dictionary alone.
        self._minting: dict[Key, threading.Lock] = {}
        self._guard = threading.Lock()
        self._finalizer = weakref.finalize(self, keeper.close)
        # At the end of the process, daemons go by themselves.
        self._finalizer.atexit = False

    # Who it is.

    @property
    def id(self) -> str:
        """The SPIFFE ID."""
        return self._keeper.current().credential.leaf.spiffe_id

    @property
    def trust_domain(self) -> str:
        """The trust domain of the SPIFFE ID."""
        return split_id(self.id)[0]

    @property
    def is_agent(self) -> bool:
        """Whether it is an agent, or else a workload."""
        return "/agent/" in self.id

    @property
    def agent_class(self) -> str | None:
        """The class of an agent; `None` for a workload."""
        return split_id(self.id)[1].split("/")[2] if self.is_agent else None

    @property
    def binding(self) -> Binding | None:
        """What the certificate of an agent says beyond its ID; `None` for a workload. Raises `Unusable` if it cannot be read."""
        credential = self._keeper.current().credential
        if credential.binding is None and "/agent/" in credential.leaf.spiffe_id:
            raise Unusable("binding", "the certificate's binding cannot be read: set MAYFLY_BINDING_OID as the issuer has it")
        return credential.binding

    @property
    def user(self) -> User | None:
        """The user it acts for; `None` for a workload and for an autonomous agent."""
        return self.binding.user if self.binding else None

    @property
    def scopes(self) -> tuple[str, ...]:
        """What the agent may do."""
        return self.binding.scopes if self.binding else ()

    @property
    def chain(self) -> tuple[str, ...]:
        """SPIFFE IDs from the parent up to the root workload."""
        return self.binding.chain if self.binding else ()

    @property
    def expires_at(self) -> datetime:
        """When the certificate expires, in UTC. It is renewed before."""
        return _time(self._keeper.current().credential.leaf.expires_at)

    @property
    def lease_expires_at(self) -> datetime | None:
        """When the agent ends at the latest, in UTC; `None` for a workload."""
        return _time(self.binding.lease_expires_at) if self.binding else None

    # Whether it still holds.

    @property
    def ended(self) -> Revoked | None:
        """Why it has ended; `None` while it has not."""
        try:
            self._keeper.current()
        except Revoked as e:
            return e
        except MayflyError:
            pass
        return self._keeper.over()

    def on_end(self, callback: Callable[[Revoked], object]) -> None:
        """Calls back once when the identity ends, from another thread; at once if it has ended."""
        self._keeper.on_end(callback)

    async def wait_ended(self) -> Revoked:
        """Waits until it has ended, and returns the reason: race it against the work to be done."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        reasons: list[Revoked] = []

        def told(why: Revoked) -> None:
            reasons.append(why)
            if not loop.is_closed():
                loop.call_soon_threadsafe(ended.set)

        self.on_end(told)
        await ended.wait()
        return reasons[0]

    # What it is good for.

    def token(self, audience: str, scope: str | Iterable[str] | None = None) -> str:
        """A token for one audience, to be sent as `Authorization: Bearer`. Ask for it before each request.

        Without `scope` it is a JWT-SVID, and says all that the agent may do. With `scope` (`"mail:send mail:read"`, or a list) it
        is an access token of the issuer for that and no more; `""` asks for all that may be given.
        It is cached for half of its life; if no new one can be had then, the cached one is returned until shortly before it
        expires. Raises `Denied` (an audience or a scope that the agent may not have), `Unavailable`, `Revoked`.
        """
        key = key_of(audience, scope)
        fresh = self._fresh(key)
        if fresh is not None:
            return fresh
        with self._guard:
            if len(self._minting) > 1000:
                self._minting.clear()
            lock = self._minting.setdefault(key, threading.Lock())
        with lock:
            fresh = self._fresh(key)
            if fresh is not None:
                return fresh
            try:
                text, expires_at = self._keeper.mint(audience) if key[1] is None else self._keeper.exchange(audience, key[1])
            except (Unavailable, Denied) as e:
                held = self._keeper.tokens.holding(key) if e.transient else None
                if held is None:
                    raise
                self._keeper.current()
                return held
            self._keeper.tokens.put(key, text, expires_at)
            return text

    async def atoken(self, audience: str, scope: str | Iterable[str] | None = None) -> str:
        """The same in asyncio. A cached token is returned at once, another is obtained in a thread."""
        _, scopes = key_of(audience, scope)
        fresh = self.cached(audience, scopes)
        return fresh if fresh is not None else await asyncio.to_thread(self.token, audience, scopes)

    def cached(self, audience: str, scope: str | Iterable[str] | None = None) -> str | None:
        """The cached token, if at least half of its life is left. Raises `Revoked`."""
        return self._fresh(key_of(audience, scope))

    def _fresh(self, key: Key) -> str | None:
        self._keeper.current()
        return self._keeper.tokens.fresh(key)

    async def assertion(self, audience: str = "", *_: Any, **__: Any) -> str:
        """`async (audience) -> str`: goes into everything that takes a callback for client assertions. Each is a new JWT-SVID,
        because an authorization server accepts an assertion once."""
        text, _expires_at = await asyncio.to_thread(self._keeper.mint, audience)
        return text

    def auth(self, audience: str, scope: str | Iterable[str] | None = None) -> Any:
        """Puts a token on each request, for httpx, httpx2, requests, aiohttp (`middlewares`) and gRPC (call credentials)."""
        return auth(self, audience, key_of(audience, scope)[1])

    def ssl_context(self, peer: Peer, *, server: bool = False) -> Context:
        """TLS settings with this identity, which follow every renewal.

        `peer` says who the other end must be: a SPIFFE ID; every ID below one that ends with `/`; `spiffe://trust-domain` for
        everybody there; or a function of the ID, for peers of our own trust domain. Host names are not compared.
        A server asks each client for its certificate. Whether a peer was revoked is a question for the guard.
        Raises `Unusable` if the peer is no such rule, or if there is no bundle of its trust domain.
        """
        return Context(self._keeper.current, peer, server=server)

    def spawn(
        self,
        agent_class: str,
        *,
        scopes: Sequence[str] = (),
        audiences: Sequence[str] = (),
        lease: float | timedelta = 0,
        max_depth: int | None = None,
        user_token: str | None = None,
        delegation: str | None = None,
        autonomous: bool = False,
        clip: bool = False,
        keyless: bool = False,
    ) -> Spawn:
        """Spawns an agent below this identity: `with me.spawn("worker") as child:`, or `async with`; `.start()` without a block.

        `scopes`, `audiences`: all that is allowed, if left out. `lease`: seconds, 0 for as long as allowed. `user_token` (or
        `delegation`): for whom a workload's agent acts; an agent's child acts for the agent's own user. `clip`: accept less than
        was asked for. `keyless`: a `SubAgent` of this process, without a key: its tokens are bound to this identity's certificate,
        and it spawns nothing. Nothing is sent before the block is entered; then it raises `Denied`, `Unavailable` or `Revoked`.

        As a decorator, each call of a function is an agent, which is the function's first argument.
        """
        if isinstance(scopes, str) or isinstance(audiences, str):
            raise TypeError("scopes and audiences are lists of strings")
        seconds = lease.total_seconds() if isinstance(lease, timedelta) else lease
        asked = Asked(
            agent_class, tuple(scopes), tuple(audiences), seconds, max_depth, user_token, delegation, autonomous, clip, keyless
        )
        return Spawn(self, self._keeper, asked)

    # What it may spend.

    def spend(self, unit: str, amount: Amount) -> int | Decimal | None:
        """Spends `ops`, `tokens` or `usd` from the agent's budget and from that of each agent above it.

        Returns the least that any of them has left, and `None` if none is limited. Dollars are text or `Decimal` and are never
        rounded. A lost answer is asked for again without spending twice. Raises `Exhausted` if one of them has less left: then
        nothing was spent.
        """
        return budget.spend(self._keeper, self.id, unit, amount)

    def reserve(self, unit: str, amount: Amount, life: float | timedelta = 0) -> Reservation:
        """Holds a part of the same budgets for what may be spent in `life` (seconds; 0 for ten minutes, an hour at most):
        `with me.reserve("usd", "0.25") as held: held.spend("0.19")`. What is not spent comes back. Raises as `spend` does."""
        seconds = life.total_seconds() if isinstance(life, timedelta) else life
        return budget.reserve(self._keeper, self.id, unit, amount, seconds)

    def budget(self) -> tuple[BudgetLine, ...]:
        """What may be spent: for each unit the agent's own account, then those above it, the parent first."""
        return budget.look(self._keeper, self.id)

    # How it stops.

    def end(self) -> None:
        """Ends the agent at the issuer, with everything below it; a workload is closed. Raises `Unavailable`."""
        self._keeper.end()

    async def aend(self) -> None:
        """The same in asyncio."""
        await asyncio.to_thread(self.end)

    def close(self) -> None:
        """Stops following and renewing; the agent itself goes on until its certificate expires."""
        self._finalizer()

    def __enter__(self) -> Identity:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.end()
        except MayflyError as e:
            # It would hide what happened in the block; the agent ends with its certificate.
            log.warning("an agent could not be ended: %s", e)
        finally:
            self.close()

    async def __aenter__(self) -> Identity:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # The end is not given up when the task is cancelled.
        await asyncio.shield(asyncio.to_thread(self.__exit__, kind, error, trace))

    def __repr__(self) -> str:
        try:
            return f"<mayfly.Identity {self.id}>"
        except MayflyError as e:
            return f"<mayfly.Identity {e.code}>"

    def __reduce__(self) -> Any:
        raise TypeError("an identity is not pickled: its key stays in this process. Give the other process a ticket")


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)
