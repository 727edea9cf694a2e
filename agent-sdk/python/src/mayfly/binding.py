"""Reads Mayfly's binding: whom an agent acts for, who spawned it, what it may do, and how long at most.

This module decodes and verifies nothing. First verify the credential with a SPIFFE library (chain or signature, times,
audience, trust domain). Then pass the verified data to this module:

    binding = from_certificate(leaf_der)        # the leaf of the verified chain
    binding = from_claims(claims)               # all claims of the verified token

You have to check three more things, which need more than the binding:

- Is it revoked? Compare its stamps with the cuts of the same incarnation, which only Mayfly's feed delivers.
- Does the credential end at `lease_expires_at` or earlier, and is its SPIFFE ID absent from its own `chain`?
- Is the bearer an agent? An `/agent/` id without a binding is not a credential, and only agents carry a binding.

Any input that an issuer would not have written exactly so is a BindingError; a binding is never returned with a part left
out. Format: agent-sdk/verify/binding.md; test vectors: agent-sdk/verify/tests/vectors. It needs the standard library alone.
"""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass
from typing import Any, Mapping, Optional

#: OID of the binding, unless the issuer's setting `credentials.binding_oid` changes it.
DEFAULT_OID = "1.3.6.1.4.1.32473.1"
#: Longest extension, in bytes.
MAX_DER = 2048
#: Longest claim, in bytes of JSON without spaces.
MAX_CLAIM = 4096
#: Longest chain: sixteen agents and their root workload.
MAX_CHAIN = 17

__all__ = ["Binding", "BindingError", "Stamp", "User", "from_certificate", "from_claims", "from_claim", "from_der"]


class BindingError(ValueError):
    """Why a binding is refused; `code` is stable: `missing`, `malformed`, `inconsistent` or `too_large`."""

    def __init__(self, code: str, what: str) -> None:
        super().__init__(f"the binding is {code}: {what}")
        self.code = code


@dataclass(frozen=True)
class Stamp:
    """The credential relies on this subject through the record at revision `since`."""

    #: 16 bytes, which a cut of this subject has too.
    subject: bytes
    #: Revision. The credential is revoked if a cut of the subject has a higher `before`.
    since: int


@dataclass(frozen=True)
class User:
    """A person, as their OpenID provider names them; `sub` may be a pseudonym."""
    iss: str
    sub: str


@dataclass(frozen=True)
class Binding:
    """What both credentials of an agent say beyond their SPIFFE ID."""

    #: Epoch of the journal that the revisions belong to.
    incarnation: uuid.UUID
    #: Position of the record that allowed this credential.
    revision: int
    #: The subjects that the credential relies on; at least one, no subject twice.
    stamps: tuple[Stamp, ...]
    #: SHA-256 of the delegation's record, as 64 hex digits; None for an autonomous agent.
    delegation_id: Optional[str]
    #: The user it acts for; None for an autonomous agent.
    user: Optional[User]
    #: SPIFFE IDs from the parent up to the root workload; at least one.
    chain: tuple[str, ...]
    #: `delegated` or `autonomous`.
    mode: str
    #: Its scopes, sorted, without duplicates; may be empty.
    scopes: tuple[str, ...]
    #: Unix seconds at which its lease ends.
    lease_expires_at: int

    @property
    def parent_id(self) -> str:
        """SPIFFE ID of the parent that spawned the agent."""
        return self.chain[0]

    @property
    def root_id(self) -> str:
        """SPIFFE ID of the root workload."""
        return self.chain[-1]

    @property
    def depth(self) -> int:
        """Levels below the root workload; 1 directly below it."""
        return len(self.chain)


def from_certificate(der: bytes, oid: str = DEFAULT_OID) -> Binding:
    """Reads the binding of a certificate in DER. The certificate is not verified."""
    wanted = _oid(oid)
    found = []
    for extension in _extensions(der):
        this = extension.take(_OID)
        critical = extension.is_next(_BOOLEAN)
        if critical and not extension.boolean():
            raise BindingError("malformed", "an extension's default is written")
        value = extension.take(_OCTETS)
        extension.end()
        if this == wanted:
            if critical:
                raise BindingError("malformed", "its extension is critical")
            found.append(value)
    if not found:
        raise BindingError("missing", f"the certificate has no extension {oid}")
    if len(found) > 1:
        raise BindingError("malformed", f"the certificate has the extension {oid} more than once")
    return from_der(found[0])


def from_claims(claims: Mapping[str, Any], oid: str = DEFAULT_OID) -> Binding:
    """Reads the binding among all claims of a token. The token is not verified."""
    name = f"urn:oid:{oid}"
    if name not in claims:
        raise BindingError("missing", f"the token has no claim {name}")
    return from_claim(claims[name])


def from_der(der: bytes) -> Binding:
    """Reads the value of the extension."""
    if len(der) > MAX_DER:
        raise BindingError("too_large", f"{len(der)} bytes, and {MAX_DER} are allowed")
    outside = _Der(der)
    fields = outside.inside(_SEQUENCE)
    outside.end()
    version = fields.unsigned()
    if version != 1:
        raise BindingError("malformed", f"version {version} is unknown")
    incarnation = fields.octets(16)
    revision = fields.unsigned()
    stamps = []
    for stamp in fields.each():
        stamps.append(Stamp(stamp.octets(16), stamp.unsigned()))
        stamp.end()
    delegation_id = user = None
    if fields.is_next(_TAGGED_0):
        tagged = fields.inside(_TAGGED_0)
        delegation_id = tagged.octets(32).hex()
        tagged.end()
    if fields.is_next(_TAGGED_1):
        tagged = fields.inside(_TAGGED_1)
        names = tagged.inside(_SEQUENCE)
        tagged.end()
        user = User(names.text(), names.text())
        names.end()
    chain = fields.texts()
    mode = "autonomous" if fields.boolean() else "delegated"
    scopes = fields.texts()
    lease_expires_at = fields.unsigned()
    fields.end()
    return _checked(
        Binding(
            uuid.UUID(bytes=incarnation), revision, tuple(stamps), delegation_id, user, chain, mode, scopes, lease_expires_at
        )
    )


def from_claim(value: Any) -> Binding:
    """Reads the value of the claim, as `json` parses it."""
    claim = _object(value, "the claim", _REQUIRED, {"delegation_id", "user"})
    if _integer(claim["v"], "v") != 1:
        raise BindingError("malformed", "its version is unknown")
    stamps = []
    for stamp in _list(claim["stamps"], "stamps"):
        if len(_list(stamp, "a stamp")) != 2:
            raise BindingError("malformed", "a stamp is a subject and a revision")
        stamps.append(Stamp(bytes.fromhex(_spelled(stamp[0], _HEX_16, "a subject")), _integer(stamp[1], "since")))
    delegation_id = user = None
    if "delegation_id" in claim:
        delegation_id = _spelled(claim["delegation_id"], _HEX_32, "delegation_id")
    if "user" in claim:
        names = _object(claim["user"], "the user", {"iss", "sub"}, set())
        user = User(_string(names["iss"], "iss"), _string(names["sub"], "sub"))
    mode = _string(claim["mode"], "mode")
    if mode not in ("delegated", "autonomous"):
        raise BindingError("malformed", "its mode is unknown")
    binding = _checked(
        Binding(
            uuid.UUID(_spelled(claim["incarnation"], _UUID, "incarnation")),
            _integer(claim["revision"], "revision"),
            tuple(stamps),
            delegation_id,
            user,
            tuple(_string(id, "an id of the chain") for id in _list(claim["chain"], "chain")),
            mode,
            tuple(_string(scope, "a scope") for scope in _list(claim["scopes"], "scopes")),
            _integer(claim["lease_expires_at"], "lease_expires_at"),
        )
    )
    # After the checks, so that what is written again has its shape, and ends.
    size = len(json.dumps(claim, ensure_ascii=False, separators=(",", ":")).encode())
    if size > MAX_CLAIM:
        raise BindingError("too_large", f"{size} bytes, and {MAX_CLAIM} are allowed")
    return binding


def _checked(binding: Binding) -> Binding:
    """Checks the rules between the fields."""

    def bad(what: str) -> BindingError:
        return BindingError("inconsistent", what)

    if not 1 <= len(binding.chain) <= MAX_CHAIN:
        raise bad(f"the chain must hold 1 to {MAX_CHAIN} ids")
    if not all(_is_spiffe_id(id) for id in binding.chain):
        raise bad("the chain holds something that is no SPIFFE ID")
    if not all(_AGENT.fullmatch(id) for id in binding.chain[:-1]) or _AGENT.fullmatch(binding.chain[-1]):
        raise bad("the chain must be agents below one workload")
    delegated = binding.mode == "delegated"
    if (binding.user is not None) != delegated or (binding.delegation_id is not None) != delegated:
        raise bad("a delegated agent has a user and a delegation, an autonomous one has neither")
    if binding.user is not None and not (binding.user.iss and binding.user.sub):
        raise bad("the user lacks an issuer or a subject")
    if not binding.stamps:
        raise bad("there are no stamps")
    if any(stamp.since > binding.revision for stamp in binding.stamps):
        raise bad("a stamp is younger than the credential")
    if len({stamp.subject for stamp in binding.stamps}) != len(binding.stamps):
        raise bad("two stamps have one subject")
    # Code points order as the bytes of their UTF-8 do.
    if any(a >= b for a, b in zip(binding.scopes, binding.scopes[1:])):
        raise bad("scopes must be sorted, none twice")
    return binding


def _is_spiffe_id(text: str) -> bool:
    match = _SPIFFE_ID.fullmatch(text) if len(text) <= 2048 else None
    return match is not None and not {".", ".."} & set(match[1].split("/"))


# `[0-9]`, because `\d` matches digits of every script; `fullmatch`, because `$` also matches before a final line break.
_SPIFFE_ID = re.compile(r"spiffe://[a-z0-9._-]{1,255}((?:/[A-Za-z0-9._-]+)*)")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_AGENT = re.compile(r"spiffe://[a-z0-9._-]{1,255}/agent/[a-z][a-z0-9-]{0,31}/" + _UUID.pattern)
_HEX_16 = re.compile(r"[0-9a-f]{32}")
_HEX_32 = re.compile(r"[0-9a-f]{64}")
_REQUIRED = {"v", "incarnation", "revision", "stamps", "chain", "mode", "scopes", "lease_expires_at"}


def _object(value: Any, what: str, required: set[str], optional: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BindingError("malformed", f"{what} is no object")
    if not required <= value.keys() or not value.keys() <= required | optional:
        raise BindingError("malformed", f"{what} lacks a field, or has one that is unknown")
    return value


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise BindingError("malformed", f"{what} is no list")
    return value


def _string(value: Any, what: str) -> str:
    # JSON can express half a surrogate pair, which is not text.
    if not isinstance(value, str) or any("\ud800" <= c <= "\udfff" for c in value):
        raise BindingError("malformed", f"{what} is no text")
    return value


def _integer(value: Any, what: str) -> int:
    # To Python, `True` is an int and 1.0 equals 1.
    if type(value) is not int or not 0 <= value < 1 << 64:
        raise BindingError("malformed", f"{what} is no integer of 64 bits")
    return value


def _spelled(value: Any, pattern: re.Pattern[str], what: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise BindingError("malformed", f"{what} is not written as it should be")
    return value


_BOOLEAN, _INTEGER, _OCTETS, _OID, _UTF8, _SEQUENCE = 0x01, 0x02, 0x04, 0x06, 0x0C, 0x30
_TAGGED_0, _TAGGED_1, _TAGGED_3 = 0xA0, 0xA1, 0xA3


class _Der:
    """Reads elements in order and accepts nothing but DER: one-byte tags, shortest lengths, no bytes left over."""

    def __init__(self, rest: bytes) -> None:
        self.rest = bytes(rest)

    def is_next(self, tag: int) -> bool:
        return self.rest[:1] == bytes([tag])

    def end(self) -> None:
        if self.rest:
            raise BindingError("malformed", "something stands where nothing should")

    def take(self, tag: int) -> bytes:
        if not self.is_next(tag):
            raise BindingError("malformed", f"expected the tag 0x{tag:02x}")
        length, head = int.from_bytes(self.rest[1:2], "big"), 2
        if length >= 0x80:
            head += length - 0x80
            written = self.rest[2:head]
            length = int.from_bytes(written, "big")
            # Shortest form: no leading zero, one byte if it fits in seven bits. This excludes indefinite lengths.
            if written[:1] == b"\0" or length < 0x80:
                raise BindingError("malformed", "a length is indefinite, or longer than needed")
        if len(self.rest) < head + length:
            raise BindingError("malformed", "it ends within an element")
        content, self.rest = self.rest[head : head + length], self.rest[head + length :]
        return content

    def inside(self, tag: int) -> _Der:
        return _Der(self.take(tag))

    def each(self) -> list[_Der]:
        items, elements = self.inside(_SEQUENCE), []
        while items.rest:
            elements.append(items.inside(_SEQUENCE))
        return elements

    def texts(self) -> tuple[str, ...]:
        items, texts = self.inside(_SEQUENCE), []
        while items.rest:
            texts.append(items.text())
        return tuple(texts)

    def text(self) -> str:
        try:
            return self.take(_UTF8).decode("utf-8")
        except UnicodeDecodeError as e:
            raise BindingError("malformed", "a text is no UTF-8") from e

    def octets(self, length: int) -> bytes:
        octets = self.take(_OCTETS)
        if len(octets) != length:
            raise BindingError("malformed", f"expected {length} octets")
        return octets

    def unsigned(self) -> int:
        octets = self.take(_INTEGER)
        # A leading zero is allowed only where the number would be negative without it.
        padded = octets[:1] == b"\0" and len(octets) > 1 and octets[1] < 0x80
        if not octets or octets[0] >= 0x80 or padded:
            raise BindingError("malformed", "an integer is empty, negative or padded")
        value = int.from_bytes(octets, "big")
        if value >= 1 << 64:
            raise BindingError("malformed", "an integer is over 64 bits")
        return value

    def boolean(self) -> bool:
        octets = self.take(_BOOLEAN)
        if octets not in (b"\x00", b"\xff"):
            raise BindingError("malformed", "a boolean is neither FALSE nor TRUE")
        return octets == b"\xff"


def _extensions(der: bytes) -> list[_Der]:
    """Returns the extensions of a certificate, each as the content of its sequence (RFC 5280 4.1)."""
    outside = _Der(der)
    certificate = outside.inside(_SEQUENCE)
    outside.end()
    fields = certificate.inside(_SEQUENCE)
    if fields.is_next(_TAGGED_0):
        fields.take(_TAGGED_0)  # version
    fields.take(_INTEGER)  # serial number
    for _ in ("signature", "issuer", "validity", "subject", "subject public key"):
        fields.take(_SEQUENCE)
    for tag in (0x81, 0x82):  # unique identifiers, implicit
        if fields.is_next(tag):
            fields.take(tag)
    if not fields.is_next(_TAGGED_3):
        fields.end()
        return []
    tagged = fields.inside(_TAGGED_3)
    fields.end()
    extensions = tagged.each()
    tagged.end()
    return extensions


def _oid(dotted: str) -> bytes:
    """The content of an OBJECT IDENTIFIER (X.690 8.19)."""
    first, second, *others = (int(arc) for arc in dotted.split("."))
    content = bytearray()
    for arc in (40 * first + second, *others):
        sevens = [arc & 0x7F]
        while arc := arc >> 7:
            sevens.append(0x80 | arc & 0x7F)
        content += bytes(reversed(sevens))
    return bytes(content)
