"""Tickets: one string with the issuer's address, its root and a secret for one use."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field

from .errors import Unusable

#: Every ticket begins with this.
PREFIX = "mayfly1."
_LONGEST = 1 + 2 * 256 + 2 * 32
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")


@dataclass(frozen=True)
class Ticket:
    """What a ticket says. The secret is never printed."""

    #: `host:port` of the issuer.
    address: str
    trust_domain: str
    #: SHA-256 of the root's SubjectPublicKeyInfo.
    root: bytes
    secret: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Ticket:
        """Parses a ticket strictly. Raises `Unusable`, which never repeats the text: it may hold a secret."""
        if not text.startswith(PREFIX):
            if re.match(r"mayfly[0-9]+\.", text):
                raise Unusable("version", "this ticket has an unknown version: use the package of the issuer's release")
            raise Unusable("not_a_ticket", f"give the whole ticket, which begins with `{PREFIX}`, without spaces and line breaks")
        damaged = Unusable("damaged", "this ticket is damaged: copy the whole string again, or ask for a new one")
        encoded = text[len(PREFIX) :]
        try:
            raw = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise damaged from None
        # INVARIANT: a ticket has one spelling.
        if len(raw) > _LONGEST or base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != encoded:
            raise damaged
        if raw[:1] != b"\x01":
            raise Unusable("version", "this ticket has an unknown version: use the package of the issuer's release")
        texts, rest = [], raw[1:]
        for _ in range(2):
            length = rest[0] if rest else 0
            if len(rest) < 1 + length:
                raise damaged
            try:
                texts.append(rest[1 : 1 + length].decode())
            except UnicodeDecodeError:
                raise damaged from None
            rest = rest[1 + length :]
        if len(rest) != 64:
            raise damaged
        if not _TRUST_DOMAIN.fullmatch(texts[1]):
            raise Unusable("trust_domain", "the ticket's trust domain is not valid: ask for a new ticket")
        return cls(checked_address(texts[0]), texts[1], rest[:32], rest[32:])


def checked_address(text: str) -> str:
    """Returns `host:port` as it was given. Raises `Unusable` if it is something else."""
    host, _, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    right = re.fullmatch(r"[1-9][0-9]{0,4}", port) and int(port) < 65536 and len(text) <= 255
    in_brackets = bare != host
    form = r"[0-9A-Fa-f:.]+" if in_brackets else r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
    if not right or not re.fullmatch(form, bare) or ".." in bare or (in_brackets and ":" not in bare):
        raise Unusable("address", f"`{text[:255]}` is not an address: write host:port, with an IPv6 address in brackets")
    return text
