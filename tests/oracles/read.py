"""The Python `spiffe` package reads both credentials of the agent in a folder."""
import sys

from spiffe import JwtBundle, JwtSvid, TrustDomain, X509Bundle, X509Svid

folder, spiffe_id, audience = sys.argv[1:]
td = TrustDomain(spiffe_id.split("/")[2])


def read(name):
    with open(f"{folder}/{name}", "rb") as file:
        return file.read()


svid = X509Svid.parse(read("svid.pem"), read("key.pem"))
assert str(svid.spiffe_id) == spiffe_id, svid.spiffe_id
assert len(X509Bundle.parse(td, read("bundle.pem")).x509_authorities) == 1

import json

jwks = [k for k in json.loads(read("bundle.json"))["keys"] if k["use"] == "jwt-svid"]
bundle = JwtBundle.parse(td, json.dumps({"keys": jwks}).encode())
token = JwtSvid.parse_and_validate(read("svid.jwt").decode().strip(), bundle, {audience})
assert str(token.spiffe_id) == spiffe_id, token.spiffe_id
print("python: both hold")
