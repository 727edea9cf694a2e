"""Certificates and keys: what this package makes and reads of its own. Those of peers are verified by TLS and by the guard."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

from .binding import DEFAULT_OID, Binding, BindingError, from_certificate
from .errors import Unusable

_SPIFFE_ID = re.compile(r"spiffe://([a-z0-9._-]{1,255})((?:/[A-Za-z0-9._-]+)*)")
_DER, _SPKI = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
_MOST = 1000


def split_id(text: str) -> tuple[str, str]:
    """Returns trust domain and path of a SPIFFE ID. Raises `Unusable` if it is not one in its only spelling."""
    match = _SPIFFE_ID.fullmatch(text) if len(text) <= 2048 else None
    if match is None or {".", ".."} & set(match[2].split("/")):
        raise Unusable("spiffe_id", f"`{text[:256]}` is not a SPIFFE ID: write spiffe://trust-domain/path")
    return match[1], match[2]


@dataclass(frozen=True)
class Leaf:
    """SPIFFE ID and expiry of an X.509-SVID."""

    spiffe_id: str
    #: Unix seconds.
    expires_at: float
    public_key: bytes = field(repr=False)

    @classmethod
    def read(cls, der: bytes) -> Leaf:
        """Reads a certificate that has exactly one URI, a SPIFFE ID with a path. Raises `Unusable`."""
        try:
            certificate = x509.load_der_x509_certificate(der)
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            uris = names.get_values_for_type(x509.UniformResourceIdentifier)
            public_key = certificate.public_key().public_bytes(_DER, _SPKI)
        except (ValueError, x509.ExtensionNotFound) as e:
            raise Unusable("certificate", f"the certificate is not an X.509-SVID: {e}") from None
        if len(uris) != 1 or not split_id(uris[0])[1]:
            raise Unusable("certificate", "the certificate is not an X.509-SVID: it must have one URI, a SPIFFE ID with a path")
        return cls(uris[0], certificate.not_valid_after_utc.timestamp(), public_key)


@dataclass(frozen=True)
class Credential:
    """A certificate chain with its key. Leaf and key belong together: that was checked."""

    leaf: Leaf
    #: DER: the leaf, then its issuing CA; never the root.
    chain: tuple[bytes, ...]
    key_pem: bytes = field(repr=False)
    #: Absent for a workload, and for a certificate of another issuer.
    binding: Binding | None

    @classmethod
    def of(cls, chain: tuple[bytes, ...], key: CertificateIssuerPrivateKeyTypes) -> Credential:
        """Raises `Unusable` unless the first certificate is an X.509-SVID for this key."""
        if not chain:
            raise Unusable("certificate", "there is no certificate")
        leaf = Leaf.read(chain[0])
        if key.public_key().public_bytes(_DER, _SPKI) != leaf.public_key:
            raise Unusable("key", "the key does not belong to the certificate")
        return cls(leaf, chain, key_to_pem(key), binding_of(chain[0]))

    @property
    def chain_pem(self) -> bytes:
        """The chain in PEM."""
        return to_pem(self.chain)

    @property
    def trust_domain(self) -> str:
        """The trust domain of the SPIFFE ID."""
        return split_id(self.leaf.spiffe_id)[0]


def binding_of(der: bytes) -> Binding | None:
    """The binding of our own certificate, `None` if it has none that can be read.

    `MAYFLY_BINDING_OID` names its OID where the issuer is configured with another than the default.
    """
    try:
        return from_certificate(der, os.environ.get("MAYFLY_BINDING_OID", DEFAULT_OID))
    except BindingError:
        return None


def new_key() -> ec.EllipticCurvePrivateKey:
    """Makes a P-256 key in this process. Only a request with its public half leaves it."""
    return ec.generate_private_key(ec.SECP256R1())


def request(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A PKCS#10 request, DER, with an empty subject: the issuer uses the public key alone."""
    return x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256()).public_bytes(_DER)


def key_to_pem(key: CertificateIssuerPrivateKeyTypes) -> bytes:
    """PKCS#8 in PEM, not encrypted."""
    encoding, none = serialization.Encoding.PEM, serialization.NoEncryption()
    return key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, none)


def read_key(data: bytes, *, pem: bool) -> CertificateIssuerPrivateKeyTypes:
    """Reads a PKCS#8 key. Raises `Unusable`, which does not repeat what was read."""
    try:
        load = serialization.load_pem_private_key if pem else serialization.load_der_private_key
        return load(data, None)  # type: ignore[return-value]
    except (ValueError, TypeError):
        raise Unusable("key", "the private key cannot be read: give PKCS#8 that is not encrypted") from None


def to_pem(ders: tuple[bytes, ...]) -> bytes:
    """Certificates in PEM, one after the other."""
    return b"".join(x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM) for der in ders)


def from_pem(pem: bytes) -> tuple[bytes, ...]:
    """The certificates of a PEM text in DER, in their order; at least one. Raises `Unusable`."""
    try:
        return tuple(certificate.public_bytes(_DER) for certificate in x509.load_pem_x509_certificates(pem))
    except ValueError:
        raise Unusable("certificate", "there is no certificate in PEM form, or it is damaged") from None


def split(ders: bytes) -> tuple[bytes, ...]:
    """Splits DER certificates that follow one another. Raises `Unusable` if there is anything else among them."""
    found: list[bytes] = []
    while ders:
        size, head = ders[1] if len(ders) > 1 else 0, 2
        if size >= 0x80:
            head += size - 0x80
            size = int.from_bytes(ders[2:head], "big")
        if ders[:1] != b"\x30" or head > 6 or len(ders) < head + size or len(found) == _MOST:
            raise Unusable("certificate", "the certificates cannot be read")
        found.append(ders[: head + size])
        ders = ders[head + size :]
    try:
        for der in found:
            x509.load_der_x509_certificate(der)
    except ValueError:
        raise Unusable("certificate", "the certificates cannot be read") from None
    return tuple(found)


def pinned_root(chain: tuple[bytes, ...], pin: bytes) -> bytes:
    """The self-signed certificate of a chain whose key has this SHA-256. Raises `Unusable` if there is none.

    What a stranger presents is held against the pin and its own signature, so it does not matter who presented it.
    """
    for der in reversed(chain):
        try:
            root = x509.load_der_x509_certificate(der)
            public_key = root.public_key().public_bytes(_DER, _SPKI)
            if hashlib.sha256(public_key).digest() == pin:
                root.verify_directly_issued_by(root)
                return der
        except (ValueError, TypeError, InvalidSignature):
            continue
    raise Unusable("untrusted", "the server is not the issuer of this ticket: its root has another key")
