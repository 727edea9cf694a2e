"""Calls to the issuer: mTLS with the newest certificate, time limits, and what a refusal means.

grpcio compares names and addresses and cannot ask for `spiffe://<trust domain>/issuer`. The bundle makes up for that: below its
roots the issuer's own certificate is the only one with a name or an address, so no workload and no agent passes for the issuer.
That holds as long as nothing but the trust domain's own roots is given here.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf.message import Message

from .certificates import Credential, pinned_root, to_pem
from .errors import Denied, Exhausted, Expired, MayflyError, Revoked, Unavailable, Unusable
from .pace import PATIENCE, TRIES, calls
from .reasons import EXPIRED, FINAL, PAST
from .ticket import Ticket, checked_address
from .v1 import details_pb2 as details
from .v1 import mayfly_pb2 as api

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)
T = TypeVar("T")

_OPTIONS = [
    # A transparent retry could connect again with a certificate that was renewed in the meantime.
    ("grpc.enable_retries", 0),
    # Connections are shared with no other channel.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
]
_TRANSIENT = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.ABORTED,
}


@dataclass(frozen=True)
class Issuer:
    """Where an issuer is, and of which trust domain."""

    #: `host:port`
    address: str
    trust_domain: str

    def __post_init__(self) -> None:
        checked_address(self.address)


@dataclass(frozen=True)
class Method(Generic[Q, A]):
    """A method of the issuer."""

    path: str
    request: type[Q]
    answer: type[A]


REDEEM = Method("/mayfly.v1.Identities/Redeem", api.RedeemRequest, api.RedeemResponse)
RENEW = Method("/mayfly.v1.Identities/Renew", api.RenewRequest, api.RenewResponse)
SPAWN = Method("/mayfly.v1.Identities/Spawn", api.SpawnRequest, api.SpawnResponse)
MINT = Method("/mayfly.v1.Identities/MintJwt", api.MintJwtRequest, api.MintJwtResponse)
EXCHANGE = Method("/mayfly.v1.Tokens/Exchange", api.ExchangeRequest, api.ExchangeResponse)
END = Method("/mayfly.v1.Identities/End", api.EndRequest, api.EndResponse)
BUDGET = Method("/mayfly.v1.Budgets/GetBudget", api.GetBudgetRequest, api.GetBudgetResponse)
SPEND = Method("/mayfly.v1.Budgets/Spend", api.SpendRequest, api.SpendResponse)
RESERVE = Method("/mayfly.v1.Budgets/Reserve", api.ReserveRequest, api.ReserveResponse)
RELEASE = Method("/mayfly.v1.Budgets/Release", api.ReleaseRequest, api.ReleaseResponse)
WATCH_BUNDLE = Method("/mayfly.v1.Bundles/WatchBundle", api.WatchBundleRequest, api.WatchBundleResponse)


class Connection:
    """A channel that is replaced whenever the certificate is.

    INVARIANT: once a connection was made with a renewed certificate, none is made with its predecessor. The issuer would take the
    predecessor for stolen and revoke the agent. So the old channel is closed before the new one can be used; calls that this
    cancels are made again on the new one.
    """

    def __init__(self, at: Issuer, credential: Credential | None, roots: tuple[bytes, ...]) -> None:
        self.at = at
        #: Guards the three below, for a look or a change; no call is made under it.
        self._lock = threading.Lock()
        self._credential, self._roots = credential, roots
        self._channel: grpc.Channel | None = self._open()

    def call(self, method: Method[Q, A], request: Q, timeout: float = PATIENCE) -> A:
        """Makes one call, within `timeout` seconds. Raises what `error_of` returns."""
        answer: A = self._ask(lambda channel: _unary(channel, method)(request, timeout=timeout), method in (MINT, EXCHANGE))
        return answer

    def open(self, timeout: float) -> None:
        """Connects now, with the handshake, within `timeout` seconds; nothing is asked. Raises `Unavailable`."""
        try:
            grpc.channel_ready_future(self._current()).result(timeout)
        except grpc.FutureTimeoutError:
            raise Unavailable(
                "unavailable", f"cannot reach `{self.at.address}` in {timeout:g} seconds: check that the issuer runs"
            ) from None

    def stream(self, method: Method[Q, A], request: Q) -> Iterator[A]:
        """Opens a stream without a time limit. It ends with `grpc.RpcError`, also when the certificate is replaced."""
        channel = self._current()
        serialize: Any = method.request.SerializeToString
        open_stream: Any = channel.unary_stream(method.path, serialize, method.answer.FromString)
        with contextlib.suppress(ValueError):
            stream: Iterator[A] = open_stream(request)
            return stream
        # Closed since a moment ago.
        raise Unavailable("moved", "the certificate was renewed meanwhile: ask again")

    def show(self, credential: Credential, roots: tuple[bytes, ...]) -> None:
        """Presents this certificate and trusts these roots from now on."""
        with self._lock:
            if self._channel is None:
                return
            # ORDER: see above.
            self._channel.close()
            self._credential, self._roots = credential, roots
            self._channel = self._open()

    def believe(self, roots: tuple[bytes, ...]) -> None:
        """Trusts these roots from the next connection on."""
        if roots != self._roots and self._credential is not None:
            self.show(self._credential, roots)

    def close(self) -> None:
        """Cancels every call, and makes none any more."""
        with self._lock:
            channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def _current(self) -> grpc.Channel:
        with self._lock:
            if self._channel is None:
                raise Unavailable("closed", "the connection to the issuer was closed")
            return self._channel

    def _ask(self, ask: Callable[[grpc.Channel], T], harmless: bool) -> T:
        """Asks, and asks again where the connection is to blame. `harmless` says that the issuer may hear it twice."""
        for attempt in range(TRIES):
            channel = self._current()
            try:
                return ask(channel)
            except ValueError:
                # grpcio refuses calls on a closed channel in this way.
                if channel is self._current():
                    raise
            except grpc.RpcError as e:
                error = error_of(e)
                # A renewal was used while this call was under way on the connection from before it, or closed that connection.
                moved = error.code == PAST or channel is not self._current()
                # The issuer closed the connection meanwhile, as it does with those of whoever was revoked: the next one hears why.
                moved = moved or (harmless and attempt == 0 and isinstance(error, Unavailable) and "GOAWAY" in str(error))
                if not moved or (isinstance(error, (Denied, Revoked)) and error.code != PAST):
                    raise error from None
        raise Unavailable("moved", "the certificate was renewed again and again during this call: ask again")

    def _open(self) -> grpc.Channel:
        credential, roots = self._credential, to_pem(self._roots)
        own = (credential.key_pem, credential.chain_pem) if credential else (None, None)
        return grpc.secure_channel(self.at.address, grpc.ssl_channel_credentials(roots, *own), _OPTIONS)


def _unary(channel: grpc.Channel, method: Method[Q, A]) -> Any:
    serialize: Any = method.request.SerializeToString
    return channel.unary_unary(method.path, serialize, method.answer.FromString)


def error_of(error: grpc.RpcError) -> MayflyError:
    """What a failed call means for the identity that made it."""
    status: Any = error
    code, text = status.code(), status.details() or ""
    reason, retry_after, said = _details(status)
    label = reason or code.name
    if code is grpc.StatusCode.UNAUTHENTICATED and reason in FINAL:
        return (Expired if reason in EXPIRED else Revoked)(label, text)
    if code is grpc.StatusCode.UNAVAILABLE and not reason and _untrusted(text):
        hint = f"the server is not this trust domain's issuer: {text[:300]}; check address and trust domain"
        return Unusable("untrusted", hint)
    if code in _TRANSIENT:
        return Unavailable(label if reason else "unavailable", f"the issuer cannot answer now: {text[:300]}", retry_after)
    if reason == "BUDGET_EXHAUSTED":
        return Exhausted(label, text, said)
    return Denied(label, text, retry_after)


def _untrusted(text: str) -> bool:
    return any(part in text for part in ("CERTIFICATE_VERIFY_FAILED", "not in peer certificate", "verification failed"))


def _details(error: Any) -> tuple[str, float | None, dict[str, str]]:
    """Reason, pause in seconds and metadata of `google.rpc.Status`, which the issuer sends with a denial."""
    reason, retry_after, said = "", None, dict[str, str]()
    for key, value in error.trailing_metadata() or ():
        if key != "grpc-status-details-bin":
            continue
        with contextlib.suppress(Exception):
            for detail in details.Status.FromString(value).details:
                if detail.type_url.endswith("/google.rpc.ErrorInfo"):
                    info = details.ErrorInfo.FromString(detail.value)
                    reason, said = info.reason, dict(info.metadata)
                elif detail.type_url.endswith("/google.rpc.RetryInfo"):
                    delay = details.RetryInfo.FromString(detail.value).retry_delay
                    retry_after = delay.seconds + delay.nanos / 1e9
    return reason, retry_after, said


def insist(ask: Callable[[], T], wait: Callable[[float], object]) -> T:
    """Repeats a call a few times while nobody answers. `wait` takes seconds."""
    for failures in range(TRIES - 1):
        try:
            return ask()
        except MayflyError as e:
            if not e.transient:
                raise
            wait(min(max(e.retry_after or 0, calls(failures)), PATIENCE))
    return ask()


def root_of(ticket: Ticket, timeout: float) -> bytes:
    """Fetches the root that a ticket names, DER. Raises `Unavailable`, or `Unusable` if the server has another root.

    The handshake verifies nothing, and nothing is sent over it: the root is a public certificate that is held against the pin.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    host, _, port = ticket.address.rpartition(":")
    host = host.strip("[]")
    try:
        with (
            socket.create_connection((host, int(port)), timeout) as tcp,
            context.wrap_socket(tcp, server_hostname=host) as tls,
        ):
            chain = _presented(tls)
    except OSError as e:
        raise Unavailable("unreachable", f"cannot reach `{ticket.address}`: {e}; check that the issuer runs") from None
    return pinned_root(chain, ticket.root)


def _presented(tls: ssl.SSLSocket) -> tuple[bytes, ...]:
    """The chain as the server sent it, DER."""
    if hasattr(tls, "get_unverified_chain"):
        return tuple(tls.get_unverified_chain())
    # Before Python 3.13 the same is in an object below, whose certificates have another form.
    below: Any = getattr(tls, "_sslobj")  # noqa: B009
    return tuple(ssl.PEM_cert_to_DER_cert(certificate.public_bytes()) for certificate in below.get_unverified_chain() or ())
