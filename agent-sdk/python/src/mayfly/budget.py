"""The budget of an agent: spending, reserving and looking, in the agent's own name."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal, InvalidOperation
from typing import TypeVar, Union

from google.protobuf.message import Message

from .errors import MayflyError
from .issuer import BUDGET, RELEASE, RESERVE, SPEND, Connection, insist
from .keeper import Keeper
from .v1 import mayfly_pb2 as api

__all__ = ["Amount", "BudgetLine", "Reservation"]

#: How much: whole operations and tokens; dollars as text, `Decimal` or `int`, with at most six digits behind the point.
Amount = Union[int, str, Decimal]

A = TypeVar("A", bound=Message)

_UNITS = {"ops": api.BUDGET_UNIT_OPS, "tokens": api.BUDGET_UNIT_TOKENS, "usd": api.BUDGET_UNIT_MICRO_USD}
_MICRO = 1_000_000


@dataclass(frozen=True)
class BudgetLine:
    """What one agent of the line may spend of one unit, with everything below it. Dollars are `Decimal`."""

    #: Whose account it is: the agent itself, or one above it.
    agent: str
    #: `ops`, `tokens` or `usd`.
    unit: str
    #: `None`: it is counted and not limited.
    limit: int | Decimal | None
    spent: int | Decimal
    reserved: int | Decimal
    left: int | Decimal | None
    #: The class that sets the limit, and who owns it.
    agent_class: str
    owner: str


class Reservation:
    """A part of the budgets that is held for this agent. Used as a context manager, what is not spent comes back at its end."""

    def __init__(self, keeper: Keeper, agent: str, unit: str, got: api.ReserveResponse) -> None:
        self._keeper, self._agent, self.unit = keeper, agent, unit
        self.id: int = got.reservation
        #: When it comes back by itself, in UTC.
        self.expires_at = datetime.fromtimestamp(got.expires_at.seconds, timezone.utc)

    def spend(self, amount: Amount) -> int | Decimal:
        """Spends from what is held. Returns what is left of it. Raises `Exhausted` if that is less than `amount`."""
        got = _spend(self._keeper, self._agent, self.unit, amount, self.id)
        return shown(self.unit, got.reservation_left)

    def release(self) -> None:
        """Gives back what was not spent."""
        _ask(self._keeper, lambda connection: connection.call(RELEASE, api.ReleaseRequest(reservation=self.id)))

    def __enter__(self) -> Reservation:
        return self

    def __exit__(self, *_: object) -> None:
        # Spent whole, or the agent has ended: nothing is held any more. Otherwise its time passes.
        with contextlib.suppress(MayflyError):
            self.release()


def spend(keeper: Keeper, agent: str, unit: str, amount: Amount) -> int | Decimal | None:
    """Spends as an agent; the answer is the least that is left, or `None` without a limit."""
    got = _spend(keeper, agent, unit, amount, 0)
    return shown(unit, got.left) if got.HasField("left") else None


def reserve(keeper: Keeper, agent: str, unit: str, amount: Amount, life: float) -> Reservation:
    """Holds a part for an agent."""
    request = api.ReserveRequest(
        agent=agent,
        unit=_unit(unit),
        amount=_counted(unit, amount),
        life_seconds=max(int(life), 1) if life else 0,
        request_id=uuid.uuid4().hex,
    )
    return Reservation(keeper, agent, unit, _ask(keeper, lambda connection: connection.call(RESERVE, request)))


def look(keeper: Keeper, agent: str) -> tuple[BudgetLine, ...]:
    """The agent's own accounts, then those above it."""
    got = _ask(keeper, lambda connection: connection.call(BUDGET, api.GetBudgetRequest(agent=agent)))
    names = {number: name for name, number in _UNITS.items()}
    lines = []
    for line in got.lines:
        unit = names.get(line.unit)
        if unit is None:
            continue  # A unit of a later version.
        lines.append(
            BudgetLine(
                agent=line.agent_id,
                unit=unit,
                limit=shown(unit, line.limit) if line.HasField("limit") else None,
                spent=shown(unit, line.spent),
                reserved=shown(unit, line.reserved),
                left=shown(unit, line.left) if line.HasField("left") else None,
                agent_class=getattr(line, "class"),
                owner=line.owner,
            )
        )
    return tuple(lines)


def shown(unit: str, counted: int) -> int | Decimal:
    """An amount as the issuer counts it, in its unit: dollars are counted in millionths."""
    return Decimal(counted) / _MICRO if unit == "usd" else counted


def _spend(keeper: Keeper, agent: str, unit: str, amount: Amount, reservation: int) -> api.SpendResponse:
    # A lost answer is asked for again without spending twice.
    request = api.SpendRequest(
        agent=agent, unit=_unit(unit), amount=_counted(unit, amount), reservation=reservation, request_id=uuid.uuid4().hex
    )
    return _ask(keeper, lambda connection: connection.call(SPEND, request))


def _ask(keeper: Keeper, ask: Callable[[Connection], A]) -> A:
    return insist(lambda: keeper.asked(ask), keeper.stopped.wait)


def _unit(unit: str) -> api.BudgetUnit:
    if unit not in _UNITS:
        raise ValueError(f"`{unit}` is no unit of a budget: write one of {', '.join(_UNITS)}")
    return _UNITS[unit]


def _counted(unit: str, amount: Amount) -> int:
    """The amount as the issuer counts it. Nothing is rounded."""
    if isinstance(amount, (bool, float)):
        raise TypeError("give an amount as int, str or Decimal: a float is not exact")
    try:
        counted = Decimal(amount) * (_MICRO if unit == "usd" else 1)
    except (InvalidOperation, TypeError):
        raise ValueError(f"`{amount}` is no amount") from None
    if not counted.is_finite() or counted != counted.to_integral_value() or not 1 <= counted <= 1 << 53:
        digits = "dollars with at most six digits behind the point" if unit == "usd" else "a whole number"
        raise ValueError(f"`{amount}` is no amount of {unit}: give {digits}, more than 0")
    return int(counted)
