"""Holds binding.py, alone and with the standard library only, to the vectors that the crate writes, and, in MAYFLY_LIVE, to a
credential of a running issuer. A service may copy that one file."""

import base64
import calendar
import copy
import importlib.util
import json
import os
import pathlib
import random
import sys
import time
import unittest
import uuid

HERE = pathlib.Path(__file__).resolve().parent
# From its file, and not from the package, which would import the rest.
spec = importlib.util.spec_from_file_location("binding", HERE.parents[1] / "agent-sdk" / "python" / "src" / "mayfly" / "binding.py")
alone = importlib.util.module_from_spec(spec)
sys.modules["binding"] = alone
spec.loader.exec_module(alone)
DEFAULT_OID, Binding, BindingError = alone.DEFAULT_OID, alone.Binding, alone.BindingError
from_certificate, from_claim, from_claims, from_der = alone.from_certificate, alone.from_claim, alone.from_claims, alone.from_der

VECTORS = HERE.parents[1] / "agent-sdk" / "verify" / "tests" / "vectors"
OID = bytes.fromhex("06092b0601040181fd5901")
LIVE = os.environ.get("MAYFLY_LIVE")


def vectors(name):
    found = json.loads((VECTORS / name).read_text())
    assert found, f"{name} is empty"
    return found


def as_claim(binding):
    """The claim that says the same, field by field."""
    claim = {
        "v": 1,
        "incarnation": str(binding.incarnation),
        "revision": binding.revision,
        "stamps": [[stamp.subject.hex(), stamp.since] for stamp in binding.stamps],
        "chain": list(binding.chain),
        "mode": binding.mode,
        "scopes": list(binding.scopes),
        "lease_expires_at": binding.lease_expires_at,
    }
    if binding.delegation_id is not None:
        claim["delegation_id"] = binding.delegation_id
    if binding.user is not None:
        claim["user"] = {"iss": binding.user.iss, "sub": binding.user.sub}
    return claim


def tlv(tag, *parts):
    content = b"".join(parts)
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + content


def certificate(*extensions, version=True, identifiers=(), after=(), inside=()):
    """The shape of a certificate, and nothing that holds; what stands `after` or `inside` the extensions belongs not there."""
    empty = tlv(0x30)
    fields = [tlv(0xA0, tlv(0x02, b"\2"))] if version else []
    fields += [tlv(0x02, b"\1"), empty, empty, empty, empty, empty, *identifiers]
    if extensions:
        fields.append(tlv(0xA3, tlv(0x30, *extensions), *inside))
    fields += after
    return tlv(0x30, tlv(0x30, *fields), empty, tlv(0x03, b"\0"))


def extension(value, oid=OID, *critical):
    return tlv(0x30, oid, *critical, tlv(0x04, value))


class Vectors(unittest.TestCase):
    def refused(self, code, read, *arguments):
        with self.assertRaises(BindingError) as caught:
            read(*arguments)
        self.assertEqual(caught.exception.code, code, str(caught.exception))

    def test_what_is_accepted_reads_the_same_from_both_encodings(self):
        for vector in vectors("accepted.json"):
            with self.subTest(vector["name"]):
                der = bytes.fromhex(vector["der"])
                binding = from_der(der)
                self.assertIsInstance(binding, Binding)
                self.assertEqual(as_claim(binding), vector["claim"])
                self.assertEqual(from_claim(vector["claim"]), binding)
                self.assertEqual(from_certificate(certificate(extension(der))), binding)
                self.assertEqual(from_claims({f"urn:oid:{DEFAULT_OID}": vector["claim"], "sub": "x"}), binding)
                self.assertEqual(binding.parent_id, vector["claim"]["chain"][0])
                self.assertEqual(binding.root_id, vector["claim"]["chain"][-1])
                self.assertEqual(binding.depth, len(vector["claim"]["chain"]))

    def test_what_is_refused_is_refused_for_its_own_fault(self):
        for vector in vectors("refused.json"):
            with self.subTest(vector["name"], kind="der" if "der" in vector else "claim"):
                if "der" in vector:
                    self.refused(vector["code"], from_der, bytes.fromhex(vector["der"]))
                else:
                    self.refused(vector["code"], from_claim, vector["claim"])

    def test_what_only_this_language_can_say_is_refused(self):
        good = vectors("accepted.json")[0]["claim"]
        for field, value in [
            ("revision", 1 << 64),
            ("revision", float("nan")),
            ("chain", tuple(good["chain"])),
            ("scopes", {"files:read"}),
            ("scopes", ["\ud800"]),
            ("scopes", ["\udfff"]),
            ("user", {"iss": "https://idp.example", "sub": "\udc1d"}),
            ("delegation_id", "٩" * 64),
            ("incarnation", uuid.UUID(int=7)),
        ]:
            with self.subTest(field, value=repr(value)):
                self.refused("malformed", from_claim, {**good, field: value})
        deep = []
        for _ in range(100_000):
            deep = [deep]
        self.refused("malformed", from_claim, {**good, "scopes": [deep]})

    def test_a_spiffe_id_may_have_2048_bytes(self):
        # A certificate has no room for it.
        longest = "spiffe://td.example/" + "a" * 2028
        self.assertEqual(from_claim({**vectors("accepted.json")[0]["claim"], "chain": [longest]}).chain, (longest,))

    def test_a_binding_cannot_be_changed(self):
        binding = from_claim(vectors("accepted.json")[0]["claim"])
        with self.assertRaises(AttributeError):
            binding.mode = "autonomous"
        self.assertEqual(len({binding, copy.copy(binding)}), 1)

    def test_whatever_the_bytes_reading_is_a_binding_or_an_error(self):
        chance = random.Random(1)
        good = bytes.fromhex(vectors("accepted.json")[0]["der"])
        read = 0
        for _ in range(20_000):
            damaged = bytearray(good)
            for _ in range(chance.randint(1, 3)):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            try:
                binding = from_der(bytes(damaged))
            except BindingError:
                continue
            read += 1
            self.assertEqual(from_claim(as_claim(binding)), binding)
        self.assertGreater(read, 0)


class Certificates(unittest.TestCase):
    def setUp(self):
        self.der = bytes.fromhex(vectors("accepted.json")[0]["der"])

    def code(self, der, *oid):
        with self.assertRaises(BindingError) as caught:
            from_certificate(der, *oid)
        return caught.exception.code

    def test_the_extension_is_found_wherever_it_stands(self):
        other = extension(b"x", tlv(0x06, b"\x55\x1d\x13"), tlv(0x01, b"\xff"))
        unique = (tlv(0x81, b"\0\1"), tlv(0x82, b"\0\2"))
        want = from_der(self.der)
        self.assertEqual(from_certificate(certificate(other, extension(self.der), other)), want)
        self.assertEqual(from_certificate(certificate(extension(self.der), version=False)), want)
        self.assertEqual(from_certificate(certificate(extension(self.der), identifiers=unique)), want)
        there = extension(self.der, bytes.fromhex("06062b0601040107"))
        self.assertEqual(from_certificate(certificate(there), "1.3.6.1.4.1.7"), want)
        # 2.999.2147483647: a first octet group over one octet, and the longest arc there is.
        there = extension(self.der, bytes.fromhex("0607883787ffffff7f"))
        self.assertEqual(from_certificate(certificate(there), "2.999.2147483647"), want)

    def test_a_certificate_without_it_has_none(self):
        self.assertEqual(self.code(certificate()), "missing")
        self.assertEqual(self.code(certificate(extension(self.der)), "1.3.6.1.4.1.32473.2"), "missing")
        with self.assertRaises(BindingError) as caught:
            from_claims({"urn:oid:1.3.6.1.4.1.32473.2": vectors("accepted.json")[0]["claim"]})
        self.assertEqual(caught.exception.code, "missing")

    def test_what_is_no_plain_certificate_is_refused(self):
        good = certificate(extension(self.der))
        twice = certificate(extension(self.der), extension(self.der))
        critical = certificate(extension(self.der, OID, tlv(0x01, b"\xff")))
        default = certificate(extension(b"x", tlv(0x06, b"\x55\x1d\x13"), tlv(0x01, b"\0")), extension(self.der))
        more = certificate(tlv(0x30, OID, tlv(0x04, self.der), tlv(0x05)))
        damaged = certificate(extension(self.der + b"\0"))
        for name, der in {
            "nothing": b"",
            "trailing": good + b"\0",
            "cut short": good[:-1],
            "twice": twice,
            "critical": critical,
            "default": default,
            "more": more,
            "damaged": damaged,
            "after the extensions": certificate(extension(self.der), after=[tlv(0x05)]),
            "after the extensions, in their tag": certificate(extension(self.der), inside=[tlv(0x05)]),
            "where the extensions should be": certificate(after=[tlv(0xA4, tlv(0x30, extension(self.der)))]),
            "PEM": b"-----BEGIN CERTIFICATE-----",
        }.items():
            with self.subTest(name):
                self.assertEqual(self.code(der), "malformed")


@unittest.skipUnless(LIVE, "MAYFLY_LIVE is not set: no running issuer")
class Live(unittest.TestCase):
    """Both credentials in each folder of MAYFLY_LIVE, beside what `mayfly verify -o json` said of them."""

    def same(self, binding, told, field_of_holder):
        told = dict(told["binding"])
        # Of the holder, and not in the binding.
        self.assertEqual(told.pop("agent_id"), field_of_holder)
        told.pop("class")
        self.assertEqual(calendar.timegm(time.strptime(told.pop("lease_expires_at"), "%Y-%m-%dT%H:%M:%SZ")), binding.lease_expires_at)
        user = binding.user and {"iss": binding.user.iss, "sub": binding.user.sub}
        stamps = [{"subject": stamp.subject.hex(), "since": stamp.since} for stamp in binding.stamps]
        self.assertEqual(
            told,
            {
                "parent_id": binding.parent_id,
                "root_id": binding.root_id,
                "delegation_id": binding.delegation_id,
                "user": user,
                "depth": binding.depth,
                "mode": binding.mode,
                "scopes": list(binding.scopes),
                "revision": binding.revision,
                "incarnation": str(binding.incarnation),
                "chain": list(binding.chain),
                "stamps": stamps,
            },
        )

    def test_both_credentials_say_what_verify_says(self):
        folders = sorted(path for path in pathlib.Path(LIVE).iterdir() if (path / "svid.pem").exists())
        self.assertGreaterEqual(len(folders), 2)
        for folder in folders:
            with self.subTest(folder.name):
                told = json.loads((folder / "x509.json").read_text())
                leaf = (folder / "svid.pem").read_text().split("-----")[2]
                self.same(from_certificate(base64.b64decode(leaf)), told, told["spiffe_id"])
                told = json.loads((folder / "jwt.json").read_text())
                body = (folder / "svid.jwt").read_text().split(".")[1]
                claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
                self.same(from_claims(claims), told, claims["sub"])


if __name__ == "__main__":
    unittest.main()
