"""Budgets: an agent spends in its own name, never more than is left, and hears whose budget it was."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest

import mayfly
from mayfly.testing import Dev


def left_of(me: mayfly.Identity, unit: str) -> object:
    return next(line.left for line in me.budget() if line.unit == unit and line.agent == me.id)


def test_what_is_spent_is_taken_from_the_agent_and_from_those_above_it(dev: Dev) -> None:
    with dev.spawn("researcher") as me, me.spawn("worker") as child:
        before = left_of(me, "tokens")
        assert isinstance(before, int)
        assert child.spend("tokens", 500) == left_of(child, "tokens")
        assert left_of(me, "tokens") == before - 500
        lines = [line for line in child.budget() if line.unit == "tokens"]
        assert [line.agent for line in lines] == [child.id, me.id] and [line.spent for line in lines] == [500, 500]
        assert all(line.owner and line.agent_class for line in lines)


def test_dollars_are_exact_and_what_is_no_amount_is_not_sent(dev: Dev) -> None:
    with dev.spawn("researcher") as me:
        before = left_of(me, "usd")
        assert isinstance(before, Decimal)
        assert me.spend("usd", "0.000001") == before - Decimal("0.000001")
        assert me.spend("usd", Decimal("0.1")) == before - Decimal("0.100001")
        for amount in ("0", "-1", "0.0000001", "a", "1e99", "NaN"):
            with pytest.raises(ValueError):
                me.spend("usd", amount)
        with pytest.raises(ValueError):
            me.spend("tokens", "0.5")
        with pytest.raises(ValueError, match="ops, tokens, usd"):
            me.spend("token", 1)
        with pytest.raises(TypeError):
            me.spend("usd", 0.1)  # type: ignore[arg-type]


def test_what_is_reserved_comes_back_unless_it_is_spent(dev: Dev) -> None:
    with dev.spawn("worker") as me:
        before = left_of(me, "ops")
        assert isinstance(before, int)
        with me.reserve("ops", 100, life=60) as held:
            assert left_of(me, "ops") == before - 100
            assert held.spend(30) == 70
            with pytest.raises(mayfly.Exhausted) as short:
                held.spend(71)
            assert short.value.left == 70 and short.value.unit == "ops"
        assert left_of(me, "ops") == before - 30


def test_no_unit_is_spent_twice_by_many_threads_and_the_refusal_says_whose_budget_it_was(dev: Dev) -> None:
    with dev.spawn("thrifty") as me:

        def spend(_: int) -> bool:
            try:
                me.spend("ops", 1)
                return True
            except mayfly.Exhausted:
                return False

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(spend, range(15))) == 10
        with pytest.raises(mayfly.Exhausted) as denied:
            me.spend("ops", 1)
        e = denied.value
        assert (e.code, e.unit, e.left, e.agent, e.agent_class, e.owner) == (
            "BUDGET_EXHAUSTED",
            "ops",
            0,
            me.id,
            "thrifty",
            "finance",
        )
        again = pickle.loads(pickle.dumps(e))
        assert (again.owner, again.left, str(again)) == (e.owner, e.left, str(e)) and not e.transient


def test_a_sub_agent_without_a_key_spends_from_its_own_budget_through_its_parent(dev: Dev) -> None:
    with dev.spawn("researcher") as me, me.spawn("worker", keyless=True) as child:
        before = left_of(me, "ops")
        assert isinstance(before, int)
        child.spend("ops", 2)
        with child.reserve("ops", 5) as held:
            assert held.spend(1) == 4
        spent = [line.spent for line in child.budget() if line.unit == "ops"]
        assert spent == [3, 3] and left_of(me, "ops") == before - 3
        dev.revoke(agent=child.id)
        with pytest.raises(mayfly.Revoked):
            child.spend("ops", 1)
        me.spend("ops", 1)
