"""Access tokens: by an identity of our own, under `mayfly run`, denied, revoked, and of two users in one process."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import mayfly
from mayfly import oauth
from mayfly.testing import Dev
from mayfly.tokens import Tokens, claims_of, key_of

SEARCH, FILES, MAIL = "https://search.example", "https://files.example", "https://mail.example"
Until = Callable[..., None]


def introspect(dev: Dev, token: str) -> dict[str, Any]:
    file = dev.folder / "introspected"
    file.write_text(token)
    # Whoever holds the admin socket may ask about every token.
    said: dict[str, Any] = json.loads(dev.cli("introspect", "--token-file", str(file), "-o", "json"))
    return said


def test_an_access_token_is_for_what_was_asked_and_cached_by_that(dev: Dev) -> None:
    with dev.spawn("researcher") as agent:
        token = agent.token(SEARCH, scope="search:read")
        claims = claims_of(token)
        assert (claims["aud"], claims["scope"], claims["client_id"], claims["act"]["sub"]) == (
            SEARCH,
            "search:read",
            agent.id,
            agent.id,
        )
        assert claims["sub"].endswith("demo")
        assert introspect(dev, token)["active"] is True
        both = agent.token(SEARCH, scope="search:read files:read")
        assert claims_of(both)["scope"] == "files:read search:read"
        # One spelling of what is asked for: the order and repetitions do not matter.
        assert agent.token(SEARCH, scope=["files:read", "search:read", "files:read"]) == both
        assert asyncio.run(agent.atoken(SEARCH, scope="files:read  search:read")) == both
        assert agent.token(SEARCH, scope="search:read") == token
        everything = agent.token(SEARCH, scope="")
        assert set(claims_of(everything)["scope"].split()) == set(agent.scopes)
        # A JWT-SVID is another token.
        svid = agent.token(SEARCH)
        assert claims_of(svid)["sub"] == agent.id
        assert len({token, both, everything, svid, agent.token(FILES, scope="search:read")}) == 5
        request = type("Request", (), {"headers": {}})()
        agent.auth(SEARCH, scope="search:read")(request)
        assert request.headers == {"Authorization": f"Bearer {token}"}


def test_what_the_agent_may_not_have_is_denied_with_its_code(dev: Dev) -> None:
    with dev.spawn("researcher", scopes=["search:read"]) as agent:
        for audience, scope, code in [
            (SEARCH, "files:read", "SCOPE_NOT_ALLOWED"),
            ("https://evil.example", "search:read", "AUDIENCE_NOT_ALLOWED"),
            ("", "search:read", "AUDIENCE_MALFORMED"),
            (SEARCH, ["x" * 200], "SCOPE_MALFORMED"),
        ]:
            with pytest.raises(mayfly.Denied) as caught:
                agent.token(audience, scope=scope)
            assert (caught.value.code, caught.value.transient) == (code, False)
        assert agent.token(SEARCH, scope="search:read")
    with pytest.raises(mayfly.Denied):
        dev.workload.token(SEARCH, scope="search:read")


def test_after_a_revocation_no_access_token_is_handed_out_and_those_in_use_are_dead(dev: Dev, until: Until) -> None:
    with dev.spawn("researcher") as agent:
        token = agent.token(SEARCH, scope="search:read")
        assert introspect(dev, token)["active"] is True
        dev.revoke(agent=agent.id)
        assert introspect(dev, token)["active"] is False
        # Not cached: the issuer refuses, whether the news has come or not.
        with pytest.raises(mayfly.Revoked):
            agent.token(FILES, scope="search:read")
        with pytest.raises(mayfly.Revoked, match="AGENT_REVOKED"):
            agent.token(SEARCH, scope="search:read")
        with pytest.raises(mayfly.Revoked):
            asyncio.run(agent.atoken(SEARCH, scope="search:read"))


def test_an_issuer_that_is_away_leaves_the_cached_token(dev: Dev) -> None:
    with dev.spawn("researcher") as agent:
        token = agent.token(SEARCH, scope="search:read")
        with dev.pause():
            assert agent.token(SEARCH, scope="search:read") == token


def test_two_users_in_one_process_never_share_an_access_token(dev: Dev) -> None:
    with dev.spawn("researcher", user="demo") as one, dev.spawn("researcher", user="guest") as two:
        wanted = [(agent, scope) for agent in (one, two) for scope in ("search:read", "files:read", "")]
        users = {one.id: "demo", two.id: "guest"}

        def right(n: int) -> bool:
            agent, scope = wanted[n % len(wanted)]
            claims = claims_of(agent.token(SEARCH, scope=scope))
            return claims["client_id"] == agent.id and claims["sub"].endswith(users[agent.id]) and scope in ("", claims["scope"])

        with ThreadPoolExecutor(16) as pool:
            assert all(pool.map(right, range(10_000)))
        assert len({agent.token(SEARCH, scope=scope) for agent, scope in wanted}) == 6


def test_a_renewal_forgets_access_tokens_because_they_may_be_bound_to_the_certificate() -> None:
    tokens = Tokens(lambda: 0.0)
    tokens.put(key_of(SEARCH, None), "svid", 100)
    tokens.put(key_of(SEARCH, ""), "access", 100)
    tokens.forget_access()
    assert (tokens.fresh(key_of(SEARCH, None)), tokens.fresh(key_of(SEARCH, ""))) == ("svid", None)


def test_t219_each_assertion_for_the_issuer_is_a_new_one_and_proves_the_agent(dev: Dev) -> None:
    with dev.spawn("researcher") as agent:
        iss = claims_of(agent.token(SEARCH))["iss"]

        async def twice() -> list[str]:
            return [await agent.assertion(iss), await agent.assertion(iss)]

        assertions = [*asyncio.run(twice()), agent.token(iss), agent.token(iss)]
        assert len(set(assertions)) == 4
        from mayfly.tls import of_issuer

        url, context = oauth.endpoint(iss, dev.address), of_issuer(agent._keeper.current())
        for assertion in assertions:
            token, _ = oauth.ask(url, assertion, SEARCH, ["search:read"], context)
            assert claims_of(token)["client_id"] == agent.id
        with pytest.raises(mayfly.Denied, match="ASSERTION_USED"):
            oauth.ask(url, assertions[0], SEARCH, [], context)


def run(dev: Dev, text: str, **environment: str) -> str:
    """What a program under `mayfly run` prints, without a word to it about where the issuer is unless it is given."""
    command = [sys.executable, "-c", textwrap.dedent(text)]
    blank = ["env", "-u", "MAYFLY_SERVER", f"MAYFLY_HOME={dev.folder / 'none'}", *(f"{k}={v}" for k, v in environment.items())]
    process = dev.run("researcher", [*blank, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return str(out)


ASKS = """
import asyncio, mayfly
from mayfly.tokens import claims_of
me = mayfly.current()
tokens = [me.token("https://search.example", scope=s) for s in ("search:read", "files:read", "")]
tokens += [asyncio.run(me.atoken("https://files.example", scope="files:read")), me.token("https://search.example", scope="search:read")]
print(len(set(tokens)), {claims_of(t)["client_id"] == me.id for t in tokens}, [claims_of(t)["scope"] for t in tokens[:2]])
for audience, scope in (("https://search.example", "no:such"), ("https://evil.example", "")):
    try:
        me.token(audience, scope=scope)
    except mayfly.Denied as e:
        print(e.code)
"""
ASKED = "4 {True} ['search:read', 'files:read']\nSCOPE_NOT_ALLOWED\nAUDIENCE_NOT_ALLOWED\n"


@pytest.mark.skipif(sys.platform != "linux", reason="mayfly run is for Linux")
def test_under_mayfly_run_the_token_endpoint_is_asked_with_a_new_jwt_svid_each_time(dev: Dev) -> None:
    assert run(dev, ASKS, MAYFLY_SERVER=dev.address) == ASKED
    # Without its address, by its URL, with the roots of the system.
    assert run(dev, ASKS, SSL_CERT_FILE=str(dev.home / "https-ca.pem")) == ASKED


@pytest.mark.skipif(sys.platform != "linux", reason="mayfly run is for Linux")
def test_nobody_but_the_issuer_hears_the_proof_of_an_agent(dev: Dev) -> None:
    refused = """
    import mayfly, sys
    from mayfly import oauth
    oauth.PATIENCE = 1.0
    try:
        mayfly.current(server=sys.argv[1] if len(sys.argv) > 1 else None).token("https://search.example", scope="")
    except mayfly.MayflyError as e:
        print(e.code, "MAYFLY_SERVER" in e.hint)
    """
    # By its URL, without its root.
    assert run(dev, refused) == "untrusted True\n"
    with dev.spawn("researcher") as impostor, socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        heard: list[bytes] = []
        context = impostor.ssl_context("spiffe://dev.mayfly.test", server=True)
        context._inner().verify_mode = 0  # type: ignore[assignment]

        def serve() -> None:
            tcp, _ = listener.accept()
            try:
                with context.wrap_socket(tcp, server_side=True) as tls:
                    heard.append(tls.recv(1))
            except (OSError, mayfly.MayflyError) as e:
                heard.append(b"" if isinstance(e, OSError) else b"?")

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        assert run(dev, refused.replace("sys.argv[1] if len(sys.argv) > 1 else None", repr(address))) == "untrusted True\n"
        server.join(20)
        assert heard == [b""]
    # One that is silent has its time.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        assert run(dev, refused.replace("sys.argv[1] if len(sys.argv) > 1 else None", repr(address))).startswith("unavailable ")


def test_an_answer_that_is_none_is_refused_and_its_reason_is_read() -> None:
    for status, error, description, retry, kind, code, after in [
        (400, "invalid_scope", "SCOPE_NOT_ALLOWED: ask for less", None, mayfly.Denied, "SCOPE_NOT_ALLOWED", None),
        (400, "invalid_request", "`grant_type` is missing", None, mayfly.Denied, "invalid_request", None),
        (401, "invalid_client", "AGENT_REVOKED: it was revoked", None, mayfly.Revoked, "AGENT_REVOKED", None),
        (401, "invalid_client", "AGENT_EXPIRED: its lease has ended", None, mayfly.Expired, "AGENT_EXPIRED", None),
        (401, "invalid_client", "CREDENTIAL_EXPIRED: the JWT-SVID has expired", None, mayfly.Denied, "CREDENTIAL_EXPIRED", None),
        (401, "invalid_client", "ASSERTION_USED: mint another", None, mayfly.Denied, "ASSERTION_USED", None),
        (429, "temporarily_unavailable", "LIMIT: slower", "3", mayfly.Denied, "LIMIT", 3.0),
        (503, "temporarily_unavailable", "", "-1", mayfly.Unavailable, "unavailable", None),
        (500, "server_error", "internal", None, mayfly.Unavailable, "unavailable", None),
    ]:
        error_ = oauth._refused(status, error, description, retry)
        assert (type(error_), error_.code, error_.retry_after) == (kind, code, after)
    for bad in ["", "http://issuer.example", "issuer", "https://", "https://issuer.example?x=1", "spiffe://dev.mayfly.test"]:
        with pytest.raises(mayfly.Unusable):
            oauth.endpoint(bad)
    assert oauth.endpoint("https://issuer.example/a", "[::1]:1") == "https://[::1]:1/a/oauth/token"
    for text in ["", "a", "a.b", "a.!.c", "a.W10.c", "a.e30"]:
        assert claims_of(text) == {}
