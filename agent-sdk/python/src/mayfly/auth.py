"""Puts a token on each request: one object for httpx, requests, aiohttp and gRPC."""

from __future__ import annotations

import importlib
import threading
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .identity import Identity


class Auth:
    """Asks the identity for a token before each request; `mayfly.Revoked` is raised before anything is sent.

    - httpx and httpx2: `httpx.Client(auth=…)` and `httpx.AsyncClient(auth=…)`
    - requests: `requests.get(url, auth=…)`
    - aiohttp: `aiohttp.ClientSession(middlewares=[…])`. After a redirect to another origin there is no token.
    - gRPC: `grpc.metadata_call_credentials(…)`
    """

    requires_request_body = False
    requires_response_body = False

    def __init__(self, identity: Identity, audience: str, scopes: tuple[str, ...] | None = None) -> None:
        self._identity, self._asked = identity, (audience, scopes)
        #: Of the first request of aiohttp, which does not say what is a redirect.
        self._origin: Any = None

    def sync_auth_flow(self, request: Any) -> Iterator[Any]:
        """For `httpx.Client`."""
        self._put(request, self._identity.token(*self._asked))
        yield request

    async def async_auth_flow(self, request: Any) -> AsyncIterator[Any]:
        """For `httpx.AsyncClient`."""
        self._put(request, await self._identity.atoken(*self._asked))
        yield request

    def __call__(self, request: Any, then: Any = None) -> Any:
        """For requests with one argument; for aiohttp and gRPC with two."""
        if then is None:
            self._put(request, self._identity.token(*self._asked))
            return request
        if hasattr(request, "service_url"):
            return self._for_grpc(then)
        return self._for_aiohttp(request, then)

    async def _for_aiohttp(self, request: Any, handler: Any) -> Any:
        origin = request.url.origin()
        self._origin = self._origin or origin
        if origin == self._origin:
            self._put(request, await self._identity.atoken(*self._asked))
        return await handler(request)

    def _for_grpc(self, callback: Any) -> None:
        token = self._identity.cached(*self._asked)
        if token is not None:
            callback((("authorization", f"Bearer {token}"),), None)
            return

        def mint() -> None:
            try:
                callback((("authorization", f"Bearer {self._identity.token(*self._asked)}"),), None)
            except Exception as e:
                callback((), e)

        # grpcio waits for nothing here, and minting is a call of its own.
        threading.Thread(target=mint, name="mayfly-mint", daemon=True).start()

    @staticmethod
    def _put(request: Any, token: str) -> None:
        request.headers["Authorization"] = f"Bearer {token}"


def auth(identity: Identity, audience: str, scopes: tuple[str, ...] | None = None) -> Any:
    """An `Auth` that is also an `httpx.Auth` and an `httpx2.Auth`, where these are installed."""
    bases: list[type] = [Auth]
    for name in ("httpx", "httpx2"):
        try:
            bases.append(importlib.import_module(name).Auth)
        except ImportError:
            continue
    return type("Auth", tuple(bases), {"__doc__": Auth.__doc__})(identity, audience, scopes)
