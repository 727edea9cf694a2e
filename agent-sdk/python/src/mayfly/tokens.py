"""A cache of the tokens of one identity, one for each audience and scope."""

from __future__ import annotations

import base64
import binascii
import json
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Union

#: Most cached tokens. When it is full, the token that expires first is removed.
MOST = 64
#: Seconds: a token that expires within this time is not returned, because the receiver's clock may be ahead.
LAST = 5.0

#: What a token is for: an audience, and the scopes of an access token; `None` for a JWT-SVID.
Key = tuple[str, Union[tuple[str, ...], None]]


def key_of(audience: str, scope: str | Iterable[str] | None) -> Key:
    """What is asked for, in one spelling. Scopes are a string with spaces, as OAuth has it, or a list."""
    if scope is None:
        return audience, None
    return audience, tuple(sorted(set(scope.split() if isinstance(scope, str) else scope)))


def claims_of(token: str) -> dict[str, Any]:
    """What a token of ours says; nothing if it cannot be read. Its signature is for those who receive it."""
    try:
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, IndexError, binascii.Error):
        return {}
    return claims if isinstance(claims, dict) else {}


@dataclass(frozen=True)
class Token:
    """A JWT-SVID or an access token."""

    text: str = field(repr=False)
    #: Unix seconds.
    expires_at: float
    #: Unix seconds. From then on a new one is minted.
    half: float


class Tokens:
    """Gives the token for a key until half of its life, and in need until its end. Several threads may use it."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._tokens: dict[Key, Token] = {}
        #: Guards `_tokens`, for a look-up or a change; never while a token is minted.
        self._lock = threading.Lock()

    def fresh(self, key: Key) -> str | None:
        """A token with at least half of its life left."""
        return self._get(key, lambda token, now: now < token.half)

    def holding(self, key: Key) -> str | None:
        """A token that is still valid, for when no new one can be minted."""
        return self._get(key, lambda token, now: now + LAST < token.expires_at)

    def put(self, key: Key, text: str, expires_at: float) -> None:
        """Keeps a token that was minted just now."""
        now = self._now()
        with self._lock:
            kept = {of: token for of, token in self._tokens.items() if of != key and now < token.expires_at}
            claims = claims_of(text)
            # A token that is accepted once would be refused if it was given out again: one that is for a single use, and a JWT-SVID
            # for the issuer itself.
            if claims.get("single_use", False) is False and key != (claims.get("iss"), None):
                if len(kept) >= MOST:
                    del kept[min(kept, key=lambda of: kept[of].expires_at)]
                kept[key] = Token(text, expires_at, now + max(expires_at - now, 0) / 2)
            self._tokens = kept

    def forget_access(self) -> None:
        """Forgets access tokens: one that is bound to a certificate is of no use with its successor."""
        with self._lock:
            self._tokens = {of: token for of, token in self._tokens.items() if of[1] is None}

    def clear(self) -> None:
        """Forgets all of them."""
        with self._lock:
            self._tokens = {}

    def _get(self, key: Key, good: Callable[[Token, float], bool]) -> str | None:
        with self._lock:
            token = self._tokens.get(key)
        return token.text if token and good(token, self._now()) else None
