"""An ASN.1 compiler (asn1tools) compiles the module of the documentation, and reads and writes with it what the crate does."""
import json
import pathlib
import uuid

import asn1tools

verify = pathlib.Path(__file__).resolve().parents[2] / "agent-sdk" / "verify"
module = (verify / "binding.md").read_text().split("```asn1\n")[1].split("```")[0]
compiled = asn1tools.compile_string(module, "der")
accepted = json.loads((verify / "tests" / "vectors" / "accepted.json").read_text())
for vector in accepted:
    der, claim = bytes.fromhex(vector["der"]), vector["claim"]
    read = compiled.decode("Binding", der, check_constraints=True)
    told = {
        "version": claim["v"],
        "incarnation": uuid.UUID(claim["incarnation"]).bytes,
        "revision": claim["revision"],
        "stamps": [{"subject": bytes.fromhex(subject), "since": since} for subject, since in claim["stamps"]],
        "chain": claim["chain"],
        "autonomous": claim["mode"] == "autonomous",
        "scopes": claim["scopes"],
        "leaseExpiresAt": claim["lease_expires_at"],
    }
    if "user" in claim:
        told |= {"delegation": bytes.fromhex(claim["delegation_id"]), "user": claim["user"]}
    assert read == told, vector["name"]
    assert compiled.encode("Binding", told, check_constraints=True) == der, vector["name"]
print(f"asn1tools: {len(accepted)} bindings, read and written by the module")
