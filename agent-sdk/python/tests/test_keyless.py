"""Sub-agents that are no processes: one process, one key, many agents; and calls that meet a renewal."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import mayfly
from mayfly.testing import Dev

SEARCH = "https://search.example"
Until = Callable[..., None]


def claims(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    said = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    assert isinstance(said, dict)
    return said


def test_a_sub_agent_is_itself_and_its_parent_presents(dev: Dev) -> None:
    with dev.spawn("researcher") as me:
        with me.spawn("worker", scopes=["search:read"], keyless=True) as child:
            assert isinstance(child, mayfly.SubAgent)
            assert child.id != me.id and child.agent_class == "worker" and child.chain == (me.id, *me.chain)
            assert child.user == me.user and child.scopes == ("search:read",) and child.binding is None
            assert child.lease_expires_at is not None and me.lease_expires_at is not None
            assert child.lease_expires_at <= me.lease_expires_at
            said = claims(child.token(SEARCH))
            assert said["sub"] == child.id and set(said["cnf"]) == {"x5t#S256"}
            assert child.token(SEARCH) == child.token(SEARCH) != me.token(SEARCH)
            assert "cnf" not in claims(me.token(SEARCH))
            assert claims(child.token(SEARCH, scope="search:read"))["client_id"] == child.id
            with pytest.raises(mayfly.Denied) as denied:
                child.token("https://mail.example")
            assert denied.value.code == "AUDIENCE_NOT_ALLOWED"
            with pytest.raises(mayfly.Denied) as denied:
                child.spawn("worker", keyless=True).start()
            assert denied.value.code == "PARENT_ONLY"
        assert isinstance(child.ended, mayfly.Ended) and dev.agent(child_id(child))["state"] == "ended"
        with pytest.raises(mayfly.Ended):
            child.token(SEARCH)
        me.token(SEARCH)


def child_id(child: mayfly.Identity) -> str:
    """The name of an agent that has ended, which `id` does not tell any more."""
    assert isinstance(child, mayfly.SubAgent)
    return child._keeper.agent.agent_id


def test_a_revoked_sub_agent_stops_alone_and_all_stop_with_their_parent(dev: Dev, until: Until) -> None:
    with dev.spawn("researcher") as me:
        one, two = (me.spawn("worker", keyless=True).start() for _ in range(2))
        told: list[mayfly.Revoked] = []
        two.on_end(told.append)
        dev.revoke(agent=one.id)
        with pytest.raises(mayfly.Revoked) as revoked:
            one.token(SEARCH)
        assert revoked.value.code == "AGENT_REVOKED" and one.ended is not None
        two.token(SEARCH)
        dev.revoke(agent=me.id)
        until(lambda: told)
        for agent in (two, me):
            with pytest.raises(mayfly.Revoked):
                agent.token(SEARCH)


def test_a_hundred_sub_agents_in_one_process_have_a_token_each_and_a_rotation_fails_no_call(dev: Dev, until: Until) -> None:
    with dev.spawn("quick") as me:
        with ThreadPoolExecutor(8) as pool:
            some = list(pool.map(lambda _: me.spawn("quick", keyless=True).start(), range(100)))
            subjects = list(pool.map(lambda child: claims(child.token(SEARCH))["sub"], some))
            assert subjects == [child.id for child in some] and len(set(subjects)) == 100
            first, bound = me.expires_at, claims(some[0].token(SEARCH))["cnf"]
            until(lambda: some[1].token(SEARCH) and me.expires_at != first)
            # A token that is bound to the certificate before is of no use with its successor.
            assert claims(some[0].token(SEARCH))["cnf"] != bound
            list(pool.map(lambda child: child.end(), some))
        assert all(isinstance(child.ended, mayfly.Ended) for child in some)
        assert me.ended is None


def test_each_call_of_a_decorated_function_is_an_agent(dev: Dev) -> None:
    with dev.spawn("researcher") as me:

        @me.spawn("worker", scopes=["search:read"], keyless=True)
        def search(child: mayfly.Identity, what: str) -> tuple[str, str]:
            return what, claims(child.token(SEARCH))["sub"]

        @me.spawn("worker", keyless=True)
        async def think(child: mayfly.Identity, n: int) -> str:
            return str(claims(await child.atoken(SEARCH))["sub"]) + f" {n}"

        async def both() -> list[str]:
            return list(await asyncio.gather(think(1), think(2)))

        what, subject = search("ants")
        thoughts = asyncio.run(both())
        assert what == "ants" and [thought[-1] for thought in thoughts] == ["1", "2"]
        ids = {subject, *(thought.split()[0] for thought in thoughts)}
        assert len(ids) == 3 and {dev.agent(id)["state"] for id in ids} == {"ended"}


def test_under_mayfly_run_sub_agents_and_calls_meet_renewals_and_nobody_is_revoked(dev: Dev) -> None:
    # The certificate that was fetched first is the one from before a used renewal, as when a renewal comes in between.
    text = """
        import time
        import mayfly
        from mayfly.workload.served import Served
        me = mayfly.current()
        old, first = me._keeper.current(), me.expires_at
        while me.expires_at == first:
            time.sleep(0.02)
        time.sleep(0.3)
        newest, asked = Served._newest, []
        def stale(self):
            asked.append(1)
            return old if len(asked) == 1 else newest(self)
        Served._newest = stale
        with me.spawn("quick") as child, me.spawn("quick", keyless=True) as part:
            print(child.chain[0] == me.id, part.chain[0] == me.id, part.token("https://search.example")[:2])
            print(part.token("https://search.example", scope="search:read")[:2])
        print(me.ended, len(asked) > 2)
        time.sleep(0.3)
        print(me.token("https://files.example")[:2])
    """
    program = [sys.executable, "-c", textwrap.dedent(text)]
    process = dev.run("quick", program, stdout=subprocess.PIPE, text=True)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "True True ey\ney\nNone True\ney\n")
