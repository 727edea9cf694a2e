"""What needs no issuer: tickets, certificates, pauses, caches, addresses, and how statuses are read."""

from __future__ import annotations

import base64
import datetime
import os
import pickle
import re
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

import mayfly
from mayfly import pace, reasons
from mayfly.certificates import Credential, Leaf, new_key, pinned_root, request, split, split_id, to_pem
from mayfly.folder import Saved, issuer_of
from mayfly.issuer import error_of
from mayfly.ticket import PREFIX, Ticket, checked_address
from mayfly.tls import peer_id, rule
from mayfly.tokens import LAST, MOST, Key, Tokens, key_of
from mayfly.v1 import details_pb2 as details
from mayfly.workload.endpoint import target

AGENT = "spiffe://own.example/agent/researcher/0190aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee"


def ticket(address: str = "127.0.0.1:8443", domain: str = "own.example", tail: bytes = b"", version: bytes = b"\x01") -> str:
    raw = version + bytes([len(address)]) + address.encode() + bytes([len(domain)]) + domain.encode() + b"r" * 32 + b"s" * 32 + tail
    return PREFIX + base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def certificate(uris: list[str], key: Any, days: int = 1) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    builder = builder.not_valid_before(now - datetime.timedelta(days=3)).not_valid_after(now + datetime.timedelta(days=days))
    if uris:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
        builder = builder.add_extension(names, critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def test_a_ticket_has_one_spelling_and_its_secret_is_never_printed() -> None:
    good = ticket()
    parsed = Ticket.parse(good)
    assert (parsed.address, parsed.trust_domain, parsed.root, parsed.secret) == (
        "127.0.0.1:8443",
        "own.example",
        b"r" * 32,
        b"s" * 32,
    )
    assert "ssss" not in repr(parsed)
    bad = {
        "": "not_a_ticket",
        "hello": "not_a_ticket",
        "mayfly2." + good[8:]: "version",
        ticket(version=b"\x02"): "version",
        good[:-4]: "damaged",
        good + "=": "damaged",
        good + "\n": "damaged",
        good[:20] + " " + good[20:]: "damaged",
        ticket(tail=b"x"): "damaged",
        PREFIX: "version",
        ticket(domain="Own.example"): "trust_domain",
        ticket(domain=""): "trust_domain",
        ticket(address="localhost"): "address",
    }
    for text, code in bad.items():
        with pytest.raises(mayfly.Unusable) as caught:
            Ticket.parse(text)
        assert caught.value.code == code, text
        assert good[20:] not in str(caught.value)


@pytest.mark.parametrize("text", ["localhost:1", "issuer_1.internal:8443", "127.0.0.1:65535", "[::1]:8443"])
def test_an_address_is_a_host_and_a_port(text: str) -> None:
    assert checked_address(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "localhost",
        "localhost:",
        ":8443",
        "localhost:0",
        "localhost:08443",
        "localhost:+8443",
        "localhost:65536",
        "::1:8443",
        "[::1]",
        "[::1:8443",
        "[localhost]:8443",
        "https://localhost:8443",
        "user@localhost:8443",
        "local host:8443",
        "localhost:8443/",
        "a..b:8443",
        "localhost\x00:8443",
        "localhost:8443\n",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(mayfly.Unusable):
        checked_address(text)


def test_an_endpoint_is_a_path_or_an_ip_address() -> None:
    assert target("unix:///run/a.sock") == target("unix:/run/a.sock") == "unix:/run/a.sock"
    assert target("tcp://127.0.0.1:80") == "ipv4:127.0.0.1:80"
    assert target("tcp://[::1]:80") == "ipv6:[::1]:80"
    bad = "|/run/a.sock|unix:|unix://|unix:///|unix:a.sock|unix://host/a.sock|unix:////a.sock|unix:///a%20b|unix:///a?b|unix:///a#b"
    bad += "|unix:///a/|tcp://localhost:80|tcp://127.0.0.1|tcp://127.0.0.1:0|tcp://127.0.0.1:80/x|tcp://::1:80|tcp:127.0.0.1:80|http://127.0.0.1:80"
    for text in bad.split("|"):
        with pytest.raises(mayfly.Unusable):
            target(text)


def test_only_a_leaf_with_one_spiffe_id_and_its_key_is_an_identity() -> None:
    key, other = new_key(), new_key()
    good = certificate([AGENT], key)
    credential = Credential.of((good,), key)
    assert (credential.leaf.spiffe_id, credential.trust_domain, credential.binding) == (AGENT, "own.example", None)
    assert "PRIVATE" not in repr(credential)
    assert x509.load_der_x509_csr(request(key)).is_signature_valid
    for uris in ([], [AGENT, AGENT], ["spiffe://own.example"], ["https://own.example/a"], ["spiffe://own.example/a/../b"]):
        with pytest.raises(mayfly.Unusable):
            Leaf.read(certificate(uris, key))
    for chain, with_key in [((), key), ((good,), other), ((b"",), key), ((good[:-1],), key)]:
        with pytest.raises(mayfly.Unusable):
            Credential.of(chain, with_key)


def test_certificates_that_follow_one_another_are_split_or_refused_whole() -> None:
    key = new_key()
    one, two = certificate([AGENT], key), certificate([AGENT], key, days=2)
    assert split(one + two) == (one, two)
    assert split(b"") == ()
    for bad in (one + b"\0", one[:-1], one + two[:5], b"\x30", b"\x30\x80", b"\x30\x00", b"\x30\x89" + b"\xff" * 9, b"x" * 100):
        with pytest.raises(mayfly.Unusable):
            split(bad)


def test_a_root_counts_by_its_pin_and_its_own_signature() -> None:
    import hashlib

    key, other = new_key(), new_key()
    root = certificate([], key)
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    pin = hashlib.sha256(public).digest()
    assert pinned_root((certificate([], other), root), pin) == root
    # The right key in a certificate that somebody else signed.
    name = x509.Name([])
    now = datetime.datetime.now(datetime.timezone.utc)
    forged = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    forged = forged.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    der = forged.sign(other, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    for chain in [(der,), (), (b"x",), (certificate([], other),)]:
        with pytest.raises(mayfly.Unusable):
            pinned_root(chain, pin)


@pytest.mark.parametrize("text", ["spiffe://a", "spiffe://a.b/c/d", "spiffe://a_b-c.d/E.f"])
def test_a_spiffe_id_has_one_spelling(text: str) -> None:
    domain, path = split_id(text)
    assert f"spiffe://{domain}{path}" == text


@pytest.mark.parametrize(
    "text",
    ["", "spiffe://", "spiffe:///a", "SPIFFE://a/b", "spiffe://A/b", "spiffe://a/", "spiffe://a//b", "spiffe://a/./b", "spiffe://a/b?c",
     "spiffe://a:1/b", "spiffe://u@a/b", "spiffe://a/b\n", "spiffe://a/é", "spiffe://a/" + "b" * 2048],
)  # fmt: skip
def test_what_is_no_spiffe_id_is_refused(text: str) -> None:
    with pytest.raises(mayfly.Unusable):
        split_id(text)


def test_a_rule_for_a_peer_never_admits_more_than_it_says() -> None:
    domain, exact = rule("spiffe://own.example/agent/a/1", "own.example")
    assert domain == "own.example"
    assert exact("spiffe://own.example/agent/a/1")
    assert not exact("spiffe://own.example/agent/a/10")
    _, below = rule("spiffe://own.example/agent/a/", "own.example")
    assert below("spiffe://own.example/agent/a/1")
    assert not below("spiffe://own.example/agent/ab/1")
    assert not below("spiffe://own.example/agent/a")
    domain, everybody = rule("spiffe://other.example", "own.example")
    assert domain == "other.example"
    assert everybody("spiffe://other.example/x")
    assert not everybody("spiffe://other.example.evil/x")
    for bad in ("", "*", "spiffe://*", "spiffe://own.example/*", "localhost", "spiffe://own.example//", None):
        with pytest.raises(mayfly.Unusable):
            rule(bad, "own.example")  # type: ignore[arg-type]


def test_a_peer_without_exactly_one_spiffe_id_is_refused() -> None:
    assert peer_id({"subjectAltName": (("DNS", "a"), ("URI", AGENT))}) == AGENT
    for names in [
        (),
        (("DNS", "a"),),
        (("URI", AGENT), ("URI", AGENT)),
        (("URI", "spiffe://own.example"),),
        (("URI", "https://a/b"),),
    ]:
        with pytest.raises(ssl.SSLCertVerificationError):
            peer_id({"subjectAltName": names})
    with pytest.raises(ssl.SSLCertVerificationError):
        peer_id(None)
    with pytest.raises(ssl.SSLCertVerificationError):
        peer_id({})


def test_a_renewal_leaves_time_to_try_again() -> None:
    for life in (20.0, 900.0):
        assert pace.renewal(life, 0) == pytest.approx(0.3 * life)
        assert pace.renewal(life, 1) == pytest.approx(0.7 * life)
        left, tries = 0.3 * life, 0
        while (left := left - pace.again(left, 1)) > 0:
            tries += 1
        assert tries >= 3
    assert pace.again(0, 0) >= pace.FIRST / 2 and pace.back(0, pace.LONGEST, 0) >= pace.FIRST / 2, "nothing spins"
    assert pace.back(86400, 60, 1) <= pace.LONGEST
    assert [pace.backoff(0.05, 5, failures, 1) for failures in (0, 1, 2, 6, 7, 10**9)] == [0.05, 0.1, 0.2, 3.2, 5, 5]
    assert pace.backoff(0.05, 5, 0, 0) == 0.025


def test_pauses_and_limits_are_those_of_the_contract(package: Path) -> None:
    page = (package.parent / "docs/contract.md").read_text()
    pauses: dict[str, Callable[[float, float], float]] = {
        "renewal": pace.renewal,
        "again": pace.again,
        "back": lambda left, chance: pace.back(left, pace.LONGEST, chance),
        "calls": lambda failures, chance: pace.calls(int(failures), lambda: chance),
        "streams": lambda failures, chance: pace.streams(int(failures), lambda: chance),
    }
    rows = re.findall(r"^\| `(\w+)` \| ([0-9.]+) \| ([0-9.]+) \| ([0-9.]+) \|$", page, re.M)
    assert {name for name, *_ in rows} == set(pauses)
    for name, given, *expected in rows:
        assert [pauses[name](float(given), chance) for chance in (0, 1)] == pytest.approx([float(n) for n in expected]), name
    limits = dict(re.findall(r"^\| `(\w+)` \| ([0-9.]+) \|$", page, re.M))
    ours = {"look": pace.LOOK, "stood": pace.STOOD, "patience": pace.PATIENCE, "tries": pace.TRIES, "tokens": MOST, "last": LAST}
    assert {name: float(is_) for name, is_ in limits.items()} == ours


def test_a_token_is_given_out_until_half_and_kept_for_need_until_its_end() -> None:
    def key(n: object) -> Key:
        return key_of(str(n), None)

    now = [1000.0]
    tokens = Tokens(lambda: now[0])
    tokens.put(key("a"), "one", 1300)
    for at, fresh, holding in [
        (1000, "one", "one"),
        (1149, "one", "one"),
        (1150, None, "one"),
        (1294, None, "one"),
        (1295, None, None),
    ]:
        now[0] = at
        assert (tokens.fresh(key("a")), tokens.holding(key("a")), tokens.fresh(key("b"))) == (fresh, holding, None), at
    now[0] = 1000
    for n in range(200):
        tokens.put(key(n), str(n), 1100 + n)
    assert sum(tokens.fresh(key(n)) is not None for n in ["a", *range(200)]) == MOST, "the cache is bounded"
    assert tokens.fresh(key(199)) == "199"
    tokens.clear()
    assert tokens.fresh(key(199)) is None
    # {"jti":"1","iat":1,"single_use":true}, and the same with false.
    tokens.put(key("once"), "eyJhbGciOiJFUzI1NiJ9.eyJqdGkiOiIxIiwiaWF0IjoxLCJzaW5nbGVfdXNlIjp0cnVlfQ.c2ln", 1300)
    tokens.put(key("often"), "eyJhbGciOiJFUzI1NiJ9.eyJqdGkiOiIxIiwiaWF0IjoxLCJzaW5nbGVfdXNlIjpmYWxzZX0.c2ln", 1300)
    assert (tokens.holding(key("once")), tokens.fresh(key("often")) is not None) == (None, True), "one for a single use is not kept"


class Failed(grpc.RpcError):
    """A failed call as grpcio raises it."""

    def __init__(self, code: grpc.StatusCode, reason: str = "", seconds: int = 0, text: str = "why") -> None:
        self._code, self._text = code, text
        status = details.Status()
        if reason:
            info = details.ErrorInfo(reason=reason, domain="mayfly.v1")
            status.details.add(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=info.SerializeToString())
        if seconds:
            retry = details.RetryInfo()
            retry.retry_delay.seconds = seconds
            status.details.add(type_url="type.googleapis.com/google.rpc.RetryInfo", value=retry.SerializeToString())
        self._metadata = (("grpc-status-details-bin", status.SerializeToString()),)

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._text

    def trailing_metadata(self) -> Any:
        return self._metadata


def test_only_a_final_reason_for_the_certificate_itself_ends_an_identity(package: Path) -> None:
    table = (package / "../docs/reasons.md").read_text()
    rows = re.findall(r"^\| `([A-Z_]+)` \|.*\| ([a-z ]*) \|$", table, re.M)
    assert len(rows) > 100
    assert {code for code, final in rows if final.strip() == "final"} == reasons.FINAL
    for code, _ in rows:
        error = error_of(Failed(grpc.StatusCode.UNAUTHENTICATED, code))
        assert isinstance(error, mayfly.Revoked) == (code in reasons.FINAL)
        assert isinstance(error, mayfly.Expired) == (code in reasons.EXPIRED)
        for other in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND):
            kind = mayfly.Exhausted if code == "BUDGET_EXHAUSTED" else mayfly.Denied
            assert type(error_of(Failed(other, code))) is kind, f"{code}: about another, or a change before the answer"
    assert type(error_of(Failed(grpc.StatusCode.UNAUTHENTICATED, "NOT_INVENTED_YET"))) is mayfly.Denied


def test_errors_say_whether_and_when_to_ask_again() -> None:
    limit = error_of(Failed(grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_REACHED", 7))
    assert (type(limit), limit.code, limit.retry_after, limit.transient) == (mayfly.Denied, "LIMIT_REACHED", 7.0, True)
    denied = error_of(Failed(grpc.StatusCode.PERMISSION_DENIED, "EXCEEDS_AUTHORITY"))
    assert (denied.code, denied.hint, denied.retry_after, denied.transient) == ("EXCEEDS_AUTHORITY", "why", None, False)
    for code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.DEADLINE_EXCEEDED):
        assert error_of(Failed(code)).transient
    assert error_of(Failed(grpc.StatusCode.UNAVAILABLE, text="Ssl handshake failed: CERTIFICATE_VERIFY_FAILED")).code == "untrusted"
    copy = pickle.loads(pickle.dumps(limit))
    assert (type(copy), copy.code, copy.retry_after) == (mayfly.Denied, "LIMIT_REACHED", 7.0)


def test_a_folder_whose_key_others_may_read_is_refused(tmp_path: Path) -> None:
    key = new_key()
    der = certificate([AGENT], key)
    for name in ("svid.pem", "bundle.pem"):
        (tmp_path / name).write_bytes(to_pem((der,)))
    path = tmp_path / "key.pem"
    with pytest.raises(mayfly.Unusable, match=r"key\.pem"):
        Saved.read(tmp_path)
    path.write_bytes(Credential.of((der,), key).key_pem)
    for mode in (0o640, 0o604, 0o644, 0o660):
        path.chmod(mode)
        with pytest.raises(mayfly.Unusable, match="chmod 600"):
            Saved.read(tmp_path)
    path.chmod(0o600)
    assert Saved.read(tmp_path).credential.leaf.spiffe_id == AGENT
    path.unlink()
    os.mkfifo(path, 0o600)
    started = time.monotonic()
    with pytest.raises(mayfly.Unusable, match="no file of at most"):
        Saved.read(tmp_path)
    assert time.monotonic() - started < 10, "a pipe is not waited for"
    (tmp_path / "svid_key.pem").write_bytes(b"")
    path.unlink()
    with pytest.raises(mayfly.Unusable, match="mayfly run"):
        Saved.read(tmp_path)


def test_a_folder_whose_files_are_switched_is_read_whole(tmp_path: Path) -> None:
    keys = [new_key(), new_key()]
    for name, key in zip(("..one", "..two"), keys, strict=True):
        (tmp_path / name).mkdir()
        der = certificate([AGENT], key)
        for file in ("svid.pem", "bundle.pem"):
            (tmp_path / name / file).write_bytes(to_pem((der,)))
        (tmp_path / name / "key.pem").write_bytes(Credential.of((der,), key).key_pem)
        (tmp_path / name / "key.pem").chmod(0o600)
    (tmp_path / "..two" / "issuer").write_text("issuer.internal:8443\n")
    (tmp_path / "..data").symlink_to("..one")
    for file in ("svid.pem", "key.pem", "bundle.pem", "issuer"):
        (tmp_path / file).symlink_to(f"..data/{file}")
    first = Saved.read(tmp_path).credential
    assert issuer_of(tmp_path) is None
    (tmp_path / "..next").symlink_to("..two")
    os.rename(tmp_path / "..next", tmp_path / "..data")
    assert Saved.read(tmp_path).credential.leaf != first.leaf
    assert issuer_of(tmp_path) == "issuer.internal:8443"


def test_without_an_identity_the_error_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("SPIFFE_ENDPOINT_SOCKET", "MAYFLY_TICKET", "MAYFLY_SERVER"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(LookupError, match="mayfly run"):
        mayfly.current()
    with pytest.raises(mayfly.Unusable, match="no folder, file, ticket or socket"):
        mayfly.current(tmp_path / "nothing")
    (tmp_path / "file").write_text("hello")
    with pytest.raises(mayfly.Unusable, match="not_a_ticket"):
        mayfly.current(tmp_path / "file")
    monkeypatch.setenv("SPIFFE_ENDPOINT_SOCKET", "/run/a.sock")
    with pytest.raises(mayfly.Unusable, match="unix:///path"):
        mayfly.current()
    with pytest.raises(mayfly.Unavailable):
        mayfly.current(f"unix://{tmp_path}/none.sock", patience=0.3)


def test_the_committed_messages_are_what_the_proto_generates(package: Path) -> None:
    pytest.importorskip("grpc_tools")
    import importlib.util

    spec = importlib.util.spec_from_file_location("generate", package / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    files = list(generate.generate())
    assert len(files) == 6
    for file, text in files:
        assert (package / file).read_text() == text, f"{file} is stale: run `python generate.py` and commit it"
