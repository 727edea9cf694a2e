"""Spawning: one agent, certified for a key that is made here."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .certificates import new_key, request
from .errors import MayflyError
from .issuer import SPAWN, insist
from .keeper import Keeper
from .own import Own, answered, lease_of
from .v1 import mayfly_pb2 as api

if TYPE_CHECKING:
    from .identity import Identity


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


class Spawn:
    """An agent to be: entered with `with` or `async with`, awaited, or started."""

    def __init__(self, parent: Identity, keeper: Keeper, asked: Asked) -> None:
        # The parent is needed as long as this is: `Workload(…).spawn(…)` has no other reference to it.
        self._parent, self._keeper, self._asked = parent, keeper, asked
        self._child: Identity | None = None

    def start(self) -> Identity:
        """Spawns the agent and returns it; end it with `end()`. Each call spawns another one."""
        key, asked = new_key(), self._asked
        wanted: dict[str, Any] = {
            "class": asked.agent_class,
            "csr": request(key),
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
        issuer = self._keeper.issuer
        assert issuer is not None, "who is connected knows where the issuer is"
        return type(self._parent)(Own(issuer, answered(key, got), lease_of(got)), got.clipped)

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
