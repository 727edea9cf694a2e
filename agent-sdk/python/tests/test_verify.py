"""Services that ask the guard: what passes, what is refused and how, and that nothing passes while the guard is away.

The guard here is a stand-in that answers as it is told; the last test asks the real one.
"""

from __future__ import annotations

import asyncio
import json
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.websockets import WebSocket

import mayfly
from mayfly.errors import Unusable
from mayfly.testing import Dev
from mayfly.verify import Caller, Guard, Refused, wsgi
from mayfly.verify.asgi import Middleware

SEARCH = "https://search.example"
AGENT = "spiffe://own.example/agent/a/0190aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee"
GOOD: dict[str, Any] = {
    "decision": True,
    "agent_id": AGENT,
    "user": {"iss": "https://login.example", "sub": "demo"},
    "chain": ["spiffe://own.example/workload/w"],
    "scopes": ["files:read", "search:read"],
    "delegation_id": "0" * 64,
    "mode": "delegated",
    "expires_at": "2030-01-01T00:00:00Z",
    "revision": 7,
    "staleness_ms": 3,
}


class Fake:
    """A guard that answers as `status` and `answer` say, and keeps what it was asked."""

    def __init__(self, path: Path) -> None:
        self.status, self.answer, self.asked = 200, json.dumps(GOOD).encode(), list[dict[str, Any]]()
        self.connections = 0
        self.silent = False
        fake = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                fake.connections += 1
                while line := self.rfile.readline():
                    length = 0
                    assert line == b"POST /verify HTTP/1.1\r\n", line
                    while (header := self.rfile.readline().strip().lower()) != b"":
                        if header.startswith(b"content-length:"):
                            length = int(header.split(b":")[1])
                    fake.asked.append(json.loads(self.rfile.read(length)))
                    if fake.silent:
                        time.sleep(3)
                        return
                    head = (
                        f"HTTP/1.1 {fake.status} x\r\ncontent-type: application/json\r\ncontent-length: {len(fake.answer)}\r\n\r\n"
                    )
                    self.wfile.write(head.encode() + fake.answer)

        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True

            def get_request(self) -> Any:
                accepted = super().get_request()
                fake.open.append(accepted[0])
                return accepted

        self.open: list[socket.socket] = []
        self.path = path
        self.server = Server(str(path), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def say(self, status: int, **answer: Any) -> None:
        self.status, self.answer = status, json.dumps(answer).encode()

    def deny(self, reason: str) -> None:
        self.say(403, decision=False, reason=reason, hint="no")

    def drop(self) -> None:
        """Closes the connections that are kept open."""
        for connection in self.open:
            with_suppress(connection)

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.drop()
        self.path.unlink(missing_ok=True)


def with_suppress(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Fake]:
    running = Fake(tmp_path / "guard.sock")
    yield running
    running.stop()


@pytest.fixture
def guard(fake: Fake) -> Iterator[Guard]:
    asking = Guard(f"unix:{fake.path}", SEARCH, timeout=1)
    yield asking
    asking.close()


def test_a_question_is_the_contract_and_its_answer_the_caller(fake: Fake, guard: Guard) -> None:
    caller = guard.check_header(["Bearer a.b.c"], ["search:read"])
    assert fake.asked == [{"credential": "a.b.c", "audience": SEARCH, "scopes": ["search:read"]}]
    assert (caller.agent_id, caller.user, caller.mode, caller.revision) == (
        AGENT,
        mayfly.User("https://login.example", "demo"),
        "delegated",
        7,
    )
    assert caller.expires_at.year == 2030
    fake.say(200, **{**GOOD, "user": None, "delegation_id": None, "mode": "autonomous"})
    assert guard.check("a.b.c").user is None
    assert fake.connections == 1, "connections are kept"
    # One that was closed meanwhile is replaced.
    fake.drop()
    assert guard.check("a.b.c").agent_id == AGENT
    assert fake.connections == 2


@pytest.mark.parametrize(
    ("reason", "status", "challenge"),
    [
        ("CREDENTIAL_REVOKED", 401, 'Bearer error="invalid_token"'),
        ("CREDENTIAL_EXPIRED", 401, 'Bearer error="invalid_token"'),
        ("CREDENTIAL_AUDIENCE", 401, 'Bearer error="invalid_token"'),
        ("NOT_INVENTED_YET", 401, 'Bearer error="invalid_token"'),
        ("SCOPE_MISSING", 403, 'Bearer error="insufficient_scope", scope="search:read"'),
        ("CALLER_NOT_AN_AGENT", 403, None),
        ("CREDENTIAL_STALE", 503, None),
    ],
)
def test_each_refusal_has_its_status_and_challenge(
    fake: Fake, guard: Guard, reason: str, status: int, challenge: str | None
) -> None:
    fake.deny(reason)
    with pytest.raises(Refused) as caught:
        guard.check("a.b.c", ["search:read"])
    refused = caught.value
    assert (refused.status, refused.code, refused.headers.get("WWW-Authenticate")) == (status, reason, challenge)
    assert refused.headers["Mayfly-Reason"] == reason
    assert ("Retry-After" in refused.headers) == refused.transient == (status == 503)


@pytest.mark.parametrize(
    "headers",
    [[], [""], ["Bearer"], ["Bearer "], ["Basic abc"], ["Bearer a b"], ["Bearer a,b"], ["Bearer a.b.c", "Bearer a.b.c"], ["a.b.c"],
     ["Bearer a\nb"], ["Bearer " + "a" * 20000], ["Bearer é"]],
)  # fmt: skip
def test_what_is_no_single_bearer_token_is_not_even_asked_about(fake: Fake, guard: Guard, headers: list[str]) -> None:
    with pytest.raises(Refused) as caught:
        guard.check_header(headers)
    assert caught.value.status == 401
    assert fake.asked == []


def test_nothing_but_a_whole_yes_is_a_yes(fake: Fake, guard: Guard) -> None:
    def refusal(scopes: tuple[str, ...] = ()) -> Refused:
        with pytest.raises(Refused) as caught:
            guard.check("a.b.c", scopes)
        return caught.value

    for missing in ("agent_id", "user", "chain", "scopes", "delegation_id", "mode", "expires_at", "revision"):
        fake.say(200, **{name: value for name, value in GOOD.items() if name != missing})
        assert refusal().status == (403 if missing == "agent_id" else 503), missing
    for name, value in [("decision", "true"), ("decision", 1), ("agent_id", 5), ("agent_id", ""), ("user", {"iss": "x"}), ("user", "x"),
                        ("chain", None), ("scopes", [None]), ("expires_at", "soon"), ("revision", None)]:  # fmt: skip
        fake.say(200, **{**GOOD, name: value})
        assert refusal().status == 503, (name, value)
    fake.say(200, **{**GOOD, "scopes": ["files:read"]})
    assert refusal(("search:read",)).code == "SCOPE_MISSING", "a guard that was not asked for it"
    for status in (200, 201, 204, 302, 403, 404, 500, 503):
        for answer in (b"", b"null", b"[]", b"{}", b"<html>", b'{"decision": false}', json.dumps({"reason": "x"}).encode()):
            fake.status, fake.answer = status, answer
            assert refusal().status == 503, (status, answer)
    for status in (403, 500):
        fake.say(status, **GOOD)
        assert refusal().status == 503
    fake.say(400, error="the body is no question")
    assert refusal().status == 401


def test_while_the_guard_is_away_or_silent_nobody_passes(fake: Fake, guard: Guard) -> None:
    assert guard.check("a.b.c")
    fake.silent = True
    started = time.monotonic()
    with pytest.raises(Refused, match="GUARD_UNAVAILABLE") as caught:
        guard.check("a.b.c")
    assert caught.value.status == 503
    assert time.monotonic() - started < 2.9
    fake.stop()
    with pytest.raises(Refused, match="check that the guard runs") as caught:
        guard.check("a.b.c")
    assert caught.value.status == 503
    # It comes back by itself.
    again = Fake(fake.path)
    try:
        assert guard.check("a.b.c").agent_id == AGENT
    finally:
        again.stop()


def test_a_guard_is_on_this_machine_and_has_an_audience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAYFLY_GUARD", raising=False)
    monkeypatch.delenv("MAYFLY_AUDIENCE", raising=False)
    for address in (
        "",
        "guard.example:80",
        "10.0.0.1:80",
        "https://127.0.0.1:80",
        "unix:",
        "unix:a.sock",
        "127.0.0.1",
        "127.0.0.1:x",
    ):
        with pytest.raises(mayfly.Unusable):
            Guard(address, SEARCH)
    with pytest.raises(mayfly.Unusable, match="MAYFLY_AUDIENCE"):
        Guard("127.0.0.1:1")
    monkeypatch.setenv("MAYFLY_GUARD", "127.0.0.1:9191")
    monkeypatch.setenv("MAYFLY_AUDIENCE", SEARCH)
    assert Guard().audience == SEARCH


def test_asgi_every_door_is_watched(fake: Fake, guard: Guard) -> None:
    passed: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        passed.append(scope.get("mayfly"))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    wrapped = Middleware(app, guard, ["search:read"], public=["/healthz"])

    def ask(kind: str = "http", path: str = "/", headers: tuple[tuple[bytes, bytes], ...] = (), **more: Any) -> list[Any]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(wrapped({"type": kind, "path": path, "headers": headers, **more}, None, send))
        return sent

    token = ((b"authorization", b"Bearer a.b.c"),)
    assert ask(headers=token)[0]["status"] == 200
    assert isinstance(passed.pop(), Caller)
    refused = ask()
    assert refused[0]["status"] == 401
    assert dict(refused[0]["headers"])[b"www-authenticate"] == b"Bearer"
    assert json.loads(refused[1]["body"]) == {"error": "CREDENTIAL_MISSING"}
    assert ask(headers=token * 2)[0]["status"] == 401
    fake.deny("CREDENTIAL_REVOKED")
    assert ask(headers=token)[0]["status"] == 401
    assert ask("websocket", headers=token) == [{"type": "websocket.close", "code": 1008, "reason": "CREDENTIAL_REVOKED"}]
    for path in ("/healthz/", "/healthz/x", "//healthz", "/HEALTHZ"):
        assert ask(path=path)[0]["status"] == 401, path
    assert passed == []
    assert ask(path="/healthz", mayfly="forged")[0]["status"] == 200
    assert passed == [None]


RESOURCE = "https://mail.example/mcp"
METADATA = "/.well-known/oauth-protected-resource/mcp"


@pytest.fixture
def resource(fake: Fake) -> Iterator[Guard]:
    asking = Guard(f"unix:{fake.path}", RESOURCE, timeout=1, issuer="https://issuer.example")
    yield asking
    asking.close()


def test_a_resource_of_oauth_says_where_its_metadata_is_and_serves_it_to_everybody(fake: Fake, resource: Guard) -> None:
    pointer = f'resource_metadata="https://mail.example{METADATA}"'
    for reason, challenge in [
        ("CREDENTIAL_EXPIRED", f'Bearer error="invalid_token", {pointer}'),
        ("SCOPE_MISSING", f'Bearer error="insufficient_scope", scope="a", {pointer}'),
        ("CREDENTIAL_STALE", None),
    ]:
        fake.deny(reason)
        with pytest.raises(Refused) as caught:
            resource.check("a.b.c", ["a"])
        assert caught.value.headers.get("WWW-Authenticate") == challenge
    with pytest.raises(Refused) as caught:
        resource.check_header([])
    assert caught.value.headers["WWW-Authenticate"] == f"Bearer {pointer}"
    expected = {
        "resource": RESOURCE,
        "authorization_servers": ["https://issuer.example"],
        "bearer_methods_supported": ["header"],
        "scopes_supported": ["a"],
    }
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def app(*_: Any) -> None:
        raise AssertionError("nobody was let in")

    asgi_scope = {"type": "http", "path": METADATA, "method": "GET", "headers": []}
    asyncio.run(Middleware(app, resource, ["a"])(asgi_scope, None, send))
    assert (sent[0]["status"], json.loads(sent[1]["body"])) == (200, expected)
    statuses: list[str] = []
    environ = {"PATH_INFO": METADATA, "REQUEST_METHOD": "GET"}
    body = wsgi.Middleware(app, resource, ["a"])(environ, lambda status, headers: statuses.append(status))
    assert (statuses, json.loads(b"".join(body))) == (["200 OK"], expected)
    # Other methods there are requests like every other one.
    list(wsgi.Middleware(app, resource)({**environ, "REQUEST_METHOD": "POST"}, lambda status, headers: statuses.append(status)))
    assert statuses[1].startswith("401")
    for audience in (
        "mail",
        "http://mail.example",
        "https://mail.example/",
        "https://u@mail.example",
        "https://m.example?x",
        "https://m.example#x",
    ):
        with pytest.raises(Unusable):
            Guard(f"unix:{fake.path}", audience, issuer="https://issuer.example")


def test_actions_of_a_token_are_for_who_asks_for_them(fake: Fake, guard: Guard) -> None:
    details = [{"type": "payment", "amount": "10.00"}]
    fake.say(200, **{**GOOD, "kind": "access-token", "subject": "dev|demo", "authorization_details": details, "approval_id": "ab"})
    caller = guard.check("a.b.c", actions=True)
    assert fake.asked[-1]["actions"] is True
    assert (caller.subject, caller.authorization_details, caller.approval_id) == ("dev|demo", tuple(details), "ab")
    fake.say(200, **GOOD)
    assert guard.check("a.b.c").authorization_details == ()
    assert "actions" not in fake.asked[-1]
    # What is no limit that somebody could read is no yes.
    for bad in ["x", [1], [{}], {"type": "payment"}]:
        fake.say(200, **{**GOOD, "authorization_details": bad})
        with pytest.raises(Refused) as caught:
            guard.check("a.b.c")
        assert caught.value.status == 503, bad


def test_fastapi_has_a_dependency(fake: Fake, guard: Guard) -> None:
    fastapi = pytest.importorskip("fastapi")
    pytest.importorskip("httpx")
    from fastapi.testclient import TestClient

    from mayfly.verify.fastapi import requires

    app = fastapi.FastAPI()

    @app.get("/search")
    async def search(caller: Caller = fastapi.Depends(requires("search:read", guard=guard))) -> dict[str, str]:
        assert caller.user is not None
        return {"for": caller.user.sub}

    client = TestClient(app)
    token = {"Authorization": "Bearer a.b.c"}
    assert client.get("/search", headers=token).json() == {"for": "demo"}
    assert client.get("/search").status_code == 401
    fake.deny("SCOPE_MISSING")
    refused = client.get("/search", headers=token)
    assert (refused.status_code, refused.headers["www-authenticate"]) == (
        403,
        'Bearer error="insufficient_scope", scope="search:read"',
    )
    fake.stop()
    assert client.get("/search", headers=token).status_code == 503


def test_starlette_and_fastapi_have_a_decorator(fake: Fake, guard: Guard) -> None:
    fastapi = pytest.importorskip("fastapi")
    pytest.importorskip("httpx")
    from fastapi.testclient import TestClient
    from starlette.endpoints import HTTPEndpoint
    from starlette.responses import PlainTextResponse
    from starlette.websockets import WebSocketDisconnect

    app = fastapi.FastAPI()
    entered: list[str] = []

    @app.get("/bare/{n}")
    @mayfly.requires("search:read", guard=guard)
    async def bare(n: int, q: str = "") -> dict[str, Any]:
        entered.append("bare")
        return {"n": n, "q": q}

    @app.get("/request")
    @mayfly.requires("search:read", "files:read", guard=guard)
    def threaded(request: Request) -> dict[str, str]:
        entered.append("request")
        return {"for": request.scope["mayfly"].user.sub}

    # A parameter of that name that is no request.
    @app.post("/named")
    @mayfly.requires(guard=guard)
    async def named(request: dict[str, int]) -> dict[str, int]:
        entered.append("named")
        return request

    @mayfly.requires("search:read", guard=guard)
    async def plain(request):  # type: ignore[no-untyped-def]
        entered.append("plain")
        return PlainTextResponse(request.scope["mayfly"].user.sub)

    class Point(HTTPEndpoint):
        @mayfly.requires("search:read", guard=guard)
        async def get(self, request: Request) -> PlainTextResponse:
            entered.append("point")
            return PlainTextResponse("point")

    @app.websocket("/ws")
    @mayfly.requires("search:read", guard=guard)
    async def live(websocket: WebSocket) -> None:
        entered.append("ws")
        await websocket.accept()
        await websocket.close()

    @mayfly.requires(guard=guard)
    async def nobody() -> None:
        entered.append("nobody")

    app.router.add_route("/plain", plain)
    app.router.add_route("/point", Point)
    client, token = TestClient(app), {"Authorization": "Bearer a.b.c"}
    asked: list[tuple[str, str, Any]] = [
        ("GET", "/bare/3?q=x", None),
        ("GET", "/request", None),
        ("POST", "/named", {"a": 1}),
        ("GET", "/plain", None),
        ("GET", "/point", None),
    ]
    texts = [client.request(method, path, json=body, headers=token).text for method, path, body in asked]
    assert texts == ['{"n":3,"q":"x"}', '{"for":"demo"}', '{"a":1}', "demo", "point"]
    with client.websocket_connect("/ws", headers=token):
        pass
    assert [question["scopes"] for question in fake.asked[:3]] == [["search:read"], ["search:read", "files:read"], []]
    assert entered == ["bare", "request", "named", "plain", "point", "ws"]
    entered.clear()

    def statuses(headers: dict[str, str]) -> set[int]:
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/ws", headers=headers):
            pass
        return {client.request(method, path, json=body, headers=headers).status_code for method, path, body in asked}

    assert statuses({}) == {401}
    assert client.get("/plain").headers["www-authenticate"] == "Bearer"
    fake.deny("SCOPE_MISSING")
    assert statuses(token) == {403}
    fake.stop()
    assert statuses(token) == {503}
    # Without a request there is no telling who calls: that is a mistake, and lets nobody in.
    with pytest.raises(TypeError, match="takes no request"):
        asyncio.run(nobody())
    with pytest.raises(TypeError, match="parentheses"):
        mayfly.requires(nobody)  # type: ignore[arg-type]
    assert entered == []


def test_flask_has_a_decorator_and_wsgi_a_middleware(fake: Fake, guard: Guard) -> None:
    flask = pytest.importorskip("flask")
    from mayfly.verify.flask import requires
    from mayfly.verify.wsgi import Middleware as Wsgi

    app = flask.Flask("test")

    @app.get("/search")
    @requires("search:read", guard=guard)
    def search() -> str:
        return str(flask.g.caller.user.sub)

    @app.get("/open")
    def opened() -> str:
        return str("mayfly.caller" in flask.request.environ)

    client, token = app.test_client(), {"Authorization": "Bearer a.b.c"}
    assert client.get("/search", headers=token).text == "demo"
    assert client.get("/search").status_code == 401
    fake.deny("SCOPE_MISSING")
    refused = client.get("/search", headers=token)
    assert (refused.status_code, refused.headers["Mayfly-Reason"]) == (403, "SCOPE_MISSING")
    app.wsgi_app = Wsgi(app.wsgi_app, guard, public=["/open"])
    assert client.get("/open").text == "False"
    assert client.get("/search").status_code == 401
    assert client.get("/open/../search").status_code == 401
    fake.stop()
    assert client.get("/search", headers=token).status_code == 503


def test_django_has_a_decorator(fake: Fake, guard: Guard) -> None:
    django = pytest.importorskip("django")
    from django.conf import settings

    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__)
        django.setup()
    from django.http import HttpResponse
    from django.test import RequestFactory

    from mayfly.verify.django import requires

    @requires("search:read", guard=guard)
    def view(request: Any) -> Any:
        return HttpResponse(request.caller.user.sub)

    @requires("search:read", guard=guard)
    async def aview(request: Any) -> Any:
        return HttpResponse(request.caller.user.sub)

    def both(**headers: str) -> list[Any]:
        request = RequestFactory().get("/", **headers)
        return [view(request), asyncio.run(aview(request))]

    assert [answer.content for answer in both(HTTP_AUTHORIZATION="Bearer a.b.c")] == [b"demo"] * 2
    assert [answer.status_code for answer in both()] == [401] * 2
    fake.deny("SCOPE_MISSING")
    assert [answer.status_code for answer in both(HTTP_AUTHORIZATION="Bearer a.b.c")] == [403] * 2
    fake.stop()
    assert [answer["Retry-After"] for answer in both(HTTP_AUTHORIZATION="Bearer a.b.c")] == ["1"] * 2


def test_grpc_has_an_interceptor(fake: Fake, guard: Guard) -> None:
    import grpc

    from mayfly.verify.grpc import Interceptor, caller

    def one(request: bytes, _: Any) -> bytes:
        user = caller().user
        return user.sub.encode() if user else b""

    def many(request: bytes, context: Any) -> Iterator[bytes]:
        yield from (request, request)

    handlers: Any = {
        "One": grpc.unary_unary_rpc_method_handler(one),
        "Many": grpc.unary_stream_rpc_method_handler(many),
        "Unlisted": grpc.unary_unary_rpc_method_handler(one),
        "Open": grpc.unary_unary_rpc_method_handler(lambda request, _: request),
    }
    scopes = {"/t.T/One": ["search:read"], "/t.T/Many": ["search:read"]}
    running = grpc.server(futures.ThreadPoolExecutor(4), interceptors=[Interceptor(guard, scopes, public=["/t.T/Open"])])
    running.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", handlers),))
    port = running.add_insecure_port("127.0.0.1:0")
    running.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        calls: Any = channel

        def code(method: str, *metadata: tuple[str, str], stream: bool = False) -> str:
            try:
                if stream:
                    return ",".join(item.decode() for item in calls.unary_stream(method)(b"x", metadata=metadata, timeout=10))
                said: bytes = calls.unary_unary(method)(b"x", metadata=metadata, timeout=10)
                return said.decode()
            except grpc.RpcError as e:
                error: Any = e
                reasons = dict(error.trailing_metadata() or ())
                return f"{error.code().name} {reasons.get('mayfly-reason')}"

        token = ("authorization", "Bearer a.b.c")
        try:
            assert code("/t.T/One", token) == "demo"
            assert code("/t.T/Many", token, stream=True) == "x,x"
            assert code("/t.T/Open") == "x"
            assert code("/t.T/One") == "UNAUTHENTICATED CREDENTIAL_MISSING"
            assert code("/t.T/Many", stream=True) == "UNAUTHENTICATED CREDENTIAL_MISSING"
            assert code("/t.T/One", token, token) == "UNAUTHENTICATED TOKEN_MALFORMED"
            assert code("/t.T/Unlisted", token) == "PERMISSION_DENIED CALLER_NOT_AUTHORIZED"
            assert code("/t.T/Nothing", token) == "UNIMPLEMENTED None"
            fake.deny("SCOPE_MISSING")
            assert code("/t.T/One", token) == "PERMISSION_DENIED SCOPE_MISSING"
            fake.stop()
            assert code("/t.T/One", token) == "UNAVAILABLE GUARD_UNAVAILABLE"
        finally:
            running.stop(None).wait()


def test_the_real_guard_lets_an_agent_pass_until_it_is_revoked(dev: Dev, until: Callable[..., None]) -> None:
    if subprocess.run([dev.binary, "guard", "--help"], capture_output=True).returncode != 0:
        pytest.skip("this `mayfly` has no guard")
    path = dev.folder / "guard.sock"
    (dev.folder / "t").write_text(json.loads(dev.cli("join", "guard", "-o", "json"))["token"])
    dev.cli("redeem", "--ticket-file", "t", "--out", "g")
    running = subprocess.Popen(
        [dev.binary, "guard", "--as", "g", "--listen", f"unix:{path}"],
        cwd=dev.folder,
        env=dev.environment(),
        stdin=subprocess.DEVNULL,
    )
    try:
        guard = Guard(f"unix:{path}", SEARCH)
        with dev.spawn("researcher", scopes=["search:read"]) as agent:
            token = agent.token(SEARCH)

            def passes() -> bool:
                try:
                    return guard.check(token, ["search:read"]).agent_id == agent.id
                except Refused as e:
                    assert e.status == 503, e
                    return False

            until(passes)
            caller = guard.check(token)
            assert (caller.user, caller.chain, caller.scopes, caller.mode) == (agent.user, agent.chain, agent.scopes, "delegated")
            for credential, scopes, status, code in [
                (token, ["mail:send"], 403, "SCOPE_MISSING"),
                (agent.token("https://mail.example"), [], 401, "CREDENTIAL_AUDIENCE"),
                (token[:-2] + ("AA" if token[-2:] != "AA" else "BB"), [], 401, "CREDENTIAL_UNTRUSTED"),
                ("a.b.c", [], 401, "CREDENTIAL_MALFORMED"),
            ]:
                with pytest.raises(Refused) as caught:
                    guard.check(credential, scopes)
                assert (caught.value.status, caught.value.code) == (status, code)
            dev.revoke(agent=agent.id)

            def refused() -> bool:
                try:
                    guard.check(token)
                except Refused as e:
                    assert (e.status, e.code) == (401, "CREDENTIAL_REVOKED")
                    return True
                return False

            until(refused)
    finally:
        running.terminate()
        running.wait(20)
    with pytest.raises(Refused) as caught:
        guard.check(token)
    assert caught.value.status == 503
