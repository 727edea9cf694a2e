"""Spawning: one agent, certified for a key that is made here."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
import uuid
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

from .certificates import new_key, request
from .errors import MayflyError, Unusable
from .issuer import SPAWN, insist
from .keeper import Keeper
from .own import Own, answered, lease_of
from .v1 import mayfly_pb2 as api

if TYPE_CHECKING:
    from .identity import Identity


P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Asked:
    """What a spawn asks for."""

    agent_class: str
    scopes: tuple[str, ...]
    audiences: tuple[str, ...]
    #: Seconds; 0 for as long as allowed.
    lease: float
    max_depth: int | None
    user_token: str | None = field(repr=False)
    delegation: str | None
    autonomous: bool
    clip: bool
    keyless: bool


class Spawn:
    """An agent to be: entered with `with` or `async with`, awaited, or started."""

    def __init__(self, parent: Identity, keeper: Keeper, asked: Asked) -> None:
        # The parent is needed as long as this is: `Workload(…).spawn(…)` has no other reference to it.
        self._parent, self._keeper, self._asked = parent, keeper, asked
        self._child: Identity | None = None

    def start(self) -> Identity:
        """Spawns the agent and returns it; end it with `end()`. Each call spawns another one."""
        asked = self._asked
        key = None if asked.keyless else new_key()
        wanted: dict[str, Any] = {
            "class": asked.agent_class,
            "csr": b"" if key is None else request(key),
            "keyless": asked.keyless,
            "scopes": asked.scopes,
            "audiences": asked.audiences,
            "lease_seconds": max(int(asked.lease), 0),
            "user_token": (asked.user_token or "").strip(),
            "delegation": asked.delegation or "",
            "mode": api.MODE_AUTONOMOUS if asked.autonomous else api.MODE_UNSPECIFIED,
            "excess": api.EXCESS_CLIP if asked.clip else api.EXCESS_DENY,
            # A lost answer is asked for again without spawning a second agent.
            "request_id": str(uuid.uuid4()),
        }
        if asked.max_depth is not None:
            wanted["max_depth"] = asked.max_depth
        message = api.SpawnRequest(**wanted)

        def ask() -> api.SpawnResponse:
            with self._keeper.connected() as connection:
                return connection.call(SPAWN, message)

        got = insist(ask, self._keeper.stopped.wait)
        if key is None:
            return self._without_key(got)
        issuer = self._keeper.issuer
        assert issuer is not None, "who is connected knows where the issuer is"
        return type(self._parent)(Own(issuer, answered(key, got), lease_of(got)), got.clipped)

    def _without_key(self, got: api.SpawnResponse) -> Identity:
        from .keyless import Part, SubAgent

        if not (got.HasField("agent") and got.agent.keyless and got.agent.agent_id):
            raise Unusable("answer", "the issuer knows no agents without keys: check that both ends are of the same release")
        return SubAgent(self._parent, Part(self._keeper, got.agent), tuple(got.clipped))

    def __call__(self, act: Callable[Concatenate[Identity, P], R]) -> Callable[P, R]:
        """As a decorator: each call of the function, also of an `async` one, is an agent of its own. That is its first argument,
        and ends with the call."""
        if inspect.iscoroutinefunction(act):

            @functools.wraps(act)
            async def acts(*args: P.args, **kwargs: P.kwargs) -> Any:
                async with self._again() as child:
                    return await act(child, *args, **kwargs)

            return cast("Callable[P, R]", acts)

        @functools.wraps(act)
        def act_now(*args: P.args, **kwargs: P.kwargs) -> R:
            with self._again() as child:
                return act(child, *args, **kwargs)

        return act_now

    def _again(self) -> Spawn:
        """The same again: each has a child of its own, also at the same time."""
        return Spawn(self._parent, self._keeper, self._asked)

    def __enter__(self) -> Identity:
        self._child = self.start()
        return self._child

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._child is not None:
            self._child.__exit__(kind, error, trace)

    async def __aenter__(self) -> Identity:
        started = asyncio.ensure_future(asyncio.to_thread(self.start))
        try:
            self._child = await asyncio.shield(started)
        except asyncio.CancelledError:
            # The spawn cannot be called back: what it brings is ended.
            started.add_done_callback(_end)
            raise
        return self._child

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._child is not None:
            await self._child.__aexit__(kind, error, trace)

    def __await__(self) -> Generator[Any, None, Identity]:
        return self.__aenter__().__await__()


def _end(started: asyncio.Future[Identity]) -> None:
    if started.cancelled() or started.exception() is not None:
        return
    child = started.result()

    def end() -> None:
        with suppress(MayflyError):
            child.end()
        child.close()

    threading.Thread(target=end, name="mayfly-end", daemon=True).start()
