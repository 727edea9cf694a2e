"""What keeps an identity alive: the state that its threads change and its users read."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from .certificates import Credential
from .errors import Expired, Forked, NoIdentity, Revoked, Unavailable
from .issuer import Connection, Issuer
from .pace import LOOK
from .tokens import Tokens

T = TypeVar("T")

log = logging.getLogger("mayfly")


@dataclass(frozen=True)
class Current:
    """One certificate with its key, and the bundles at that time."""

    credential: Credential
    #: DER roots of our trust domain.
    roots: tuple[bytes, ...]
    #: DER roots by foreign trust domain. Each proves peers of that trust domain and nobody else.
    foreign: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict)
    #: Sequence of our bundle; a lower one never replaces it.
    sequence: int = 0


class Keeper:
    """An identity and its threads. All threads are daemons: none keeps the process alive."""

    #: Where the issuer is, if that is known.
    issuer: Issuer | None = None

    def __init__(self) -> None:
        self._pid = os.getpid()
        #: Guards what is below, for a look or a change; no call is made under it.
        self._lock = threading.RLock()
        self._current: Current | None = None
        self._over: Revoked | None = None
        self._callbacks: list[Callable[[Revoked], object]] = []
        #: Set when the identity has ended, or when nobody needs it any more.
        self.stopped = threading.Event()
        self.tokens = Tokens()

    def current(self) -> Current:
        """The newest certificate. Raises `Revoked` if the identity has ended, and `Forked` in a forked process."""
        if os.getpid() != self._pid:
            raise Forked(
                "forked", "the identity was opened before this process was forked: open it after the fork, and none before it"
            )
        with self._lock:
            if self._over is not None:
                # A new one each time: a raised error keeps its traceback.
                raise type(self._over)(self._over.code, self._over.hint)
            if self._current is None:
                raise Unavailable("no_identity_yet", "no identity has arrived yet")
            current = self._current
        if current.credential.leaf.expires_at <= time.time():
            self.end_because(Expired("expired", "it could not be renewed in time: check that the issuer runs"))
            return self.current()
        return current

    def over(self) -> Revoked | None:
        """Why the identity has ended; `None` while it has not."""
        with self._lock:
            return self._over

    def end_because(self, why: Revoked) -> None:
        """Ends the identity. Only the first reason counts."""
        with self._lock:
            if self._over is not None:
                return
            self._over = why
            callbacks, self._callbacks = self._callbacks, []
        self.tokens.clear()
        self.stopped.set()
        for callback in callbacks:
            _run(callback, why)

    def on_end(self, callback: Callable[[Revoked], object]) -> None:
        """Calls back once when the identity ends, from another thread; at once if it has ended."""
        with self._lock:
            over = self._over
            if over is None:
                self._callbacks.append(callback)
        if over is not None:
            _run(callback, over)

    def wait_until(self, at: float) -> bool:
        """Waits until a time of day, in unix seconds. Returns whether the identity was stopped in the meantime."""
        while (left := at - time.time()) > 0:
            if self.stopped.wait(min(left, LOOK)):
                return True
        return self.stopped.is_set()

    def start(self, *targets: Callable[[], None]) -> None:
        """Runs each in a thread of its own."""
        for target in targets:
            threading.Thread(target=target, name=f"mayfly-{target.__name__}", daemon=True).start()

    def forget(self, callback: Callable[[Revoked], object]) -> None:
        """Takes back what `on_end` was given."""
        with self._lock:
            self._callbacks = [known for known in self._callbacks if known != callback]

    def mint(self, audience: str, for_agent: str = "") -> tuple[str, float]:
        """Mints a token; `for_agent` is a sub-agent without a key. Returns it with its expiry in unix seconds."""
        raise NotImplementedError

    def exchange(self, audience: str, scopes: tuple[str, ...], for_agent: str = "") -> tuple[str, float]:
        """Obtains an access token; without scopes for all that may be given. Returns it with its expiry in unix seconds."""
        raise NotImplementedError

    def connected(self) -> AbstractContextManager[Connection]:
        """A connection to the issuer as this identity, for spawning."""
        raise no_issuer()

    def asked(self, ask: Callable[[Connection], T]) -> T:
        """Makes one call to the issuer that is about this identity."""
        with self.connected() as connection:
            return ask(connection)

    def end(self) -> None:
        """Ends the identity at the issuer."""
        raise NotImplementedError

    def close(self) -> None:
        """Stops the threads. The identity itself goes on until its certificate expires."""
        self.stopped.set()


def no_issuer() -> NoIdentity:
    """The error for what only the issuer can do."""
    return NoIdentity("no_issuer", "it is not known where the issuer is: set MAYFLY_SERVER=host:port, or give server='host:port'")


def _run(callback: Callable[[Revoked], Any], why: Revoked) -> None:
    try:
        callback(why)
    except Exception:
        log.exception("a callback for the end of an identity failed")
