"""An identity whose key is in this process: a thread renews it, another follows the bundles and hears of its revocation."""

from __future__ import annotations

import base64
import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import grpc
from cryptography.hazmat.primitives.asymmetric import ec

from . import pace
from .certificates import Credential, new_key, request, split
from .errors import Denied, Ended, Expired, MayflyError, Revoked, Unavailable, Unusable
from .issuer import END, EXCHANGE, MINT, RENEW, WATCH_BUNDLE, Connection, Issuer, error_of
from .keeper import Current, Keeper, log
from .v1 import mayfly_pb2 as api


class Own(Keeper):
    """Renews itself until it has ended or is closed."""

    def __init__(self, at: Issuer, first: Current, lease_ends_at: float | None) -> None:
        super().__init__()
        if first.credential.trust_domain != at.trust_domain:
            raise Unusable("trust_domain", "the certificate is of another trust domain than the issuer")
        self.issuer = at
        self._current = first
        #: Unix seconds beyond which no renewal is possible; `None` for a workload.
        self._lease_ends_at = lease_ends_at
        self._connection = Connection(at, first.credential, first.roots)
        self.start(self.renew, self.follow)

    def mint(self, audience: str, for_agent: str = "") -> tuple[str, float]:
        request = api.MintJwtRequest(audience=audience, for_agent=for_agent)
        svid = self._call(lambda: self._connection.call(MINT, request)).svid
        if not svid.token or not svid.HasField("expires_at"):
            raise Unusable("answer", "the issuer's answer has no token: check that both ends are of the same release")
        return svid.token, float(svid.expires_at.seconds)

    def exchange(self, audience: str, scopes: tuple[str, ...], for_agent: str = "") -> tuple[str, float]:
        request = api.ExchangeRequest(audience=audience, scopes=scopes, for_agent=for_agent)
        return exchanged(self._call(lambda: self._connection.call(EXCHANGE, request)))

    @contextlib.contextmanager
    def connected(self) -> Iterator[Connection]:
        self.current()
        try:
            yield self._connection
        except Revoked as e:
            self.end_because(e)
            raise

    def end(self) -> None:
        if self.over() is None and "/agent/" in self.current().credential.leaf.spiffe_id:
            # Ended for another reason already: the result is the same.
            with contextlib.suppress(Revoked):
                self._connection.call(END, api.EndRequest())
        self.end_because(Ended("ended", "this process ended the identity"))
        self.close()

    def close(self) -> None:
        super().close()
        self._connection.close()

    def _call(self, ask: Any) -> Any:
        self.current()
        try:
            answer = ask()
        except Revoked as e:
            self.end_because(e)
            raise
        # If the identity was revoked in the meantime, the answer must not be handed out.
        self.current()
        return answer

    def renew(self) -> None:
        """Renews until the identity ends. A certificate that is still valid is never given up."""
        at = self._next_renewal()
        while True:
            ends_at = self._held().credential.leaf.expires_at
            if self.wait_until(min(at or ends_at, ends_at)):
                return None
            if time.time() >= ends_at:
                why = "its lease has ended" if at is None else "it could not be renewed in time: check that the issuer runs"
                self.end_because(Expired("expired", why))
                return self.close()
            try:
                self._renew_once()
                at = self._next_renewal()
            except Revoked as e:
                self.end_because(e)
                return self.close()
            except Exception as e:
                log.log(30 if isinstance(e, MayflyError) else 40, "a renewal failed and is tried again: %s", e)
                at = time.time() + pace.again(max(ends_at - time.time(), 0), pace.chance())

    def _next_renewal(self) -> float | None:
        """`None` if the certificate lasts as long as the lease, so that a renewal would gain nothing."""
        ends_at = self._held().credential.leaf.expires_at
        if self._lease_ends_at is not None and ends_at >= self._lease_ends_at:
            return None
        now = time.time()
        return now + pace.renewal(max(ends_at - now, 0), pace.chance())

    def _renew_once(self) -> None:
        key = new_key()
        got = self._connection.call(RENEW, api.RenewRequest(csr=request(key)))
        next = answered(key, got)
        if next.credential.leaf.spiffe_id != self._held().credential.leaf.spiffe_id:
            raise Unusable("answer", "the renewed certificate has another SPIFFE ID")
        with self._lock:
            known = self._held()
            newer = next if next.sequence >= known.sequence else known
            next = replace(next, roots=newer.roots, sequence=newer.sequence, foreign=known.foreign)
            # ORDER: before the certificate is published, so that no new connection is made with its predecessor.
            self._connection.show(next.credential, next.roots)
            self._current = next
        self.tokens.forget_access()

    def _held(self) -> Current:
        with self._lock:
            if self._current is None:
                raise Unavailable("no_identity_yet", "no identity has arrived yet")
            return self._current

    def follow(self) -> None:
        """Follows the bundles. This stream is also the fastest news of a revocation: the issuer closes it, and gives the reason
        when it is opened again."""
        failures = 0
        while not self.stopped.is_set():
            before, opened, heard = self._held().credential, time.monotonic(), False
            try:
                for message in self._connection.stream(WATCH_BUNDLE, api.WatchBundleRequest()):
                    heard = self._take(message) or heard
                why: MayflyError = Unavailable("unavailable", "the stream ended")
            except grpc.RpcError as e:
                why = error_of(e)
            except MayflyError as e:
                why = e
            if isinstance(why, Revoked):
                self.end_because(why)
                return self.close()
            if heard and time.monotonic() - opened >= pace.STOOD:
                failures = 0
            # Opened again at once over a connection with the renewed certificate, which also tells the issuer that it is in use.
            if before is not self._held().credential:
                failures = 0
                continue
            left = max(before.leaf.expires_at - time.time(), 0)
            pause = pace.back(left, pace.LONGEST, pace.chance()) if failures else pace.calls(0)
            failures += 1
            self.stopped.wait(pause)

    def _take(self, message: api.WatchBundleResponse) -> bool:
        roots = tuple(message.bundle.x509_authorities)
        if not roots or message.bundle.trust_domain != self._held().credential.trust_domain:
            raise Unusable("answer", "the bundle is empty or of another trust domain")
        foreign = dict(_foreign(message))
        with self._lock:
            known = self._held()
            if message.bundle.sequence < known.sequence:
                roots = known.roots
            sequence = max(message.bundle.sequence, known.sequence)
            self._current = replace(known, roots=roots, sequence=sequence, foreign=foreign)
        self._connection.believe(roots)
        return True


def answered(key: ec.EllipticCurvePrivateKey, got: Any) -> Current:
    """Accepts the issuer's answer only if it is complete and certifies this key. Raises `Unusable`."""
    if not got.svid.certificates or not got.bundle.x509_authorities:
        raise Unusable("answer", "the issuer's answer is incomplete: check that both ends are of the same release")
    credential = Credential.of(tuple(got.svid.certificates), key)
    if credential.leaf.spiffe_id != got.svid.spiffe_id:
        raise Unusable("answer", "the certificate has another SPIFFE ID than the answer")
    if got.bundle.trust_domain != credential.trust_domain:
        raise Unusable("answer", "the bundle is of another trust domain")
    return Current(credential, tuple(got.bundle.x509_authorities), {}, got.bundle.sequence)


def exchanged(got: api.ExchangeResponse) -> tuple[str, float]:
    """The access token of an answer, with its expiry in unix seconds. Raises `Unusable` if it lacks one."""
    if not got.access_token or not got.HasField("expires_at"):
        raise Unusable("answer", "the issuer's answer has no token: check that both ends are of the same release")
    return got.access_token, float(got.expires_at.seconds)


def lease_of(got: Any) -> float | None:
    """When the lease of an answer ends, in unix seconds; `None` for a workload."""
    if got.HasField("agent") and got.agent.HasField("lease_expires_at"):
        return float(got.agent.lease_expires_at.seconds)
    return None


def _foreign(message: api.WatchBundleResponse) -> Iterator[tuple[str, tuple[bytes, ...]]]:
    """Roots of foreign trust domains. A bundle that cannot be read is treated as absent."""
    for entry in message.foreign:
        try:
            keys = json.loads(entry.spiffe_json)["keys"]
            chains = [key["x5c"][0] for key in keys if key.get("use") == "x509-svid"]
            roots = tuple(der for text in chains for der in split(base64.b64decode(text, validate=True)))
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, Denied, Unusable):
            continue
        if roots and entry.trust_domain != message.bundle.trust_domain:
            yield entry.trust_domain, roots
