"""The question to the guard, and its answer."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..binding import User
from ..errors import MayflyError, Unusable

#: Where the guard listens, unless that is given: `unix:/run/mayfly-guard.sock` or `127.0.0.1:9191`.
ADDRESS = "MAYFLY_GUARD"
#: Audience of this service, unless that is given.
AUDIENCE = "MAYFLY_AUDIENCE"
#: Kept open for the next request.
_IDLE = 16
#: Largest answer, in bytes.
_LARGEST = 1 << 20
#: What another credential does not cure; whatever else is refused with 403 by the guard is a credential that is not valid.
_FORBIDDEN = {"SCOPE_MISSING", "CALLER_NOT_AN_AGENT", "CALLER_NOT_AUTHORIZED"}
_STALE = "CREDENTIAL_STALE"
#: A resource of OAuth, as the issuer and the guard take it.
_RESOURCE = re.compile(r"(?P<origin>https://[^/?#@\"\\\s]+)(?P<path>(?:/[^?#@\"\\\s]*[^/?#@\"\\\s])?)", re.ASCII)
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")


@dataclass(frozen=True)
class Caller:
    """The agent that made a request. Its credential was valid, and not revoked, a moment ago."""

    #: SPIFFE ID.
    agent_id: str
    #: For whom it acts; `None` for an autonomous agent.
    user: User | None
    #: SPIFFE IDs from the parent up to the root workload.
    chain: tuple[str, ...]
    scopes: tuple[str, ...]
    #: 64 hex digits; `None` for an autonomous agent.
    delegation_id: str | None
    #: `delegated` or `autonomous`.
    mode: str
    #: When the credential expires.
    expires_at: datetime
    #: Up to which revision every revocation is known.
    revision: int
    #: The `sub` of an access token; `None` for a JWT-SVID.
    subject: str | None = None
    #: What an access token is limited to (RFC 9396), each with its `type`: only for who asked with `actions=True`.
    authorization_details: tuple[dict[str, Any], ...] = ()
    #: The approval that it uses; `None` if it needs none.
    approval_id: str | None = None


class Refused(MayflyError):
    """A request is refused: `status` is 401, 403 or 503, `code` the reason, and `headers` are for the response."""

    def __init__(self, status: int, code: str, hint: str, scopes: Sequence[str] = ()) -> None:
        super().__init__(code, hint, 1.0 if status == 503 else None)
        self.status, self.scopes = status, tuple(scopes)
        self.transient = status == 503
        #: URL of the metadata of this service (RFC 9728), for the challenge; `None` if it has none.
        self.resource_metadata: str | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Refused, (self.status, self.code, self.hint, self.scopes)

    @property
    def headers(self) -> dict[str, str]:
        """`WWW-Authenticate` (RFC 6750), `Mayfly-Reason`, and `Retry-After` in seconds where that helps."""
        headers = {"Mayfly-Reason": self.code, "Cache-Control": "no-store"}
        if self.status == 503:
            headers["Retry-After"] = "1"
        elif self.code == "SCOPE_MISSING":
            plain = " ".join(scope for scope in self.scopes if _SCOPE.fullmatch(scope))
            headers["WWW-Authenticate"] = f'Bearer error="insufficient_scope", scope="{plain}"'
        elif self.code == "CREDENTIAL_MISSING":
            headers["WWW-Authenticate"] = "Bearer"
        elif self.status == 401:
            headers["WWW-Authenticate"] = 'Bearer error="invalid_token"'
        if self.resource_metadata is not None and "WWW-Authenticate" in headers:
            challenge, pointer = headers["WWW-Authenticate"], f'resource_metadata="{self.resource_metadata}"'
            headers["WWW-Authenticate"] = f"{challenge} {pointer}" if challenge == "Bearer" else f"{challenge}, {pointer}"
        return headers

    @property
    def body(self) -> bytes:
        """JSON for the response. A stranger learns no more than the code."""
        return json.dumps({"error": self.code}).encode()


class Guard:
    """Asks a `mayfly guard`. Threads, tasks and forked processes may share it.

    `address`: `unix:/path` or `host:port` on loopback, by default `$MAYFLY_GUARD`. `audience`: that of this service, which tokens
    must be for, by default `$MAYFLY_AUDIENCE`. `timeout`: seconds for one answer. Raises `Unusable` if one is missing.
    `issuer`: URL of the issuer, if this service is a resource of OAuth, such as an MCP server: its audience is then an https URL,
    each challenge says where its metadata is (RFC 9728), and middleware serves that.
    """

    def __init__(
        self, address: str | None = None, audience: str | None = None, *, timeout: float = 2.0, issuer: str | None = None
    ) -> None:
        address = address or os.environ.get(ADDRESS, "")
        audience = audience or os.environ.get(AUDIENCE, "")
        if not audience:
            raise Unusable("audience", "say which audience tokens must be for: audience=…, or MAYFLY_AUDIENCE")
        self._path = address[5:] if address.startswith("unix:") else None
        host, _, port = address.removeprefix("http://").rstrip("/").rpartition(":")
        if self._path is None and not (port.isdecimal() and host in ("127.0.0.1", "localhost", "[::1]")):
            raise Unusable("guard", f"`{address[:256]}` is not a guard: write unix:/path or 127.0.0.1:port, or set {ADDRESS}")
        if self._path is not None and not self._path.startswith("/"):
            raise Unusable("guard", f"`{address[:256]}`: the path of a socket is absolute")
        self._host, self._port = host.strip("[]"), int(port) if self._path is None else 0
        self.audience, self._timeout, self.issuer = audience, timeout, issuer
        resource = _RESOURCE.fullmatch(audience)
        if issuer is not None and resource is None:
            raise Unusable("audience", f"`{audience[:256]}` is no https URL without user, query, fragment and a slash at its end")
        origin, path = (resource["origin"], resource["path"]) if resource is not None else ("", "")
        #: Where the metadata is to be served; `None` without `issuer`.
        self.metadata_path = None if issuer is None else f"/.well-known/oauth-protected-resource{path}"
        self._pointer = None if issuer is None else f"{origin}{self.metadata_path}"
        self._pid = os.getpid()
        #: Guards the idle connections, for a look or a change.
        self._lock = threading.Lock()
        self._idle: list[http.client.HTTPConnection] = []

    def metadata(self, scopes: Sequence[str] = ()) -> dict[str, Any]:
        """The metadata of this service (RFC 9728): where to get tokens for it, and with which scopes. For everybody to read."""
        said: dict[str, Any] = {
            "resource": self.audience,
            "authorization_servers": [self.issuer],
            "bearer_methods_supported": ["header"],
        }
        return {**said, "scopes_supported": list(scopes)} if scopes else said

    def check(self, credential: str, scopes: Sequence[str] = (), *, actions: bool = False) -> Caller:
        """Who presents this JWT-SVID or access token, if it is valid now, is not revoked, and has all of these scopes.

        With `actions` the service reads `authorization_details`; without, a token that has some is refused. Raises `Refused`.
        """
        try:
            return self._check(credential, scopes, actions)
        except Refused as e:
            e.resource_metadata = self._pointer
            raise

    def _check(self, credential: str, scopes: Sequence[str], actions: bool) -> Caller:
        question: dict[str, Any] = {"credential": credential, "audience": self.audience, "scopes": list(scopes)}
        if actions:
            question["actions"] = True
        status, answer = self._ask(json.dumps(question).encode())
        if status == 200 and answer.get("decision") is True:
            return _caller(answer, scopes)
        reason = answer.get("reason")
        if status == 403 and answer.get("decision") is False and isinstance(reason, str):
            hint = str(answer.get("hint", "the credential is refused"))
            if reason == _STALE:
                raise Refused(503, reason, hint)
            raise Refused(403 if reason in _FORBIDDEN else 401, reason, hint, scopes)
        if status in (400, 413):
            # The guard cannot read what the client sent as a credential.
            raise Refused(401, "CREDENTIAL_MALFORMED", "the credential cannot be read", scopes)
        raise _away(f"the guard answers with {status}")

    def check_header(self, authorization: Sequence[str], scopes: Sequence[str] = (), *, actions: bool = False) -> Caller:
        """The same for all `Authorization` headers of a request, of which there must be exactly one. Raises `Refused`."""
        return self.check(self._bearer(authorization, scopes), scopes, actions=actions)

    async def acheck_header(self, authorization: Sequence[str], scopes: Sequence[str] = (), *, actions: bool = False) -> Caller:
        """The same in asyncio."""
        credential = self._bearer(authorization, scopes)
        return await asyncio.to_thread(self.check, credential, scopes, actions=actions)

    def _bearer(self, authorization: Sequence[str], scopes: Sequence[str]) -> str:
        try:
            return bearer(authorization, scopes)
        except Refused as e:
            e.resource_metadata = self._pointer
            raise

    def close(self) -> None:
        """Closes the connections that are kept open; the next question opens another."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _ask(self, body: bytes) -> tuple[int, dict[str, Any]]:
        for kept in (True, False):
            connection = self._take() if kept else None
            if kept and connection is None:
                continue
            try:
                return self._exchange(connection or self._connect(), body)
            except (OSError, http.client.HTTPException, ValueError) as e:
                # A connection that was kept may have been closed meanwhile: once more, over a new one.
                timed_out = isinstance(e, TimeoutError)
                if not kept or timed_out:
                    raise _away(str(e) or type(e).__name__) from None
        raise _away("there is no connection")

    def _exchange(self, connection: http.client.HTTPConnection, body: bytes) -> tuple[int, dict[str, Any]]:
        try:
            connection.request("POST", "/verify", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            text = response.read(_LARGEST)
            whole = response.isclosed()
            answer = json.loads(text)
        except BaseException:
            connection.close()
            raise
        if whole and not response.will_close:
            self._give(connection)
        else:
            connection.close()
        return response.status, answer if isinstance(answer, dict) else {}

    def _connect(self) -> http.client.HTTPConnection:
        if self._path is not None:
            return _Unix(self._path, self._timeout)
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)

    def _take(self) -> http.client.HTTPConnection | None:
        if os.getpid() != self._pid:
            # Forked: the parent goes on with these connections.
            self._pid, self._lock, self._idle = os.getpid(), threading.Lock(), []
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _give(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if len(self._idle) < _IDLE:
                self._idle.append(connection)
                return
        connection.close()


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(self._path)
        except BaseException:
            self.sock.close()
            raise


def bearer(authorization: Sequence[str], scopes: Sequence[str] = ()) -> str:
    """The token of the one `Authorization` header. Raises `Refused`."""
    if not authorization:
        raise Refused(401, "CREDENTIAL_MISSING", "show a bearer token", scopes)
    scheme, _, token = authorization[0].strip().partition(" ")
    token = token.strip()
    if len(authorization) > 1 or scheme.lower() != "bearer" or not re.fullmatch(r"[A-Za-z0-9._~+/=-]{1,16384}", token):
        raise Refused(401, "TOKEN_MALFORMED", "there must be one authorization header, with a bearer token", scopes)
    return token


def _away(why: str) -> Refused:
    return Refused(503, "GUARD_UNAVAILABLE", f"it is not known whether the credential is valid: {why}; check that the guard runs")


def _caller(answer: dict[str, Any], scopes: Sequence[str]) -> Caller:
    """Reads a positive answer strictly: what is not as it should be is no yes."""
    try:
        if answer.get("agent_id") is None:
            raise Refused(403, "CALLER_NOT_AN_AGENT", "only agents may call this", scopes)
        user = answer["user"]
        caller = Caller(
            _text(answer["agent_id"]),
            None if user is None else User(_text(user["iss"]), _text(user["sub"])),
            tuple(map(_text, answer["chain"])),
            tuple(map(_text, answer["scopes"])),
            None if answer["delegation_id"] is None else _text(answer["delegation_id"]),
            _text(answer["mode"]),
            datetime.fromisoformat(_text(answer["expires_at"]).replace("Z", "+00:00")),
            int(answer["revision"]),
            None if answer.get("subject") is None else _text(answer["subject"]),
            tuple(_detail(detail) for detail in answer.get("authorization_details") or ()),
            None if answer.get("approval_id") is None else _text(answer["approval_id"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise _away(f"its answer cannot be read: {e}") from None
    missing = [scope for scope in scopes if scope not in caller.scopes]
    if missing:
        raise Refused(403, "SCOPE_MISSING", f"the agent lacks the scope `{missing[0]}`", scopes)
    return caller


def _detail(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise ValueError("an authorization detail has no type")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("a field is no text")
    return value
