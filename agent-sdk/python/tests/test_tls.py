"""mTLS by SPIFFE ID between agents of a real issuer: who is admitted, who is not, and what rotates."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import mayfly
from mayfly.testing import Dev

Until = Callable[..., None]
TD = "spiffe://dev.mayfly.test"


@pytest.fixture(scope="module")
def agent(dev: Dev) -> Iterator[mayfly.Identity]:
    with dev.spawn("researcher") as me:
        yield me


@pytest.fixture(scope="module")
def worker(dev: Dev) -> Iterator[mayfly.Identity]:
    with dev.spawn("worker") as me:
        yield me


@contextmanager
def echo(context: ssl.SSLContext) -> Iterator[tuple[int, list[str]]]:
    """A server that returns what it gets, and lists what went wrong."""
    listener = socket.create_server(("127.0.0.1", 0))
    wrong: list[str] = []

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            plain.settimeout(10)
            try:
                with context.wrap_socket(plain, server_side=True) as tls:
                    while data := tls.recv(1024):
                        tls.sendall(data)
            except (OSError, mayfly.MayflyError) as e:
                wrong.append(str(e))
                plain.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], wrong
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


def talk(context: ssl.SSLContext, port: int, text: bytes = b"hello", **how: Any) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 10) as plain, context.wrap_socket(plain, **how) as tls:
        tls.sendall(text)
        return tls.recv(1024)


def test_each_end_sees_the_one_it_asked_for(agent: mayfly.Identity, worker: mayfly.Identity) -> None:
    with echo(agent.ssl_context(f"{TD}/agent/worker/", server=True)) as (port, wrong):
        for peer in (agent.id, f"{TD}/agent/researcher/", TD, lambda id: id == agent.id):
            assert talk(worker.ssl_context(peer), port) == b"hello"
            assert talk(worker.ssl_context(peer), port, server_hostname="whatever.example") == b"hello"
        assert wrong == []


def test_a_client_says_nothing_to_another_server(agent: mayfly.Identity, worker: mayfly.Identity) -> None:
    heard: list[bytes] = []
    for peer in (worker.id, f"{TD}/agent/worker/", f"{TD}/issuer", lambda _: False):
        with echo(agent.ssl_context(TD, server=True)) as (port, _):
            context = worker.ssl_context(peer)
            with pytest.raises(ssl.SSLCertVerificationError, match="another was asked for"):
                talk(context, port)
            # A handshake that is left to the first read or write is checked as well.
            with socket.create_connection(("127.0.0.1", port), 10) as plain:
                lazy = context.wrap_socket(plain, do_handshake_on_connect=False)
                for use in (lambda: lazy.send(b"x"), lambda: lazy.recv(1), lambda: lazy.sendall(b"x"), lambda: lazy.write(b"x")):
                    with pytest.raises((ssl.SSLError, OSError, ValueError)):
                        use()
    assert heard == []


def test_a_server_admits_nobody_else(agent: mayfly.Identity, worker: mayfly.Identity, until: Until) -> None:
    with echo(agent.ssl_context(worker.id, server=True)) as (port, wrong):
        assert talk(worker.ssl_context(agent.id), port) == b"hello"
        for stranger in (agent.ssl_context(TD), _anonymous()):
            with pytest.raises((OSError, AssertionError)):
                assert talk(stranger, port) == b"hello"
        until(lambda: len(wrong) == 2)
        assert "another was asked for" in wrong[0]


def _anonymous() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def test_a_foreign_issuer_of_the_same_name_proves_nobody(agent: mayfly.Identity, until: Until) -> None:
    from mayfly.testing import issuer

    with issuer() as foreign, foreign.spawn("worker") as impostor:
        assert impostor.trust_domain == agent.trust_domain
        with echo(agent.ssl_context(TD, server=True)) as (port, wrong):
            with pytest.raises((OSError, AssertionError)):
                assert talk(impostor.ssl_context(TD), port) == b"hello"
            until(lambda: wrong)
        with echo(impostor.ssl_context(TD, server=True)) as (port, _), pytest.raises(ssl.SSLCertVerificationError):
            talk(agent.ssl_context(TD), port)
    with pytest.raises(mayfly.Unusable, match="no bundle"):
        agent.ssl_context("spiffe://other.example/x")


def test_a_context_cannot_be_made_weaker_by_what_it_is_given_to(agent: mayfly.Identity, worker: mayfly.Identity) -> None:
    context = worker.ssl_context(worker.id)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_default_certs()
    context.load_verify_locations(cadata="nothing")
    with pytest.raises(ssl.SSLError):
        context.load_cert_chain("nothing")
    with echo(agent.ssl_context(TD, server=True)) as (port, _), pytest.raises(ssl.SSLCertVerificationError):
        talk(context, port)


def test_no_session_is_resumed(agent: mayfly.Identity, worker: mayfly.Identity) -> None:
    context = worker.ssl_context(agent.id)
    with echo(agent.ssl_context(worker.id, server=True)) as (port, _):
        with socket.create_connection(("127.0.0.1", port), 10) as plain, context.wrap_socket(plain) as tls:
            tls.sendall(b"x")
            tls.recv(1)
            session = tls.session
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", port), 10) as plain, context.wrap_socket(plain, session=session) as tls:
                tls.sendall(b"x")
                tls.recv(1)
                assert not tls.session_reused


def test_asyncio_streams_are_checked_too(agent: mayfly.Identity, worker: mayfly.Identity) -> None:
    async def echo_back(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(100))
        await writer.drain()
        writer.close()

    async def work() -> None:
        ours = agent.ssl_context(worker.id, server=True)
        async with await asyncio.start_server(echo_back, "127.0.0.1", 0, ssl=ours) as server:
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=worker.ssl_context(agent.id))
            writer.write(b"hello")
            assert await reader.read(100) == b"hello"
            writer.close()
            with pytest.raises(ssl.SSLCertVerificationError):
                await asyncio.open_connection("127.0.0.1", port, ssl=worker.ssl_context(worker.id))

    asyncio.run(work())


def test_new_connections_follow_the_rotation_and_end_with_the_identity(dev: Dev, until: Until) -> None:
    def expiry(context: ssl.SSLContext, port: int) -> str:
        with socket.create_connection(("127.0.0.1", port), 10) as plain, context.wrap_socket(plain) as tls:
            found = tls.getpeercert()
            assert found is not None
            tls.sendall(b"x")
            tls.recv(1)
            return str(found["notAfter"])

    with dev.spawn("quick") as server, dev.spawn("quick") as client:
        theirs, ours = server.ssl_context(client.id, server=True), client.ssl_context(server.id)
        with echo(theirs) as (port, wrong):
            seen: set[str] = set()
            deadline = time.monotonic() + 60
            while len(seen) < 3:
                seen.add(expiry(ours, port))
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert wrong == []
            client.end()
            with pytest.raises(mayfly.Revoked):
                talk(ours, port)
            dev.revoke(agent=server.id)
            until(lambda: server.ended)
            with dev.spawn("quick") as other, pytest.raises(OSError):
                talk(other.ssl_context(TD), port)
            until(lambda: any("AGENT_REVOKED" in why for why in wrong))
