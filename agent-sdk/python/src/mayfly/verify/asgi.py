"""Middleware for every ASGI framework: `app = Middleware(app, Guard(…), ["search:read"])`."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from .guard import Guard, Refused

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]
#: Where the `Caller` is in the scope of a request.
KEY = "mayfly"


class Middleware:
    """Lets requests of agents pass that have all of `scopes`, and puts the `Caller` into `scope["mayfly"]`.

    Others get 401, 403 or 503, a websocket is closed. `public`: paths that need no agent, such as `/healthz`, exactly. The metadata
    of the service (RFC 9728) is served to everybody if the guard has an `issuer`.
    """

    def __init__(self, app: App, guard: Guard, scopes: Sequence[str] = (), *, public: Sequence[str] = ()) -> None:
        self._app, self._guard, self._scopes, self._public = app, guard, tuple(scopes), frozenset(public)

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        # What a server or an outer layer put there is not ours.
        scope.pop(KEY, None)
        if scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] in self._public):
            await self._app(scope, receive, send)
            return
        if scope["type"] == "http" and self._guard.metadata_path == scope["path"] and scope["method"] in ("GET", "HEAD"):
            body = json.dumps(self._guard.metadata(self._scopes)).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
            return
        try:
            scope[KEY] = await self._guard.acheck_header(authorization(scope), self._scopes)
        except Refused as e:
            await refuse(scope, send, e)
            return
        await self._app(scope, receive, send)


def authorization(scope: Scope) -> list[str]:
    """All `Authorization` headers of a request."""
    return [value.decode("latin-1") for name, value in scope.get("headers", ()) if name.lower() == b"authorization"]


async def refuse(scope: Scope, send: Any, refused: Refused) -> None:
    """Answers a request that is refused."""
    if scope["type"] == "websocket":
        # Before it is accepted, the server answers with 403.
        await send({"type": "websocket.close", "code": 1008, "reason": refused.code})
        return
    headers = {**refused.headers, "Content-Type": "application/json", "Content-Length": str(len(refused.body))}
    encoded = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": encoded})
    await send({"type": "http.response.body", "body": refused.body})
