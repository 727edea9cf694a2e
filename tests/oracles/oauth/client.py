"""Authlib: a client of the token endpoint, and a reader of what it gives."""
import subprocess
import sys

from authlib.integrations.requests_client import OAuth2Session, OAuthError

mayfly, issuer, agent = sys.argv[1:4]
MAIL = "https://mail.example"


def proof():
    assertion = subprocess.check_output([mayfly, "mint", "--as", "a1", "--audience", issuer], text=True).strip()
    of = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    return {"client_assertion_type": of, "client_assertion": assertion}


session = OAuth2Session(agent, token_endpoint_auth_method="none")
token = session.fetch_token(f"{issuer}/oauth/token", grant_type="client_credentials", resource=MAIL, **proof())
assert token["token_type"] == "Bearer" and 0 < token["expires_in"] <= 300, token
assert token["scope"] == "files:read mail:send search:read", token

once = proof()
session.fetch_token(f"{issuer}/oauth/token", grant_type="client_credentials", resource=MAIL, **once)
for bad, error in [(once, "invalid_client"), ({"client_secret": "s"}, "invalid_client")]:
    try:
        session.fetch_token(f"{issuer}/oauth/token", grant_type="client_credentials", resource=MAIL, **bad)
        raise SystemExit(f"it took {bad}")
    except OAuthError as e:
        assert e.error == error, e
print("authlib agrees")
