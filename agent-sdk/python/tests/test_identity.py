"""Identities against a real issuer: where they come from, rotation, revocation, denial, trees, outages."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import mayfly
from mayfly.testing import Dev

SEARCH = "https://search.example"
Until = Callable[..., None]


def program(text: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(text)]


def test_an_agent_knows_itself_and_ends_with_its_block(dev: Dev) -> None:
    with dev.spawn("researcher", scopes=["search:read"], lease=600) as agent:
        known = dev.agent(agent.id)
        assert known["state"] == "live"
        assert agent.user is not None
        assert agent.user.sub == "demo"
        assert (agent.scopes, agent.agent_class, agent.trust_domain) == (("search:read",), "researcher", "dev.mayfly.test")
        assert agent.chain == ("spiffe://dev.mayfly.test/workload/orchestrator",)
        assert agent.lease_expires_at is not None
        assert agent.expires_at <= agent.lease_expires_at
        assert len(agent.token(SEARCH).split(".")) == 3
        id = agent.id
    assert dev.agent(id)["state"] == "ended"
    assert isinstance(agent.ended, mayfly.Ended)
    for use in (
        lambda: agent.id,
        lambda: agent.token(SEARCH),
        lambda: agent.spawn("worker").start(),
        lambda: agent.ssl_context(id),
    ):
        with pytest.raises(mayfly.Revoked):
            use()
    agent.end()


def test_a_tree_acts_for_one_user_and_each_may_do_less(dev: Dev) -> None:
    with dev.spawn("researcher", user="guest", scopes=["files:read", "search:read"]) as lead:
        with lead.spawn("worker", scopes=["search:read"]) as one, lead.spawn("worker") as two:
            assert one.user == two.user == lead.user
            assert one.chain == (lead.id, dev.workload.id)
            assert (one.scopes, two.scopes) == (("search:read",), ("files:read", "search:read"))
            with pytest.raises(mayfly.Denied) as caught:
                lead.spawn("worker", scopes=["mail:send"]).start()
            assert caught.value.code == "EXCEEDS_AUTHORITY"
            assert "mail:send" in caught.value.hint
            with lead.spawn("worker", scopes=["mail:send", "search:read"], clip=True) as clipped:
                assert (clipped.scopes, clipped.clipped) == (("search:read",), ("scope:mail:send",))
            with pytest.raises(mayfly.Denied, match="DEPTH_EXHAUSTED|SPAWNER_NOT_ALLOWED"):
                one.spawn("worker").start()
            ids = [one.id, two.id]
        assert [dev.agent(id)["state"] for id in ids] == ["ended", "ended"]


def test_denials_have_codes_and_leave_the_identity_as_it_is(dev: Dev) -> None:
    for agent_class, asked, code in [
        ("nope", {}, "CLASS_UNKNOWN"),
        ("researcher", {"user_token": None, "autonomous": True}, "MODE_NOT_ALLOWED"),
        ("researcher", {"user_token": "a.b.c"}, "USER_TOKEN_MALFORMED"),
        ("researcher", {"user_token": dev.user_token(), "delegation": "00"}, "TOKEN_OR_DELEGATION"),
        ("researcher", {"user_token": dev.user_token(), "scopes": ["x" * 300]}, "LIST_TOO_LONG"),
    ]:
        with pytest.raises(mayfly.Denied) as caught:
            dev.workload.spawn(agent_class, **asked).start()  # type: ignore[arg-type]
        assert caught.value.code == code
    with dev.spawn("researcher") as agent:
        with pytest.raises(mayfly.Denied) as caught:
            agent.token("https://evil.example")
        assert caught.value.code == "AUDIENCE_NOT_ALLOWED"
        assert not caught.value.transient
        assert agent.token(SEARCH)
    with pytest.raises(TypeError):
        dev.workload.spawn("researcher", scopes="search:read")
    with pytest.raises(mayfly.Denied):
        dev.workload.token(SEARCH)


def test_a_revoked_agent_and_what_is_below_it_stop_at_once(dev: Dev, until: Until) -> None:
    told: list[str] = []
    with dev.spawn("researcher") as lead, lead.spawn("worker") as child:
        assert lead.token(SEARCH)
        assert child.token(SEARCH)
        child.on_end(lambda why: told.append(why.code))
        child.on_end(lambda _: 1 // 0)
        dev.revoke(agent=lead.id)
        # Not cached: the issuer refuses, whether the news has come or not.
        with pytest.raises(mayfly.Revoked):
            lead.token("https://files.example")
        until(lambda: lead.ended and child.ended and told)
        assert told == ["AGENT_REVOKED"]
        for agent in (lead, child):
            assert isinstance(agent.ended, mayfly.Revoked)
            # The cached token is not handed out, so no call leaves the process.
            with pytest.raises(mayfly.Revoked, match="AGENT_REVOKED"):
                agent.token(SEARCH)
            with pytest.raises(mayfly.Revoked):
                agent.auth(SEARCH)(object())
        late: list[str] = []
        child.on_end(lambda why: late.append(why.code))
        assert late == ["AGENT_REVOKED"]


def test_a_certificate_rotates_under_use_and_no_call_fails(dev: Dev, until: Until) -> None:
    with dev.spawn("quick") as agent, agent.spawn("quick") as child:
        first = {agent.expires_at, child.expires_at}
        seen, failures, stop = {agent.expires_at}, [], threading.Event()

        def work(me: mayfly.Identity, audience: str) -> None:
            while not stop.is_set():
                try:
                    me._keeper.mint(audience)
                except Exception as e:
                    failures.append(e)
                time.sleep(0.005)

        threads = [
            threading.Thread(target=work, args=(me, audience))
            for me in (agent, child)
            for audience in (SEARCH, "https://files.example")
        ]
        for thread in threads:
            thread.start()

        def rotated() -> bool:
            seen.add(agent.expires_at)
            return len(seen) >= 4 and child.expires_at not in first

        until(rotated, 60)
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == []
        assert agent.ended is None
        assert dev.agent(agent.id)["state"] == dev.agent(child.id)["state"] == "live", "nothing was taken for stolen"


def test_an_issuer_that_is_away_is_waited_for(dev: Dev, until: Until) -> None:
    with dev.spawn("quick") as agent:
        token, before = agent.token(SEARCH), agent.expires_at
        with dev.pause():
            time.sleep(3)
            assert agent.token(SEARCH) == token
            assert agent.ended is None
        until(lambda: agent.expires_at > before)
        assert agent.token("https://files.example")


def test_an_agent_whose_issuer_stays_away_expires_and_its_calls_end(dev: Dev, until: Until) -> None:
    with dev.spawn("quick") as agent, dev.pause():
        until(lambda: agent.ended, 40)
        assert isinstance(agent.ended, mayfly.Expired)
        started = time.monotonic()
        with pytest.raises(mayfly.Expired):
            agent.token(SEARCH)
        assert time.monotonic() - started < 5, "nobody is asked"


def test_a_lease_is_the_end(dev: Dev, until: Until) -> None:
    agent = dev.spawn("quick", lease=2).start()
    until(lambda: agent.ended)
    assert isinstance(agent.ended, mayfly.Expired)
    assert "lease" in agent.ended.hint


def test_a_clock_that_is_set_forward_renews_at_once_and_past_the_end_nothing_is_given_out(
    dev: Dev, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dev.spawn("researcher") as agent:
        before, real = agent.expires_at, time.time
        # It has chosen when to renew by then.
        time.sleep(1)
        monkeypatch.setattr(time, "time", lambda: real() + 12 * 60)
        until(lambda: agent.expires_at != before, 25)
        assert agent.token(SEARCH)
        monkeypatch.setattr(time, "time", lambda: real() + 3600)
        with pytest.raises(mayfly.Expired):
            agent.token(SEARCH)
        monkeypatch.undo()


def test_a_ticket_is_redeemed_once_and_pins_the_issuer(dev: Dev, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ticket = dev.ticket("researcher")
    with mayfly.current(ticket) as agent:
        assert agent.token(SEARCH)
        with pytest.raises(mayfly.Denied, match="TICKET_REFUSED"):
            mayfly.current(ticket)
    file = tmp_path / "ticket"
    file.write_text(dev.ticket("researcher") + "\n")
    with mayfly.current(file) as agent:
        assert agent.is_agent
    monkeypatch.delenv("SPIFFE_ENDPOINT_SOCKET", raising=False)
    monkeypatch.setenv("MAYFLY_TICKET", dev.ticket("researcher"))
    me = mayfly.current()
    assert mayfly.current() is me, "it is opened once"
    me.end()


def test_another_issuer_in_the_place_of_the_ticket_gets_no_secret(dev: Dev) -> None:
    from mayfly.testing import issuer
    from mayfly.ticket import Ticket

    with issuer() as foreign:
        ticket = Ticket.parse(dev.ticket("researcher"))
        import base64

        address, domain = foreign.address, ticket.trust_domain
        raw = (
            b"\x01"
            + bytes([len(address)])
            + address.encode()
            + bytes([len(domain)])
            + domain.encode()
            + ticket.root
            + ticket.secret
        )
        with pytest.raises(mayfly.Unusable, match="another key"):
            mayfly.current("mayfly1." + base64.urlsafe_b64encode(raw).rstrip(b"=").decode())
        # A folder of ours, and the other issuer of the same name.
        with pytest.raises(mayfly.MayflyError) as caught:
            mayfly.Workload(dev.home / "workloads/orchestrator", server=foreign.address).spawn(
                "researcher", user_token=dev.user_token()
            ).start()
        assert caught.value.code == "untrusted"


def test_a_folder_is_taken_over_under_a_new_key(dev: Dev) -> None:
    folder = dev.saved("researcher")
    with mayfly.current(folder, server=dev.address) as agent:
        assert agent.token(SEARCH)
        assert mayfly.current.__doc__
        with pytest.raises(mayfly.Unusable, match="is an agent"):
            mayfly.Workload(dev.saved("researcher"), server=dev.address)
    # The copy is outdated: whoever uses it is refused for good.
    with pytest.raises(mayfly.Revoked):
        mayfly.current(folder, server=dev.address)


def test_a_workload_joins_and_its_agents_need_a_user(dev: Dev) -> None:
    import json

    token = json.loads(dev.cli("join", "orchestrator", "-o", "json"))["token"]
    workload = mayfly.Workload(token)
    try:
        assert (workload.id, workload.is_agent, workload.user, workload.scopes) == (dev.workload.id, False, None, ())
        with workload.spawn("researcher", user_token=dev.user_token()) as agent:
            assert agent.chain == (workload.id,)
        with pytest.raises(mayfly.Denied, match="MODE_NOT_ALLOWED"):
            workload.spawn("researcher").start()
    finally:
        workload.close()


def test_under_mayfly_run_a_program_has_an_identity_and_spawns(dev: Dev) -> None:
    text = """
        import mayfly
        me = mayfly.current()
        assert me is mayfly.current()
        print(me.id, me.user.sub, me.token("https://search.example")[:2])
        with me.spawn("worker", scopes=["search:read"]) as child:
            print(child.chain[0] == me.id, child.scopes, child.token("https://search.example")[:2])
        try:
            me.token("https://evil.example")
        except mayfly.MayflyError as e:
            print(type(e).__name__)
    """
    process = dev.run("researcher", program(text), stdout=subprocess.PIPE, text=True)
    out, _ = process.communicate(timeout=60)
    lines = out.splitlines()
    assert process.returncode == 0
    assert lines[0].startswith("spiffe://dev.mayfly.test/agent/researcher/")
    assert lines[0].endswith(" demo ey")
    assert lines[1] == "True ('search:read',) ey"
    assert len(lines) == 3


def test_under_mayfly_run_rotation_is_followed_and_a_revocation_ends_it(dev: Dev, until: Until) -> None:
    text = """
        import mayfly, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        me = mayfly.current()
        print(me.id, flush=True)
        seen = set()
        while len(seen) < 3:
            seen.add(me.expires_at)
            me.token("https://search.example")
            time.sleep(0.05)
        with me.spawn("quick") as child:
            print("rotated", flush=True)
        while not me.ended:
            time.sleep(0.01)
        try:
            me.token("https://search.example")
        except mayfly.Revoked as e:
            print(e.code, flush=True)
    """
    process = dev.run("quick", program(text), options=("--grace", "20"), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    id = process.stdout.readline().strip()
    assert process.stdout.readline() == "rotated\n"
    assert dev.agent(id)["state"] == "live"
    dev.revoke(agent=id)
    assert process.stdout.readline() == "withdrawn\n"
    process.communicate(timeout=60)


def test_a_forked_process_is_told_that_it_cannot_use_what_its_parent_has_opened(dev: Dev) -> None:
    text = """
        import mayfly, os
        me = mayfly.current()
        def refused(use):
            try:
                use()
            except mayfly.Forked as e:
                return e.code
        for _ in range(3):
            child = os.fork()
            if child == 0:
                # gRPC crashes or hangs in it now and then, so it is refused at once.
                codes = [refused(use) for use in (lambda: me.token("https://search.example"), mayfly.current, me.spawn("worker").start)]
                os._exit(7 if codes == ["forked", "forked_in_use", "forked"] else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        print(me.token("https://search.example")[:2])
    """
    process = dev.run("researcher", program(text), stdout=subprocess.PIPE, text=True)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "ey\n")


def test_workers_of_gunicorn_that_open_their_identity_after_the_fork_have_one(dev: Dev, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import os, mayfly\n"
        "def app(environ, start):\n"
        "    me = mayfly.current()\n"
        "    start('200 OK', [])\n"
        "    return [f'{os.getpid()} {me.id} {me.token(\"https://search.example\")[:2]}'.encode()]\n"
    )
    address = tmp_path / "sock"
    # Loaded before the fork, as most large applications are.
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "--preload",
        "--workers",
        "2",
        "--chdir",
        str(tmp_path),
        "--bind",
        f"unix:{address}",
    ]
    process = dev.run("researcher", [*command, "--log-level", "error", "app:app"], options=("--grace", "10"))
    try:
        seen: set[tuple[str, ...]] = set()
        deadline = time.monotonic() + 30
        while len({pid for pid, *_ in seen}) < 2:
            assert time.monotonic() < deadline, seen
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
                client.connect(str(address))
                client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                answer = b"".join(iter(lambda: client.recv(4096), b"")).decode()
                seen.add(tuple(answer.rsplit("\r\n", 1)[1].split()))
        assert len({id for _, id, _ in seen}) == 1 and {start for *_, start in seen} == {"ey"}
    finally:
        process.terminate()
        process.wait(30)


def test_asyncio_spawns_mints_and_ends_without_waiting_for_each_other(dev: Dev) -> None:
    async def work() -> None:
        async with dev.spawn("researcher") as lead:
            children = await asyncio.gather(*(lead.spawn("worker") for _ in range(10)))
            tokens = await asyncio.gather(*(child.atoken(SEARCH) for child in children))
            assert len(set(tokens)) == 10
            assert await children[0].atoken(SEARCH) == tokens[0]
            assert await children[0].assertion(SEARCH) not in tokens, "an assertion is never one that was given out"
            ended = asyncio.ensure_future(children[0].wait_ended())
            await children[0].aend()
            assert isinstance(await asyncio.wait_for(ended, 10), mayfly.Ended)
            with pytest.raises(mayfly.Denied):
                async with lead.spawn("nope"):
                    pass
            id = lead.id
        assert dev.agent(id)["state"] == "ended"
        assert {dev.agent(child.id)["state"] for child in children[1:] if child.ended is None} <= {"orphaned"}

    asyncio.run(work())


def test_a_cancelled_spawn_leaves_no_agent_behind(dev: Dev, until: Until) -> None:
    async def cancelled() -> None:
        with dev.pause():
            task = asyncio.ensure_future(lead.spawn("worker").__aenter__())
            await asyncio.sleep(0.5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await asyncio.sleep(0.5)

    import json

    with dev.spawn("researcher") as lead:
        asyncio.run(cancelled())

        def states() -> list[str]:
            found = json.loads(dev.cli("agents", "list", "--all", "-o", "json"))["agents"]
            return [agent["state"] for agent in found if agent["parent_id"] == lead.id]

        until(lambda: states() == ["ended"])


def test_two_users_in_one_process_never_share_a_token(dev: Dev) -> None:
    import base64
    import json

    def subject(token: str) -> str:
        part = token.split(".")[1]
        return str(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["sub"])

    with dev.spawn("researcher", user="demo") as one, dev.spawn("researcher", user="guest") as two:
        pairs = [(one, one.id), (two, two.id)] * 5000

        def same(pair: tuple[mayfly.Identity, str]) -> bool:
            return subject(pair[0].token(SEARCH)) == pair[1]

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(same, pairs, chunksize=100))
        assert len({one.token(SEARCH), two.token(SEARCH)}) == 2


def test_many_threads_that_ask_at_once_mint_one_token(dev: Dev) -> None:
    with dev.spawn("researcher") as agent, ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(lambda _: agent.token(SEARCH), range(64)))) == 1


def test_an_identity_that_nobody_needs_stops_its_threads(dev: Dev, until: Until) -> None:
    def count() -> int:
        return sum(thread.name.startswith("mayfly-") for thread in threading.enumerate())

    gc.collect()
    until(lambda: dev.workload and True)
    before = count()
    agent = dev.spawn("researcher").start()
    assert count() == before + 2
    id = agent.id
    del agent
    gc.collect()
    until(lambda: count() <= before)
    assert dev.agent(id)["state"] == "live", "it was not ended"


def test_a_program_ends_although_its_identity_lives(dev: Dev) -> None:
    text = f"""
        import mayfly
        w = mayfly.Workload({str(dev.home / "workloads/orchestrator")!r})
        a = w.spawn("researcher", user_token={dev.user_token()!r}).start()
        print(a.token("https://search.example")[:2])
    """
    done = subprocess.run(program(text), env=dev.environment(), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ey\n", "")


def test_what_is_printed_or_pickled_holds_no_secret(dev: Dev) -> None:
    import pickle

    with dev.spawn("researcher") as agent:
        agent.token(SEARCH)
        for shown in (repr(agent), repr(agent._keeper.current()), str(agent.binding), repr(agent._keeper.tokens._tokens)):
            assert "PRIVATE" not in shown
            assert "eyJ" not in shown
        with pytest.raises(TypeError, match="ticket"):
            pickle.dumps(agent)


def test_importing_is_quick_and_brings_no_web_framework() -> None:
    text = "import sys, mayfly; print(sorted({'httpx', 'requests', 'flask', 'django', 'starlette', 'pytest'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60, env=os.environ)
    assert done.stdout == "[]\n", done.stderr
