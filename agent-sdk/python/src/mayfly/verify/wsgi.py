"""Middleware for every WSGI framework: `app = Middleware(app, Guard(…), ["search:read"])`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import Any

from .guard import Guard, Refused

#: Where the `Caller` is in the environment of a request.
KEY = "mayfly.caller"


class Middleware:
    """Lets requests of agents pass that have all of `scopes`, and puts the `Caller` into `environ["mayfly.caller"]`.

    Others get 401, 403 or 503. `public`: paths that need no agent, such as `/healthz`, exactly. The metadata of the service
    (RFC 9728) is served to everybody if the guard has an `issuer`.
    """

    def __init__(self, app: Any, guard: Guard, scopes: Sequence[str] = (), *, public: Sequence[str] = ()) -> None:
        self._app, self._guard, self._scopes, self._public = app, guard, tuple(scopes), frozenset(public)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        environ.pop(KEY, None)
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        if path == self._guard.metadata_path and environ.get("REQUEST_METHOD") in ("GET", "HEAD"):
            body = json.dumps(self._guard.metadata(self._scopes)).encode()
            start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
            return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]
        if path not in self._public:
            try:
                environ[KEY] = self._guard.check_header(authorization(environ), self._scopes)
            except Refused as e:
                return refuse(start_response, e)
        passed: Iterable[bytes] = self._app(environ, start_response)
        return passed


def authorization(environ: dict[str, Any]) -> list[str]:
    """The `Authorization` header. Servers join several with a comma, which no bearer token has."""
    value = environ.get("HTTP_AUTHORIZATION")
    return [value] if value else []


def refuse(start_response: Callable[..., Any], refused: Refused) -> Iterable[bytes]:
    """Answers a request that is refused."""
    headers = {**refused.headers, "Content-Type": "application/json", "Content-Length": str(len(refused.body))}
    start_response(f"{refused.status} {HTTPStatus(refused.status).phrase}", list(headers.items()))
    return [refused.body]
