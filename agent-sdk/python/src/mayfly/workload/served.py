"""An identity that a Workload API serves and renews; a thread follows it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc

from .. import oauth, pace
from ..certificates import Credential, read_key, split, split_id
from ..errors import Denied, MayflyError, NoIdentity, Revoked, Unavailable, Unusable
from ..issuer import END, EXCHANGE, Connection, Issuer, error_of
from ..keeper import Current, Keeper, log, no_issuer
from ..own import exchanged
from ..tls import of_issuer
from ..tokens import claims_of
from ..v1 import mayfly_pb2 as v1
from . import workloadapi_pb2 as api
from .endpoint import target

_OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1), ("grpc.default_authority", "localhost")]
_HEADER = (("workload.spiffe.io", "true"),)
_NEVER = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED}


class Served(Keeper):
    """Follows a Workload API. It renews nothing itself. An identity that was withdrawn may come back."""

    def __init__(self, endpoint: str, patience: float, server: str | None) -> None:
        super().__init__()
        self._channel = grpc.insecure_channel(target(endpoint), _OPTIONS)
        #: URL of the issuer, once a token has said it.
        self._iss = ""
        #: Set when the first answer is known, good or bad.
        self._first = threading.Event()
        self._why: MayflyError = Unavailable("unavailable", "no identity arrived in time: check that the Workload API runs")
        self.start(self.follow)
        self._first.wait(patience)
        try:
            current = self.current()
        except (Revoked, Unavailable):
            self.close()
            raise self._why from None
        if server:
            self.issuer = Issuer(server, current.credential.trust_domain)

    def mint(self, audience: str, for_agent: str = "") -> tuple[str, float]:
        own = self.current().credential.leaf.spiffe_id
        # `mayfly run` mints for a sub-agent without a key on its own connection.
        spiffe_id = for_agent or own
        request = api.JWTSVIDRequest(audience=[audience], spiffe_id=spiffe_id)
        serialize: Any = api.JWTSVIDRequest.SerializeToString
        fetch: Any = self._channel.unary_unary("/SpiffeWorkloadAPI/FetchJWTSVID", serialize, api.JWTSVIDResponse.FromString)
        try:
            got = fetch(request, metadata=_HEADER, timeout=pace.PATIENCE)
        except grpc.RpcError as e:
            error = error_of(e) if for_agent else _error(e)
            # It may be the end of the identity, or of this one audience: the stream of certificates tells.
            self.current()
            raise error from None
        except ValueError:
            raise Unavailable("closed", "the identity was closed") from None
        svid = got.svids[0] if got.svids else None
        if svid is None or svid.spiffe_id != spiffe_id:
            raise Unusable("answer", "the Workload API's answer has no token of this identity")
        # If the identity was revoked in the meantime, the token must not be handed out.
        if self.current().credential.leaf.spiffe_id != own:
            raise Unavailable("changed", "the identity changed in the meantime: ask again")
        return svid.svid, _expiry(svid.svid, spiffe_id)

    def exchange(self, audience: str, scopes: tuple[str, ...], for_agent: str = "") -> tuple[str, float]:
        """At the token endpoint, which accepts a JWT-SVID. The API's server renews, and a connection with a certificate from before
        that would be taken for theft."""
        if for_agent:
            # No JWT-SVID of it proves it there: it is bound to a certificate.
            request = v1.ExchangeRequest(audience=audience, scopes=scopes, for_agent=for_agent)
            with self.connected() as connection:
                return exchanged(connection.call(EXCHANGE, request))
        current = self.current()
        self._iss = self._iss or str(claims_of(self.mint(audience)[0]).get("iss", ""))
        if self.issuer is None:
            url, context = oauth.endpoint(self._iss), None
        else:
            url, context = oauth.endpoint(self._iss, self.issuer.address), of_issuer(current)
        try:
            got = oauth.ask(url, self.mint(self._iss)[0], audience, scopes, context)
        except Denied as e:
            # Another process of the tree may have been given the same one.
            if e.code != "ASSERTION_USED":
                raise
            got = oauth.ask(url, self.mint(self._iss)[0], audience, scopes, context)
        # If the identity was revoked in the meantime, the token must not be handed out.
        if _id(self.current()) != _id(current):
            raise Unavailable("changed", "the identity changed in the meantime: ask again")
        return got

    @contextlib.contextmanager
    def connected(self) -> Iterator[Connection]:
        """A connection for one call. The API's server renews, and the issuer takes a connection with a certificate from before a
        used renewal for theft: so the newest one is fetched first, and the connection does not outlive its purpose."""
        if self.issuer is None:
            raise no_issuer()
        self.current()
        connection = self._reach(self.issuer)
        try:
            yield connection
        finally:
            connection.close()

    def _reach(self, issuer: Issuer) -> Connection:
        """A connection that the issuer accepted while its certificate was the newest one.

        The API's server publishes a renewed certificate before it uses it. So if the newest one is still the same after the
        handshake, its successor has not been used, and the issuer excuses this connection whatever happens next. Otherwise nothing
        was asked over it, for which nobody is punished, and it is made again.
        """
        current = self._newest()
        for _ in range(pace.TRIES):
            connection = Connection(issuer, current.credential, current.roots)
            try:
                connection.open(pace.PATIENCE)
                newest = self._newest()
            except BaseException:
                connection.close()
                raise
            if newest.credential.chain == current.credential.chain:
                return connection
            connection.close()
            current = newest
        raise Unavailable("moved", "the certificate was renewed again and again while connecting: ask again")

    def end(self) -> None:
        """`mayfly run` ends the identity with its command; this does it now, if it is known where the issuer is."""
        with self.connected() as connection, contextlib.suppress(Revoked):
            connection.call(END, v1.EndRequest())

    def close(self) -> None:
        super().close()
        self._channel.close()

    def follow(self) -> None:
        """Follows the X.509-SVIDs. While the stream is broken, the last one stays in use until it expires."""
        failures = 0
        while not self.stopped.is_set():
            opened, heard = time.monotonic(), False
            try:
                for message in self._stream():
                    try:
                        current = _read(message)
                    except Unusable as e:
                        # A message that lacks something is discarded as a whole.
                        self._why = e
                        log.warning("a message of the Workload API was discarded: %s", e)
                        continue
                    with self._lock:
                        if self._current is None or _id(self._current) != _id(current):
                            self.tokens.clear()
                        self._current, self._over = current, None
                    heard = True
                    self._first.set()
                why: grpc.RpcError | None = None
            except grpc.RpcError as e:
                why = e
            except ValueError:
                return
            code = _code(why)
            if why is not None and (code is grpc.StatusCode.PERMISSION_DENIED or code in _NEVER):
                self._why = _error(why)
                self._withdraw(Revoked("withdrawn", str(self._why.hint)), final=code in _NEVER)
                if code in _NEVER:
                    return
            elif why is not None:
                self._why = _error(why)
            if heard and time.monotonic() - opened >= pace.STOOD:
                failures = 0
            pause = 0.0 if heard and failures == 0 else pace.streams(failures)
            failures += 1
            self.stopped.wait(pause)

    def end_because(self, why: Revoked) -> None:
        self._withdraw(why, final=False)

    def _withdraw(self, why: Revoked, *, final: bool) -> None:
        """There is no identity now. Unless it is final, the stream is followed on: it may come back."""
        with self._lock:
            first = self._over is None and self._current is not None
            self._over = why if self._current is not None else self._over
            callbacks, self._callbacks = (self._callbacks, []) if first else ([], self._callbacks)
        self.tokens.clear()
        if final:
            self.stopped.set()
            self._first.set()
        for callback in callbacks:
            with contextlib.suppress(Exception):
                callback(why)

    def _stream(self, timeout: float | None = None) -> Any:
        serialize: Any = api.X509SVIDRequest.SerializeToString
        path = "/SpiffeWorkloadAPI/FetchX509SVID"
        fetch: Any = self._channel.unary_stream(path, serialize, api.X509SVIDResponse.FromString)
        return fetch(api.X509SVIDRequest(), metadata=_HEADER, timeout=timeout)

    def _newest(self) -> Current:
        stream = self._stream(pace.PATIENCE)
        try:
            return _read(next(stream))
        except grpc.RpcError as e:
            raise _error(e) from None
        except (StopIteration, ValueError):
            raise Unavailable("unavailable", "the Workload API ended the stream") from None
        finally:
            stream.cancel()


def _id(current: Current) -> str:
    return current.credential.leaf.spiffe_id


def _code(error: grpc.RpcError | None) -> grpc.StatusCode | None:
    status: Any = error
    return None if error is None else status.code()


def _error(error: grpc.RpcError) -> MayflyError:
    status: Any = error
    code, text = status.code(), status.details() or ""
    if code is grpc.StatusCode.PERMISSION_DENIED:
        return NoIdentity("no_identity", f"the Workload API refuses: {text}; check that this process is registered there")
    if code in _NEVER:
        return Denied(code.name, f"the Workload API refuses this permanently: {text}")
    return Unavailable("unavailable", f"the Workload API cannot answer now: {text[:300]}; check that it runs")


def _read(message: api.X509SVIDResponse) -> Current:
    """Decodes the default identity, the first, and every bundle. Raises `Unusable`."""
    if not message.svids:
        raise Unusable("answer", "the Workload API's answer has no SVID")
    svid = message.svids[0]
    if not (svid.spiffe_id and svid.x509_svid and svid.x509_svid_key and svid.bundle):
        raise Unusable("answer", "the Workload API's answer lacks a mandatory field")
    credential = Credential.of(split(svid.x509_svid), read_key(svid.x509_svid_key, pem=False))
    if credential.leaf.spiffe_id != svid.spiffe_id:
        raise Unusable("answer", "the SPIFFE ID differs from the certificate's")
    if credential.leaf.expires_at <= time.time():
        raise Unusable("answer", "the certificate has expired")
    foreign = {}
    for name, ders in message.federated_bundles.items():
        # A bundle that cannot be read is treated as absent.
        with contextlib.suppress(Unusable):
            trust_domain, path = split_id(name)
            if not path and trust_domain != credential.trust_domain and ders:
                foreign[trust_domain] = split(ders)
    return Current(credential, split(svid.bundle), foreign)


def _expiry(token: str, spiffe_id: str) -> float:
    """When a token of ours expires, in unix seconds. Its signature is for those who receive it."""
    claims = claims_of(token)
    with contextlib.suppress(ValueError, TypeError, KeyError):
        if claims["sub"] == spiffe_id and float(claims["exp"]) > time.time():
            return float(claims["exp"])
    raise Unusable("answer", "the Workload API's token cannot be read, has expired or is of another identity")
