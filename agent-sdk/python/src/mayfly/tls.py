"""TLS by SPIFFE ID, with certificates that follow every renewal.

`Context` is an `ssl.SSLContext`. Each connection is made by the newest certificate and bundle, and its peer must be one that was
asked for: the host name has no meaning, and the SPIFFE ID decides. There is no way to leave the peer open.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Callable, Mapping
from typing import Any, Union

from .certificates import Credential, split_id, to_pem
from .errors import Unusable
from .keeper import Current

#: Who the peer must be: a SPIFFE ID; every ID below one that ends with `/`; `spiffe://trust-domain` for everybody there; or a
#: function of the ID.
Peer = Union[str, Callable[[str], bool]]


def rule(peer: Peer, own: str) -> tuple[str, Callable[[str], bool]]:
    """Returns the trust domain that the peer must be of, and the rule for its SPIFFE ID. Raises `Unusable`.

    One trust domain: a chain must lead to the bundle of its own, and OpenSSL would mix them. A function decides about ours.
    """
    if callable(peer):
        return own, peer
    wanted = peer
    if not isinstance(wanted, str) or not wanted:
        raise Unusable("peer", "say who the peer must be: peer='spiffe://trust-domain/path'")
    domain, path = split_id(wanted.removesuffix("/"))
    if wanted.endswith("/"):
        return domain, lambda id: id.startswith(wanted)
    if not path:
        return domain, lambda id: id.startswith(wanted + "/")
    return domain, lambda id: id == wanted


def peer_id(certificate: Mapping[str, Any] | None) -> str:
    """The SPIFFE ID of a certificate as `getpeercert` returns it. Raises `ssl.SSLCertVerificationError`."""
    names = certificate.get("subjectAltName", ()) if certificate else ()
    uris = [value for kind, value in names if kind == "URI"]
    if len(uris) != 1:
        raise _refused("the peer has no X.509-SVID: its certificate must have one URI")
    try:
        if split_id(uris[0])[1]:
            return str(uris[0])
    except Unusable:
        pass
    raise _refused("the peer has no X.509-SVID: its URI is not a SPIFFE ID with a path")


def _refused(why: str) -> ssl.SSLCertVerificationError:
    return ssl.SSLCertVerificationError(1, why)


class _Checked:
    """Checks the peer when the handshake is done, before anything is read or written."""

    context: Any
    _peer_is_right = False

    def _check(self, certificate: Any) -> None:
        if not self._peer_is_right:
            id = peer_id(certificate)
            if not self.context.allows(id):
                raise _refused(f"the peer is `{id}`, and another was asked for")
            self._peer_is_right = True


class _Object(_Checked, ssl.SSLObject):
    """For asyncio and whatever else uses memory buffers."""

    def do_handshake(self) -> None:
        super().do_handshake()
        self._check(self.getpeercert())

    # OpenSSL would make the handshake by itself at the first read or write.
    def read(self, *args: Any, **kwargs: Any) -> Any:
        if not self._peer_is_right:
            self.do_handshake()
        return super().read(*args, **kwargs)

    def write(self, data: Any) -> int:
        if not self._peer_is_right:
            self.do_handshake()
        return super().write(data)


class _Socket(_Checked, ssl.SSLSocket):
    """For plain sockets."""

    def do_handshake(self, block: bool = False) -> None:
        super().do_handshake(block)
        try:
            self._check(self.getpeercert())
        except ssl.SSLError:
            self.close()
            raise

    def read(self, *args: Any, **kwargs: Any) -> Any:
        if not self._peer_is_right:
            self.do_handshake()
        return super().read(*args, **kwargs)

    def write(self, data: Any) -> int:
        if not self._peer_is_right:
            self.do_handshake()
        return super().write(data)

    def send(self, data: Any, flags: int = 0) -> int:
        if not self._peer_is_right:
            self.do_handshake()
        return super().send(data, flags)

    def unwrap(self) -> Any:
        # What follows would not be encrypted, by a socket that says that it is.
        raise ssl.SSLError("this connection cannot go on without TLS")


class _Inner(ssl.SSLContext):
    """The settings of one connection."""

    sslobject_class = _Object
    sslsocket_class = _Socket
    allows: Callable[[str], bool]


class Context(ssl.SSLContext):
    """An `ssl.SSLContext` of one identity and one kind of peer.

    Its certificate, its roots and the check of the peer cannot be changed by what it is given to: some libraries try, and would
    make it weaker. New connections raise `mayfly.Revoked` once the identity has ended; open ones stay open.
    """

    _source: Callable[[], Current]
    _peer: Peer
    _server: bool
    _cached: tuple[Credential, tuple[bytes, ...], _Inner] | None
    _alpn: list[str]

    def __new__(cls, source: Callable[[], Current], peer: Peer, *, server: bool = False) -> Context:
        self = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        self._source, self._peer, self._server, self._cached, self._alpn = source, peer, server, None, []
        # For libraries that look: what decides is the SPIFFE ID.
        self.check_hostname = False
        self.verify_mode = ssl.CERT_REQUIRED
        return self

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # `ssl.SSLContext` takes its arguments in `__new__`.
        self._inner()

    def wrap_socket(self, sock: Any, server_side: bool = False, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        """As in `ssl.SSLContext`, with the newest certificate."""
        return self._inner().wrap_socket(sock, server_side, *args, **kwargs)

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """As in `ssl.SSLContext`, with the newest certificate."""
        return self._inner().wrap_bio(*args, **kwargs)

    def set_alpn_protocols(self, alpn_protocols: Any) -> None:
        """As in `ssl.SSLContext`, for the connections from now on."""
        self._alpn, self._cached = list(alpn_protocols), None

    def load_cert_chain(self, *args: Any, **kwargs: Any) -> None:
        """Refused: the certificate is that of the identity."""
        raise ssl.SSLError("the certificate of this context is that of its identity")

    def load_verify_locations(self, *args: Any, **kwargs: Any) -> None:
        """Has no effect: only the bundle counts."""

    def load_default_certs(self, *args: Any, **kwargs: Any) -> None:
        """Has no effect: only the bundle counts."""

    def _inner(self) -> _Inner:
        current = self._source()
        own = current.credential.trust_domain
        domain, allows = rule(self._peer, own)
        trusted = current.roots if domain == own else current.foreign.get(domain, ())
        if not trusted:
            raise Unusable("peer", f"there is no bundle of the peer's trust domain `{domain}`")
        cached = self._cached
        if cached and cached[0] is current.credential and cached[1] == trusted:
            return cached[2]
        inner = _build(current.credential, trusted, self._server, self._alpn)
        inner.allows = lambda id: split_id(id)[0] == domain and bool(allows(id))
        self._cached = (current.credential, trusted, inner)
        return inner


def of_issuer(current: Current) -> ssl.SSLContext:
    """Settings for a connection to the issuer that shows no certificate."""
    inner, wanted = _build(None, current.roots, False, []), f"spiffe://{current.credential.trust_domain}/issuer"
    inner.allows = lambda id: id == wanted
    return inner


def _build(credential: Credential | None, trusted: tuple[bytes, ...], server: bool, alpn: list[str]) -> _Inner:
    inner = _Inner(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    inner.check_hostname, inner.verify_mode = False, ssl.CERT_REQUIRED
    # No session is resumed: each connection is verified from the beginning.
    inner.minimum_version = ssl.TLSVersion.TLSv1_3 if server else ssl.TLSVersion.TLSv1_2
    inner.options |= ssl.OP_NO_TICKET
    if server:
        inner.num_tickets = 0
    inner.load_verify_locations(cadata=to_pem(trusted).decode())
    if alpn:
        inner.set_alpn_protocols(alpn)
    if credential is not None:
        _load(inner, credential.chain_pem + credential.key_pem)
    return inner


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    """`ssl` reads keys from files alone: one in memory where the system has that, otherwise one that lives for a moment."""
    if hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd"):
        with open(os.memfd_create("svid", os.MFD_CLOEXEC), "r+b") as file:
            file.write(pem)
            file.flush()
            return context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
    with tempfile.NamedTemporaryFile() as named:
        named.write(pem)
        named.flush()
        return context.load_cert_chain(named.name)
