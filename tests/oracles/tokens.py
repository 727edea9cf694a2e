"""Stock SDKs with the token files of `mayfly run --for`, and the endpoints that they ask (tests/oracles/tokens)."""

import datetime
import http.server
import json
import os
import ssl
import sys
import time
import urllib.parse

import jwt

ROUNDS = 3
PROVIDER = "projects/1/locations/global/workloadIdentityPools/agents/providers/mayfly"
KEYS = jwt.PyJWKSet.from_dict(json.load(open("jwks.json")))


def verified(token, audience):
    """The agent of a token: signature, audience, issuer and expiry are PyJWT's to check."""
    key = KEYS[jwt.get_unverified_header(token)["kid"]]
    claims = jwt.decode(token, key, algorithms=["ES256"], audience=audience, issuer="https://mayfly.example")
    assert claims["sub"].startswith("spiffe://dev.mayfly.test/agent/researcher/"), claims
    return claims["sub"], claims["jti"]


class Endpoints(http.server.BaseHTTPRequestHandler):
    """Each answers with the agent and the token id in place of a credential, so that the client shows what was verified."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        form = {name: values[0] for name, values in urllib.parse.parse_qs(body).items()}
        path = self.path.rstrip("/")
        if path == "/sts":
            assert form["Action"] == "AssumeRoleWithWebIdentity", form
            agent, jti = verified(form["WebIdentityToken"], "sts.amazonaws.com")
            assert agent.endswith(form["RoleSessionName"]), form
            soon = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=60)).strftime("%Y-%m-%dT%H:%M:%SZ")
            self.answer("text/xml", f"""<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
              <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{jti}</AccessKeyId><SecretAccessKey>s</SecretAccessKey>
              <SessionToken>{agent}</SessionToken><Expiration>{soon}</Expiration></Credentials>
              </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>""")
        elif path == "/google":
            assert form["audience"] == f"//iam.googleapis.com/{PROVIDER}", form
            agent, jti = verified(form["subject_token"], f"https://iam.googleapis.com/{PROVIDER}")
            self.json({"access_token": jti, "issued_token_type": "x", "token_type": "Bearer", "expires_in": 1})
        elif path == "/tenant/oauth2/v2.0/token":
            assert form["client_id"] == "client" and form["grant_type"] == "client_credentials", form
            agent, jti = verified(form["client_assertion"], "api://AzureADTokenExchange")
            self.json({"access_token": jti, "token_type": "Bearer", "expires_in": 1})
        elif path.startswith("/anthropic/v1/oauth/token"):
            asked = json.loads(body)
            assert asked["federation_rule_id"] == "fdrl_1", asked
            agent, jti = verified(asked["assertion"], "https://api.anthropic.com")
            self.json({"access_token": f"sk-ant-oat01-{jti}", "token_type": "Bearer", "expires_in": 1})
        elif path.startswith("/anthropic/v1/messages"):
            bearer = self.headers["authorization"].removeprefix("Bearer ")
            assert self.headers["x-api-key"] is None
            self.json({"id": "m", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn", "stop_sequence": None,
                       "content": [{"type": "text", "text": bearer}], "usage": {"input_tokens": 1, "output_tokens": 1}})
        else:
            self.send_error(404)

    def json(self, value):
        self.answer("application/json", json.dumps(value))

    def answer(self, kind, text):
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


def serve():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoints)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain("server.pem", "server.key")
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    with open("port", "w") as port:
        port.write(str(server.server_address[1]))
    server.serve_forever()


def use():
    import anthropic
    import azure.identity
    import boto3
    import google.auth.identity_pool
    import google.auth.transport.requests

    at = os.environ["AT"]
    # The endpoint of Google's exchange is in the file; everything else stays as `mayfly run` wrote it.
    config = json.load(open(os.environ["GOOGLE_APPLICATION_CREDENTIALS"]))
    assert config["token_url"] == "https://sts.googleapis.com/v1/token", config
    config["token_url"] = f"{at}/google"
    google_credentials = google.auth.identity_pool.Credentials.from_info(config, scopes=["x"])
    aws = boto3.Session().get_credentials()
    claude = anthropic.Anthropic(base_url=f"{at}/anthropic", max_retries=0)

    def entra_token():
        # One credential keeps what it has read for ten minutes: a token that lives for twenty is for a longer test.
        entra = azure.identity.WorkloadIdentityCredential(disable_instance_discovery=True)
        return entra.get_token("https://vault.azure.net/.default").token

    def google_token():
        google_credentials.refresh(google.auth.transport.requests.Request())
        return google_credentials.token

    def claude_token():
        said = claude.messages.create(model="m", max_tokens=1, messages=[{"role": "user", "content": "x"}])
        return said.content[0].text

    sdks = {
        "boto3": lambda: aws.get_frozen_credentials().access_key,
        "google-auth": google_token,
        "azure-identity": entra_token,
        "anthropic": claude_token,
    }
    seen = {name: set() for name in sdks}
    for _ in range(ROUNDS):
        before = open(os.environ["AWS_WEB_IDENTITY_TOKEN_FILE"]).read()
        for name, token in sdks.items():
            seen[name].add(token())
        until = time.monotonic() + 30
        while open(os.environ["AWS_WEB_IDENTITY_TOKEN_FILE"]).read() == before:
            assert time.monotonic() < until, "no next token"
            time.sleep(0.1)
        time.sleep(1)
    for name, tokens in seen.items():
        assert len(tokens) == ROUNDS, (name, tokens)
        print(f"-- {name}: {ROUNDS} tokens, one after the other")


{"serve": serve, "use": use}[sys.argv[1]]()
