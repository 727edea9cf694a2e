"""What goes wrong, and what to do. Each error has a stable `code`, and says whether the same call may succeed later."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

__all__ = ["Denied", "Ended", "Exhausted", "Expired", "Forked", "MayflyError", "NoIdentity", "Revoked", "Unavailable", "Unusable"]


class MayflyError(Exception):
    """The base of all errors of this package."""

    #: Stable label for programs and logs, such as `EXCEEDS_AUTHORITY` or `unavailable`.
    code: str
    #: What happened and what to do, for people.
    hint: str
    #: Whether the same call may succeed later although nobody does anything else.
    transient = False
    #: Seconds after which to ask again, where the issuer says so.
    retry_after: float | None = None

    def __init__(self, code: str, hint: str, retry_after: float | None = None) -> None:
        super().__init__(f"{code}: {hint}")
        self.code, self.hint, self.retry_after = code, hint, retry_after

    def __reduce__(self) -> tuple[type[MayflyError], tuple[Any, ...]]:
        # Task queues and process pools pickle errors.
        return type(self), (self.code, self.hint, self.retry_after)


class Denied(MayflyError):
    """The issuer denied this one call; the identity stays as it is.

    `code` is one of the reason codes (or the name of the gRPC status if there is none), `hint` says what was wrong and what to do.
    A limit that is reached has a `retry_after` in seconds and is `transient`.
    """

    def __init__(self, code: str, hint: str, retry_after: float | None = None) -> None:
        super().__init__(code, hint, retry_after)
        self.transient = retry_after is not None


class Exhausted(Denied):
    """A budget has less left than was asked for, and nothing was spent."""

    def __init__(self, code: str, hint: str, said: Mapping[str, str] | None = None) -> None:
        super().__init__(code, hint)
        self._said = dict(said or {})

    @property
    def unit(self) -> str:
        """`ops`, `tokens` or `usd`."""
        return self._said.get("limit", "").removeprefix("budget.")

    @property
    def agent(self) -> str:
        """Whose budget it is: the agent itself, or one above it. Empty for a reservation."""
        return self._said.get("agent", "")

    @property
    def agent_class(self) -> str:
        """The class that sets it. Empty for a reservation."""
        return self._said.get("class", "")

    @property
    def owner(self) -> str:
        """Whoever owns that class: ask them for more. Empty for a reservation."""
        return self._said.get("owner", "")

    @property
    def left(self) -> int | Decimal:
        """What is left of it; dollars are `Decimal`."""
        left = self._said.get("left", "")
        counted = int(left) if left.isdecimal() else 0
        return Decimal(counted) / 1_000_000 if self.unit == "usd" else counted

    def __reduce__(self) -> tuple[type[MayflyError], tuple[Any, ...]]:
        return type(self), (self.code, self.hint, self._said)


class Unavailable(MayflyError):
    """The issuer, the Workload API or the guard cannot be reached, is overloaded or has failed. Ask again."""

    transient = True


class Revoked(MayflyError):
    """The identity has ended for good: it was revoked, replaced, ended or it expired. Stop working, or obtain a new identity."""


class Expired(Revoked):
    """The last certificate expired: the lease has ended, or the certificate was not renewed in time."""


class Ended(Revoked):
    """This process ended the identity."""


class NoIdentity(MayflyError, LookupError):
    """This process has no identity: it was not started by `mayfly run`, and no ticket or folder was given."""


class Unusable(MayflyError, ValueError):
    """A ticket, folder, address or answer that was given cannot be used. It never becomes usable by itself."""


class Forked(MayflyError):
    """An identity was opened before this process was forked. Two processes must not renew one, and gRPC works in no process that
    was forked after it was used: open it after the fork alone."""
