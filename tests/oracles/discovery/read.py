"""PyJWT: finds the keys by the issuer's URL, verifies a token, prints its subject."""

import json
import ssl
import sys
import urllib.request

import jwt

issuer, audience, file = sys.argv[1:]
tls = ssl.create_default_context(cafile=".mayfly/https-ca.pem")
with urllib.request.urlopen(issuer + "/.well-known/openid-configuration", context=tls) as answer:
    found = json.load(answer)
token = open(file).read().strip()
key = jwt.PyJWKClient(found["jwks_uri"], ssl_context=tls).get_signing_key_from_jwt(token)
claims = jwt.decode(token, key, algorithms=found["id_token_signing_alg_values_supported"], audience=audience, issuer=issuer)
print(claims["sub"])
