"""An agent that lists the tools of an MCP server: agent.py URL. In the conformance suite its assertions are made with the suite's key,
because its authorization server knows no other; otherwise it is the agent of `mayfly run`, and ISSUER is the URL of the issuer."""

import asyncio
import base64
import json
import os
import sys
import time
import uuid

import httpx2
import jwt
from mcp import Client
from mcp.client.auth.extensions.identity_assertion import IdentityAssertionOAuthProvider
from mcp.client.streamable_http import streamable_http_client

import mayfly
from mayfly.mcp import OAuth, Memory

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
TYPE = "urn:ietf:params:oauth:token-type:"


class OfSuite:
    """A client of the suite's authorization server."""

    ended = None

    def __init__(self, context):
        self.id, self._context = context["client_id"], context

    async def assertion(self, audience):
        if "valid_jwt" in self._context:
            return self._context["wrong_audience_jwt" if "WRONG" in os.environ else "valid_jwt"]
        claims = {"iss": self.id, "sub": self.id, "aud": audience, "exp": int(time.time()) + 60, "jti": str(uuid.uuid4())}
        return jwt.encode(claims, self._context["private_key_pem"], self._context["signing_algorithm"])


async def issuer_of(url):
    """What the MCP server says."""
    origin, _, path = url.partition("/mcp")
    async with httpx2.AsyncClient() as http:
        return (await http.get(f"{origin}/.well-known/oauth-protected-resource/mcp{path}")).json()["authorization_servers"][0]


def by_the_provider(context, url, issuer):
    """The enterprise's flow as the SDK has it, because this authorization server knows its clients by a secret alone."""

    async def id_jag(audience, resource):
        form = {
            "grant_type": EXCHANGE,
            "subject_token": context["idp_id_token"],
            "subject_token_type": f"{TYPE}id_token",
            "requested_token_type": f"{TYPE}id-jag",
            "audience": audience,
            "resource": resource,
        }
        async with httpx2.AsyncClient(auth=(context["idp_client_id"], "")) as http:
            return (await http.post(context["idp_token_endpoint"], data=form)).json()["access_token"]

    basic = "client_secret_basic"
    return IdentityAssertionOAuthProvider(
        url, Memory(), context["client_id"], context["client_secret"], issuer, id_jag, token_endpoint_auth_method=basic
    )


async def main(url):
    context = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}"))
    scenario = os.environ.get("MCP_CONFORMANCE_SCENARIO")
    if scenario == "auth/enterprise-managed-authorization":
        auth = by_the_provider(context, url, await issuer_of(url))
    elif scenario:
        auth = OAuth(OfSuite(context), url, issuer=await issuer_of(url), federated=scenario == "auth/wif-jwt-bearer")
    else:
        grant = os.environ["GRANT"]

        async def id_jag(issuer, resource):
            text = open(os.environ["ID_JAG"]).read().strip()
            claims = json.loads(base64.urlsafe_b64decode(text.split(".")[1] + "=="))
            assert (claims["aud"], claims["resource"]) == (issuer, resource), claims
            return text

        auth = OAuth(
            mayfly.current(os.environ["AS"]),
            url,
            issuer=os.environ["ISSUER"],
            federated=grant == "federated",
            id_jag=id_jag if grant == "id_jag" else None,
        )
    async with (
        httpx2.AsyncClient(auth=auth) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        tools = await client.list_tools()
        if scenario:
            return
        for _ in range(2):
            answer = await client.call_tool(tools.tools[0].name, {"topic": "ants"})
            print(answer.content[0].text, flush=True)
            sys.stdin.readline()


asyncio.run(main(sys.argv[1]))
