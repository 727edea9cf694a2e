"""A cache of the tokens of one identity, one for each audience."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

#: Most cached tokens. When it is full, the token that expires first is removed.
MOST = 64
#: Seconds: a token that expires within this time is not returned, because the receiver's clock may be ahead.
LAST = 5.0


@dataclass(frozen=True)
class Token:
    """A JWT-SVID."""

    text: str = field(repr=False)
    #: Unix seconds.
    expires_at: float
    #: Unix seconds. From then on a new one is minted.
    half: float


class Tokens:
    """Gives the token of an audience until half of its life, and in need until its end. Several threads may use it."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._tokens: dict[str, Token] = {}
        #: Guards `_tokens`, for a look-up or a change; never while a token is minted.
        self._lock = threading.Lock()

    def fresh(self, audience: str) -> str | None:
        """A token with at least half of its life left."""
        return self._get(audience, lambda token, now: now < token.half)

    def holding(self, audience: str) -> str | None:
        """A token that is still valid, for when no new one can be minted."""
        return self._get(audience, lambda token, now: now + LAST < token.expires_at)

    def put(self, audience: str, text: str, expires_at: float) -> None:
        """Keeps a token that was minted just now."""
        now = self._now()
        with self._lock:
            kept = {key: token for key, token in self._tokens.items() if key != audience and now < token.expires_at}
            if len(kept) >= MOST:
                del kept[min(kept, key=lambda key: kept[key].expires_at)]
            kept[audience] = Token(text, expires_at, now + max(expires_at - now, 0) / 2)
            self._tokens = kept

    def clear(self) -> None:
        """Forgets all of them."""
        with self._lock:
            self._tokens = {}

    def _get(self, audience: str, good: Callable[[Token, float], bool]) -> str | None:
        with self._lock:
            token = self._tokens.get(audience)
        return token.text if token and good(token, self._now()) else None
