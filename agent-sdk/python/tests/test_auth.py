"""One object puts a token on the requests of httpx, requests, aiohttp and gRPC."""

from __future__ import annotations

import asyncio
import http.server
import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import pytest

import mayfly
from mayfly.testing import Dev

SEARCH = "https://search.example"


class Seen(http.server.BaseHTTPRequestHandler):
    """Keeps what it is sent; `/to/PORT` redirects to another origin."""

    seen: list[str | None]

    def do_GET(self) -> None:
        type(self).seen.append(self.headers["Authorization"])
        there = self.path.startswith("/to/")
        self.send_response(302 if there else 200)
        if there:
            self.send_header("Location", f"http://localhost:{self.path[4:]}/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[int, list[str | None]]]:
    seen: list[str | None] = []
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Seen,), {"seen": seen}))
    thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield running.server_address[1], seen
    running.shutdown()
    running.server_close()


@pytest.fixture(scope="module")
def agent(dev: Dev) -> Iterator[mayfly.Identity]:
    with dev.spawn("researcher") as me:
        yield me


@pytest.fixture
def gone(dev: Dev) -> mayfly.Identity:
    me = dev.spawn("researcher").start()
    me.token(SEARCH)
    me.end()
    return me


@pytest.mark.parametrize("name", ["httpx", "httpx2"])
def test_httpx_sends_the_token_and_nothing_after_the_end(
    agent: mayfly.Identity, gone: mayfly.Identity, server: Any, name: str
) -> None:
    httpx = pytest.importorskip(name)
    port, seen = server
    url, token = f"http://127.0.0.1:{port}/", f"Bearer {agent.token(SEARCH)}"
    with httpx.Client(auth=agent.auth(SEARCH)) as client:
        assert client.get(url).status_code == 200
        # Another origin gets no token.
        client.get(f"{url}to/{port}", follow_redirects=True)

    async def work() -> None:
        async with httpx.AsyncClient(auth=agent.auth(SEARCH)) as client:
            assert (await client.get(url)).status_code == 200
        async with httpx.AsyncClient(auth=gone.auth(SEARCH)) as client:
            with pytest.raises(mayfly.Revoked):
                await client.get(url)

    asyncio.run(work())
    assert seen == [token, token, None, token]
    assert isinstance(agent.auth(SEARCH), httpx.Auth)
    with pytest.raises(mayfly.Revoked):
        httpx.get(url, auth=gone.auth(SEARCH))
    assert len(seen) == 4


def test_requests_sends_the_token_and_nothing_after_the_end(agent: mayfly.Identity, gone: mayfly.Identity, server: Any) -> None:
    requests = pytest.importorskip("requests")
    port, seen = server
    url = f"http://127.0.0.1:{port}/"
    assert requests.get(url, auth=agent.auth(SEARCH), timeout=10).status_code == 200
    requests.get(f"{url}to/{port}", auth=agent.auth(SEARCH), timeout=10)
    token = f"Bearer {agent.token(SEARCH)}"
    assert seen == [token, token, None]
    with pytest.raises(mayfly.Revoked):
        requests.get(url, auth=gone.auth(SEARCH), timeout=10)
    assert len(seen) == 3


def test_aiohttp_sends_the_token_and_nothing_after_the_end(agent: mayfly.Identity, gone: mayfly.Identity, server: Any) -> None:
    aiohttp = pytest.importorskip("aiohttp")
    port, seen = server
    url = f"http://127.0.0.1:{port}/"

    async def work() -> None:
        async with aiohttp.ClientSession(middlewares=[agent.auth(SEARCH)]) as session:
            async with session.get(url) as response:
                assert response.status == 200
            async with session.get(f"{url}to/{port}") as response:
                assert response.status == 200
        async with aiohttp.ClientSession(middlewares=[gone.auth(SEARCH)]) as session:
            with pytest.raises(mayfly.Revoked):
                await session.get(url)

    asyncio.run(work())
    token = f"Bearer {agent.token(SEARCH)}"
    assert seen == [token, token, None]


@pytest.mark.parametrize("name", ["httpx", "httpx2"])
def test_httpx_speaks_mtls_by_spiffe_id(agent: mayfly.Identity, dev: Dev, name: str) -> None:
    httpx = pytest.importorskip(name)
    with dev.spawn("worker") as worker:
        seen: list[str | None] = []
        running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Seen,), {"seen": seen}))
        running.socket = worker.ssl_context(agent.id, server=True).wrap_socket(
            running.socket, server_side=True, do_handshake_on_connect=False
        )
        running.handle_error = lambda *_: None  # type: ignore[method-assign]
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        url = f"https://127.0.0.1:{running.server_address[1]}/"
        try:
            assert httpx.get(url, verify=agent.ssl_context(worker.id), timeout=10).status_code == 200
            with pytest.raises(httpx.ConnectError, match="another was asked for"):
                httpx.get(url, verify=agent.ssl_context(agent.id), timeout=10)
            assert len(seen) == 1
        finally:
            running.shutdown()
            running.server_close()


def test_grpc_calls_carry_the_token(agent: mayfly.Identity, gone: mayfly.Identity) -> None:
    import grpc

    seen: list[str] = []

    def answer(request: bytes, context: Any) -> bytes:
        seen.extend(value for key, value in context.invocation_metadata() if key == "authorization")
        return request

    handler: Any = grpc.unary_unary_rpc_method_handler(answer)
    running = grpc.server(futures.ThreadPoolExecutor(2))
    running.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", {"Say": handler}),))
    port = running.add_secure_port("127.0.0.1:0", grpc.local_server_credentials())
    running.start()

    def say(me: mayfly.Identity, audience: str) -> bytes:
        credentials = grpc.composite_channel_credentials(
            grpc.local_channel_credentials(), grpc.metadata_call_credentials(me.auth(audience))
        )
        with grpc.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
            call: Any = channel.unary_unary("/test.Echo/Say")
            said: bytes = call(b"hello", timeout=20)
            return said

    try:
        fresh = "https://files.example"
        assert say(agent, fresh) == say(agent, fresh) == b"hello"
        assert seen == [f"Bearer {agent.token(fresh)}"] * 2
        with pytest.raises(grpc.RpcError):
            say(gone, SEARCH)
        assert len(seen) == 2
    finally:
        running.stop(None)
